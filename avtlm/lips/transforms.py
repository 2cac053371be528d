"""What AV-HuBERT and auto_avsr do to lip crops and waveforms before their models see them.

Both cut 96 x 96 crops to 88 x 88 and normalise grey values by mean 0.421 and deviation 0.165. In training AV-HuBERT draws an offset and a
mirror a clip; auto_avsr draws an offset and blacks out stretches of frames before normalising: masked frames are -0.421 / 0.165. Draws
are arguments or come from a numpy generator. (For the recipes of this library see :mod:`avtlm.data.augment`.)
"""

import math
from collections.abc import Sequence
from typing import Literal

import numpy as np

SIDE = 88
MEAN, DEVIATION = 0.421, 0.165
GREY_WEIGHTS = np.array([0.2989, 0.587, 0.114], np.float32)  # of red, green, blue, as torchvision mixes them
VIDEO_MASK = (10, 25)  # auto_avsr's window and stride: frames, and samples at 16 kHz
AUDIO_MASK = (6400, 16000)
AUDIO_SNRS = (-5, 0, 5, 10, 15, 20, 999999)  # auto_avsr's noise levels in training, in dB; the last means none


def cut_window(crops: np.ndarray, left: int, top: int, side: int = SIDE) -> np.ndarray:
    """``(frames, ..., 96, 96)`` to ``(frames, ..., side, side)``; the models take 88."""
    return crops[..., top : top + side, left : left + side]


def normalise(crops: np.ndarray, mean: float = MEAN, deviation: float = DEVIATION) -> np.ndarray:
    """uint8 ``(frames, height, width)``, or RGB ``(frames, 3, height, width)``, or the same divided by 255, to float32 model input.

    Returns:
        float32 ``(frames, height, width)``, grey.
    """
    values = crops.astype(np.float32) / np.float32(255) if crops.dtype == np.uint8 else crops
    if values.ndim == 4:
        values = np.tensordot(values, GREY_WEIGHTS, axes=([1], [0]))
    return ((values - np.float32(mean)) / np.float32(deviation)).astype(np.float32)


def evaluation_video(crops: np.ndarray, system: Literal["avhubert", "auto_avsr"] = "avhubert") -> np.ndarray:
    """The centre of the crops, normalised. From an odd number of spare pixels AV-HuBERT leaves the fewer at the left and at the top,
    auto_avsr (as torchvision) an even number of them."""
    spare = crops.shape[-1] - SIDE, crops.shape[-2] - SIDE
    left, top = (round(pixels / 2) if system == "auto_avsr" else pixels // 2 for pixels in spare)
    return normalise(cut_window(crops, left, top))


def avhubert_training_video(crops: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """One random window and one mirror (probability 0.5) for the whole clip."""
    left, top = (int(generator.integers(0, crops.shape[-1] - SIDE + 1)) for _ in range(2))
    window = cut_window(crops, left, top)
    return normalise(window[..., ::-1] if generator.random() < 0.5 else window)


def auto_avsr_training_video(crops: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """One random window, adaptive time masks; auto_avsr does not mirror."""
    left, top = (int(generator.integers(0, crops.shape[-1] - SIDE + 1)) for _ in range(2))
    window = cut_window(crops, left, top).copy()
    return normalise(mask_stretches(window, draw_stretches(len(window), *VIDEO_MASK, generator)))


def mask_count(length: int, stride: int) -> int:
    """How many masks a sequence gets."""
    return math.floor((length + stride - 0.1) / stride)


def place_stretch(length: int, reach: int, width: int, start: int) -> tuple[int, int] | None:
    """One mask of the adaptive time mask as begin and end, or None.

    A quirk of the official code: ``reach`` bounds the start (taken modulo ``length - reach``) and decides whether there is a mask at all,
    while the masked length is the unrelated second draw, ``width``.
    """
    if reach == 0 or reach >= length:
        return None
    begin = start % (length - reach)
    return begin, min(begin + width, length)


def draw_stretches(length: int, window: int, stride: int, generator: np.random.Generator) -> list[tuple[int, int]]:
    """The adaptive time mask: a number of masks that grows with the length, each shorter than ``window``."""
    draws = [tuple(int(value) for value in generator.integers(window, size=2)) for _ in range(mask_count(length, stride))]
    placed = [place_stretch(length, reach, width, int(generator.integers(max(1, length - reach)))) for reach, width in draws]
    return [stretch for stretch in placed if stretch is not None]


def mask_stretches(values: np.ndarray, stretches: Sequence[tuple[int, int]]) -> np.ndarray:
    """Set ``values[begin:end]`` to zero in place and return ``values``."""
    for begin, end in stretches:
        values[begin:end] = 0
    return values


def normalise_audio(wave: np.ndarray) -> np.ndarray:
    """auto_avsr's waveform ``(samples,)`` or ``(samples, 1)``: mean 0 and deviation 1 over the whole of it (layer norm, eps 1e-8)."""
    wave = wave.astype(np.float64)
    return ((wave - wave.mean()) / np.sqrt(wave.var() + 1e-8)).astype(np.float32)


def add_noise(wave: np.ndarray, noise: np.ndarray, snr_db: float) -> np.ndarray:
    """``wave`` plus ``noise`` of the same shape, scaled to a ratio of energies of ``snr_db`` dB, as torchaudio's ``add_noise``.

    Raises:
        ValueError: the shapes differ, or the noise is silent.
    """
    if wave.shape != noise.shape:
        raise ValueError(f"noise: shape {tuple(noise.shape)}; expected that of the waveform, {tuple(wave.shape)}.")
    energy, noise_energy = float(np.square(wave, dtype=np.float64).sum()), float(np.square(noise, dtype=np.float64).sum())
    if noise_energy == 0:
        raise ValueError("noise: it is silent, so no level of it gives a signal-to-noise ratio.")
    scale = math.sqrt(energy / noise_energy) * 10 ** (-snr_db / 20)
    return (wave + scale * noise).astype(np.float32)


def auto_avsr_training_audio(wave: np.ndarray, noise: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Adaptive time masks, noise at a random level, normalisation, in that order."""
    masked = mask_stretches(wave.copy(), draw_stretches(len(wave), *AUDIO_MASK, generator))
    return normalise_audio(add_noise(masked, noise, float(generator.choice(AUDIO_SNRS))))
