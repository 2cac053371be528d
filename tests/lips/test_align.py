"""Alignment and crops (equality with the official pipelines: tests/test_golden.py)."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from avtlm.lips.align import (
    CROP,
    AlignmentError,
    auto_avsr_corner,
    avhubert_corner,
    cut,
    interpolate_missing,
    mean_face,
    plan_crops,
    similarity,
    transform,
)


@settings(max_examples=30, deadline=None)
@given(
    scale=st.floats(0.3, 3),
    angle=st.floats(-180, 180),
    x=st.floats(-300, 300),
    y=st.floats(-300, 300),
    truncate=st.booleans(),
    seed=st.integers(0, 9),
)
def test_warping_into_the_window_equals_cutting_the_warped_frame(
    scale: float, angle: float, x: float, y: float, truncate: bool, seed: int
) -> None:
    import cv2

    generator = np.random.default_rng(seed)
    picture = cv2.GaussianBlur(generator.integers(0, 256, (120, 160), np.uint8), (0, 0), 2.0)
    turn = np.radians(angle)
    matrix = scale * np.array([[np.cos(turn), -np.sin(turn), 0.0], [np.sin(turn), np.cos(turn), 0.0]])
    matrix[:, 2] = np.array([128 + x, 128 + y]) - matrix[:, :2] @ (80, 60)
    corner = int(generator.integers(0, 160)), int(generator.integers(0, 160))
    if truncate:
        inverse = np.linalg.inv(np.vstack([matrix, (0, 0, 1)]))
        x, y = np.meshgrid(np.arange(256.0), np.arange(256.0))
        rows, columns = (inverse[axis, 0] * x + inverse[axis, 1] * y + inverse[axis, 2] for axis in (1, 0))
        whole = ndimage.map_coordinates(picture.astype(float), [rows, columns], order=1, mode="grid-constant")
    else:
        whole = cv2.warpAffine(picture, matrix, (256, 256), flags=cv2.INTER_LINEAR)
    expected = whole[corner[1] : corner[1] + CROP, corner[0] : corner[0] + CROP]
    found = cut(picture, matrix, corner, truncate)
    # OpenCV rounds positions to 1/32 pixel, which shows where they are not counted from the same corner; a value near a whole number may be
    # cut to either side of it.
    assert np.abs(found - (expected - 0.5 if truncate else expected)).max() <= (0.5 + 1e-6 if truncate else 0)


def test_positions_are_not_rounded_and_values_are_cut_to_whole_levels_as_scikit_image_does() -> None:
    picture = np.array([[0, 100], [200, 255]], np.uint8)
    matrix = np.array([[1.0, 0.0, 48.27], [0.0, 1.0, 48.61]])
    found = cut(picture, matrix, (48, 48), truncate=True)
    across, down = 1 - 0.27, 1 - 0.61
    inside = (1 - down) * (across * 100) + down * ((1 - across) * 200 + across * 255)
    assert found[1, 1] == int(inside)
    assert found[0, 1] == int(down * across * 100)  # blends into the black above
    assert not found[3:].any()
    coloured = cut(np.stack([picture] * 3, axis=-1), matrix, (48, 48), truncate=True)
    assert np.array_equal(coloured, np.stack([found] * 3, axis=-1))
    assert not cut(picture, matrix + np.array([[0, 0, 900], [0, 0, 0]]), (48, 48), truncate=True).any()


@settings(max_examples=50, deadline=None)
@given(scale=st.floats(0.1, 10), angle=st.floats(-180, 180), x=st.floats(-500, 500), y=st.floats(-500, 500))
def test_a_similarity_is_recovered(scale: float, angle: float, x: float, y: float) -> None:
    turn = np.radians(angle)
    matrix = np.array([[[scale * np.cos(turn), -scale * np.sin(turn), x], [scale * np.sin(turn), scale * np.cos(turn), y]]])
    assert np.abs(similarity(mean_face()[None], transform(matrix, mean_face()[None])[0]) - matrix).max() < 1e-8 * max(1, scale) * 1000


def test_many_similarities_at_once_are_those_of_scikit_image_one_by_one_to_the_last_bit() -> None:
    generator = np.random.default_rng(3)
    target = mean_face()[[33, 36, 39, 42, 45]]
    source = target * generator.uniform(0.3, 3, (40, 1, 1)) + generator.normal(0, 4, (40, 5, 2)) + generator.uniform(0, 300, (40, 1, 2))
    source[::7, :, 0] *= -1  # mirrored
    for points, found in zip(source, similarity(source, target), strict=True):
        centre, target_centre = points.mean(axis=0), target.mean(axis=0)
        left, sizes, right = np.linalg.svd((target - target_centre).T @ (points - centre) / 5)
        signs = np.array([1.0, -1.0 if np.linalg.det(left) * np.linalg.det(right) < 0 else 1.0])
        rotation = left @ np.diag(signs) @ right
        scale = 1.0 / (points - centre).var(axis=0).sum() * (sizes @ signs)
        assert np.array_equal(found, np.column_stack([rotation * scale, target_centre - scale * (rotation @ centre)]))


def test_a_mirrored_face_is_turned_not_mirrored() -> None:
    matrix = similarity((mean_face() * (-1, 1))[None], mean_face())[0]
    assert np.linalg.det(matrix[:, :2]) > 0


def test_missing_frames_are_interpolated_and_copied_at_the_ends() -> None:
    points = np.full((6, 68, 2), np.nan)
    points[1], points[4] = 1.0, 4.0
    assert interpolate_missing(points)[:, 0, 0].tolist() == [1, 1, 2, 3, 4, 4]
    with pytest.raises(AlignmentError, match="no frame"):
        interpolate_missing(np.full((3, 68, 2), np.nan))


def test_degenerate_landmarks_and_unknown_geometries_are_named() -> None:
    with pytest.raises(AlignmentError, match="one point"):
        plan_crops(np.zeros((3, 68, 2)))
    with pytest.raises(ValueError, match="'c3d' is unknown; choose one of avhubert"):
        plan_crops(np.zeros((3, 68, 2)), "c3d")


def test_a_clip_shorter_than_the_window_is_cropped_unless_a_minimum_is_asked_for() -> None:
    points = np.repeat(mean_face()[None], 9, axis=0)
    assert len(plan_crops(points, "auto_avsr").corners) == 9
    with pytest.raises(AlignmentError, match="9 frames are too few"):
        plan_crops(points, "auto_avsr", minimum_frames=12)


def test_a_mouth_at_the_border_is_moved_and_counted() -> None:
    points = np.repeat(mean_face()[None], 5, axis=0)
    points[:, 48:] += (0, 80)
    assert plan_crops(points, "avhubert").shifted == 5
    points[:, 48:] -= (0, 170)
    assert plan_crops(points, "auto_avsr").shifted == 5


@pytest.mark.parametrize("geometry", ["avhubert", "auto_avsr"])
def test_other_crop_sizes_windows_and_reference_faces_are_honoured(geometry: str) -> None:
    points = np.repeat(mean_face()[None], 9, axis=0)
    points[4] += (3.0, 0.0)
    usual, small = plan_crops(points, geometry), plan_crops(points, geometry, size=64)
    assert np.array_equal(usual.matrices, small.matrices)
    assert np.array_equal(usual.corners + 16, small.corners)
    assert cut(np.zeros((256, 256), np.uint8), small.matrices[0], small.corners[0], small.truncate, small.size).shape == (64, 64)
    alone = plan_crops(points, geometry, window=1)  # every frame is aligned by itself
    aligned = transform(alone.matrices, points)
    assert np.abs(aligned - mean_face()).max() < 1e-6
    moved = plan_crops(points, geometry, reference=mean_face() + 5.0)
    assert np.abs(moved.matrices[:, :, 2] - usual.matrices[:, :, 2] - 5.0).max() < 1e-3
    with pytest.raises(ValueError, match="size 63, window 12: give an even size"):
        plan_crops(points, geometry, size=63)


def test_where_auto_avsr_gives_up_follows_from_the_size_of_its_crop() -> None:
    assert auto_avsr_corner(128.0 + 37, 128.0, size=64) == (133, 96)
    with pytest.raises(AlignmentError, match="too far off its middle"):
        auto_avsr_corner(128.0 + 37.1, 128.0, size=64)
    assert avhubert_corner(500.0, -3.0, 64, (300, 200)) == (236, 0)
