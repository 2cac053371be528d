"""A task's model: the softmax-weighted sum over all hidden states, and the head behind it. The encoder, which learns nothing, is none."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from avtlm.data.batching import pad


class WeightedSum(nn.Module):
    """Hidden states to features. The weights start equal: the softmax of zeros.

    Args:
        layer_norm: norm the values of every layer and frame first, without parameters (off in the benchmark).
    """

    def __init__(self, layers: int, layer_norm: bool = False) -> None:
        super().__init__()
        self.logits = nn.Parameter(torch.zeros(layers))
        self.layer_norm = layer_norm

    @property
    def weights(self) -> Tensor:
        """Of the layers, (layers,); they sum to 1."""
        return self.logits.softmax(0)

    def forward(self, states: Tensor) -> Tensor:
        """(..., layers, width) -> (..., width)."""
        if self.layer_norm:
            states = F.layer_norm(states, states.shape[-1:])
        return torch.einsum("l,...lw->...w", self.weights, states)


class Probe(nn.Module):
    """Weighted sum and head."""

    def __init__(self, layers: int, head: nn.Module, layer_norm: bool = False) -> None:
        super().__init__()
        self.sum = WeightedSum(layers, layer_norm)
        self.head = head

    def features(self, states: Sequence[Tensor], device: torch.device | str) -> tuple[Tensor, Tensor]:
        """Clips (frames, layers, width) -> features (batch, frames, width), zeros behind the lengths, and lengths (batch,)."""
        padded, lengths = pad(list(states))
        return self.sum(padded.to(device).float()), lengths.to(device)  # half the way in half precision, if they are kept so
