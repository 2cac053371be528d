"""Rescoring by CTC: scores are those of all alignments, the ranking follows the weight."""

import itertools
import math

import pytest
import torch

from avtlm.decoding.rescoring import rescore_with_ctc
from avtlm.decoding.result import Hypothesis


def collapsed(path: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(symbol for symbol, _ in itertools.groupby(path) if symbol != 0)


def probability(tokens: tuple[int, ...], log_probs: torch.Tensor) -> float:
    """Sum over all paths, one by one."""
    frames, vocabulary = log_probs.shape
    paths = (path for path in itertools.product(range(vocabulary), repeat=frames) if collapsed(path) == tokens)
    return sum(math.exp(sum(float(log_probs[t, symbol]) for t, symbol in enumerate(path))) for path in paths)


def hypothesis(tokens: tuple[int, ...], attention: float) -> Hypothesis:
    return Hypothesis(tokens, attention / (len(tokens) + 1), {"attention": attention})


def made(seed: int = 0) -> tuple[list[list[Hypothesis]], torch.Tensor, torch.Tensor]:
    log_probs = torch.randn(2, 5, 4, generator=torch.Generator().manual_seed(seed)).log_softmax(-1)
    nbest = [
        [hypothesis((1, 2), -1.0), hypothesis((3,), -1.5), hypothesis((), -4.0)],
        [hypothesis((2, 2), -0.5), hypothesis((1, 3, 1), -0.7)],
    ]
    return nbest, log_probs, torch.tensor([5, 4])


@pytest.mark.parametrize("seed", range(3))
def test_the_ctc_score_sums_over_all_alignments_within_the_length(seed: int) -> None:
    nbest, log_probs, lengths = made(seed)
    for row, found in enumerate(rescore_with_ctc(nbest, log_probs, lengths, 0.3)):
        for one in found:
            wanted = math.log(probability(one.tokens, log_probs[row, : lengths[row]]))
            assert one.components["ctc"] == pytest.approx(wanted, abs=1e-4)
            assert one.score == pytest.approx(0.7 * one.components["attention"] + 0.3 * wanted, abs=1e-4)
        assert [one.score for one in found] == sorted((one.score for one in found), reverse=True)
        assert {one.tokens for one in found} == {one.tokens for one in nbest[row]}


def test_the_ends_of_the_weight_are_one_judge_alone() -> None:
    nbest, log_probs, lengths = made()
    by_attention = rescore_with_ctc(nbest, log_probs, lengths, 0.0)
    assert [one.tokens for one in by_attention[0]] == [(1, 2), (3,), ()]
    by_ctc = rescore_with_ctc(nbest, log_probs, lengths, 1.0)[0]
    assert [one.score for one in by_ctc] == [one.components["ctc"] for one in by_ctc]


def test_a_text_longer_than_its_frames_comes_last() -> None:
    nbest = [[hypothesis((1, 2, 1, 2), -0.1), hypothesis((1,), -9.0)]]
    log_probs = torch.zeros(1, 3, 4).log_softmax(-1)
    found = rescore_with_ctc(nbest, log_probs, torch.tensor([3]), 0.5)[0]
    assert [one.tokens for one in found] == [(1,), (1, 2, 1, 2)]
    assert found[1].score == -math.inf
    assert rescore_with_ctc(nbest, log_probs, torch.tensor([3]), 0.0)[0][0].tokens == (1, 2, 1, 2)
