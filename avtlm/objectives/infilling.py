"""Text with holes: spans of tokens become one mask symbol each (or leave another trace), and the decoder writes the whole text again (BART,
Lewis et al., arXiv 1910.13461, section 2.2; SpeechT5 section 3.2).

Spans have Poisson lengths; those of length 0 insert a mask symbol where nothing was. The first and the last token of a text, its start and
end symbols, stay as they are. The count of hidden tokens and the order of draws follow fairseq's denoising data set.

Sentences may change places and texts be turned about, too; or mask symbols are numbered, and the decoder writes what they stand for alone
(T5, Raffel et al., arXiv 1910.10683, section 3.1.4).
"""

import functools
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor

from avtlm.text.vocabulary import EOS

AFTER_MASK = 2  # places in the vocabulary from the mask symbol to the first numbered one; CTC's blank is between them
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
        permuted: this share of the sentences changes places before. sentence_end: the symbol that ends a sentence.
        rotated: the probability that a text begins with another of its tokens afterwards, and goes on behind its end.
        numbered: this many mask symbols have numbers, see infill; they stand at the end of the vocabulary, behind CTC's blank. 0 for
            one mask symbol, and for the whole text to be written.
    """

    share: float = 0.3
    mean_span: float = 3.5
    random: float = 0.1
    trace: Literal["span", "tokens", "nothing"] = "span"
    inserted: float = 0.0
    permuted: float = 0.0
    sentence_end: int = EOS
    rotated: float = 0.0
    numbered: int = 0

    def __post_init__(self) -> None:
        shares = {name: getattr(self, name) for name in ("share", "random", "permuted", "rotated")}
        others = {name: getattr(self, name) for name in ("mean_span", "inserted", "numbered")}
        if any(not 0.0 <= value <= 1.0 for value in shares.values()) or min(others.values()) < 0:
            found = ", ".join(f"{name} {value}" for name, value in {**shares, **others}.items())
            raise ValueError(f"infilling: {found}; give shares from 0 to 1, and 0 or more for the others.")


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

    def turn(self, chance: float, count: int) -> int:
        """A number from 1 to ``count`` with this probability, else 0."""


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

    def turn(self, chance: float, count: int) -> int:
        if float(torch.rand((), generator=self.generator)) >= chance:
            return 0
        return int(torch.randint(1, count + 1, (), generator=self.generator))


def infill(
    tokens: Sequence[int], mask: int, config: InfillingConfig, draws: Draws, begins: Sequence[bool] | None = None
) -> tuple[list[int], list[int]]:
    """A text with holes, and what is to be written: the whole text, or, with numbered mask symbols, what spans hide, each behind the mask
    symbol that stands for it, and the end symbol.

    Args:
        tokens: of one text, with its start and end symbols.
        mask: the symbol that stands for a span; numbered ones stand two and more behind it in the vocabulary.
        begins: of each token, whether a word begins with it; None for words of one token. Spans then hide whole words.
    """
    places = _permuted(tokens, config, draws) if config.permuted else list(range(len(tokens)))
    begins = None if begins is None else [begins[place] for place in places]
    holed, written = _hide([tokens[place] for place in places], mask, config, draws, begins)
    if config.inserted:
        holed = insert(holed, math.ceil(len(holed) * config.inserted), mask, config, draws)
    if config.rotated:
        first = draws.turn(config.rotated, max(1, len(holed) - 1))
        holed = [holed[0], *holed[first:-1], *holed[1:first], holed[-1]] if first else holed
    return holed, written if config.numbered else list(tokens)


def _permuted(tokens: Sequence[int], config: InfillingConfig, draws: Draws) -> list[int]:
    """Where each token comes from when sentences change places. Behind the last sentence there is the end symbol alone."""
    stops = [token == config.sentence_end for token in tokens]
    stops[-2] = True
    ends = [place + 1 for place in range(1, len(tokens)) if stops[place] and not stops[place - 1]]
    moving = draws.order(len(ends))[: math.ceil(len(ends) * config.permuted)]
    order = list(range(len(ends)))
    for sentence, other in zip(moving, draws.order(len(moving)), strict=True):
        order[sentence] = moving[other]
    starts = [1, *ends]
    found = [place for sentence in order for place in range(starts[sentence], ends[sentence])]
    return [0, *found, *range(len(found) + 1, len(tokens))]


def _hide(
    tokens: Sequence[int], mask: int, config: InfillingConfig, draws: Draws, begins: Sequence[bool] | None
) -> tuple[list[int], list[int]]:
    """A text with holes, and what they hide behind their numbers."""
    words = [place for place in range(1, len(tokens) - 1) if begins is None or begins[place]]
    budget = math.ceil(float(torch.tensor(float(len(words))) * config.share))
    if budget == 0:
        return list(tokens), [tokens[-1]]
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
    written = []
    if config.numbered:
        numbers = itertools.count(mask + AFTER_MASK)
        for place, token in enumerate(tokens):
            hides = filled[place] == mask
            if hides:
                filled[place] = next(numbers)
                written.append(filled[place])
            if hides or place in dropped or place == len(tokens) - 1:
                written.append(token)
    holed = [token for place, token in enumerate(filled) if place not in dropped]
    # Fairseq counts by a share, which rounding may make one more.
    holed = insert(holed, math.ceil(len(holed) * (inserted / len(holed))), mask, config, draws) if inserted else holed
    return holed, written


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
