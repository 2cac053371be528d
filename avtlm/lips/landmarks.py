"""Face landmarks: where the 68 points of every face in a picture come from.

A provider is told which clip begins, then shown its pictures in order, and answers with all faces it finds. FaceMesh of mediapipe 0.10.21
brings its models in the wheel and is the default; a Tasks model for mediapipe 1 and landmark files stand behind the same three methods.
Whoever follows one face through a clip is :mod:`avtlm.lips.tracking`.
"""

import contextlib
import io
import json
import os
import pickle
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from avtlm.data.container import MediaError
from avtlm.errors import MissingExtra
from avtlm.lips.align import opencv
from avtlm.lips.looks import Stride

# Mesh points for the 68 points, averaged where two are given. 27..67: public MIT table PeizhiYan/Mediapipe_2_Dlib_Landmarks; jaw and brows
# are read off the mesh's face oval and brow contours, and only enter through centroids.
MESH_POINTS: tuple[tuple[int, ...], ...] = (
    *((i,) for i in (127, 234, 93, 58, 172, 136, 149, 148, 152, 377, 378, 365, 397, 288, 323, 454, 356)),
    *((i,) for i in (70, 63, 105, 66, 107, 336, 296, 334, 293, 300)),
    *((168, 6), (197, 195), (5,), (4,), (75,), (97,), (2,), (326,), (305,)),
    *((i,) for i in (33, 160, 158, 133, 153, 144, 362, 385, 387, 263, 373, 380)),
    *((i,) for i in (61, 39, 37, 0, 267, 269, 291, 321, 314, 17, 84, 91, 78, 82, 13, 312, 308, 317, 14, 87)),
)
_FIRST = [indices[0] for indices in MESH_POINTS]
_SECOND = [indices[-1] for indices in MESH_POINTS]
_USED = sorted({*_FIRST, *_SECOND})
_FIRST_ROW = [_USED.index(i) for i in _FIRST]
_SECOND_ROW = [_USED.index(i) for i in _SECOND]
_STDERR = threading.Lock()
STEP = 120  # milliseconds from picture to picture as TasksLandmarker is told; they must increase, whatever the time stamps of the file
CLEAR = 192  # pixels: of a face whose side is longer the mesh, which sees a square half as wide again in 192 pixels, sees no more


class LandmarkProvider(Protocol):
    """What the tracker needs of a landmark detector."""

    @property
    def stride(self) -> Stride:
        """Every n-th picture is shown to :meth:`find`, or with "auto" as many as it takes to follow the face in between
        (:mod:`avtlm.lips.looks`), which need not come in their order then."""

    def begin(self, path: Path, several: bool) -> None:
        """Forget the last clip. With ``several``, report up to four faces, otherwise one is enough."""

    def find(self, index: int, picture: np.ndarray) -> list[np.ndarray]:
        """Faces in picture ``index``, uint8 ``(height, width)`` grey or ``(height, width, 3)`` RGB, as float64 ``(68, 2)`` pixels."""

    def count(self, picture: np.ndarray) -> int:
        """How many faces are there, at a glance: asked about once a second to decide whether ``several`` is worth its cost."""

    def end(self, pictures: int) -> None:
        """The clip had so many pictures."""


