"""One layer of the Zipformer, and the bypasses that learn how much of it to use (paper section 3.2, figure 3).

A layer computes attention weights once and uses them three times. In order: feed-forward, nonlinear attention, attention, convolution,
feed-forward, a bypass, attention, convolution, feed-forward, BiasNorm, a bypass.

What is unusual here:
- Training drops parts of a layer for whole clips, ever less often, and keeps the bypasses near 1 at first so that every layer learns.
- A layer has a form for streams, which works on a chunk and what it keeps of the frames before (`LayerMemory`).
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from avtlm.nn.zipformer.activations import SWOOSH_L, SwooshLinear
from avtlm.nn.zipformer.attention import AttentionWeights, NonlinearAttention, SelfAttention
from avtlm.nn.zipformer.balancing import Balancer, Whitener, bound_at_times, limits
from avtlm.nn.zipformer.convolution import ChunkConvolution, ConvolutionModule
from avtlm.nn.zipformer.norm import BiasNorm
from avtlm.nn.zipformer.schedules import Schedule, happens, kept_rows

DROPOUT = Schedule.line(0.3, 0.1, 20000.0)
SKIP_DYNAMIC = Schedule(((0.0, 0.2), (4000.0, 0.05), (16000.0, 0.0)))  # attention and convolution
SKIP_FEED_FORWARD = Schedule(((0.0, 0.1), (4000.0, 0.01), (50000.0, 0.0)))  # the second and the third one
EVEN_ATTENTION = Schedule.line(0.25, 0.025, 4000.0)
LEAST_BYPASS = Schedule.line(0.9, 0.2, 20000.0)

MIDDLE_OF_FEED_FORWARD, OUT_OF_FEED_FORWARD = Balancer(0.3, 1.0, 0.75, 5.0), Whitener(limits(7.5))
BEFORE_NORM, BEHIND_LAYER = Balancer(0.45, 0.55, 0.2, 4.0), Balancer(0.45, 0.55, 0.1, 4.0)
NONLINEAR = Balancer(0.3, 0.7, Schedule.line(0.004, 0.02, 4000.0), chance=0.05)
SECOND = Balancer(0.3, 0.7, Schedule.line(0.0, 0.1, 4000.0), 2.0, chance=0.05)
THIRD = Balancer(0.3, 0.7, Schedule.line(0.0, 0.2, 4000.0), 4.0, chance=0.05)
WHITENER = Whitener(limits(4.0, 3.0))


@dataclass
class View:
    """What all layers of a stack need to know of a batch.

    Attributes:
        distances: vectors (queries + keys - 1, position_dim).
        hidden: bool, broadcastable to (batch, queries, keys), keys that must not be seen; None if all may.
        there: bool (batch, frames, 1), False at padding; None without any.
        lengths: (batch,); None if no clip is padded.
        chunk: frames that are seen at once, at the rate of the stack; -1 for all.
        batches: the count of a training; None outside.
        penalties: what layers ask of the loss.
    """

    distances: Tensor
    hidden: Tensor | None
    there: Tensor | None
    lengths: Tensor | None
    chunk: int
    batches: float | None
    penalties: list[Tensor]


@dataclass
class LayerMemory:
    """What a layer of a stream keeps of the frames before, each (batch, frames, width), and factors that its convolutions have in every
    chunk, (frames, width)."""

    keys: Tensor
    nonlinear: Tensor
    values1: Tensor
    values2: Tensor
    convolution1: Tensor
    convolution2: Tensor
    factors1: Tensor
    factors2: Tensor


class Bypass(nn.Module):
    """start + (end - start) * scale, with a learned scale for each channel that starts at 0.5."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.full((dim,), 0.5))

    def forward(self, start: Tensor, end: Tensor, batches: float | None = None, skip: float = 0.0) -> Tensor:
        """(batch, frames, dim) each -> the same.

        Args:
            batches: the count of a training; None outside.
            skip: probability that a clip takes ``start``.
        """
        scale = bound_at_times(self.scale, LEAST_BYPASS, 1.0, batches)
        if skip > 0.0:
            scale = scale * kept_rows(len(start), skip, scale)
        return torch.lerp(start, end, scale)


class FeedForward(nn.Module):
    """Linear, SwooshL, dropout, linear."""

    def __init__(self, dim: int, hidden: int) -> None:
        super().__init__()
        self.expand = nn.Linear(dim, hidden)
        self.contract = SwooshLinear(hidden, dim, SWOOSH_L, 0.1)

    def forward(self, x: Tensor, batches: float | None = None) -> Tensor:
        """(batch, frames, dim) -> the same."""
        inner = MIDDLE_OF_FEED_FORWARD(self.expand(x), batches)
        return OUT_OF_FEED_FORWARD(self.contract(inner, DROPOUT(batches)), batches)


