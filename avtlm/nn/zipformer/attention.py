"""Attention of the Zipformer: weights that are computed once for a layer, and the three parts that use them (paper section 3.2).

What is unusual here:
- Scores of queries and keys are not scaled; the initial weights are small instead. To them comes what a query says about how far away a key
  is, in few dimensions (positions.py).
- Weights are laid out by head first, (heads, batch, queries, keys), so that those of one head are a batch of matrices.
- A key that must not be seen gets the score -1000: exactly nothing beside any key that may be seen, and no nan where none may.
- Each part has a form for streams: keys or values of frames before come first.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from avtlm.nn.zipformer.activations import scaled_linear
from avtlm.nn.zipformer.balancing import CHANCE_OF_PENALTY, Balancer, Whitener, limits, score_penalty
from avtlm.nn.zipformer.positions import by_key
from avtlm.nn.zipformer.schedules import Schedule, happens

HIDDEN = -1000.0
SKIP_POSITIONS = Schedule.line(0.5, 0.0, 4000.0)
# Weights do not change with a constant in all keys, so that its gradient is rounding alone, which an optimiser like Adam makes much of.
KEYS = Balancer(0.4, 0.6, 0.0, 100.0, chance=0.025)
GATE = Balancer(Schedule.line(0.25, 0.05, 20000.0), Schedule.line(0.75, 0.95, 20000.0), 0.5, 5.0)
OUT_OF_ATTENTION, INTO_GATE, OUT_OF_GATE = Whitener(limits(7.5, 3.0)), Whitener(limits(5.0)), Whitener(limits(5.0, 3.0))


@dataclass
class Weighing:
    """How much queries heed keys.

    Attributes:
        weights: (heads, batch, queries, keys).
        keys: what is kept of the keys, for a stream.
        penalty: for the loss, scalar; None without.
    """

    weights: Tensor
    keys: Tensor
    penalty: Tensor | None = None


class AttentionWeights(nn.Module):
    """See the module's docstring.

    Args:
        query_dim, position_dim: of a head.
        distance_dim: of the vectors of distances.
    """

    def __init__(self, dim: int, heads: int, query_dim: int, position_dim: int, distance_dim: int) -> None:
        super().__init__()
        self.heads, self.query_dim, self.position_dim = heads, query_dim, position_dim
        self.project = scaled_linear(dim, heads * (2 * query_dim + position_dim), query_dim**-0.25)
        self.positions = scaled_linear(distance_dim, heads * position_dim, 0.05, bias=False)
        self.whitener = Whitener(limits(3.0), heads, 0.025)

    def forward(
        self, x: Tensor, distances: Tensor, hidden: Tensor | None = None, past: Tensor | None = None, batches: float | None = None
    ) -> Weighing:
        """Weights of frames (batch, queries, dim).

        Args:
            distances: vectors (queries + keys - 1, distance_dim), see positions.distance_vectors.
            hidden: bool, broadcastable to (batch, queries, keys), True where a key must not be seen.
            past: keys of frames before, (batch, frames, heads x query_dim).
            batches: the count of a training; None outside.
        """
        batch, queries, _ = x.shape
        heads, wide = self.heads, self.heads * self.query_dim
        query, key, place = self.project(x).split([wide, wide, heads * self.position_dim], -1)
        key = self.whitener(KEYS(key, batches), batches)
        key = key if past is None else torch.cat([past, key], 1)
        keys = key.shape[1]
        scores = torch.bmm(by_head(query, heads).flatten(0, 1), by_head(key, heads).flatten(0, 1).transpose(1, 2))
        if batches is None or not happens(SKIP_POSITIONS(batches)):
            vectors = self.positions(distances).unflatten(1, (heads, -1)).permute(1, 2, 0)  # (heads, position_dim, distances)
            said = torch.bmm(by_head(place, heads).flatten(1, 2), vectors)
            scores += by_key(said.view(heads * batch, queries, -1), keys)
        penalty = score_penalty(scores) if batches is not None and happens(CHANCE_OF_PENALTY) else None
        scores = scores.view(heads, batch, queries, keys)
        wide_type = torch.promote_types(scores.dtype, torch.float32)
        if hidden is not None:
            scores = scores.masked_fill_(hidden, HIDDEN) if penalty is None else scores.masked_fill(hidden, HIDDEN)
        return Weighing(scores.softmax(-1, dtype=wide_type).to(scores.dtype), key, penalty)


class SelfAttention(nn.Module):
    """Values of few dimensions, weighed, and mapped back."""

    def __init__(self, dim: int, heads: int, value_dim: int) -> None:
        super().__init__()
        self.heads = heads
        self.value = nn.Linear(dim, heads * value_dim)
        self.output = scaled_linear(heads * value_dim, dim, 0.05)

    def forward(self, x: Tensor, weights: Tensor, past: Tensor | None = None, batches: float | None = None) -> tuple[Tensor, Tensor]:
        """Frames (batch, queries, dim) and weights (heads, batch, queries, keys) -> (batch, queries, dim), and the values of all keys.

        Args:
            past: values of frames before, (batch, frames, heads x value_dim).
        """
        value = self.value(x)
        value = value if past is None else torch.cat([past, value], 1)
        seen = torch.bmm(weights.flatten(0, 1), by_head(value, self.heads).flatten(0, 1).to(weights.dtype))
        seen = seen.unflatten(0, (self.heads, x.shape[0])).permute(1, 2, 0, 3).flatten(2)
        return OUT_OF_ATTENTION(self.output(seen), batches), value


class NonlinearAttention(nn.Module):
    """Gated frames, averaged with the weights of the first head, and gated again."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.width = 3 * dim // 4
        self.project = nn.Linear(dim, 3 * self.width)
        self.output = scaled_linear(self.width, dim, 0.05)

    def forward(self, x: Tensor, weights: Tensor, past: Tensor | None = None, batches: float | None = None) -> tuple[Tensor, Tensor]:
        """Frames (batch, queries, dim) and weights of one head (batch, queries, keys) -> (batch, queries, dim), and what is averaged.

        Args:
            past: what was averaged of frames before, (batch, frames, 3 / 4 dim).
        """
        gate, value, second = self.project(x).split(self.width, -1)
        value = INTO_GATE(value, batches) * GATE(gate, batches).tanh()
        value = value if past is None else torch.cat([past, value], 1)
        seen = torch.bmm(weights, value.to(weights.dtype)) * second
        return OUT_OF_GATE(self.output(seen), batches), value


def by_head(x: Tensor, heads: int) -> Tensor:
    """(batch, frames, heads x width) -> (heads, batch, frames, width), contiguous."""
    return x.unflatten(-1, (heads, -1)).permute(2, 0, 1, 3).contiguous()
