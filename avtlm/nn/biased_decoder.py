"""The decoder of OFA: where a token stands biases what it attends to (Wang et al., arXiv 2202.03052; MMSpeech, arXiv 2212.00500).

What is unusual here:
- Learned positions are added to embeddings and, normed, give attention a bias of their own: between tokens, the same in all layers, and
  between tokens and what stands for the positions of the encoder's output. That comes beside it, as (batch, keys, 2 x dim).
- Every layer adds a learned bias for the distance between tokens to the first of them. Far distances share buckets.
- Queries are scaled by (scale_factor x head_dim) ** -0.5. Layers may norm what each part puts out, and scale its heads (NormFormer,
  Shleifer et al., arXiv 2110.09456).
- Search sees the first symbols of the vocabulary alone; those behind them (codes of speech) are only written in training.
"""

import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from avtlm.nn.adapters import ResidualAdapter
from avtlm.nn.attention import attention_weights
from avtlm.nn.cache import KeyValueCache
from avtlm.nn.dropout import Dropout, drop_rows
from avtlm.nn.feed_forward import Activation, FeedForward
from avtlm.nn.norm import LayerNorm
from avtlm.nn.transformer import Attention, Decoder, DecoderConfig, DecoderLayer, Memory

FARTHEST = 1024  # tokens: from this distance on all share the last bucket
SPARE_POSITIONS = 2  # rows of the official table behind the last position
ROOM = 64  # positions that are projected at once while a search goes token by token


@dataclass(frozen=True)
class BiasedDecoderConfig(DecoderConfig):
    """The defaults are the base decoder of MMSpeech.

    Attributes:
        distance_buckets: distances up to half of it have a bias of their own, farther ones share them; there are twice as many, less 1.
        scale_factor: see the module's docstring.
        attention_norms: norm what attention puts out (``scale_attn``).
        inner_norm: norm between the two maps of the feed-forward part (``scale_fc``).
        head_scales: a learned factor for each head (``scale_heads``).
        residual_scales: a learned factor for each value that passes by the feed-forward part (``scale_resids``).
        adapter_dim: width of adapters behind the feed-forward parts (``adapter``); 0 adds none.
        embedding_norm: norm embeddings with their positions.
        add_positions: add positions to embeddings; without, they are in the biases alone.
        drop_path: the share of rows for which a residual branch of the last layer is left out; it grows with the layer from 0.
    """

    heads: int = 12
    activation: Activation = "gelu"
    activation_dropout: float = 0.0
    scale_embedding: bool = True
    positions: Literal["sinusoidal", "learned", "none"] = "none"
    max_positions: int = 1024
    distance_buckets: int = 256
    scale_factor: float = 2.0
    attention_norms: bool = True
    inner_norm: bool = True
    head_scales: bool = True
    residual_scales: bool = False
    adapter_dim: int = 0
    embedding_norm: bool = True
    add_positions: bool = True
    drop_path: float = 0.1

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.positions != "none" or self.key_distance:
            raise ValueError(
                f"positions: {self.positions}, key_distance: {self.key_distance}; this decoder has learned positions of its own, so give "
                "none and 0."
            )
        if self.adapter_dim < 0:
            raise ValueError(f"adapter_dim: {self.adapter_dim}; give 0 for no adapters, or more.")
        if not 0.0 <= self.drop_path < 1.0:
            raise ValueError(f"drop_path: {self.drop_path} is not a probability; give a number from 0 up to, but not including, 1.")
        if not 4 <= self.distance_buckets <= FARTHEST or self.scale_factor <= 0:
            raise ValueError(
                f"distance_buckets: {self.distance_buckets}, scale_factor: {self.scale_factor}; give 4 to {FARTHEST} buckets, and a factor "
                "above 0."
            )


