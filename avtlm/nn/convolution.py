"""Convolution over time on a CPU: with long kernels by Fourier transforms, with strides by matrix products.

What is unusual here:
- PyTorch's grouped convolution of 128 taps runs far below the rate of a matrix product on a CPU, and does 50 times the work of one by
  Fourier transforms (overlap-save: overlapping blocks of frames are transformed, multiplied by the transformed kernel, and what wrapped
  around is left out). Base positional convolutions get 3 to 10 times faster so, and no less exact; they are computed in float32 where the
  input is bfloat16. The kernel is transformed by one matrix product, which reads no zeros and writes what the next step reads: with few
  frames, transforming it would take longest.
- Frames whose channels lie side by side need no copying for a convolution that moves by its stride: rows of as many frames as the stride
  are a matrix, and so are those that begin a row later. A kernel of three taps at stride 2 is the sum of two matrix products.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx, once_differentiable

# Below these PyTorch's own convolution is as fast.
LEAST_TAPS, LEAST_WIDTH, LEAST_WORK = 32, 16, 1 << 15


def convolve(x: Tensor, weight: Tensor, bias: Tensor | None, padding: int, groups: int) -> Tensor:
    """(batch, channels, frames) -> (batch, outputs, frames + 2 * padding - taps + 1), with zeros beyond both ends.

    Args:
        weight: (outputs, channels / groups, taps).
    """
    width, taps = weight.shape[1:]
    large = min(width, len(weight) // groups) >= LEAST_WIDTH and taps >= LEAST_TAPS
    if torch.compiler.is_compiling() or x.device.type != "cpu" or not large or x.shape[0] * x.shape[2] * taps < LEAST_WORK:
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
    waves = inputs.shape[-1]
    # One small matrix product for each frequency and group.
    inputs = inputs.view(batch, groups, width, blocks, waves).permute(4, 1, 0, 3, 2).reshape(waves * groups, batch * blocks, width)
    kernel = _transformed(weight, block).view(waves, groups, outputs // groups, width).reshape(waves * groups, outputs // groups, width)
    product = torch.bmm(inputs, kernel.transpose(1, 2)).view(waves, groups, batch, blocks, outputs // groups).permute(2, 1, 4, 3, 0)
    out = torch.fft.irfft(product, n=block)[..., :step].reshape(batch, outputs, blocks * step)[..., :wanted]
    return out if bias is None else out + bias[:, None]


def _transformed(weight: Tensor, block: int) -> Tensor:
    """The conjugate Fourier transform of a kernel (outputs, width, taps), complex (frequencies, outputs, width)."""
    taps = weight.shape[-1]
    turns = torch.outer(torch.arange(block // 2 + 1), torch.arange(taps)) % block
    angles = turns.to(torch.float64) * (2 * math.pi / block)
    # Conjugate, since PyTorch's convolution is a correlation.
    basis = torch.cat([angles.cos(), angles.sin()]).to(weight.dtype)
    parts = (basis @ weight.reshape(-1, taps).T).view(2, -1, *weight.shape[:2])
    return torch.complex(parts[0], parts[1])


class StridedConvolution(nn.Conv1d):
    """Convolution without padding, (batch, frames, channels) -> (batch, fewer frames, outputs)."""

    def forward(self, x: Tensor) -> Tensor:
        """On a CPU by matrix products, but in bfloat16, of which PyTorch's convolution makes as much."""
        narrow = torch.is_autocast_enabled("cpu") or x.dtype == torch.bfloat16
        if x.device.type != "cpu" or narrow or torch.compiler.is_compiling():
            if self.in_channels == 1:  # transposed, it would look like another layout, in which PyTorch is slow
                return super().forward(x[..., 0][:, None]).transpose(1, 2)
            return super().forward(x.transpose(1, 2)).transpose(1, 2)
        out: Tensor = _StridedProducts.apply(x.contiguous(), self.weight, self.stride[0])
        return out if self.bias is None else out + self.bias


class _StridedProducts(torch.autograd.Function):
    """Frames (batch, frames, channels), contiguous, and a kernel (outputs, channels, taps)."""

    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, weight: Tensor, stride: int) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.stride = stride  # type: ignore[attr-defined]
        out = x.new_empty(len(x), (x.shape[1] - weight.shape[2]) // stride + 1, len(weight))
        for first, kernel in _pieces(weight, stride):
            for clip, written in zip(x, out, strict=True):
                rows = _rows(clip, len(written), first, len(kernel), stride)
                torch.mm(rows, kernel, out=written) if first == 0 else torch.addmm(written, rows, kernel, out=written)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors  # type: ignore[attr-defined]
        stride, gradient = ctx.stride, gradient.contiguous()  # type: ignore[attr-defined]
        for_x = torch.zeros_like(x) if ctx.needs_input_grad[0] else None  # type: ignore[attr-defined]
        for_weight = torch.zeros_like(weight) if ctx.needs_input_grad[1] else None  # type: ignore[attr-defined]
        for first, kernel in _pieces(weight, stride):
            taps = slice(first, first + stride)
            for index, received in enumerate(gradient):
                if for_x is not None:
                    rows = _rows(for_x[index], len(received), first, len(kernel), stride)
                    torch.addmm(rows, received, kernel.T, out=rows)
                if for_weight is not None:
                    found = _rows(x[index], len(received), first, len(kernel), stride).T @ received
                    for_weight[:, :, taps] += found.view(-1, *weight.shape[1::-1]).permute(2, 1, 0)
        return for_x, for_weight, None


def _pieces(weight: Tensor, stride: int) -> list[tuple[int, Tensor]]:
    """As many taps of a kernel (outputs, channels, taps) at a time as the stride: the first of them, and (taps x channels, outputs)."""
    firsts = range(0, weight.shape[2], stride)
    return [(first, weight[:, :, first : first + stride].permute(2, 1, 0).flatten(0, 1)) for first in firsts]


def _rows(clip: Tensor, count: int, first: int, width: int, stride: int) -> Tensor:
    """A clip (frames, channels) as ``count`` rows of ``width`` values from frame ``first`` on, each ``stride`` frames behind the last."""
    channels = clip.shape[1]
    return clip.as_strided((count, width), (stride * channels, 1), clip.storage_offset() + first * channels)
