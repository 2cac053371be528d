"""Strokes for the portraits: polygons with sub-pixel corners, masks, soft edges and blending on pictures of RGB floats from 0 to 255."""

from collections.abc import Sequence

import cv2
import numpy as np

_BITS = 4  # corners are given to OpenCV in sixteenths of a pixel


def fixed(points: np.ndarray) -> np.ndarray:
    """Corners (n, 2) in OpenCV's fixed-point numbers."""
    return np.round(points * (1 << _BITS)).astype(np.int32)


def polygon(picture: np.ndarray, points: np.ndarray, colour: Sequence[float] | np.ndarray) -> None:
    """Fill a polygon in an uint8 picture, with smooth edges."""
    cv2.fillPoly(picture, [fixed(points)], tuple(float(v) for v in np.clip(colour, 0, 255)), cv2.LINE_AA, _BITS)


def area(side: int, points: np.ndarray, soft: float = 0.0, line: int = 0) -> np.ndarray:
    """Coverage of a polygon, or of an open line of that width, blurred by ``soft`` pixels: float32 (side, side) from 0 to 1."""
    cover = np.zeros((side, side), np.float32)
    rows, columns = _box(points, side, soft, line)
    cover[rows, columns] = _cover(points, rows, columns, soft, line)
    return cover


def dab(
    picture: np.ndarray,
    colour: Sequence[float] | np.ndarray,
    points: np.ndarray,
    soft: float = 0.0,
    strength: float = 1.0,
    line: int = 0,
    within: np.ndarray | None = None,
) -> None:
    """Paint a polygon, or an open line, on a float picture in place; only as far as ``within`` (side, side) says."""
    rows, columns = _box(points, len(picture), soft, line)
    cover = strength * _cover(points, rows, columns, soft, line)
    lay(picture[rows, columns], np.asarray(colour), cover if within is None else cover * within[rows, columns])


def _box(points: np.ndarray, side: int, soft: float, line: int) -> tuple[slice, slice]:
    margin = np.ceil(3 * soft + line / 2 + 2)
    low = np.clip(np.floor(points.min(0) - margin), 0, side - 1).astype(int)
    high = np.clip(np.ceil(points.max(0) + margin), low + 1, side).astype(int)
    return slice(low[1], high[1]), slice(low[0], high[0])


def _cover(points: np.ndarray, rows: slice, columns: slice, soft: float, line: int) -> np.ndarray:
    mask = np.zeros((rows.stop - rows.start, columns.stop - columns.start), np.uint8)
    corners = fixed(points - [columns.start, rows.start])
    if line:
        cv2.polylines(mask, [corners], False, (255.0,), line, cv2.LINE_AA, _BITS)
    else:
        cv2.fillPoly(mask, [corners], (255.0,), cv2.LINE_AA, _BITS)
    cover = mask.astype(np.float32) / 255.0
    return cv2.GaussianBlur(cover, (0, 0), soft) if soft > 0 else cover


def lay(picture: np.ndarray, colour: np.ndarray, cover: np.ndarray) -> None:
    """Lay a colour, or another picture, over a float picture, in place, as far as ``cover`` (rows, columns) says."""
    picture += (np.asarray(colour, np.float32) - picture) * cover[..., None]


def ellipse(x: float, y: float, w: float, h: float, count: int = 64) -> np.ndarray:
    """Corners of an ellipse with half-axes w and h."""
    angle = np.linspace(0, 2 * np.pi, count, endpoint=False)
    return np.stack([x + w * np.cos(angle), y + h * np.sin(angle)], 1)


def band(x: np.ndarray, above: np.ndarray, below: np.ndarray) -> np.ndarray:
    """Corners of the area between two curves over the same x."""
    return np.concatenate([np.stack([x, above], 1), np.stack([x, below], 1)[::-1]])


def strands(side: int, rng: np.random.Generator, across: float, along: float) -> np.ndarray:
    """Noise of unit spread, longer in one direction, for hair and skin; float32 (side, side)."""
    noise = cv2.GaussianBlur(rng.standard_normal((side, side), dtype=np.float32), (0, 0), across, sigmaY=along)
    return (noise / noise.std()).astype(np.float32)
