"""From 68 face points to 96 x 96 mouth crops, in the geometries that published weights were trained with.

- ``avhubert``: AV-HuBERT and VATLM. Similarity (least squares) from points 33, 36, 39, 42, 45, averaged over frames t .. t+11, to a mean
  face in a 256 x 256 frame; the crop is centred on the mouth of the current frame.
- ``auto_avsr``: auto_avsr after RetinaFace and FAN. Robust similarity from points 28, 33, 36, 39, 42, 45, 48, 54, averaged over t-6 .. t+6
  and moved back to the centroid of frame t; the crop is centred on the smoothed mouth.
- ``auto_avsr_mediapipe``: the same from four points: right eye, left eye, nose tip, mouth centre.

The 256 x 256 frame is made only as far as the window of the crop reaches. AV-HuBERT's warp is scikit-image's: exact positions, values in
double precision on [0, 1], cut to whole grey levels. auto_avsr's is OpenCV's, which rounds positions to 1/32 pixel counted from the
frame's origin, so that the frame has to begin there.
OpenCV is needed for the latter and for the robust estimate.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from importlib import resources
from threading import Lock
from typing import Any

import numpy as np
from threadpoolctl import ThreadpoolController

from avtlm.errors import MissingExtra

FRAME = 256  # side of the reference frame of the mean face
CROP = 96
GEOMETRIES = ("avhubert", "auto_avsr", "auto_avsr_mediapipe")
AVHUBERT_POINTS = (33, 36, 39, 42, 45)
WINDOW = 12  # frames that landmarks are averaged over, in both pipelines
AUTO_AVSR_POINTS = (28, 33, 36, 39, 42, 45, 48, 54)
AUTO_AVSR_SLACK = 5  # pixels beyond half a crop that its centre may lie off the middle of the reference frame
MOUTH = slice(48, 68)
_ONE_AT_A_TIME = Lock()  # the number of threads belongs to the process: what one thread restores must not be what another has set


class AlignmentError(ValueError):
    """Landmarks from which no crop can be made."""


@dataclass(frozen=True)
class CropPlan:
    """Where the crop of every frame comes from.

    Attributes:
        matrices: float64 ``(frames, 2, 3)``, source pixels to the 256 x 256 reference frame.
        corners: int ``(frames, 2)``, x and y of the upper left pixel of the crop in the reference frame.
        shifted: number of frames whose crop centre lay too near the border and was moved.
        truncate: warp exactly and cut values to whole grey levels as AV-HuBERT does, instead of as OpenCV does.
        size: side of the crop in pixels.
    """

    matrices: np.ndarray
    corners: np.ndarray
    shifted: int
    truncate: bool
    size: int = CROP


@cache
def mean_face() -> np.ndarray:
    """The mean face of both pipelines, float64 ``(68, 2)`` in pixels of the 256 x 256 frame (auto_avsr, Apache-2.0)."""
    with resources.files("avtlm.lips").joinpath("mean_face.npz").open("rb") as handle:
        points: np.ndarray = np.load(handle, allow_pickle=False)["mean_face"]
    points.flags.writeable = False
    return points


def interpolate_missing(points: np.ndarray) -> np.ndarray:
    """Fill frames without landmarks: linearly between the nearest detections, by copying before the first and after the last.

    Args:
        points: float ``(frames, points, 2)``; a missing frame is NaN.

    Raises:
        AlignmentError: no frame has landmarks.
    """
    present = np.isfinite(points).all(axis=(1, 2))
    if not present.any():
        raise AlignmentError("no frame has face landmarks.")
    known = np.flatnonzero(present)
    times = np.arange(len(points))
    after = np.searchsorted(known, times).clip(max=len(known) - 1)
    before = (np.searchsorted(known, times, side="right") - 1).clip(min=0)
    left, right = known[before], known[after]
    share = np.where(right > left, (times - left) / np.maximum(right - left, 1), 0.0)[:, None, None]
    return points[left] + share * (points[right] - points[left])


def similarity(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Least-squares similarities (scale, rotation, translation) from ``source`` to ``target`` (Umeyama 1991, equations 38 to 43).

    In the order of scikit-image's operations, so that results are the same to the last bit: on pictures of even areas, where values lie
    at whole grey levels, the last bit decides to which of two levels they are cut.

    Args:
        source: ``(frames, points, 2)``.
        target: ``(points, 2)``.

    Returns:
        float64 ``(frames, 2, 3)``.

    Raises:
        AlignmentError: the points of a frame are one point.
    """
    source_means, target_mean = source.mean(axis=1), target.mean(axis=0)
    centred = source - source_means[:, None]
    spreads = centred.var(axis=1).sum(axis=1)
    if not spreads.all():
        raise AlignmentError("the landmarks of a frame all lie on one point.")
    left, sizes, right = np.linalg.svd((target - target_mean).T @ centred / len(target))
    signs = np.ones_like(sizes)
    signs[np.linalg.det(left) * np.linalg.det(right) < 0, 1] = -1.0  # a rotation, no mirror
    rotations = (left * signs[:, None]) @ right
    scales = (1.0 / spreads * (sizes * signs).sum(axis=1))[:, None]
    shifts = target_mean - scales * (rotations @ source_means[..., None])[..., 0]
    return np.concatenate([rotations * scales[..., None], shifts[..., None]], axis=2)