def distance_bucket(away: Tensor, buckets: int) -> Tensor:
    """The bucket of a query so many tokens behind its key (``make_token_bucket_position``).

    Args:
        away: int of any shape, negative where the key comes later.
        buckets: up to half of it each distance has its own bucket; from there on they grow with the logarithm.

    Returns:
        int from 0 to 2 x buckets - 2; buckets - 1 is distance 0.
    """
    half = buckets // 2
    near = (away < half) & (away > -half)
    distance = torch.where(near, half - 1, away.abs()).clamp(max=FARTHEST - 1)
    # In float32 and in this order, since a distance on the edge of a bucket falls by its rounding.
    far = torch.ceil(torch.log(distance / half) / math.log((FARTHEST - 1) / half) * (half - 1)) + half
    return torch.where(distance <= half, away, far.int() * away.sign()).long() + buckets - 1


@dataclass
class Placed:
    """Projected positions 0, 1, ..., for the biases: ``queries`` and ``keys`` of tokens among each other, ``looks`` of tokens at the
    memory, (positions, heads, head_dim) each."""

    queries: Tensor
    keys: Tensor
    looks: Tensor


@dataclass
class PlacedMemory(Memory):
    """A memory with what its positions say, (rows, keys, heads, head_dim), and the positions of tokens as far as they were projected."""

    places: Tensor
    tokens: Placed | None = None

    def select(self, rows: Tensor) -> "PlacedMemory":
        """Rows in another order or several times."""
        chosen = super().select(rows)
        return PlacedMemory(chosen.keys, chosen.values, chosen.lengths, self.places[rows], self.tokens)

    def heads_first(self) -> "PlacedMemory":
        """See Memory."""
        turned = super().heads_first()
        return PlacedMemory(turned.keys, turned.values, turned.lengths, self.places, self.tokens)


class ScaledFeedForward(FeedForward):
    """A feed-forward part with a norm behind its activation."""

    def __init__(self, dim: int, hidden: int, activation: str, activation_dropout: float) -> None:
        super().__init__(dim, hidden, activation, activation_dropout)
        self.inner_norm = LayerNorm(hidden)

    def forward(self, x: Tensor) -> Tensor:
        return self.contract(self.inner_norm(self.dropout(self.activation(self.expand(x)))))


