"""Maximum term-weighted value (MTWV) of detected queries, as NIST and the query-by-example tasks of MediaEval define it.

At a threshold, a query's value is 1 - P_miss - beta x P_fa: the share of the documents with it that were missed, and of those without it
that were taken. The term-weighted value (TWV) is the mean over queries (each counts alike), MTWV its maximum over thresholds that all
queries share; one above all scores accepts nothing and gives 0. beta = C_fa / C_miss x (1 / P_target - 1); the costs of QUESST 2014 are
C_fa 1, C_miss 100, P_target 0.0008 (beta 12.49). A trial is a query and a document: there is no time in it, as in QUESST, so that P_fa is
a share of documents where NIST's spoken term detection counts seconds.

Sources: Fiscus et al. 2007 (Results of the 2006 spoken term detection evaluation); Anguera et al. 2014 (Query by Example Search on Speech,
MediaEval 2014).
"""

from dataclasses import dataclass

import numpy as np

FALSE_ALARM_COST, MISS_COST, TARGET_PROB = 1.0, 100.0, 0.0008


@dataclass(frozen=True)
class TermWeightedValue:
    """Attributes:
    most: MTWV.
    threshold: where it is reached: scores from there on are accepted; infinite where nothing is.
    actual: TWV of accepting scores above the threshold that was given.
    queries: that some document holds; others say nothing about misses and are left out.
    """

    most: float
    threshold: float
    actual: float
    queries: int


def term_weighted_value(
    scores: np.ndarray,
    relevant: np.ndarray,
    threshold: float = 2.0,
    target_prob: float = TARGET_PROB,
    miss_cost: float = MISS_COST,
    false_alarm_cost: float = FALSE_ALARM_COST,
) -> TermWeightedValue:
    """MTWV, and TWV at a threshold.

    Args:
        scores: (queries, documents), the higher the likelier a document holds a query.
        relevant: bool, the same shape.
        threshold: of the decisions; SUPERB's is 2 standard deviations.

    Raises:
        ValueError: shapes differ, no document holds any query, or a score is no number.
    """
    scores, relevant = np.asarray(scores, dtype=np.float64), np.asarray(relevant, dtype=bool)
    if scores.shape != relevant.shape or scores.ndim != 2:
        raise ValueError(f"scores of shape {scores.shape} for relevance of shape {relevant.shape}; give (queries, documents) of both.")
    if not np.isfinite(scores).all():
        raise ValueError("scores: one of them is not a finite number.")
    held = relevant.any(axis=1)
    if not held.any():
        raise ValueError("no document holds any of the queries, so there is nothing to detect.")
    scores, relevant = scores[held], relevant[held]
    beta = false_alarm_cost / miss_cost * (1.0 / target_prob - 1.0)
    found = relevant.sum(axis=1, keepdims=True)
    absent = relevant.shape[1] - found
    # What accepting a trial adds to the mean over queries; a query that is in all documents has no false alarms.
    gains = np.where(relevant, 1.0 / found, -beta / np.maximum(absent, 1)) / len(scores)
    order = np.argsort(-scores, axis=None, kind="stable")
    sorted_scores = scores.ravel()[order]
    values = np.cumsum(gains.ravel()[order])
    last = np.append(sorted_scores[1:] != sorted_scores[:-1], True)  # trials of one score are accepted together
    values, thresholds = values[last], sorted_scores[last]
    best = int(np.argmax(values))
    actual = float(gains[scores > threshold].sum())
    if values[best] <= 0:
        return TermWeightedValue(0.0, float("inf"), actual, len(scores))
    return TermWeightedValue(float(values[best]), float(thresholds[best]), actual, len(scores))
