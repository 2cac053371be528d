"""Reading a folder: everything that is there, names that differ, and no surprise from files of others."""

import json
from pathlib import Path

import pytest

from avtlm.evaluation.report.configuration import changed_settings
from avtlm.evaluation.report.errors import condition_name
from avtlm.evaluation.report.folder import Run, flattened, has_rates, is_evaluation, read_run, read_runs
from avtlm.evaluation.report.results import condition_order
from tests.made_model import save_tiny_recognizer


def write_log(folder: Path, *lines: dict[str, object]) -> Path:
    folder.mkdir(parents=True)
    (folder / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def test_lines_of_a_log_become_figures_by_steps(tmp_path: Path) -> None:
    sample = {"id": "u", "reference": "a", "text": "b"}
    lines = [{"step": 4, "loss": 2.0}, {"step": 2, "loss": 3.0, "lr": 0.1}, {"step": 4, "loss": 1.5, "name": "x", "flag": True},
             {"step": 4, "valid_wer": 0.5, "samples": [sample, {"id": 3}, "x"]}]  # fmt: skip
    run = read_run(write_log(tmp_path / "run", *lines), "run")
    assert run.log == {"loss": [(2, 3.0), (4, 1.5)], "lr": [(2, 0.1)], "valid_wer": [(4, 0.5)]}
    assert run.samples == [sample]
    assert run.problems == []


def test_a_model_folder_alone_is_a_run(tmp_path: Path) -> None:
    folder = save_tiny_recognizer(tmp_path / "model")
    [run] = read_runs([folder])
    assert run.model == folder
    assert (run.facts["system"], run.facts["task"]) == ("vatlm", "recognition")
    assert int(run.facts["parameters"].replace(",", "")) > 1000
    assert run.settings["system"] == "vatlm"


def test_runs_of_one_name_are_told_apart_and_stages_are_found(tmp_path: Path) -> None:
    for folder in ("a/x/run", "b/x/run", "pipeline/1_first", "pipeline/2_second"):
        write_log(tmp_path / folder, {"step": 1, "loss": 1.0})
    runs = read_runs([tmp_path / "a" / "x" / "run", tmp_path / "b" / "x" / "run", tmp_path / "pipeline"])
    assert [run.name for run in runs] == ["a/x/run", "b/x/run", "pipeline/1_first", "pipeline/2_second"]


def test_json_files_of_others_are_none_of_our_business(tmp_path: Path) -> None:
    folder = write_log(tmp_path / "run", {"step": 1, "loss": 1.0})
    (folder / "package.json").write_text('{"name": "x", "version": 3}')
    (folder / "list.json").write_text("[1, 2]")
    (folder / "deep.json").write_text("[" * 100_000)
    run = read_run(folder, "run")
    assert (run.evaluations, run.cells) == ({}, [])
    assert len(run.problems) == 1
    assert "deep.json" in run.problems[0]


@pytest.mark.parametrize(
    ("content", "rates", "known"),
    [
        ({"wer": {"a": {"clean": 3.0}}}, True, True),
        ({"wer": {"a": {"clean": "3"}}}, False, False),
        ({"wer": {"x": {"clean": 3.0}}}, False, False),
        ({"wer": 12.5, "model": "m", "manifest": "x"}, False, True),
        ({"model": "m", "equal_error_rate": 3.2}, False, True),
        ({"model": "m"}, False, False),
    ],
)
def test_figures_are_known_by_what_they_hold(content: dict[str, object], rates: bool, known: bool) -> None:
    assert (has_rates(content), is_evaluation(content)) == (rates, known)


def test_settings_are_compared_by_dotted_keys() -> None:
    one, two = ({"optim": {"lr": lr, "betas": [0.9, 0.98]}, "ema": None, "empty": {}} for lr in (0.1, 0.2))
    assert dict(flattened(one)) == {"optim.lr": 0.1, "optim.betas": [0.9, 0.98], "ema": None, "empty": {}}
    runs = [Run(name, Path(name), settings=dict(flattened(settings))) for name, settings in (("a", one), ("b", {**two, "new": True}))]
    assert changed_settings(runs) == [("optim.lr", ["0.1", "0.2"]), ("new", ["(not set)", "true"])]


def test_conditions_are_named_and_in_order() -> None:
    assert condition_order(["-5", "clean", "odd", "10", "0"]) == ["clean", "10", "0", "-5", "odd"]
    assert condition_name({"snr": -5.0, "noise": "babble"}) == "babble, -5 dB"
    assert condition_name({"snr": None, "visual": "offset", "strength": -80.0}) == "offset −80 ms"
    assert condition_name({"visual": "fog", "strength": 1.0}) == "clean"
