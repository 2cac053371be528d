"""From a media file to lip crops, their sound and a report: the one way in for transcription, the demo and corpora.

A clip that cannot give honest crops (no face, a face seen in too few frames, black or frozen pictures) raises :class:`LipError` instead of
yielding whole frames that look like data; everything unusual that could be dealt with is a warning in the report.
"""

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from avtlm.data.frame_span import FrameSpan
from avtlm.data.media import FPS, SAMPLE_RATE, FrameStream, MediaError, fit, read_track
from avtlm.lips.align import AlignmentError, CropPlan, cut_all, interpolate_missing, opencv, plan_crops
from avtlm.lips.landmarks import FaceMesh, LandmarkProvider
from avtlm.lips.tracking import FaceTrack, follow_face

MEMORY = 512 * 2**20  # bytes of decoded pictures kept for the second look; longer or larger clips are decoded twice
FLAT = 2.0  # grey levels: a crop whose pixels vary less is black or blank
FROZEN = 0.15  # grey levels of mean change between pictures below which nothing moves


class LipError(MediaError):
    """A readable clip without usable lips, in one sentence."""


@dataclass(frozen=True)
class ClipReport:
    """What happened to a clip.

    Attributes:
        path: the source file.
        geometry: alignment that was used.
        frames: crops at 25 a second.
        faces: the largest number of faces in one picture.
        box: mean x, y, width, height of the followed face in pixels.
        interpolated: share of the pictures without the face.
        looked: number of pictures that the detector was shown; landmarks of the others are carried along from theirs.
        shifted: frames whose crop was moved because the mouth lay near the border of the aligned frame.
        source: frame rate, size, rotation and codec of the file.
        warnings: sentences for the user.
    """

    path: str
    geometry: str
    frames: int
    faces: int
    box: tuple[float, float, float, float]
    interpolated: float
    looked: int
    shifted: int
    source: dict[str, Any]
    warnings: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """A dictionary of plain values."""
        return asdict(self) | {"box": [round(value, 1) for value in self.box], "warnings": list(self.warnings)}


@dataclass(frozen=True)
class LipClip:
    """Lip crops with their sound.

    Attributes:
        crops: uint8 ``(frames, 96, 96)`` grey at 25 frames a second.
        audio: float32 ``(frames * 640,)`` at 16 kHz; None without an audio track.
        report: how they came about.
    """

    crops: np.ndarray
    audio: np.ndarray | None
    report: ClipReport


@dataclass(frozen=True)
class FoundLips:
    """Lip crops uint8 ``(frames, 96, 96)`` of some pictures, and how they came about; fields as in `ClipReport`."""

    crops: np.ndarray
    track: FaceTrack
    shifted: int
    warnings: tuple[str, ...]


@dataclass
class _Pictures:
    """Frames from ``first`` up to ``last`` that can be gone through more than once, from memory while they fit there."""

    stream: FrameStream
    limit: int
    first: int = 0
    last: int | None = None
    kept: list[np.ndarray] = field(default_factory=list)
    complete: bool = False

    def __iter__(self) -> Iterator[np.ndarray]:
        if self.complete:
            yield from self.kept
            return
        self.kept, size = [], 0
        for number, picture in enumerate(self.stream):  # to the end of the file in any case: only then it is known to be whole
            if number < self.first or (self.last is not None and number >= self.last):
                continue
            size += picture.nbytes
            if size <= self.limit:
                self.kept.append(picture)
            else:
                self.kept.clear()
            yield picture
        self.complete = size <= self.limit


