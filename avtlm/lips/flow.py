"""Faces between two pictures in which they were found: carried along by optical flow, which also tells whether they can be.

Eleven points of a face are followed from picture to picture (Lucas and Kanade 1981, in OpenCV's pyramids). Where they arrive at the next
detection, the path between is known; where they do not, something moved that was not followed, and the pictures in between have to be
looked at. What they are off in the end is spread over the way.
"""

import itertools
from collections.abc import Sequence

import numpy as np

from avtlm.lips.align import MOUTH, opencv

BOUND = 2.0  # pixels of the crop by which eyes and nose, and the lips, may arrive beside the next detection
HEAD = (27, 30, 33, 36, 39, 42, 45)  # nose and corners of the eyes
LIPS = (48, 51, 54, 57)  # corners and middles of the outer lip
EYES = 74.0  # pixels of the crop between the outer corners of the eyes (of the mean face)
FINE = 45  # pixels between them that pictures are thinned out to
WINDOW, LEVELS = 11, 1  # pixels around a point that are followed, and how often they are halved
STEPS = (3, 10, 0.03)  # of the search for a point: until it moves by less than the last, ten at most


def follow_points(pictures: Sequence[np.ndarray], face: np.ndarray) -> np.ndarray | None:
    """Where eleven points of a face go.

    Args:
        pictures: neighbours in time, uint8 ``(height, width)`` or ``(height, width, 3)``.
        face: its points in the first of them, ``(68, 2)``.

    Returns:
        float64 ``(pictures, 11, 2)``; None if too little of the face is in the picture.
    """
    cv2 = opencv()
    points = face[[*HEAD, *LIPS]]
    apart = _eyes_apart(face)
    step = max(1, round(apart / FINE))
    margin = WINDOW * step + 0.25 * apart
    left, top = np.maximum(points.min(axis=0) - margin, 0).astype(int)
    right, bottom = np.maximum(np.ceil(points.max(axis=0) + margin), 0).astype(int)
    window = (slice(top, bottom, step), slice(left, right, step))
    parts = [np.ascontiguousarray((picture if picture.ndim == 2 else picture[..., 1])[window]) for picture in pictures]
    if min(parts[0].shape) < WINDOW:
        return None
    paths = [((points - (left, top)) / step).astype(np.float32)]
    for before, after in itertools.pairwise(parts):
        paths.append(cv2.calcOpticalFlowPyrLK(before, after, paths[-1], None, winSize=(WINDOW, WINDOW), maxLevel=LEVELS, criteria=STEPS)[0])
    return np.stack(paths).astype(np.float64) * step + (left, top)


def arrives(path: np.ndarray, last: np.ndarray) -> bool:
    """Whether points that were followed arrive at a face, ``(68, 2)``, within `BOUND`: the head as a whole, the lips on average."""
    off = (last[[*HEAD, *LIPS]] - path[-1]) * (EYES / _eyes_apart(last))
    head, lips = off[: len(HEAD)], off[len(HEAD) :]
    return bool(np.linalg.norm(np.median(head, axis=0)) <= BOUND and np.linalg.norm(lips, axis=1).mean() <= BOUND)


def carry(path: np.ndarray, first: np.ndarray, last: np.ndarray) -> np.ndarray:
    """The faces between two that were found: their points go evenly from one to the other, and besides as the head, or the lips, do.

    Args:
        path: of `follow_points` from the first to the last, ``(pictures, 11, 2)``.
        first, last: the face in the first picture and in the last, ``(68, 2)``.

    Returns:
        float64 ``(pictures - 2, 68, 2)``.
    """
    shares = np.linspace(0, 1, len(path))[:, None, None]
    faces = first + shares * (last - first)
    beside = path - faces[:, [*HEAD, *LIPS]]
    for part, points in ((slice(0, len(HEAD)), slice(0, MOUTH.start)), (slice(len(HEAD), None), MOUTH)):
        move = np.median(beside[:, part], axis=1)
        faces[:, points] += (move - shares[:, 0] * move[-1])[:, None]
    return faces[1:-1]


def _eyes_apart(face: np.ndarray) -> float:
    """Pixels between the outer corners of the eyes."""
    return max(float(np.linalg.norm(face[45] - face[36])), 1.0)
