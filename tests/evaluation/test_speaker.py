import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from avtlm.evaluation.speaker import equal_error_rate, min_detection_cost

TRIALS = st.lists(st.tuples(st.integers(0, 1), st.integers(-5, 5)), min_size=2, max_size=30).filter(
    lambda trials: {label for label, _ in trials} == {0, 1}
)


def test_scores_that_part_the_speakers_make_no_error_and_cost_nothing() -> None:
    labels, scores = [1, 1, 0, 0, 0], [0.9, 0.6, 0.5, 0.2, -1.0]
    assert equal_error_rate(labels, scores).rate == pytest.approx(0.0, abs=1e-9)
    assert min_detection_cost(labels, scores) == 0.0


def test_one_stranger_above_one_speaker() -> None:
    # Two speakers and two strangers, one of each on the wrong side: half are refused where half are accepted.
    assert equal_error_rate([1, 0, 1, 0], [4.0, 3.0, 2.0, 1.0]).rate == pytest.approx(0.5)
    # At 5 % speakers the cheapest threshold accepts the first speaker alone: half of them are missed.
    assert min_detection_cost([1, 0, 1, 0], [4.0, 3.0, 2.0, 1.0], 0.05) == pytest.approx(0.5)


@given(TRIALS)
def test_costs_and_rates_are_shares_and_depend_on_the_order_of_scores_only(trials: list[tuple[int, int]]) -> None:
    labels, scores = (np.array(values) for values in zip(*trials))
    cost = min_detection_cost(labels, scores, 0.05)
    rate = equal_error_rate(labels, scores).rate
    assert 0 <= cost <= 1
    assert -1e-9 <= rate <= 1 + 1e-9
    assert min_detection_cost(labels, np.exp(scores), 0.05) == cost
    assert equal_error_rate(labels, np.exp(scores)).rate == pytest.approx(rate)


@pytest.mark.parametrize(
    ("labels", "scores", "message"),
    [
        ([1, 1], [0.1, 0.2], "both needed"),
        ([1, 0], [0.1], "2 labels for 1 scores"),
        ([1, 0], [0.1, float("nan")], "not a finite number"),
    ],
)
def test_trials_that_say_nothing_are_refused(labels: list[int], scores: list[float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        equal_error_rate(labels, scores)
    with pytest.raises(ValueError, match=message):
        min_detection_cost(labels, scores)


def test_a_prior_that_is_no_probability_is_refused() -> None:
    with pytest.raises(ValueError, match="target_prob: 1"):
        min_detection_cost([1, 0], [1.0, 0.0], 1.0)