def extract_lips(
    path: str | Path,
    provider: LandmarkProvider | None = None,
    geometry: str = "avhubert",
    audio: bool = True,
    max_interpolated: float = 0.25,
    min_frames: int = 5,
    damaged: str = "refuse",
    threads: int = 1,
    span: tuple[float, float | None] | None = None,
    seek: bool = False,
) -> LipClip:
    """Lip crops, sound and report of one clip.

    Args:
        path: a media file.
        provider: finds face landmarks; default: a new :class:`~avtlm.lips.landmarks.FaceMesh` (give one when there are many clips).
        geometry: one of :data:`avtlm.lips.align.GEOMETRIES`; use the one that the model was trained with.
        audio: read the audio track.
        max_interpolated: refuse the clip when the face is missing in more than this share of the pictures.
        min_frames: refuse shorter clips.
        damaged: ``"refuse"`` or ``"keep"`` a file that delivers fewer frames than it promises.
        threads: decoder threads; 0 takes all cores, which pays for one large clip.
        span: only the frames from ``int(25 start)`` up to ``int(25 end)``, times in seconds, and their sound; None is the end of the clip.
        seek: read nothing but the span (see :class:`~avtlm.data.frame_span.FrameSpan`): for parts of long videos. Whether the file is whole
            is not looked at then.

    Raises:
        LipError: no face, too few faces, too short, black or frozen.
        MediaError: the file cannot be read.
        MissingExtra: mediapipe or OpenCV is not installed.
    """
    provider = provider or FaceMesh()
    first, last = (int(span[0] * FPS), None if span[1] is None else int(span[1] * FPS)) if span else (0, None)
    stream = FrameSpan(path, first, last, threads=threads) if span and seek else FrameStream(path, damaged=damaged, threads=threads)
    pictures = _Pictures(stream, MEMORY) if span and seek else _Pictures(stream, MEMORY, first, last)
    found = find_lips(path, pictures, provider, geometry, max_interpolated, min_frames, first if span else None)
    info, crops = stream.info, found.crops
    warnings = [*info["warnings"], *found.warnings]
    sound = None
    if audio:
        samples = round(len(crops) * SAMPLE_RATE / FPS)
        sound, notes = read_track(path, start=info["first_time"], samples=None if span else samples)
        if span and sound is not None:
            sound = fit(sound[round(first * SAMPLE_RATE / FPS) :], samples)
        warnings.extend(notes)
    source = {key: info[key] for key in ("source_fps", "source_frames", "width", "height", "rotation", "codec")}
    track = found.track
    report = ClipReport(
        str(path), geometry, len(crops), track.faces, track.box, track.missing, track.looked, found.shifted, source, tuple(warnings)
    )
    return LipClip(crops, sound, report)


def find_lips(
    path: str | Path,
    pictures: Iterable[np.ndarray],
    provider: LandmarkProvider,
    geometry: str = "avhubert",
    max_interpolated: float = 0.25,
    min_frames: int = 5,
    first: int | None = None,
) -> FoundLips:
    """Lip crops of pictures, which are gone through two or three times.

    Args:
        path: where they come from, for messages.
        pictures: uint8 ``(height, width)`` at 25 a second.
        provider, geometry, max_interpolated, min_frames: as for `extract_lips`.
        first: number of the first picture in the clip, if they are a part of it; None if they are all.

    Raises:
        LipError: no face, too few faces, too short, black or frozen.
    """
    track = follow_face(pictures, provider, path, first)
    warnings = []
    _check_track(path, track, max_interpolated, min_frames)
    if track.faces > 1:
        warnings.append(f"{track.faces} faces; the largest one, at ({_centre(track)}), was followed")
    if track.missing > 0:
        begin, end = (frame / FPS for frame in track.gap)
        warnings.append(f"the face was not found in {track.missing:.0%} of the pictures, longest from {begin:.2f} to {end:.2f} s")
    try:
        plan = plan_crops(interpolate_missing(track.points), geometry)
    except AlignmentError as error:
        raise LipError(path, str(error)) from error
    if plan.shifted:
        warnings.append(f"{plan.shifted} crops were moved because the mouth lay at the border of the aligned frame")
    return FoundLips(_cut_all(path, pictures, plan), track, plan.shifted, tuple(warnings))


def _check_track(path: str | Path, track: FaceTrack, max_interpolated: float, min_frames: int) -> None:
    count = len(track.points)
    if count < min_frames:
        raise LipError(path, f"has only {count} frames ({count / FPS:.2f} s); at least {min_frames} are needed.")
    if not track.found:
        raise LipError(path, "no face was found; the whole face must be in view, not only the mouth.")
    if track.missing > max_interpolated:
        raise LipError(
            path, f"the face was found in only {1 - track.missing:.0%} of the pictures; at least {1 - max_interpolated:.0%} are needed."
        )


def _centre(track: FaceTrack) -> str:
    x, y, width, height = track.box
    return f"{x + width / 2:.0f}, {y + height / 2:.0f}"


def _cut_all(path: str | Path, pictures: Iterable[np.ndarray], plan: CropPlan) -> np.ndarray:
    cv2 = opencv()
    crops = cut_all(pictures, plan)
    if float(np.median([cv2.meanStdDev(crop)[1] for crop in crops])) < FLAT:
        raise LipError(path, "the crops of the mouth are black or blank.")
    if sum(cv2.norm(one, other, cv2.NORM_L1) for one, other in itertools.pairwise(crops)) < FROZEN * crops[1:].size:
        raise LipError(path, "the picture of the mouth does not move; this looks like a still image.")
    return crops
