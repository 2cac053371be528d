"""The moving mouth: phones to five controls over time, and controls to pictures.

Controls (Parke's parametric faces, reduced): jaw, width (spread lips), round, tuck (lower lip to the teeth), tongue. Every IPA symbol has a
target; targets are joined linearly and smoothed, which is a simple model of coarticulation.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np

from preprocess.synthesis.canvas import band, polygon
from preprocess.synthesis.espeak import Phone
from preprocess.synthesis.portrait import SCALE, SIZE, Portrait

CONTROLS = ("jaw", "width", "round", "tuck", "tongue")
FPS = 25
GRID = 0.005
SMOOTH = 0.018
# How untidily people speak: relative spread of a target, and spread of its time in seconds. With less of either, lips are read better than
# clean speech is heard, which no real corpus shows.
NOISE = 0.22
JITTER = 0.010

# jaw, width, round, tuck, tongue. A jaw below zero still closes the lips after smoothing.
TARGETS: dict[str, tuple[float, float, float, float, float]] = {
    "sil": (0.02, 0.0, 0.0, 0.0, 0.0), "p": (-0.25, 0.0, 0.0, 0.0, 0.0), "b": (-0.25, 0.0, 0.05, 0.0, 0.0),
    "m": (-0.22, 0.05, 0.0, 0.0, 0.0), "f": (0.10, 0.1, 0.0, 1.0, 0.0), "v": (0.12, 0.1, 0.0, 0.9, 0.0), "θ": (0.20, 0.2, 0.0, 0.0, 1.0),
    "ð": (0.20, 0.2, 0.0, 0.0, 0.9), "t": (0.18, 0.35, 0.0, 0.0, 0.6), "d": (0.20, 0.35, 0.0, 0.0, 0.6), "n": (0.20, 0.3, 0.0, 0.0, 0.65),
    "ɾ": (0.22, 0.3, 0.0, 0.0, 0.6), "l": (0.32, 0.3, 0.0, 0.0, 0.85), "ɫ": (0.32, 0.2, 0.1, 0.0, 0.8), "s": (0.10, 0.6, 0.0, 0.0, 0.2),
    "z": (0.12, 0.6, 0.0, 0.0, 0.2), "ʃ": (0.18, 0.0, 0.65, 0.0, 0.2), "ʒ": (0.18, 0.0, 0.65, 0.0, 0.2), "tʃ": (0.16, 0.0, 0.6, 0.0, 0.3),
    "dʒ": (0.18, 0.0, 0.6, 0.0, 0.3), "k": (0.28, 0.25, 0.0, 0.0, 0.1), "ɡ": (0.30, 0.25, 0.0, 0.0, 0.1),
    "g": (0.30, 0.25, 0.0, 0.0, 0.1), "ŋ": (0.28, 0.25, 0.0, 0.0, 0.1), "h": (0.35, 0.2, 0.0, 0.0, 0.0), "ɹ": (0.22, 0.0, 0.5, 0.0, 0.2),
    "r": (0.22, 0.0, 0.5, 0.0, 0.3), "w": (0.12, 0.0, 1.0, 0.0, 0.0), "j": (0.20, 0.7, 0.0, 0.0, 0.2), "ʔ": (0.2, 0.2, 0.0, 0.0, 0.0),
    "i": (0.25, 0.95, 0.0, 0.0, 0.25), "ɪ": (0.34, 0.65, 0.0, 0.0, 0.2), "e": (0.48, 0.75, 0.0, 0.0, 0.2),
    "ɛ": (0.58, 0.6, 0.0, 0.0, 0.2), "æ": (0.80, 0.65, 0.0, 0.0, 0.1), "a": (1.0, 0.35, 0.0, 0.0, 0.1), "ɑ": (0.95, 0.1, 0.1, 0.0, 0.0),
    "ɐ": (0.7, 0.25, 0.0, 0.0, 0.1), "ʌ": (0.70, 0.2, 0.0, 0.0, 0.1), "ɒ": (0.80, 0.0, 0.5, 0.0, 0.0), "ɔ": (0.70, 0.0, 0.65, 0.0, 0.0),
    "o": (0.50, 0.0, 0.8, 0.0, 0.0), "ʊ": (0.30, 0.0, 0.75, 0.0, 0.0), "u": (0.20, 0.0, 1.0, 0.0, 0.0), "ə": (0.42, 0.25, 0.05, 0.0, 0.1),
    "ɜ": (0.42, 0.1, 0.35, 0.0, 0.1), "ɚ": (0.38, 0.05, 0.4, 0.0, 0.15), "ɝ": (0.38, 0.05, 0.4, 0.0, 0.15),
    "ᵻ": (0.34, 0.55, 0.0, 0.0, 0.2),
}  # fmt: skip


def spell(symbol: str) -> list[tuple[float, ...]]:
    """Targets of an IPA symbol: one, or those of its letters for a diphthong; the neutral vowel's for what is unknown."""
    if symbol in TARGETS:
        return [TARGETS[symbol]]
    return [TARGETS[letter] for letter in symbol if letter in TARGETS] or [TARGETS["ə"]]


