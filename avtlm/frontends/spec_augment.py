"""SpecAugment (Park et al., arXiv 1904.08779) as lhotse does it, which icefall's recipes train with.

What is unusual here:
- What is hidden becomes the mean of the clip's features.
- A clip of little sound gets fewer and shorter masks over time: together they hide at most ``most_time`` of it.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class SpecAugmentConfig:
    """What is hidden; the defaults are those of icefall's LibriSpeech recipes.

    Attributes:
        prob: share of the clips that are changed.
        time_warp: a place of a clip is moved by up to so many frames; 0 moves none. Clips must be longer than twice that.
        frequency_masks, frequency_width: hidden bands, at most so many next to each other.
        time_masks, time_width: hidden frames.
        most_time: share of a clip that masks over time hide at most.
    """

    prob: float = 0.9
    time_warp: int = 80
    frequency_masks: int = 2
    frequency_width: int = 27
    time_masks: int = 10
    time_width: int = 100
    most_time: float = 0.15

    def __post_init__(self) -> None:
        if not 0.0 <= self.prob <= 1.0 or not 0.0 <= self.most_time <= 1.0:
            raise ValueError(f"prob: {self.prob}, most_time: {self.most_time}; give shares from 0 to 1.")
        counts = (self.time_warp, self.frequency_masks, self.frequency_width, self.time_masks, self.time_width)
        if min(counts) < 0:
            raise ValueError(f"time_warp, frequency and time masks: {counts}; give 0 (none) or more of each.")


def spec_augment(features: Tensor, lengths: Tensor, config: SpecAugmentConfig, generator: torch.Generator) -> Tensor:
    """Clips (batch, frames, bands) of the given lengths, changed; the generator is a CPU one."""
    if not config.prob:
        return features
    rows = []
    for clip, length in zip(features, lengths.tolist(), strict=True):
        changed = _draw(generator) < config.prob and length > 0
        rows.append(torch.cat([_changed(clip[:length], config, generator), clip[length:]]) if changed else clip)
    return torch.stack(rows)


def _changed(clip: Tensor, config: SpecAugmentConfig, generator: torch.Generator) -> Tensor:
    if config.time_warp and len(clip) > 2 * config.time_warp:
        clip = warp(clip, config.time_warp, generator)
    mean, frames = clip.mean(), len(clip)
    bands = _hidden(clip.shape[1], config.frequency_masks, config.frequency_width, generator)
    most = config.most_time * frames
    count = min(config.time_masks, math.ceil(most / config.time_width)) if config.time_width else 0
    times = (
        _hidden(frames, count, min(config.time_width, int(most // count)), generator) if count else torch.zeros(frames, dtype=torch.bool)
    )
    return torch.where((bands[None] | times[:, None]).to(clip.device), mean, clip)


def warp(clip: Tensor, most: int, generator: torch.Generator) -> Tensor:
    """Move a place of a clip (frames, bands) by less than ``most`` frames; what is before and behind it is stretched to where it was."""
    frames = len(clip)
    centre = most + 1 + _integer(frames - 2 * most - 1, generator)
    moved = min(max(centre - most + 1 + _integer(2 * most - 1, generator), 1), frames - 1)
    parts = [(clip[:centre], moved), (clip[centre:], frames - moved)]
    return torch.cat([F.interpolate(part.t()[None], size, mode="linear", align_corners=False)[0].t() for part, size in parts])


def _hidden(size: int, count: int, width: int, generator: torch.Generator) -> Tensor:
    """``count`` masks of 0 to ``width`` places, anywhere: bool (size,)."""
    hidden = torch.zeros(size, dtype=torch.bool)
    for _ in range(count):
        wide = min(_integer(width + 1, generator), size)
        start = int(_draw(generator) * (size - wide + 1))
        hidden[start : start + wide] = True
    return hidden


def _integer(count: int, generator: torch.Generator) -> int:
    """From 0 up to, but not including, ``count``."""
    return int(torch.randint(max(count, 1), (), generator=generator))


def _draw(generator: torch.Generator) -> float:
    return float(torch.rand((), generator=generator))
