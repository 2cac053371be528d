"""Text with holes: spans of tokens become one mask symbol each, and the decoder writes the whole text again (BART, Lewis et al., arXiv
1910.13461, section 2.2; SpeechT5 section 3.2).

Spans have Poisson lengths; those of length 0 insert a mask symbol where nothing was. The first and the last token of a text, its start and
end symbols, stay as they are. The count of hidden tokens and the order of draws follow fairseq's denoising data set.
"""

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

MOST_LENGTHS, LEAST_PROBABILITY = 128, 1e-7  # where the table of span lengths ends


@dataclass(frozen=True)
class InfillingConfig:
    """How much is hidden; the defaults are SpeechT5's.

    Attributes:
        share: of the tokens that spans cover.
        mean_span: mean of their Poisson lengths.
        random: this share of the spans becomes a random token in place of the mask symbol.
    """

    share: float = 0.3
    mean_span: float = 3.5
    random: float = 0.1

    def __post_init__(self) -> None:
        if not 0.0 <= self.share <= 1.0 or not 0.0 <= self.random <= 1.0 or self.mean_span <= 0:
            raise ValueError(
                f"infilling: share {self.share}, random {self.random}, mean_span {self.mean_span}; "
                "give shares from 0 to 1 and a mean above 0."
            )


@functools.cache
def span_probabilities(mean: float) -> Tensor:
    """Poisson probabilities of 0, 1, 2, ... up to the first one below 1e-7, not renormalised, float32."""
    found: list[float] = []
    while len(found) < MOST_LENGTHS and (not found or found[-1] >= LEAST_PROBABILITY):
        found.append(math.exp(-mean) * mean ** len(found) / math.factorial(len(found)))
    return torch.tensor(found)


class Draws(Protocol):
    """Where random numbers come from; whoever replays another program's brings its own."""

    def spans(self, count: int) -> list[int]:
        """Lengths of spans."""

    def order(self, count: int) -> list[int]:
        """The numbers below ``count`` in random order."""

    def uniform(self, count: int) -> list[float]:
        """On [0, 1)."""

    def tokens(self, count: int) -> list[int]:
        """Random tokens, any but the first of the vocabulary."""


@dataclass(frozen=True)
class TorchDraws:
    """Draws from a CPU generator of PyTorch."""

    generator: torch.Generator
    mean_span: float
    vocabulary: int

    def spans(self, count: int) -> list[int]:
        lengths: list[int] = torch.multinomial(
            span_probabilities(self.mean_span), count, replacement=True, generator=self.generator
        ).tolist()
        return lengths

    def order(self, count: int) -> list[int]:
        order: list[int] = torch.randperm(count, generator=self.generator).tolist()
        return order

    def uniform(self, count: int) -> list[float]:
        numbers: list[float] = torch.rand(count, generator=self.generator).tolist()
        return numbers

    def tokens(self, count: int) -> list[int]:
        numbers: list[int] = torch.randint(1, self.vocabulary, (count,), generator=self.generator).tolist()
        return numbers


def infill(tokens: Sequence[int], mask: int, config: InfillingConfig, draws: Draws) -> list[int]:
    """A text with holes.

    Args:
        tokens: of one text, with its start and end symbols.
        mask: the symbol that stands for a span.
    """
    inner = len(tokens) - 2
    budget = math.ceil(float(torch.tensor(float(inner)) * config.share)) if inner > 0 else 0
    if budget == 0:
        return list(tokens)
    lengths = draws.spans(budget)
    while sum(lengths) < budget:
        lengths += draws.spans(budget)
    spans: list[int] = []
    for length in lengths:
        spans.append(min(length, budget - sum(spans)))
        if sum(spans) == budget:
            break
    inserted = spans.count(0)
    spans = [length for length in spans if length > 0]
    starts = [place + 1 for place in draws.order(inner)[: len(spans)]]
    replaced = [number < config.random for number in draws.uniform(len(spans))]
    fill = dict.fromkeys(starts, mask)
    fill |= dict(zip((start for start, random in zip(starts, replaced, strict=True) if random), draws.tokens(sum(replaced)), strict=True))
    dropped = {place for start, length in zip(starts, spans, strict=True) for place in range(start + 1, min(start + length, inner + 1))}
    holed = [fill.get(place, token) for place, token in enumerate(tokens) if place not in dropped]
    # Fairseq counts by a share, which rounding may make one more.
    return insert(holed, math.ceil(len(holed) * (inserted / len(holed))), mask, config, draws) if inserted else holed


def insert(tokens: Sequence[int], count: int, mask: int, config: InfillingConfig, draws: Draws) -> list[int]:
    """Put in so many tokens at random places between the first and the last one: random ones, then mask symbols."""
    places = [place + 1 for place in draws.order(len(tokens) + count - 2)[:count]]
    random = math.ceil(count * config.random)
    new = dict.fromkeys(places[random:], mask) | dict(zip(places[:random], draws.tokens(random), strict=True))
    rest = iter(tokens)
    return [new[place] if place in new else next(rest) for place in range(len(tokens) + count)]
