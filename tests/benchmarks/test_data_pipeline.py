"""The benchmark of the data pipeline runs at a tiny size, reads the same from every stock, and counts what it says."""

import json
import tempfile
from pathlib import Path

import pytest
import torch

from benchmarks import data_pipeline
from benchmarks.data_pipeline import main, make_stocks, model_batches, stream


def test_the_benchmark_runs_and_writes_its_figures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(data_pipeline, "consume", lambda batches, threads: (1.0, 2.0))
    monkeypatch.setattr(data_pipeline, "EPOCHS", 2)
    assert main(["--quick", "--clips", "4", "--workers", "0", "--json", str(tmp_path / "figures.json")]) == 0
    report = json.loads((tmp_path / "figures.json").read_text())
    assert len(report["rates"]) == 6
    for one in report["rates"]:
        assert one["utterances_per_second"] > 0
        assert len(one["megabytes"]) == 2
    assert report["slowest_ratio"] == pytest.approx(2000 / max(one["cpu_ms_per_utterance"] for one in report["rates"]))
    assert set(report["parts"]) == {one["stock"] for one in report["rates"]}
    assert "slowest way" in capsys.readouterr().out


def test_all_stocks_hold_the_same_clips_and_the_model_gets_batches_of_all_lengths() -> None:
    with tempfile.TemporaryDirectory() as folder:
        stocks = make_stocks(Path(folder), 6, torch.Generator().manual_seed(0))
        streams = {name: stream(*place, cache=False, workers=0) for name, place in stocks.items()}
        items = {name: one.dataset.item(2) for name, one in streams.items()}
        arrays, video, shards = items.values()
        assert arrays.audio is not None
        assert video.video is not None
        assert shards.video is not None
        assert arrays.audio.shape == video.audio.shape  # type: ignore[union-attr]
        assert torch.equal(video.video, shards.video)
        batches = model_batches(next(iter(streams.values())), 1)
        assert len(batches) == 1
