"""Text with holes: spans of tokens become one mask symbol each (or leave another trace), and the decoder writes the whole text again (BART,
Lewis et al., arXiv 1910.13461, section 2.2; SpeechT5 section 3.2).

Spans have Poisson lengths; those of length 0 insert a mask symbol where nothing was. The first and the last token of a text, its start and
end symbols, stay as they are. The count of hidden tokens and the order of draws follow fairseq's denoising data set.
"""

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor

MOST_LENGTHS, LEAST_PROBABILITY = 128, 1e-7  # where the table of span lengths ends


@dataclass(frozen=True)
class InfillingConfig:
    """How much is hidden; the defaults are SpeechT5's.

    Attributes:
        share: of the tokens that spans cover.
        mean_span: mean of their Poisson lengths, in words where word starts are given; 0 hides single words.
        random: this share of the mask symbols becomes a random token instead.
        trace: what a span leaves behind: one mask symbol (``span``), one for each of its ``tokens``, or ``nothing``.
        inserted: mask symbols put in at random afterwards, as a share of the tokens.
    """

    share: float = 0.3
    mean_span: float = 3.5
    random: float = 0.1
    trace: Literal["span", "tokens", "nothing"] = "span"
    inserted: float = 0.0

    def __post_init__(self) -> None:
        if not 0.0 <= self.share <= 1.0 or not 0.0 <= self.random <= 1.0 or self.mean_span < 0 or self.inserted < 0:
            raise ValueError(
                f"infilling: share {self.share}, random {self.random}, mean_span {self.mean_span}, inserted {self.inserted}; "
                "give shares from 0 to 1, and 0 or more for the others."
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


def infill(tokens: Sequence[int], mask: int, config: InfillingConfig, draws: Draws, begins: Sequence[bool] | None = None) -> list[int]:
    """A text with holes.

    Args:
        tokens: of one text, with its start and end symbols.
        mask: the symbol that stands for a span.
        begins: of each token, whether a word begins with it; None for words of one token. Spans then hide whole words.
    """
    holed = _hide(tokens, mask, config, draws, begins)
    return insert(holed, math.ceil(len(holed) * config.inserted), mask, config, draws) if config.inserted else holed


def _hide(tokens: Sequence[int], mask: int, config: InfillingConfig, draws: Draws, begins: Sequence[bool] | None) -> list[int]:
    words = [place for place in range(1, len(tokens) - 1) if begins is None or begins[place]]
    budget = math.ceil(float(torch.tensor(float(len(words))) * config.share))
    if budget == 0:
        return list(tokens)
    spans = _lengths(budget, config, draws)
    inserted = spans.count(0)
    spans = [length for length in spans if length > 0]
    places = [words[number] for number in draws.order(len(words))[: len(spans)]]
    random = [number < config.random for number in draws.uniform(len(spans))]
    filled, dropped, first, starts = list(tokens), set[int](), True, set(words)
    left = [length - 1 for length in spans]  # words that are to follow
    while places or first:
        if config.trace == "tokens" or (config.trace == "span" and first):
            for place in places:
                filled[place] = mask
            lucky = [place for place, lucky in zip(places, random, strict=True) if lucky]
            for place, token in zip(lucky, draws.tokens(len(lucky)), strict=True):
                filled[place] = token
        else:
            dropped.update(places)
        # What every span that goes on, and ends before the end symbol, does to its next token.
        first, moved = False, []
        for place, rest, luck in zip(places, left, random, strict=True):
            rest -= place + 1 in starts
            if rest >= 0 and place + 1 < len(tokens) - 1:
                moved.append((place + 1, rest, luck))
        if places and not moved and config.trace == "tokens":
            draws.tokens(0)  # the official code draws none of them once more
        places, left, random = [each[0] for each in moved], [each[1] for each in moved], [each[2] for each in moved]
    holed = [token for place, token in enumerate(filled) if place not in dropped]
    # Fairseq counts by a share, which rounding may make one more.
    return insert(holed, math.ceil(len(holed) * (inserted / len(holed))), mask, config, draws) if inserted else holed


def _lengths(budget: int, config: InfillingConfig, draws: Draws) -> list[int]:
    """Of spans that cover so many words in all."""
    if config.mean_span == 0:
        return [1] * budget
    lengths = draws.spans(budget)
    while sum(lengths) < budget:
        lengths += draws.spans(budget)
    spans: list[int] = []
    for length in lengths:
        spans.append(min(length, budget - sum(spans)))
        if sum(spans) == budget:
            break
    return spans


def insert(tokens: Sequence[int], count: int, mask: int, config: InfillingConfig, draws: Draws) -> list[int]:
    """Put in so many tokens at random places between the first and the last one: random ones, then mask symbols."""
    places = [place + 1 for place in draws.order(len(tokens) + count - 2)[:count]]
    random = math.ceil(count * config.random)
    new = dict.fromkeys(places[random:], mask) | dict(zip(places[:random], draws.tokens(random), strict=True))
    rest = iter(tokens)
    return [new[place] if place in new else next(rest) for place in range(len(tokens) + count)]
