"""Intervals over seeds, and the words that follow from them by one rule."""

import math

import pytest

from benchmarks.evidence.outcome import Difference, difference, overall, student_interval


def test_the_interval_is_students() -> None:
    """By the table: t of two degrees of freedom is 4.303 at 97.5 %."""
    low, high = student_interval([1.0, 2.0, 3.0])  # type: ignore[misc]
    assert (low, high) == pytest.approx((2 - 4.302653 / math.sqrt(3), 2 + 4.302653 / math.sqrt(3)), abs=1e-5)
    assert student_interval([1.0]) is None
    assert student_interval([2.0, 2.0]) == (2.0, 2.0)


def test_differences_are_taken_seed_by_seed_in_the_direction_of_the_claim() -> None:
    """Both sides move together from seed to seed, by far more than they differ: the difference is certain all the same."""
    found = difference([10.0, 50.0, 90.0], [12.0, 52.5, 91.5], higher=False)
    assert found.mean == pytest.approx(2.0)
    assert found.interval == pytest.approx((2 - 4.302653 * 0.5 / math.sqrt(3), 2 + 4.302653 * 0.5 / math.sqrt(3)), abs=1e-5)
    assert found.word == "agrees"
    assert difference([10.0, 50.0, 90.0], [12.0, 52.5, 91.5], higher=True).word == "contrary"


@pytest.mark.parametrize(
    ("interval", "word"),
    [((0.1, 2.0), "agrees"), ((-2.0, -0.1), "contrary"), ((-0.1, 2.0), "no difference shown"), ((0.0, 2.0), "no difference shown")],
)
def test_the_word_follows_from_the_whole_interval(interval: tuple[float, float], word: str) -> None:
    assert Difference(1.0, interval).word == word


def test_one_seed_decides_nothing() -> None:
    assert difference([1.0], [9.0], higher=False) == Difference(8.0, None)
    assert difference([1.0], [9.0], higher=False).word == "not decided"


@pytest.mark.parametrize(("better", "other"), [([], []), ([1.0], [1.0, 2.0])])
def test_sides_with_other_seeds_are_not_compared(better: list[float], other: list[float]) -> None:
    with pytest.raises(ValueError, match="as many seeds on both sides"):
        difference(better, other, higher=False)


def test_several_comparisons_agree_together_and_one_is_enough_to_be_contrary() -> None:
    assert overall(["agrees", "agrees"]) == "agrees"
    assert overall(["agrees", "no difference shown"]) == "no difference shown"
    assert overall(["agrees", "contrary", "not decided"]) == "contrary"
    assert overall(["agrees", "not decided"]) == overall([]) == "not decided"
