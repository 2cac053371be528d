"""Configurations of runs of a tiny SpeechT5 on the made corpus."""

from pathlib import Path
from typing import Any

import numpy as np

from tests.made_corpus import MadeCorpus, make_corpus
from tests.training.made_runs import with_units_at_50_hz

SIZES = {"dim": 32, "layers": 2, "heads": 2, "feed_forward_dim": 48, "norm_first": False, "layer_drop": 0.1}
MODEL: dict[str, Any] = {
    "waveform": {"widths": [16] * 7, "dropout": 0.1},
    "encoder": {**SIZES, "position_kernel": 0, "key_distance": 8},
    "decoder": {**SIZES, "activation": "gelu"},
    "mask": {"prob": 0.5, "length": 3},
    "feature_gradient_scale": 1.0,
    "position_kernel": 6,
    "position_groups": 4,
    "units": 6,
    "final_dim": 8,
    "codebook": {"groups": 2, "entries": 5},
    "mixing": 0.3,
    "spectrogram": {"prenet_width": 16, "voice_dim": 3, "postnet_layers": 2, "postnet_width": 8},
}


def make_spoken_corpus(folder: Path, count: int = 24) -> MadeCorpus:
    """The made corpus with units at 50 Hz, and with ``voices.npz`` beside them."""
    made = with_units_at_50_hz(make_corpus(folder, count), folder)
    np.savez(voices(made), **{f"s{number}": np.eye(4, 3, dtype=np.float32)[number] + 0.1 for number in range(4)})
    return made


def voices(corpus: MadeCorpus) -> str:
    return str(corpus.units.with_name("voices.npz"))


def pretraining(corpus: MadeCorpus, output: Path, **changes: Any) -> dict[str, Any]:
    settings = {
        "system": "speecht5",
        "task": "pretrain",
        "output": str(output),
        "sources": {
            "speech": {
                "manifest": str(corpus.sound),
                "task": "speech",
                "units": str(corpus.units),
                "voices": voices(corpus),
                "crop_frames": 40,
            },
            "text": {"manifest": str(corpus.text), "task": "infilling", "max_frames": 40},
        },
        "model": MODEL,
        "mixing": {"kind": "temperature", "temperature": float("inf")},
        "accumulate": 2,
        "steps": 12,
        "max_rows": 4,
        "log_every": 3,
        "save_every": 4,
        "threads": 1,
        "tensorboard": False,
        "optim": {"lr": 0.003, "schedule": "linear", "clip_norm": 5.0},
    }
    return settings | changes


def finetuning(corpus: MadeCorpus, output: Path, kind: str, **changes: Any) -> dict[str, Any]:
    """``kind`` of source: recognition, synthesis, conversion or speaker; from scratch, with the model's sizes, but for ``initialise``."""
    task = {"recognition": "transcription", "speaker": "speaker"}.get(kind, "generation")
    source: dict[str, Any] = {"manifest": str(corpus.sound), "task": kind}
    source |= {"voices": voices(corpus)} if task == "generation" else {}
    model = {name: value for name, value in MODEL.items() if name not in ("units", "codebook")}
    settings = pretraining(corpus, output) | {
        "task": task,
        "sources": {"all": source},
        "validation": source | {"split": "valid"},
        "mixing": {},
        "accumulate": 1,
        "model": model if changes.get("initialise") is None else {},
    }
    return settings | changes
