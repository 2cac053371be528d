"""Convolutions over time: centred, causal by chunks, and in steps; none of them sees padding or what is ahead."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from avtlm.nn.zipformer.convolution import ChunkConvolution, ConvolutionModule, DepthwiseConvolution


def made(channels: int = 3, taps: int = 5, compute_padding: bool = False) -> ChunkConvolution:
    torch.manual_seed(0)
    conv = ChunkConvolution(channels, taps, compute_padding)
    nn.init.normal_(conv.chunkwise_scale)
    return conv


def written_out(conv: ChunkConvolution, x: Tensor, chunk: int) -> Tensor:
    """One clip (frames, channels), chunk by chunk as the definition says."""
    causal = F.conv1d(F.pad(x.T, (conv.reach, 0)), conv.causal.weight, conv.causal.bias, groups=x.shape[1]).T
    pieces = []
    for part in x.split(chunk):
        whole = F.pad(part, (0, 0, 0, chunk - len(part)))
        inside = F.conv1d(whole.T, conv.chunkwise.weight, conv.chunkwise.bias, padding=conv.reach, groups=x.shape[1]).T
        scale = torch.ones(chunk, x.shape[1])
        for time in range(chunk):
            if time < conv.taps:
                scale[time] += conv.chunkwise_scale[0, :, time]
            if conv.taps - chunk + time >= 0:
                scale[time] += conv.chunkwise_scale[1, :, conv.taps - chunk + time]
        pieces.append((inside * scale)[: len(part)])
    return torch.cat(pieces) + causal


@pytest.mark.parametrize(("taps", "padding"), [(5, 2), (3, 0), (1, 0)])
def test_channels_side_by_side_are_convolved_one_by_one(taps: int, padding: int) -> None:
    torch.manual_seed(0)
    conv, x = DepthwiseConvolution(6, taps, padding), torch.randn(2, 9, 6, requires_grad=True)
    expected = F.conv1d(x.transpose(1, 2), conv.weight, conv.bias, padding=padding, groups=6).transpose(1, 2)
    out = conv(x)
    assert torch.allclose(out, expected, atol=1e-6)
    probe = torch.randn(out.shape)
    inputs = (x, conv.weight, conv.bias)
    for ours, theirs in zip(torch.autograd.grad(out, inputs, probe), torch.autograd.grad(expected, inputs, probe), strict=True):
        assert torch.allclose(ours, theirs, atol=1e-5)


@pytest.mark.parametrize("chunk", [1, 2, 4, 5, 8, 16])
def test_chunks_are_convolved_as_the_definition_says(chunk: int) -> None:
    conv, x = made(), torch.randn(2, 11, 3)
    expected = torch.stack([written_out(conv, row, chunk) for row in x])
    assert torch.allclose(conv(x, chunk, None), expected, atol=1e-5)


@pytest.mark.parametrize("lengths", [(11, 4), (2, 11), (11, 11)])
def test_without_chunks_every_clip_is_one_of_its_own_length(lengths: tuple[int, int]) -> None:
    conv = made()
    x = torch.randn(2, 11, 3)
    for row, length in enumerate(lengths):
        x[row, length:] = 0.0
    found = conv(x, -1, torch.tensor(lengths))
    for row, length in enumerate(lengths):
        assert torch.allclose(found[row, :length], written_out(conv, x[row, :length], length), atol=1e-5)
    if lengths == (11, 11):
        assert torch.allclose(conv(x, -1, None), found, atol=1e-6)


def test_the_official_code_ends_chunks_where_the_batch_does() -> None:
    x, lengths = torch.randn(2, 11, 3), torch.tensor([11, 4])
    x[1, 4:] = 0.0
    quirk, ours = made(compute_padding=True), made()
    assert torch.allclose(quirk(x, -1, lengths)[1, :4], written_out(quirk, x[1], 11)[:4], atol=1e-5)
    assert not torch.allclose(quirk(x, -1, lengths)[1, :4], ours(x, -1, lengths)[1, :4], atol=1e-3)
    assert torch.allclose(quirk(x, 16, None), quirk(x, -1, None))  # a chunk that is longer than the batch ends with it
    assert not torch.allclose(ours(x, 16, None), ours(x, -1, None), atol=1e-3)


@pytest.mark.parametrize(("taps", "chunk"), [(5, 4), (5, 2), (1, 2), (7, 4)])
def test_steps_give_what_the_whole_gives(taps: int, chunk: int) -> None:
    conv, x = made(taps=taps), torch.randn(2, 11, 3)
    past, pieces = x.new_zeros(2, conv.reach, 3), []
    for part in x.split(chunk, 1):
        piece, past = conv.step(part, conv.scale(chunk), past)
        pieces.append(piece)
        assert past.shape == (2, conv.reach, 3)
    assert torch.allclose(torch.cat(pieces, 1), conv(x, chunk, None), atol=1e-5)


def test_nothing_is_seen_beyond_a_chunk() -> None:
    conv, x = made(), torch.randn(1, 12, 3)
    other = x.clone()
    other[:, 8:] = 7.0
    assert torch.equal(conv(x, 4, None)[:, :8], conv(other, 4, None)[:, :8])
    assert not torch.equal(conv(x, 6, None)[:, :8], conv(other, 6, None)[:, :8])


@pytest.mark.parametrize("causal", [False, True])
def test_a_module_sees_no_padding(causal: bool) -> None:
    torch.manual_seed(0)
    module, lengths = ConvolutionModule(4, 5, causal), torch.tensor([9, 6])
    x = torch.randn(2, 9, 4)
    there = (torch.arange(9) < lengths[:, None])[..., None]
    found = module(x, there, -1, lengths)
    alone = module(x[1:, :6])
    assert torch.allclose(found[1, :6], alone[0], atol=1e-5)
