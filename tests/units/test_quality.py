"""Cluster quality against values computed by hand, and properties that hold for every labelling."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from avtlm.data.manifest import Utterance
from avtlm.units.quality import entropy, phone_quality, phones_of_frames, purity_and_information, usage
from avtlm.units.text_to_units import frame_phones


def test_purities_and_information_are_those_computed_by_hand() -> None:
    # Two phones, two units, one frame in four goes astray: H(y) = H(z) = ln 2, H(y, z) = 3/4 ln(8/3) + 1/4 ln 8.
    mutual = 2 * math.log(2) - (0.75 * math.log(8 / 3) + 0.25 * math.log(8))
    assert purity_and_information(np.array([[3, 1], [1, 3]])) == pytest.approx((0.75, 0.75, mutual / math.log(2)))
    assert purity_and_information(np.array([[3, 1], [1, 3]]))[2] == pytest.approx(0.188722, abs=1e-6)
    # A phone over two units: the unit tells the phone exactly, the phone does not tell the unit.
    assert purity_and_information(np.array([[2, 2, 0], [0, 0, 4]])) == pytest.approx((1.0, 0.75, 1.0))
    # Two phones in one unit of their own, a third phone apart: I = H(z) = ln 2, H(y) = 1.5 ln 2.
    assert purity_and_information(np.array([[1, 0], [1, 0], [0, 2]])) == pytest.approx((0.75, 1.0, 2 / 3))
    # Units that know nothing.
    assert purity_and_information(np.array([[1, 1], [3, 3]])) == pytest.approx((0.75, 0.5, 0.0))


def test_one_phone_leaves_nothing_to_know_and_no_frames_are_refused() -> None:
    assert purity_and_information(np.array([[2, 6]])) == pytest.approx((1.0, 0.75, 0.0))
    with pytest.raises(ValueError, match="no frame has both a phone and a unit"):
        purity_and_information(np.zeros((2, 3), int))


def test_usage_counts_units_and_how_evenly_they_are_used() -> None:
    assert usage(np.array([5, 0, 5, 5, 5])) == (4, pytest.approx(4.0))
    assert usage(np.array([3, 1])) == (2, pytest.approx(math.exp(0.75 * math.log(4 / 3) + 0.25 * math.log(4))))
    assert entropy(np.array([7, 0])) == 0.0


joints = arrays(np.int64, st.tuples(st.integers(1, 5), st.integers(1, 6)), elements=st.integers(0, 20)).filter(lambda a: bool(a.sum()))


@given(joints)
@settings(max_examples=60, deadline=None)
def test_measures_lie_between_0_and_1_and_swap_with_the_roles(joint: np.ndarray) -> None:
    phone, cluster, information = purity_and_information(joint)
    assert 0 < phone <= 1
    assert 0 < cluster <= 1
    assert 0 <= information <= 1 + 1e-9
    assert purity_and_information(joint.T)[:2] == (cluster, phone)


@given(joints, st.integers(0, 1000))
@settings(max_examples=60, deadline=None)
def test_splitting_a_unit_never_loses_knowledge_of_the_phones(joint: np.ndarray, seed: int) -> None:
    part = np.random.default_rng(seed).integers(0, joint[:, 0] + 1)
    split = np.column_stack([joint[:, 0] - part, part, joint[:, 1:]])
    before, after = purity_and_information(joint), purity_and_information(split)
    assert after[0] >= before[0] - 1e-12
    assert after[1] <= before[1] + 1e-12
    assert after[2] >= before[2] - 1e-9


def test_frames_know_the_phone_in_their_middle_at_any_rate() -> None:
    row = Utterance("u", phones="a:0.00:0.12 b:0.16:0.28")
    assert phones_of_frames(row, 8, 25) == ["a", "a", "a", "", "b", "b", "b", ""]
    assert phones_of_frames(row, 5, 12.5) == ["a", "", "b", "", ""]  # a phone's end is outside of it: middles 0.04, 0.12, 0.20, 0.28, 0.36
    assert phones_of_frames(row, 13, 50)[5:9] == ["a", "", "", "b"]
    assert phones_of_frames(row, 0, 25) == []


@given(st.lists(st.tuples(st.integers(0, 12), st.integers(1, 30)), min_size=1, max_size=8))
@settings(max_examples=60, deadline=None)
def test_phones_of_frames_are_those_that_label_text(spans: list[tuple[int, int]]) -> None:
    entries, at = [], 0
    for index, (gap, length) in enumerate(spans):  # in hundredths of a second
        entries.append(f"p{index % 3}:{(at + gap) / 100}:{(at + gap + length) / 100}")
        at += gap + length
    row = Utterance("u", phones=" ".join(entries))
    expected = [symbol for symbol, _ in frame_phones(row)]
    assert phones_of_frames(row, len(expected), 25) == expected


def test_labels_are_compared_with_the_phones_of_a_manifest() -> None:
    rows = [
        Utterance("one", phones="a:0.0:0.12 b:0.16:0.24"),  # a a a - b b
        Utterance("two", phones="b:0.0:0.08"),  # b b
        Utterance("untimed", phones="a b"),
        Utterance("silent"),
        Utterance("unlabelled", phones="a:0:1"),
    ]
    labels = {"one": np.array([0, 0, 1, 3, 1, 1]), "two": np.array([1, 2, 2, 2]), "untimed": np.array([0]), "silent": np.array([0])}
    found = phone_quality(rows, labels, 4, 25)
    assert found is not None
    assert (found.frames, found.utterances, found.phones) == (7, 2, 2)
    # Counts: a [2, 1, 0, 0], b [0, 3, 1, 0]; the frame between the phones and those after the last are left out.
    assert (found.phone_purity, found.cluster_purity) == (pytest.approx(6 / 7), pytest.approx(5 / 7))
    h = [sum(-n / 7 * math.log(n / 7) for n in counts) for counts in ([3, 4], [2, 4, 1], [2, 1, 3, 1])]
    assert found.pnmi == pytest.approx((h[0] + h[1] - h[2]) / h[0])
    assert "phone purity 0.857, cluster purity 0.714" in str(found)


def test_without_timed_phones_there_is_nothing_to_compare() -> None:
    assert phone_quality([Utterance("u", phones="a b"), Utterance("v")], {"u": np.array([0]), "v": np.array([1])}, 2, 25) is None
