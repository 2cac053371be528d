"""ECAPA-TDNN, a speaker encoder (Desplanques et al., arXiv 2005.07143), MT2KD's teacher of speakers, and its pooling, which students have.

What is unusual here:
- Convolutions reflect what they see at the ends; those of shorter clips of a batch see padding, as in the official code, and so batch norms
  do in training. A teacher is asked clip by clip.
- Pooling weighs frames by attention that knows mean and deviation of the whole clip, and gives weighted mean and deviation.
"""

from dataclasses import dataclass
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from avtlm.nn.attention import padding_mask

LEAST_VARIANCE = 1e-12


@dataclass(frozen=True)
class EcapaConfig:
    """Sizes; the defaults are those of SpeechBrain's spkrec-ecapa-voxceleb.

    Attributes:
        channels, kernels, dilations: of the first block, those between, and what brings these together.
        attention_dim: of the pooling. squeezed: of the gates of channels.
        scale: parts that a block divides its channels into.
        global_context: attention of the pooling knows mean and deviation of the clip.
        groups: of the same convolutions, in a block of the first and the last one; none for 1 each.
    """

    bands: int = 80
    channels: tuple[int, ...] = (1024, 1024, 1024, 1024, 3072)
    kernels: tuple[int, ...] = (5, 3, 3, 3, 1)
    dilations: tuple[int, ...] = (1, 2, 3, 4, 1)
    attention_dim: int = 128
    squeezed: int = 128
    scale: int = 8
    dim: int = 192
    global_context: bool = True
    groups: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        sizes = (len(self.channels), len(self.kernels), len(self.dilations), len(self.groups) or len(self.channels))
        if min(sizes) < 3 or len(set(sizes)) > 1:
            raise ValueError(f"channels, kernels, dilations, groups: {sizes} of them; give as many of each, at least 3.")
        odd = [width for width in self.channels[1:-1] if width % self.scale or width != self.channels[1]]
        if odd:
            raise ValueError(f"channels: {odd[0]}; all but the first and the last have to be equal, and a multiple of scale {self.scale}.")
        read = (self.bands, *self.channels[:-2], sum(self.channels[1:-1]))
        for groups, before, after in zip(self.groups, read, self.channels, strict=False):
            if groups < 1 or before % groups or after % groups:
                raise ValueError(f"groups: {groups} of {before} channels and {after} of them; give a divisor of both.")


