"""How much later the sound of a clip is than its picture, from what the lips do and how loud it is.

While a mouth opens, the picture below its middle gets darker, the lips move, and the voice gets louder. Three pairs of curves are
correlated at lags of up to 0.6 s: motion with level, darkness with level, and the changes of both; the highest point of their mean is the
offset. One clip of three seconds is often wrong by several frames: lips also move in silence, and dark clothes or beards hide the mouth.
Its `Offset.agreement` tells how far lips and sound go together at that lag, and the mean over many clips tells the offset of a corpus.
Offsets beyond 0.6 s, and a speaker who is not the one who is seen, look alike: no agreement.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from avtlm.data.container import FPS, SAMPLE_RATE

LAGS = 15  # frames to either side
LEAST_FRAMES = 50  # of a clip that is looked at
LIPS = slice(20, 84), slice(12, 84)  # rows and columns of a crop that hold the lips in any of the geometries
BELOW = slice(50, 70), slice(30, 66)  # what an open mouth darkens
SAMPLES = round(SAMPLE_RATE / FPS)
FLOOR = 1e-3  # of full scale: differences of level below it are those of noise


@dataclass(frozen=True)
class Offset:
    """Seconds by which the sound is late (negative: early), and the correlation of lips and sound there, at most 1."""

    seconds: float
    agreement: float


def lag_curve(crops: np.ndarray, wave: np.ndarray) -> np.ndarray | None:
    """Correlation of lips and sound at every lag from -15 to 15 frames; None for clips that are too short, silent or still.

    Args:
        crops: uint8 ``(frames, 96, 96)``.
        wave: float ``(samples,)`` at 16 kHz that starts with the first picture.

    Returns:
        ``(31,)``; at a positive lag the sound is taken to be late.
    """
    count = min(len(crops), len(wave) // SAMPLES)
    if count < LEAST_FRAMES:
        return None
    level = 20 * np.log10(np.sqrt(np.mean(np.reshape(wave[: count * SAMPLES], (count, -1)).astype(np.float64) ** 2, axis=1)) + FLOOR)
    lips = crops[:count, LIPS[0], LIPS[1]][:, ::2, ::2].astype(np.float32)
    darkness = -crops[:count, BELOW[0], BELOW[1]].mean(axis=(1, 2))
    motion = np.abs(np.diff(lips, axis=0, prepend=lips[:1])).mean(axis=(1, 2))
    if min(level.std(), darkness.std(), motion.std()) < 1e-6:
        return None
    pairs = (
        (_smooth(motion), _smooth(level)),
        (darkness, level),
        (_smooth(np.diff(darkness, prepend=darkness[:1])), _smooth(np.diff(level, prepend=level[:1]))),
    )
    return np.mean([[_correlation(one, other, lag) for lag in range(-LAGS, LAGS + 1)] for one, other in pairs], axis=0)


def _smooth(curve: np.ndarray) -> np.ndarray:
    """The mean of three frames."""
    return np.convolve(np.pad(curve, 1, mode="edge"), np.full(3, 1 / 3), mode="valid")


def _correlation(lips: np.ndarray, sound: np.ndarray, lag: int) -> float:
    """Of frames that lie so many apart."""
    count = len(lips)
    one, other = lips[max(0, -lag) : count - max(0, lag)], sound[max(0, lag) : count - max(0, -lag)]
    one, other = one - one.mean(), other - other.mean()
    return float((one * other).mean() / (one.std() * other.std() + 1e-9))


def offset(curve: np.ndarray) -> Offset:
    """Where a curve has its peak, between frames by a parabola."""
    top = int(np.argmax(curve))
    shift = 0.0
    if 0 < top < len(curve) - 1:
        before, at, after = curve[top - 1 : top + 2]
        bend = before - 2 * at + after
        shift = 0.5 * (before - after) / bend if bend < 0 else 0.0
    return Offset(round((top + shift - LAGS) / FPS, 3), round(float(curve[top]), 3))


def pooled(curves: Sequence[np.ndarray]) -> Offset | None:
    """The offset that many clips share: the peak of their mean curve; None without clips."""
    return offset(np.mean(curves, axis=0)) if len(curves) else None
