"""One face followed through a clip.

Faces are linked from picture to picture by the nearest box; of several faces the one that fills the most picture over the whole clip is
kept (mean box area times the share of pictures it is seen in). AV-HuBERT keeps the last face in the detector's order and auto_avsr's rule
for mediapipe keeps the last or the first; neither is imitated. Which pictures the detector is shown is :mod:`avtlm.lips.looks`.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from avtlm.lips.landmarks import LandmarkProvider
from avtlm.lips.looks import Looks

SURVEY = 25  # pictures between two counts of the faces in view
REACH = 1.0  # a face may move by this share of its box side from one look to the next


@dataclass(frozen=True)
class FaceTrack:
    """Landmarks of one face.

    Attributes:
        points: float64 ``(frames, 68, 2)``, NaN where the face was not found, and not carried along either.
        looked: number of pictures that were looked at.
        found: number of those in which this face was found.
        missing: share of all pictures without this face; one of which nothing is known counts as the nearest of which something is.
        gap: first frame and the frame after the last of the longest stretch without this face; equal when there is none.
        faces: the largest number of faces in one picture.
        box: mean x, y, width and height of the face in pixels; zeros when there is none.
    """

    points: np.ndarray
    looked: int
    found: int
    missing: float
    gap: tuple[int, int]
    faces: int
    box: tuple[float, float, float, float]


@dataclass
class _Path:
    faces: dict[int, np.ndarray] = field(default_factory=dict)
    area: float = 0.0
    last: int = 0
    centre: np.ndarray = field(default_factory=lambda: np.zeros(2))
    side: float = 0.0

    def add(self, look: int, index: int, points: np.ndarray) -> None:
        low, high = points.min(axis=0), points.max(axis=0)
        self.faces[index] = points
        self.area += float(np.prod(high - low))
        self.last, self.centre, self.side = look, (low + high) / 2, float((high - low).max())

    def distance(self, look: int, points: np.ndarray) -> float:
        """Distance of a face from here in units of what it may have moved; above 1 it is another face."""
        centre = (points.min(axis=0) + points.max(axis=0)) / 2
        return float(np.linalg.norm(centre - self.centre)) / (REACH * max(self.side, 1.0) * min(1 + 0.5 * (look - self.last - 1), 4))


def follow_face(pictures: Iterable[np.ndarray], provider: LandmarkProvider, path: str | Path, first: int | None = None) -> FaceTrack:
    """Landmarks of the main face of a clip.

    Args:
        pictures: the frames in order; iterated a second time when more than one face turns up.
        provider: finds the faces.
        path: the clip, for the provider.
        first: number in the clip of the first picture, if they are a part of it; None if they are all.

    Raises:
        MediaError: the frames cannot be decoded, or a landmark file does not fit.
    """
    track = _follow(pictures, provider, Path(path), first, several=False)
    return track or _follow(pictures, provider, Path(path), first, several=True) or _nothing(0, 0, 0)


def _follow(pictures: Iterable[np.ndarray], provider: LandmarkProvider, path: Path, first: int | None, several: bool) -> FaceTrack | None:
    """None as soon as more than one face is seen and ``several`` is False."""
    provider.begin(path, several)
    begin = first or 0
    looks = Looks(lambda index, picture: provider.find(begin + index, picture), provider.stride)
    count = 0
    for index, picture in enumerate(pictures):
        count += 1
        if not several and index % SURVEY == 0 and provider.count(picture) > 1:
            return None
        looks.show(index, picture)
    looks.finish()
    if first is None:
        provider.end(count)
    tracks: list[_Path] = []
    known = sorted(looks.faces)
    for place, index in enumerate(known):
        _link(tracks, place, index, looks.faces[index])
    if not tracks:
        return _nothing(count, len(looks.looked), 0)
    best = max(tracks, key=lambda track: track.area)
    seen = np.stack(list(best.faces.values()))
    points = np.full((count, 68, 2), np.nan)
    points[list(best.faces)] = seen
    present = [index in best.faces for index in known]
    low, high = seen.min(axis=1), seen.max(axis=1)
    box = np.concatenate([low.mean(axis=0), (high - low).mean(axis=0)])
    return FaceTrack(
        points,
        looked=len(looks.looked),
        found=len(looks.looked & best.faces.keys()),
        missing=_missing(present, known, count),
        gap=_longest_gap(present, known, count),
        faces=max(len(faces) for faces in looks.faces.values()),
        box=(float(box[0]), float(box[1]), float(box[2]), float(box[3])),
    )


def _missing(present: list[bool], known: list[int], count: int) -> float:
    middles = (np.array(known[1:]) + known[:-1]) / 2
    nearest = np.searchsorted(middles, np.arange(count))
    return 1.0 - float(np.array(present)[nearest].mean())


def _longest_gap(seen: list[bool], looks: list[int], count: int) -> tuple[int, int]:
    gap, begin = (0, 0), None
    for present, index in [*zip(seen, looks, strict=True), (True, count)]:
        if not present:
            begin = index if begin is None else begin
        elif begin is not None:
            gap, begin = max(gap, (begin, index), key=lambda stretch: stretch[1] - stretch[0]), None
    return gap


def _link(tracks: list[_Path], look: int, index: int, faces: list[np.ndarray]) -> None:
    pairs = sorted((track.distance(look, face), t, f) for t, track in enumerate(tracks) for f, face in enumerate(faces))
    taken_tracks: set[int] = set()
    taken_faces: set[int] = set()
    for distance, t, f in pairs:
        if distance <= 1 and t not in taken_tracks and f not in taken_faces:
            tracks[t].add(look, index, faces[f])
            taken_tracks.add(t)
            taken_faces.add(f)
    for f, face in enumerate(faces):
        if f not in taken_faces:
            tracks.append(_Path())
            tracks[-1].add(look, index, face)


def _nothing(count: int, looked: int, faces: int) -> FaceTrack:
    return FaceTrack(np.full((count, 68, 2), np.nan), looked, 0, 1.0, (0, count), faces, (0.0, 0.0, 0.0, 0.0))
