"""Log mel spectrograms to waveforms: the generator of HiFi-GAN (Kong et al., arXiv 2010.05646, section 2), as SpeechT5's vocoders have it.

What is unusual here:
- Spectrograms are brought to zero mean and unit variance by statistics that belong to the weights.
- Weights are plain; the official ones are weight-normed in training alone.
- The last activation leaks 0.01 where the others leak ``leak``, as in the released code.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class VocoderConfig:
    """Sizes; the defaults are those of SpeechT5's vocoder (12,656,257 parameters with the statistics): 256 samples a frame.

    Attributes:
        bands: values of a frame.
        width: of the first layer; every upsampling halves it.
        rates, kernels: of the upsampling layers.
        block_kernels, block_dilations: of the residual blocks behind each, whose mean goes on.
        leak: slope of the activations below zero.
        normalise: bring spectrograms to zero mean and unit variance.
    """

    bands: int = 80
    width: int = 512
    rates: tuple[int, ...] = (4, 4, 4, 4)
    kernels: tuple[int, ...] = (8, 8, 8, 8)
    block_kernels: tuple[int, ...] = (3, 7, 11)
    block_dilations: tuple[tuple[int, ...], ...] = ((1, 3, 5), (1, 3, 5), (1, 3, 5))
    leak: float = 0.1
    normalise: bool = True

    def __post_init__(self) -> None:
        if len(self.rates) != len(self.kernels) or len(self.block_kernels) != len(self.block_dilations):
            raise ValueError(
                f"vocoder: {len(self.rates)} rates for {len(self.kernels)} kernels, {len(self.block_dilations)} block_dilations for "
                f"{len(self.block_kernels)} block_kernels; give one for each."
            )
        if self.width % 2 ** len(self.rates):
            raise ValueError(f"vocoder: width {self.width} cannot be halved {len(self.rates)} times; give a multiple of a power of 2.")


class ResidualBlock(nn.Module):
    """Pairs of a dilated and a plain convolution, each around a residual."""

    def __init__(self, width: int, kernel: int, dilations: tuple[int, ...], leak: float) -> None:
        super().__init__()
        self.leak = leak
        self.dilated = nn.ModuleList(
            nn.Conv1d(width, width, kernel, dilation=dilation, padding=(kernel - 1) * dilation // 2) for dilation in dilations
        )
        self.plain = nn.ModuleList(nn.Conv1d(width, width, kernel, padding=(kernel - 1) // 2) for _ in dilations)

    def forward(self, x: Tensor) -> Tensor:
        """(batch, width, time) -> the same."""
        for dilated, plain in zip(self.dilated, self.plain, strict=True):
            x = x + plain(F.leaky_relu(dilated(F.leaky_relu(x, self.leak)), self.leak))
        return x


class Vocoder(nn.Module):
    """Spectrograms to waveforms. Initialisation: convolutions N(0, 0.01), as in the released code."""

    mean: Tensor
    scale: Tensor

    def __init__(self, config: VocoderConfig) -> None:
        super().__init__()
        self.config = config
        self.first = nn.Conv1d(config.bands, config.width, 7, padding=3)
        widths = [config.width // 2**index for index in range(len(config.rates) + 1)]
        self.up = nn.ModuleList(
            nn.ConvTranspose1d(before, after, kernel, rate, padding=(kernel - rate) // 2)
            for before, after, kernel, rate in zip(widths, widths[1:], config.kernels, config.rates, strict=False)
        )
        self.blocks = nn.ModuleList(
            ResidualBlock(width, kernel, dilations, config.leak)
            for width in widths[1:]
            for kernel, dilations in zip(config.block_kernels, config.block_dilations, strict=True)
        )
        self.last = nn.Conv1d(widths[-1], 1, 7, padding=3)
        self.register_buffer("mean", torch.zeros(config.bands))
        self.register_buffer("scale", torch.ones(config.bands))
        for module in self.modules():
            if isinstance(module, nn.Conv1d | nn.ConvTranspose1d):
                nn.init.normal_(module.weight, 0.0, 0.01)
                nn.init.zeros_(module.bias if module.bias is not None else module.weight)

    @property
    def hop(self) -> int:
        """Samples of a frame."""
        return int(torch.tensor(self.config.rates).prod())

    def forward(self, mel: Tensor) -> Tensor:
        """Log mel spectrograms (batch, frames, bands) -> waveforms (batch, frames x hop) of -1 to 1."""
        x = (mel - self.mean) / self.scale if self.config.normalise else mel
        x = self.first(x.transpose(1, 2))
        each = len(self.config.block_kernels)
        for index, up in enumerate(self.up):
            x = up(F.leaky_relu(x, self.config.leak))
            x = torch.stack([self.blocks[index * each + number](x) for number in range(each)]).sum(0) / each
        return torch.tanh(self.last(F.leaky_relu(x)))[:, 0]
