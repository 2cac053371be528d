"""Attention weights equal their definition, hide what they should, and grow with what is kept of a stream."""

import torch
from torch import Tensor

from avtlm.nn.zipformer.attention import AttentionWeights, NonlinearAttention, SelfAttention
from avtlm.nn.zipformer.positions import distance_vectors

HEADS, WIDTH, PLACE = 2, 4, 3


def made() -> AttentionWeights:
    torch.manual_seed(0)
    part = AttentionWeights(6, HEADS, WIDTH, PLACE, 8)
    with torch.no_grad():
        part.positions.weight.normal_()
    return part


def written_out(part: AttentionWeights, x: Tensor) -> Tensor:
    """(heads, batch, queries, keys) entry by entry."""
    batch, frames, _ = x.shape
    query, key, place = part.project(x).split([HEADS * WIDTH, HEADS * WIDTH, HEADS * PLACE], -1)
    vectors = part.positions(distance_vectors(frames, frames, 8))
    scores = torch.zeros(HEADS, batch, frames, frames)
    for head in range(HEADS):
        own, at = slice(head * WIDTH, (head + 1) * WIDTH), slice(head * PLACE, (head + 1) * PLACE)
        for i in range(frames):
            for j in range(frames):
                near = vectors[frames - 1 + j - i, at]
                scores[head, :, i, j] = (query[:, i, own] * key[:, j, own]).sum(-1) + place[:, i, at] @ near
    return scores.softmax(-1)


def test_weights_are_softmax_of_products_and_distances() -> None:
    part, x = made(), torch.randn(3, 5, 6)
    found = part(x, distance_vectors(5, 5, 8))
    assert torch.allclose(found.weights, written_out(part, x), atol=1e-5)
    assert found.keys.shape == (3, 5, HEADS * WIDTH)
    assert found.penalty is None


def test_hidden_keys_have_no_weight_and_hiding_all_gives_no_nan() -> None:
    part, x = made(), torch.randn(2, 4, 6)
    hidden = torch.tensor([[False, False, True, True], [True, True, True, True]])[:, None]
    weights = part(x, distance_vectors(4, 4, 8), hidden).weights
    assert torch.equal(weights[:, 0, :, 2:], torch.zeros(HEADS, 4, 2))
    assert torch.allclose(weights.sum(-1), torch.ones(HEADS, 2, 4))
    shorter = part(x[:1, :2], distance_vectors(2, 2, 8)).weights
    assert torch.allclose(weights[:, :1, :2, :2], shorter, atol=1e-6)


def test_keys_and_values_of_before_give_what_the_whole_gives() -> None:
    torch.manual_seed(1)
    part, attention, nonlinear, x = made(), SelfAttention(6, HEADS, 3), NonlinearAttention(8), torch.randn(2, 7, 6)
    wide = torch.randn(2, 7, 8)
    hidden = torch.ones(7, 7, dtype=torch.bool).triu(1)
    hidden[:4, :4] = hidden[4:, 4:] = False  # two chunks
    whole = part(x, distance_vectors(7, 7, 8), hidden)
    first = part(x[:, :4], distance_vectors(4, 4, 8))
    second = part(x[:, 4:], distance_vectors(3, 7, 8), None, first.keys)
    assert torch.allclose(second.weights, whole.weights[:, :, 4:], atol=1e-6)
    for module, inputs, of_weights in ((attention, x, lambda w: w), (nonlinear, wide, lambda w: w[0])):
        together, kept = module(inputs, of_weights(whole.weights))
        _, past = module(inputs[:, :4], of_weights(first.weights))
        found, known = module(inputs[:, 4:], of_weights(second.weights), past)
        assert torch.allclose(found, together[:, 4:], atol=1e-6)
        assert torch.allclose(known, kept)


def test_in_training_positions_are_left_out_at_times_and_large_scores_are_charged() -> None:
    part, x = made(), 30 * torch.randn(2, 5, 6)
    distances = distance_vectors(5, 5, 8)
    torch.manual_seed(0)
    early = [part(x, distances, None, None, 0.0) for _ in range(200)]
    late = [part(x, distances, None, None, 5000.0) for _ in range(50)]
    plain = part(x, distances).weights
    assert 60 < sum(torch.equal(found.weights, plain) for found in early) < 140
    assert all(torch.equal(found.weights, plain) for found in late)
    charged = [found.penalty for found in early if found.penalty is not None]
    assert 5 < len(charged) < 40
    assert all(penalty.item() > 0 for penalty in charged)