class ZipformerLayer(nn.Module):
    """See the module's docstring.

    Args:
        skip: probability that a clip leaves the layer out.
        even_attention: let weights be even at times, see ZipformerConfig.constant_attention.
    """

    def __init__(
        self,
        dim: int,
        feed_forward: int,
        heads: int,
        query_dim: int,
        value_dim: int,
        position_head_dim: int,
        position_dim: int,
        taps: int,
        causal: bool,
        skip: Schedule,
        even_attention: bool,
        compute_padding: bool,
    ) -> None:
        super().__init__()
        self.skip, self.even_attention = skip, even_attention
        self.attention_weights = AttentionWeights(dim, heads, query_dim, position_head_dim, position_dim)
        self.attention1 = SelfAttention(dim, heads, value_dim)
        self.attention2 = SelfAttention(dim, heads, value_dim)
        self.feed_forward1 = FeedForward(dim, 3 * feed_forward // 4)
        self.feed_forward2 = FeedForward(dim, feed_forward)
        self.feed_forward3 = FeedForward(dim, 5 * feed_forward // 4)
        self.nonlinear_attention = NonlinearAttention(dim)
        self.convolution1 = ConvolutionModule(dim, taps, causal, compute_padding)
        self.convolution2 = ConvolutionModule(dim, taps, causal, compute_padding)
        self.norm = BiasNorm(dim)
        self.bypass = Bypass(dim)
        self.middle_bypass = Bypass(dim)

    def forward(self, x: Tensor, view: View) -> Tensor:
        """(batch, frames, dim) -> the same."""
        start, batches = x, view.batches
        weighing = self.attention_weights(x, view.distances, view.hidden, None, batches)
        weights = weighing.weights
        if weighing.penalty is not None:
            view.penalties.append(weighing.penalty)
        dynamic, forwards = SKIP_DYNAMIC(batches), SKIP_FEED_FORWARD(batches)
        attending = kept_rows(len(x), dynamic, x) if dynamic > 0.0 else None

        def attended(part: Tensor) -> Tensor:
            return part if attending is None else part * attending

        def dropped(part: Tensor, probability: float) -> Tensor:
            return part * kept_rows(len(part), probability, part) if probability > 0.0 else part

        def convolved(part: ConvolutionModule) -> Tensor:
            return dropped(part(x, view.there, view.chunk, view.lengths, batches), dynamic)

        x = x + self.feed_forward1(x, batches)
        first = weights[0]
        if batches is not None and self.even_attention and happens(EVEN_ATTENTION(batches)):
            first = (first > 0.0).to(first.dtype)
            first = first / first.sum(-1, keepdim=True)
        x = x + attended(NONLINEAR(self.nonlinear_attention(x, first, None, batches)[0], batches))
        x = x + attended(self.attention1(x, weights, None, batches)[0])
        x = x + convolved(self.convolution1)
        x = x + dropped(SECOND(self.feed_forward2(x, batches), batches), forwards)
        x = self.middle_bypass(start, x, batches)
        x = x + attended(self.attention2(x, weights, None, batches)[0])
        x = x + convolved(self.convolution2)
        x = x + dropped(THIRD(self.feed_forward3(x, batches), batches), forwards)
        x = self.norm(BEFORE_NORM(x, batches), batches)
        x = self.bypass(start, x, batches, self.skip(batches))
        return WHITENER(BEHIND_LAYER(x, batches), batches)

    def step(self, x: Tensor, distances: Tensor, left: int, memory: LayerMemory) -> tuple[Tensor, LayerMemory]:
        """A chunk of a stream, or what there is of its last one: (batch, frames, dim) -> the same, and what to keep.

        Args:
            left: frames that are kept; -1 for all.
        """

        def kept(part: Tensor) -> Tensor:
            return part if left < 0 else part[:, max(0, part.shape[1] - left) :]

        start = x
        weighing = self.attention_weights(x, distances, None, memory.keys)
        weights = weighing.weights
        x = x + self.feed_forward1(x)
        added, nonlinear = self.nonlinear_attention(x, weights[0], memory.nonlinear)
        x = x + added
        added, values1 = self.attention1(x, weights, memory.values1)
        x = x + added
        added, convolution1 = self.convolution1.step(x, memory.factors1, memory.convolution1)
        x = x + added
        x = x + self.feed_forward2(x)
        x = self.middle_bypass(start, x)
        added, values2 = self.attention2(x, weights, memory.values2)
        x = x + added
        added, convolution2 = self.convolution2.step(x, memory.factors2, memory.convolution2)
        x = x + added
        x = x + self.feed_forward3(x)
        x = self.bypass(start, self.norm(x))
        seen = (kept(weighing.keys), kept(nonlinear), kept(values1), kept(values2))
        return x, LayerMemory(*seen, convolution1, convolution2, memory.factors1, memory.factors2)

    def memory(self, batch: int, like: Tensor, chunk: int) -> LayerMemory:
        """Of a stream at its beginning, on the device and in the precision of a tensor.

        Args:
            chunk: frames of one, at the rate of the stack.
        """
        first, second = self.convolution1.depthwise, self.convolution2.depthwise
        assert isinstance(first, ChunkConvolution)
        assert isinstance(second, ChunkConvolution)
        attention, values = self.attention_weights, self.attention1.value.out_features

        def none(width: int) -> Tensor:
            return like.new_zeros(batch, 0, width)

        def edge(part: ChunkConvolution) -> Tensor:
            return like.new_zeros(batch, part.reach, part.chunkwise.out_channels)

        keys, nonlinear = none(attention.heads * attention.query_dim), none(self.nonlinear_attention.width)
        return LayerMemory(keys, nonlinear, none(values), none(values), edge(first), edge(second), first.scale(chunk), second.scale(chunk))