class BiasedDecoderLayer(DecoderLayer):
    """A layer whose attentions are biased by positions.

    Args:
        drop_path: the share of rows for which a branch is left out in training.
    """

    def __init__(self, config: BiasedDecoderConfig, memory_dim: int, drop_path: float = 0.0) -> None:
        super().__init__(config, memory_dim)
        scaled = {"query_scale": config.scale_factor**-0.5, "head_scales": config.head_scales}
        self.self_attention = Attention(config.dim, config.heads, config.attention_dropout, **scaled)
        self.cross_attention = Attention(config.dim, config.heads, config.attention_dropout, memory_dim, **scaled)
        self.self_output_norm, self.cross_output_norm = (
            LayerNorm(config.dim) if config.attention_norms else nn.Identity() for _ in range(2)
        )
        if config.inner_norm:
            self.feed_forward = ScaledFeedForward(config.dim, config.feed_forward_dim, config.activation, config.activation_dropout)
        self.residual_scale = nn.Parameter(torch.ones(config.dim)) if config.residual_scales else None
        self.adapter = ResidualAdapter(config.dim, config.adapter_dim) if config.adapter_dim else nn.Identity()
        self.distances = nn.Embedding(2 * config.distance_buckets - 1, config.heads)
        nn.init.zeros_(self.distances.weight)
        self.buckets = config.distance_buckets
        self.drop_path = drop_path

    def forward(  # type: ignore[override]
        self,
        x: Tensor,
        memory_key: Tensor,
        memory_value: Tensor,
        memory_lengths: Tensor,
        own: Tensor,
        cross: Tensor,
        away: Tensor,
        extend: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]] | None = None,
        lengths: Tensor | None = None,
        weights: list[Tensor] | None = None,
    ) -> Tensor:
        """x (rows, new tokens, dim) -> the same; see DecoderLayer for what is not named here.

        Args:
            own: bias of positions (heads, new tokens, tokens).
            cross: bias (rows of the memory, heads, new tokens or 1, keys).
            away: bucket of every pair, (new tokens, tokens).
        """
        before = self.norm_first
        y = self.self_attention_norm(x) if before else x
        key, value = (self.self_attention.split(part(y)) for part in (self.self_attention.key, self.self_attention.value))
        if extend is not None:
            key, value = extend(key, value)
        bias = (own + self.distances(away).permute(2, 0, 1).to(own.dtype))[None]
        x = x + self._branch(self.self_output_norm(self.self_attention.weigh(y, key, value, lengths, bias, causal=bool(x.shape[1] > 1))))
        x = x if before else self.self_attention_norm(x)
        y = self.cross_attention_norm(x) if before else x
        queries = y.flatten(0, 1).unflatten(0, (memory_key.shape[0], -1))  # not at once: a graph would know one hypothesis from several
        if weights is not None:
            look = self.cross_attention.split(self.cross_attention.query(queries)) * self.cross_attention.query_scale
            weights.append(attention_weights(look, memory_key, memory_lengths, cross))
        seen = self.cross_attention.weigh(queries, memory_key, memory_value, memory_lengths, cross)
        x = x + self._branch(self.cross_output_norm(seen.flatten(0, 1).view(x.shape)))
        x = x if before else self.cross_attention_norm(x)
        y = self.adapter(self.dropout(self.feed_forward(self.feed_forward_norm(x) if before else x)))
        x = (x if self.residual_scale is None else x * self.residual_scale) + drop_rows(y, self.drop_path, self.training)
        return x if before else self.feed_forward_norm(x)

    def _branch(self, x: Tensor) -> Tensor:
        return drop_rows(self.dropout(x), self.drop_path, self.training)


