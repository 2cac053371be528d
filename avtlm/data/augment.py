"""What training does to a clip: noise, frequency warp, frequency masks, random crop and mirror.

Every draw comes from a numpy generator seeded by run, epoch and utterance, so it is the same on any number of workers. Sources: noise as in
AV-HuBERT for noisy speech (arXiv 2201.01763); frequency masks from SpecAugment (arXiv 1904.08779); crops as AV-HuBERT section 4.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from avtlm.data.noise import mix_at_snr


@dataclass(frozen=True)
class NoiseConfig:
    """Noise in the sound of training clips, with ``prob``, at an SNR drawn uniformly from [``snr_low``, ``snr_high``] dB.

    Without ``lists`` it is babble of other clips of the source. As published for AV-HuBERT: ``lists`` of the kind ``all``, ``prob`` 0.25
    and 0 dB.

    Attributes:
        whole_snr: draw whole numbers of dB, both ends included, as AV-HuBERT does where it is given a range.
        voices: clips in one babble.
        ramp: if above 0, the probability rises from 0 to ``prob`` and the lowest SNR falls from ``snr_high`` to ``snr_low`` over this
            share of the steps: with heavy noise from the first step on, audio is hardly learned.
        lists: folder with lists of sound files, ``<kind>/<split>.tsv``; see avtlm.data.noise_files.
        kinds: which lists; each is as likely as any other. ``all`` is what preprocess.noise puts together of all kinds.
        count: files that are averaged into one noise (AV-HuBERT's ``noise_num``).
    """

    prob: float = 0.25
    snr_low: float = 0.0
    snr_high: float = 0.0
    whole_snr: bool = False
    voices: int = 6
    ramp: float = 0.0
    lists: str | None = None
    kinds: tuple[str, ...] = ("all",)
    count: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.prob <= 1 or not 0 <= self.ramp <= 1 or self.snr_low > self.snr_high or self.voices < 1:
            raise ValueError(
                f"noise: prob {self.prob}, ramp {self.ramp}, SNR {self.snr_low} to {self.snr_high} dB, {self.voices} voices; "
                "give prob and ramp from 0 to 1, snr_low <= snr_high, and at least one voice."
            )
        if self.count < 1 or not self.kinds or len(set(self.kinds)) < len(self.kinds):
            raise ValueError(f"noise: kinds {', '.join(self.kinds) or 'none'}, count {self.count}; name kinds once each and count from 1.")
        if self.lists is None and (self.count > 1 or self.kinds != ("all",)):
            raise ValueError("noise: kinds and count choose among lists of sound files; set the key 'lists' to their folder.")

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


def add_noise(
    wave: np.ndarray, noise: Callable[[np.random.Generator], np.ndarray], config: NoiseConfig, progress: float, rng: np.random.Generator
) -> np.ndarray:
    """int16 waveform with what ``noise`` draws in it, or as it was; noise is drawn only where it is needed."""
    prob, low = config.at(progress)
    if rng.random() >= prob:
        return wave
    snr = rng.integers(round(low), round(config.snr_high) + 1) if config.whole_snr else rng.uniform(low, config.snr_high)
    return mix_at_snr(wave, noise(rng), float(snr))


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
