"""Model inputs equal the official ones on golden cases."""

from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from avtlm.lips import transforms

GOLDEN = Path(__file__).parents[1] / "golden" / "lip_roi"


def load(case: str) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    return load_file(GOLDEN / case / "inputs.safetensors"), load_file(GOLDEN / case / "outputs.safetensors")


def test_avhubert_video_equals_the_official_one() -> None:
    inputs, outputs = load("avhubert_transforms")
    frames = inputs["frames"]
    assert np.abs(transforms.evaluation_video(frames) - outputs["test"]).max() <= 1e-5
    flipped = transforms.normalise(transforms.cut_window(frames, 3, 5)[..., ::-1])
    assert np.abs(flipped - outputs["train_dw3_dh5_flip1"]).max() <= 1e-5
    assert np.abs(transforms.normalise(transforms.cut_window(frames, 8, 0)) - outputs["train_dw8_dh0_flip0"]).max() <= 1e-5


def test_auto_avsr_video_and_masks_equal_the_official_ones() -> None:
    inputs, outputs = load("autoavsr_transforms")
    video = transforms.evaluation_video(inputs["frames_rgb"])
    assert np.abs(video - outputs["video_test"][:, 0]).max() <= 1e-5
    assert transforms.mask_count(30, 25) == outputs["n_mask"]
    stretches = [transforms.place_stretch(30, reach, width, start) for (reach, width), start in zip([(4, 7), (6, 3)], [5, 19])]
    masked = transforms.mask_stretches(video.copy(), [stretch for stretch in stretches if stretch])
    assert np.abs(masked - outputs["time_mask_video"][:, 0]).max() <= 1e-5


def test_auto_avsr_audio_equals_the_official_one() -> None:
    inputs, outputs = load("autoavsr_transforms")
    assert np.abs(transforms.normalise_audio(inputs["wave"]) - outputs["audio_test"]).max() <= 1e-5
    for snr in (-5, 0, 10):
        noisy = transforms.add_noise(inputs["wave"], inputs["noise"].T, snr)
        assert np.abs(noisy - outputs[f"noisy_snr{snr}"]).max() <= 1e-5


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
