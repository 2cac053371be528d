"""Stacks at rates of their own: groups of frames, chunks, bypasses, and layers that are let in one after another."""

import math

import pytest
import torch

from avtlm.nn.zipformer.layer import Bypass
from avtlm.nn.zipformer.stack import Downsampling, Stack, beyond_chunks, downsampled
from tests.nn.zipformer.made_zipformer import TINY


def test_groups_are_weighted_means_and_the_last_one_is_filled_with_its_last_frame() -> None:
    down = Downsampling(3)
    with torch.no_grad():
        down.bias.copy_(torch.tensor([0.0, 1.0, -1.0]))
    weights = torch.tensor([0.0, 1.0, -1.0]).softmax(0)
    x = torch.randn(1, 5, 2)
    found = down(x)
    assert torch.allclose(found[0, 0], weights @ x[0, :3])
    assert torch.allclose(found[0, 1], weights[0] * x[0, 3] + (weights[1] + weights[2]) * x[0, 4])
    assert downsampled(torch.tensor([0, 1, 3, 4]), 3).tolist() == [0, 1, 1, 2]


def test_a_clip_is_filled_with_its_own_last_frame_but_in_the_official_code() -> None:
    x, lengths = torch.randn(2, 8, 3), torch.tensor([8, 5])
    assert torch.allclose(Downsampling(4)(x, lengths)[1, :2], Downsampling(4)(x[1:, :5])[0], atol=1e-6)
    quirk = Downsampling(4, compute_padding=True)
    assert torch.allclose(quirk(x, lengths), quirk(x), atol=1e-6)


def test_keys_of_later_chunks_and_far_before_are_hidden() -> None:
    found = ~beyond_chunks(6, 1, 2, 1)
    assert found.int().tolist() == [
        [1, 1, 0, 0, 0, 0],
        [1, 1, 0, 0, 0, 0],
        [1, 1, 1, 1, 0, 0],
        [1, 1, 1, 1, 0, 0],
        [0, 0, 1, 1, 1, 1],
        [0, 0, 1, 1, 1, 1],
    ]
    assert torch.equal(beyond_chunks(3, 2, 4, -1), beyond_chunks(6, 1, 4, -1)[::2, ::2])
    assert torch.equal(beyond_chunks(5, 4, 8, 2), beyond_chunks(20, 1, 8, 2)[::4, ::4])


def test_a_bypass_mixes_and_leaves_clips_out() -> None:
    torch.manual_seed(0)
    bypass = Bypass(3)
    with torch.no_grad():
        bypass.scale.copy_(torch.tensor([0.0, 1.0, 0.25]))
    start, end = torch.randn(400, 2, 3), torch.randn(400, 2, 3)
    assert torch.allclose(bypass(start, end), start + (end - start) * bypass.scale, atol=1e-6)
    torch.manual_seed(0)
    out = bypass(start, end, 0.0, skip=0.3)
    skipped = (out == start).flatten(1).all(1)
    assert float(skipped.float().mean()) == pytest.approx(0.3, abs=0.06)


def test_layers_are_let_in_one_after_another() -> None:
    stacks = [Stack(TINY, number) for number in range(3)]
    layers = [layer for stack in stacks for layer in stack.layers]
    assert [layer.skip.points[0][0] for layer in layers] == pytest.approx([1000.0, 2000.0, 2500.0, 3000.0])  # type: ignore[union-attr, index]
    assert [layer.skip.points[1] for layer in layers] == [  # type: ignore[union-attr, index]
        (2000.0, 0.035),
        (2500.0, 0.035 * math.sqrt(2)),
        (3000.0, 0.035 * math.sqrt(2)),
        (4000.0, 0.035 * 2),
    ]
    assert [layer.skip(None) for layer in layers] == [0.0] * 4  # type: ignore[operator]


def test_a_layer_keeps_no_more_than_its_left_context() -> None:
    torch.manual_seed(0)
    stack = Stack(TINY.__class__(**{**TINY.__dict__, "causal": True}), 1).eval()
    memories = stack.memories(2, torch.zeros(1), 8)
    sizes = []
    with torch.no_grad():
        for _ in range(4):
            _, memories = stack.step(torch.randn(2, 8, 12), 16, memories)
            kept = memories[0]
            sizes.append([part.shape[1] for part in (kept.keys, kept.nonlinear, kept.values1, kept.values2, kept.convolution1)])
    assert sizes == [[4, 4, 4, 4, 2], [8, 8, 8, 8, 2], [8, 8, 8, 8, 2], [8, 8, 8, 8, 2]]
