"""Whisper's encoder (Radford et al., arXiv 2212.04356, section 2.2), over clips of any length up to 30 s, as MT2KD's teacher of speech.

What is unusual here:
- Whisper hears 30 s, always; as a teacher it hears a clip as long as it is. Positions behind the end of a shorter clip of a batch are zero,
  but its frames are attended to, as in the official code: what a clip gives depends on its batch. A teacher is asked clip by clip.
- Keys have no bias; ours, which have one, hold zeros there.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from avtlm.nn.attention import padding_mask
from avtlm.nn.positions import SinusoidalPositions
from avtlm.nn.transformer import Encoder, EncoderConfig

HOP = 2  # frames of the spectrogram in one of the encoder


@dataclass(frozen=True)
class WhisperConfig:
    """Sizes; the defaults are those of small.en.

    Attributes:
        bands: of the spectrogram; 128 for large-v3 and turbo.
        positions: frames that there are positions for.
    """

    dim: int = 768
    layers: int = 12
    heads: int = 12
    feed_forward_dim: int = 3072
    bands: int = 80
    positions: int = 1500


class WhisperEncoder(nn.Module):
    """Spectrograms at 100 Hz to frames at 50 Hz."""

    positions: Tensor

    def __init__(self, config: WhisperConfig) -> None:
        super().__init__()
        self.config = config
        self.convs = nn.ModuleList(
            nn.Conv1d(channels, config.dim, 3, stride, padding=1) for channels, stride in ((config.bands, 1), (config.dim, HOP))
        )
        self.register_buffer("positions", SinusoidalPositions(config.dim, offset=0)(torch.arange(config.positions)))
        self.encoder = Encoder(
            EncoderConfig(
                dim=config.dim,
                layers=config.layers,
                heads=config.heads,
                feed_forward_dim=config.feed_forward_dim,
                norm_first=True,
                dropout=0.0,
                attention_dropout=0.0,
                layer_drop=0.0,
                position_kernel=0,
            )
        )

    def forward(self, mel: Tensor, lengths: Tensor, output_layer: int | None = None) -> tuple[Tensor, Tensor]:
        """Encode spectrograms.

        Args:
            mel: (batch, bands, frames), the longest clip without padding.
            lengths: frames of each clip, (batch,).
            output_layer: stop after this layer, counted from 1, without the final norm.

        Returns:
            (batch, frames, dim) at 50 Hz, and the frames of each clip.

        Raises:
            ValueError: clips of more than 30 s.
        """
        x = mel
        for conv in self.convs:
            x = F.gelu(conv(x))
        x, frames = x.transpose(1, 2), torch.div(lengths + 1, HOP, rounding_mode="floor")
        if x.shape[1] > self.config.positions:
            raise ValueError(f"Whisper hears {self.config.positions / 50:g} s at most, not {x.shape[1] / 50:.1f} s; cut the clip.")
        places = self.positions[: x.shape[1]].expand(len(x), -1, -1)
        x = x + places.masked_fill(padding_mask(frames, x.shape[1])[..., None], 0.0).to(x.dtype)
        return self.encoder(x, None, output_layer), frames
