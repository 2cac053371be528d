"""The encoder that speech and units share in SpeechLM and SpeechUT (arXiv 2209.15329, 2210.03730), and CTC's head over it.

What is unusual here:
- It follows fairseq's encoder of text: positions are added to what comes in, and the sum is normed, in pre-norm stacks too.
- CTC looks at pairs of neighbouring frames through a convolution and puts out one frame more than it is given.
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from avtlm.nn.attention import padding_mask
from avtlm.nn.dropout import Dropout
from avtlm.nn.feed_forward import FeedForward
from avtlm.nn.norm import LayerNorm
from avtlm.nn.positions import LearnedPositions, SinusoidalPositions
from avtlm.nn.transformer import Attention, Encoder, EncoderConfig


@dataclass(frozen=True)
class UnitEncoderConfig(EncoderConfig):
    """Layers that speech and units share; the defaults are those of the base models.

    Attributes:
        positions: of frames and of units, added before the first layer.
        max_positions: rows of learned positions; what lies behind shares the last one.
        embedding_norm: norm what enters the layers.
        scale_embedding: multiply what comes in by the square root of its width.
    """

    layers: int = 6
    heads: int = 8
    norm_first: bool = False
    layer_drop: float = 0.1
    position_kernel: int = 0
    key_distance: int = 160
    positions: Literal["learned", "sinusoidal", "none"] = "learned"
    max_positions: int = 3000
    embedding_norm: bool = True
    scale_embedding: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.position_kernel:
            raise ValueError("unit_encoder.position_kernel: set 0, since units have no positional convolution; see positions.")
        if self.max_positions < 1:
            raise ValueError(f"unit_encoder.max_positions: {self.max_positions}; give at least 1.")


class UnitEncoder(nn.Module):
    """Positions, norm, and the layers that speech and units share.

    Initialisation (fairseq's Transformer): queries, keys and values Xavier uniform with gain 2^-0.5, what they put out with gain 1,
    feed-forward parts PyTorch's own, vectors of distances N(0, 1).
    """

    def __init__(self, config: UnitEncoderConfig) -> None:
        super().__init__()
        self.config = config
        self.positions: LearnedPositions | SinusoidalPositions | None = None
        if config.positions == "learned":
            self.positions = LearnedPositions(config.dim, config.max_positions)
        elif config.positions == "sinusoidal":
            self.positions = SinusoidalPositions(config.dim)
        self.norm = LayerNorm(config.dim, config.norm_epsilon) if config.embedding_norm else nn.Identity()
        self.encoder = Encoder(config)
        if not config.norm_first:
            self.encoder.norm = nn.Identity()  # type: ignore[assignment]  # post-norm layers norm their input, which is normed already
        for part in self.encoder.modules():
            if isinstance(part, Attention):
                for linear, gain in ((part.query, 2**-0.5), (part.key, 2**-0.5), (part.value, 2**-0.5), (part.output, 1.0)):
                    nn.init.xavier_uniform_(linear.weight, gain)
            elif isinstance(part, FeedForward):
                part.expand.reset_parameters()
                part.contract.reset_parameters()
        if self.encoder.distances is not None:
            nn.init.normal_(self.encoder.distances.table.weight)

    def place(self, x: Tensor, lengths: Tensor, gaps: Tensor | None = None) -> Tensor:
        """Embeddings (batch, frames, dim) with their positions, normed; zeros behind the lengths and at ``gaps``, which have no place."""
        if self.config.scale_embedding:
            x = x * self.config.dim**0.5
        padding = padding_mask(lengths, x.shape[1])
        padding = padding if gaps is None else padding | gaps
        if self.positions is not None:
            places = torch.arange(x.shape[1], device=x.device) if gaps is None else ((~padding).cumsum(1) - 1).clamp(min=0)
            if isinstance(self.positions, LearnedPositions):
                places = places.clamp(max=self.config.max_positions - 1)
            x = x + (self.positions(places) * ~padding[..., None]).to(x.dtype)
        normed: Tensor = self.norm(x)
        return normed.masked_fill(padding[..., None], 0.0)

    def forward(self, x: Tensor, lengths: Tensor, output_layer: int | None = None, gaps: Tensor | None = None) -> Tensor:
        """(batch, frames, dim) of the given lengths -> the same.

        Args:
            output_layer: see Encoder.forward.
            gaps: frames among the others that are padding all the same, bool (batch, frames); None for none.
        """
        out: Tensor = self.encoder(self.place(x, lengths, gaps), lengths, output_layer, bias=_pass_over(gaps, x))
        return out

    def hidden_states(self, x: Tensor, lengths: Tensor, gaps: Tensor | None = None) -> list[Tensor]:
        """What enters the layers, and what each of them puts out, without the final norm of a pre-norm stack."""
        placed = self.place(x, lengths, gaps)
        return self.encoder.hidden_states(placed, lengths, len(self.encoder.layers), bias=_pass_over(gaps, x))


def _pass_over(gaps: Tensor | None, x: Tensor) -> Tensor | None:
    """What keeps attention from gaps: a bias (batch, 1, 1, frames)."""
    if gaps is None:
        return None
    return torch.zeros(gaps.shape, dtype=x.dtype, device=x.device).masked_fill(gaps, -math.inf)[:, None, None]


class LetterHead(nn.Module):
    """CTC's logits of symbols: a convolution over neighbouring frames, norm, activation, linear; or a linear layer alone.

    Initialisation: the convolution Kaiming normal, the rest PyTorch's own.

    Args:
        kernel: of the convolution; it moves by half of that, with as many zeros on both sides. 0 for none.
    """

    def __init__(self, dim: int, symbols: int, kernel: int = 2) -> None:
        super().__init__()
        self.kernel, self.stride = kernel, max(1, kernel // 2)
        self.conv = nn.Conv1d(dim, dim, kernel, self.stride, self.stride, bias=False) if kernel else None
        if self.conv is not None:
            nn.init.kaiming_normal_(self.conv.weight)
        self.dropout = Dropout(0.1)  # in every official model
        self.norm = LayerNorm(dim) if kernel else None
        self.output = nn.Linear(dim, symbols)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, frames, dim) -> (batch, frames + 1, symbols) with a kernel of 2; a frame sees the one before it and itself."""
        if self.conv is not None and self.norm is not None:
            x = nn.functional.gelu(self.norm(self.dropout(self.conv(x.transpose(1, 2)).transpose(1, 2))))
        out: Tensor = self.output(x)
        return out

    def frames(self, lengths: Tensor) -> Tensor:
        """Frames of the output that belong to inputs of these lengths, (batch,), as losses count them."""
        return torch.div(lengths + self.stride - 1, self.stride, rounding_mode="floor")

    def all_frames(self, lengths: Tensor) -> Tensor:
        """All frames that clips of these lengths give alone, (batch,): one more than of the input with a kernel of 2."""
        if not self.kernel:
            return lengths
        found = torch.div(lengths + 2 * self.stride - self.kernel, self.stride, rounding_mode="floor") + 1
        return torch.where(lengths > 0, found.clamp(min=0), 0)
