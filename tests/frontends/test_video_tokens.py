"""Lip frames and patches as tokens: what they show, and that nothing of a removed one is seen."""

import pytest
import torch

from avtlm.frontends.lips import LipEncoder, LipEncoderConfig, normalise_grey
from avtlm.frontends.video_tokens import LipTokens, PatchConfig, PatchTokens

LIPS = LipEncoderConfig(22, 4, 2, False, (8,), (1,), (2,), "relu", "flatten")


def video(rows: int = 2, frames: int = 9, size: int = 22, seed: int = 0) -> torch.Tensor:
    return torch.randint(256, (rows, frames, size, size), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)


def test_a_removed_frame_is_grey_to_its_neighbours_and_not_computed() -> None:
    torch.manual_seed(0)
    tokens = LipTokens(LIPS, 16, 11).eval()
    clip, lengths = video(), torch.tensor([9, 6])
    removed = torch.zeros(2, 9, dtype=torch.bool)
    removed[0, 3:5] = True
    other = clip.clone()
    other[0, 3:5] = 255 - other[0, 3:5]
    first, second = (tokens(each, lengths, removed) for each in (clip, other))
    assert torch.equal(first, second)
    whole = tokens(clip, lengths)
    assert torch.allclose(first[1], whole[1], atol=1e-5)  # another clip, of which nothing is removed
    assert torch.allclose(first[0, 7:], whole[0, 7:], atol=1e-5)  # out of the reach of five frames
    assert not torch.allclose(first[0, 5], whole[0, 5], atol=1e-3)


def test_frames_that_are_not_shown_equal_grey_ones() -> None:
    torch.manual_seed(0)
    encoder = LipEncoder(LIPS).eval()
    clip, lengths = normalise_grey(video(1)), torch.tensor([9])
    shown = torch.tensor([[True, True, False, True, False, False, True, True, True]])
    expected = encoder(clip.masked_fill(~shown[..., None, None], 0.0), lengths)
    found = encoder(clip, lengths, shown)
    assert torch.allclose(found[shown], expected[shown], atol=1e-5)
    assert not found[~shown].any()


def test_the_values_of_a_lip_frame_are_means_of_its_cells() -> None:
    tokens, clip = LipTokens(LIPS, 16, 11), video(1)
    values = tokens.targets(clip, torch.tensor([9]))
    assert values.shape == (1, 9, 121)
    assert values[0, 4, 12].item() == pytest.approx(normalise_grey(clip)[0, 4, 2:4, 2:4].mean().item(), abs=1e-5)
    assert tokens.times(clip, torch.tensor([9])).tolist() == [list(range(9))]


def test_patches_are_of_pictures_spread_over_every_clip() -> None:
    tokens = PatchTokens(PatchConfig(22, 11, 3), 16)
    clip, lengths = video(), torch.tensor([9, 6])
    assert tokens.counts(lengths).tolist() == [12, 12]
    assert tokens.counts(torch.tensor([0])).tolist() == [0]
    times = tokens.times(clip, lengths)
    assert times[:, ::4].tolist() == [[1, 4, 7], [1, 3, 5]]
    values = tokens.targets(clip, lengths)
    assert values.shape == (2, 12, 121)
    assert torch.equal(values[1, 4 + 1].view(11, 11), normalise_grey(clip)[1, 3, :11, 11:])
    assert tokens(clip, lengths).shape == (2, 12, 16)


def test_sizes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match=r"lip_cells: 7 does not divide lips\.size 22"):
        LipTokens(LIPS, 16, 7)
    with pytest.raises(ValueError, match="give a size that divides the picture"):
        PatchConfig(88, 16)
