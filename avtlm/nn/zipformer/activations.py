"""The Swoosh activations of the Zipformer (paper section 3.4), alone and before a linear map.

    SwooshR(x) = log(1 + exp(x - 1)) - 0.08 x - 0.313261687        SwooshL(x) = log(1 + exp(x - 4)) - 0.08 x - 0.035

What is unusual here:
- Only what goes in is kept for the backward pass; the linear map behind an activation computes it again for the gradient of its weights. Of
  a feed-forward part, whose middle is wide, that halves what is kept.
- Derivatives are exact. The official kernels round them to 8 bits, at random.
- In bfloat16 the activation itself is computed in float32.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx, once_differentiable

from avtlm.nn.int8 import Int8Linear
from avtlm.nn.linear import LaidOutLinear

SLOPE = 0.08


@dataclass(frozen=True)
class Swoosh:
    """log(1 + exp(x - shift)) - 0.08 x - drop."""

    shift: float
    drop: float

    def __call__(self, x: Tensor) -> Tensor:
        out: Tensor = _Activation.apply(x, self)
        return out

    def values(self, x: Tensor) -> Tensor:
        """Without a gradient."""
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        if torch.compiler.is_exporting():  # a graph has nothing in place
            return (F.softplus(wide - self.shift) - SLOPE * wide - self.drop).to(x.dtype)
        out = wide - self.shift
        torch.ops.aten.softplus.out(out, 1, 20, out=out)  # in place: fresh memory takes as long as what is computed
        return out.sub_(wide, alpha=SLOPE).sub_(self.drop).to(x.dtype)

    def derivative(self, x: Tensor) -> Tensor:
        """In float32."""
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        return (wide - self.shift).sigmoid_().sub_(SLOPE)


SWOOSH_R = Swoosh(1.0, 0.313261687)
SWOOSH_L = Swoosh(4.0, 0.035)


class _Activation(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, swoosh: Swoosh) -> Tensor:
        ctx.save_for_backward(x)
        ctx.swoosh = swoosh  # type: ignore[attr-defined]
        return swoosh.values(x)

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, gradient: Tensor) -> tuple[Tensor, None]:
        (x,) = ctx.saved_tensors  # type: ignore[attr-defined]
        return ctx.swoosh.derivative(x).mul_(gradient).to(x.dtype), None  # type: ignore[attr-defined]


class _ActivationAndMap(torch.autograd.Function):
    """x (..., inputs), weight (outputs, inputs), bias (outputs,), and factors broadcastable to x or None, all of one type."""

    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, weight: Tensor, bias: Tensor, factors: Tensor | None, swoosh: Swoosh) -> Tensor:
        ctx.save_for_backward(x, weight, factors)  # type: ignore[arg-type]
        ctx.swoosh = swoosh  # type: ignore[attr-defined]
        active = swoosh.values(x)
        return F.linear(active if factors is None else active.mul_(factors), weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, factors = ctx.saved_tensors  # type: ignore[attr-defined]
        swoosh: Swoosh = ctx.swoosh  # type: ignore[attr-defined]
        rows = gradient.reshape(-1, gradient.shape[-1])
        for_x = for_weight = for_bias = None
        if ctx.needs_input_grad[1]:  # type: ignore[attr-defined]
            active = swoosh.values(x)
            active = active if factors is None else active.mul_(factors)
            for_weight = rows.T @ active.reshape(-1, active.shape[-1])
            del active
        if ctx.needs_input_grad[2]:  # type: ignore[attr-defined]
            for_bias = rows.sum(0)
        if ctx.needs_input_grad[0]:  # type: ignore[attr-defined]
            for_x = (rows @ weight).view(x.shape).mul_(swoosh.derivative(x).to(x.dtype))
            for_x = for_x if factors is None else for_x.mul_(factors)
        return for_x, for_weight, for_bias, None, None


def activate_and_map(x: Tensor, weight: Tensor, bias: Tensor, swoosh: Swoosh, factors: Tensor | None = None) -> Tensor:
    """linear(factors * swoosh(x)): (..., inputs) -> (..., outputs).

    Args:
        weight, bias: (outputs, inputs) and (outputs,).
        factors: broadcastable to x, such as those of dropout.
    """
    if torch.is_autocast_enabled(x.device.type):  # the backward pass, which knows no autocast, has to find one type
        kind = torch.get_autocast_dtype(x.device.type)
        x, weight, bias = x.to(kind), weight.to(kind), bias.to(kind)
        factors = None if factors is None else factors.to(kind)
    out: Tensor = _ActivationAndMap.apply(x, weight, bias, factors, swoosh)
    return out


class SwooshLinear(nn.Linear):
    """An activation, dropout that is the same for all frames of a row, and a linear map.

    Initialised as nn.Linear times ``scale``, the bias uniform within 0.1 ``scale``.
    """

    laid_out: ClassVar[type[nn.Module] | None] = None
    narrow: ClassVar[type[nn.Module] | None] = None

    def __init__(self, inputs: int, outputs: int, swoosh: Swoosh, scale: float) -> None:
        super().__init__(inputs, outputs)
        self.swoosh = swoosh
        scale_down(self, scale)

    def forward(self, x: Tensor, dropout: float = 0.0) -> Tensor:
        """(batch, frames, inputs) -> (batch, frames, outputs).

        Args:
            dropout: probability that a channel of a row is zero in all frames; 0 outside of training.
        """
        if not torch.is_grad_enabled() and dropout == 0.0:
            return self.multiply(self.swoosh.values(x))
        return activate_and_map(x, self.weight, self.bias, self.swoosh, shared_dropout(x, dropout) if dropout > 0.0 else None)

    def multiply(self, x: Tensor) -> Tensor:
        """The linear map alone."""
        return F.linear(x, self.weight, self.bias)


class LaidOutSwooshLinear(SwooshLinear, LaidOutLinear):
    """The same in a model that is only used, see avtlm.nn.linear."""

    def multiply(self, x: Tensor) -> Tensor:
        return LaidOutLinear.forward(self, x)


class Int8SwooshLinear(SwooshLinear, Int8Linear):
    """The same with 8-bit weights, see avtlm.nn.int8."""

    def multiply(self, x: Tensor) -> Tensor:
        return Int8Linear.forward(self, x)


SwooshLinear.laid_out, SwooshLinear.narrow = LaidOutSwooshLinear, Int8SwooshLinear


class Pointwise(nn.Conv2d):
    """A convolution of one tap over (..., inputs) -> (..., outputs), as a matrix product."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(inputs, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, self.weight.flatten(1), self.bias)


