"""Gradients that flow back weaker than they came."""

import torch
from torch import Tensor


class ScaleGradient(torch.autograd.Function):
    """Identity whose gradient is multiplied by a constant (fairseq's ``feature_grad_mult``)."""

    @staticmethod
    def forward(ctx: torch.autograd.function.FunctionCtx, x: Tensor, scale: float) -> Tensor:
        ctx.scale = scale  # type: ignore[attr-defined]
        return x.view_as(x)

    @staticmethod
    def backward(ctx: torch.autograd.function.FunctionCtx, gradient: Tensor) -> tuple[Tensor, None]:
        return gradient * ctx.scale, None  # type: ignore[attr-defined]
