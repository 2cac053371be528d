"""The miniature benchmark as a command: it runs, goes on, survives a task that fails, and says so."""

import json
from pathlib import Path

import pytest

pytest.importorskip("espeakng_loader", reason="synthetic speech needs the extra 'synthetic'")

from avtlm.evaluation.superb.tasks import TASKS
from benchmarks import superb
from benchmarks.superb import MINIATURE, main


@pytest.fixture(autouse=True)
def same_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(superb, "restart_tuned", lambda module, arguments: None)


def test_every_task_of_the_benchmark_has_settings_that_fit_it() -> None:
    assert set(MINIATURE) == set(TASKS)
    for task, settings in MINIATURE.items():
        config = TASKS[task].configure(settings)
        assert task == "QbE" or config.steps <= 1000


def test_tasks_run_for_real_fail_alone_and_are_not_done_twice(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["--model", "fbank", "--size", "smoke", "--out", str(tmp_path / "run"), "--json", str(tmp_path / "found.json")]
    assert main([*command, "--tasks", "KS", "PR"]) == 0
    found = json.loads((tmp_path / "found.json").read_text())
    assert [(row["task"], row["metric"]) for row in found["rows"]] == [("KS", "accuracy"), ("PR", "PER")]
    assert set(found["seconds"]) == {"KS", "PR"}
    assert "│ KS" in capsys.readouterr().out

    with open(tmp_path / "run" / "data" / "KS" / "train.jsonl", "a") as lists:
        lists.write("\n")
    assert main([*command, "--tasks", "KS", "PR"]) == 1
    found = json.loads((tmp_path / "found.json").read_text())
    assert [row["task"] for row in found["rows"]] == ["PR"]
    assert "holds the result of other settings, data or weights" in found["failures"]["KS FBANK"]
    said = " ".join(capsys.readouterr().err.split())  # lines are wrapped
    assert said.count("done before") == 3  # the data, KS and PR


def test_a_folder_of_another_size_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "corpus.json").write_text('{"corpus": "miniature SUPERB", "size": "small", "seed": 1, "noise": false}')
    assert main(["--model", "fbank", "--size", "smoke", "--out", str(tmp_path)]) == 1
    assert "holds a corpus that was made with size small" in capsys.readouterr().err
