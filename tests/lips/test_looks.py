"""Which pictures are looked at: few where a face can be followed, all where it cannot."""

import numpy as np
import pytest

from avtlm.lips.looks import Looks
from tests.lips.moving_faces import Knowing, moving


def show(pictures: list[np.ndarray], detector: Knowing) -> Looks:
    looks = Looks(detector.find, detector.stride)  # type: ignore[arg-type]
    for number, picture in enumerate(pictures):
        looks.show(number, picture)
    looks.finish()
    assert looks.looked == set(detector.looks)
    return looks


@pytest.mark.parametrize(("stride", "expected"), [(1, [0, 1, 2, 3, 4, 5, 6, 7]), (3, [0, 3, 6])])
def test_a_number_is_kept_to_whatever_the_face_does(stride: int, expected: list[int]) -> None:
    pictures, faces = moving([0, 0, 30, 0, 0, 30, 0, 0])
    detector = Knowing(list(faces), stride)
    assert sorted(show(pictures, detector).faces) == expected == detector.looks


def test_a_face_that_can_be_followed_is_looked_at_in_every_eighth_picture_and_the_last() -> None:
    shifts = 4 * np.sin(np.arange(21) / 3)
    pictures, faces = moving(shifts)
    detector = Knowing(list(faces))
    found = show(pictures, detector).faces
    assert detector.looks == [0, 8, 16, 20]
    assert sorted(found) == list(range(21))
    assert max(np.abs(found[number][0] - faces[number]).max() for number in range(21)) < 0.5


def test_every_picture_around_a_cut_is_looked_at() -> None:
    before, first = moving(np.zeros(17))
    after, second = moving(np.full(17, 25.0), seed=2)
    faces = [*first[:11], *second[11:]]
    detector = Knowing(faces)
    found = show([*before[:11], *after[11:]], detector).faces
    assert detector.looks == [0, 8, 16, 12, 10, 11]
    assert max(np.abs(found[number][0] - faces[number]).max() for number in range(17)) < 0.3


def test_every_picture_without_the_face_is_looked_at_and_a_tracker_that_lost_it_is_asked_twice() -> None:
    pictures, known = moving(np.zeros(17))
    faces = [None if 3 <= number <= 12 else face for number, face in enumerate(known)]
    detector = Knowing(faces)
    found = show(pictures, detector).faces
    assert [number for number in range(17) if not found[number]] == list(range(3, 13))
    assert set(range(3, 13)) <= set(detector.looks)
    assert detector.looks[:3] == [0, 8, 8]


def test_all_of_several_faces_have_to_be_followed() -> None:
    pictures, faces = moving(np.zeros(9))
    small = (faces - (80, 80)) * 0.9 + (80, 80)
    other = [face + np.array([0.0, 40.0 * (number == 8)]) for number, face in enumerate(small)]
    looks: list[int] = []

    def find(number: int, picture: np.ndarray) -> list[np.ndarray]:
        looks.append(number)
        return [faces[number], other[number]]

    several = Looks(find, "auto")
    for number, picture in enumerate(pictures):
        several.show(number, picture)
    several.finish()
    assert looks == [0, 8, 4, 6, 7]
    assert all(len(several.faces[number]) == 2 for number in range(9))


def test_a_single_picture_is_looked_at_once() -> None:
    pictures, faces = moving([0.0])
    detector = Knowing(list(faces))
    assert sorted(show(pictures, detector).faces) == detector.looks == [0]
