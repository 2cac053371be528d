"""Cases of MT2KD with other options than the stored ones. Expectations follow by hand from stored cases, and from a model's own parts."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from benchmarks.parity import CASES
from benchmarks.replay.case import Case, CaseError
from benchmarks.replay.mt2kd import encoder_of, speaker_stack
from benchmarks.replay.zipformer import config_of, seen_at_once
from tests.benchmarks.test_replay import derived, failed

ENCODER: dict[str, Any] = {
    "downsampling_factor": [1, 2, 4],
    "num_encoder_layers": [1, 2, 1],
    "encoder_dim": [24, 32, 40],
    "encoder_unmasked_dim": [16],
    "feedforward_dim": 32,
    "cnn_module_kernel": [5],
    "dropout": 0.0,
}


def case(**config: Any) -> Case:
    return Case("case", Path(), {"config": {"feature_dim": 80, "encoder": ENCODER} | config}, {}, {}, {})


def test_options_of_stacks_may_be_one_number_one_for_each_or_the_official_default() -> None:
    config = config_of(case(encoder={**ENCODER, "query_head_dim": [8, 6, 10], "value_head_dim": [6, 6, 6]}))
    assert (config.feed_forward, config.kernels, config.heads) == ((32, 32, 32), (5, 5, 5), (8, 8, 8))
    assert [config.head_dims(number) for number in range(3)] == [(8, 6, 4), (6, 6, 4), (10, 6, 4)]
    assert (config.value_head_dim, config.position_dim) == (6, 192)
    with pytest.raises(CaseError, match="more, which are not known"):
        config_of(case(encoder={**ENCODER, "more": 1}))


def test_a_causal_model_sees_what_its_case_says_and_any_other_all() -> None:
    causal = {**ENCODER, "causal": True, "chunk_size": [8], "left_context_frames": [16]}
    assert seen_at_once(config_of(case(encoder=causal))) == (8, 16)
    assert seen_at_once(config_of(case(encoder={**causal, "causal": False}))) == (-1, -1)
    found = encoder_of(case(encoder=causal))
    assert (found["chunk"], found["left_context"]) == (8, 16)
    with pytest.raises(CaseError, match="one of which was drawn"):
        seen_at_once(config_of(case(encoder={**causal, "chunk_size": [8, 16]})))


@pytest.mark.parametrize(("index", "stack"), [(0, 0), (2, 2), (-1, None), (-2, 1)])
def test_speakers_are_heard_in_a_stack_or_in_the_output(index: int, stack: int | None) -> None:
    assert speaker_stack(case(speaker_input_idx=index)) == stack


def test_parameters_in_groups_are_clipped_by_group(tmp_path: Path) -> None:
    source = "mt2kd/scaled_adam_eden"
    rate = 0.045
    together: list[Any] = [list(range(5)), {"params": [0, 1, 2, 3, 4], "lr": rate}]
    for number, group in enumerate(together):
        report = derived(tmp_path / str(number), source, {"groups": [group]})
        assert report.passed, failed(report)
    report = derived(tmp_path / "apart", source, {"groups": [[0, 1], [2, 3, 4]]})
    wrong = {each.name for each in report.comparisons if not each.passed}
    assert report.failure is None
    assert wrong
    assert not any(name.startswith(("step1.", "step2.", "step4.", "step8.")) for name in wrong)  # nothing is clipped there yet


def test_a_case_may_end_before_its_warm_up_does(tmp_path: Path) -> None:
    outputs = load_file(CASES / "mt2kd/scaled_adam_eden/outputs.safetensors")
    first = {name: tensor for name, tensor in outputs.items() if name.startswith("step1.")}
    report = derived(
        tmp_path / "case", "mt2kd/scaled_adam_eden", {"warmup_batches": 500.0, "steps": 3}, outputs={**first, "lrs": torch.zeros(3)}
    )
    assert report.failure is None
    assert {each.name for each in report.comparisons if not each.passed} == {"lrs"}


def test_a_teacher_of_speakers_is_as_speechbrain_makes_it_where_its_case_does_not_say(tmp_path: Path) -> None:
    source = "mt2kd/ecapa_tdnn"
    same = {"args": {**json.loads((CASES / source / "case.json").read_text())["config"]["args"], "groups": [1] * 5, "dropout": 0.1}}
    for name in ("kernel_sizes", "dilations"):  # which are the default's in this case
        del same["args"][name]
    report = derived(tmp_path / "same", source, same)
    assert report.passed, failed(report)
    report = derived(tmp_path / "grouped", source, {"args": {**same["args"], "groups": [1, 2, 2, 2, 1]}})
    # Its weights are those of ungrouped convolutions.
    assert "blocks.0.first.conv.weight" in str(report.failure)
    assert "do not fit" in str(report.failure)
