"""Faces carried along between two detections: where they arrive they are right, and where they do not it is noticed."""

import numpy as np
import pytest

from avtlm.lips.flow import BOUND, arrives, carry, follow_points
from tests.lips.moving_faces import moving

SWAY = 6.0 * np.sin(np.pi * np.arange(9) / 8) + 0.5 * np.arange(9)  # there and back, and a little further


@pytest.mark.parametrize("colour", [False, True])
def test_a_movement_there_and_back_is_followed_where_interpolation_misses_it(colour: bool) -> None:
    pictures, faces = moving(SWAY)
    shown = [np.stack([picture // 2, picture, picture // 3], axis=2) for picture in pictures] if colour else pictures
    path = follow_points(shown, faces[0])
    assert path is not None
    assert path.shape == (9, 11, 2)
    assert arrives(path, faces[-1])
    carried = carry(path, faces[0], faces[-1])
    even = np.linspace(faces[0], faces[-1], 9)[1:-1]
    assert np.abs(even - faces[1:-1]).max() > 5
    assert np.abs(carried - faces[1:-1]).max() < 0.4


def test_lips_go_their_own_way() -> None:
    pictures, faces = moving(np.zeros(5))
    path = follow_points(pictures, faces[0])
    assert path is not None
    path[1:-1, 7:] += (0.0, 3.0)  # the four points of the lips, in between
    carried = carry(path, faces[0], faces[-1])
    assert np.allclose(carried[:, :48], faces[1:-1, :48], atol=0.2)
    assert np.allclose(carried[:, 48:], faces[1:-1, 48:] + (0.0, 3.0), atol=0.2)


def test_an_error_at_the_end_is_spread_over_the_way() -> None:
    pictures, faces = moving(np.zeros(5))
    path = follow_points(pictures, faces[0])
    assert path is not None
    found = faces[-1] + (1.0, 0.0)
    assert np.allclose(carry(path, faces[0], found)[:, :, 0] - faces[0, :, 0], np.array([[0.25], [0.5], [0.75]]), atol=0.1)


def test_another_place_another_mouth_and_another_picture_do_not_pass_for_an_arrival() -> None:
    pictures, faces = moving(SWAY)
    path = follow_points(pictures, faces[0])
    assert path is not None
    eyes = float(np.linalg.norm(faces[0, 45] - faces[0, 36]))
    far = 1.5 * BOUND * eyes / 74
    assert not arrives(path, faces[-1] + (0.0, far))
    open_mouth = faces[-1].copy()
    open_mouth[[48, 54]] += (0.0, far)
    open_mouth[[51, 57]] -= (0.0, far)  # on average it is where it was
    assert not arrives(path, open_mouth)
    cut = follow_points([*pictures[:4], *moving(SWAY + 30.0, seed=2)[0][4:]], faces[0])
    assert cut is not None
    assert not arrives(cut, faces[-1] + (30.0, 0.0))


def test_a_face_outside_the_picture_is_not_followed() -> None:
    pictures, faces = moving([0.0, 1.0])
    assert follow_points(pictures, faces[0] + (500.0, 0.0)) is None
    assert follow_points(pictures, faces[0] - (500.0, 0.0)) is None
