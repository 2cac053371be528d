"""Masked prediction, CTC and label-smoothed cross-entropy equal their definitions written out."""

import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from avtlm.objectives.ctc import ctc_loss
from avtlm.objectives.masked_prediction import UnitPredictor, masked_prediction_loss
from avtlm.objectives.seq2seq import seq2seq_loss, shift_right


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def predictor() -> UnitPredictor:
    torch.manual_seed(0)
    module = UnitPredictor(6, 5, final_dim=4, temperature=0.1)
    torch.nn.init.normal_(module.project.weight)
    return module


def test_logits_are_cosines_over_the_temperature(predictor: UnitPredictor) -> None:
    frames = randn(3, 6)
    expected = F.cosine_similarity(predictor.project(frames)[:, None], predictor.units[None], dim=-1) / 0.1
    torch.testing.assert_close(predictor(frames), expected, atol=1e-5, rtol=1e-5)


def test_dot_similarity_is_a_plain_product() -> None:
    module = UnitPredictor(6, 5, 4, 0.5, similarity="dot")
    frames = randn(3, 6)
    torch.testing.assert_close(module(frames), module.project(frames) @ module.units.T / 0.5)
    with pytest.raises(ValueError, match="choose cosine or dot"):
        UnitPredictor(6, 5, similarity="euclid")


def test_only_hidden_frames_with_a_unit_and_outside_the_padding_count(predictor: UnitPredictor) -> None:
    encoded = randn(2, 4, 6)
    units = torch.tensor([[0, 1, -1, 3], [4, 2, 0, 1]])
    hidden = torch.tensor([[True, False, True, True], [True, True, False, True]])
    padding = torch.tensor([[False, False, False, False], [False, False, True, True]])
    loss = masked_prediction_loss(predictor, encoded, units, hidden, padding)
    chosen = [(0, 0), (0, 3), (1, 0), (1, 1)]
    parts = [F.cross_entropy(predictor(encoded[r, t][None]), units[r, t][None]) for r, t in chosen]
    assert loss.value.item() == pytest.approx(sum(p.item() for p in parts), rel=1e-5)
    assert loss.count == 4
    visible = masked_prediction_loss(predictor, encoded, units, hidden, padding, visible_weight=0.5)
    seen = F.cross_entropy(predictor(encoded[0, 1][None]), units[0, 1][None])
    assert visible.value.item() == pytest.approx(loss.value.item() + 0.5 * seen.item(), rel=1e-5)
    assert visible.count == 5


def test_a_batch_in_which_nothing_is_hidden_has_loss_zero_and_zero_gradients(predictor: UnitPredictor) -> None:
    nothing = torch.zeros(1, 3, dtype=torch.bool)
    loss = masked_prediction_loss(predictor, randn(1, 3, 6), torch.zeros(1, 3, dtype=torch.long), nothing, nothing)
    loss.value.backward()
    assert loss.value == 0
    assert loss.count == 0
    assert predictor.units.grad is not None
    assert predictor.units.grad.abs().max() == 0


def ctc_by_enumeration(log_probs: Tensor, target: list[int]) -> float:
    """Sum over all alignments of one clip."""
    total = -math.inf
    for path in itertools.product(range(log_probs.shape[1]), repeat=len(log_probs)):
        collapsed = [symbol for symbol, _ in itertools.groupby(path) if symbol != 0]
        if collapsed == target:
            score = sum(log_probs[t, symbol].item() for t, symbol in enumerate(path))
            total = float(torch.logaddexp(torch.tensor(total), torch.tensor(score)))
    return -total


def test_ctc_is_the_sum_over_alignments_of_true_frames() -> None:
    logits = randn(2, 4, 3)
    lengths, targets = torch.tensor([4, 3]), torch.tensor([[1, 2], [2, 0]])
    loss = ctc_loss(logits, lengths, targets, torch.tensor([2, 1]))
    log_probs = logits.log_softmax(-1)
    expected = ctc_by_enumeration(log_probs[0], [1, 2]) + ctc_by_enumeration(log_probs[1, :3], [2])
    assert loss.value.item() == pytest.approx(expected, rel=1e-5)
    assert loss.count == 3


def test_a_target_too_long_for_its_frames_is_counted_and_harmless() -> None:
    logits = randn(2, 3, 4).requires_grad_()
    loss = ctc_loss(logits, torch.tensor([3, 2]), torch.tensor([[1, 2, 0], [1, 1, 2]]), torch.tensor([2, 3]))
    loss.value.backward()
    assert loss.value.isfinite()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()
    assert loss.logs["ctc_too_short"][0] == 1


def test_an_empty_target_is_the_probability_of_blanks() -> None:
    logits = randn(1, 3, 4)
    loss = ctc_loss(logits, torch.tensor([3]), torch.zeros(1, 1, dtype=torch.long), torch.tensor([0]))
    assert loss.value.item() == pytest.approx(-logits.log_softmax(-1)[0, :, 0].sum().item(), rel=1e-5)
    assert loss.logs["ctc_too_short"][0] == 0


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_label_smoothing_has_fairseqs_form(smoothing: float) -> None:
    logits, targets = randn(2, 3, 5), torch.tensor([[4, 3, 2], [3, 2, 1]])
    loss = seq2seq_loss(logits, targets, padding=1, smoothing=smoothing)
    log_probs = logits.log_softmax(-1)
    share, expected = smoothing / 4, 0.0
    for row, place in [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1)]:
        p = log_probs[row, place]
        expected += -(1 - smoothing - share) * p[targets[row, place]].item() - share * p.sum().item()
    assert loss.value.item() == pytest.approx(expected, rel=1e-5)
    assert loss.count == 5


def test_decoder_input_starts_with_the_start_symbol_and_keeps_padding() -> None:
    targets = torch.tensor([[7, 8, 2], [9, 2, 1]])
    assert shift_right(targets, start=2, padding=1).tolist() == [[2, 7, 8], [2, 9, 1]]


def test_losses_are_computed_in_float32_from_half_precision() -> None:
    logits = randn(1, 3, 5).bfloat16()
    assert seq2seq_loss(logits, torch.tensor([[3, 4, 2]]), 1).value.dtype == torch.float32
    assert ctc_loss(logits, torch.tensor([3]), torch.tensor([[3]]), torch.tensor([1])).value.dtype == torch.float32