class SwooshPointwise(Pointwise):
    """The same behind an activation. Initialised as PyTorch does times ``scale``, the bias uniform within 0.1 ``scale``."""

    def __init__(self, inputs: int, outputs: int, swoosh: Swoosh, scale: float) -> None:
        super().__init__(inputs, outputs)
        self.swoosh = swoosh
        scale_down(self, scale)

    def forward(self, x: Tensor) -> Tensor:
        assert self.bias is not None
        return activate_and_map(x, self.weight.flatten(1), self.bias, self.swoosh)


def shared_dropout(x: Tensor, probability: float) -> Tensor:
    """Factors by which whole channels of rows are dropped, and the others scaled so that the mean stays: of x (batch, frames, channels),
    (batch, 1, channels)."""
    kept = torch.rand(len(x), 1, x.shape[-1], device=x.device) >= probability
    return kept.to(x.dtype).div_(1.0 - probability)


@torch.no_grad()
def scale_down(layer: nn.Linear | nn.Conv1d | nn.Conv2d, scale: float) -> None:
    """Multiply the weights that PyTorch has drawn, and draw the bias again, uniform within 0.1 ``scale``."""
    layer.weight.mul_(scale)
    if layer.bias is not None:
        nn.init.uniform_(layer.bias, -0.1 * scale, 0.1 * scale)


def scaled_linear(inputs: int, outputs: int, scale: float, bias: bool = True) -> nn.Linear:
    """A linear map with weights that start smaller than PyTorch's, see `scale_down`."""
    layer = nn.Linear(inputs, outputs, bias=bias)
    scale_down(layer, scale)
    return layer
