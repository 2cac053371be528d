"""Dropout that takes little time on a CPU.

What is unusual here: PyTorch draws one random number for every value, which on a CPU takes as long as a good part of the matrix products
between (in bfloat16, and for attention weights, most). Here 16 random bits decide on a value, so that the probability is a multiple of
2^-16; the mean is kept exactly. On other devices this is PyTorch's own dropout.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

LEVELS = 1 << 16


def draw_kept(shape: torch.Size | tuple[int, ...], probability: float) -> tuple[Tensor, float]:
    """Which values are kept, bool, drawn from the global generator of the CPU, and what they are multiplied by."""
    dropped = min(max(round(probability * LEVELS), 0), LEVELS - 1)
    count = math.prod(shape)
    bits = torch.empty(-(-count // 4), dtype=torch.int64).random_(-(1 << 63), None)
    return (bits.view(torch.int16)[:count] >= dropped - LEVELS // 2).view(shape), LEVELS / (LEVELS - dropped)


def drop(x: Tensor, probability: float, training: bool = True) -> Tensor:
    """Set values to zero with a probability, and scale the others so that the mean stays."""
    if not training or probability == 0.0 or x.device.type != "cpu" or torch.compiler.is_compiling():
        return F.dropout(x, probability, training)
    kept, scale = draw_kept(x.shape, probability)
    return x * kept.to(x.dtype).mul_(scale)


def drop_rows(x: Tensor, probability: float, training: bool = True) -> Tensor:
    """Set whole rows of (batch, ...) to zero with a probability, and scale the others so that the mean stays: what a residual branch adds
    for them is left out (stochastic depth, Huang et al., arXiv 1603.09382)."""
    if not training or probability == 0.0:
        return x
    kept = torch.rand((len(x),) + (1,) * (x.dim() - 1), device=x.device) >= probability
    return x * kept.to(x.dtype).div(1.0 - probability)


class Dropout(nn.Dropout):
    """nn.Dropout with :func:`drop`."""

    def forward(self, x: Tensor) -> Tensor:
        return drop(x, self.p, self.training)
