"""MTWV on cases that one can count by hand."""

import numpy as np
import pytest

from avtlm.evaluation.superb.term_value import term_weighted_value

COSTS = {"target_prob": 0.5, "miss_cost": 1.0, "false_alarm_cost": 1.0}  # beta = 1


def test_a_perfect_detector_is_worth_1() -> None:
    found = term_weighted_value(np.array([[3.0, 0.0], [0.0, 3.0]]), np.eye(2, dtype=bool))
    assert found.most == 1.0
    assert found.threshold == 3.0
    assert found.actual == 1.0
    assert found.queries == 2


def test_a_case_counted_by_hand() -> None:
    # Query 1: documents 1 and 2 hold it, 3 does not; query 2: document 1 holds it. With beta 1:
    # at 0.9: query 1 misses one of two -> 0.5, query 2 has a false alarm of two and misses -> 1 - 1 - 0.5 = -0.5; mean 0.
    # at 0.8: query 1 finds both -> 1; mean 0.25. At 0.7: query 2 finds its own -> 0.5; mean 0.75. Below: false alarms only.
    scores = np.array([[0.9, 0.8, 0.1], [0.7, 0.9, 0.2]])
    relevant = np.array([[True, True, False], [True, False, False]])
    found = term_weighted_value(scores, relevant, threshold=0.75, **COSTS)
    assert found.most == pytest.approx(0.75)
    assert found.threshold == 0.7
    assert found.actual == pytest.approx(0.25)


def test_equal_scores_are_accepted_together() -> None:
    found = term_weighted_value(np.array([[1.0, 1.0]]), np.array([[True, False]]), **COSTS)
    assert found.most == 0.0
    assert found.threshold == float("inf")


def test_a_false_alarm_costs_12_49_at_the_costs_of_quesst() -> None:
    scores = np.array([[2.0, *[3.0], *[0.0] * 98]])
    found = term_weighted_value(scores, np.array([[True, *[False] * 99]]), threshold=1.0)
    assert found.actual == pytest.approx(1 - 12.49 / 99)
    assert found.most == pytest.approx(1 - 12.49 / 99)


def test_queries_that_nothing_holds_are_left_out() -> None:
    found = term_weighted_value(np.array([[1.0, 0.0], [5.0, 5.0]]), np.array([[True, False], [False, False]]))
    assert found.queries == 1
    assert found.most == 1.0


def test_what_cannot_be_scored_is_said_in_a_sentence() -> None:
    with pytest.raises(ValueError, match="no document holds"):
        term_weighted_value(np.zeros((1, 2)), np.zeros((1, 2), dtype=bool))
    with pytest.raises(ValueError, match="of both"):
        term_weighted_value(np.zeros((1, 2)), np.zeros((2, 2), dtype=bool))
    with pytest.raises(ValueError, match="finite"):
        term_weighted_value(np.array([[np.nan]]), np.ones((1, 1), dtype=bool))
