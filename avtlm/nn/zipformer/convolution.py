"""Convolution of single channels over time in the Zipformer, centred or causal by chunks (paper section 3.2; streaming recipes).

What is unusual here:
- A causal model sees all of a chunk of frames and what was before, never beyond. Its convolution is the sum of one of half the width that
  looks back alone, and one of the full width inside of each chunk, whose output is scaled by learned factors at the chunk's two ends.
- A clip's last chunk is as long as any other, with zeros behind its end, and without chunks every clip is one chunk of its own length. In
  the official code chunks end where the longest clip of the batch does (``compute_padding``), so that what a clip gives depends on it.
- Channels lie side by side, (batch, frames, channels), as everywhere in the model.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from avtlm.nn.zipformer.activations import SWOOSH_R, SwooshLinear
from avtlm.nn.zipformer.balancing import Balancer, Whitener, limits
from avtlm.nn.zipformer.schedules import Schedule

GATE = Balancer(Schedule.line(0.05, 0.025, 8000.0), 1.0, 1.5, Schedule.line(5.0, 10.0, 8000.0, 1.0))
CONVOLVED = Balancer(Schedule.line(0.1, 0.05, 8000.0), 1.0, Schedule.line(0.2, 0.5, 20000.0), 10.0)
WHITENER = Whitener(limits(7.5))


class DepthwiseConvolution(nn.Conv1d):
    """A convolution of single channels, (batch, frames, channels) -> (batch, frames + 2 x padding - taps + 1, channels)."""

    def __init__(self, channels: int, taps: int, padding: int) -> None:
        super().__init__(channels, channels, taps, padding=padding, groups=channels)

    def forward(self, x: Tensor) -> Tensor:
        # A picture of one line, whose channels lie side by side: nothing is copied.
        line = x.transpose(1, 2)[:, :, None]
        out = F.conv2d(line, self.weight[:, :, None], self.bias, padding=(0, int(self.padding[0])), groups=self.groups)
        return out[:, :, 0].transpose(1, 2)


class ChunkConvolution(nn.Module):
    """Causal by chunks, see the module's docstring. The factors start at 1, the bias of the causal part is uniform within 0.1."""

    def __init__(self, channels: int, taps: int, compute_padding: bool = False) -> None:
        super().__init__()
        self.taps, self.reach = taps, taps // 2
        self.compute_padding = compute_padding
        self.causal = DepthwiseConvolution(channels, (taps + 1) // 2, 0)
        self.chunkwise = DepthwiseConvolution(channels, taps, self.reach)
        self.chunkwise_scale = nn.Parameter(torch.zeros(2, channels, taps))
        assert self.causal.bias is not None
        nn.init.uniform_(self.causal.bias, -0.1, 0.1)

    def forward(self, x: Tensor, chunk: int, lengths: Tensor | None) -> Tensor:
        """(batch, frames, channels) -> the same; padded frames are zero on entry.

        Args:
            chunk: frames; -1 for all of a clip.
            lengths: (batch,) frames of each clip; None if all are whole.
        """
        frames = x.shape[1]
        causal = self.causal(F.pad(x, (0, 0, self.reach, 0)))
        if self.compute_padding and chunk > frames:
            chunk = -1
        if chunk < 0:
            ends = None if self.compute_padding else lengths
            return self.chunkwise(x) * (self.scale(frames) if ends is None else self.scale_of_rows(ends, frames)) + causal
        count = -(-frames // chunk)
        chunks = F.pad(x, (0, 0, 0, count * chunk - frames)).view(x.shape[0] * count, chunk, -1)
        inside = self.chunkwise(chunks) * self.scale(chunk)
        return inside.reshape(x.shape[0], count * chunk, -1)[:, :frames] + causal

    def step(self, x: Tensor, factors: Tensor, past: Tensor) -> tuple[Tensor, Tensor]:
        """One chunk of a stream, or what there is of its last one, and the frames to keep.

        Args:
            x: (batch, frames, channels), at most a chunk.
            factors: of the frames of a whole chunk, see `scale`.
            past: the ``reach`` frames before, zeros at the beginning.
        """
        seen = torch.cat([past, x], 1)
        out = torch.addcmul(self.causal(seen), self.chunkwise(x), factors[: x.shape[1]])
        return out, seen[:, seen.shape[1] - self.reach :]

    def scale(self, chunk: int) -> Tensor:
        """Factors of the frames of a chunk, (chunk, channels)."""
        shown, hidden = min(chunk, self.taps), max(0, chunk - self.taps)
        left, right = self.chunkwise_scale.transpose(1, 2)  # (taps, channels) each
        left, right = left[:shown], right[self.taps - shown :]
        return 1.0 + F.pad(left, (0, 0, 0, hidden)) + F.pad(right, (0, 0, hidden, 0))

    def scale_of_rows(self, lengths: Tensor, frames: int) -> Tensor:
        """Factors of clips that are one chunk each, (batch, frames, channels)."""
        left, right = F.pad(self.chunkwise_scale.transpose(1, 2), (0, 0, 1, 0))  # (taps + 1, channels) each, of which the first is 0
        time = torch.arange(frames, device=lengths.device)
        from_end = self.taps - lengths[:, None] + time  # place among the factors of the right end
        from_start = torch.where(time < self.taps, time + 1, 0)
        from_end = torch.where((from_end >= 0) & (time < lengths[:, None]), from_end + 1, 0)
        return 1.0 + F.embedding(from_start, left) + F.embedding(from_end, right)


class ConvolutionModule(nn.Module):
    """Gate, convolution of single channels, activation and linear map."""

    def __init__(self, dim: int, taps: int, causal: bool, compute_padding: bool = False) -> None:
        super().__init__()
        self.project = nn.Linear(dim, 2 * dim)
        self.depthwise = ChunkConvolution(dim, taps, compute_padding) if causal else DepthwiseConvolution(dim, taps, taps // 2)
        self.output = SwooshLinear(dim, dim, SWOOSH_R, 0.05)

    def forward(
        self, x: Tensor, there: Tensor | None = None, chunk: int = -1, lengths: Tensor | None = None, batches: float | None = None
    ) -> Tensor:
        """(batch, frames, dim) -> the same.

        Args:
            there: bool (batch, frames, 1), False at padding; None without any.
            chunk: frames that a causal model sees at once; -1 for all.
            lengths: (batch,) frames of each clip; None if all are whole.
            batches: the count of a training; None outside.
        """
        x = self._gated(x, batches)
        x = x if there is None else x * there
        x = self.depthwise(x, chunk, lengths) if isinstance(self.depthwise, ChunkConvolution) else self.depthwise(x)
        return self.output(WHITENER(CONVOLVED(x, batches), batches))

    def step(self, x: Tensor, factors: Tensor, past: Tensor) -> tuple[Tensor, Tensor]:
        """One chunk of a stream, see ChunkConvolution.step."""
        assert isinstance(self.depthwise, ChunkConvolution)
        out, past = self.depthwise.step(self._gated(x, None), factors, past)
        return self.output(out), past

    def _gated(self, x: Tensor, batches: float | None) -> Tensor:
        value, gate = self.project(x).chunk(2, -1)
        return value * GATE(gate, batches).sigmoid()
