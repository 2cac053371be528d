"""The benchmark of a training step runs at a tiny size, gives equal losses, and counts what it says."""

import argparse
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from avtlm.systems.hubert import Hubert
from benchmarks import peers, train_step
from benchmarks.made_clips import LENGTHS, bucketed, make_clips
from benchmarks.train_step import SIZES, aims, hubert_config, main, read_options, useful_flops


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    file = tmp_path_factory.mktemp("figures") / "step.json"
    threads = torch.get_num_threads()
    arguments = [
        "--size",
        "tiny",
        "--repeats",
        "1",
        "--batches",
        "2",
        "--rows",
        "4",
        "--lengths",
        "lrs3",
        "--matrix",
        "64",
        "--threads",
        "1",
    ]
    try:
        assert main([*arguments, "--json", str(file)]) == 0
    finally:
        torch.set_num_threads(threads)
    found: dict[str, Any] = json.loads(file.read_text())
    return found


def test_the_file_says_what_ran_where_and_how_long_everybody_took(report: dict[str, Any]) -> None:
    assert report["command"].startswith("python -m benchmarks.train_step --size tiny")
    assert {"processor", "threads"} <= report["hardware"].keys()
    assert {"torch", "avtlm", "python"} <= report["versions"].keys()
    lines = {(line["batches"], line["contestant"], line["precision"], line["pass"]): line for line in report["results"]}
    for batches in ("equal", "random, padded", "bucketed, padded", "random, packed", "bucketed, packed"):
        for precision in ("fp32", "bf16"):
            line = lines[batches, "avtlm", precision, "training step"]
            assert line["seconds"] > 0
            assert line["share_of_matrix_rate"] > 0
    assert lines["random, padded", "avtlm", "fp32", "training step"]["padding"] > 0.1
    for library in train_step.PEERS:  # measured, or left out for a reason
        assert (library in report["versions"]) != (library in report["left_out"])


def test_losses_are_equal_however_clips_are_batched_and_packed_and_in_all_libraries(report: dict[str, Any]) -> None:
    check = report["losses"]["lrs3"]
    assert len(check["unequal_lengths"]) == 4
    assert check["largest_relative_difference"] < 1e-5
    assert check["libraries_relative_difference"] < 1e-5


@pytest.mark.parametrize(("arguments", "size"), [([], "base"), (["--quick"], "quick"), (["--size", "tiny"], "tiny")])
def test_the_size_is_base_unless_another_is_asked_for(arguments: list[str], size: str) -> None:
    assert read_options(argparse.ArgumentParser(), [*arguments, "--threads", str(torch.get_num_threads())]).size == size


def test_one_order_of_clips_can_be_timed_alone(tmp_path: Path) -> None:
    file = tmp_path / "equal.json"
    sizes = ["--size", "tiny", "--threads", "1", "--matrix", "64", "--repeats", "1", "--rows", "2", "--batches", "1", "--peers"]
    assert main([*sizes, "--lengths", "lrs3", "--orders", "equal", "--precision", "fp32", "--json", str(file)]) == 0
    found = json.loads(file.read_text())
    assert {line["batches"] for line in found["results"]} == {"equal"}
    assert {line["pass"] for line in found["results"]} == {"training step", "forward"}


def test_a_library_that_is_not_there_is_left_out_with_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "fairseq", None)
    with pytest.raises(peers.PeerError, match="fairseq cannot be imported here"):
        peers.fairseq(Hubert(hubert_config("tiny", 0.0)))


def test_useful_operations_are_those_that_pytorch_counts() -> None:
    from torch.utils.flop_counter import FlopCounterMode

    generator = torch.Generator().manual_seed(0)
    config = hubert_config("tiny", 0.0)
    model = Hubert(config).eval()
    clips = make_clips(torch.tensor([0.6]), generator)
    batch, mask = train_step.collate(clips, "cpu")
    # Attention kernels of a CPU are not counted there, so that theirs are added.
    attention = config.encoder.layers * 4 * len(clips[0].units) ** 2 * config.encoder.dim
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model.encode(batch)
    counted = counter.get_total_flops()
    expected = useful_flops(model, [(batch, mask)], training=False)
    assert any(abs(counted + more - expected) < 0.03 * expected for more in (0, attention))
    assert useful_flops(model, [(batch, mask)], training=True) > 2.5 * expected


def test_lengths_are_like_those_of_the_corpora() -> None:
    generator = torch.Generator().manual_seed(0)
    shares = {}
    for name, lengths in LENGTHS.items():
        seconds = lengths.draw(lengths.rows * 200, generator).view(200, lengths.rows)
        shares[name] = 1 - (seconds.sum() / (seconds.amax(1) * lengths.rows).sum()).item()
    assert shares["librispeech"] == pytest.approx(0.21, abs=0.02)
    assert shares["lrs3"] == pytest.approx(0.56, abs=0.04)
    clips = make_clips(LENGTHS["lrs3"].draw(16, generator) * SIZES["tiny"][-1], generator)
    order = bucketed(clips, 4, generator)
    assert sorted(row for rows in order for row in rows) == list(range(16))
    assert {len(rows) for rows in order} == {4}


def test_aims_compare_what_they_say() -> None:
    def line(batches: str, who: str, precision: str, seconds: float, kind: str = "training step") -> dict[str, Any]:
        return {"lengths": "lrs3", "batches": batches, "contestant": who, "precision": precision, "pass": kind, "seconds": seconds}

    lines = [
        line("equal", "avtlm", "fp32", 1.0),
        line("equal", "transformers", "fp32", 2.0),
        line("equal", "avtlm", "bf16", 0.8),
        line("random, padded", "transformers", "fp32", 9.0),
        line("bucketed, packed", "avtlm", "fp32", 3.0),
    ]
    found = {aim["aim"]: (aim["measured"], aim["reached"]) for aim in aims(lines)}
    assert found == {
        "equal lengths, fp32: time of avtlm / transformers": (0.5, True),
        "equal lengths: fp32 / bf16, training step": (1.25, False),
        "fp32: transformers on random batches / avtlm in buckets, packed": (3.0, True),
    }
