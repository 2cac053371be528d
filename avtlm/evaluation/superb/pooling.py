"""Frames to one vector, over exactly the valid frames of each clip.

s3prl's masks count one frame too many where clips of a batch differ in length; here padding never takes part.
"""

import torch
from torch import Tensor

from avtlm.nn.attention import padding_mask


def mean_pool(x: Tensor, lengths: Tensor) -> Tensor:
    """Means over time: (batch, frames, width) of the given lengths -> (batch, width)."""
    padding = padding_mask(lengths, x.shape[1])
    return x.masked_fill(padding[..., None], 0.0).sum(1) / lengths.clamp(min=1)[:, None]


def statistics_pool(x: Tensor, lengths: Tensor) -> Tensor:
    """Means and standard deviations (by n - 1) over time: (batch, frames, width) -> (batch, 2 x width); lengths are at least 2."""
    padding = padding_mask(lengths, x.shape[1])[..., None]
    mean = mean_pool(x, lengths)
    squares = (x - mean[:, None]).masked_fill(padding, 0.0).square().sum(1)
    return torch.cat([mean, (squares / (lengths - 1).clamp(min=1)[:, None]).clamp(min=1e-12).sqrt()], 1)
