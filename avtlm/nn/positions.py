"""Where in the sequence a frame or a token is.

Positional convolutions (wav2vec 2.0 section 2; data2vec's stack of them), gated relative positions (WavLM section III-B), learned vectors
of distances (Shaw et al. 2018, as SpeechT5 has them), sinusoids (Transformer section 3.5) and learned tables.
"""

import math
from typing import Literal, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrizations

from avtlm.nn.convolution import convolve
from avtlm.nn.feed_forward import ACTIVATIONS, Activation
from avtlm.nn.packing import Packing

PositionNorm = Literal["weight", "batch", "layer"]


class ConvolvesOverTime(Protocol):
    """What positional convolutions have in common.

    ``reach`` is how many frames on each side one convolution sees; ``compute_padding`` whether its result depends on padding.
    """

    reach: int
    compute_padding: bool

    def __call__(self, x: Tensor, padding: Tensor | None = None) -> Tensor: ...


def convolve_packed(positions: ConvolvesOverTime, x: Tensor, packing: Packing) -> Tensor:
    """A positional convolution over packed frames (frames of all, dim) -> the same, equal to the one over the padded batch.

    The sequences are laid end to end with zeros between them, as many as a convolution sees; where that would make more frames than the
    padded batch has, or the result depends on padding, this is the padded batch.
    """
    if positions.compute_padding or packing.rows * (packing.width - positions.reach) <= len(packing.places):
        laid = packing
    else:
        laid = packing.end_to_end(positions.reach)
    return laid.pack(positions(laid.unpack(x), laid.padding))


class PositionalConvolution(nn.Module):
    """Grouped convolution over time whose output is added to its input by the encoder.

    An even kernel yields one output too many, which is dropped at the end. Initialised N(0, sqrt(4 / (kernel * dim))).

    Args:
        norm: ``weight`` norms the weights; ``batch`` puts a batch norm before the convolution instead (HuBERT's models for bfloat16).
        compute_padding: let a batch norm make something of padding, as the official code does.
    """

    def __init__(
        self,
        dim: int,
        kernel: int = 128,
        groups: int = 16,
        activation: Activation = "gelu",
        norm: PositionNorm = "weight",
        compute_padding: bool = False,
    ) -> None:
        super().__init__()
        if dim % groups:
            raise ValueError(f"position_groups: {groups} does not divide dim {dim}; choose a divisor of dim.")
        self.reach = kernel // 2
        self.activation = ACTIVATIONS[activation]
        self.norm = nn.BatchNorm1d(dim) if norm == "batch" else None
        self.compute_padding = compute_padding and self.norm is not None
        conv = nn.Conv1d(dim, dim, kernel, padding=self.reach, groups=groups)
        nn.init.normal_(conv.weight, 0.0, math.sqrt(4.0 / (kernel * dim)))
        nn.init.zeros_(conv.bias if conv.bias is not None else conv.weight)
        self.conv = conv if norm == "batch" else parametrizations.weight_norm(conv, dim=2)

    def forward(self, x: Tensor, padding: Tensor | None = None) -> Tensor:
        """(batch, frames, dim) -> (batch, frames, dim); padded frames, True in ``padding`` (batch, frames), must be zero on entry."""
        if self.norm is not None:
            there = torch.ones_like(x[..., 0], dtype=torch.bool) if padding is None or self.compute_padding else ~padding
            if torch.compiler.is_exporting():  # a graph knows no number of true frames
                normed = self.norm(x.transpose(1, 2)).transpose(1, 2).to(x.dtype)
                x = normed.masked_fill(~there[..., None], 0.0)
            else:
                x = torch.zeros_like(x).masked_scatter(there[..., None], self.norm(x[there]).to(x.dtype))
        conv = self.conv
        out = convolve(x.transpose(1, 2), conv.weight, conv.bias, self.reach, conv.groups)[..., : x.shape[1]]
        return self.activation(out).transpose(1, 2)


