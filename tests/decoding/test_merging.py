"""Words of overlapping windows become one sequence in which none is doubled and none lost."""

from collections.abc import Sequence

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from avtlm.decoding.merging import merge_windows, shifted, timed
from avtlm.decoding.result import Word


def said(text: str, start: float = 0.0, each: float = 0.5) -> list[Word]:
    """Words of half a second each."""
    return [Word(word, start + each * i, start + each * (i + 0.9)) for i, word in enumerate(text.split())]


def untimed(words: Sequence[Word]) -> list[Word]:
    return [Word(word.text) for word in words]


def merged(left: list[Word], right: list[Word], left_span: tuple[float, float], right_span: tuple[float, float]) -> str:
    ours, theirs = merge_windows(left, right, left_span, right_span)
    return " ".join(word.text for word in (*ours, *theirs))


@pytest.mark.parametrize("times", [True, False])
def test_common_words_are_told_once(times: bool) -> None:
    left, right = said("one two three four five six"), said("four five six seven eight", 1.5)
    if not times:
        left, right = untimed(left), untimed(right)
    assert merged(left, right, (0.0, 3.0), (1.5, 4.0)) == "one two three four five six seven eight"


@pytest.mark.parametrize("times", [True, False])
def test_words_that_the_edges_spoilt_give_way(times: bool) -> None:
    left, right = said("one two three four five sick"), said("or five six seven eight", 1.5)
    if not times:
        left, right = untimed(left), untimed(right)
    assert merged(left, right, (0.0, 3.0), (1.5, 4.0)) == "one two three four five six seven eight"


def test_repeated_words_stay_repeated() -> None:
    words = said("no no no no no no no no")
    assert merged(words[:6], words[3:], (0.0, 3.0), (1.5, 4.0)) == "no no no no no no no no"


def test_repeated_words_without_times_are_paired_with_the_nearest() -> None:
    """Shared out by letters, every word has others of its kind within reach; a longer sequence of them would drop words."""
    words = untimed(said("no " * 24))
    assert merged(words[:14], words[10:], (0.0, 7.0), (5.0, 12.0)) == " ".join(["no"] * 24)


def test_nothing_in_common_leaves_it_to_the_times() -> None:
    left, right = said("one two three four five six"), said("for fife sics seven eight", 1.5)
    assert merged(left, right, (0.0, 3.0), (1.5, 4.0)) == "one two three four five sics seven eight"


def test_a_word_at_the_seam_with_other_times_in_both_is_not_doubled() -> None:
    left = [Word("a", 0.0, 0.5), Word("seam", 1.4, 1.9)]
    right = [Word("seam", 1.6, 2.2), Word("b", 2.3, 2.6)]
    assert merged(left, right, (0.0, 2.5), (1.0, 3.0)) == "a seam b"


@pytest.mark.parametrize(("left", "right"), [("", ""), ("one two", ""), ("", "one two")])
def test_empty_windows_are_no_matter(left: str, right: str) -> None:
    assert merged(said(left), said(right, 0.5), (0.0, 1.0), (0.5, 1.5)) == (left or ("two" if right else ""))


@example(list("aaaa"), 2, 1, -0.1)  # as far from the word before as times may not differ
@given(st.lists(st.sampled_from("abc"), min_size=4, max_size=30), st.integers(1, 29), st.integers(1, 6), st.floats(-0.1, 0.1))
def test_two_views_of_the_same_words_give_these_words(text: list[str], cut: int, shared: int, drift: float) -> None:
    """With times that differ between the windows by less than a word lasts, whatever the words are."""
    cut = min(cut, len(text))
    begin = max(0, cut - shared)
    words = said(" ".join(text))
    left, right = words[:cut], [Word(w.text, (w.start or 0) + drift, (w.end or 0) + drift) for w in words[begin:]]
    assert merged(left, right, (0.0, 0.5 * cut), (0.5 * begin, 0.5 * len(text))) == " ".join(text)


def test_words_without_times_share_the_time_by_letters() -> None:
    assert timed([Word("abc"), Word("abcdefg"), Word("x", 5.0, 6.0)], 10.0, 17.0) == [(10.0, 12.0), (12.0, 16.0), (5.0, 6.0)]


def test_words_are_put_on_the_clock_of_the_recording() -> None:
    assert shifted([Word("a", 0.5, 1.0, 0.9), Word("b")], 10.0) == (Word("a", 10.5, 11.0, 0.9), Word("b"))