def controls(
    phones: Sequence[Phone], frames: int, rng: np.random.Generator, gains: np.ndarray, noise: float = NOISE, jitter: float = JITTER
) -> np.ndarray:
    """The five controls at the middle of every frame.

    Args:
        phones: with their times in seconds.
        frames: of 40 ms.
        gains: how far this speaker moves each control, (5,).
        noise: multiplicative spread of each target.
        jitter: spread of each target's time in seconds; the whole clip moves by 1.5 times as much.

    Returns:
        float32 (frames, 5).
    """
    times, targets = [-1.0], [TARGETS["sil"]]
    shift = rng.normal(0, 1.5 * jitter)
    for phone in phones:
        parts = spell(phone.symbol)
        length = (phone.end - phone.start) / len(parts)
        for index, part in enumerate(parts):
            for share in (0.3, 0.7):
                times.append(phone.start + (index + share) * length + rng.normal(0, jitter) + shift)
                targets.append(tuple(value * (1 + rng.normal(0, noise)) for value in part))  # type: ignore[arg-type]
    order = np.argsort(times, kind="stable")
    at, values = np.asarray(times)[order], np.asarray(targets)[order] * gains
    fine = np.arange(0, frames / FPS + GRID, GRID)
    curves = np.stack([np.interp(fine, at, values[:, i]) for i in range(values.shape[1])], 1)
    half = round(4 * SMOOTH / GRID)
    kernel = np.exp(-0.5 * (np.arange(-half, half + 1) * GRID / SMOOTH) ** 2)
    padded = np.pad(curves, ((half, half), (0, 0)), mode="edge")
    smooth = np.stack([np.convolve(padded[:, i], kernel / kernel.sum(), "valid") for i in range(curves.shape[1])], 1)
    middle = (np.arange(frames) + 0.5) / FPS
    return np.stack([np.interp(middle, fine, smooth[:, i]) for i in range(smooth.shape[1])], 1).astype(np.float32)