class StackedPositionalConvolution(nn.Module):
    """Several grouped convolutions over time, each normed over channels without learned gains (data2vec, MT4SSL); the encoder adds the
    result to its input once.

    Args:
        kernel: of all of them together; each takes ``kernel // blocks``.
        compute_padding: let the blocks behind the first see what the ones before made of the padding, as the official code does; what a
            clip gives then depends on what it is batched with.
    """

    def __init__(
        self,
        dim: int,
        kernel: int = 95,
        groups: int = 16,
        blocks: int = 5,
        compute_padding: bool = False,
        activation: Activation = "gelu",
    ) -> None:
        super().__init__()
        if dim % groups or kernel < blocks:
            raise ValueError(
                f"position_groups: {groups}, position_kernel: {kernel}, position_blocks: {blocks}; "
                f"choose a divisor of dim {dim}, and a kernel of at least 1 frame for each block."
            )
        each = kernel // blocks
        self.dim = dim
        self.activation = ACTIVATIONS[activation]
        self.compute_padding = compute_padding
        self.reach = each // 2
        self.convs = nn.ModuleList(nn.Conv1d(dim, dim, each, padding=self.reach, groups=groups) for _ in range(blocks))

    def forward(self, x: Tensor, padding: Tensor | None = None) -> Tensor:
        """(batch, frames, dim) -> the same; padded frames, True in ``padding`` (batch, frames), must be zero on entry."""
        frames = x.shape[1]
        for index, conv in enumerate(self.convs):
            if index and padding is not None and not self.compute_padding:
                x = x.masked_fill(padding[..., None], 0.0)
            x = F.layer_norm(conv(x.transpose(1, 2))[..., :frames].transpose(1, 2), (self.dim,))
            # Transposed as in the official code: over contiguous memory PyTorch computes another GELU on CPUs, off by some 1e-6.
            x = self.activation(x.transpose(1, 2)).transpose(1, 2)
        return x


class RelativePositions(nn.Module):
    """A learned bias for every head and distance between frames; far distances share buckets that grow logarithmically.

    Half of the buckets are for keys behind the query, half for keys ahead. Initialised N(0, 0.02) like embeddings of the encoder.

    Args:
        buckets: in all.
        distance: from which on all distances share the last bucket.
    """

    def __init__(self, heads: int, buckets: int = 320, distance: int = 800) -> None:
        super().__init__()
        if buckets < 4 or distance <= buckets // 4:
            raise ValueError(
                f"relative_buckets: {buckets}, relative_distance: {distance}; "
                "give at least 4 buckets and a distance above a quarter of them."
            )
        self.buckets = buckets
        self.distance = distance
        self.table = nn.Embedding(buckets, heads)

    def forward(self, frames: int) -> Tensor:
        """Bias (heads, frames, frames) of each key (last) for each query."""
        place = torch.arange(frames, device=self.table.weight.device)
        bias: Tensor = self.table(self.bucket(place[None, :] - place[:, None]))
        return bias.permute(2, 0, 1)

    def bucket(self, ahead: Tensor) -> Tensor:
        """The bucket of a key ``ahead`` frames after its query, int of any shape."""
        half = self.buckets // 2
        exact = half // 2
        away = ahead.abs()
        growth = torch.log(away.float().clamp(min=1) / exact) / math.log(self.distance / exact)
        far = (exact + growth * (half - exact)).long().clamp(max=half - 1)
        return (ahead > 0).long() * half + torch.where(away < exact, away, far)


class PositionGate(nn.Module):
    """How much each query of each head heeds relative positions (WavLM section III-B, eq. 3-7, in the released code's form)."""

    def __init__(self, heads: int, head_dim: int) -> None:
        super().__init__()
        self.project = nn.Linear(head_dim, 8)
        self.scale = nn.Parameter(torch.ones(heads))

    def forward(self, x: Tensor) -> Tensor:
        """Inputs of the attention by head, (..., queries, heads, head_dim) -> factors (..., queries, heads)."""
        update, reset = self.project(x).unflatten(-1, (2, 4)).sum(-1).sigmoid().unbind(-1)
        gate: Tensor = update * (reset * self.scale - 1.0) + 2.0
        return gate


class KeyPositions(nn.Module):
    """A learned vector for every distance between query and key, which each query is multiplied with as with a key (Shaw et al.,
    arXiv 1803.02155, eq. 4, without vectors for values).

    All heads and layers share it. Initialised N(0, 0.02) like embeddings of the encoder.

    Args:
        head_dim: width of a head.
        distance: from which on all distances share a vector; there are 2 x distance vectors, for query - key = -distance to distance - 1.
    """

    def __init__(self, head_dim: int, distance: int) -> None:
        super().__init__()
        self.distance = distance
        self.table = nn.Embedding(2 * distance, head_dim)
        nn.init.normal_(self.table.weight, 0.0, 0.02)


