"""The benchmark of searches runs at a tiny size, and everybody finds the same texts."""

import json
from pathlib import Path

import pytest
import torch

from benchmarks import decode
from benchmarks.decode import Size

TINY = Size(64, 2, 64, 40, 3, (0.6, 1.2), 6, 4, 8, 4, 12)


def test_all_searches_of_a_setting_find_the_same_texts(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(decode.SIZES, "quick", TINY)
    threads = torch.get_num_threads()
    try:
        assert decode.main(["--quick", "--repeats", "1", "--threads", "1", "--json", str(tmp_path / "decode.json")]) == 0
    finally:
        torch.set_num_threads(threads)
    report = json.loads((tmp_path / "decode.json").read_text())
    by_setting: dict[str, list[str]] = {}
    for line in report["results"]:
        assert line["seconds"] > 0
        by_setting.setdefault(line["setting"], []).append(line["contestant"])
        if line["setting"].startswith(("attention", "joint")) and line["same_texts"] is not None:
            assert line["same_texts"] == 1.0, line
        if line["setting"].startswith("joint"):
            assert line["scores_apart"] < 1e-3
        if line["setting"].startswith("words"):
            assert line["same_texts"] == 1.0, line
    assert ["avtlm", "ESPnet's way"] in by_setting.values()
    names = {"transformers generate", "torchaudio ctc_decoder (best path)", "torchaudio ctc_decoder", "avtlm, flashlight", "pyctcdecode"}
    assert set(report["left_out"]) <= names
