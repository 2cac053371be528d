"""A stack of Zipformer layers at a frame rate of its own (paper section 3.1).

What is unusual here:
- A stack works on weighted means of groups of frames and repeats what it has made for every frame of a group; a bypass mixes that with
  what came in.
- A last group that is not full is filled up with the clip's last frame. The official code takes the last frame of the batch, so that what
  a clip gives depends on its batch (``compute_padding``).
"""

from typing import TypeVar

import torch
from torch import Tensor, nn

from avtlm.nn.attention import padding_mask
from avtlm.nn.dropout import drop
from avtlm.nn.zipformer.config import ZipformerConfig
from avtlm.nn.zipformer.layer import Bypass, LayerMemory, View, ZipformerLayer
from avtlm.nn.zipformer.positions import distance_vectors
from avtlm.nn.zipformer.schedules import Schedule
from avtlm.nn.zipformer.subsampling import whole

Count = TypeVar("Count", int, Tensor)
WARM_UP = 4000.0  # batches over which the layers are let in, one after another
FIRST_SKIP, LAST_SKIP = 0.5, 0.035  # the last one times the root of a stack's downsampling
POSITION_DROPOUT = 0.15


class Downsampling(nn.Module):
    """Weighted means of groups of frames; the weights are the softmax of a learned bias, even at first."""

    def __init__(self, factor: int, compute_padding: bool = False) -> None:
        super().__init__()
        self.factor, self.compute_padding = factor, compute_padding
        self.bias = nn.Parameter(torch.zeros(factor))

    def forward(self, x: Tensor, lengths: Tensor | None = None) -> Tensor:
        """(batch, frames, dim) -> (batch, ceil(frames / factor), dim).

        Args:
            lengths: (batch,) frames of each clip; None if all are whole.
        """
        batch, frames, dim = x.shape
        if lengths is not None and not self.compute_padding:
            last = x[torch.arange(batch, device=x.device), (lengths - 1).clamp(min=0)]
            x = torch.where(padding_mask(lengths, frames)[..., None], last[:, None], x)
        if torch.compiler.is_exporting():  # a graph knows no number of frames, hence not what is missing
            count = downsampled(frames, self.factor)
            groups = x[:, torch.arange(count * self.factor, device=x.device).clamp(max=frames - 1)].unflatten(1, (count, self.factor))
            return (groups * self.bias.softmax(0).to(x.dtype)[:, None]).sum(2)
        missing = -frames % self.factor
        if missing:
            x = torch.cat([x, x[:, -1:].expand(-1, missing, -1)], 1)
        groups = x.reshape(batch, -1, self.factor, dim)
        return (groups * self.bias.softmax(0).to(x.dtype)[:, None]).sum(2)


def downsampled(lengths: Count, factor: int) -> Count:
    """Frames that so many frames give, int of any shape."""
    return (lengths + factor - 1) // factor


