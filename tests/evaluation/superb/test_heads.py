"""Heads, pooling and losses equal their plain definitions, and padding takes no part in any of them."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from avtlm.evaluation.superb.classification import UtteranceHead
from avtlm.evaluation.superb.diarization import ActivityHead, permutation_loss, smoothed
from avtlm.evaluation.superb.pooling import mean_pool, statistics_pool
from avtlm.evaluation.superb.probe import Probe, WeightedSum
from avtlm.evaluation.superb.recognition import (
    PhonemeHead,
    RecognitionConfig,
    RecurrentHead,
    mean_ctc_loss,
    read_slots,
    spell_slots,
)
from avtlm.evaluation.superb.verification import AMSoftmax, VerificationConfig, XVectorHead

LENGTHS = torch.tensor([30, 22])


@pytest.fixture
def features() -> torch.Tensor:
    torch.manual_seed(0)
    return torch.randn(2, 30, 6)


def test_the_sum_starts_as_the_mean_of_all_layers() -> None:
    states = torch.randn(2, 5, 3, 4)
    torch.testing.assert_close(WeightedSum(3)(states), states.mean(2))


def test_weights_of_the_sum_are_a_softmax_and_layers_may_be_normed() -> None:
    states = torch.randn(2, 5, 3, 4)
    module = WeightedSum(3, layer_norm=True)
    with torch.no_grad():
        module.logits.copy_(torch.tensor([1.0, 0.0, -2.0]))
    weights = module.logits.exp() / module.logits.exp().sum()
    normed = (states - states.mean(-1, keepdim=True)) / (states.var(-1, unbiased=False, keepdim=True) + 1e-5).sqrt()
    torch.testing.assert_close(module(states), (weights[:, None] * normed).sum(2))
    torch.testing.assert_close(module.weights, weights)


def test_pooling_takes_exactly_the_valid_frames(features: torch.Tensor) -> None:
    mean, both = mean_pool(features, LENGTHS), statistics_pool(features, LENGTHS)
    for row, length in enumerate(LENGTHS.tolist()):
        torch.testing.assert_close(mean[row], features[row, :length].mean(0))
        torch.testing.assert_close(both[row], torch.cat([features[row, :length].mean(0), features[row, :length].std(0)]))


def heads() -> dict[str, nn.Module]:
    torch.manual_seed(1)
    small = RecognitionConfig(projection=8, hidden=5, dropout=0.0)
    return {
        "utterance": UtteranceHead(6, 8, 3),
        "phonemes": PhonemeHead(6, 8, 4),
        "recurrent": RecurrentHead(6, 4, small),
        "with tanh": RecurrentHead(6, 4, RecognitionConfig(projection=8, hidden=5, dropout=0.0, tanh=True)),
    }


@pytest.mark.parametrize("name", heads())
def test_padding_changes_no_head(name: str, features: torch.Tensor) -> None:
    head = heads()[name].eval()
    whole, alone = head(features, LENGTHS), head(features[1:, :22], LENGTHS[1:])
    torch.testing.assert_close(whole[1] if whole.dim() == 2 else whole[1, :22], alone[0])


def test_the_utterance_head_is_two_linear_maps_around_a_mean(features: torch.Tensor) -> None:
    head = UtteranceHead(6, 8, 3)
    pooled = (features[1, :22] @ head.projection.weight.t() + head.projection.bias).mean(0)
    torch.testing.assert_close(head(features, LENGTHS)[1], pooled @ head.output.weight.t() + head.output.bias)


def test_an_x_vector_is_made_of_windows_and_statistics(features: torch.Tensor) -> None:
    torch.manual_seed(2)
    config = VerificationConfig(dim=5, pooled_dim=7)
    head = XVectorHead(6, 3, config)
    x = head.projection(features[1, :22])
    for layer, (kernel, dilation) in zip(head.frames, ((5, 1), (3, 2), (3, 3), (1, 1), (1, 1)), strict=True):
        assert isinstance(layer, nn.Conv1d)
        reach = (kernel - 1) * dilation
        windows = [torch.stack([x[start + step * dilation] for step in range(kernel)], 1) for start in range(len(x) - reach)]
        x = torch.stack([(layer.weight * window).sum((1, 2)) + layer.bias for window in windows]).relu()
    assert len(x) == 22 - 14
    expected = head.first(torch.cat([x.mean(0), x.std(0)])).relu()
    torch.testing.assert_close(head.embed(features, LENGTHS)[1], expected)


def test_am_softmax_takes_the_margin_off_the_right_class_alone() -> None:
    torch.manual_seed(3)
    loss = AMSoftmax(4, 3, scale=30.0, margin=0.4)
    x, targets = torch.randn(2, 4), torch.tensor([2, 0])
    cosines = F.normalize(x) @ F.normalize(loss.weight, dim=0)
    for row, target in enumerate(targets.tolist()):
        right = torch.exp(30 * (cosines[row, target] - 0.4))
        others = sum(torch.exp(30 * cosines[row, place]) for place in range(3) if place != target)
        torch.testing.assert_close(loss(x, targets)[row], -torch.log(right / (right + others)))


def test_the_gradient_of_am_softmax_is_that_of_its_formula() -> None:
    torch.manual_seed(4)
    loss = AMSoftmax(4, 3, scale=5.0, margin=0.2).double()
    x = torch.randn(2, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x, weight: _with_weight(loss, x, weight), (x, loss.weight))


def _with_weight(loss: AMSoftmax, x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return torch.func.functional_call(loss, {"weight": weight}, (x, torch.tensor([2, 0])))


def test_the_loss_of_two_speakers_is_that_of_their_better_order(features: torch.Tensor) -> None:
    head = ActivityHead(6, 5, 2)
    logits, activity = head(features), (torch.rand(2, 30, 2) > 0.5).float()
    found = permutation_loss(logits, activity, LENGTHS)
    for row, length in enumerate(LENGTHS.tolist()):
        costs = []
        for order in ([0, 1], [1, 0]):
            p, y = logits[row, :length].sigmoid(), activity[row, :length][:, order]
            costs.append(-(y * p.log() + (1 - y) * (1 - p).log()).sum() / 2)
        torch.testing.assert_close(found[row], min(costs))
    torch.testing.assert_close(permutation_loss(logits, activity.flip(2), LENGTHS), found)


def test_a_median_filter_removes_short_runs_and_keeps_long_ones() -> None:
    active = np.zeros((20, 1), dtype=np.int64)
    active[3:5], active[10:18] = 1, 1
    assert smoothed(active, 1).tolist() == active.tolist()
    assert smoothed(active, 5)[:, 0].nonzero()[0].tolist() == list(range(10, 18))


def test_ctc_is_a_mean_over_symbols_and_what_does_not_fit_is_zero() -> None:
    torch.manual_seed(5)
    logits = torch.randn(2, 6, 5)
    targets = [torch.tensor([4, 3]), torch.tensor([4, 4, 4, 4, 4, 4])]
    found = mean_ctc_loss(logits, torch.tensor([6, 6]), targets)
    expected = F.ctc_loss(logits[:1].log_softmax(-1).transpose(0, 1), targets[0][None], [6], [2], reduction="mean")
    torch.testing.assert_close(found[0], expected)
    assert float(found[1]) == 0.0


@pytest.mark.parametrize(
    ("text", "symbols"),
    [
        ("play B-artist the band E-artist now", "p l a y | B-artist t h e | b a n d E-artist | n o w"),
        ("B-x a E-x B-y b E-y", "B-x a E-x | B-y b E-y"),
        ("nothing", "n o t h i n g"),
        ("b- e-", "b - | e -"),
    ],
)
def test_slots_are_spelled_by_marks_and_letters_and_read_back(text: str, symbols: str) -> None:
    assert spell_slots(text) == symbols
    assert read_slots(symbols) == text


def test_a_probe_pads_clips_behind_their_ends() -> None:
    probe = Probe(3, nn.Identity())
    features, lengths = probe.features([torch.ones(4, 3, 2), torch.ones(2, 3, 2)], "cpu")
    assert lengths.tolist() == [4, 2]
    assert features[1, 2:].abs().sum() == 0
