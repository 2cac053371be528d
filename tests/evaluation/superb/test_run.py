"""Every task from data to result in seconds, all tasks together, and one sentence for what is wrong."""

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from avtlm.config import ConfigError
from avtlm.evaluation.superb import run as superb
from avtlm.evaluation.superb.data import CorpusError
from avtlm.evaluation.superb.features import FilterBank
from avtlm.evaluation.superb.run import Settings
from tests.evaluation.superb import made_corpora

QUICK = ("steps=20", "evaluate_every=10", "batch=6", "accumulation=1", "lr=0.01")
SMALL = ("steps=8", "evaluate_every=8", "projection=16", "hidden=16", "dropout=0")
RECURRENT = (*QUICK, *SMALL, "spec_augment.frequency_width=4", "spec_augment.time_width=3")
TASKS: dict[str, tuple[str, ...]] = {
    "SID": (*QUICK, "projection=16"),
    "KS": (*QUICK, "projection=16"),
    "IC": (*QUICK, "projection=16"),
    "PR": (*QUICK, "projection=16", "steps=60", "lr=0.03", "evaluate_every=30"),
    "ASR": RECURRENT,
    "OOD-ASR": RECURRENT,
    "SF": RECURRENT,
    "ER": (*QUICK, "projection=16"),
    "ASV": (*QUICK, "dim=16", "pooled_dim=24", "least_seconds=0.3", "steps=40", "evaluate_every=20"),
    "SD": (*QUICK, "hidden=16", "steps=30", "evaluate_every=15"),
    "QbE": ("documents=4",),
}


def save(folder: Path, task: str) -> Path:
    makers: dict[str, Any] = {
        "ER": made_corpora.save_folds,
        "ASV": made_corpora.save_trials,
        "SD": made_corpora.save_turns,
        "QbE": made_corpora.save_queries,
    }
    return Path(makers[task](folder) if task in makers else made_corpora.save_simple(folder, task))


def settings(folder: Path, *overrides: str, **more: Any) -> Settings:
    return Settings(overrides, cache=folder / "cache", device="cpu", **more)


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_corpora.save_encoder(tmp_path_factory.mktemp("made") / "encoder")


