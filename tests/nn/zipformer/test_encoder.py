"""The whole encoder: clips do not depend on their batch, training draws by the seed, and its parts follow the count of batches."""

import copy
from typing import Any

import pytest
import torch
from torch import Tensor

from avtlm.nn.zipformer import Zipformer, ZipformerOutput
from avtlm.nn.zipformer.encoder import chunks_before, widened
from tests.nn.zipformer.made_zipformer import TINY, features, zipformer


@pytest.mark.parametrize(
    "settings", [{}, {"causal": True}, {"causal": True, "chunk_size": 8}, {"causal": True, "chunk_size": 4, "left": 8}]
)
def test_a_clip_gives_the_same_alone_and_in_a_batch(settings: dict[str, Any]) -> None:
    chunk, left = settings.pop("chunk_size", None), settings.pop("left", None)
    model, lengths = zipformer(**settings), torch.tensor([63, 40, 21, 9])
    batch = features(4, 63)
    out = model(batch, lengths, chunk, left)
    assert out.lengths.tolist() == [14, 8, 4, 1]
    assert out.frames.shape == (4, 14, 16)
    for row, length in enumerate(lengths.tolist()):
        alone = model(batch[row : row + 1, :length], lengths[row : row + 1], chunk, left)
        count = int(alone.lengths)
        assert count == alone.frames.shape[1] == int(out.lengths[row])
        assert torch.allclose(out.frames[row, :count], alone.frames[0], atol=2e-5)
        for stack, own, of_batch in zip(out.stacks, alone.stacks, out.stack_lengths, strict=True):
            assert torch.allclose(stack[-1][row, : int(of_batch[row])], own[-1][0], atol=2e-5)


def test_in_the_official_code_it_does_not() -> None:
    model, lengths = zipformer(compute_padding=True), torch.tensor([63, 40])
    batch = features(2, 63)
    out, alone = model(batch, lengths), model(batch[1:, :40], lengths[1:])
    assert not torch.allclose(out.frames[1, :8], alone.frames[0], atol=1e-3)
    assert torch.allclose(model(batch[:1], lengths[:1]).frames, zipformer()(batch[:1], lengths[:1]).frames, atol=1e-5)


def test_a_batch_with_a_clip_that_is_too_short_gives_no_nan() -> None:
    model = zipformer()
    out = model(features(2, 30), torch.tensor([30, 3]))
    assert out.lengths.tolist() == [6, 0]
    assert bool(out.frames[0].isfinite().all())


def test_stacks_are_given_at_their_own_rates() -> None:
    model, lengths = zipformer(), torch.tensor([63, 40])
    out = model(features(2, 63), lengths)
    assert [len(stack) for stack in out.stacks] == [1, 2, 1]
    assert [tuple(stack[0].shape) for stack in out.stacks] == [(2, 28, 8), (2, 14, 12), (2, 7, 16)]
    assert [part.tolist() for part in out.stack_lengths] == [[28, 16], [14, 8], [7, 4]]
    first, found = model.first_stacks(features(2, 63), lengths, 2)
    assert [part.tolist() for part in found] == [[28, 16], [14, 8]]
    assert torch.equal(first[1][1], out.stacks[1][1])
    assert out.penalty is None


def test_channels_come_from_the_last_stack_that_has_them() -> None:
    model = zipformer()
    outputs = [torch.full((1, 2, width), float(width)) for width in (8, 16, 12)]
    assert model.joined(outputs)[0, 0].tolist() == [12.0] * 12 + [16.0] * 4
    assert widened(outputs[0], 10)[0, 0].tolist() == [8.0] * 8 + [0.0] * 2
    assert widened(outputs[0], 3).shape == (1, 2, 3)


def test_a_causal_model_sees_nothing_beyond_its_chunk_and_its_left_context() -> None:
    model, lengths = zipformer(causal=True), torch.tensor([87])
    one = features(1, 87)
    two, three = one.clone(), one.clone()
    two[:, 2 * 24 + 13 :] = 5.0  # behind the features of the third chunk of 8
    three[:, :3] = 5.0
    found = [model(each, lengths, 8, 16).frames for each in (one, two, three)]
    assert torch.equal(found[0][:, :12], found[1][:, :12])
    assert not torch.equal(found[0][:, 12:], found[1][:, 12:])
    assert not torch.equal(found[0][:, :12], found[2][:, :12])
    assert chunks_before(8, 5) == 1
    assert (chunks_before(8, 20), chunks_before(-1, 20), chunks_before(8, -1)) == (2, -1, -1)


