"""Cases of searches with other options than the stored ones: what the adapters make of them."""

from pathlib import Path

import pytest
import torch

from avtlm.decoding.result import Hypothesis
from benchmarks.replay.beam_search import frames_of
from benchmarks.replay.decoding import of_float32, of_rank
from tests.benchmarks.test_replay import derived, failed
from tests.golden_case import read_case as golden


def test_repeats_that_fairseq_does_not_find_are_not_forbidden(tmp_path: Path) -> None:
    outputs = golden("decoding/attention_beam_a").outputs
    assert any(len(set(tokens.tolist())) < len(tokens) for name, tokens in outputs.items() if name.endswith(".tokens"))
    report = derived(tmp_path / "case", "decoding/attention_beam_a", {"no_repeat": 1})
    assert report.passed, failed(report)


def test_hypotheses_that_ctc_finds_impossible_are_not_counted(tmp_path: Path) -> None:
    """ESPnet lets them run on; which of them end depends on its rounding of large numbers."""
    case = golden("decoding/joint_beam_ctc_only_small")
    few = {"ctc_log_probs": case.inputs["ctc_log_probs"][:2].contiguous()}
    report = derived(tmp_path / "crowded", "decoding/joint_beam_ctc_only_small", {"T": 2}, few, {"n_ended": torch.tensor(99)})
    assert list(report.skipped) == ["n_ended"]
    more = {"n_ended": golden("decoding/joint_beam_maxlen").outputs["n_ended"] + 1}
    report = derived(tmp_path / "roomy", "decoding/joint_beam_maxlen", outputs=more)
    assert [each.passed for each in report.comparisons] == [False]
    assert [frames_of(tokens) for tokens in ((), (3,), (3, 4, 3), (3, 3, 3, 4))] == [0, 1, 3, 6]


def test_of_equal_scores_the_hypothesis_of_the_case_is_compared() -> None:
    found = [Hypothesis((4, 5), -1.0, {}), Hypothesis((5, 4), -1.0, {}), Hypothesis((6,), -2.0, {})]
    assert of_rank(found, 0, torch.tensor([5, 4, 2]), 2, 1e-6) is found[1]
    assert of_rank(found, 0, torch.tensor([6, 2]), 2, 1e-6) is found[0]
    assert of_rank(found, 2, None, 2, 1e-6) is found[2]


def test_long_sums_may_be_rounded_more_but_never_more_than_a_case_allows() -> None:
    assert [of_float32(1e-3, score) for score in (-1.0, -100.0, -1e6)] == pytest.approx([1e-5, 2e-4, 1e-3])
    assert of_float32(1e-6, -100.0) == 1e-6
