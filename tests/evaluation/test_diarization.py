from itertools import permutations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from avtlm.evaluation.diarization import diarization_error


@given(
    st.tuples(st.integers(1, 12), st.integers(1, 3), st.integers(1, 3)).flatmap(
        lambda sizes: st.tuples(
            arrays(np.int64, (sizes[0], sizes[1]), elements=st.integers(0, 1)),
            arrays(np.int64, (sizes[0], sizes[2]), elements=st.integers(0, 1)),
        )
    )
)
def test_the_assignment_is_the_best_of_all(activities: tuple[np.ndarray, np.ndarray]) -> None:
    reference, hypothesis = activities
    width = max(reference.shape[1], hypothesis.shape[1])
    padded = [np.pad(part, ((0, 0), (0, width - part.shape[1]))) for part in activities]
    speaking, heard = reference.sum(1), hypothesis.sum(1)
    fewest = min(
        int((np.minimum(speaking, heard) - (padded[0] & padded[1][:, list(order)]).sum(1)).sum()) for order in permutations(range(width))
    )
    found = diarization_error(reference, hypothesis)
    assert found.confusion == fewest
    assert found.missed == np.maximum(speaking - heard, 0).sum()
    assert found.rate == (found.missed + found.false_alarm + found.confusion) / max(found.total, 1)


def test_speakers_may_be_numbered_otherwise() -> None:
    reference = np.array([[1, 0], [1, 1], [0, 1]])
    found = diarization_error(reference, reference[:, ::-1])
    assert found.rate == 0
    assert found.permutation == (1, 0)
    assert diarization_error(reference, reference[:, :1]).permutation == (0, None)


@pytest.mark.parametrize("other", [np.zeros((4, 2)), np.full((3, 2), 0.5), np.zeros(3)])
def test_activities_that_do_not_fit_are_refused(other: np.ndarray) -> None:
    with pytest.raises(ValueError, match="activities"):
        diarization_error(np.zeros((3, 2)), other)
