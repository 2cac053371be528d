"""Layer norm that stays in float32 under autocast on every device, and the norm of single channels over time."""

import torch
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx, once_differentiable


class LayerNorm(nn.LayerNorm):
    """nn.LayerNorm whose output is float32 under autocast, as it is on a GPU: on a CPU the residual stream behind it would be bfloat16."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.float() if x.dtype == torch.bfloat16 and torch.is_autocast_enabled("cpu") else x)


class NormOverTime(torch.autograd.Function):
    """Zero mean and unit variance of every channel over the frames of one clip, times ``weight`` and plus ``bias`` (channels,).

    What nn.GroupNorm with as many groups as channels does, for frames whose channels lie side by side, (frames, channels). Means are sums
    of sums, as exact as that; PyTorch's batch norm, otherwise the same, adds up a minute of frames one by one. Statistics are in float32.
    """

    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, weight: Tensor, bias: Tensor, epsilon: float) -> Tensor:
        wide = torch.promote_types(x.dtype, torch.float32)
        mean = x.mean(0, dtype=wide)
        centred = x - mean
        deviation = (centred.square().mean(0) + epsilon).rsqrt_()
        ctx.save_for_backward(x, weight, mean, deviation)
        ctx.epsilon = epsilon  # type: ignore[attr-defined]
        return centred.mul_(deviation * weight).add_(bias).to(x.dtype)

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, mean, deviation = ctx.saved_tensors  # type: ignore[attr-defined]
        given = (gradient.contiguous(), x, weight, None, None, mean, deviation, True, ctx.epsilon, [True, True, True])  # type: ignore[attr-defined]
        return *torch.ops.aten.native_batch_norm_backward(*given), None
