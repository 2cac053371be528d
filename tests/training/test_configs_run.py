"""Every configuration of the systems over waveforms trains: its sizes shrunk, its data made, all else as it stands."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from avtlm import config
from avtlm.plain_yaml import read_yaml
from avtlm.systems import load, load_encoder
from avtlm.training.initial import merged
from avtlm.training.loop import TrainConfig, train
from avtlm.units.labels import read_labels, write_labels
from tests.made_corpus import MadeCorpus, make_corpus
from tests.test_configs import ROOT, read

SYSTEMS = ("hubert", "wav2vec2", "wavlm", "data2vec", "mt4ssl")
FILES = {str(path.relative_to(ROOT)): path for system in SYSTEMS for path in sorted((ROOT / system).glob("*.yaml"))}
PRETRAINING = {f"{read(path).output}/model": path for path in FILES.values() if read(path).task == "pretrain"}
FINETUNING = [name for name, path in FILES.items() if read(path).task == "recognition"]
LABELS = {25: "25.units", 50: "50.units", 100: "100.units"}
# A published run masks spans of 64 channels and of ten frames; the shrunk network has 16 channels.
SMALL = {"steps": 2, "log_every": 1, "save_every": 2, "workers": 0, "threads": 1, "precision": "fp32", "max_rows": 2}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> MadeCorpus:
    """Clips of a second or so, with units at three rates beside them."""
    made = make_corpus(tmp_path_factory.mktemp("corpus"), 8)
    labels = read_labels(made.units)
    for rate, name in LABELS.items():
        write_labels(made.units.with_name(name), {key: np.repeat(row, rate // 25) for key, row in labels.items()})
    return made


def shrunk(path: Path, corpus: MadeCorpus, output: Path) -> dict[str, Any]:
    """A configuration with a small network on made data; the network of a fine-tuning is that of the model it starts from."""
    settings: dict[str, Any] = merged(read_yaml(path), SMALL | {"output": str(output)})
    model = settings["model"]
    if settings["task"] == "pretrain":
        waveform, heads = model["waveform"], {"dim": 16, "layers": 2, "heads": 2, "feed_forward_dim": 16, "position_groups": 2}
        count = len(waveform.get("widths", (0,) * 7))
        small: dict[str, Any] = {"waveform": {"widths": [8] * count}, "encoder": heads}
        small |= {"targets": {"layers": 2}} if "targets" in model else {}
        settings["model"] = merged(model, small)
    for source in [*settings["sources"].values(), *([settings["validation"]] if settings.get("validation") else [])]:
        source |= {"manifest": str(corpus.sound), "min_seconds": 0.2}
        if source.get("units"):
            source["units"] = str(corpus.units.with_name(LABELS[int(model["label_rate"])]))
    return settings


@pytest.fixture(scope="module")
def pretrained(corpus: MadeCorpus, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A shrunk run of every pre-training configuration, by the name that fine-tuning knows it by."""
    folder = tmp_path_factory.mktemp("pretrained")
    made = {}
    for number, (name, path) in enumerate(PRETRAINING.items()):
        made[name] = train(config.load(TrainConfig, shrunk(path, corpus, folder / str(number))))
    return made


def test_every_pre_training_runs_and_leaves_an_encoder(pretrained: dict[str, Path]) -> None:
    assert len(pretrained) >= 16
    for model in pretrained.values():
        assert load_encoder(model)[1].waveform


@pytest.mark.parametrize("name", FINETUNING)
def test_every_fine_tuning_runs_from_the_model_it_names(corpus: MadeCorpus, pretrained: dict[str, Path], tmp_path: Path, name: str) -> None:
    settings = shrunk(FILES[name], corpus, tmp_path / "run")
    start = pretrained[settings["initialise"]]
    model = train(config.load(TrainConfig, settings | {"initialise": str(start), "validate_every": 2 if "validation" in settings else 0}))
    found = load(model)
    published = read(FILES[name])
    assert len(found.vocabulary) == (32 if "finetune_1" in name or "large" in name else 11)
    frozen = published.model["encoder"]["feature_gradient_scale"] == 0
    assert found.encoder.config.feature_gradient_scale == (0.0 if frozen else 1.0)


@pytest.mark.parametrize("system", SYSTEMS)
def test_every_system_has_the_settings_for_three_amounts_of_labels(system: str) -> None:
    for amount, steps in (("100h", 80_000), ("10h", 20_000), ("1h", 13_000)):
        settings = read(ROOT / system / f"finetune_{amount}.yaml")
        assert settings.vocabulary == "letters"
        assert settings.steps == (25_000 if (system, amount) == ("hubert", "10h") else steps)
        assert settings.optim.schedule == "tri_stage"
        assert settings.optim.final_ratio == 0.05
        heads = settings.model
        assert heads["encoder"]["feature_gradient_scale"] == 0.0
        assert heads["audio_mask"]["prob"] == (0.75 if (system, amount) == ("hubert", "10h") else 0.65)
        assert heads["channel_mask"] == {"prob": 0.25 if amount == "1h" else 0.5, "length": 64, "min_spans": 0}
        frozen = 0 if amount == "100h" or system in ("data2vec", "mt4ssl") else 10_000
        assert heads["freeze_encoder_steps"] == frozen
    assert (ROOT / system / "tiny_finetune.yaml").exists()
