"""Every configuration of SpeechT5 trains: its sizes shrunk, its data made, all else as it stands."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from avtlm import config, systems
from avtlm.data.manifest import Manifest, read_manifest, write_manifest
from avtlm.plain_yaml import read_yaml
from avtlm.training.initial import merged
from avtlm.training.loop import TrainConfig, train
from tests.made_corpus import MadeCorpus
from tests.test_configs import ROOT, read
from tests.training.made_whole import make_spoken_corpus

FILES = {path.stem: path for path in sorted((ROOT / "speecht5").glob("*.yaml"))}
PRETRAINING = {f"{read(path).output}/model": name for name, path in FILES.items() if read(path).task == "pretrain"}
FINETUNING = [name for name, path in FILES.items() if read(path).task != "pretrain"]
# Published runs hide spans of 64 channels; the shrunk network has 16 of them, and clips of a second or so.
SMALL = {"steps": 2, "log_every": 1, "save_every": 2, "workers": 0, "threads": 1, "precision": "fp32", "max_rows": 2, "accumulate": 2}
NETWORK: dict[str, Any] = {
    "waveform": {"widths": [8] * 7},
    "encoder": {"dim": 16, "layers": 2, "heads": 2, "feed_forward_dim": 16, "key_distance": 4},
    "decoder": {"dim": 16, "layers": 1, "heads": 2, "feed_forward_dim": 16},
    "position_kernel": 4,
    "position_groups": 2,
    "spectrogram": {"prenet_width": 8, "postnet_width": 8},
}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> MadeCorpus:
    """With translations, and with the next clip as the target of each."""
    made = make_spoken_corpus(tmp_path_factory.mktemp("corpus"), 12)
    rows = read_manifest(made.sound).utterances
    paired = [
        replace(row, extra={"translation": (row.transcript or "")[::-1], "target": following.id})
        for row, following in zip(rows, (*rows[1:], rows[0]), strict=True)
    ]
    write_manifest(made.sound, Manifest(made.sound.parent, tuple(paired)))
    rng = np.random.default_rng(0)
    np.savez(made.units.with_name("wide.npz"), **{f"s{number}": rng.normal(size=512).astype(np.float32) for number in range(4)})
    return made


def shrunk(name: str, corpus: MadeCorpus, output: Path) -> dict[str, Any]:
    settings: dict[str, Any] = merged(read_yaml(FILES[name]), SMALL | {"output": str(output)})
    if settings["task"] == "pretrain":
        settings["model"] = merged(settings["model"], NETWORK)
    for source in [*settings["sources"].values(), *([settings["validation"]] if settings.get("validation") else [])]:
        source |= {"manifest": str(corpus.text if source["task"] == "infilling" else corpus.sound), "min_seconds": 0.2}
        for key, file in (("units", corpus.units.name), ("voices", "wide.npz")):
            if source.get(key):
                source[key] = str(corpus.units.with_name(file))
    if "average" in settings:
        settings["average"] = 2
    if settings["task"] == "transcription":  # models that have learned nothing never end by themselves
        settings["decoding"] |= {"beam": 2, "max_length_ratio": 0.0, "max_length_extra": 10.0}
    if settings.get("subwords"):
        settings["subwords"] = 13
    return settings


@pytest.fixture(scope="module")
def pretrained(corpus: MadeCorpus, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A shrunk run of every pre-training configuration, by the name that fine-tuning knows it by."""
    folder = tmp_path_factory.mktemp("pretrained")
    return {model: train(config.load(TrainConfig, shrunk(name, corpus, folder / name))) for model, name in PRETRAINING.items()}


def test_every_pretraining_runs(pretrained: dict[str, Path]) -> None:
    assert len(pretrained) == 3
    assert all(systems.load_encoder(model)[1].mel_bands == 80 for model in pretrained.values())


@pytest.mark.parametrize("name", FINETUNING)
def test_every_finetuning_runs_from_the_model_it_names(corpus: MadeCorpus, pretrained: dict[str, Path], tmp_path: Path, name: str) -> None:
    settings = shrunk(name, corpus, tmp_path / "run")
    start = pretrained[settings["initialise"]]
    model = train(config.load(TrainConfig, settings | {"initialise": str(start), "validate_every": 1}))
    found, _ = systems.load_whole(model, read(FILES[name]).task)
    assert found.config.units == 0  # type: ignore[union-attr]
    assert (model.parent / "best" / "weights.safetensors").exists()


def test_there_is_a_configuration_for_every_task_at_both_sizes() -> None:
    for size, asr in (("tiny", "asr"), ("finetune", "asr_100h")):
        tasks = {name: read(FILES[f"{size}_{name}"]).task for name in (asr, "st", "tts", "vc", "se", "sid")}
        assert list(tasks.values()) == ["transcription", "transcription", "generation", "generation", "generation", "speaker"]


@pytest.mark.parametrize(
    ("name", "lr", "steps", "warmup", "frozen"),
    [
        ("finetune_asr_100h", 6e-5, 80_000, 8_000, 13_000),
        ("finetune_tts", 1e-4, 120_000, 10_000, 20_000),
        ("finetune_st", 2e-4, 80_000, 25_000, 0),
        ("finetune_vc", 1e-4, 60_000, 6_000, 0),
        ("finetune_se", 1e-4, 100_000, 10_000, 0),
        ("finetune_sid", 2e-4, 60_000, 0, 0),
        ("base", 2e-4, 500_000, 40_000, 0),
    ],
)
def test_published_settings(name: str, lr: float, steps: int, warmup: int, frozen: int) -> None:
    settings = read(FILES[name])
    assert (settings.optim.lr, settings.steps, settings.model.get("freeze_encoder_steps", 0)) == (lr, steps, frozen)
    assert settings.optim.warmup * steps == pytest.approx(warmup, abs=1)
