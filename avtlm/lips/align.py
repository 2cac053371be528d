"""From 68 face points to 96 x 96 mouth crops, in the geometries that published weights were trained with.

- ``avhubert``: AV-HuBERT and VATLM. Similarity (least squares) from points 33, 36, 39, 42, 45, averaged over frames t .. t+11, to a mean
  face in a 256 x 256 frame; the crop is centred on the mouth of the current frame.
- ``auto_avsr``: auto_avsr after RetinaFace and FAN. Robust similarity from points 28, 33, 36, 39, 42, 45, 48, 54, averaged over t-6 .. t+6
  and moved back to the centroid of frame t; the crop is centred on the smoothed mouth.
- ``auto_avsr_mediapipe``: the same from four points: right eye, left eye, nose tip, mouth centre.

The 256 x 256 frame is never made: the window of the crop lies on whole pixels of it, so warping straight into the window gives the same
picture.
OpenCV is needed for the warp and for the robust estimate.
"""

from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

import numpy as np

from avtlm.errors import MissingExtra

FRAME = 256  # side of the reference frame of the mean face
CROP = 96
GEOMETRIES = ("avhubert", "auto_avsr", "auto_avsr_mediapipe")
AVHUBERT_POINTS = (33, 36, 39, 42, 45)
AVHUBERT_WINDOW = 12
AUTO_AVSR_POINTS = (28, 33, 36, 39, 42, 45, 48, 54)
AUTO_AVSR_HALF_WINDOW = 6
AUTO_AVSR_SLACK = 53  # pixels that the crop centre may lie off the middle of the reference frame
MOUTH = slice(48, 68)


class AlignmentError(ValueError):
    """Landmarks from which no crop can be made."""


@dataclass(frozen=True)
class CropPlan:
    """Where the crop of every frame comes from.

    Attributes:
        matrices: float64 ``(frames, 2, 3)``, source pixels to the 256 x 256 reference frame.
        corners: int ``(frames, 2)``, x and y of the upper left pixel of the crop in the reference frame.
        shifted: number of frames whose crop centre lay too near the border and was moved.
        truncate: cut values to whole grey levels as scikit-image code does, instead of rounding them as OpenCV does.
    """

    matrices: np.ndarray
    corners: np.ndarray
    shifted: int
    truncate: bool


@cache
def mean_face() -> np.ndarray:
    """The mean face of both pipelines, float64 ``(68, 2)`` in pixels of the 256 x 256 frame (auto_avsr, Apache-2.0)."""
    with resources.files("avtlm.lips").joinpath("mean_face.npz").open("rb") as handle:
        points: np.ndarray = np.load(handle)["mean_face"]
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
    """Least-squares similarities (scale, rotation, translation) from ``source`` to ``target``.

    With points as complex numbers the similarity is w = a z + b, whose least-squares solution is closed (Umeyama 1991 for two dimensions).

    Args:
        source: ``(frames, points, 2)``.
        target: ``(points, 2)``.

    Returns:
        float64 ``(frames, 2, 3)``.
    """
    z = source[..., 0] + 1j * source[..., 1]
    w = target[..., 0] + 1j * target[..., 1]
    z_mean, w_mean = z.mean(axis=-1, keepdims=True), w.mean(axis=-1, keepdims=True)
    spread = (np.abs(z - z_mean) ** 2).sum(axis=-1)
    if (spread == 0).any():
        raise AlignmentError("the landmarks of a frame all lie on one point.")
    a = ((z - z_mean).conj() * (w - w_mean)).sum(axis=-1) / spread
    b = w_mean[..., 0] - a * z_mean[..., 0]
    return np.stack([np.stack([a.real, -a.imag, b.real], axis=-1), np.stack([a.imag, a.real, b.imag], axis=-1)], axis=-2)


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


def plan_crops(points: np.ndarray, geometry: str = "avhubert", minimum_frames: int = 1) -> CropPlan:
    """Transforms and crop windows for a clip.

    Args:
        points: float ``(frames, 68, 2)`` without missing frames; ``(frames, 4, 2)`` too for ``auto_avsr_mediapipe``.
        geometry: one of :data:`GEOMETRIES`.
        minimum_frames: auto_avsr's RetinaFace path drops clips of fewer than 12 frames; give 12 to do the same.

    Raises:
        AlignmentError: too few frames or degenerate landmarks.
        ValueError: an unknown geometry.
    """
    if geometry not in GEOMETRIES:
        raise ValueError(f"geometry {geometry!r} is unknown; choose one of {', '.join(GEOMETRIES)}.")
    if len(points) < minimum_frames:
        raise AlignmentError(f"{len(points)} frames are too few; at least {minimum_frames} are needed.")
    if geometry == "avhubert":
        return _plan_avhubert(points)
    if geometry == "auto_avsr_mediapipe" and points.shape[1] == 68:
        points = four_points(points)
    return _plan_auto_avsr(points)


