"""Grouped convolution over time; with long kernels on a CPU by Fourier transforms.

What is unusual here: PyTorch's grouped convolution of 128 taps runs far below the rate of a matrix product on a CPU, and does 50 times the
work of one by Fourier transforms (overlap-save: overlapping blocks of frames are transformed, multiplied by the transformed kernel, and
what wrapped around is left out). Base positional convolutions get 3 to 10 times faster so, and no less exact; they are computed in float32
where the input is bfloat16.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

# Below these PyTorch's own convolution is as fast.
LEAST_TAPS, LEAST_WIDTH, LEAST_WORK = 32, 16, 1 << 15


def convolve(x: Tensor, weight: Tensor, bias: Tensor | None, padding: int, groups: int) -> Tensor:
    """(batch, channels, frames) -> (batch, outputs, frames + 2 * padding - taps + 1), with zeros beyond both ends.

    Args:
        weight: (outputs, channels / groups, taps).
    """
    width, taps = weight.shape[1:]
    worth = min(width, len(weight) // groups) >= LEAST_WIDTH and taps >= LEAST_TAPS and x.shape[0] * x.shape[2] * taps >= LEAST_WORK
    if x.device.type != "cpu" or not worth or torch.compiler.is_compiling():
        return F.conv1d(x, weight, bias, padding=padding, groups=groups)
    with torch.autocast("cpu", enabled=False):
        exact = x if x.dtype == torch.float64 else x.float()
        out = convolve_by_fft(exact, weight.to(exact.dtype), None if bias is None else bias.to(exact.dtype), padding, groups)
    return out.to(x.dtype)


def convolve_by_fft(x: Tensor, weight: Tensor, bias: Tensor | None, padding: int, groups: int) -> Tensor:
    """The same by overlap-save, in blocks of twice the kernel."""
    batch, _, frames = x.shape
    outputs, width, taps = weight.shape
    block = 1 << (2 * taps - 1).bit_length()
    step = block - taps + 1  # outputs of a block that did not wrap around
    wanted = frames + 2 * padding - taps + 1
    blocks = -(-wanted // step)
    padded = F.pad(x, (padding, blocks * step + taps - 1 - frames - padding))
    inputs = torch.fft.rfft(padded.unfold(-1, block, step))  # (batch, channels, blocks, frequencies)
    kernel = torch.fft.rfft(weight, n=block).conj()  # PyTorch's convolution is a correlation
    waves = inputs.shape[-1]
    # One small matrix product for each frequency and group.
    inputs = inputs.view(batch, groups, width, blocks, waves).permute(4, 1, 0, 3, 2).reshape(waves * groups, batch * blocks, width)
    kernel = kernel.view(groups, outputs // groups, width, waves).permute(3, 0, 2, 1).reshape(waves * groups, width, outputs // groups)
    product = torch.bmm(inputs, kernel).view(waves, groups, batch, blocks, outputs // groups).permute(2, 1, 4, 3, 0)
    out = torch.fft.irfft(product, n=block)[..., :step].reshape(batch, outputs, blocks * step)[..., :wanted]
    return out if bias is None else out + bias[:, None]
