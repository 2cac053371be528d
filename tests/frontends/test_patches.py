"""Squares of pictures, their order, and the sinusoids of their places, written out here as MAE's code does."""

import math

import pytest
import torch

from avtlm.frontends.patches import grid_positions, patchify


def test_squares_come_row_by_row_with_channels_last() -> None:
    pictures = torch.arange(2 * 3 * 4 * 6.0).view(2, 3, 4, 6)
    squares = patchify(pictures, 2)
    assert squares.shape == (2, 6, 12)
    assert torch.equal(squares, torch.einsum("nchpwq->nhwpqc", pictures.reshape(2, 3, 2, 2, 3, 2)).reshape(2, 6, 12))
    assert squares[1, 4].tolist() == [float(pictures[1, c, 2 + p, 2 + q]) for p in range(2) for q in range(2) for c in range(3)]


def test_squares_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="pictures of 5 x 6 are not made of squares of 2"):
        patchify(torch.zeros(1, 1, 5, 6), 2)


def test_places_are_sinusoids_of_the_column_and_then_of_the_row() -> None:
    found = grid_positions(8, 2, 3)
    assert found.shape == (6, 8)
    for place in range(6):
        row, column = divmod(place, 3)
        expected = [f(position / 10000 ** (i / 2)) for position in (column, row) for f in (math.sin, math.cos) for i in range(2)]
        assert found[place].tolist() == pytest.approx(expected, abs=1e-6)


def test_a_width_without_quarters_is_refused() -> None:
    with pytest.raises(ValueError, match="choose a multiple of 4"):
        grid_positions(6, 2, 2)
