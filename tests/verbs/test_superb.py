"""`avtlm superb`: a table or JSON on standard output, failures on standard error and in the exit code."""

import json
from pathlib import Path

import pytest

from avtlm import cli
from tests.evaluation.superb import made_corpora
from tests.test_cli import failure


def test_a_task_prints_its_row_beside_published_ones(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = made_corpora.save_simple(tmp_path / "data", "KS")
    given = ["superb", "KS", "projection=8", "--model", "fbank", "--data", str(data), "--out", str(tmp_path / "out"), "--device", "cpu"]
    given += ["--steps", "4", "--batch", "4", "--lr-sweep", "1e-2,1e-3", "--no-cache"]
    assert cli.main(given) == 0
    captured = capsys.readouterr()
    assert "HuBERT Base" in captured.out
    assert "96.30" in captured.out
    assert "KS made KS, FBANK" in captured.err
    assert cli.main([*given, "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert set(report["outcomes"][0]["details"]["dev by lr"]) == {"0.01", "0.001"}
    assert (tmp_path / "out" / "KS" / "data" / "outcome.json").is_file()


def test_a_failure_among_all_is_in_the_exit_code(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made_corpora.save_simple(tmp_path / "data" / "ks", "KS")
    made_corpora.write_task(tmp_path / "data" / "sid", "SID")
    given = ["superb", "all", "--model", "fbank", "--data", str(tmp_path / "data"), "-o", str(tmp_path / "out"), "--steps", "2"]
    assert cli.main([*given, "--cache", str(tmp_path / "cache")]) == 1
    captured = capsys.readouterr()
    assert "KS accuracy" in captured.out
    assert "SID made SID: " in captured.err
    assert "train.jsonl does not exist" in captured.err


def test_wrong_use_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rest = ["--model", "fbank", "--data", str(tmp_path), "--out", str(tmp_path / "out")]
    assert "is unknown" in failure(capsys, "superb", "nonsense", *rest, code=2)
    assert "give numbers" in failure(capsys, "superb", "KS", *rest, "--lr-sweep", "a,b", code=2)
    assert "give one of them" in failure(capsys, "superb", "KS", *rest, "--lr-sweep", "1,2", "--lr", "1", code=2)
    assert "task.json" in failure(capsys, "superb", "KS", *rest)
