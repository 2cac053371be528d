"""Transforms of crops and sound in training (equality with the official ones: tests/test_golden.py)."""

import numpy as np
import pytest

from avtlm.lips import transforms


def test_training_transforms_repeat_with_their_seed() -> None:
    crops = np.random.default_rng(0).integers(0, 256, (60, 96, 96), np.uint8)
    for function in (transforms.avhubert_training_video, transforms.auto_avsr_training_video):
        first, again, other = (function(crops, np.random.default_rng(seed)) for seed in (3, 3, 4))
        assert first.shape == (60, 88, 88)
        assert (first == again).all()
        assert not (first == other).all()
    wave = np.random.default_rng(1).normal(size=32000).astype(np.float32)
    audio = transforms.auto_avsr_training_audio(wave, wave[::-1].copy(), np.random.default_rng(2))
    assert abs(audio.mean()) < 1e-4
    assert abs(audio.std() - 1) < 1e-3


def test_masked_frames_are_black_before_normalising() -> None:
    generator = np.random.default_rng(0)
    crops = np.full((200, 96, 96), 255, np.uint8)
    video = transforms.auto_avsr_training_video(crops, generator)
    assert np.unique(video).tolist() == pytest.approx([-0.421 / 0.165, (1 - 0.421) / 0.165], rel=1e-5)


def test_masks_stay_inside_short_sequences() -> None:
    for length in range(1, 40):
        for begin, end in transforms.draw_stretches(length, 10, 25, np.random.default_rng(length)):
            assert 0 <= begin <= end <= length


def test_silent_noise_is_refused() -> None:
    with pytest.raises(ValueError, match="silent"):
        transforms.add_noise(np.ones(5, np.float32), np.zeros(5, np.float32), 0)


def test_the_centre_of_an_odd_number_of_spare_pixels_is_that_of_each_system() -> None:
    crops = np.broadcast_to(np.arange(95, dtype=np.uint8), (1, 91, 95))  # grey levels are columns; 3 and 7 pixels are spare
    for system, left in (("avhubert", 3), ("auto_avsr", 4)):
        video = transforms.evaluation_video(crops, system)  # type: ignore[arg-type]
        assert video.shape == (1, 88, 88)
        assert video[0, 0, 0] * 0.165 + 0.421 == pytest.approx(left / 255, abs=1e-6)
