"""Diarization error rate of frame-wise speaker activity: overlap is scored, there is no collar."""

from dataclasses import dataclass

import numpy as np

from avtlm.errors import needs


@dataclass(frozen=True)
class DiarizationError:
    """Frames in which speakers were missed, heard where there are none, or confused, of all frames of all reference speakers.

    Attributes:
        permutation: column of the hypothesis for each speaker of the reference; None for one without a counterpart.
    """

    missed: int
    false_alarm: int
    confusion: int
    total: int
    permutation: tuple[int | None, ...]

    @property
    def rate(self) -> float:
        """DER, a fraction; against a reference in which nobody speaks, the count of false alarms stands for it."""
        return (self.missed + self.false_alarm + self.confusion) / max(self.total, 1)


def diarization_error(reference: np.ndarray, hypothesis: np.ndarray) -> DiarizationError:
    """Compare who speaks when, under the assignment of speakers with the fewest errors.

    Args:
        reference: 0 or 1, (frames, speakers).
        hypothesis: 0 or 1, (frames, speakers); the number of speakers may differ.

    Raises:
        ValueError: shapes do not fit, or an activity is neither 0 nor 1.
    """
    with needs("train", "scipy", "diarization error rates"):
        from scipy.optimize import linear_sum_assignment

    reference, hypothesis = np.asarray(reference), np.asarray(hypothesis)
    if reference.ndim != 2 or hypothesis.ndim != 2 or len(reference) != len(hypothesis):
        raise ValueError(f"activities of shapes {reference.shape} and {hypothesis.shape}; give (frames, speakers) of as many frames.")
    if not (np.isin(reference, (0, 1)).all() and np.isin(hypothesis, (0, 1)).all()):
        raise ValueError("activities have to be 0 or 1.")
    reference, hypothesis = reference.astype(np.int64), hypothesis.astype(np.int64)
    speaking, heard = reference.sum(axis=1), hypothesis.sum(axis=1)
    together = reference.T @ hypothesis  # frames shared by each pair of speakers; misses and false alarms do not depend on the assignment
    rows, columns = linear_sum_assignment(together, maximize=True)
    matched = int(together[rows, columns].sum())
    assigned = dict(zip(rows.tolist(), columns.tolist()))
    return DiarizationError(
        missed=int(np.maximum(speaking - heard, 0).sum()),
        false_alarm=int(np.maximum(heard - speaking, 0).sum()),
        confusion=int(np.minimum(speaking, heard).sum()) - matched,
        total=int(speaking.sum()),
        permutation=tuple(assigned.get(speaker) for speaker in range(reference.shape[1])),
    )
