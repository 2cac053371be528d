"""Values that change as training goes on, and decisions that are drawn once for a whole batch.

What is unusual here:
- The time is not the number of updates but a count of batches, that of the published recipe: 600 seconds of sound are one batch, however
  they are cut (`seconds * processes / 600` for an update). Whoever trains sets it before every update, see Zipformer.batch_count.
- Outside of training a value is what it rests at, whatever the count says, and nothing is drawn.
- Decisions come from the global generator of the CPU, which the training loop seeds for every round: a resumed run draws the same ones.

Paper: Yao et al. 2023, "Zipformer" (arXiv 2310.11230), section 4 and appendix A, in the form of the released recipes.
"""

from dataclasses import dataclass
from itertools import pairwise

import torch

SECONDS = 600.0  # of sound in one batch of the published schedules


@dataclass
class BatchCount:
    """The count that all schedules of one model read."""

    value: float = 0.0


@dataclass(frozen=True)
class Schedule:
    """A value that is linear between points.

    Attributes:
        points: (batches, value), in the order of the batches; before the first and behind the last point the value stays.
        rest: outside of training.
    """

    points: tuple[tuple[float, float], ...]
    rest: float = 0.0

    def __post_init__(self) -> None:
        if not self.points or any(second[0] <= first[0] for first, second in pairwise(self.points)):
            raise ValueError(f"points: {self.points} of a schedule; give at least one, each at a later batch than the one before.")

    def __call__(self, batches: float | None) -> float:
        """The value at a count of batches; None is outside of training."""
        if batches is None:
            return self.rest
        if batches <= self.points[0][0]:
            return self.points[0][1]
        for (start, first), (end, last) in pairwise(self.points):
            if batches <= end:
                return first + (last - first) * (batches - start) / (end - start)
        return self.points[-1][1]

    @classmethod
    def line(cls, first: float, last: float, batches: float, rest: float = 0.0) -> "Schedule":
        """From the first value to the last one, reached after so many batches."""
        return cls(((0.0, first), (batches, last)), rest)

    @classmethod
    def constant(cls, value: float, rest: float = 0.0) -> "Schedule":
        return cls(((0.0, value),), rest)


def happens(probability: float) -> bool:
    """Whether something of this probability happens now."""
    return probability > 0.0 and torch.rand(()).item() < probability


def kept_rows(batch: int, dropped: float, like: torch.Tensor) -> torch.Tensor:
    """1 for rows that stay and 0 for those that are dropped, (batch, 1, 1), on the device and in the precision of a tensor."""
    return (torch.rand(batch, 1, 1, device=like.device) >= dropped).to(like.dtype)
