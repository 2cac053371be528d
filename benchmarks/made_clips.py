"""Made clips as long as those of real corpora, with units and masks, and batches of them."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from avtlm.data.batching import Batch, pad, plan_batches
from avtlm.frontends.filterbank import SAMPLE_RATE
from avtlm.frontends.multimodal import InputMask
from avtlm.frontends.waveform import WaveformConfig
from avtlm.objectives.masking import SpanMaskConfig, span_mask

UNITS = 504


@dataclass(frozen=True)
class Lengths:
    """How long the clips of a corpus are, and how many make a batch."""

    rows: int
    draw: Callable[[int, torch.Generator], Tensor]


def librispeech(count: int, generator: torch.Generator) -> Tensor:
    """Seconds, 4 to 16, most of them long: mean 12.2, and batches of 8 at random are 21 % padding (as LibriSpeech's training part)."""
    return 4.0 + 12.0 * torch.rand(count, generator=generator) ** (1 / 2.2)


def lrs3(count: int, generator: torch.Generator) -> Tensor:
    """Seconds, 0.8 to 16, log-normal with median 2.6: batches of 16 at random are 56 % padding (as LRS3's)."""
    return (2.6 * torch.exp(0.5 * torch.randn(count, generator=generator))).clamp(0.8, 16.0)


LENGTHS = {"librispeech": Lengths(8, librispeech), "lrs3": Lengths(16, lrs3)}


@dataclass(frozen=True)
class Clip:
    """A waveform (samples,), the units of its frames (frames,) and which of them are hidden."""

    wave: Tensor
    units: Tensor
    hidden: Tensor


def make_clips(seconds: Tensor, generator: torch.Generator) -> list[Clip]:
    """Noise, random units, and the masks of a clip on its own, so that its loss is the same in any batch."""
    clips = []
    for length in (seconds * SAMPLE_RATE).long().tolist():
        frames = int(WaveformConfig().frames(torch.tensor(length)))
        hidden = span_mask(torch.tensor([frames]), frames, SpanMaskConfig(min_spans=1), generator, False)[0]
        units = torch.randint(4, UNITS, (frames,), generator=generator)
        clips.append(Clip(0.1 * torch.randn(length, generator=generator), units, hidden))
    return clips


def collate(clips: Sequence[Clip], device: str) -> tuple[Batch, InputMask]:
    """A padded batch and its masks."""
    audio, lengths = pad([clip.wave for clip in clips])
    units, counts = pad([clip.units for clip in clips], -1)
    hidden = pad([clip.hidden for clip in clips])[0]
    ids = tuple(f"clip {row}" for row in range(len(clips)))
    batch = Batch(ids, "audio", audio, lengths, targets={"units": units}, target_lengths={"units": counts})
    return batch.to(device), InputMask(fused=hidden).to(device)


def bucketed(clips: Sequence[Clip], rows: int, generator: torch.Generator) -> list[list[int]]:
    """As many batches of as many rows, of similar lengths."""
    lengths = [len(clip.units) for clip in clips]
    return plan_batches(lengths, max(lengths) * rows, rows, generator, buckets=math.ceil(len(clips) / rows))
