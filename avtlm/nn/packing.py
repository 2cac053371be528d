"""Sequences without their padding: packed once in front of a stack of layers, unpacked once behind it.

What is unusual here:
- All true frames of a batch lie end to end in one tensor (frames of all, dim), so that linear layers, norms and dropout do no work on
  padding; attention keeps the sequences apart (attention.py), positional convolutions get zeros between them (positions.py).
- Lengths are read on the host, once: on a GPU this waits for what computes them, unless they are given on the CPU.
- ``auto`` packs where measurement says that it pays (docs/speed.md).
"""

from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
from torch import Tensor

from avtlm.nn.attention import xformers_ready

PackingMode = Literal["auto", "always", "never"]
# What packing has to save to be faster (docs/speed.md): a share of the batch, and values (padded frames x width of a frame) for each row.
LEAST_PADDING, LEAST_VALUES = 0.02, 800


@dataclass(frozen=True)
class Packing:
    """Where the true frames of several sequences stand among the places of a tensor (rows, width, ...).

    Attributes:
        counts: true frames of each sequence; 0 is allowed.
        rows, width: of the unpacked tensor.
        places: index of every true frame among the rows x width places, int (frames of all,).
    """

    counts: tuple[int, ...]
    rows: int
    width: int
    places: Tensor

    @property
    def lengths(self) -> Tensor:
        """The counts as a tensor on the CPU, where reading it waits for nothing."""
        return torch.tensor(self.counts)

    @cached_property
    def sequence(self) -> Tensor:
        """The number of the sequence that each frame belongs to, int (frames of all,)."""
        return torch.repeat_interleave(self.lengths).to(self.places.device)

    @cached_property
    def padding(self) -> Tensor:
        """True where a place holds no frame, bool (rows, width)."""
        empty = torch.ones(self.rows * self.width, dtype=torch.bool, device=self.places.device)
        return empty.index_fill(0, self.places, False).view(self.rows, self.width)

    def pack(self, x: Tensor) -> Tensor:
        """(rows, width, dim) -> (frames of all, dim)."""
        return x.flatten(0, 1).index_select(0, self.places)

    def unpack(self, x: Tensor) -> Tensor:
        """(frames of all, dim) -> (rows, width, dim), zero where there is no frame."""
        empty = x.new_zeros(self.rows * self.width, *x.shape[1:])
        return empty.index_copy(0, self.places, x).unflatten(0, (self.rows, self.width))

    def end_to_end(self, gap: int) -> "Packing":
        """The same sequences in a single row, with ``gap`` empty places behind each."""
        starts, end = [], 0
        for count in self.counts:
            starts.append(end)
            end += count + gap
        return Packing(self.counts, 1, end, _places(starts, self.counts, self.places.device))


def pack_rows(counts: tuple[int, ...], width: int, device: torch.device) -> Packing:
    """The rows of a padded batch of ``width`` frames, of which the first ``counts`` are true."""
    return Packing(counts, len(counts), width, _places([row * width for row in range(len(counts))], counts, device))


def _places(starts: list[int], counts: tuple[int, ...], device: torch.device) -> Tensor:
    """Places ``start``, ``start`` + 1, ... of every sequence, one behind the other."""
    number = torch.tensor(counts)
    shift = torch.repeat_interleave(torch.tensor(starts) - (number.cumsum(0) - number), number)
    return (torch.arange(len(shift)) + shift).to(device, non_blocking=True)


def choose_packing(mode: PackingMode, lengths: Tensor | None, x: Tensor, biased: bool = False) -> Packing | None:
    """How to pack a batch (rows, width, dim), or None to leave it padded.

    Args:
        mode: ``always`` packs every batch that has a true frame, ``never`` none, ``auto`` those with enough padding: on a GPU only where
            xformers runs and attention has no bias (else every sequence would be a kernel of its own), and nothing that is compiled.
        lengths: true frames of each row, (rows,); None where all are true, so that there is nothing to leave out.
        biased: whether attention has a bias.
    """
    if mode == "never" or lengths is None or torch.compiler.is_exporting():  # a graph knows no counts
        return None
    if mode == "auto" and (torch.compiler.is_compiling() or (x.device.type == "cuda" and (biased or not xformers_ready()))):
        return None
    rows, width, dim = x.shape
    counts = tuple(min(count, width) for count in lengths.tolist())
    padded = rows * width - sum(counts)
    if padded == rows * width or (mode == "auto" and (padded < LEAST_PADDING * rows * width or padded * dim < LEAST_VALUES * rows)):
        return None
    return pack_rows(counts, width, x.device)
