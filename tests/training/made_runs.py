"""Configurations of runs that take a second, on a corpus that can be learned in seconds."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.torch import load_file
from torch import Tensor

from avtlm import config
from avtlm.training.loop import TrainConfig, Trainer, train
from avtlm.training.meter import RATES
from avtlm.units.labels import read_labels, write_labels
from tests.made_corpus import MadeCorpus

LIPS = {
    "size": 22,
    "stem_channels": 4,
    "stem_stride": 2,
    "stem_pool": False,
    "widths": [8],
    "blocks": [1],
    "strides": [2],
    "reduce": "flatten",
}
MODEL: dict[str, Any] = {
    "units": 6,
    "final_dim": 8,
    "audio_mask": {"prob": 0.5, "length": 3},
    "video_mask": {"prob": 0.3, "length": 3},
    "text_mask": {"prob": 0.5, "length": 3},
    "same_mask_count": False,
    "dropout_per_row": True,
    "feature_penalty": 0.1,
    "feature_gradient_scale": 1.0,
    "frontends": {"phones": 12, "feature_norm": True, "lips": LIPS},
    "encoder": {
        "dim": 32,
        "layers": 2,
        "heads": 2,
        "feed_forward_dim": 48,
        "position_kernel": 6,
        "position_groups": 4,
        "layer_drop": 0.1,
    },
}
LOUD = {"noise": {"prob": 0.5, "snr_low": 0.0, "snr_high": 10.0, "voices": 2, "ramp": 0.5}, "frequency_warp": 0.04, "frequency_masks": 1}
DECODER = {"dim": 32, "layers": 1, "heads": 2, "feed_forward_dim": 48}


def pretraining(corpus: MadeCorpus, output: Path, **changes: Any) -> dict[str, Any]:
    kinds = {"audio_video": corpus.clips, "audio": corpus.sound, "audio_text": corpus.sound, "text": corpus.text}
    sources: dict[str, Any] = {
        task: {"manifest": str(path), "task": task, "units": str(corpus.units), "weight": 1.0 if task == "audio_video" else 0.6}
        for task, path in kinds.items()
    }
    sources["audio_video"]["augment"] = LOUD
    settings = {
        "system": "vatlm",
        "task": "pretrain",
        "output": str(output),
        "sources": sources,
        "model": MODEL,
        "steps": 12,
        "max_rows": 4,
        "log_every": 3,
        "save_every": 4,
        "threads": 1,
        "tensorboard": False,
        "optim": {"lr": 0.003, "schedule": "cosine", "clip_norm": 2.0},
    }
    return settings | changes


def recognition(corpus: MadeCorpus, output: Path, **changes: Any) -> dict[str, Any]:
    settings = pretraining(corpus, output) | {
        "task": "recognition",
        "sources": {"labelled": {"manifest": str(corpus.clips), "task": "recognition"}},
        "validation": {"manifest": str(corpus.clips), "task": "recognition", "split": "valid"},
        "model": {"encoder": MODEL, "modality_dropout": 0.0, "dropout": 0.0},
    }
    return settings | changes


def with_units_at_50_hz(corpus: MadeCorpus, folder: Path) -> MadeCorpus:
    """The same with labels for models over waveforms, in a file of their own."""
    write_labels(folder / "all.units", {name: np.repeat(row, 2) for name, row in read_labels(corpus.units).items()})
    return MadeCorpus(corpus.clips, corpus.sound, corpus.text, folder / "all.units")


def run(settings: dict[str, Any]) -> Path:
    return train(config.load(TrainConfig, settings))


def broken_and_resumed(settings: dict[str, Any], number: int = 7) -> Path:
    """The model of a run that breaks off before an update, without a checkpoint of it, and is started again."""
    step = Trainer._step

    def stop(self: Trainer, now: int, *rest: Any) -> None:
        if now == number:
            raise KeyboardInterrupt
        step(self, now, *rest)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "_step", stop)
        with pytest.raises(KeyboardInterrupt):
            run(settings)
    return run(settings)


def journal(model: Path) -> list[dict[str, float]]:
    """Log lines without what the clock says."""
    lines = [json.loads(line) for line in (model.parent / "log.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name not in RATES} for line in lines]


def weights(model: Path) -> dict[str, Tensor]:
    return load_file(model / "weights.safetensors")


def same(one: Path, two: Path) -> bool:
    """Files of weights equal to the last byte."""
    return (one / "weights.safetensors").read_bytes() == (two / "weights.safetensors").read_bytes()