class Mouth:
    """Draws a portrait with its mouth in any position. The part of the picture that moves is kept at the drawing's full size."""

    def __init__(self, portrait: Portrait) -> None:
        self.portrait = portrait
        x, y = portrait.mouth
        self.still = cv2.resize(portrait.image, (SIZE, SIZE), interpolation=cv2.INTER_AREA)
        closed = portrait.image if portrait.closed is None else portrait.closed
        self.closed = cv2.resize(closed, (SIZE, SIZE), interpolation=cv2.INTER_AREA)
        # The box is a whole number of frame pixels, so that it can be averaged back into the frame.
        self.left, self.right = (int((x + sign * 96) // SCALE) for sign in (-1, 1))
        self.top, self.bottom = int((y - 48) // SCALE), min(int((portrait.chin + 40) // SCALE), SIZE)
        self.patch = portrait.image[self.top * SCALE : self.bottom * SCALE, self.left * SCALE : self.right * SCALE]
        height, width = self.patch.shape[:2]
        rows, columns = np.mgrid[0:height, 0:width].astype(np.float32)
        self.rows, self.columns = rows, columns
        self.x, self.y = x - self.left * SCALE, y - self.top * SCALE
        # How far each pixel goes along with the jaw: not at all above the mouth, all the way at lower lip and chin, less below and aside.
        chin = portrait.chin - self.top * SCALE
        down = np.clip((rows - self.y) / 14, 0, 1) * np.clip((height - 1 - rows) / max(height - 1 - chin, 1), 0, 1) ** 0.7
        side = np.clip(1.25 - (np.abs(columns - self.x) / (width / 2)) ** 2, 0, 1)
        self.drop = (down * side).astype(np.float32)
        self.brightness = float(portrait.skin.mean() / 200)

    def frame(self, control: np.ndarray, lids: float = 0.0) -> np.ndarray:
        """One picture, uint8 (160, 160, 3), for controls (5,); ``lids`` from 0 (open) to 1 (closed)."""
        jaw, width, rounding, tuck, tongue = (float(value) for value in control)
        portrait = self.portrait
        half = portrait.half_width * (1 + 0.16 * width - 0.34 * rounding - 0.05 * jaw)
        opening = 0.95 * portrait.half_width * max(jaw, 0.0)
        lowered = cv2.remap(
            self.patch, self.columns, self.rows - 0.62 * opening * self.drop, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
        )
        self._draw_lips(lowered, half, opening, rounding, tuck, tongue)
        small = cv2.resize(lowered, (self.right - self.left, self.bottom - self.top), interpolation=cv2.INTER_AREA)
        picture = cv2.addWeighted(self.still, 1 - lids, self.closed, lids, 0) if lids > 0 else self.still.copy()
        picture[self.top : self.bottom, self.left : self.right] = small
        return picture

    def _draw_lips(self, patch: np.ndarray, half: float, opening: float, rounding: float, tuck: float, tongue: float) -> None:
        q = np.linspace(-1, 1, 33)
        profile = np.clip(1 - q**2, 0, 1) ** (0.75 - 0.25 * rounding)
        x = self.x + half * q
        corner = self.y - 2.0 * q**2  # a friendly mouth at rest
        upper, lower = corner - 0.22 * opening * profile, corner + 0.78 * opening * profile
        thick = 1 + 0.35 * rounding
        bow = 1 - 0.3 * np.exp(-((q / 0.14) ** 2))
        top = upper - self.portrait.upper * thick * np.clip(1 - q**2, 0, 1) ** 0.6 * bow
        bottom = lower + self.portrait.lower * thick * (1 - 0.55 * max(tuck, 0.0)) * np.clip(1 - q**2, 0, 1) ** 0.55
        lips, light = self.portrait.lips, self.brightness
        polygon(patch, band(x, top, upper), lips * 0.86)
        polygon(patch, band(x, lower, bottom), lips)
        gleam = self.x + half * 0.5 * q
        shine = np.interp(gleam, x, lower + (bottom - lower) * 0.45)
        polygon(patch, band(gleam, shine - 1.5, shine + 1.5), lips * 1.12)
        teeth = np.array([236, 228, 214]) * min(light * 1.05, 1.0)
        if opening > 1.0:
            polygon(patch, band(x, upper, lower), np.array([70, 22, 22]) * max(light, 0.55))
            if tongue > 0.05:
                inner = np.abs(q) < 0.7
                middle = lower - (lower - upper) * min(0.25 + 0.55 * tongue, 0.85)
                surface = np.maximum(middle, upper)[inner] + 6 * (q[inner] / 0.7) ** 2
                polygon(patch, band(x[inner], surface, lower[inner]), np.array([123, 51, 53]) * light)  # in the shade of the mouth
            strip = min(0.34 * opening, 11.0)
            inner = np.abs(q) < 0.8
            polygon(patch, band(x[inner], upper[inner], np.minimum(upper + strip * profile, lower)[inner]), teeth)
            if opening > 0.45 * self.portrait.half_width:
                polygon(patch, band(x[inner], np.maximum(lower - 0.4 * strip * profile, upper)[inner], lower[inner]), teeth * 0.85)
        else:
            polygon(patch, band(x, upper - 1.2, lower + 1.2), lips * 0.5)
        if tuck > 0.15:
            edge = np.abs(q) < 0.7
            polygon(patch, band(x[edge], upper[edge], (upper + (3 + 7 * tuck) * profile)[edge]), teeth)


def head_motion(frames: int, rng: np.random.Generator) -> np.ndarray:
    """Slow sines around a random pose: (frames, 2, 3) affine matrices in a frame of 160 x 160."""
    time = np.arange(frames) / FPS

    def slow(size: float) -> np.ndarray:
        return size * sum(np.sin(2 * np.pi * rng.uniform(0.15, 0.7) * time + rng.uniform(0, 2 * np.pi)) for _ in range(2)) / 2

    angle = np.deg2rad(rng.uniform(-5, 5) + slow(2.0))
    scale = 1 + rng.uniform(-0.06, 0.06) + slow(0.012)
    dx, dy = rng.uniform(-8, 8) + slow(2.5), rng.uniform(-8, 8) + slow(2.5)
    a, b = scale * np.cos(angle), scale * np.sin(angle)
    centre = SIZE / 2
    first = np.stack([a, b, (1 - a) * centre - b * centre + dx], 1)
    second = np.stack([-b, a, b * centre + (1 - a) * centre + dy], 1)
    return np.stack([first, second], 1)


def blinks(frames: int, rng: np.random.Generator) -> np.ndarray:
    """Closing of the lids from 0 to 1, (frames,): a blink of 160 ms every three seconds or so."""
    lids = np.zeros(frames + 4)
    start = rng.exponential(3.0) * FPS
    while start < frames:
        lids[int(start) : int(start) + 4] = (0.5, 1.0, 1.0, 0.5)
        start += 6 + rng.exponential(3.0) * FPS
    return lids[:frames]


@dataclass(frozen=True)
class Camera:
    """Light and focus of one clip: gain and contrast of the picture, a share by which the light drifts, and blur in pixels."""

    gain: float
    contrast: float
    drift: np.ndarray
    blur: float

    @classmethod
    def draw(cls, frames: int, rng: np.random.Generator) -> "Camera":
        """A tenth brighter or darker, a fifth of the clips a little out of focus."""
        drift = 0.03 * np.sin(2 * np.pi * rng.uniform(0.1, 0.4) * np.arange(frames) / FPS + rng.uniform(0, 2 * np.pi))
        blur = rng.uniform(0.4, 0.9) if rng.random() < 0.2 else 0.0
        return cls(rng.uniform(0.9, 1.1), rng.uniform(0.92, 1.08), drift, blur)

    def take(self, picture: np.ndarray, index: int) -> np.ndarray:
        """The picture as frame ``index`` of the clip."""
        if self.blur > 0:
            picture = cv2.GaussianBlur(picture, (0, 0), self.blur)
        gain = self.gain * (1 + self.drift[index])
        return cv2.convertScaleAbs(picture, alpha=gain * self.contrast, beta=110 * gain * (1 - self.contrast))


def animate(mouth: Mouth, track: np.ndarray, motion: np.ndarray, lids: np.ndarray, camera: Camera) -> np.ndarray:
    """Pictures uint8 (frames, 160, 160, 3) RGB of a talking head."""
    frames = []
    for index, (control, matrix, lid) in enumerate(zip(track, motion, lids, strict=True)):
        still = mouth.frame(control, float(lid))
        turned = cv2.warpAffine(still, matrix, (SIZE, SIZE), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        frames.append(camera.take(turned, index))
    return np.stack(frames)