class Stack(nn.Module):
    """Stack ``number`` of a model."""

    def __init__(self, config: ZipformerConfig, number: int) -> None:
        super().__init__()
        self.factor, self.causal, self.compute_padding = config.downsampling[number], config.causal, config.compute_padding
        self.position_dim, self.dim = config.position_dim, config.dims[number]
        count, stacks = config.layers[number], len(config.layers)
        begin, window = WARM_UP * (number + 1) / (stacks + 1), WARM_UP / (stacks + 1) / count
        skips = [
            Schedule(((begin + place * window, FIRST_SKIP), (begin + (place + 1) * window, LAST_SKIP * self.factor**0.5)))
            for place in range(count)
        ]
        self.layers = nn.ModuleList(
            ZipformerLayer(
                self.dim,
                config.feed_forward[number],
                config.heads[number],
                *config.head_dims(number),
                config.position_dim,
                config.kernels[number],
                config.causal,
                skip,
                config.constant_attention,
                config.compute_padding,
            )
            for skip in skips
        )
        self.downsample = Downsampling(self.factor, config.compute_padding) if self.factor > 1 else None
        self.bypass = Bypass(self.dim) if self.factor > 1 else None

    def forward(
        self,
        x: Tensor,
        lengths: Tensor,
        chunk: int = -1,
        left: int = -1,
        mask: Tensor | None = None,
        batches: float | None = None,
        penalties: list[Tensor] | None = None,
    ) -> tuple[Tensor, list[Tensor]]:
        """(batch, frames, dim) at 50 Hz -> the same, and what each layer gives at the rate of the stack.

        Args:
            lengths: (batch,) at 50 Hz.
            chunk: frames at 50 Hz that are seen at once; -1 for all.
            left: chunks before its own that a frame sees; -1 for all.
            mask: factors of channels of clips, (batch, 1, dim), for training.
            batches: the count of a training; None outside.
            penalties: gets what layers ask of the loss.
        """
        padded = None if whole(lengths, x.shape[1]) else lengths.to(x.device)
        slow = x if self.downsample is None else self.downsample(x, padded)
        frames = slow.shape[1]
        own = None if padded is None else downsampled(padded, self.factor)
        padding = None if own is None else padding_mask(own, frames)
        hidden = None if padding is None else padding[:, None]
        if chunk > 0:
            unseen = beyond_chunks(frames, self.factor, chunk, left, x.device)
            hidden = unseen if hidden is None else hidden | unseen
        distances = distance_vectors(frames, frames, self.position_dim, x.device)
        if batches is not None:
            distances = drop(distances, POSITION_DROPOUT)
        there = None if padding is None else ~padding[..., None]
        chunk = chunk // self.factor if chunk > 0 else -1
        view = View(distances, hidden, there, own, chunk, batches, [] if penalties is None else penalties)
        slow = slow if mask is None else slow * mask
        outputs = []
        for layer in self.layers:
            slow = layer(slow, view)
            slow = slow if mask is None else slow * mask
            outputs.append(slow)
        return self._rejoin(x, slow, batches), outputs

    def _rejoin(self, x: Tensor, slow: Tensor, batches: float | None) -> Tensor:
        if self.bypass is None:
            return slow
        if torch.compiler.is_exporting():
            return self.bypass(x, slow[:, torch.arange(x.shape[1], device=x.device) // self.factor], batches)
        repeated = slow[:, :, None].expand(-1, -1, self.factor, -1).flatten(1, 2)[:, : x.shape[1]]
        return self.bypass(x, repeated, batches)

    def step(self, x: Tensor, left: int, memories: list[LayerMemory]) -> tuple[Tensor, list[LayerMemory]]:
        """A chunk of a stream, or what there is of its last one: (batch, frames, dim) at 50 Hz -> the same, and what to keep.

        Args:
            left: frames at 50 Hz that are kept; -1 for all.
        """
        slow = x if self.downsample is None else self.downsample(x)
        distances = distance_vectors(slow.shape[1], memories[0].keys.shape[1] + slow.shape[1], self.position_dim, x.device)
        kept = []
        for layer, memory in zip(self.layers, memories, strict=True):
            assert isinstance(layer, ZipformerLayer)
            slow, memory = layer.step(slow, distances, left // self.factor if left > 0 else -1, memory)
            kept.append(memory)
        return self._rejoin(x, slow, None), kept

    @torch.no_grad()
    def memories(self, batch: int, like: Tensor, chunk: int) -> list[LayerMemory]:
        """Of a stream at its beginning, with chunks of so many frames at 50 Hz, see ZipformerLayer.memory."""
        return [layer.memory(batch, like, chunk // self.factor) for layer in self.layers if isinstance(layer, ZipformerLayer)]


def beyond_chunks(frames: int, factor: int, chunk: int, left: int, device: torch.device | None = None) -> Tensor:
    """Which keys no query of a causal model may see, bool (frames, frames): those of later chunks, and those too far before.

    Args:
        factor: downsampling of the frames.
        chunk: frames at 50 Hz.
        left: chunks before its own that a query sees; -1 for all.
    """
    number = torch.arange(frames, device=device) * factor // chunk
    ahead = number[None, :] > number[:, None]
    return ahead if left < 0 else ahead | (number[None, :] < number[:, None] - left)
