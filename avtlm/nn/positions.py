"""Where in the sequence a frame or a token is: positional convolution (wav2vec 2.0 section 2) and sinusoids (Transformer section 3.5)."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations


class PositionalConvolution(nn.Module):
    """Grouped, weight-normed convolution over time whose output is added to its input by the encoder.

    An even kernel yields one output too many, which is dropped at the end. Initialised N(0, sqrt(4 / (kernel * dim))).
    """

    def __init__(self, dim: int, kernel: int = 128, groups: int = 16) -> None:
        super().__init__()
        if dim % groups:
            raise ValueError(f"position_groups: {groups} does not divide dim {dim}; choose a divisor of dim.")
        conv = nn.Conv1d(dim, dim, kernel, padding=kernel // 2, groups=groups)
        nn.init.normal_(conv.weight, 0.0, math.sqrt(4.0 / (kernel * dim)))
        nn.init.zeros_(conv.bias if conv.bias is not None else conv.weight)
        self.conv = parametrizations.weight_norm(conv, dim=2)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, frames, dim) -> (batch, frames, dim); padded frames must be zero on entry."""
        out = self.conv(x.transpose(1, 2))[..., : x.shape[1]]
        return F.gelu(out).transpose(1, 2)


class SinusoidalPositions(nn.Module):
    """Fixed sinusoids, sine half then cosine half, as fairseq lays them out: the first token has position ``offset`` (padding id + 1)."""

    def __init__(self, dim: int, offset: int = 2) -> None:
        super().__init__()
        if dim % 2:
            raise ValueError(f"decoder dim: {dim} is odd; sinusoidal positions need an even width.")
        self.dim = dim
        self.offset = offset

    def forward(self, positions: Tensor) -> Tensor:
        """positions, any shape of int (0 for the first token) -> (..., dim)."""
        half = self.dim // 2
        rate = torch.exp(torch.arange(half, device=positions.device, dtype=torch.float32) * -(math.log(10000.0) / (half - 1)))
        angle = (positions + self.offset).float()[..., None] * rate
        return torch.cat([angle.sin(), angle.cos()], dim=-1)


class LearnedPositions(nn.Module):
    """One learned vector for each of ``count`` positions, laid out as fairseq does: the first token has row ``offset`` (padding id + 1).

    Initialised N(0, dim^-0.5).
    """

    def __init__(self, dim: int, count: int, offset: int = 2) -> None:
        super().__init__()
        self.count = count
        self.offset = offset
        self.table = nn.Embedding(count + offset, dim, padding_idx=offset - 1)
        nn.init.normal_(self.table.weight, 0.0, dim**-0.5)
        nn.init.zeros_(self.table.weight[offset - 1])

    def forward(self, positions: Tensor) -> Tensor:
        """positions, any shape of int (0 for the first token) -> (..., dim).

        Raises:
            ValueError: a position beyond the table.
        """
        if positions.numel() and int(positions.max()) >= self.count:
            raise ValueError(f"max_positions: {self.count} learned positions are too few for token {int(positions.max()) + 1}; shorten it.")
        out: Tensor = self.table(positions + self.offset)
        return out