class BiasedDecoder(Decoder):
    """Tokens to logits, attending to the encoder's output by what it says and where it stands.

    Initialisation: see Decoder; positions N(0, dim^-0.5), biases of distances 0.

    Args:
        memory_dim: width of what the encoder says. Its positions are as wide as the decoder.
        written: symbols that a search may write, the first ones; None for all.
    """

    config: BiasedDecoderConfig

    def __init__(
        self, config: BiasedDecoderConfig, vocabulary: int, memory_dim: int | None = None, padding_id: int = 1, written: int | None = None
    ) -> None:
        super().__init__(config, vocabulary, memory_dim, padding_id)
        self.written = written

    def _build(self, config: DecoderConfig, memory_dim: int | None) -> None:
        assert isinstance(config, BiasedDecoderConfig)
        self.config, dim = config, config.dim
        self.memory_dim = memory_dim or dim
        self.places = nn.Embedding(config.max_positions + SPARE_POSITIONS, dim)
        nn.init.normal_(self.places.weight, 0.0, dim**-0.5)
        self.place_norm = LayerNorm(dim)
        self.self_query, self.self_key, self.cross_query, self.cross_key = (nn.Linear(dim, dim) for _ in range(4))
        self.embedding_norm = LayerNorm(dim) if config.embedding_norm else nn.Identity()
        last = max(config.layers - 1, 1)
        self.layers = nn.ModuleList(
            BiasedDecoderLayer(config, self.memory_dim, config.drop_path * index / last) for index in range(config.layers)
        )
        self.norm = LayerNorm(dim) if config.norm_first else nn.Identity()
        self.distances = None
        self.dropout = Dropout(config.dropout)

    def project_memory(self, encoded: Tensor, lengths: Tensor) -> PlacedMemory:
        """Keys and values of the encoder's output for every layer, and of its positions.

        Args:
            encoded: (rows, keys, memory_dim + dim): what the encoder says, and beside it what stands for its positions.
        """
        said, placed = encoded.split([self.memory_dim, self.config.dim], -1)
        memory = super().project_memory(said, lengths)
        return PlacedMemory(memory.keys, memory.values, memory.lengths, self._heads(self.cross_key(placed)))

    def embed(self, tokens: Tensor, first: int = 0) -> Tensor:
        """What the layers see of tokens (rows, length), which stand at ``first`` and behind it: (rows, length, dim).

        Raises:
            ValueError: more tokens than there are positions.
        """
        last, config = first + tokens.shape[1], self.config
        if last > len(self.places.weight):
            raise ValueError(f"max_positions: {config.max_positions} learned positions are too few for token {last}; shorten the text.")
        x = self.embedding(tokens) * (config.dim**0.5 if config.scale_embedding else 1.0)
        if config.add_positions:
            x = x + self.places.weight[first:last].to(x.dtype)
        out: Tensor = self.dropout(self.embedding_norm(x))
        return out

    def step(self, tokens: Tensor, memory: Memory, state: KeyValueCache) -> tuple[Tensor, KeyValueCache]:
        """One token for every row, see Decoder; logits are of symbols that may be written."""
        x = self.decode(self.embed(tokens[:, None], state.length), memory, state)[:, -1]
        if self.output is None:
            return F.linear(x, self.embedding.weight[: self.written]), state
        return self.output(x)[:, : self.written], state

    def decode(
        self,
        x: Tensor,
        memory: Memory,
        cache: KeyValueCache | None = None,
        lengths: Tensor | None = None,
        weights: list[Tensor] | None = None,
        kept: list[Tensor] | None = None,
    ) -> Tensor:
        """Run the layers over vectors (rows, new tokens, dim) -> the same; see DecoderStack."""
        assert isinstance(memory, PlacedMemory)
        first = 0 if cache is None else cache.length
        end, new = first + x.shape[1], x.shape[1]
        placed = self._placed(memory, end, keep=cache is not None)
        own = torch.einsum("qhd,khd->hqk", placed.queries[first:end], placed.keys[:end])
        cross = torch.einsum("qhd,bkhd->bhqk", placed.looks[first:end], memory.places)
        width = x.shape[0] // memory.lengths.shape[0]
        if new > 1 and width > 1:
            cross = cross.repeat(1, 1, width, 1)  # hypotheses of an utterance lie side by side, each with its new tokens
        place = torch.arange(end, device=x.device)
        away = distance_bucket(place[first:, None] - place, self.config.distance_buckets)
        for index, layer in enumerate(self.layers):
            if self.training and self.config.layer_drop > 0 and torch.rand(()) < self.config.layer_drop:
                continue
            assert isinstance(layer, BiasedDecoderLayer)
            extend = None if cache is None else functools.partial(cache.append, index)
            x = layer(x, memory.keys[index], memory.values[index], memory.lengths, own, cross, away, extend, lengths, weights)
            if kept is not None:
                kept.append(x)
        if cache is not None:
            cache.advance(new)
        out: Tensor = self.norm(x)
        return out

    def _placed(self, memory: PlacedMemory, end: int, keep: bool) -> Placed:
        """Projections of at least ``end`` positions, those that the memory keeps if they are enough."""
        if keep and memory.tokens is not None and len(memory.tokens.keys) >= end:
            return memory.tokens
        count = min(-(-end // ROOM) * ROOM, len(self.places.weight)) if keep else end
        placed = self.placed(count)
        if keep:
            memory.tokens = placed
        return placed

    def placed(self, count: int) -> Placed:
        """Projections of the first ``count`` positions."""
        place = self.place_norm(self.places.weight[:count])
        scale = (self.config.scale_factor * self.config.dim / self.config.heads) ** -0.5
        query, key, look = (self._heads(part(place)) for part in (self.self_query, self.self_key, self.cross_query))
        return Placed(query * scale, key, look * scale)

    def _heads(self, x: Tensor) -> Tensor:
        """(..., dim) -> (..., heads, head_dim)."""
        return x.unflatten(-1, (self.config.heads, -1))
