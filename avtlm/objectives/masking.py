"""Which frames to hide: span masks and imposter segments (wav2vec 2.0 section 3.1, AV-HuBERT section 3.2).

All draws come from the generator that is passed in (a CPU one), so that masks repeat from a seed on any number of workers.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

import torch
from torch import Tensor


@dataclass(frozen=True)
class SpanMaskConfig:
    """How spans are drawn; the defaults are those of AV-HuBERT and VATLM.

    Attributes:
        prob: the share of frames that spans would cover if they never overlapped; overlap makes the true share smaller (0.8 gives about
            0.5).
        length: frames of a span, on average if they vary.
        min_spans: spans that every row has at least.
        lengths: ``static`` (all alike), ``uniform`` on [``spread``, 2 x length], ``normal`` with deviation ``spread``, or ``poisson``.
        spread: see ``lengths``.
        overlap: false keeps spans apart, by at least ``min_space`` frames; a row then gets as many as fit.
        min_space: see ``overlap``.
        starts: ``inside`` draws the starts of overlapping spans so that they end within the row, ``anywhere`` up to its last frame, where
            they are cut.
        equal_by: how rows get equal numbers of hidden frames where they are wanted: by ``thinning`` to the row with the fewest, or by
            ``filling`` up to the row with the most; the official code's filling reaches into padding, where nothing is lost or learned.
        dropout: this share of the hidden frames is given back in the end.
    """

    prob: float = 0.8
    length: int = 10
    min_spans: int = 2
    lengths: Literal["static", "uniform", "normal", "poisson"] = "static"
    spread: float = 0.0
    overlap: bool = True
    min_space: int = 1
    starts: Literal["inside", "anywhere"] = "inside"
    equal_by: Literal["thinning", "filling"] = "thinning"
    dropout: float = 0.0

    def __post_init__(self) -> None:
        if self.spread < 0 or self.min_space < 0 or (self.lengths == "uniform" and self.spread > 2 * self.length):
            raise ValueError(
                f"mask: spread {self.spread}, min_space {self.min_space}; neither is negative, and a uniform spread is at most 2 x length."
            )
        if not 0.0 <= self.prob <= 1.0 or self.length < 1 or self.min_spans < 0:
            raise ValueError(
                f"mask: prob {self.prob}, length {self.length}, min_spans {self.min_spans}; "
                "give a prob from 0 to 1, a length from 1, min_spans from 0."
            )
        if not 0.0 <= self.dropout < 1.0:
            raise ValueError(f"mask: dropout {self.dropout}; give a share from 0 up to, but not including, 1.")


class Draws(Protocol):
    """Where spans take their random numbers from; whoever replays another program's masks brings that program's generator."""

    def uniform(self) -> float:
        """On [0, 1)."""

    def choose(self, below: int, count: int) -> list[int]:
        """So many different numbers below ``below`` in random order."""

    def integers(self, low: int, high: int, count: int) -> list[int]:
        """On [low, high)."""

    def normal(self, mean: float, deviation: float, count: int) -> list[float]: ...

    def poisson(self, mean: float, count: int) -> list[int]: ...

    def weighted(self, weights: list[int]) -> int:
        """A place, as probable as its weight is large."""


@dataclass(frozen=True)
class TorchDraws:
    """Draws from a CPU generator of PyTorch."""

    generator: torch.Generator

    def uniform(self) -> float:
        return torch.rand((), generator=self.generator).item()

    def choose(self, below: int, count: int) -> list[int]:
        order: list[int] = torch.randperm(below, generator=self.generator).tolist()
        return order[:count]

    def integers(self, low: int, high: int, count: int) -> list[int]:
        numbers: list[int] = torch.randint(low, high, (count,), generator=self.generator).tolist()
        return numbers

    def normal(self, mean: float, deviation: float, count: int) -> list[float]:
        numbers: list[float] = (torch.randn(count, generator=self.generator) * deviation + mean).tolist()
        return numbers

    def poisson(self, mean: float, count: int) -> list[int]:
        numbers: list[int] = torch.poisson(torch.full((count,), float(mean)), generator=self.generator).int().tolist()
        return numbers

    def weighted(self, weights: list[int]) -> int:
        return int(torch.multinomial(torch.tensor(weights, dtype=torch.float64), 1, generator=self.generator))


def span_mask(
    lengths: Tensor, frames: int, config: SpanMaskConfig, generator: torch.Generator | Draws | Sequence[Draws], same_count: bool = True
) -> Tensor:
    """Draw spans in every row.

    A row of n valid frames gets int(prob * n / length + u) spans with u uniform on [0, 1), at least ``min_spans``, whose starts are
    distinct and drawn from [0, n - length); spans may overlap. With ``same_count`` every row is then thinned to the row with the fewest
    masked frames by giving single frames back at random, as fairseq does (rows without valid frames are left out of this).

    Args:
        lengths: valid frames of each row, (batch,).
        frames: width of the mask.
        generator: a CPU one, or another source of random numbers, or one for every row (the last one then also evens the rows out).

    Returns:
        bool (batch, frames), True where hidden; on the CPU.
    """
    mask = torch.zeros(len(lengths), frames, dtype=torch.bool)
    if config.prob == 0.0:
        return mask
    source = TorchDraws(generator) if isinstance(generator, torch.Generator) else generator
    each: Sequence[Draws] = source if isinstance(source, Sequence) else [source] * len(lengths)
    for row, (valid, draws) in enumerate(zip(lengths.tolist(), each, strict=True)):
        if valid == 0:
            continue
        count = max(int(config.prob * valid / config.length + draws.uniform()), config.min_spans)
        spans = _span_lengths(count, valid, config, draws)
        if config.overlap and config.starts == "anywhere":
            starts = draws.choose(valid, count)
        elif config.overlap:
            # In a clip hardly longer than a span the first places serve as starts, and spans end with the clip: it is hidden nearly whole.
            shortest = min(spans, default=config.length)
            places = valid - shortest if valid - shortest > count else count + 1
            starts = draws.choose(places, count)
        else:
            starts, spans = _starts_apart(spans, valid, config.min_space, draws)
        for start, length in zip(starts, spans, strict=True):
            mask[row, start : min(start + length, valid)] = True
    if each:
        _even_out(mask, lengths, config, each[-1], same_count)
    return mask


def _span_lengths(count: int, valid: int, config: SpanMaskConfig, draws: Draws) -> list[int]:
    """Lengths of ``count`` spans. Spans of no frames may come of ``uniform`` and ``poisson``, but not all of them are such."""
    if config.lengths == "static":
        return [config.length] * count
    if config.lengths == "uniform":
        drawn = draws.integers(round(config.spread), 2 * config.length + 1, count)
    elif config.lengths == "normal":
        drawn = [max(1, round(length)) for length in draws.normal(config.length, config.spread, count)]
    else:
        drawn = draws.poisson(config.length, count)
    if count and sum(drawn) == 0:
        drawn[0] = max(min(config.length, valid - 1), 1)
    return drawn


def _starts_apart(lengths: list[int], valid: int, space: int, draws: Draws) -> tuple[list[int], list[int]]:
    """Places for spans that do not touch: the longest first, in a gap drawn by its size. Spans that fit nowhere are left out."""
    shortest = min(lengths, default=0)
    gaps, starts, placed = [(0, valid)], [], []
    for length in sorted(lengths, reverse=True):
        sizes = [end - begin if end - begin >= length + space else 0 for begin, end in gaps]
        if sum(sizes) == 0:
            break
        begin, end = gaps.pop(draws.weighted(sizes))
        [start] = draws.integers(begin, max(end - length, begin + 1), 1)
        starts.append(start)
        placed.append(length)
        # The bounds of what is left are fairseq's, which lets the gap before a span come one frame nearer to it.
        if start - begin - space >= shortest:
            gaps.append((begin, start - space + 1))
        if end - start - shortest - space > shortest:
            gaps.append((start + length + space, end))
    return starts, placed


def _even_out(mask: Tensor, lengths: Tensor, config: SpanMaskConfig, draws: Draws, same_count: bool) -> None:
    """Equal numbers of hidden frames in all rows that have frames, by giving back or hiding single ones; then ``dropout``."""
    totals, there = mask.sum(1), lengths > 0
    some = totals[there]
    target = int(some.min() if config.equal_by == "thinning" else some.max()) if len(some) else 0
    for row, total, frames in zip(mask, totals.tolist(), there.tolist(), strict=True):
        if frames and same_count and total > target:
            kept = _some(row, target, draws)
            row[:] = False
            row[kept] = True
        elif frames and same_count and total < target:
            row[_some(~row, target - total, draws)] = True
        if frames and config.dropout:
            row[_some(row, round(int(row.sum()) * config.dropout), draws)] = False


def _some(row: Tensor, count: int, draws: Draws) -> Tensor:
    """Places of ``count`` random frames among those that are True."""
    places = torch.nonzero(row).flatten()
    return places[torch.tensor(draws.choose(len(places), count), dtype=torch.long)]


def runs(mask_row: Tensor) -> list[tuple[int, int]]:
    """Half-open ranges [start, end) of hidden frames in one row, (frames,) bool."""
    edges = torch.diff(torch.cat([torch.zeros(1), mask_row.float(), torch.zeros(1)]))
    return list(zip(torch.nonzero(edges > 0).flatten().tolist(), torch.nonzero(edges < 0).flatten().tolist(), strict=True))


def other_clip(lengths: Tensor, frames: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Stand-ins from another clip of the batch at the same time (``same_other_seq``): the batch turned round by a random step.

    Args:
        lengths: frames of each clip, (batch,), at least two clips. Behind the end of a shorter clip its last frame stands in.

    Returns:
        The row that each row's hidden frames are taken from, int (batch,), and the frame for every place, int (batch, frames).
    """
    rows = len(lengths)
    step = torch.randint(1, rows, (), generator=generator)
    row = (torch.arange(rows) + step) % rows
    last = (lengths[row] - 1).clamp(min=0)
    return row, torch.minimum(torch.arange(frames).expand(rows, -1), last[:, None])


def imposters(mask: Tensor, generator: torch.Generator, lengths: Tensor | None = None) -> Tensor:
    """Where each hidden frame's replacement comes from, within the same clip (``same_seq``).

    For every run [s, e) a start o is drawn from the frames outside [max(0, s - (e - s)), e); frames o, o + 1, ... (clipped to the last one)
    stand in for s, s + 1, ...

    Args:
        mask: bool (batch, frames).
        lengths: frames of each clip, (batch,); without them the width of the mask counts for all, padding included, as in the official
            code.

    Returns:
        int64 (batch, frames): the index of the frame to show at each place; its own index where nothing is hidden.
    """
    frames = mask.shape[1]
    ends = [frames] * len(mask) if lengths is None else lengths.tolist()
    source = torch.arange(frames).repeat(len(mask), 1)
    for row, last in enumerate(ends):
        for start, end in runs(mask[row]):
            blocked = max(0, start - (end - start))
            free = blocked + last - end
            if free == 0:
                continue
            origin = int(torch.randint(free, (), generator=generator))
            origin = origin if origin < blocked else origin - blocked + end
            source[row, start:end] = (origin + torch.arange(end - start)).clamp(max=last - 1)
    return source