def distance_bias(query: Tensor, keys: int, vectors: Tensor) -> Tensor:
    """What queries say about how far away their keys are.

    Args:
        query: (batch, queries, heads, head_dim); its last one stands at the last key, as with a cache.
        keys: how many there are.
        vectors: of distances, (2 x distance, head_dim), see KeyPositions.

    Returns:
        Bias of the attention, (batch, heads, queries, keys), scaled as the products of queries and keys are.
    """
    distance = len(vectors) // 2
    said = torch.einsum("bqhd,nd->bhqn", query * query.shape[-1] ** -0.5, vectors.to(query.dtype))
    place = torch.arange(keys, device=query.device)
    away = (place[keys - query.shape[1] :, None] - place).clamp(-distance, distance - 1) + distance
    return said.gather(3, away.expand(*said.shape[:2], -1, -1))


class SinusoidalPositions(nn.Module):
    """Fixed sinusoids, sine half then cosine half, as fairseq lays them out: the first token has position ``offset`` (padding id + 1)."""

    def __init__(self, dim: int, offset: int = 2) -> None:
        super().__init__()
        if dim % 2:
            raise ValueError(f"decoder dim: {dim} is odd; sinusoidal positions need an even width.")
        self.dim = dim
        self.offset = offset

    def forward(self, positions: Tensor) -> Tensor:
        """positions, any shape of int (0 for the first token) -> (..., dim)."""
        half = self.dim // 2
        rate = torch.exp(torch.arange(half, device=positions.device, dtype=torch.float32) * -(math.log(10000.0) / (half - 1)))
        angle = (positions + self.offset).float()[..., None] * rate
        return torch.cat([angle.sin(), angle.cos()], dim=-1)


class ScaledPositions(nn.Module):
    """Sinusoids times one learned factor, sines at even and cosines at odd places, as ESPnet lays them out: the first position is 0.

    Args:
        learned: there is such a factor; without one, what they are added to is multiplied by ``gain``, the root of ``dim``.
    """

    def __init__(self, dim: int, learned: bool = True) -> None:
        super().__init__()
        if dim % 2:
            raise ValueError(f"dim: {dim} is odd; sinusoidal positions need an even width.")
        self.dim = dim
        self.gain = 1.0 if learned else dim**0.5
        self.scale = nn.Parameter(torch.ones(())) if learned else None

    def forward(self, positions: Tensor) -> Tensor:
        """positions, any shape of int -> (..., dim)."""
        even = torch.arange(0, self.dim, 2, device=positions.device, dtype=torch.float32)
        angle = positions.float()[..., None] * torch.exp(even * -(math.log(10000.0) / self.dim))
        sinusoids = torch.stack([angle.sin(), angle.cos()], -1).flatten(-2)
        return sinusoids if self.scale is None else self.scale * sinusoids

    def place(self, x: Tensor) -> Tensor:
        """Add those of the first positions: (batch, length, dim) -> the same."""
        return self.gain * x + self(torch.arange(x.shape[1], device=x.device)).to(x.dtype)


class LearnedPositions(nn.Module):
    """One learned vector for each of ``count`` positions, laid out as fairseq does: the first token has row ``offset`` (padding id + 1).

    Initialised N(0, dim^-0.5).
    """

    def __init__(self, dim: int, count: int, offset: int = 2) -> None:
        super().__init__()
        self.count = count
        self.offset = offset
        self.table = nn.Embedding(count + offset, dim, padding_idx=offset - 1)
        nn.init.normal_(self.table.weight, 0.0, dim**-0.5)
        nn.init.zeros_(self.table.weight[offset - 1])

    def forward(self, positions: Tensor) -> Tensor:
        """positions, any shape of int (0 for the first token) -> (..., dim).

        Raises:
            ValueError: a position beyond the table.
        """
        checked = not torch.compiler.is_exporting()  # a graph cannot complain; whoever runs it keeps to the table
        if checked and positions.numel() and int(positions.max()) >= self.count:
            raise ValueError(f"max_positions: {self.count} learned positions are too few for token {int(positions.max()) + 1}; shorten it.")
        out: Tensor = self.table(positions + self.offset)
        return out
