"""Curves: every spike stays, gaps stay gaps, and axes have round numbers that lie on them."""

import math
import random
import re

import pytest

from avtlm.evaluation.report.chart import MOST, Series, line_chart, round_numbers, thinned
from tests.evaluation.report.read_page import Page


def test_long_curves_are_thinned_without_losing_a_spike() -> None:
    draw = random.Random(0)
    points = [(float(x), draw.random()) for x in range(10_000)]
    points[4321], points[77] = (4321.0, 50.0), (77.0, -50.0)
    kept = thinned(points)
    assert len(kept) <= MOST + 2
    assert kept == sorted(kept)
    assert {points[0], points[-1], points[4321], points[77]} <= set(kept)
    assert thinned(points[:MOST]) == points[:MOST]


@pytest.mark.parametrize(("low", "high"), [(0, 1), (-3.2, 17.9), (1e-7, 3e-7), (250, 251), (5, 5), (-1e9, 1e9)])
def test_axes_have_a_few_round_numbers_within_their_ends(low: float, high: float) -> None:
    marks = round_numbers(low, high)
    assert 1 <= len(marks) <= 6
    slack = 1e-9 * max(abs(low), abs(high))
    assert all(low - slack <= value <= high + slack for value, _ in marks)
    assert all(float(name) == pytest.approx(value) for value, name in marks)
    assert len({name for _, name in marks}) == len(marks)


def coordinates(chart: str) -> list[list[tuple[float, float]]]:
    """The curves as they are drawn."""
    lines = re.findall(r'<polyline points="([^"]*)"', chart)
    return [[(float(x), float(y)) for x, y in (point.split(",") for point in line.split())] for line in lines]


def test_higher_values_are_drawn_higher_and_later_ones_further_right() -> None:
    [line] = coordinates(line_chart([Series("loss", [(0, 4.0), (10, 1.0), (20, 2.0)])], "loss", "step"))
    assert [x for x, _ in line] == sorted(x for x, _ in line)
    assert line[0][1] < line[2][1] < line[1][1]  # SVG counts from the top


def test_what_is_not_finite_leaves_a_gap_and_is_counted() -> None:
    points = [(0, 1.0), (1, 2.0), (2, math.nan), (3, 1.0), (4, 2.0), (5, math.inf)]
    chart = line_chart([Series("loss", points)], "loss", "step")
    assert [len(line) for line in coordinates(chart)] == [2, 2]
    assert "2 values are not finite and leave gaps." in Page(chart).text
    assert "no finite value" in Page(line_chart([Series("loss", [(0, math.nan)])], "loss", "step")).text


def test_a_chart_is_told_in_words_and_names_are_escaped() -> None:
    evil = '"><script>x</script>'
    page = Page(line_chart([Series(evil, [(0, 4.0), (1, 1.0)], look=0), Series("b", [(0, 2.0)], look=1)], evil, evil, evil))
    [drawing, *_] = page.all("svg")
    assert drawing["aria-label"].startswith(f"{evil}. {evil}: from 4 to 1, lowest 1, highest 4; b: from 2 to 2")
    assert page.all("script") == []
    assert len(page.all("circle")) == 1  # a single point is a dot


def test_bands_are_drawn_around_their_curve() -> None:
    chart = line_chart([Series("wer", [(0, 4.0), (1, 3.0)], [(0, 3.0, 5.0), (1, 2.0, 4.0)])], "wer", "dB", from_zero=True)
    [[(_, first), (_, last)]] = coordinates(chart)
    edges = [float(point.split(",")[1]) for point in re.findall(r'<polygon points="([^"]*)"', chart)[0].split()]
    assert edges[0] < first < edges[3]
    assert edges[1] < last < edges[2]