def robust_similarity(source: np.ndarray, target: np.ndarray) -> np.ndarray:
    """Least-median-of-squares similarities by OpenCV, as auto_avsr estimates them; arguments and result as :func:`similarity`."""
    cv2 = opencv()
    matrices = [cv2.estimateAffinePartial2D(np.ascontiguousarray(points), target, method=cv2.LMEDS)[0] for points in source]
    if any(matrix is None for matrix in matrices):
        raise AlignmentError("the landmarks of a frame do not look like a face.")
    return np.stack(matrices)


def four_points(points: np.ndarray) -> np.ndarray:
    """Right eye, left eye, nose tip and mouth centre ``(frames, 4, 2)`` out of 68 points, as mediapipe's face detection places them."""
    return np.stack([points[:, [36, 39]].mean(1), points[:, [42, 45]].mean(1), points[:, 30], points[:, MOUTH].mean(1)], axis=1)


def plan_crops(
    points: np.ndarray,
    geometry: str = "avhubert",
    minimum_frames: int = 1,
    *,
    size: int = CROP,
    window: int = WINDOW,
    reference: np.ndarray | None = None,
) -> CropPlan:
    """Transforms and crop windows for a clip.

    Args:
        points: float ``(frames, 68, 2)`` without missing frames; ``(frames, 4, 2)`` too for ``auto_avsr_mediapipe``.
        geometry: one of :data:`GEOMETRIES`.
        minimum_frames: auto_avsr's RetinaFace path drops clips of fewer frames than its window; give 12 to do the same.
        size: side of the crop, an even number of pixels; published models take crops of 96.
        window: frames that landmarks are averaged over.
        reference: mean face to align with, ``(68, 2)`` in the 256 x 256 frame; :func:`mean_face` if None.

    Raises:
        AlignmentError: too few frames or degenerate landmarks.
        ValueError: an unknown geometry.
    """
    if geometry not in GEOMETRIES:
        raise ValueError(f"geometry {geometry!r} is unknown; choose one of {', '.join(GEOMETRIES)}.")
    if size < 2 or size % 2 or size > FRAME or window < 1:
        raise ValueError(f"size {size}, window {window}: give an even size up to {FRAME} pixels and a window of at least one frame.")
    if len(points) < minimum_frames:
        raise AlignmentError(f"{len(points)} frames are too few; at least {minimum_frames} are needed.")
    face = mean_face() if reference is None else reference
    if geometry == "avhubert":
        return _plan_avhubert(points, face, size, window)
    if geometry == "auto_avsr_mediapipe" and points.shape[1] == 68:
        points = four_points(points)
    return _plan_auto_avsr(points, face, size, window)


def _plan_avhubert(points: np.ndarray, face: np.ndarray, size: int, window: int) -> CropPlan:
    window = min(len(points), window)
    stable = points[:, AVHUBERT_POINTS, :]
    means = np.stack([stable[first : first + window].mean(axis=0) for first in range(len(stable) - window + 1)])
    matrices = similarity(means, face[AVHUBERT_POINTS, :])
    matrices = np.concatenate([matrices, np.repeat(matrices[-1:], window - 1, axis=0)])  # the last frames re-use the last window
    centres = transform(matrices, points[:, MOUTH]).mean(axis=1)
    corners = np.array([avhubert_corner(x, y, size) for x, y in centres])
    half = size // 2
    outside = ((centres < half) | (centres > FRAME - half)).any(axis=1)
    return CropPlan(matrices, corners, int(outside.sum()), truncate=True, size=size)


