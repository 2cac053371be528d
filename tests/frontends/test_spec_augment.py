import pytest
import torch

from avtlm.frontends.spec_augment import SpecAugmentConfig, spec_augment, warp

ALL = SpecAugmentConfig(prob=1.0, time_warp=5, frequency_masks=2, frequency_width=10, time_masks=3, time_width=20, most_time=0.15)


def clips() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(3, 100, 40, generator=generator), torch.tensor([100, 60, 30])


def test_the_same_generator_hides_the_same_and_padding_stays() -> None:
    features, lengths = clips()
    first, second = (spec_augment(features, lengths, ALL, torch.Generator().manual_seed(1)) for _ in range(2))
    assert torch.equal(first, second)
    assert not torch.equal(first, features)
    for row, length in enumerate(lengths.tolist()):
        assert torch.equal(first[row, length:], features[row, length:])
    assert torch.equal(spec_augment(features, lengths, SpecAugmentConfig(prob=0.0), torch.Generator()), features)


def test_what_is_hidden_becomes_the_mean_and_is_bounded() -> None:
    features, lengths = clips()
    config = SpecAugmentConfig(prob=1.0, time_warp=0, frequency_masks=1, frequency_width=10, time_masks=10, time_width=100, most_time=0.15)
    for seed in range(20):
        found = spec_augment(features, lengths, config, torch.Generator().manual_seed(seed))
        changed = found[0] != features[0]
        bands, times = changed.all(0), changed.all(1)
        assert int(bands.sum()) <= 10
        assert int(times.sum()) <= 15
        assert torch.equal(changed, bands[None] | times[:, None])
        if bool(changed.any()):
            torch.testing.assert_close(found[0][changed], features[0].mean().expand(int(changed.sum())))


def test_warping_keeps_the_length_and_both_ends() -> None:
    clip = torch.linspace(0, 1, 50)[:, None].expand(-1, 3)
    for seed in range(10):
        found = warp(clip, 10, torch.Generator().manual_seed(seed))
        assert found.shape == clip.shape
        torch.testing.assert_close(found[[0, -1]], clip[[0, -1]], atol=0.03, rtol=0)
        assert bool((found.diff(dim=0) >= -1e-6).all())


def test_shares_and_counts_are_checked() -> None:
    with pytest.raises(ValueError, match=r"prob: 1\.5"):
        SpecAugmentConfig(prob=1.5)
    with pytest.raises(ValueError, match="give 0"):
        SpecAugmentConfig(time_masks=-1)
