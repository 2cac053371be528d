"""The contrastive loss and its negatives (values: tests/test_golden.py)."""

import math

import pytest
import torch
import torch.nn.functional as F

from avtlm.objectives.contrastive import Candidates, contrastive_logits, contrastive_loss, draw_negatives, paired_contrastive_loss


def test_logits_are_cosines_over_the_temperature() -> None:
    generator = torch.Generator().manual_seed(0)
    context, vectors = torch.randn(4, 6, generator=generator), torch.randn(9, 6, generator=generator)
    positives, negatives = torch.tensor([0, 1, 2, 3]), torch.randint(4, 9, (4, 3), generator=generator)
    logits = contrastive_logits(context, Candidates(vectors, torch.arange(9), positives, negatives), 0.5)
    for frame in range(4):
        chosen = vectors[[int(positives[frame]), *negatives[frame].tolist()]]
        torch.testing.assert_close(logits[frame], F.cosine_similarity(context[frame][None], chosen) / 0.5)


def test_a_negative_that_equals_the_truth_is_none() -> None:
    vectors = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    kinds = torch.tensor([0, 1, 0, 2])
    logits = contrastive_logits(vectors[:2], Candidates(vectors, kinds, torch.tensor([0, 1]), torch.tensor([[2, 3], [2, 3]])))
    assert logits[0].isinf().tolist() == [False, True, False]
    assert logits[1].isinf().tolist() == [False, False, False]


def test_the_loss_counts_frames_whose_truth_comes_first() -> None:
    loss = contrastive_loss(torch.tensor([[3.0, 1.0], [1.0, 3.0], [2.0, 2.0]]))
    assert loss.count == 3
    correct, count = loss.logs["contrastive_accuracy"]
    assert (correct, count) == (1, 3)  # of equal logits neither was told apart
    torch.testing.assert_close(loss.value, F.cross_entropy(torch.tensor([[3.0, 1.0], [1.0, 3.0], [2.0, 2.0]]), torch.zeros(3).long()) * 3)


def test_negatives_of_a_row_are_all_its_other_frames_and_equally_often() -> None:
    counts = torch.tensor([5, 0, 3])
    drawn = draw_negatives(counts, 3000, torch.Generator().manual_seed(0))
    assert drawn.shape == (8, 3000)
    for frame in range(8):
        others = {place for place in (range(5) if frame < 5 else range(5, 8)) if place != frame}
        assert set(drawn[frame].tolist()) == others
        share = drawn[frame].bincount(minlength=8)[sorted(others)] / 3000
        torch.testing.assert_close(share, torch.full_like(share, 1 / len(others)), atol=0.05, rtol=0)


def test_negatives_of_the_batch_are_all_other_frames() -> None:
    drawn = draw_negatives(torch.tensor([3, 2]), 500, torch.Generator().manual_seed(0), from_batch=True)
    assert [set(row.tolist()) for row in drawn] == [set(range(5)) - {frame} for frame in range(5)]


def test_the_only_frame_of_a_row_and_no_frames_at_all_are_no_error() -> None:
    generator = torch.Generator().manual_seed(0)
    assert draw_negatives(torch.tensor([1]), 4, generator).tolist() == [[0, 0, 0, 0]]
    assert draw_negatives(torch.tensor([0, 0]), 4, generator).shape == (0, 4)


def test_clips_that_are_all_alike_cost_the_logarithm_of_their_number() -> None:
    alike = torch.ones(5, 3)
    for both_ways in (True, False):
        loss = paired_contrastive_loss(alike, 2 * alike, 0.07, both_ways)
        assert loss.count == 5
        assert float(loss.value / loss.count) == pytest.approx(math.log(5), abs=1e-6)
    assert float(paired_contrastive_loss(alike[:1], alike[:1], 0.07).value) == 0.0


def test_one_direction_asks_each_second_for_its_first_and_both_are_their_mean() -> None:
    generator = torch.Generator().manual_seed(0)
    first, second = torch.randn(4, 6, generator=generator), torch.randn(4, 6, generator=generator)
    similarity = F.cosine_similarity(first[:, None], second[None], dim=-1) / 0.05
    single = -similarity.log_softmax(0).diagonal().sum()
    other = -similarity.log_softmax(1).diagonal().sum()
    torch.testing.assert_close(paired_contrastive_loss(first, second, 0.05, both_ways=False).value, single)
    torch.testing.assert_close(paired_contrastive_loss(first, second, 0.05).value, (single + other) / 2)
    found, count = paired_contrastive_loss(first, first, 0.05).logs["contrastive_accuracy"]
    assert (float(found), int(count)) == (4.0, 4)
