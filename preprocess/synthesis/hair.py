"""Hair of the drawn people: a silhouette behind the head, and the part of it that lies in front of the face, around a window left open.

Because both come from the same silhouette there is never a gap between hair and head.
"""

import numpy as np

from preprocess.synthesis.canvas import area, band, ellipse, lay
from preprocess.synthesis.portrait import SIDE, Traits, head

LONG = ("bob", "long")


def paint_behind(picture: np.ndarray, traits: Traits, texture: np.ndarray) -> None:
    """What is seen around the head and, of long hair, behind the neck."""
    lay(picture, _colour(traits, texture) * 0.82, _silhouette(traits))


def paint_over_shoulders(picture: np.ndarray, traits: Traits, texture: np.ndarray) -> None:
    """Long hair falls in front of the clothes on both sides of the neck."""
    if traits.style == "long":
        sides = np.clip((np.abs(np.arange(SIDE, dtype=np.float32) - traits.x)[None, :] - traits.width * 0.70) / 10, 0, 1)
        lay(picture, _colour(traits, texture) * 0.88, _silhouette(traits) * sides)


def front(traits: Traits, texture: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Colours and coverage of what lies on forehead, temples and, of long hair, cheeks."""
    cover = np.maximum(_silhouette(traits), area(SIDE, head(traits, 1.03), 1.0)) * (1 - _window(traits))
    rows = np.arange(SIDE, dtype=np.float32)[:, None]
    if traits.style not in LONG:
        end = traits.y + (16 if traits.style in ("crop", "parted", "curls") else -6)  # sideburns end here
        cover = cover * np.clip((end - rows) / 14, 0, 1)
    if traits.style == "receding":
        cover = cover * 0.75
    return _colour(traits, texture), cover


def _colour(traits: Traits, texture: np.ndarray) -> np.ndarray:
    """Strands, and a band of light across the top."""
    rows = (np.arange(SIDE, dtype=np.float32)[:, None] - traits.y) / traits.height
    columns = (np.arange(SIDE, dtype=np.float32)[None, :] - traits.x) / traits.width
    gloss = np.exp(-(((rows + 0.80 - 0.25 * columns**2) / 0.11) ** 2)) * np.exp(-(((columns + 0.25 * traits.side) / 0.55) ** 2))
    light = 1.0 + 0.11 * texture + 0.22 * gloss - 0.12 * np.abs(columns)
    return np.clip(traits.hair.astype(np.float32) * light[..., None] + 10 * gloss[..., None], 0, 255)


def _silhouette(traits: Traits) -> np.ndarray:
    x, y, w, h = traits.x, traits.y, traits.width, traits.height
    if traits.style == "receding":
        return area(SIDE, head(traits, 1.015), 1.5) * (np.arange(SIDE)[:, None] < y)
    cap = area(SIDE, head(traits, 1.06) + np.array([0.0, -3.0]), 1.5)
    if traits.style in ("crop", "parted"):
        return cap * (np.arange(SIDE)[:, None] < y + 20)
    if traits.style == "curls":
        angle = np.linspace(np.pi * 0.96, np.pi * 2.04, 15)
        wave = 17 + 5 * np.sin(np.arange(15) * 2.3)
        for a, radius in zip(angle, wave, strict=True):
            cap = np.maximum(cap, area(SIDE, ellipse(x + w * 1.07 * np.cos(a), y + h * 0.98 * np.sin(a), radius + 8, radius + 8), 2.0))
        return cap * (np.arange(SIDE)[:, None] < y + 34)
    if traits.style == "bun":
        bun = ellipse(x, y - h * 1.06, 46, 34)
        return np.maximum(cap * (np.arange(SIDE)[:, None] < y + 30), area(SIDE, bun, 1.5))
    end = traits.chin + (4 if traits.style == "bob" else 130)
    rows = np.linspace(y - h * 0.4, end, 40)
    share = (rows - rows[0]) / (end - rows[0])
    half = w * (1.06 + (0.20 if traits.style == "bob" else 0.16) * np.sin(np.pi * np.clip(share * 0.8, 0, 1)))
    half = half * (1 - (0.10 * np.clip((share - 0.9) / 0.1, 0, 1) if traits.style == "bob" else 0))
    sides = np.concatenate([np.stack([x - half, rows], 1), np.stack([x + half, rows], 1)[::-1]])
    return np.maximum(cap, area(SIDE, sides, 2.0))


def _window(traits: Traits) -> np.ndarray:
    """The open face: its upper edge is the hairline."""
    t = np.linspace(-1, 1, 61)
    lift = {"crop": 0.64, "parted": 0.66, "bob": 0.62, "long": 0.68, "curls": 0.60, "bun": 0.70, "receding": 0.90}[traits.style]
    if traits.style in ("parted", "long"):  # swept to one side
        line = lift * (1 - np.abs(t) ** 4.0 * 0.75) + 0.10 * traits.side * t - 0.06 * t**2
    elif traits.style == "bob":  # a fringe
        line = (lift - 0.12) * (1 - np.abs(t) ** 6) + 0.02 * np.cos(9 * t)
    elif traits.style == "receding":
        line = lift * (1 - np.abs(t) ** 7 * 0.9) - 0.22 * np.exp(-((t / 0.28) ** 2))
    else:
        line = lift * (1 - np.abs(t) ** 5 * 0.85) + (0.015 * np.sin(17 * t) if traits.style == "curls" else 0)
    reach = traits.width * (0.95 if traits.style not in LONG else 0.90)
    top = traits.y - traits.height * np.clip(line, 0.02, 1)
    return area(SIDE, band(traits.x + reach * t, top, np.full_like(t, SIDE + 20.0)), 2.2)
