"""Which frames to hide: span masks and imposter segments (wav2vec 2.0 section 3.1, AV-HuBERT section 3.2).

All draws come from the generator that is passed in (a CPU one), so that masks repeat from a seed on any number of workers.
"""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class SpanMaskConfig:
    """``prob`` is the share of frames that spans would cover if they never overlapped; overlap makes the true share smaller (0.8 gives
    about 0.5)."""

    prob: float = 0.8
    length: int = 10
    min_spans: int = 2

    def __post_init__(self) -> None:
        if not 0.0 <= self.prob <= 1.0 or self.length < 1 or self.min_spans < 0:
            raise ValueError(
                f"mask: prob {self.prob}, length {self.length}, min_spans {self.min_spans}; "
                "give a prob from 0 to 1, a length from 1, min_spans from 0."
            )


def span_mask(lengths: Tensor, frames: int, config: SpanMaskConfig, generator: torch.Generator, same_count: bool = True) -> Tensor:
    """Draw spans of fixed length in every row.

    A row of n valid frames gets int(prob * n / length + u) spans with u uniform on [0, 1), at least ``min_spans``, whose starts are
    distinct and drawn from [0, n - length); spans may overlap. With ``same_count`` every row is then thinned to the row with the fewest
    masked frames by giving single frames back at random, as fairseq does (rows without frames are left out of this).

    Args:
        lengths: valid frames of each row, (batch,).
        frames: width of the mask.

    Returns:
        bool (batch, frames), True where hidden; on the CPU.
    """
    mask = torch.zeros(len(lengths), frames, dtype=torch.bool)
    if config.prob == 0.0:
        return mask
    counts = lengths.tolist()
    for row, valid in enumerate(counts):
        if valid == 0:
            continue
        spans = max(int(config.prob * valid / config.length + torch.rand((), generator=generator).item()), config.min_spans)
        # In a clip hardly longer than a span the first places serve as starts, and spans end with the clip: it is hidden nearly whole.
        places = valid - config.length if valid - config.length > spans else spans + 1
        starts = torch.randperm(places, generator=generator)[:spans]
        hidden = (starts[:, None] + torch.arange(config.length)).flatten()
        mask[row, hidden[hidden < valid]] = True
    if same_count:
        _thin(mask, generator)
    return mask


def _thin(mask: Tensor, generator: torch.Generator) -> None:
    totals = mask.sum(1)
    target = int(totals[totals > 0].min()) if bool((totals > 0).any()) else 0
    for row in torch.nonzero(totals > target).flatten().tolist():
        hidden = torch.nonzero(mask[row]).flatten()
        keep = hidden[torch.randperm(len(hidden), generator=generator)[:target]]
        mask[row] = False
        mask[row, keep] = True


def runs(mask_row: Tensor) -> list[tuple[int, int]]:
    """Half-open ranges [start, end) of hidden frames in one row, (frames,) bool."""
    edges = torch.diff(torch.cat([torch.zeros(1), mask_row.float(), torch.zeros(1)]))
    return list(zip(torch.nonzero(edges > 0).flatten().tolist(), torch.nonzero(edges < 0).flatten().tolist(), strict=True))


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
