"""From figures of several seeds to an interval, and from an interval to a word, by one rule for all claims.

Both sides of a comparison have one figure for every seed: the same seed is the same data, the same labels and the same order. Their
differences are taken seed by seed, and the 95 % interval of the mean difference is Student's, over seeds. It knows the chance of
initialisation, order and held-out speakers, which an interval over the utterances of one model does not; with three seeds it is wide.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from statistics import fmean, stdev
from typing import Literal

Word = Literal["agrees", "contrary", "no difference shown", "not decided"]
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Difference:
    """How much better one side is than the other, in the unit of the measure; above 0 is what is claimed.

    Attributes:
        mean: over seeds.
        interval: of the mean; None where there is one seed alone.
    """

    mean: float
    interval: tuple[float, float] | None

    @property
    def word(self) -> Word:
        """``agrees`` where the whole interval lies above 0, ``contrary`` where it lies below, ``not decided`` without an interval."""
        if self.interval is None:
            return "not decided"
        if self.interval[0] > 0:
            return "agrees"
        return "contrary" if self.interval[1] < 0 else "no difference shown"


def student_interval(seeds: Sequence[float]) -> tuple[float, float] | None:
    """The 95 % interval of the mean of some seeds by Student's t with one degree of freedom less than seeds; None for fewer than two."""
    if len(seeds) < 2:
        return None
    from scipy.stats import t

    half = float(t.ppf(0.5 + CONFIDENCE / 2, len(seeds) - 1)) * stdev(seeds) / math.sqrt(len(seeds))
    return fmean(seeds) - half, fmean(seeds) + half


def difference(better: Sequence[float], other: Sequence[float], higher: bool) -> Difference:
    """By how much ``better`` is better than ``other``, seed by seed.

    Args:
        better: figures of what is claimed to be better, one for every seed. other: those of what it is compared with.
        higher: whether high figures are good ones.

    Raises:
        ValueError: not as many seeds on both sides, or none.
    """
    if not better or len(better) != len(other):
        raise ValueError(f"A comparison needs as many seeds on both sides, and at least one, not {len(better)} and {len(other)}.")
    gains = [one - two if higher else two - one for one, two in zip(better, other, strict=True)]
    return Difference(fmean(gains), student_interval(gains))


def overall(words: Iterable[Word]) -> Word:
    """The word for a claim that several comparisons decide: contrary if any is, agrees if all do."""
    found = list(words)
    if "contrary" in found:
        return "contrary"
    if "not decided" in found or not found:
        return "not decided"
    return "agrees" if set(found) == {"agrees"} else "no difference shown"
