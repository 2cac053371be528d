"""The measurement of streams prints a table, writes JSON, and finds no difference to the whole clip."""

import json
from pathlib import Path

import pytest

from benchmarks.streaming import main


def test_a_small_model_is_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "out.json"
    arguments = ["--size", "tiny", "--chunks", "8", "16", "--seconds", "2", "--repeats", "1", "--left-context", "32", "--json", str(path)]
    assert main(arguments) == 0
    report = json.loads(path.read_text())
    assert [line["chunk_ms"] for line in report["chunks"]] == [160, 320]
    for line in report["chunks"]:
        assert line["difference"] < 1e-5
        assert line["real_time_factor"] > 0
        assert line["latency_ms"] > line["wait_ms"] > line["chunk_ms"]
    assert report["threads"] == 1
    assert "real-time factor" in " ".join(capsys.readouterr().out.split())


def test_chunks_that_the_model_cannot_have_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["--size", "tiny", "--chunks", "6"])
    assert "chunk_size: 6 frames; give a multiple of each of" in capsys.readouterr().err
