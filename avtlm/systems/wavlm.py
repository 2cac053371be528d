"""WavLM: HuBERT whose encoder knows relative positions and whose speech is overlapped (Chen et al., arXiv 2110.13900).

What is unusual here:
- Attention gets a bias by the distance of query and key, one table for all layers, gated by each query (section III-B).
- Some clips of a batch are overlapped by a part of another one, at most half as long, while the units stay those of the clean clip, so that
  the model learns to leave the other talker out (section III-C, algorithm 1). Noise as the second sound is what ``augment.noise`` of a
  training source mixes in.
"""

from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from avtlm.data.batching import Batch
from avtlm.frontends.waveform import normalise_waveform
from avtlm.nn.transformer import EncoderConfig
from avtlm.objectives.loss import Loss
from avtlm.systems.hubert import Hubert, HubertConfig


@dataclass(frozen=True)
class WavLMConfig(HubertConfig):
    """The defaults are WavLM base with 500 clusters (94,707,824 parameters).

    Attributes:
        overlap: share of the clips of a batch that are overlapped by another one.
        overlap_snr: bounds in dB of how much louder a clip is than what overlaps it.
    """

    encoder: EncoderConfig = field(default_factory=lambda: EncoderConfig(norm_first=False, relative_buckets=320))
    overlap: float = 0.2
    overlap_snr: tuple[float, float] = (-5.0, 5.0)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0.0 <= self.overlap <= 1.0 or self.overlap_snr[0] > self.overlap_snr[1]:
            raise ValueError(f"overlap: {self.overlap} at {self.overlap_snr} dB; give a share from 0 to 1, and the lower bound first.")


class WavLM(Hubert):
    """HuBERT with gated relative positions and overlapped speech."""

    config: WavLMConfig

    def __init__(self, config: WavLMConfig) -> None:
        super().__init__(config)

    def losses(self, batch: Batch, generator: torch.Generator) -> dict[str, Loss]:
        """As HuBERT's; in training over partly overlapped clips."""
        if self.training and self.config.overlap > 0 and len(batch) > 1:
            batch = self.overlapped(batch, generator)
        return super().losses(batch, generator)

    def overlapped(self, batch: Batch, generator: torch.Generator) -> Batch:
        """The batch with a part of another clip added to some (algorithm 1); lengths and units stay."""
        assert batch.audio is not None
        assert batch.audio_lengths is not None
        lengths = batch.audio_lengths.tolist()
        chosen = torch.rand(len(batch), generator=generator) < self.config.overlap
        audio = batch.audio.clone()
        for row in torch.nonzero(chosen).flatten().tolist():
            other = (row + 1 + int(torch.randint(len(batch) - 1, (), generator=generator))) % len(batch)
            low, high = self.config.overlap_snr
            snr = low + (high - low) * torch.rand((), generator=generator).item()
            longest = min(lengths[row] // 2, lengths[other])
            if longest < 1:
                continue
            size = 1 + int(torch.randint(longest, (), generator=generator))
            here, there = (int(torch.randint(lengths[each] - size + 1, (), generator=generator)) for each in (row, other))
            clip, added = batch.audio[row, : lengths[row]], batch.audio[other, there : there + size]
            mixed = clip.clone()
            mixed[here : here + size] += added * _gain(clip, batch.audio[other, : lengths[other]], snr)
            audio[row, : lengths[row]] = normalise_waveform(mixed) if self.config.waveform.normalise else mixed
        return replace(batch, audio=audio)


def _gain(clip: Tensor, other: Tensor, snr: float) -> Tensor:
    """What makes ``other`` quieter than ``clip`` by ``snr`` dB; 0 for silence."""
    power, loud = clip.square().mean(), other.square().mean()
    return torch.where(loud > 0, torch.sqrt(power / (10 ** (snr / 10) * loud.clamp(min=1e-12))), 0.0)