def _plan_auto_avsr(points: np.ndarray, face: np.ndarray, size: int, window: int) -> CropPlan:
    count = len(points)
    half = np.minimum(window // 2, np.minimum(np.arange(count), count - 1 - np.arange(count)))
    smooth = np.stack([points[t - h : t + h + 1].mean(axis=0) for t, h in enumerate(half)])
    smooth += points.mean(axis=1, keepdims=True) - smooth.mean(axis=1, keepdims=True)
    if points.shape[1] == 4:
        groups = [face[part].mean(axis=0) for part in (slice(36, 42), slice(42, 48), slice(31, 36), MOUTH)]
        matrices = robust_similarity(smooth, np.stack(groups))
        centres = transform(matrices, smooth)[:, 3]
    else:
        matrices = robust_similarity(smooth[:, AUTO_AVSR_POINTS, :], face[AUTO_AVSR_POINTS, :])
        centres = transform(matrices, smooth[:, MOUTH]).mean(axis=1)
    # One frame off the middle would make auto_avsr drop the whole clip; here its window is moved and counted.
    slack = size // 2 + AUTO_AVSR_SLACK
    inside = centres.clip(FRAME / 2 - slack, FRAME / 2 + slack)
    corners = np.array([auto_avsr_corner(x, y, size) for x, y in inside])
    return CropPlan(matrices, corners, int((inside != centres).any(axis=1).sum()), truncate=False, size=size)


def transform(matrices: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Points ``(frames, points, 2)`` sent through matrices ``(frames, 2, 3)``."""
    return points @ matrices[:, :, :2].transpose(0, 2, 1) + matrices[:, None, :, 2]


def avhubert_corner(x: float, y: float, size: int = CROP, frame: tuple[int, int] = (FRAME, FRAME)) -> tuple[int, int]:
    """Upper left pixel of AV-HuBERT's crop in a ``frame`` of (width, height); a centre too near the border is moved, so that the crop
    always has all its pixels."""
    half = size // 2
    centre = [min(max(value, half), side - half) for value, side in zip((x, y), frame, strict=True)]
    return round(centre[0]) - half, round(centre[1]) - half


def auto_avsr_corner(x: float, y: float, size: int = CROP, frame: tuple[int, int] = (FRAME, FRAME)) -> tuple[int, int]:
    """Upper left pixel of auto_avsr's crop in a ``frame`` of (width, height).

    Raises:
        AlignmentError: the centre lies too far off the middle of the frame: 5 pixels more than half a crop.
    """
    half = size // 2
    for value, side in zip((x, y), frame, strict=True):
        if abs(value - side / 2) > half + AUTO_AVSR_SLACK or value < half or value > side - half:
            raise AlignmentError(f"the mouth lies at ({x:.0f}, {y:.0f}) of the aligned frame, too far off its middle for a crop.")
    return round(x - half), round(y - half)


def cut_all(pictures: Iterable[np.ndarray], plan: CropPlan) -> np.ndarray:
    """The crops of a clip, uint8 ``(frames, size, size)`` or ``(frames, size, size, 3)``.

    Raises:
        ValueError: the number of pictures is not that of the plan.
    """
    ways = invert(plan.matrices) if plan.truncate else plan.matrices
    window = _warp_exactly if plan.truncate else _warp_as_opencv
    return np.stack([window(picture, way, corner, plan.size) for picture, way, corner in zip(pictures, ways, plan.corners, strict=True)])


def invert(matrices: np.ndarray) -> np.ndarray:
    """Matrices ``(..., 2, 3)`` from the reference frame to source pixels, inverted as scikit-image does, to the last bit."""
    bottom = np.broadcast_to((0.0, 0.0, 1.0), (*matrices.shape[:-2], 1, 3))
    whole = np.concatenate([matrices, bottom], axis=-2)
    with _ONE_AT_A_TIME, _threads().limit(limits=1, user_api="blas"):  # else OpenBLAS wakes a thread that burns a core for 0.1 s
        inverse: np.ndarray = np.linalg.inv(whole)
    return inverse


@cache
def _threads() -> ThreadpoolController:
    return ThreadpoolController()  # looks through the loaded libraries, which takes milliseconds


def cut(picture: np.ndarray, matrix: np.ndarray, corner: np.ndarray | tuple[int, int], truncate: bool, size: int = CROP) -> np.ndarray:
    """Warp one frame into its crop window: bilinear, black outside the picture.

    Args:
        picture: uint8 ``(height, width)`` or ``(height, width, 3)``.
        matrix: ``(2, 3)``, source pixels to the reference frame.
        corner: x and y of the window in the reference frame.
        truncate, size: see :class:`CropPlan`.

    Returns:
        uint8 ``(size, size)`` or ``(size, size, 3)``.
    """
    return _warp_exactly(picture, invert(matrix), corner, size) if truncate else _warp_as_opencv(picture, matrix, corner, size)


def _warp_as_opencv(picture: np.ndarray, matrix: np.ndarray, corner: np.ndarray | tuple[int, int], size: int) -> np.ndarray:
    """As OpenCV warps, positions rounded to 1/32 pixel; ``matrix`` leads to the reference frame."""
    cv2 = opencv()
    left, top = (int(value) for value in corner)
    whole: np.ndarray = cv2.warpAffine(picture, matrix, (left + size, top + size), flags=cv2.INTER_LINEAR)
    return whole[top:, left:]


def _warp_exactly(picture: np.ndarray, inverse: np.ndarray, corner: np.ndarray | tuple[int, int], size: int) -> np.ndarray:
    """As scikit-image warps: no rounding of positions, double precision, black around the picture; ``inverse`` of :func:`invert`."""
    columns, rows = np.arange(size) + corner[0], np.arange(size)[:, None] + corner[1]
    places, shares, edges = [], [], []
    for axis, side in enumerate(picture.shape[1::-1]):
        position = inverse[axis, 0] * columns + inverse[axis, 1] * rows + inverse[axis, 2]
        ends = position[:: size - 1, :: size - 1]  # nothing lies beyond them, rounding included
        low, high = float(ends.min()), float(ends.max())
        if low < 0 or high >= side - 1:
            np.clip(position, -1.0, side, out=position)  # further out it is black as well
            low, high = (min(max(value, -1.0), side) for value in (low, high))
        place = np.floor(position)
        position -= place
        place -= math.floor(low)
        places.append(place)
        shares.append(position.reshape(size, size, *[1] * (picture.ndim - 2)))
        edges.append((math.floor(low), math.floor(high) + 2, (max(0, -math.floor(low)), max(0, math.floor(high) + 2 - side))))
    (left, right, beside), (top, bottom, above) = edges
    part = picture[max(top, 0) : max(bottom, 0), max(left, 0) : max(right, 0)] * (1.0 / 255.0)
    if any((*beside, *above)):
        part = np.pad(part, [above, beside, *[(0, 0)] * (picture.ndim - 2)])
    stride, flat = part.shape[1], part.reshape(-1, *picture.shape[2:])
    corner_pixel = (places[1] * stride + places[0]).astype(np.intp)  # whole numbers, exact in doubles, which are faster
    across, down = shares
    rest = 1.0 - across
    upper, lower = (
        _blend(flat[start:].take(corner_pixel, 0), rest, flat[start + 1 :].take(corner_pixel, 0), across) for start in (0, stride)
    )
    warped = _blend(upper, 1.0 - down, lower, down)
    warped *= 255.0
    return warped.astype(np.uint8)


def _blend(one: np.ndarray, share: np.ndarray, other: np.ndarray, other_share: np.ndarray) -> np.ndarray:
    """The weighted sum, in the memory of ``one``; ``other`` is lost."""
    one *= share
    other *= other_share
    one += other
    return one


def opencv() -> Any:
    """The cv2 module.

    Raises:
        MissingExtra: OpenCV is not installed.
    """
    try:
        import cv2
    except ImportError as error:
        raise MissingExtra("lips", "OpenCV", "cropping lips") from error
    return cv2
