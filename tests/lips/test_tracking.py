"""One face followed: which pictures are looked at, and how far the crops may differ for it."""

from pathlib import Path

import numpy as np
import pytest

from avtlm.lips.tracking import follow_face

PICTURE = np.zeros((100, 200), np.uint8)


class Moving:
    """A detector that answers with a square face whose left edge is where ``path`` says, nowhere for NaN, and notes where it looked."""

    def __init__(self, path: list[float], stride: int) -> None:
        self.path, self.stride = path, stride
        self.looks: list[int] = []

    def begin(self, path: Path, several: bool) -> None:
        self.looks = []

    def find(self, index: int, picture: np.ndarray) -> list[np.ndarray]:
        self.looks.append(index)
        corners = np.array([[0.0, 0.0], [50.0, 50.0]])
        return [] if np.isnan(self.path[index]) else [np.resize(corners, (68, 2)) + np.array([self.path[index], 20.0])]

    def count(self, picture: np.ndarray) -> int:
        return 1

    def end(self, pictures: int) -> None:
        assert pictures == len(self.path)


def looks(path: list[float], stride: int) -> list[int]:
    provider = Moving(path, stride)
    follow_face([PICTURE] * len(path), provider, "clip.mp4")
    return provider.looks


def test_a_calm_face_is_looked_at_in_every_nth_picture() -> None:
    assert looks([40.0 + 0.5 * i for i in range(10)], 3) == [0, 3, 6, 9]


def test_a_face_that_moves_fast_is_looked_at_in_every_picture_until_it_is_calm_again() -> None:
    assert looks([0.0] * 3 + [5.0 * i for i in range(1, 7)] + [30.0] * 6, 3) == [0, 3, 6, 7, 8, 9, 12]


@pytest.mark.parametrize(("stride", "gap"), [(1, (4, 9)), (3, (0, 3))])
def test_the_longest_stretch_without_the_face_is_told_in_pictures(stride: int, gap: tuple[int, int]) -> None:
    path = [float("nan") if 4 <= index < 9 or index == 0 else 40.0 for index in range(13)]
    track = follow_face([PICTURE] * 13, Moving(path, stride), "clip.mp4")
    assert track.gap == gap
    assert np.isfinite(track.points[12]).all()


def test_a_face_that_is_there_all_the_time_has_no_gap() -> None:
    track = follow_face([PICTURE] * 5, Moving([40.0] * 5, 2), "clip.mp4")
    assert track.gap[0] == track.gap[1]
    assert (track.looked, track.found) == (3, 3)
