"""The benchmark of text to units runs, and says how fast and with how much memory."""

import json
from pathlib import Path

import pytest

from benchmarks import text_to_units


def test_every_number_of_lines_is_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("espeakng_loader")
    file = tmp_path / "report.json"
    assert text_to_units.main(["--size", "tiny", "--lines", "3", "9", "--threads", "1", "--json", str(file)]) == 0
    report = json.loads(file.read_text())
    assert [row["lines"] for row in report["results"]] == [3, 9]
    assert all(row["kept"] == row["lines"] and row["lines_per_second"] > 0 for row in report["results"])
    assert all(row["peak_bytes"] > 50e6 and row["units"] > 50 * row["lines"] for row in report["results"])
    assert "lines/s" in capsys.readouterr().out
