"""The lag between lips and sound comes out where it was put in."""

import numpy as np
import pytest

from preprocess.check_sync import LAGS, lag_curve, offset, pooled


def clip(late: int, seed: int = 0, frames: int = 150) -> tuple[np.ndarray, np.ndarray]:
    """Lips that open as the sound gets louder, and sound that is late by so many frames."""
    rng = np.random.default_rng(seed)
    opening = np.clip(np.cumsum(rng.normal(0, 0.25, frames + 2 * LAGS)), 0, None) % 1.0
    crops = np.full((frames, 96, 96), 150, np.uint8)
    for number in range(frames):
        size = round(20 * opening[LAGS + number])
        crops[number, 48 - size // 2 : 48 + size // 2, 30:66] = 40
    level = np.repeat(0.02 + 0.3 * opening[LAGS - late : LAGS - late + frames], 640)
    return crops, (level * rng.standard_normal(len(level))).astype(np.float32)


@pytest.mark.parametrize("late", [-8, -2, 0, 3, 10])
def test_the_offset_of_a_clip_is_found(late: int) -> None:
    curve = lag_curve(*clip(late))
    assert curve is not None
    found = offset(curve)
    assert found.seconds == pytest.approx(late / 25, abs=0.03)
    assert found.agreement > 0.5


def test_many_clips_together_say_it_better_than_most_of_them() -> None:
    curves = [curve for seed in range(12) if (curve := lag_curve(*clip(5, seed, 60))) is not None]
    whole = pooled(curves)
    assert whole is not None
    assert whole.seconds == pytest.approx(0.2, abs=0.02)
    assert abs(whole.seconds - 0.2) <= np.median([abs(offset(curve).seconds - 0.2) for curve in curves])


def test_sound_that_has_nothing_to_do_with_the_lips_agrees_less() -> None:
    agreements = []
    for seed in range(12):
        curve = lag_curve(clip(0, seed)[0], clip(0, seed + 100)[1])
        if curve is not None:  # lips that stay shut
            agreements.append(offset(curve).agreement)
    assert len(agreements) > 8
    assert np.median(agreements) < 0.5


def test_clips_without_motion_or_sound_or_of_a_second_are_passed_over() -> None:
    crops, wave = clip(0)
    assert lag_curve(crops[:30], wave) is None
    assert lag_curve(np.repeat(crops[:1], 150, axis=0), wave) is None
    assert lag_curve(crops, np.zeros_like(wave)) is None
    assert pooled([]) is None