@pytest.mark.parametrize("task", TASKS)
def test_every_task_runs_and_learns_what_one_hears(task: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ear = made_corpora.Ear() if task != "QbE" else FilterBank()  # whose deltas tell one pitch after another from the other way round
    monkeypatch.setattr(superb, "open_upstream", lambda model, device: ear)
    report = superb.run(task, "ear", save(tmp_path / "data", task), tmp_path / "out", settings(tmp_path, *TASKS[task]))
    (outcome,) = report.outcomes
    assert outcome.task == task
    value, *others = report.values.values()
    assert all(math.isfinite(each) for each in (value, *others))
    assert sum(outcome.weights) == pytest.approx(1.0)
    at_least = {"SID": 80.0, "KS": 80.0, "IC": 80.0, "ER": 80.0, "QbE": 0.99}
    at_most = {"PR": 40.0, "ASV": 20.0, "SD": 25.0}
    assert at_least.get(task, -1.0) < value < at_most.get(task, 1e9)
    assert json.loads((tmp_path / "out" / "results.json").read_text())["outcomes"][0]["task"] == task
    table = (tmp_path / "out" / "table.txt").read_text()
    assert "HuBERT Base" in table
    assert ear.name in table
    assert (tmp_path / "out" / "weights.png").stat().st_size > 1000


def test_the_mean_of_normed_filter_banks_says_nothing_about_a_clip(tmp_path: Path) -> None:
    # Linear map, mean over time, linear map: all that the benchmark's head sees of FBANK is a mean that was taken off before.
    data = made_corpora.save_simple(tmp_path / "data", "KS")
    report = superb.run("KS", "fbank", data, tmp_path / "out", settings(tmp_path, *TASKS["KS"]))
    assert report.values["KS accuracy"] == pytest.approx(100 / 3)


def test_an_encoder_is_frozen_and_its_layers_are_weighed(encoder: Path, tmp_path: Path) -> None:
    before = (encoder / "weights.safetensors").read_bytes()
    data = made_corpora.save_simple(tmp_path / "data", "KS")
    report = superb.run("ks", encoder, data, tmp_path / "out", settings(tmp_path, *TASKS["KS"]))
    weights = report.outcomes[0].weights
    assert len(weights) == 3
    assert sum(weights) == pytest.approx(1.0)
    assert max(weights) > 1 / 3
    assert report.parameters > 0
    assert (encoder / "weights.safetensors").read_bytes() == before
    assert report.outcomes[0].details["chosen on"] == "dev"


def test_a_sweep_takes_the_rate_that_is_best_on_dev_and_tells_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(superb, "open_upstream", lambda model, device: made_corpora.Ear())
    data = made_corpora.save_simple(tmp_path / "data", "KS")
    chosen = settings(tmp_path, *QUICK, "projection=16", rates=(1e-9, 1e-2))
    (outcome,) = superb.run("KS", "ear", data, tmp_path / "out", chosen).outcomes
    assert outcome.details["lr"] == 1e-2
    swept = outcome.details["dev by lr"]
    assert set(swept) == {"1e-09", "0.01"}
    assert swept["0.01"] > swept["1e-09"]


def test_a_rate_that_diverges_is_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from avtlm.evaluation.superb.classification import KeywordSpotting
    from avtlm.objectives.loss import Loss

    plain = KeywordSpotting.loss

    def loss(self: KeywordSpotting, head: Any, heard: Any, generator: torch.Generator) -> Loss:
        found = plain(self, head, heard, generator)
        return Loss(found.value * (float("nan") if self.config.lr > 1 else 1.0), found.count)

    monkeypatch.setattr(KeywordSpotting, "loss", loss)
    data = made_corpora.save_simple(tmp_path / "data", "KS")
    said: list[str] = []
    chosen = settings(tmp_path, *QUICK, "projection=16", rates=(2.0, 1e-2), say=said.append)
    (outcome,) = superb.run("KS", "fbank", data, tmp_path / "out", chosen).outcomes
    assert outcome.details["lr"] == 1e-2
    assert any("choose a smaller lr" in line for line in said)


def test_folds_are_averaged_and_each_clip_is_tested_once(tmp_path: Path) -> None:
    data = made_corpora.save_folds(tmp_path / "data")
    (outcome,) = superb.run("ER", "fbank", data, tmp_path / "out", settings(tmp_path, *TASKS["ER"])).outcomes
    folds = outcome.details["folds"]
    assert len(folds) == 3
    assert outcome.metrics["accuracy"] == pytest.approx(sum(folds) / 3)
    parts = superb._parts(superb.Corpus.read(data), superb.find("ER")[1])
    tested = [clip.id for part in parts.values() for clip in part.split("test")]
    assert sorted(tested) == sorted(set(tested))
    assert len(tested) == 18
    for part in parts.values():
        ids = [{clip.id for clip in part.split(split)} for split in ("train", "dev", "test")]
        assert len(set.union(*ids)) == sum(map(len, ids)) == 18


def test_without_a_dev_set_of_trials_test_chooses_and_it_is_said(tmp_path: Path) -> None:
    data = made_corpora.save_trials(tmp_path / "data")
    (outcome,) = superb.run("ASV", "fbank", data, tmp_path / "out", settings(tmp_path, *TASKS["ASV"])).outcomes
    assert outcome.details["chosen on"] == "test"


def test_one_failing_task_ends_no_other_and_is_reported(tmp_path: Path) -> None:
    made_corpora.save_simple(tmp_path / "data" / "ks", "KS")
    made_corpora.write_task(tmp_path / "data" / "broken", "SID")
    both = superb.run("all", "fbank", tmp_path / "data", tmp_path / "out", settings(tmp_path, "KS:steps=4", "sid:nothing=1"))
    assert [outcome.task for outcome in both.outcomes] == ["KS"]
    assert "key 'nothing' is not known" in both.failures["SID made SID"]
    again = superb.run("all", "fbank", tmp_path / "data", tmp_path / "out", settings(tmp_path, "KS:steps=4"))
    assert "train.jsonl does not exist, and SID needs it" in again.failures["SID made SID"]
    assert json.loads((tmp_path / "out" / "results.json").read_text())["failures"]


def test_what_is_finished_is_not_done_again_and_other_settings_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = made_corpora.save_simple(tmp_path / "data", "KS")
    first = superb.run("KS", "fbank", data, tmp_path / "out", settings(tmp_path, *TASKS["KS"]))
    monkeypatch.setattr(superb.Training, "run", lambda self: pytest.fail("it was trained again"))
    again = superb.run("KS", "fbank", data, tmp_path / "out", settings(tmp_path, *TASKS["KS"]))
    assert again.outcomes == first.outcomes
    with pytest.raises(ValueError, match="other settings, data or weights"):
        superb.run("KS", "fbank", data, tmp_path / "out", settings(tmp_path, *TASKS["KS"], "seed=1"))


def test_the_mean_of_several_corpora_stands_in_the_table(tmp_path: Path) -> None:
    for name in ("es", "zh-CN"):
        made_corpora.save_simple(tmp_path / "data" / name, "OOD-ASR", metric="cer" if name == "zh-CN" else "wer")
    report = superb.run("OOD-ASR", "fbank", tmp_path / "data", tmp_path / "out", settings(tmp_path, *RECURRENT, "steps=4"))
    found = [outcome.metrics["WER"] for outcome in report.outcomes]
    assert report.values == {"OOD-ASR WER": sum(found) / 2}


def test_what_cannot_be_run_is_said_in_a_sentence(tmp_path: Path) -> None:
    data = made_corpora.save_simple(tmp_path / "data", "KS")
    with pytest.raises(ConfigError, match="did you mean OOD-ASR"):
        superb.run("oodasr", "fbank", data, tmp_path / "out")
    with pytest.raises(CorpusError, match="nothing for SID"):
        superb.run("SID", "fbank", data, tmp_path / "out")
    with pytest.raises(CorpusError, match=r"task\.json"):
        superb.run("KS", "fbank", tmp_path / "none", tmp_path / "out")
    with pytest.raises(ConfigError, match="did you mean"):
        superb.run("KS", "fbank", data, tmp_path / "out", settings(tmp_path, "projektion=3"))
    with pytest.raises(ConfigError, match="steps: 0"):
        superb.run("KS", "fbank", data, tmp_path / "out", settings(tmp_path, "steps=0"))
    (data / "dev.jsonl").unlink()
    with pytest.raises(CorpusError, match="to choose among learning rates by"):
        superb.run("KS", "fbank", data, tmp_path / "out", settings(tmp_path, rates=(1.0, 2.0)))


def test_a_label_that_training_lacks_is_named_with_its_line(tmp_path: Path) -> None:
    data = made_corpora.save_simple(tmp_path / "data", "KS")
    rows = [json.loads(line) for line in (data / "test.jsonl").read_text().splitlines()]
    rows[1]["label"] = "nowhere"
    made_corpora.write_rows(data / "test.jsonl", rows)
    with pytest.raises(CorpusError, match=r"test\.jsonl, line 2: test-1 has the label 'nowhere', which no clip of training has"):
        superb.run("KS", "fbank", data, tmp_path / "out", settings(tmp_path, *TASKS["KS"], "steps=2"))
