"""A textured picture that moves under a face whose landmarks are known, and a detector that knows them."""

from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from avtlm.lips.align import mean_face

SIZE = (160, 200)  # height, width


def moving(shifts: Sequence[float], seed: int = 1) -> tuple[list[np.ndarray], np.ndarray]:
    """Pictures whose content lies so many pixels further right, uint8 ``(160, 200)``, and the face in each, ``(pictures, 68, 2)``."""
    grain = cv2.GaussianBlur(np.random.default_rng(seed).integers(0, 256, (160, 400), np.uint8), (0, 0), 2.5)
    grain = cv2.normalize(grain, None, 0, 255, cv2.NORM_MINMAX)
    moves = [np.array([[1.0, 0.0, shift - 100.0], [0.0, 1.0, 0.0]]) for shift in shifts]
    pictures = [cv2.warpAffine(grain, move, SIZE[::-1], flags=cv2.INTER_LINEAR) for move in moves]
    face = (mean_face() - mean_face().mean(axis=0)) * 0.8 + (80.0, 80.0)
    return pictures, np.stack([face + np.array([shift, 0.0]) for shift in shifts])


class Knowing:
    """A detector that finds the faces it was given, none for None, and notes where it was asked to look."""

    def __init__(self, faces: Sequence[np.ndarray | None], stride: object = "auto") -> None:
        self.faces, self.stride = faces, stride
        self.looks: list[int] = []

    def begin(self, path: Path, several: bool) -> None:
        self.looks = []

    def find(self, index: int, picture: np.ndarray) -> list[np.ndarray]:
        self.looks.append(index)
        face = self.faces[index]
        return [] if face is None else [face]

    def count(self, picture: np.ndarray) -> int:
        return 1

    def end(self, pictures: int) -> None:
        assert pictures == len(self.faces)
