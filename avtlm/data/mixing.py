"""Which sources give a batch to which step: weights, exact shares, temperature, or the sampling of SpeechLM and VATLM.

Everything follows from the seed and the number of the step, so a resumed run needs no state of its own for it. Shares are shares of the
batches; as batches of every source are filled up to the same number of frames, that is nearly a share of the frames.
"""

import functools
import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Literal, Protocol

import torch

from avtlm.data.seeds import seed_for


@dataclass(frozen=True)
class MixingConfig:
    """How several sources share the steps of a run.

    Attributes:
        kind: ``weights``: a step takes one batch of each source, or of those that are drawn by ``Source.weight``. ``shares``: the batches
            are divided in given proportions, exactly: after n batches a source has given n times its share, rounded down or up.
            ``temperature``: the same with shares in proportion to size^(1/temperature), the size of a source being the batches of one
            pass over it. ``sampled``: as SpeechLM and VATLM, see ``shares``.
        shares: for ``shares`` the proportions by source, of any sum. For ``sampled`` the official ``sample_distributions``: in every epoch
            this number times the utterances of all sources together are drawn of a source, as whole copies of it and a random rest; each
            source is batched, all lists of batches are cut to the shortest, and step j takes batch j of every source.
        temperature: 1 takes what is there (every source is passed equally often), larger values raise the small sources, infinity makes
            all equal.
        batches: for ``shares`` and ``temperature``, batches in a step.

    Raises:
        ValueError: a value that is no proportion, temperature or number of batches, or that the kind does not use.
    """

    kind: Literal["weights", "shares", "temperature", "sampled"] = "weights"
    shares: dict[str, float] = field(default_factory=dict)
    temperature: float = 1.0
    batches: int = 1

    def __post_init__(self) -> None:
        for name, share in self.shares.items():
            if not 0 < share < math.inf:
                raise ValueError(f"shares.{name}: {share} is no share; give a number above 0, or leave the source out of the run.")
        if not self.temperature > 0:
            raise ValueError(f"temperature: {self.temperature} is not above 0; 1 takes the sources as they are, .inf makes them equal.")
        if self.batches < 1:
            raise ValueError(f"batches: {self.batches}; a step needs at least 1.")
        for name, unused in (
            ("shares", self.shares and self.kind not in ("shares", "sampled")),
            ("temperature", self.temperature != 1 and self.kind != "temperature"),
            ("batches", self.batches != 1 and self.kind not in ("shares", "temperature")),
        ):
            if unused:
                raise ValueError(f"{name}: has no meaning for the mixing of kind {self.kind!r}; remove it or choose another kind.")

    def check(self, weights: Mapping[str, float]) -> None:
        """Whether this fits the sources of a run, given their weights by name.

        Raises:
            ValueError: shares of other sources than these, or weights beside another kind of mixing.
        """
        if self.kind in ("shares", "sampled") and set(self.shares) != set(weights):
            name = min(set(self.shares) ^ set(weights))
            wrong = "there is no such source" if name in self.shares else "missing"
            raise ValueError(f"mixing.shares.{name}: {wrong}; give one share for each of {', '.join(weights)}.")
        for name, weight in weights.items():
            if self.kind != "weights" and weight != 1:
                raise ValueError(f"sources.{name}.weight: {weight} has no meaning beside mixing of kind {self.kind!r}; remove one of them.")


class Planned(Protocol):
    """What mixing needs of a stream of batches; see avtlm.training.stream."""

    lengths: Sequence[int]
    planned: Callable[[int], list[list[int]]] | None

    def plan(self, epoch: int) -> list[list[int]]: ...

    def plan_rows(self, rows: Sequence[int], epoch: int) -> list[list[int]]: ...


