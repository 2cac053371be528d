"""Reduced units: runs become one unit with its duration, and come back; frame-level phones become timed ones."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from avtlm.data.manifest import Utterance
from avtlm.units.reduced import expand_units, reduce_labels, reduce_units, timed_phones_of_frames
from avtlm.units.text_to_units import timed_phones


@given(st.lists(st.integers(0, 3), max_size=30))
def test_what_was_reduced_comes_back_and_has_no_neighbouring_equals(row: list[int]) -> None:
    units, durations = reduce_units(np.array(row, dtype=np.int32))
    assert expand_units(units, durations).tolist() == row
    assert not any(one == other for one, other in pairwise(units.tolist()))
    assert all(duration > 0 for duration in durations.tolist())


def test_labels_are_reduced_utterance_by_utterance() -> None:
    (name, units, durations), *_ = reduce_labels({"a": np.array([5, 5, 2, 2, 2, 5], np.int32)})
    assert (name, units.tolist(), durations.tolist()) == ("a", [5, 2, 5], [2, 3, 1])


@pytest.mark.parametrize("durations", [[1], [1, -1]])
def test_durations_that_do_not_fit_are_refused(durations: list[int]) -> None:
    with pytest.raises(ValueError, match=r"2 units and . durations: give every unit one of 0 or more frames"):
        expand_units(np.array([1, 2]), np.array(durations))


def test_phones_of_frames_become_timed_phones_of_a_manifest() -> None:
    phones = timed_phones_of_frames(np.array([0, 0, 2, 2, 2, 1]), ["sil", "a:", "b"], 50.0)
    assert timed_phones(Utterance("u", phones=phones)) == [("sil", 0.0, 0.04), ("b", 0.04, 0.1), ("a:", 0.1, 0.12)]
    with pytest.raises(ValueError, match="phone 3 of a frame is none of the 2 symbols"):
        timed_phones_of_frames(np.array([0, 3]), ["a", "b"], 50.0)
