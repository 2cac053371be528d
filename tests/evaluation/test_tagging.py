import math

import numpy as np
import pytest

from avtlm.evaluation.tagging import tagging


def test_precision_is_summed_over_the_steps_of_recall() -> None:
    found = tagging(np.array([[1], [0], [1], [0]]), np.array([[4.0], [3.0], [2.0], [1.0]]))
    assert found.mean_average_precision == pytest.approx(0.5 * 1 + 0.5 * 2 / 3)
    assert found.auc[0] == pytest.approx(0.75)
    assert found.d_prime == pytest.approx(math.sqrt(2) * 0.6744897501960817)


def test_a_class_that_no_clip_holds_is_left_out_or_counted_as_zero() -> None:
    found = tagging(np.array([[1, 0], [0, 0]]), np.array([[1.0, 0.3], [0.0, 0.2]]))
    assert np.isnan(found.average_precision[1])
    assert np.isnan(found.auc[1])
    assert found.mean_average_precision == 1.0
    assert found.mean_average_precision_of_all == 0.5
    assert found.d_prime == math.inf


@pytest.mark.parametrize(
    ("labels", "scores", "message"),
    [
        (np.zeros((2, 3)), np.zeros((2, 2)), r"\(2, 3\).*\(2, 2\)"),
        (np.zeros((0, 3)), np.zeros((0, 3)), r"\(0, 3\)"),
        (np.full((2, 2), 2), np.zeros((2, 2)), "0 or 1"),
        (np.zeros((2, 2)), np.full((2, 2), np.nan), "finite"),
    ],
)
def test_what_cannot_be_ranked_is_refused(labels: np.ndarray, scores: np.ndarray, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tagging(labels, scores)