class FaceMesh:
    """mediapipe's FaceMesh in tracking mode: the face detector runs only when the face is lost.

    Args:
        refine: use the mesh with attention at eyes and lips, 25 % slower and better at the lips.
        stride: look at every n-th picture only; "auto" looks at as many as it takes (:mod:`avtlm.lips.looks`).
        confidence: least score of the face detector.
        tracking_confidence: least score to stay with a face without detecting it again.

    Raises:
        MissingExtra: mediapipe is missing, or is a release without FaceMesh.
    """

    def __init__(self, refine: bool = True, stride: Stride = "auto", confidence: float = 0.5, tracking_confidence: float = 0.5) -> None:
        self.stride = _checked(stride)
        self._options = {"refine_landmarks": refine, "min_detection_confidence": confidence, "min_tracking_confidence": tracking_confidence}
        self._confidence = confidence
        self._solutions = _solutions()
        self._meshes: dict[int, Any] = {}
        self._counter: Any = None
        self._mesh: Any = None
        self._fresh = True
        self._seen_face = False
        self._shrink = 1  # the picture is made smaller by this, once the face is known to be large

    def begin(self, path: Path, several: bool) -> None:
        faces = 4 if several else 1
        if faces not in self._meshes:
            with quiet_native_log():
                self._meshes[faces] = self._solutions.face_mesh.FaceMesh(static_image_mode=False, max_num_faces=faces, **self._options)
                self._meshes[faces].process(np.zeros((64, 64, 3), np.uint8))  # waits until the graph has started, and said so
        self._mesh = self._meshes[faces]
        self._fresh = True
        self._shrink = 1

    def find(self, index: int, picture: np.ndarray) -> list[np.ndarray]:
        cv2 = opencv()
        height, width = picture.shape[:2]
        if self._shrink > 1:
            picture = cv2.resize(picture, (width // self._shrink, height // self._shrink), interpolation=cv2.INTER_AREA)
        colour = cv2.cvtColor(picture, cv2.COLOR_GRAY2RGB) if picture.ndim == 2 else picture
        with contextlib.nullcontext() if self._seen_face else quiet_native_log():  # the first face prints a warning too
            if self._fresh:
                # A black picture makes the tracker lose the last clip's face: bit-equal to a new graph and thirty times cheaper.
                self._mesh.process(np.zeros_like(colour))
                self._fresh = False
            faces = self._mesh.process(colour).multi_face_landmarks or []
        self._seen_face |= bool(faces)
        found = [from_mesh(face.landmark, width, height) for face in faces]
        self._shrink = max(1, int(min((np.ptp(face, axis=0).max() for face in found), default=0) // CLEAR))
        return found

    def count(self, picture: np.ndarray) -> int:
        cv2 = opencv()
        with contextlib.nullcontext() if self._counter else quiet_native_log():
            if self._counter is None:
                self._counter = self._solutions.face_detection.FaceDetection(min_detection_confidence=self._confidence)
            found = self._counter.process(cv2.cvtColor(picture, cv2.COLOR_GRAY2RGB) if picture.ndim == 2 else picture)
        return len(found.detections or [])

    def end(self, pictures: int) -> None:
        return None


class TasksLandmarker:
    """FaceLandmarker of mediapipe's Tasks interface, for mediapipe 1 and later, which ship no model.

    Args:
        model: path of a ``face_landmarker.task`` file.
        stride: look at every n-th picture only; "auto" looks at as many as it takes (:mod:`avtlm.lips.looks`).
        confidence: least score of detector, landmarks and tracking.

    Raises:
        MissingExtra: mediapipe is missing.
        MediaError: there is no such model file.
    """

    def __init__(self, model: str | Path, stride: Stride = "auto", confidence: float = 0.5) -> None:
        self.stride = _checked(stride)
        if not Path(model).is_file():
            raise MediaError(model, "there is no such face landmark model; mediapipe's face_landmarker.task is needed.")
        self._model = str(model)
        self._confidence = confidence
        self._mediapipe = _mediapipe()
        self._landmarker: Any = None
        self._time = 0

    def begin(self, path: Path, several: bool) -> None:
        vision = self._mediapipe.tasks.vision
        options = vision.FaceLandmarkerOptions(
            base_options=self._mediapipe.tasks.BaseOptions(model_asset_path=self._model),
            running_mode=vision.RunningMode.VIDEO,
            num_faces=4 if several else 1,
            min_face_detection_confidence=self._confidence,
            min_face_presence_confidence=self._confidence,
            min_tracking_confidence=self._confidence,
        )
        with quiet_native_log():
            if self._landmarker is not None:
                self._landmarker.close()
            self._landmarker = vision.FaceLandmarker.create_from_options(options)
        self._time = 0

    def find(self, index: int, picture: np.ndarray) -> list[np.ndarray]:
        cv2 = opencv()
        colour = cv2.cvtColor(picture, cv2.COLOR_GRAY2RGB) if picture.ndim == 2 else picture
        image = self._mediapipe.Image(image_format=self._mediapipe.ImageFormat.SRGB, data=colour)
        self._time += STEP
        with quiet_native_log() if self._time == STEP else contextlib.nullcontext():
            result = self._landmarker.detect_for_video(image, self._time)
        return [from_mesh(face, picture.shape[1], picture.shape[0]) for face in result.face_landmarks]

    def count(self, picture: np.ndarray) -> int:
        return 2  # no cheap detector at hand: always look for several faces

    def end(self, pictures: int) -> None:
        return None


class LandmarkFiles:
    """Landmarks made elsewhere, one file a clip: ``FOLDER/<path of the clip below its root>`` or ``FOLDER/<its name>``, with the suffix

    ``.npy`` (float ``(frames, 68, 2)``, NaN where missing), ``.npz`` (key ``landmarks``), ``.json`` (list over frames; null where missing)
    or ``.pkl`` (a list of arrays or None over frames, as AV-HuBERT and auto_avsr write; read without executing anything).

    Args:
        folder: where the landmark files are.
        root: folder that the clips' relative paths start from.

    Raises:
        MediaError: when a clip begins that has no landmark file, or one of the wrong shape or length.
    """

    stride = 1

    def __init__(self, folder: str | Path, root: str | Path | None = None) -> None:
        self.folder = Path(folder)
        self.root = Path(root).resolve() if root is not None else None
        if not self.folder.is_dir():
            raise MediaError(folder, "there is no such folder of landmarks.")
        self._points = np.zeros((0, 68, 2))
        self._path = Path()

    def begin(self, path: Path, several: bool) -> None:
        full = Path(path).resolve()
        stems = [Path(full.name).with_suffix("")]
        if self.root is not None and full.is_relative_to(self.root):
            stems.insert(0, full.relative_to(self.root).with_suffix(""))
        candidates = [self.folder / f"{stem}{suffix}" for stem in stems for suffix in (".npy", ".npz", ".json", ".pkl")]
        found = next((candidate for candidate in candidates if candidate.is_file()), None)
        if found is None:
            raise MediaError(path, f"has no landmark file in {self.folder} ({candidates[0].name}, .npz, .json or .pkl).")
        self._path, self._points = found, read_landmarks(found)

    def find(self, index: int, picture: np.ndarray) -> list[np.ndarray]:
        if index >= len(self._points):
            return []
        return [self._points[index]] if np.isfinite(self._points[index]).all() else []

    def count(self, picture: np.ndarray) -> int:
        return 1

    def end(self, pictures: int) -> None:
        if pictures != len(self._points):
            raise MediaError(
                self._path, f"holds landmarks of {len(self._points)} frames, but the clip has {pictures} at 25 frames a second."
            )


def read_landmarks(path: str | Path) -> np.ndarray:
    """Float64 ``(frames, 68, 2)`` from a landmark file, NaN where a frame has none; formats as in :class:`LandmarkFiles`.

    Raises:
        MediaError: not such a file, or of another shape.
    """
    path = Path(path)
    try:
        if path.suffix == ".npy":
            points = np.load(path, allow_pickle=False)
        elif path.suffix == ".npz":
            with np.load(path, allow_pickle=False) as archive:
                points = archive["landmarks"]
        else:
            rows = json.loads(path.read_text()) if path.suffix == ".json" else _ArrayUnpickler(io.BytesIO(path.read_bytes())).load()
            points = np.stack([np.full((68, 2), np.nan) if row is None else np.asarray(row, float)[:, :2] for row in rows])
        points = np.asarray(points, np.float64)
    except Exception as error:  # a damaged pickle or archive may fail in any way; what it was is in the sentence
        reason = " ".join(str(error).split())[:120] or type(error).__name__
        raise MediaError(path, f"cannot be read as landmarks ({reason}).") from error
    if points.ndim != 3 or points.shape[1:] != (68, 2):
        raise MediaError(path, f"holds landmarks of shape {tuple(points.shape)}; expected (frames, 68, 2).")
    return points


# Of numpy 1 and 2. No other module is imported for a file, not even one of numpy.
ARRAY_NAMES = {
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    *((f"numpy.{core}.multiarray", name) for core in ("core", "_core") for name in ("_reconstruct", "scalar")),
}


class _ArrayUnpickler(pickle._Unpickler):
    """Reads lists of numpy arrays and nothing that could run. (The unpickler in C lets a few bytes take all memory.)"""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in ARRAY_NAMES:
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"it asks for {module}.{name}, which is no array")


def from_mesh(landmarks: Any, width: int, height: int) -> np.ndarray:
    """Float64 ``(68, 2)`` in pixels out of the 468 or 478 normalised points of the face mesh."""
    used = np.array([(landmarks[i].x, landmarks[i].y) for i in _USED], np.float64) * (width, height)
    points: np.ndarray = (used[_FIRST_ROW] + used[_SECOND_ROW]) / 2
    return points


def _checked(stride: Stride) -> Stride:
    if stride != "auto" and stride < 1:
        raise ValueError(f"stride={stride!r}: expected 'auto', or 1 or more.")
    return stride


@contextlib.contextmanager
def quiet_native_log() -> Iterator[None]:
    """Keep what native code writes to standard error off the terminal; it is shown after all when the block raises."""
    with _STDERR, tempfile.TemporaryFile() as sink:
        sys.stderr.flush()
        saved = os.dup(2)
        os.dup2(sink.fileno(), 2)
        try:
            yield
        except BaseException:
            os.dup2(saved, 2)
            sink.seek(0)
            os.write(2, sink.read())
            raise
        finally:
            os.dup2(saved, 2)
            os.close(saved)


def _mediapipe() -> Any:
    try:
        with quiet_native_log():
            import mediapipe
    except ImportError as error:
        raise MissingExtra("lips", "mediapipe", "finding faces") from error
    return mediapipe


def _solutions() -> Any:
    solutions = getattr(_mediapipe(), "solutions", None)
    if solutions is None:
        raise MissingExtra("lips", "mediapipe 0.10.21 (the last release with FaceMesh)", "finding faces without a model file")
    return solutions
