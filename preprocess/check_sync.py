"""How much later the sound of a clip is than its picture, from the motion of the lips and the changes of loudness.

Lips move when loudness changes: both curves are correlated at lags up to 0.6 s, and the highest point is the offset. One short clip says
little, since lips also move in silence and before a word is heard; `Offset.clarity` tells how far the peak stands out, and the pooled
curve of many clips is what a systematic offset of a corpus shows in. Offsets beyond 0.6 s, and clips in which the speaker is not the one
who is seen, look alike: no clear peak.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from avtlm.data.container import FPS, SAMPLE_RATE

LAGS = 15  # frames to either side
LEAST_FRAMES = 50  # of a clip that is looked at
MOUTH = slice(20, 84), slice(12, 84)  # rows and columns of a crop that hold the lips in any of the geometries
SAMPLES = round(SAMPLE_RATE / FPS)
FLOOR = 1e-3  # of full scale: differences of loudness below it are those of noise


@dataclass(frozen=True)
class Offset:
    """Seconds by which the sound is late (negative: early), and how far the peak stands out, in deviations of the curve."""

    seconds: float
    clarity: float


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
    motion = lip_motion(crops[:count])
    change = loudness_change(wave[: count * SAMPLES])
    if motion.std() < 1e-6 or change.std() < 1e-6:
        return None
    motion, change = ((curve - curve.mean()) / curve.std() for curve in (motion, change))
    curve = [
        np.mean(motion[max(0, -lag) : count - max(0, lag)] * change[max(0, lag) : count - max(0, -lag)]) for lag in range(-LAGS, LAGS + 1)
    ]
    return np.asarray(curve)


def lip_motion(crops: np.ndarray) -> np.ndarray:
    """Mean change of the grey levels around the mouth from each frame to the next, ``(frames,)``, smoothed over three frames."""
    mouth = crops[:, MOUTH[0], MOUTH[1]][:, ::2, ::2].astype(np.float32)
    change = np.abs(np.diff(mouth, axis=0)).mean(axis=(1, 2))
    return _smooth(np.concatenate([change[:1], change]))


def loudness_change(wave: np.ndarray) -> np.ndarray:
    """How much the level in decibels differs between neighbouring frames, ``(frames,)``, smoothed over three frames."""
    level = 20 * np.log10(np.sqrt(np.mean(np.reshape(wave, (-1, SAMPLES)).astype(np.float64) ** 2, axis=1)) + FLOOR)
    change = np.abs(np.diff(level))
    return _smooth(np.concatenate([change[:1], change]))


def _smooth(curve: np.ndarray) -> np.ndarray:
    return np.convolve(np.pad(curve, 1, mode="edge"), np.full(3, 1 / 3), mode="valid")


def offset(curve: np.ndarray) -> Offset:
    """Where a curve has its peak, between frames by a parabola."""
    top = int(np.argmax(curve))
    shift = 0.0
    if 0 < top < len(curve) - 1:
        before, at, after = curve[top - 1 : top + 2]
        bend = before - 2 * at + after
        shift = 0.5 * (before - after) / bend if bend < 0 else 0.0
    rest = np.delete(curve, range(max(0, top - 2), min(len(curve), top + 3)))
    return Offset(round((top + shift - LAGS) / FPS, 3), round(float((curve[top] - rest.mean()) / (rest.std() + 1e-9)), 2))


def pooled(curves: Sequence[np.ndarray]) -> Offset | None:
    """The offset that many clips share: the peak of their mean curve; None without clips."""
    return offset(np.mean(curves, axis=0)) if len(curves) else None
