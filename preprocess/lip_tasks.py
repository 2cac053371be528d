"""One clip of a run over a corpus: what is to be made of it, and how."""

import dataclasses
import hashlib
import importlib.util
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from avtlm.data.manifest import Utterance
from avtlm.errors import MissingExtra
from avtlm.lips.align import GEOMETRIES
from avtlm.lips.flow import BOUND
from avtlm.lips.landmarks import FaceMesh, LandmarkFiles, LandmarkProvider, TasksLandmarker
from avtlm.lips.looks import Stride
from preprocess.clips import InputError

FORMATS = ("mp4", "npy")


@dataclass(frozen=True)
class Options:
    """How crops are made.

    Attributes:
        geometry: alignment, one of :data:`avtlm.lips.align.GEOMETRIES`; that of the weights to be used.
        format: ``mp4`` (H.264, about 10 kB a second) or ``npy`` (exact, 230 kB a second, read without decoding).
        crf: quality of the mp4, lower is better; AV-HuBERT's crops have 20.
        landmarks: folder of landmark files to use instead of a detector.
        model: ``face_landmarker.task`` for mediapipe 1 instead of FaceMesh.
        stride: find landmarks in every n-th frame and interpolate; "auto" finds them in as many as it takes for optical flow
            between them to arrive within :data:`avtlm.lips.flow.BOUND` pixels of the crop.
        refine: FaceMesh with attention at the lips.
        max_interpolated: refuse clips whose face is missing in a larger share of the pictures.
        min_frames: refuse shorter clips.
        keep_damaged: keep what can be decoded of files that end early.
    """

    geometry: str = "avhubert"
    format: str = "mp4"
    crf: int = 20
    landmarks: str | None = None
    model: str | None = None
    stride: Stride = "auto"
    refine: bool = True
    max_interpolated: float = 0.25
    min_frames: int = 5
    keep_damaged: bool = False

    def check(self) -> None:
        """Raise InputError or MissingExtra for what would fail on every clip."""
        for name, value, known in (("geometry", self.geometry, GEOMETRIES), ("format", self.format, FORMATS)):
            if value not in known:
                raise InputError(f"{name} '{value}' is unknown; choose one of {', '.join(known)}.")
        if self.stride != "auto" and self.stride < 1:
            raise InputError(f"stride is {self.stride}; give auto, or 1 or more.")
        if importlib.util.find_spec("cv2") is None:
            raise MissingExtra("lips", "OpenCV", "cropping lips")
        if self.landmarks is not None:
            LandmarkFiles(self.landmarks)
            return
        if importlib.util.find_spec("mediapipe") is None:
            raise MissingExtra("lips", "mediapipe", "finding faces")
        if self.model is not None and not Path(self.model).is_file():
            raise InputError(f"model '{self.model}' does not exist; give the path of mediapipe's face_landmarker.task.")

    def provider(self, root: str | None) -> LandmarkProvider:
        """A detector for one worker."""
        if self.landmarks is not None:
            return LandmarkFiles(self.landmarks, root)
        if self.model is not None:
            return TasksLandmarker(self.model, stride=self.stride)
        return FaceMesh(refine=self.refine, stride=self.stride)

    def landmark_rule(self) -> dict[str, Any]:
        """How landmarks were found, for the manifest: `bound` is in pixels of the crop."""
        if self.landmarks is not None:
            return {"stride": 1}
        return {"stride": self.stride} | ({"bound": BOUND} if self.stride == "auto" else {})


@dataclass(frozen=True)
class Task:
    """One clip: where it is, what is known of it, where its crops go."""

    source: str
    utterance: Utterance
    out: str
    options: Options

    @property
    def key(self) -> str:
        """Changes when the file or the options change, so that its crops are made again."""
        try:
            stat = os.stat(self.source)
            state = (stat.st_size, stat.st_mtime_ns)
        except OSError:
            state = (0, 0)
        span = (self.span,) if self.span else ()
        return hashlib.sha256(repr((self.source, state, dataclasses.astuple(self.options), *span)).encode()).hexdigest()[:16]

    @property
    def span(self) -> tuple[float, float | None] | None:
        """Start and end in seconds of a part of the clip, as the readers of LRS2 and LRS3 give it (``extra["span"]``); None is all.

        Raises:
            InputError: it is something else.
        """
        found = self.utterance.extra.get("span")
        if found is None:
            return None
        match found:
            case [int() | float() as start, int() | float() | None as end] if start >= 0 and (end is None or end > start):
                return float(start), None if end is None else float(end)
        raise InputError(f"utterance '{self.utterance.id}' has the span {found!r}; give [start, end] in seconds, end null for the rest.")

    @property
    def video(self) -> str:
        return f"video/{self.utterance.id}.{self.options.format}"

    @property
    def audio(self) -> str:
        return f"audio/{self.utterance.id}.wav"
