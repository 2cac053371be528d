"""The benchmark of generation runs at a tiny size, and both write the same."""

import json
from pathlib import Path

import pytest
import torch

from benchmarks import generate

pytest.importorskip("transformers")


def test_both_write_the_same_and_are_timed(tmp_path: Path) -> None:
    threads = torch.get_num_threads()
    try:
        assert generate.main(["--size", "tiny", "--repeats", "1", "--threads", "1", "--json", str(tmp_path / "generate.json")]) == 0
    finally:
        torch.set_num_threads(threads)
    report = json.loads((tmp_path / "generate.json").read_text())
    settings: dict[str, list[str]] = {}
    for line in report["results"]:
        assert line["per_second"] > 0
        assert line["same"] == 1.0, line
        settings.setdefault(line["setting"], []).append(line["contestant"])
    assert len(settings) == 6
    assert all(names == ["avtlm", "transformers"] for names in settings.values())
    assert sum("without the encoder" in setting for setting in settings) == 2


def test_it_says_when_there_is_nobody_to_compare_with(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(__import__("sys").modules, "transformers", None)
    threads = torch.get_num_threads()
    try:
        assert generate.main(["--size", "tiny", "--threads", "1"]) == 1
    finally:
        torch.set_num_threads(threads)
    assert "transformers cannot be measured" in capsys.readouterr().out
