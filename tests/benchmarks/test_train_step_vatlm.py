"""The benchmark of VATLM's training step runs at a tiny size, gives equal losses, and counts true frames alone."""

import json
from typing import Any

import pytest
import torch

from avtlm.systems.vatlm import VATLM
from benchmarks import train_step_vatlm
from benchmarks.train_step_vatlm import KINDS, main, vatlm_config


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    file = tmp_path_factory.mktemp("figures") / "step.json"
    threads = torch.get_num_threads()
    arguments = ["--size", "tiny", "--repeats", "1", "--batches", "2", "--rows", "4", "--matrix", "64", "--threads", "1"]
    try:
        assert main([*arguments, "--json", str(file)]) == 0
    finally:
        torch.set_num_threads(threads)
    found: dict[str, Any] = json.loads(file.read_text())
    return found


def test_every_way_of_batching_is_timed_in_every_precision_and_for_every_kind_of_batch(report: dict[str, Any]) -> None:
    lines = {(line["batches"], line["precision"]): line for line in report["results"]}
    assert len(lines) == 6
    for line in lines.values():
        assert line["seconds"] == pytest.approx(sum(line["seconds_by_kind"][kind] for kind in KINDS))
        assert min(line["seconds_by_kind"].values()) > 0
        assert line["share_of_matrix_rate"] > 0
    assert lines["random, padded", "fp32"]["padding"] > lines["bucketed, padded", "fp32"]["padding"]


def test_losses_are_equal_padded_as_in_the_official_code_and_packed(report: dict[str, Any]) -> None:
    assert report["largest_relative_difference_of_losses"]["lrs3"] < 1e-5


def test_useful_operations_grow_with_true_frames_and_not_with_padding() -> None:
    generator = torch.Generator().manual_seed(0)
    config = vatlm_config("tiny", 0.0)
    model = VATLM(config)
    short, long = train_step_vatlm.make_clips(torch.tensor([1.0, 3.0]), config, generator)
    alone = [train_step_vatlm.useful_flops(model, [train_step_vatlm.collate([clip], "cpu")]) for clip in (short, long)]
    together = train_step_vatlm.useful_flops(model, [train_step_vatlm.collate([short, long], "cpu")])
    for kind, parts in enumerate(zip(*alone, strict=True)):
        assert together[kind] == pytest.approx(sum(parts), rel=0.02)  # zero frames between clips in the lips' stem count
