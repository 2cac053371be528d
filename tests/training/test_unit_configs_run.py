"""Every configuration of SpeechLM and SpeechUT trains: its sizes shrunk, its data made, all else as it stands."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from avtlm import config, systems
from avtlm.data.manifest import Manifest, read_manifest, write_manifest
from avtlm.plain_yaml import read_yaml
from avtlm.training.initial import merged
from avtlm.training.loop import TrainConfig, train
from tests.made_corpus import MadeCorpus, make_corpus
from tests.test_configs import ROOT, read
from tests.training.made_runs import with_units_at_50_hz

FILES = {f"{path.parent.name}/{path.stem}": path for name in ("speechlm", "speechut") for path in sorted((ROOT / name).glob("*.yaml"))}
PRETRAINING = {f"{read(path).output}/model": name for name, path in FILES.items() if read(path).task == "pretrain"}
FINETUNING = [name for name, path in FILES.items() if read(path).task != "pretrain"]
# Published runs hide spans of 64 channels; the shrunk network has 16 of them, and clips of a second or so.
SMALL = {"steps": 2, "log_every": 1, "save_every": 2, "workers": 0, "threads": 1, "precision": "fp32", "max_rows": 2, "accumulate": 2}
SIZES = {"dim": 16, "layers": 1, "heads": 2, "feed_forward_dim": 16, "key_distance": 4}
NETWORK: dict[str, Any] = {
    "waveform": {"widths": [8] * 7},
    "encoder": SIZES | {"position_kernel": 4, "position_groups": 2},
    "unit_encoder": SIZES,
}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> MadeCorpus:
    """With translations."""
    folder = tmp_path_factory.mktemp("corpus")
    made = with_units_at_50_hz(make_corpus(folder, 12), folder)
    for path in (made.sound, made.text):
        rows = [replace(row, extra={"translation": (row.transcript or "")[::-1]}) for row in read_manifest(path)]
        write_manifest(path, Manifest(path.parent, tuple(rows)))
    return made


def shrunk(name: str, corpus: MadeCorpus, output: Path) -> dict[str, Any]:
    settings: dict[str, Any] = merged(read_yaml(FILES[name]), SMALL | {"output": str(output)})
    if settings["task"] == "pretrain":
        settings["model"] = merged(settings["model"], NETWORK | {"label_rate": 50})
    if settings["model"].get("decoder"):
        settings["model"]["decoder"] |= SIZES
    for source in [*settings["sources"].values(), *([settings["validation"]] if settings.get("validation") else [])]:
        of_text = source["task"] == "units" and (source.get("written", "transcript") is not None or name.startswith("speechut/tiny"))
        source |= {"manifest": str(corpus.text if of_text else corpus.sound), "min_seconds": 0.2}
        if source.get("units"):
            source["units"] = str(corpus.units)
    if "average" in settings:
        settings["average"] = 2
    if settings["task"] == "transcription" and settings["decoding"]["method"] != "ctc_greedy":
        # Models that have learned nothing never end by themselves.
        settings["decoding"] |= {"beam": 2, "max_length_ratio": 0.0, "max_length_extra": 10.0}
    if settings.get("subwords"):
        settings["subwords"] = 13
    if settings.get("vocabulary") == "letters":
        settings["vocabulary"] = "characters"  # those of the made transcripts
    return settings


@pytest.fixture(scope="module")
def pretrained(corpus: MadeCorpus, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A shrunk run of every pre-training configuration, by the name that fine-tuning knows it by."""
    folder = tmp_path_factory.mktemp("pretrained")
    return {model: train(config.load(TrainConfig, shrunk(name, corpus, folder / name))) for model, name in PRETRAINING.items()}


def test_every_pretraining_runs(pretrained: dict[str, Path]) -> None:
    assert len(pretrained) >= 8
    assert all(systems.load_encoder(model)[1].first_unit == 4 for model in pretrained.values())


@pytest.mark.parametrize("name", FINETUNING)
def test_every_finetuning_runs_from_the_model_it_names(corpus: MadeCorpus, pretrained: dict[str, Path], tmp_path: Path, name: str) -> None:
    settings = shrunk(name, corpus, tmp_path / "run")
    start = pretrained[settings["initialise"]]
    model = train(config.load(TrainConfig, settings | {"initialise": str(start), "validate_every": 1}))
    found, _ = systems.load_whole(model, "transcription")
    assert found.config.task == "recognition"  # type: ignore[union-attr]
    assert (model.parent / "best" / "weights.safetensors").exists()


@pytest.mark.parametrize(
    ("name", "lr", "steps", "warmup"),
    [
        ("speechut/base", 5e-4, 400_000, 32_000),
        ("speechut/base_st", 5e-4, 400_000, 32_000),
        ("speechut/large", 5e-4, 400_000, 32_000),
        ("speechut/finetune_100h", 1e-5, 40_000, 4_000),
        ("speechut/finetune_st", 3e-5, 50_000, 5_000),
    ],
)
def test_published_settings(name: str, lr: float, steps: int, warmup: int) -> None:
    settings = read(FILES[name])
    assert (settings.optim.lr, settings.steps) == (lr, steps)
    assert settings.optim.warmup * steps == pytest.approx(warmup, abs=1)