class Mixer:
    """Names of the sources that give the batches of a step.

    Args:
        streams: by name; those of kind ``sampled`` get their plans from here.
        weights: ``Source.weight`` by name, for the kind ``weights``.
    """

    def __init__(self, config: MixingConfig, streams: Mapping[str, Planned], weights: Mapping[str, float], seed: int) -> None:
        config.check(weights)
        self.config = config
        self.weights = dict(weights)
        self.seed = seed
        self.streams = streams
        self.names = list(streams)
        self._order: ShareOrder | None = None
        if config.kind == "temperature":
            sizes = {name: len(stream.plan(0)) for name, stream in streams.items()}
            self._order = ShareOrder(temperature_shares(list(sizes.values()), config.temperature), seed)
        elif config.kind == "shares":
            self._order = ShareOrder([Fraction(str(config.shares[name])) for name in streams], seed)
        elif config.kind == "sampled":
            plans = SampledPlans(streams, config.shares, seed)
            for name, stream in streams.items():
                stream.planned = functools.partial(plans, name)

    def drawn(self, step: int) -> list[str]:
        """Sources of the batches of a step, one name for each batch; never none."""
        if self._order is not None:
            first = step * self.config.batches
            return [self.names[self._order[first + i]] for i in range(self.config.batches)]
        if self.config.kind == "sampled":
            return self.names
        generator = torch.Generator().manual_seed(seed_for(self.seed, "sources", step))
        draws = torch.rand(len(self.names), generator=generator).tolist()
        return [name for name, draw in zip(self.names, draws, strict=True) if draw < self.weights[name]] or self.names[:1]


def temperature_shares(sizes: Sequence[int], temperature: float) -> list[Fraction]:
    """Shares in proportion to size^(1/temperature): exact for a temperature of 1, else to nine digits."""
    if temperature == 1:
        return [Fraction(size, sum(sizes)) for size in sizes]
    largest = max(sizes)
    powers = [(size / largest) ** (1 / temperature) for size in sizes]
    return [Fraction(max(1, round(1e9 * power / sum(powers))), 10**9) for power in powers]


class ShareOrder:
    """An endless order of numbers 0 .. k-1 in which each has its share of every beginning, to less than one.

    Tijdeman's solution of the chairman assignment problem (Discrete Mathematics 32, 1980): of the numbers that are behind by at least
    1/(2k-2), take the one that would soonest be too far behind. No beginning then deviates by more than 1 - 1/(2k-2), the least possible.
    Integers throughout; the seed decides between equals.

    Args:
        shares: positive, of any sum.
    """

    def __init__(self, shares: Sequence[Fraction], seed: int) -> None:
        scale = math.lcm(*(share.denominator for share in shares))
        self._weights = [int(share * scale) for share in shares]
        self._taken = [0] * len(shares)
        self._random = random.Random(seed_for(seed, "mixing"))
        self._order = bytearray() if len(shares) < 256 else []

    def __getitem__(self, place: int) -> int:
        while place >= len(self._order):
            self._order.append(self._next(len(self._order) + 1))
        return self._order[place]

    def _next(self, n: int) -> int:
        weights, total, slack = self._weights, sum(self._weights), 2 * len(self._weights) - 2
        if slack == 0:
            return 0
        due = []
        for index, weight in enumerate(weights):
            behind = slack * (n * weight - self._taken[index] * total)  # in units of 1 / (slack * total)
            if behind >= total:
                due.append((((slack - 1) * total - behind) // (slack * weight), self._random.random(), index))
        chosen = min(due)[2]
        self._taken[chosen] += 1
        return chosen


class SampledPlans:
    """The batches of every source in an epoch as SpeechLM and VATLM draw them (``MultiCorpusDataset`` with ``sample_distributions``).

    Here batches are planned by plan_batches; the official code sorts the whole corpus by length and shuffles within ten batches.
    """

    def __init__(self, streams: Mapping[str, Planned], shares: Mapping[str, float], seed: int) -> None:
        self.streams = streams
        self.seed = seed
        utterances = sum(len(stream.lengths) for stream in streams.values())
        self.counts = {name: int(shares[name] * utterances) for name in streams}
        for name, count in self.counts.items():
            if count < 1:
                raise ValueError(f"mixing.shares.{name}: {shares[name]} of {utterances} utterances is less than one; give more.")
        self._epochs = functools.lru_cache(maxsize=2)(self._epoch)

    def __call__(self, name: str, epoch: int) -> list[list[int]]:
        return self._epochs(epoch)[name]

    def _epoch(self, epoch: int) -> dict[str, list[list[int]]]:
        plans = {name: stream.plan_rows(self._rows(name, epoch), epoch) for name, stream in self.streams.items()}
        shortest = min(len(plan) for plan in plans.values())
        return {name: plan[:shortest] for name, plan in plans.items()}

    def _rows(self, name: str, epoch: int) -> list[int]:
        """Whole copies of a source, and as many others of it as are missing."""
        size, count = len(self.streams[name].lengths), self.counts[name]
        generator = torch.Generator().manual_seed(seed_for(self.seed, "sampled", name, epoch))
        rest = torch.randperm(size, generator=generator)[: count % size].tolist()
        return [row for row in range(size) for _ in range(count // size)] + rest
