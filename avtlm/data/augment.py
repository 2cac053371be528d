"""What training does to a clip: noise, frequency warp, frequency masks, random crop and mirror.

Every draw comes from a numpy generator seeded by run, epoch and utterance, so it is the same on any number of workers. Sources: noise as in
AV-HuBERT for noisy speech (arXiv 2201.01763); frequency masks from SpecAugment (arXiv 1904.08779); crops as AV-HuBERT section 4.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from avtlm.data.noise import babble, mix_at_snr


@dataclass(frozen=True)
class NoiseConfig:
    """Babble made of other training clips, mixed in with ``prob`` at an SNR drawn uniformly from [``snr_low``, ``snr_high``] dB.

    With ``ramp`` > 0 the probability rises from 0 to ``prob`` and the lowest SNR falls from ``snr_high`` to ``snr_low`` over that share of
    the steps: with heavy noise from the first step on, audio is hardly learned.
    """

    prob: float = 0.25
    snr_low: float = 0.0
    snr_high: float = 0.0
    voices: int = 6
    ramp: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.prob <= 1 or not 0 <= self.ramp <= 1 or self.snr_low > self.snr_high or self.voices < 1:
            raise ValueError(
                f"noise: prob {self.prob}, ramp {self.ramp}, SNR {self.snr_low} to {self.snr_high} dB, {self.voices} voices; "
                "give prob and ramp from 0 to 1, snr_low <= snr_high, and at least one voice."
            )

    def at(self, progress: float) -> tuple[float, float]:
        """Probability and lowest SNR when the share ``progress`` of the training is done."""
        share = min(progress / self.ramp, 1.0) if self.ramp > 0 else 1.0
        return self.prob * share, self.snr_high + (self.snr_low - self.snr_high) * share


@dataclass(frozen=True)
class AugmentConfig:
    """Augmentation of training clips. ``frequency_warp`` 0.08 means that mel filters are stretched by up to 8 % either way."""

    noise: NoiseConfig | None = None
    frequency_warp: float = 0.0
    frequency_masks: int = 0
    frequency_mask_width: int = 5
    random_crop: bool = True
    mirror: bool = True


def add_noise(wave: np.ndarray, others: Sequence[np.ndarray], config: NoiseConfig, progress: float, rng: np.random.Generator) -> np.ndarray:
    """int16 waveform with babble of ``others`` (int16, at least ``voices`` of them) in it, or as it was."""
    prob, low = config.at(progress)
    if rng.random() >= prob:
        return wave
    snr = rng.uniform(low, config.snr_high)
    chosen = rng.choice(len(others), size=min(config.voices, len(others)), replace=False)
    return mix_at_snr(wave, babble([others[i] for i in chosen], rng, len(wave)), snr)


def draw_warp(config: AugmentConfig, rng: np.random.Generator) -> float:
    """A factor for the mel filters, in steps of 2 % so that few filter banks are made."""
    steps = round(config.frequency_warp / 0.02)
    return 1.0 + 0.02 * int(rng.integers(-steps, steps + 1))


def mask_frequencies(features: np.ndarray, config: AugmentConfig, rng: np.random.Generator) -> np.ndarray:
    """Hide bands in normalised, stacked features (frames, 4 x 26) by zeros, the same bands in all four stacked frames."""
    if config.frequency_masks == 0:
        return features
    bands = features.reshape(len(features), -1, 26).copy()
    for _ in range(config.frequency_masks):
        width = int(rng.integers(0, config.frequency_mask_width + 1))
        start = int(rng.integers(0, 26 - width + 1))
        bands[:, :, start : start + width] = 0.0
    return bands.reshape(features.shape)


def draw_view(config: AugmentConfig, rng: np.random.Generator, slack: int) -> tuple[tuple[int, int] | None, bool]:
    """Offset (y, x) of the crop, None for the centre, and whether to mirror: one draw per clip."""
    offset = (int(rng.integers(0, slack + 1)), int(rng.integers(0, slack + 1))) if config.random_crop else None
    return offset, bool(config.mirror and rng.random() < 0.5)
