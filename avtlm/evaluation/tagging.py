"""Audio tagging: how well the scores of each class rank the clips that hold it (AudioSet's mAP and d')."""

import math
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np

from avtlm.errors import needs


@dataclass(frozen=True)
class Tagging:
    """Ranking quality by class; nan for classes without both kinds of clips.

    Attributes:
        average_precision: area under the steps of precision over recall, by class, nan where no clip holds the class.
        auc: area under the ROC curve, by class, nan where all clips or none hold the class.
    """

    average_precision: np.ndarray
    auc: np.ndarray

    @property
    def mean_average_precision(self) -> float:
        """Over the classes that some clip holds."""
        return _mean(self.average_precision)

    @property
    def mean_average_precision_of_all(self) -> float:
        """Over all classes, those that no clip holds counted as 0: scikit-learn's macro average, as icefall reports it."""
        return float(np.nan_to_num(self.average_precision).mean())

    @property
    def d_prime(self) -> float:
        """The distance of two normal distributions of unit variance whose overlap gives the mean AUC."""
        mean = _mean(self.auc)
        return math.copysign(math.inf, mean - 0.5) if mean in (0.0, 1.0) else math.sqrt(2) * NormalDist().inv_cdf(mean)


def tagging(labels: np.ndarray, scores: np.ndarray) -> Tagging:
    """Rank clips by class.

    Args:
        labels: 0 or 1, (clips, classes).
        scores: higher where the class seems to be there, (clips, classes).

    Raises:
        ValueError: shapes differ, there is no clip, labels are not 0 or 1, or scores are not finite.
    """
    with needs("train", "scikit-learn", "measuring tags"):
        from sklearn.metrics import average_precision_score, roc_auc_score

    labels, scores = np.asarray(labels), np.asarray(scores, np.float64)
    if labels.shape != scores.shape or labels.ndim != 2 or not labels.size:
        raise ValueError(f"labels of shape {labels.shape} for scores of shape {scores.shape}; give (clips, classes) for both.")
    if not np.isin(labels, (0, 1)).all() or not np.isfinite(scores).all():
        raise ValueError("labels have to be 0 or 1, and scores finite numbers.")
    held = labels.sum(axis=0)
    precision, auc = np.full(len(held), np.nan), np.full(len(held), np.nan)
    for index, count in enumerate(held):
        if count:
            precision[index] = average_precision_score(labels[:, index], scores[:, index])
        if 0 < count < len(labels):
            auc[index] = roc_auc_score(labels[:, index], scores[:, index])
    return Tagging(precision, auc)


def _mean(values: np.ndarray) -> float:
    values = values[~np.isnan(values)]
    return float(values.mean()) if len(values) else math.nan
