"""One face followed: how long it is missing, and how many pictures were looked at for it."""

import numpy as np
import pytest

from avtlm.lips.tracking import follow_face
from tests.lips.moving_faces import Knowing, moving


@pytest.mark.parametrize(("stride", "gap", "missing"), [(1, (4, 9), 6 / 13), (3, (0, 3), 2 / 13), ("auto", (4, 9), 6 / 13)])
def test_the_longest_stretch_without_the_face_is_told_in_pictures(stride: object, gap: tuple[int, int], missing: float) -> None:
    pictures, known = moving(np.zeros(13))
    faces = [None if 4 <= number < 9 or number == 0 else face for number, face in enumerate(known)]
    if stride == 3:  # which sees pictures 0, 3, 6, 9 and 12
        faces[6] = known[6]
    track = follow_face(pictures, Knowing(faces, stride), "clip.mp4")
    assert track.gap == gap
    assert track.missing == pytest.approx(missing)
    assert np.isfinite(track.points[12]).all()


def test_a_face_that_is_there_all_the_time_has_no_gap() -> None:
    pictures, faces = moving(np.zeros(5))
    track = follow_face(pictures, Knowing(list(faces), 2), "clip.mp4")
    assert track.gap[0] == track.gap[1]
    assert (track.looked, track.found, track.missing) == (3, 3, 0.0)
    assert np.isnan(track.points[1]).all()


def test_a_face_that_was_carried_along_counts_as_seen_but_not_as_looked_at() -> None:
    pictures, faces = moving(np.linspace(0, 5, 12))
    track = follow_face(pictures, Knowing(list(faces)), "clip.mp4")
    assert (track.looked, track.found, track.missing) == (3, 3, 0.0)
    assert np.abs(track.points - faces).max() < 0.3


def test_a_clip_without_any_face_is_missing_all_of_it() -> None:
    pictures, _ = moving(np.zeros(6))
    track = follow_face(pictures, Knowing([None] * 6), "clip.mp4")
    assert (track.found, track.missing, track.gap) == (0, 1.0, (0, 6))
