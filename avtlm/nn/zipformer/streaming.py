"""A causal Zipformer that encodes sound as it comes: each chunk is computed once, with what the layers keep of those before.

    stream = ZipformerStream(encoder, chunk_size=32, left_context=128)
    for features in microphone:                 # (batch, any number of frames, bands)
        frames = stream.accept(features)        # (batch, what could be computed, dim)
    frames = stream.finish()

What comes out, put together, is what the model gives for the whole at once with the same ``chunk_size`` and ``left_context``.

What is unusual here:
- A chunk of n frames at 50 Hz takes 2 n + 13 frames of features, since the convolutions at the bottom see ahead; the stream then moves on
  by 2 n. Sound is encoded at the earliest when its chunk is full and 130 ms more have come.
- Memories begin empty and grow up to the left context, so that nothing that was never there has to be masked. The official code begins with
  full ones of zeros, and masks them.
"""

import torch
from torch import Tensor

from avtlm.nn.zipformer.encoder import Zipformer, chunks_before, widened
from avtlm.nn.zipformer.stack import Stack
from avtlm.nn.zipformer.subsampling import AHEAD, CHANNELS, FIELD, STRIDE, frames_of

LOOK_AHEAD = FIELD - STRIDE + STRIDE * AHEAD  # frames of features that a chunk takes beyond its own


class ZipformerStream:
    """Rows of a batch begin and end together.

    Args:
        encoder: a causal model, in evaluation.
        chunk_size: frames at 50 Hz.
        left_context: frames at 50 Hz that are seen before a chunk, rounded down to chunks but at least one; -1 for all.
        batch: rows.

    Raises:
        ValueError: the model is not causal, or chunks cannot be divided by the downsampling of its stacks.
    """

    def __init__(self, encoder: Zipformer, chunk_size: int, left_context: int = -1, batch: int = 1) -> None:
        if not encoder.config.causal:
            raise ValueError("causal: false; a stream needs a model that was trained with causal: true.")
        if encoder.training:
            raise ValueError("encoder: is in training, where things are drawn at random; call its eval().")
        if chunk_size < 1:
            raise ValueError(f"chunk_size: {chunk_size}; a stream needs chunks of some frames, such as 32.")
        encoder.config.check_chunk(chunk_size)
        self.encoder, self.chunk_size = encoder, chunk_size
        chunks = chunks_before(chunk_size, left_context)
        self.left_context = chunks * chunk_size if chunks > 0 else -1
        like = encoder.embed.norm.bias
        self._waiting = like.new_zeros(batch, 0, encoder.config.features)
        self.past = like.new_zeros(batch, AHEAD, encoder.embed.bands, CHANNELS[-1])
        self.memories = [stack.memories(batch, like, chunk_size) for stack in encoder.stacks if isinstance(stack, Stack)]
        self.finished = False

    @property
    def features_for_chunk(self) -> int:
        """Frames of features that have to be there for a chunk to be computed."""
        return STRIDE * self.chunk_size + LOOK_AHEAD

    @torch.no_grad()
    def accept(self, features: Tensor) -> Tensor:
        """Take further features (batch, frames, bands); gives the frames that they complete, (batch, frames, dim), often none.

        Raises:
            ValueError: the stream is over.
        """
        if self.finished:
            raise ValueError("features: the stream is over; begin another one.")
        self._waiting = torch.cat([self._waiting, features.to(self._waiting)], 1)
        found = []
        while self._waiting.shape[1] >= self.features_for_chunk:
            found.append(self._encode(self._waiting[:, : self.features_for_chunk], last=False))
            self._waiting = self._waiting[:, STRIDE * self.chunk_size :]
        return self._joined(found)

    @torch.no_grad()
    def finish(self) -> Tensor:
        """Nothing follows: the frames that are left, (batch, frames, dim)."""
        if self.finished:
            return self._joined([])
        self.finished = True
        count = int(frames_of(torch.tensor(self._waiting.shape[1])))
        return self._joined([self._encode(self._waiting, last=True)] if count else [])

    def _encode(self, features: Tensor, last: bool) -> Tensor:
        embed = self.encoder.embed
        x, self.past = embed.block.step(embed.convolve(features), self.past, last)
        return self._joined([self._through_stacks(part) for part in embed.finish(x).split(self.chunk_size, 1)])

    def _through_stacks(self, x: Tensor) -> Tensor:
        """At most one chunk, (batch, frames, dim) at 50 Hz -> (batch, fewer frames, dim)."""
        outputs = []
        for number, stack in enumerate(self.encoder.stacks):
            assert isinstance(stack, Stack)
            x = widened(x, stack.dim)
            x, self.memories[number] = stack.step(x, self.left_context, self.memories[number])
            outputs.append(x)
        frames: Tensor = self.encoder.downsample(self.encoder.joined(outputs))
        return frames

    def _joined(self, parts: list[Tensor]) -> Tensor:
        return torch.cat(parts, 1) if parts else self._waiting.new_zeros(len(self._waiting), 0, self.encoder.dim)