def test_chunks_are_refused_where_they_make_no_sense() -> None:
    with pytest.raises(ValueError, match="chunk_size: 8, left_context: None, but the model is not causal"):
        zipformer()(features(1, 30), torch.tensor([30]), 8)
    with pytest.raises(ValueError, match="chunk_size: 6 frames; give a multiple"):
        zipformer(causal=True)(features(1, 30), torch.tensor([30]), 6)


# Training ---------------------------------------------------------------------------------------------------------------------------------


def step(model: Zipformer, seed: int, batches: float = 0.0) -> tuple[ZipformerOutput, list[Tensor]]:
    """What a training step gives, and its gradients."""
    model.train()
    model.batch_count = batches
    model.zero_grad()
    torch.manual_seed(seed)
    out = model(features(3, 63), torch.tensor([63, 50, 40]))
    assert out.penalty is not None
    (out.frames.square().sum() + out.penalty).backward()
    return out, [torch.zeros(()) if parameter.grad is None else parameter.grad.clone() for parameter in model.parameters()]


@pytest.mark.parametrize("causal", [False, True])
def test_training_repeats_from_its_seed_bit_for_bit(causal: bool) -> None:
    model = zipformer(causal=causal)
    twin = copy.deepcopy(model)
    for seed in range(3):
        (one, first), (two, second) = step(model, seed, 100.0 * seed), step(twin, seed, 100.0 * seed)
        assert torch.equal(one.frames, two.frames)
        assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))
        assert bool(one.frames.isfinite().all())
        assert all(bool(gradient.isfinite().all()) for gradient in first)
    other, _ = step(model, 9)
    assert not torch.equal(other.frames, one.frames)


def test_every_weight_learns() -> None:
    model = zipformer(causal=True)
    found = [torch.zeros_like(parameter) for parameter in model.parameters()]
    for seed in range(6):
        for total, gradient in zip(found, step(model, seed, 30000.0)[1], strict=True):
            total += gradient.abs()
    idle = [name for (name, _), total in zip(model.named_parameters(), found, strict=True) if float(total.max()) == 0.0]
    assert idle == []


def test_a_copy_has_a_count_of_its_own_and_evaluation_draws_nothing() -> None:
    model = zipformer()
    twin = copy.deepcopy(model)
    model.batch_count = 7.0
    assert (model.batch_count, twin.batch_count) == (7.0, 0.0)
    before = torch.get_rng_state()
    one = model(features(1, 30), torch.tensor([30]))
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(one.frames, twin(features(1, 30), torch.tensor([30])).frames)


def test_late_in_training_little_is_dropped_and_early_much() -> None:
    """How far a step is from what evaluation gives."""
    model = zipformer()
    plain = model(features(3, 63), torch.tensor([63, 50, 40])).frames.detach()
    size = float(plain.std())

    def distance(batches: float) -> float:
        found = [float((step(model, seed, batches)[0].frames.detach() - plain).abs().mean()) for seed in range(5)]
        return sum(found) / len(found) / size

    assert 0.0 < distance(1e6) < distance(0.0)


def test_some_clips_train_without_channels_behind_the_unmasked_ones() -> None:
    model = zipformer()
    torch.manual_seed(0)
    masks = model._channel_masks(torch.zeros(2000, 1, 8))
    assert masks[0] is None
    wide = masks[2]
    assert wide is not None
    assert wide.shape == (2000, 1, TINY.dims[2])
    assert torch.equal(wide[..., :8], torch.ones(2000, 1, 8))
    assert float(wide[..., 8].mean()) == pytest.approx(0.875, abs=0.03)
    assert float(wide[..., 12].mean()) == pytest.approx(0.875**2, abs=0.03)
    assert bool((wide[..., 12:] <= wide[..., 8:12]).all())


def test_in_bfloat16_a_step_is_finite_and_near() -> None:
    model = zipformer()
    plain = model(features(2, 63), torch.tensor([63, 40])).frames
    with torch.autocast("cpu", torch.bfloat16):
        near = model(features(2, 63), torch.tensor([63, 40])).frames
        model.train()
        torch.manual_seed(0)
        out = model(features(2, 63), torch.tensor([63, 40]))
    assert float((near - plain).abs().mean()) < 0.05 * float(plain.abs().mean())
    out.frames.float().square().sum().backward()
    assert all(parameter.grad is None or bool(parameter.grad.isfinite().all()) for parameter in model.parameters())