def _plan_avhubert(points: np.ndarray) -> CropPlan:
    window = min(len(points), AVHUBERT_WINDOW)
    stable = points[:, AVHUBERT_POINTS, :]
    sums = np.cumsum(np.concatenate([np.zeros_like(stable[:1]), stable]), axis=0)
    matrices = similarity((sums[window:] - sums[:-window]) / window, mean_face()[AVHUBERT_POINTS, :])
    matrices = np.concatenate([matrices, np.repeat(matrices[-1:], window - 1, axis=0)])  # the last frames re-use the last window
    centres = transform(matrices, points[:, MOUTH]).mean(axis=1)
    corners = np.array([avhubert_corner(x, y) for x, y in centres])
    half = CROP // 2
    return CropPlan(matrices, corners, int(((centres < half) | (centres > FRAME - half)).any(axis=1).sum()), truncate=True)


def _plan_auto_avsr(points: np.ndarray) -> CropPlan:
    count = len(points)
    half = np.minimum(AUTO_AVSR_HALF_WINDOW, np.minimum(np.arange(count), count - 1 - np.arange(count)))
    smooth = np.stack([points[t - h : t + h + 1].mean(axis=0) for t, h in enumerate(half)])
    smooth += points.mean(axis=1, keepdims=True) - smooth.mean(axis=1, keepdims=True)
    if points.shape[1] == 4:
        groups = [mean_face()[part].mean(axis=0) for part in (slice(36, 42), slice(42, 48), slice(31, 36), MOUTH)]
        matrices = robust_similarity(smooth, np.stack(groups))
        centres = transform(matrices, smooth)[:, 3]
    else:
        matrices = robust_similarity(smooth[:, AUTO_AVSR_POINTS, :], mean_face()[AUTO_AVSR_POINTS, :])
        centres = transform(matrices, smooth[:, MOUTH]).mean(axis=1)
    # One frame off the middle would make auto_avsr drop the whole clip; here its window is moved and counted.
    inside = centres.clip(FRAME / 2 - AUTO_AVSR_SLACK, FRAME / 2 + AUTO_AVSR_SLACK)
    corners = np.array([auto_avsr_corner(x, y) for x, y in inside])
    return CropPlan(matrices, corners, int((inside != centres).any(axis=1).sum()), truncate=False)


def transform(matrices: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Points ``(frames, points, 2)`` sent through matrices ``(frames, 2, 3)``."""
    return points @ matrices[:, :, :2].transpose(0, 2, 1) + matrices[:, None, :, 2]


def avhubert_corner(x: float, y: float) -> tuple[int, int]:
    """Upper left pixel of AV-HuBERT's crop; a centre too near the border is moved, so that the crop always has 96 x 96 pixels."""
    half = CROP // 2
    centre = [min(max(value, half), FRAME - half) for value in (x, y)]
    return round(centre[0]) - half, round(centre[1]) - half


def auto_avsr_corner(x: float, y: float) -> tuple[int, int]:
    """Upper left pixel of auto_avsr's crop.

    Raises:
        AlignmentError: the centre lies more than 53 pixels off the middle of the reference frame.
    """
    if abs(x - FRAME / 2) > AUTO_AVSR_SLACK or abs(y - FRAME / 2) > AUTO_AVSR_SLACK:
        raise AlignmentError(f"the mouth lies at ({x:.0f}, {y:.0f}) of the aligned frame, too far off its middle for a crop.")
    return round(x - CROP // 2), round(y - CROP // 2)


def cut(picture: np.ndarray, matrix: np.ndarray, corner: np.ndarray | tuple[int, int], truncate: bool) -> np.ndarray:
    """Warp one frame straight into its crop window: bilinear, black outside the picture.

    Args:
        picture: uint8 ``(height, width)`` or ``(height, width, 3)``.
        matrix: ``(2, 3)``, source pixels to the reference frame.
        corner: x and y of the window in the reference frame.
        truncate: see :class:`CropPlan`.

    Returns:
        uint8 ``(96, 96)`` or ``(96, 96, 3)``.
    """
    cv2 = opencv()
    inverse = cv2.invertAffineTransform(matrix)
    inverse[:, 2] += inverse[:, :2] @ np.asarray(corner, float)
    # Only the part of the picture under the window is touched; float pictures are four times as large.
    ends = inverse @ np.array([[0, CROP, 0, CROP], [0, 0, CROP, CROP], [1, 1, 1, 1]], float)
    low = np.floor(ends.min(axis=1)).astype(int) - 2
    high = np.ceil(ends.max(axis=1)).astype(int) + 3
    height, width = picture.shape[:2]
    left, top = (max(0, int(low[0])), max(0, int(low[1])))
    part = picture[top : min(height, int(high[1])), left : min(width, int(high[0]))]
    if not part.size:
        return np.zeros((CROP, CROP, *picture.shape[2:]), np.uint8)
    inverse[:, 2] -= left, top
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    if not truncate:
        crop: np.ndarray = cv2.warpAffine(part, inverse, (CROP, CROP), flags=flags)
        return crop
    return cv2.warpAffine(part.astype(np.float32), inverse, (CROP, CROP), flags=flags).astype(np.uint8)


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
