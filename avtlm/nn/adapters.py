"""Small layers that some fine-tuned speech models have on top of those of pre-training (transformers has both).

- A layer's adapter, behind every pre-norm layer: one for each language of MMS (Pratap et al., arXiv 2305.13516, section 4.1).
- A length adapter behind the whole encoder, whose strides leave fewer frames for a text model to attend to.

And one of OFA's decoder (a residual around two linear maps, Houlsby et al., arXiv 1902.00751).
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from avtlm.nn.attention import padding_mask


class LayerAdapter(nn.Module):
    """Norm and two linear maps around a ReLU; the layer adds the result to its own. (..., dim) -> the same."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(dim)
        self.expand = nn.Linear(dim, hidden)
        self.contract = nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.contract(F.relu(self.expand(self.norm(x))))
        return out


class ResidualAdapter(nn.Module):
    """Two linear maps around a ReLU, added to what they are given. (..., dim) -> the same.

    Initialisation: N(0, 0.02), biases 0.
    """

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.expand = nn.Linear(dim, hidden)
        self.contract = nn.Linear(hidden, dim)
        for linear in (self.expand, self.contract):
            nn.init.normal_(linear.weight, 0.0, 0.02)
            nn.init.zeros_(linear.bias)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = x + self.contract(F.relu(self.expand(x)))
        return out


@dataclass(frozen=True)
class LengthAdapterConfig:
    """A stack of gated convolutions over time.

    Attributes:
        dim: width of what it puts out; null keeps the encoder's.
        layers, kernel, stride: of the convolutions; each pads with one zero on either side.
    """

    dim: int | None = None
    layers: int = 3
    kernel: int = 3
    stride: int = 2

    def __post_init__(self) -> None:
        if min(self.layers, self.kernel, self.stride, self.dim or 1) < 1:
            raise ValueError(
                f"adapter: {self.layers} layers of kernel {self.kernel} and stride {self.stride}, dim {self.dim}; give at least 1 of each."
            )


class LengthAdapter(nn.Module):
    """See LengthAdapterConfig.

    Args:
        dim: width of the encoder.
        compute_padding: let frames see what the encoder makes of padding, as the official code does.
    """

    def __init__(self, config: LengthAdapterConfig, dim: int, compute_padding: bool = False) -> None:
        super().__init__()
        self.config = config
        self.dim = config.dim or dim
        self.compute_padding = compute_padding
        self.project = nn.Linear(dim, self.dim) if self.dim != dim else None
        self.norm = nn.LayerNorm(self.dim) if self.dim != dim else None
        self.convs = nn.ModuleList(nn.Conv1d(self.dim, 2 * self.dim, config.kernel, config.stride, padding=1) for _ in range(config.layers))

    def forward(self, x: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """(batch, frames, dim) and lengths (batch,) -> the same with fewer frames.

        A row keeps every ``stride``-th frame that it has, whatever the kernel, as the official code counts.
        """
        if self.project is not None and self.norm is not None:
            x = self.norm(self.project(x))
        for conv in self.convs:
            if not self.compute_padding:
                x = x.masked_fill(padding_mask(lengths, x.shape[1])[..., None], 0.0)
            x = F.glu(conv(x.transpose(1, 2)), dim=1).transpose(1, 2)
            lengths = torch.div(lengths - 1, self.config.stride, rounding_mode="floor").add(1).clamp(min=0, max=x.shape[1])
        return x, lengths
