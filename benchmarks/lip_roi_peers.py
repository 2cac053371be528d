"""How auto_avsr and AV-HuBERT make lip crops, step by step as their public code does, without its errors.

What is not installed here is replaced by something faster, so that the figures favour them: AV-HuBERT's dlib (its HOG detector takes 10 to
40 ms a picture) by FaceMesh, our own detector, on every picture; scikit-image's warp by OpenCV's on floats, about 12 times as fast; both
write H.264 with our writer, not with FFmpeg's slower presets.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from avtlm.data.media import read_clip, write_clip, write_wav
from avtlm.lips.align import FRAME, interpolate_missing, plan_crops
from avtlm.lips.landmarks import FaceMesh, quiet_native_log


class AutoAvsr:
    """auto_avsr's path with mediapipe: RGB frames, face detection on every frame, one robust similarity and one 256 x 256 colour warp for
    every frame, colour crops (preparation/detectors/mediapipe)."""

    def __init__(self) -> None:
        from mediapipe import solutions

        with quiet_native_log():
            self.detectors = [solutions.face_detection.FaceDetection(min_detection_confidence=0.5, model_selection=kind) for kind in (1, 0)]
            for detector in self.detectors:
                detector.process(np.zeros((64, 64, 3), np.uint8))

    def __call__(self, path: Path, out: Path) -> int:
        """Crops and sound of a clip into a folder; returns the number of crops."""
        clip = read_clip(path, colour=True, damaged="keep")
        assert clip.frames is not None
        for detector in self.detectors:
            points = np.stack([_key_points(detector, frame) for frame in clip.frames])
            if np.isfinite(points).any():
                break
        else:
            return 0
        plan = plan_crops(interpolate_missing(points), "auto_avsr_mediapipe")
        crops = []
        for frame, matrix, (left, top) in zip(clip.frames, plan.matrices, plan.corners):
            aligned = cv2.warpAffine(frame, matrix, (FRAME, FRAME), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT, borderValue=0)
            crops.append(aligned[top : top + 96, left : left + 96])
        return _write(out, crops, clip.audio)


def _key_points(detector: Any, frame: np.ndarray) -> np.ndarray:
    height, width = frame.shape[:2]
    found = detector.process(frame).detections
    if not found:
        return np.full((4, 2), np.nan)
    points = found[0].location_data.relative_keypoints[:4]
    return np.array([[int(point.x * width), int(point.y * height)] for point in points], float)


class AvHubert:
    """AV-HuBERT's path: grey frames for the landmarks of every frame, the video decoded once more for the crops, 256 x 256 colour warps in
    floats, one PNG a crop, from which the video is encoded (avhubert/preparation)."""

    def __init__(self) -> None:
        self.mesh = FaceMesh(stride=1)

    def __call__(self, path: Path, out: Path) -> int:
        """Crops and sound of a clip into a folder; returns the number of crops."""
        clip = read_clip(path, colour=True, damaged="keep")
        assert clip.frames is not None
        self.mesh.begin(path, several=False)
        found = (self.mesh.find(index, cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)) for index, frame in enumerate(clip.frames))
        points = np.stack([faces[-1] if faces else np.full((68, 2), np.nan) for faces in found])
        if not np.isfinite(points).any():
            return 0
        plan = plan_crops(interpolate_missing(points), "avhubert")
        again = read_clip(path, audio=False, colour=True, damaged="keep").frames
        assert again is not None
        for index, (frame, matrix, (left, top)) in enumerate(zip(again, plan.matrices, plan.corners)):
            aligned = cv2.warpAffine(frame / np.float32(255), matrix, (FRAME, FRAME), flags=cv2.INTER_LINEAR)
            crop = (aligned * 255).astype(np.uint8)[top : top + 96, left : left + 96]
            cv2.imwrite(str(out / f"{index:05d}.png"), crop)
        return _write(out, list(_pictures(out, len(again))), clip.audio)


def _pictures(folder: Path, count: int) -> Iterator[np.ndarray]:
    for index in range(count):
        yield cv2.imread(str(folder / f"{index:05d}.png"))


def _write(out: Path, crops: list[np.ndarray], audio: np.ndarray | None) -> int:
    write_clip(out / "peer.mp4", np.stack(crops), crf=20)
    if audio is not None:
        write_wav(out / "peer.wav", audio)
    return len(crops)
