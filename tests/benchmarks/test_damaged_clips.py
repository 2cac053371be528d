"""What PyAV says nothing about is said here, and the benchmark tells when it is not."""

import json
from pathlib import Path

import pytest

from benchmarks import damaged_clips
from benchmarks.damaged_clips import damage, main


def test_pictures_that_go_missing_are_reported() -> None:
    report = damage(64, seed=1)
    assert report["silent_in_PyAV"]["inputs"] >= 8
    assert report["silent_here"] == []
    assert sum(sum(found.values()) for found in report["counts"]["here"].values()) == 64


def test_a_reader_that_says_nothing_is_found_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = damaged_clips.by_us

    def silent(path: Path, whole: int) -> tuple[str, int, str]:
        return (damaged_clips.SHORT, 3, "") if path.name.startswith("damaged") else real(path, whole)

    monkeypatch.setattr(damaged_clips, "CLIPS", damaged_clips.CLIPS[-2:])
    monkeypatch.setattr(damaged_clips, "by_us", silent)
    assert main(["--inputs", "3", "--json", str(tmp_path / "f.json")]) == 1
    assert len(json.loads((tmp_path / "f.json").read_text())["silent_here"]) == 3
