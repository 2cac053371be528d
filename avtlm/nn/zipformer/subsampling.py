"""The convolutions before the Zipformer's stacks: filter-bank features at 100 Hz to vectors at 50 Hz (paper section 3.1, "Conv-Embed").

(batch, frames, bands) -> three 3 x 3 convolutions, a ConvNeXt block, a linear map, BiasNorm -> (batch, (frames - 7) // 2, dim).

What is unusual here:
- The block sees three frames ahead. Frames of padding are zeros to it, as beyond the end of a clip that comes alone; the official code lets
  it see what the convolutions made of padding (``compute_padding``), so that the last frames of a clip depend on its batch.
- Channels lie side by side, (batch, frames, bands, channels), so that pointwise convolutions are matrix products and nothing is copied.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from avtlm.nn.attention import padding_mask
from avtlm.nn.gradient import ScaleGradient
from avtlm.nn.zipformer.activations import SWOOSH_L, SWOOSH_R, Pointwise, SwooshPointwise, shared_dropout
from avtlm.nn.zipformer.balancing import Whitener, limits
from avtlm.nn.zipformer.norm import BiasNorm
from avtlm.nn.zipformer.schedules import Schedule, kept_rows

CHANNELS = (8, 32, 128)
AHEAD = 3  # frames that the ConvNeXt block sees on either side
FIELD, STRIDE = 9, 2  # frames of features that one vector sees before the block, and from one to the next
FIRST_GRADIENT = 0.2  # what is left of the gradient of the first convolution
SKIP = Schedule.line(0.2, 0.015, 20000.0)
DROPOUT = Schedule.line(0.3, 0.1, 20000.0)
BLOCK_WHITENER, WHITENER = Whitener(5.0), Whitener(limits(4.0), strength=0.02)


def frames_of(features: Tensor) -> Tensor:
    """How many vectors so many frames of features give, int of any shape."""
    return ((features - (FIELD - STRIDE)) // STRIDE).clamp(min=0)


def whole(lengths: Tensor, frames: int) -> bool:
    """Whether no row is padded, where that can be known without waiting for a device."""
    return lengths.device.type == "cpu" and not torch.compiler.is_exporting() and bool((lengths >= frames).all())


class ConvNextBlock(nn.Module):
    """x + contract(swoosh(expand(depthwise(x)))): a 7 x 7 convolution of single channels, and two of single places."""

    def __init__(self, channels: int = CHANNELS[-1], ratio: int = 3) -> None:
        super().__init__()
        self.depthwise = nn.Conv2d(channels, channels, 2 * AHEAD + 1, padding=AHEAD, groups=channels)
        self.expand = Pointwise(channels, ratio * channels)
        self.contract = SwooshPointwise(ratio * channels, channels, SWOOSH_L, 0.01)

    def forward(self, x: Tensor, there: Tensor | None = None, batches: float | None = None) -> Tensor:
        """(batch, frames, bands, channels) -> the same.

        Args:
            there: bool (batch, frames), where False the block sees zeros; None for all.
            batches: the count of a training; None outside.
        """
        seen = x if there is None else x * there[..., None, None].to(x.dtype)
        added = self._mix(self.depthwise(seen.permute(0, 3, 1, 2)))
        if batches is not None:
            added = added * kept_rows(len(x), SKIP(batches), added)[..., None]
        return BLOCK_WHITENER(x + added, batches)

    def step(self, x: Tensor, past: Tensor, last: bool) -> tuple[Tensor, Tensor]:
        """The same with frames of a stream, the last AHEAD of which only help the others until nothing follows.

        Args:
            x: (batch, frames, bands, channels).
            past: the AHEAD frames before them.
            last: whether nothing follows.

        Returns:
            As many frames as can be computed, and the AHEAD frames before those that were not.
        """
        seen = torch.cat([past, x], 1)
        seen = F.pad(seen, (0, 0, 0, 0, 0, AHEAD)) if last else seen
        conv = self.depthwise
        inner = F.conv2d(seen.permute(0, 3, 1, 2), conv.weight, conv.bias, padding=(0, AHEAD), groups=conv.groups)
        done = inner.shape[2]
        return x[:, :done] + self._mix(inner), seen[:, done : done + AHEAD]

    def _mix(self, x: Tensor) -> Tensor:
        """Channels of single places, (batch, channels, frames, bands) -> (batch, frames, bands, channels)."""
        return self.contract(self.expand(x.permute(0, 2, 3, 1)))


class BandLinear(nn.Linear):
    """A linear map of all bands and channels of a frame. Its weights have channels first, as the official ones; turning them around is less
    work than turning the frames."""

    def forward(self, x: Tensor) -> Tensor:
        """(batch, frames, bands, channels) -> (batch, frames, dim)."""
        weight = self.weight.unflatten(1, (x.shape[3], x.shape[2])).transpose(1, 2).flatten(1)
        return F.linear(x.flatten(2), weight, self.bias)


class ConvolutionalSubsampling(nn.Module):
    """See the module's docstring. Initialised as PyTorch does; the block starts as nearly nothing.

    Args:
        bands: of the filter bank, at least 7.
        compute_padding: let the block see padding, as the official code.
    """

    def __init__(self, bands: int, dim: int, compute_padding: bool = False) -> None:
        super().__init__()
        first, second, third = CHANNELS
        self.compute_padding = compute_padding
        self.convs = nn.ModuleList(
            [
                nn.Conv2d(1, first, 3, padding=(0, 1)),
                nn.Conv2d(first, second, 3, stride=STRIDE),
                nn.Conv2d(second, third, 3, stride=(1, 2)),
            ]
        )
        self.block = ConvNextBlock(third)
        self.bands = ((bands - 1) // 2 - 1) // 2
        self.project = BandLinear(self.bands * third, dim)
        self.norm = BiasNorm(dim)

    def convolve(self, features: Tensor, batches: float | None = None) -> Tensor:
        """What comes before the block: (batch, frames, bands) -> (batch, (frames - 7) // 2, fewer bands, channels).

        Raises:
            ValueError: there are fewer frames than one vector takes.
        """
        if features.shape[1] < FIELD:
            raise ValueError(
                f"features: {features.shape[1]} frames are too few for the Zipformer, which needs {FIELD} (0.1 seconds); pad the clip."
            )
        x = features[:, None].contiguous(memory_format=torch.channels_last)
        for number, conv in enumerate(self.convs):
            x = conv(x)
            if number == 0 and batches is not None:
                x = ScaleGradient.apply(x, FIRST_GRADIENT)
            x = SWOOSH_R(x)
        return x.permute(0, 2, 3, 1)

    def forward(self, features: Tensor, lengths: Tensor, batches: float | None = None) -> tuple[Tensor, Tensor]:
        """Features (batch, frames, bands) and their lengths (batch,) -> vectors (batch, (frames - 7) // 2, dim) and theirs.

        Args:
            batches: the count of a training; None outside.

        Raises:
            ValueError: fewer than 9 frames.
        """
        x, lengths = self.convolve(features, batches), frames_of(lengths)
        here = lengths.to(x.device)
        there = None if self.compute_padding or whole(lengths, x.shape[1]) else ~padding_mask(here, x.shape[1])
        return self.finish(self.block(x, there, batches), batches), lengths

    def finish(self, x: Tensor, batches: float | None = None) -> Tensor:
        """What follows the block: (batch, frames, bands, channels) -> (batch, frames, dim)."""
        x = self.norm(WHITENER(self.project(x), batches), batches)
        return x if batches is None else x * shared_dropout(x, DROPOUT(batches))
