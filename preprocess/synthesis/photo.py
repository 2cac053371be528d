"""Photographs in place of drawn faces: two public-domain pictures that ship inside well-known packages, in many tones, mirrored or not.

Two faces mean that held-out speakers share their texture with training ones: use this to try detectors on real texture, not to measure
recognition.
"""

import functools
from pathlib import Path

import cv2
import numpy as np

from avtlm.errors import MissingExtra
from preprocess.synthesis.portrait import SCALE, SIZE, Portrait

LIPS = (61, 185, 40, 39, 37, 0, 267, 269, 270, 409, 291, 375, 321, 405, 314, 17, 84, 181, 91, 146)
CORNERS, EYES, CHIN = (61, 291), (33, 263), 152


def draw_from_photo(rng: np.random.Generator) -> Portrait:
    """One of the photographs, changed at random, with its mouth painted over.

    Raises:
        MissingExtra, FileNotFoundError: see ``require``.
    """
    require()
    photographs = _photographs()
    image, points = photographs[int(rng.integers(len(photographs)))]
    if rng.random() < 0.5:
        image = image[:, ::-1]
        points = np.stack([image.shape[1] - points[:, 0], points[:, 1]], 1)
        left, right = points[CORNERS[1]], points[CORNERS[0]]
    else:
        left, right = points[CORNERS[0]], points[CORNERS[1]]
    toned = np.clip(image.astype(np.float32) * rng.uniform(0.8, 1.15) * rng.uniform(0.93, 1.07, 3), 0, 255).astype(np.uint8)
    mouth = (left + right) / 2
    ring = points[list(LIPS)]
    skin = toned[int(mouth[1]) - 70 : int(mouth[1]) - 55, int(mouth[0]) - 60 : int(mouth[0]) - 40].reshape(-1, 3).mean(0)
    cover = np.zeros(toned.shape[:2], np.uint8)
    cv2.fillPoly(cover, [np.round((ring - mouth) * 1.12 + mouth).astype(np.int32)], (255.0,))
    clean = cv2.inpaint(np.ascontiguousarray(toned), cv2.dilate(cover, np.ones((7, 7), np.uint8)), 9, cv2.INPAINT_TELEA)
    lips = np.clip(skin * np.array([1.0, rng.uniform(0.62, 0.75), rng.uniform(0.65, 0.78)]) * 0.9, 0, 255)
    half = float(np.linalg.norm(right - left)) / 2
    return Portrait(clean, None, (float(mouth[0]), float(mouth[1])), half, float(points[CHIN, 1]), 0.22 * half, 0.3 * half, skin, lips)


def require() -> None:
    """Raise MissingExtra if mediapipe is not installed, or FileNotFoundError if matplotlib came without its sample data."""
    try:
        import mediapipe  # noqa: F401
    except ImportError as error:
        raise MissingExtra("lips", "mediapipe", "finding the faces in the photographs") from error
    if not _sample().exists():
        raise FileNotFoundError(f"{_sample()} is missing; install matplotlib again with its sample data, or use drawn faces.")


def _sample() -> Path:
    import matplotlib

    return Path(matplotlib.get_data_path()) / "sample_data" / "grace_hopper.jpg"


@functools.cache
def _photographs() -> tuple[tuple[np.ndarray, np.ndarray], ...]:
    """Pictures of 480 x 480 with the face in the middle, and its 468 landmarks."""
    import mediapipe

    found = []
    with mediapipe.solutions.face_mesh.FaceMesh(static_image_mode=True, refine_landmarks=True) as mesh:
        for image in _originals():
            first = _points(mesh, image)
            middle, span = first[list(EYES)].mean(0), float(np.linalg.norm(first[EYES[0]] - first[EYES[1]]))
            # The drawings' eyes are about 155 pixels apart, a third of the way down.
            scale = 155.0 / span
            matrix = np.array([[scale, 0, SIZE * SCALE / 2 - scale * middle[0]], [0, scale, 205 - scale * middle[1]]])
            still = cv2.warpAffine(image, matrix, (SIZE * SCALE, SIZE * SCALE), flags=cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE)
            found.append((still, _points(mesh, still)))
    return tuple(found)


def _points(mesh: "object", image: np.ndarray) -> np.ndarray:
    result = mesh.process(image)  # type: ignore[attr-defined]
    assert result.multi_face_landmarks, "the packaged photographs show a face"
    return np.array([[p.x * image.shape[1], p.y * image.shape[0]] for p in result.multi_face_landmarks[0].landmark])


def _originals() -> list[np.ndarray]:
    images = [cv2.imread(str(_sample()))[..., ::-1].copy()]
    try:
        from skimage import data
    except ImportError:  # scikit-image is no dependency; its photograph is used where it is installed
        return images
    return [*images, data.astronaut()[:, :, :3].copy()]
