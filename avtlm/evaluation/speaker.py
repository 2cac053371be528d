"""Speaker verification: equal error rate and detection cost of scored trials (NIST SRE 2016 evaluation plan, section 3).

A trial is a pair of recordings; its score is higher the more alike the speakers seem, its label is 1 for the same speaker and 0 for two.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from avtlm.errors import needs


@dataclass(frozen=True)
class EqualErrorRate:
    """Where as many strangers are accepted as speakers are refused: the rate, a fraction, and the score that decides there."""

    rate: float
    threshold: float


def equal_error_rate(labels: Sequence[int] | np.ndarray, scores: Sequence[float] | np.ndarray) -> EqualErrorRate:
    """The crossing of false acceptances and false refusals, linear between the thresholds.

    Raises:
        ValueError: labels are not of both kinds, or not as many as scores.
    """
    with needs("train", "scipy", "equal error rates"):
        from scipy.interpolate import interp1d
        from scipy.optimize import brentq

    false_alarms, hits, thresholds = _curve(labels, scores)
    hits_at = interp1d(false_alarms, hits)
    rate = brentq(lambda share: 1 - share - hits_at(share), 0.0, 1.0)
    with np.errstate(invalid="ignore"):  # the first threshold is infinite: nothing is accepted
        return EqualErrorRate(float(rate), float(interp1d(false_alarms, thresholds)(rate)))


def nearest_error_rate(labels: Sequence[int] | np.ndarray, scores: Sequence[float] | np.ndarray) -> EqualErrorRate:
    """The mean of both rates at the threshold where they differ least (the first such), as MT2KD's code reports it.

    Raises:
        ValueError: labels are not of both kinds, or not as many as scores.
    """
    false_alarms, hits, thresholds = _curve(labels, scores)
    misses = 1 - hits
    place = int(np.argmin(np.abs(misses - false_alarms)))
    return EqualErrorRate(float((misses[place] + false_alarms[place]) / 2), float(thresholds[place]))


def min_detection_cost(
    labels: Sequence[int] | np.ndarray,
    scores: Sequence[float] | np.ndarray,
    target_prob: float = 0.01,
    miss_cost: float = 1.0,
    false_alarm_cost: float = 1.0,
) -> float:
    """The least detection cost over all thresholds (minDCF), as a share of what the better of accepting and refusing everything costs.

    Args:
        target_prob: assumed share of trials with one speaker; 0.01 and 0.05 are usual.

    Raises:
        ValueError: labels are not of both kinds, or not as many as scores; ``target_prob`` is not between 0 and 1.
    """
    if not 0 < target_prob < 1:
        raise ValueError(f"target_prob: {target_prob}; give a probability between 0 and 1.")
    false_alarms, hits, _ = _curve(labels, scores)
    costs = miss_cost * (1 - hits) * target_prob + false_alarm_cost * false_alarms * (1 - target_prob)
    return float(costs.min() / min(miss_cost * target_prob, false_alarm_cost * (1 - target_prob)))


def _curve(labels: Sequence[int] | np.ndarray, scores: Sequence[float] | np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Shares of accepted strangers and of accepted speakers at falling thresholds, from accepting none."""
    with needs("train", "scikit-learn", "equal error rates"):
        from sklearn.metrics import roc_curve

    labels, scores = np.asarray(labels), np.asarray(scores, np.float64)
    if labels.shape != scores.shape or labels.ndim != 1:
        raise ValueError(f"{labels.size} labels for {scores.size} scores; give one label for each score.")
    if set(np.unique(labels).tolist()) != {0, 1}:
        raise ValueError("labels: trials of the same speaker (1) and of two speakers (0) are both needed.")
    if not np.isfinite(scores).all():
        raise ValueError("scores: one of them is not a finite number.")
    false_alarms, hits, thresholds = roc_curve(labels, scores)
    return false_alarms, hits, thresholds
