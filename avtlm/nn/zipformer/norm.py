"""BiasNorm (paper section 3.3, eq. 3): a norm that keeps how long vectors are, as far as a learned bias lets it."""

import torch
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx, once_differentiable

from avtlm.nn.zipformer.balancing import bound_at_times

LEAST_LOG_SCALE, MOST_LOG_SCALE = -1.5, 1.5


class BiasNorm(nn.Module):
    """x exp(log_scale) / rms(x - bias), where the bias is a vector and the scale one number. There is no epsilon.

    Initialised with a scale of e, and a bias N(0, 1e-4). Computed in float32.
    """

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.log_scale = nn.Parameter(torch.tensor(1.0))
        self.bias = nn.Parameter(torch.empty(dim).normal_(0.0, 1e-4))

    def forward(self, x: Tensor, batches: float | None = None) -> Tensor:
        """(..., dim) -> the same; ``batches`` is the count of a training, None outside."""
        log_scale = bound_at_times(self.log_scale, LEAST_LOG_SCALE, MOST_LOG_SCALE, batches)
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        out: Tensor = _Norm.apply(wide, self.bias, log_scale)
        return out


class _Norm(torch.autograd.Function):
    """Keeps what goes in and one number a frame."""

    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, bias: Tensor, log_scale: Tensor) -> Tensor:
        inverse = (x - bias).square_().mean(-1, keepdim=True).rsqrt_()
        ctx.save_for_backward(x, bias, log_scale, inverse)
        return x * (inverse * log_scale.exp())

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, gradient: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        x, bias, log_scale, inverse = ctx.saved_tensors  # type: ignore[attr-defined]
        scale = inverse * log_scale.exp()
        along = (gradient * x).sum(-1, keepdim=True).mul_(scale)  # of a frame: its gradient along the output
        for_log_scale = along.sum().view_as(log_scale)
        pull = (x - bias).mul_(along.mul_(inverse.square()).div_(x.shape[-1]))
        for_bias = pull.reshape(-1, x.shape[-1]).sum(0)
        return torch.mul(gradient, scale).sub_(pull), for_bias, for_log_scale