class TimeDelay(nn.Module):
    """Convolution over time, ReLU, batch norm: (batch, channels, frames) -> the same frames."""

    def __init__(self, inputs: int, outputs: int, kernel: int = 1, dilation: int = 1, groups: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv1d(inputs, outputs, kernel, dilation=dilation, groups=groups)
        self.reach = dilation * (kernel - 1) // 2
        self.norm = nn.BatchNorm1d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        if self.reach:
            x = F.pad(x, (self.reach, self.reach), mode="reflect")
        out: Tensor = self.norm(F.relu(self.conv(x)))
        return out


class EcapaBlock(nn.Module):
    """Res2Net between two convolutions of one frame, then a gate for every channel, around a residual (section 3.2), which passes a
    convolution of one frame where there are other channels than before."""

    def __init__(self, inputs: int, channels: int, kernel: int, dilation: int, scale: int, squeezed: int, groups: int = 1) -> None:
        super().__init__()
        part = channels // scale
        self.scale = scale
        self.first = TimeDelay(inputs, channels, groups=groups)
        self.parts = nn.ModuleList(TimeDelay(part, part, kernel, dilation) for _ in range(scale - 1))
        self.last = TimeDelay(channels, channels, groups=groups)
        self.shortcut = nn.Conv1d(inputs, channels, 1) if inputs != channels else nn.Identity()
        self.squeeze, self.excite = nn.Conv1d(channels, squeezed, 1), nn.Conv1d(squeezed, channels, 1)

    def forward(self, x: Tensor, valid: Tensor) -> Tensor:
        """(batch, channels, frames), of which ``valid`` (batch, 1, frames) count for the gates."""
        first, *others = self.first(x).chunk(self.scale, 1)
        found, before = [first], None
        for conv, other in zip(self.parts, others, strict=True):
            before = conv(other if before is None else other + before)
            found.append(before)
        y = self.last(torch.cat(found, 1))
        mean = (y * valid).sum(2, keepdim=True) / valid.sum(2, keepdim=True)
        out: Tensor = self.shortcut(x) + y * self.excite(F.relu(self.squeeze(mean))).sigmoid()
        return out


class AttentiveStatisticsPooling(nn.Module):
    """Weighted mean and deviation of each channel (section 3.1), with global context or without."""

    def __init__(self, channels: int, attention_dim: int = 128, global_context: bool = True) -> None:
        super().__init__()
        self.global_context = global_context
        self.context = TimeDelay(3 * channels if global_context else channels, attention_dim)
        self.weights = nn.Conv1d(attention_dim, channels, 1)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        """(batch, channels, frames) of the given lengths -> (batch, 2 x channels)."""
        padding = padding_mask(lengths.clamp(min=1), x.shape[2])[:, None]
        seen = x
        if self.global_context:
            even = (~padding).to(x.dtype)
            mean, deviation = _statistics(x, even / even.sum(2, keepdim=True))
            seen = torch.cat([x, mean[..., None].expand_as(x), deviation[..., None].expand_as(x)], 1)
        scores = self.weights(self.context(seen).tanh()).masked_fill(padding, float("-inf"))
        return torch.cat(_statistics(x, scores.softmax(2)), 1)


def _statistics(x: Tensor, weights: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and deviation (batch, channels) under weights that sum up to 1 over the frames."""
    mean = (weights * x).sum(2)
    return mean, (weights * (x - mean[..., None]).square()).sum(2).clamp(min=LEAST_VARIANCE).sqrt()


class Ecapa(nn.Module):
    """Features at 100 Hz to one vector for each clip."""

    def __init__(self, config: EcapaConfig) -> None:
        super().__init__()
        self.config = config
        channels, kernels, dilations = config.channels, config.kernels, config.dilations
        groups = config.groups or (1,) * len(channels)
        self.input = TimeDelay(config.bands, channels[0], kernels[0], dilations[0], groups[0])
        self.blocks = nn.ModuleList(
            EcapaBlock(*widths, kernel, dilation, config.scale, config.squeezed, parts)
            for widths, kernel, dilation, parts in zip(pairwise(channels[:-1]), kernels[1:-1], dilations[1:-1], groups[1:-1], strict=True)
        )
        self.gather = TimeDelay(sum(channels[1:-1]), channels[-1], kernels[-1], dilations[-1], groups[-1])
        self.pooling = AttentiveStatisticsPooling(channels[-1], config.attention_dim, config.global_context)
        self.norm = nn.BatchNorm1d(2 * channels[-1])
        self.output = nn.Conv1d(2 * channels[-1], config.dim, 1)

    def forward(self, features: Tensor, lengths: Tensor, kept: list[Tensor] | None = None) -> Tensor:
        """Embeddings (batch, dim), whose length means nothing.

        Args:
            features: (batch, frames, bands).
            lengths: valid frames, (batch,).
            kept: is appended what every block, their gathering and the pooling put out.

        Raises:
            ValueError: a clip too short for what a convolution reflects.
        """
        reach = max(module.reach for module in self.modules() if isinstance(module, TimeDelay))
        if features.shape[1] <= reach:
            raise ValueError(f"ECAPA-TDNN: {features.shape[1]} frames are too few for its convolutions; give more than {reach}.")
        valid = ~padding_mask(lengths.clamp(min=1), features.shape[1])[:, None]
        x = self.input(features.transpose(1, 2))
        found = [x]
        for block in self.blocks:
            x = block(x, valid)
            found.append(x)
        gathered = self.gather(torch.cat(found[1:], 1))
        pooled = self.pooling(gathered, lengths)
        if kept is not None:
            kept += [*found, gathered, pooled]
        out: Tensor = self.output(self.norm(pooled)[..., None])[..., 0]
        return out


def relative_lengths(shares: Tensor, frames: int) -> Tensor:
    """Valid frames of clips that last so long a share of the longest one, float (batch,), as SpeechBrain counts them."""
    return (shares * frames).ceil().long().clamp(max=frames)
