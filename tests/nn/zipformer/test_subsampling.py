"""The convolutions at the bottom: lengths, padding, and the least that they need."""

import pytest
import torch

from avtlm.nn.zipformer.subsampling import ConvolutionalSubsampling, frames_of


def made(compute_padding: bool = False) -> ConvolutionalSubsampling:
    torch.manual_seed(0)
    part = ConvolutionalSubsampling(20, 8, compute_padding).eval()
    with torch.no_grad():
        part.block.contract.weight.normal_()  # it starts as nearly nothing
    return part


@pytest.mark.parametrize("frames", [9, 10, 16, 33])
def test_there_are_as_many_vectors_as_said(frames: int) -> None:
    out, lengths = made()(torch.randn(1, frames, 20), torch.tensor([frames]))
    assert out.shape == (1, (frames - 7) // 2, 8)
    assert lengths.tolist() == [out.shape[1]]


def test_lengths_are_never_negative() -> None:
    assert frames_of(torch.tensor([0, 7, 8, 9, 11])).tolist() == [0, 0, 0, 1, 2]


def test_a_clip_does_not_see_the_padding_behind_it_but_in_the_official_code() -> None:
    features, lengths = torch.randn(2, 41, 20), torch.tensor([41, 24])
    for quirk in (False, True):
        part = made(quirk)
        batch, own = part(features, lengths)
        alone, _ = part(features[1:, :24], lengths[1:])
        count = int(own[1])
        same = torch.isclose(batch[1, :count], alone[0], atol=1e-5).all(-1)
        assert same.tolist() == [True] * (count - (3 if quirk else 0)) + [False] * (3 if quirk else 0)


def test_too_few_frames_are_refused() -> None:
    with pytest.raises(ValueError, match="features: 8 frames are too few"):
        made()(torch.randn(1, 8, 20), torch.tensor([8]))


def test_in_training_the_first_convolution_learns_slower() -> None:
    part = made()
    features, lengths = torch.randn(3, 30, 20), torch.tensor([30] * 3)
    norms = []
    for batches in (None, 1e6):
        part.zero_grad()
        torch.manual_seed(0)
        part(features, lengths, batches)[0].square().sum().backward()
        grads = [conv.weight.grad for conv in part.convs]
        norms.append([float(grad.norm()) for grad in grads if grad is not None])
    assert norms[1][0] / norms[1][1] < 0.5 * norms[0][0] / norms[0][1]


def test_the_stream_of_the_block_gives_what_the_whole_gives() -> None:
    block = made().block
    with torch.no_grad():
        x = torch.randn(1, 12, 4, 128)
        whole = block(x)
        past, found = x.new_zeros(1, 3, 4, 128), []
        for start, end in ((0, 7), (4, 11)):
            piece, past = block.step(x[:, start:end], past, last=False)
            found.append(piece)
        piece, _ = block.step(x[:, 8:], past, last=True)
    assert torch.allclose(torch.cat([*found, piece], 1), whole, atol=1e-5)
