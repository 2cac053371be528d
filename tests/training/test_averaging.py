"""Averaging the models of a run."""

import json
from pathlib import Path

import pytest
import torch

from avtlm import checkpoint, systems
from avtlm.training.averaging import average
from avtlm.training.state import FOLDER
from tests.made_corpus import MadeCorpus, make_corpus
from tests.training.made_runs import journal, recognition, run, same, weights


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> MadeCorpus:
    return make_corpus(tmp_path_factory.mktemp("corpus"), 24)


@pytest.fixture(scope="module")
def averaged(corpus: MadeCorpus, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that kept its best two of four validated models."""
    folder = tmp_path_factory.mktemp("run")
    return run(recognition(corpus, folder, steps=8, validate_every=2, average=2, save_every=3)).parent


def test_a_run_averages_its_best_models(averaged: Path) -> None:
    rates = {line["step"]: line["valid_wer"] for line in journal(averaged / "model") if "valid_wer" in line}
    best = sorted(sorted(rates, key=lambda step: (rates[step], step))[:2])
    assert sorted(path.name for path in (averaged / "candidates").iterdir()) == [f"step{step}" for step in best]
    parts = [weights(averaged / "candidates" / f"step{step}") for step in best]
    mean = weights(averaged / "average")
    assert mean.keys() == parts[0].keys()
    for name, value in mean.items():
        wanted = (parts[0][name].double() + parts[1][name].double()) / 2 if value.is_floating_point() else parts[1][name]
        assert torch.equal(value, wanted.to(value.dtype)), name


def test_the_average_is_a_whole_model_without_trainer_state(averaged: Path) -> None:
    model = systems.load(averaged / "average")
    assert model.vocabulary.symbols == systems.load(averaged / "model").vocabulary.symbols
    assert not (averaged / "average" / FOLDER).exists()
    assert checkpoint.load_decoding(averaged / "average") == checkpoint.load_decoding(averaged / "model")


def test_a_run_stopped_on_its_way_averages_the_same_models(averaged: Path, corpus: MadeCorpus, tmp_path: Path) -> None:
    settings = recognition(corpus, tmp_path, validate_every=2, average=2, save_every=3)
    run(settings | {"steps": 8})
    # As if it had been killed after step 5, when its last checkpoint was that of step 3.
    state = tmp_path / "model" / FOLDER / "state.json"
    assert json.loads(state.read_text())["step"] == 8
    assert same(tmp_path / "average", averaged / "average")
    again = run(settings | {"steps": 8})
    assert same(again.parent / "average", averaged / "average")


def test_models_of_two_runs_and_single_models_are_refused(averaged: Path, corpus: MadeCorpus, tmp_path: Path) -> None:
    other = run(recognition(corpus, tmp_path / "other", steps=1, model={"dropout": 0.2, "encoder": {"units": 7}}))
    with pytest.raises(ValueError, match="has another configuration than"):
        average([averaged / "model", other], tmp_path / "mean")
    with pytest.raises(ValueError, match="give at least two"):
        average([averaged / "model"], tmp_path / "mean")
    assert not (tmp_path / "mean").exists()


@pytest.mark.parametrize("changes", [{"average": 1, "validate_every": 2}, {"average": 2}, {"average": -1, "validate_every": 2}])
def test_impossible_settings_are_refused(corpus: MadeCorpus, tmp_path: Path, changes: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="average: "):
        run(recognition(corpus, tmp_path / "run", **changes))
    assert not (tmp_path / "run").exists()
