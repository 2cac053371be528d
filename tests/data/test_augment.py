"""Augmentation draws everything from the generator it is given and changes only what it says."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from avtlm.data.augment import AugmentConfig, NoiseConfig, add_noise, draw_view, draw_warp, mask_frequencies


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def wave(seed: int, samples: int = 8000) -> np.ndarray:
    return rng(seed).normal(0, 2000, samples).astype(np.int16)


def hiss(generator: np.random.Generator) -> np.ndarray:
    return generator.normal(0, 2000, 8000)


def snr(clean: np.ndarray, noisy: np.ndarray) -> float:
    noise = noisy.astype(float) - clean
    return float(10 * np.log10((clean.astype(float) ** 2).mean() / (noise**2).mean()))


@pytest.mark.parametrize("level", [-5.0, 0.0, 10.0])
def test_noise_has_the_asked_for_level(level: float) -> None:
    clean = wave(0)
    noisy = add_noise(clean, hiss, NoiseConfig(1.0, level, level), 1.0, rng())
    assert noisy.dtype == np.int16
    assert len(noisy) == len(clean)
    assert snr(clean, noisy) == pytest.approx(level, abs=0.2)


def test_noise_repeats_from_a_seed() -> None:
    config = NoiseConfig(1.0, -5.0, 10.0)
    one, two, other = (add_noise(wave(0), hiss, config, 1.0, rng(seed)) for seed in (1, 1, 2))
    assert np.array_equal(one, two)
    assert not np.array_equal(one, other)


def test_noise_comes_with_its_probability() -> None:
    config = NoiseConfig(0.25, 0.0, 0.0)
    noisy = sum(not np.array_equal(add_noise(wave(0), hiss, config, 1.0, rng(seed)), wave(0)) for seed in range(400))
    assert noisy / 400 == pytest.approx(0.25, abs=0.07)


def test_whole_levels_are_drawn_with_both_ends_and_halves_with_none() -> None:
    clean = wave(0, 200)

    def levels(config: NoiseConfig) -> set[float]:
        return {round(snr(clean, add_noise(clean, lambda _: wave(1, 200), config, 1.0, rng(seed))), 1) for seed in range(60)}

    assert {round(level) for level in levels(NoiseConfig(1.0, -1.0, 1.0, whole_snr=True))} == {-1, 0, 1}
    assert len(levels(NoiseConfig(1.0, -1.0, 1.0, whole_snr=True))) == 3
    assert len(levels(NoiseConfig(1.0, -1.0, 1.0))) > 10


def test_noise_is_drawn_only_where_it_is_mixed_in() -> None:
    def refuse(_: np.random.Generator) -> np.ndarray:
        raise AssertionError("drawn")

    config = NoiseConfig(0.5)
    assert any(rng(seed).random() >= 0.5 for seed in range(20))
    for seed in (seed for seed in range(20) if rng(seed).random() >= 0.5):
        assert add_noise(wave(0), refuse, config, 1.0, rng(seed)) is not None


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({"kinds": ("music",)}, "set the key 'lists' to their folder"),
        ({"count": 2}, "set the key 'lists' to their folder"),
        ({"lists": "noise", "count": 0}, "count from 1"),
        ({"lists": "noise", "kinds": ()}, "name kinds once each"),
        ({"lists": "noise", "kinds": ("music", "music")}, "name kinds once each"),
    ],
)
def test_lists_of_noise_that_make_no_sense_are_refused(wrong: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        NoiseConfig(**wrong)


def test_a_ramp_raises_the_probability_and_lowers_the_level() -> None:
    config = NoiseConfig(0.6, -10.0, 10.0, ramp=0.5)
    assert config.at(0.0) == (0.0, 10.0)
    assert config.at(0.25) == (pytest.approx(0.3), pytest.approx(0.0))
    assert config.at(0.5) == config.at(1.0) == (pytest.approx(0.6), pytest.approx(-10.0))
    assert replace(config, ramp=0.0).at(0.0) == (0.6, -10.0)


def test_warps_lie_on_a_grid_within_their_bounds() -> None:
    config = AugmentConfig(frequency_warp=0.08)
    drawn = {round(draw_warp(config, rng(seed)), 4) for seed in range(300)}
    assert drawn == {0.92, 0.94, 0.96, 0.98, 1.0, 1.02, 1.04, 1.06, 1.08}
    assert draw_warp(AugmentConfig(), rng()) == 1.0


def test_frequency_masks_hide_the_same_bands_in_all_four_stacked_frames() -> None:
    features = np.ones((5, 104), np.float32)
    config = AugmentConfig(frequency_masks=2, frequency_mask_width=5)
    for seed in range(30):
        bands = mask_frequencies(features, config, rng(seed)).reshape(5, 4, 26)
        assert (bands == bands[0, 0]).all()
        assert (bands[0, 0] == 0).sum() <= 10
    assert features.min() == 1
    assert mask_frequencies(features, AugmentConfig(), rng()) is features


def test_views_cover_all_offsets_and_mirror_half_of_the_clips() -> None:
    views = [draw_view(AugmentConfig(), rng(seed), 8) for seed in range(800)]
    assert {offset[0] for offset, _ in views if offset} == set(range(9))
    assert {offset[1] for offset, _ in views if offset} == set(range(9))
    assert np.mean([mirror for _, mirror in views]) == pytest.approx(0.5, abs=0.06)
    assert draw_view(AugmentConfig(random_crop=False, mirror=False), rng(), 8) == (None, False)


@pytest.mark.parametrize("wrong", [{"prob": 1.5}, {"snr_low": 5.0, "snr_high": 0.0}, {"voices": 0}, {"ramp": -1.0}])
def test_impossible_noise_is_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="give prob and ramp from 0 to 1"):
        NoiseConfig(**wrong)  # type: ignore[arg-type]
