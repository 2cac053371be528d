"""What changes gradients and nothing else: balancers, whitening, bounds of parameters and of scores (paper section 3.5 and appendix).

What is unusual here:
- Outside of training all of it is left out. The official code also acts in evaluation wherever a gradient is asked for, at random, so that
  its gradients there differ from call to call.
- Gradients are written out. Those of a balancer are linear in the input, channel by channel, so that two numbers for each channel are all
  there is to compute; whitening takes two matrix products.
- A check for whiteness is drawn with one probability. The official code remembers whether the last check found anything, and looks less
  often where it did not, which saves time and has hardly an effect: below its limit a check changes nothing. Without that memory, a resumed
  run does the same, and so does one on other numbers of processes.
- Statistics are over all frames of a batch, its padding included, as in the official code. They steer gradients, never the output.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx, once_differentiable

from avtlm.nn.zipformer.schedules import Schedule, happens

TINY = 1e-20
SQRT_HALF_PI = 1.25331413732  # root mean square of a normal variable over its mean absolute value
INVERSE_ERF = 0.8139535143  # factor of a crude approximation of the inverse of the error function by atanh
CHANCE_OF_BALANCING = Schedule.line(0.5, 0.125, 8000.0, 0.4)
CHANCE_OF_WHITENING = 0.25
CHANCE_OF_BOUND = 0.6
SCORE_LIMIT, SCORE_PENALTY, CHANCE_OF_PENALTY = 25.0, 1e-4, 0.1

Level = float | Schedule


def level(value: Level, batches: float | None) -> float:
    """A number as it is, a schedule at a count of batches (None outside of training)."""
    return value(batches) if isinstance(value, Schedule) else value


@dataclass(frozen=True)
class Balancer:
    """Keeps the values of every channel in a range, by what it adds to their gradients.

    Attributes:
        least_positive, most_positive: share of values above 0.
        least_size, most_size: mean absolute value.
        chance: of acting on a batch.
        strength: what is added, relative to the gradient.
    """

    least_positive: Level
    most_positive: Level
    least_size: Level
    most_size: Level = 100.0
    chance: Level = CHANCE_OF_BALANCING
    strength: float = 0.04

    def __call__(self, x: Tensor, batches: float | None) -> Tensor:
        """x (..., channels) as it is; in training, now and then, with other gradients."""
        if batches is None or not x.requires_grad or not happens(level(self.chance, batches)):
            return x
        return self.applied(x, batches)

    def applied(self, x: Tensor, batches: float | None = 0.0) -> Tensor:
        """The same without drawing."""
        means = [_mean_of_share(level(share, batches)) for share in (self.least_positive, self.most_positive)]
        sizes = [SQRT_HALF_PI * level(size, batches) for size in (self.least_size, self.most_size)]
        out: Tensor = _Balance.apply(x, *means, *sizes, self.strength)
        return out


def _mean_of_share(positive: float) -> float:
    """Mean over deviation of a normal variable of which such a share is above 0."""
    place = 2.0 * positive - 1.0
    return INVERSE_ERF * 0.5 * (math.log(1.0 + place + 1e-10) - math.log(1.0 - place + 1e-10))


class _Balance(torch.autograd.Function):
    """Adds |gradient| times the gradient of a loss, scaled to ``strength`` in the root mean square of each channel.

    The loss of a channel is |m - clamp(m)| + |log(clamp(r) / r)|, of its mean over deviation m and its root mean square r. Its derivative
    is linear in the values, so that two numbers of a channel say all.
    """

    @staticmethod
    def forward(
        ctx: FunctionCtx, x: Tensor, least_mean: float, most_mean: float, least_rms: float, most_rms: float, strength: float
    ) -> Tensor:
        ctx.save_for_backward(x)
        ctx.bounds = (least_mean, most_mean, least_rms, most_rms, strength)  # type: ignore[attr-defined]
        return x.view_as(x)

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, gradient: Tensor) -> tuple[Tensor | None, ...]:
        (x,) = ctx.saved_tensors  # type: ignore[attr-defined]
        least_mean, most_mean, least_rms, most_rms, strength = ctx.bounds  # type: ignore[attr-defined]
        values = x.reshape(-1, x.shape[-1]).float()
        square, mean = values.square().mean(0), values.mean(0)
        variance = (square - mean.square()).clamp(min=TINY)
        square = square.clamp(min=TINY)
        ratio, rms = mean / variance.sqrt(), square.sqrt()
        off_mean = (ratio > most_mean).float() - (ratio < least_mean).float()
        off_rms = (rms > most_rms).float() - (rms < least_rms).float()
        # Derivative of the loss by a value v: at + slope (v - mean), up to the number of frames.
        at = off_mean / variance.sqrt() + off_rms * mean / square
        slope = off_rms / square - off_mean * mean / (variance * variance.sqrt())
        factor = strength / (at.square() + slope.square() * variance).sqrt().clamp(min=TINY)
        at, slope = (at - slope * mean) * factor, slope * factor
        wide = gradient.float()
        added = torch.addcmul(at, values.view_as(x), slope).mul_(wide.abs())
        return added.add_(wide).to(gradient.dtype), None, None, None, None, None


@dataclass(frozen=True)
class Whitener:
    """Keeps the covariance of the channels from being dominated by few directions, by what it adds to gradients.

    Attributes:
        limit: of `whiteness`, from which on it acts.
        groups: of channels, each with a covariance of its own.
        strength: norm of what is added, relative to that of the gradient.
    """

    limit: Level
    groups: int = 1
    strength: float = 0.01

    def __call__(self, x: Tensor, batches: float | None) -> Tensor:
        """x (..., channels) as it is; in training, now and then, with other gradients."""
        if batches is None or not x.requires_grad or not happens(CHANCE_OF_WHITENING):
            return x
        return self.applied(x, batches)

    def applied(self, x: Tensor, batches: float | None = 0.0) -> Tensor:
        """The same without drawing."""
        out: Tensor = _Whiten.apply(x, self.groups, level(self.limit, batches), self.strength)
        return out


def limits(first: float, ratio: float = 2.0) -> Schedule:
    """Whitening grows laxer over the first 20,000 batches."""
    return Schedule.line(first, ratio * first, 20000.0, first)


def whiteness(x: Tensor, groups: int = 1) -> Tensor:
    """mean(diag(C^2)) / mean(diag(C))^2 of the covariance C of x (..., channels): 1 if all its eigenvalues are equal, else more; scalar."""
    return _covariance(x, groups)[2]


def _covariance(x: Tensor, groups: int) -> tuple[Tensor, Tensor, Tensor]:
    """Centred values (groups, frames, channels), their covariance (groups, channels, channels) with a mean diagonal of 1, and whiteness."""
    values = x.reshape(-1, groups, x.shape[-1] // groups).float().transpose(0, 1)
    values = values - values.mean(1, keepdim=True)
    covariance = values.transpose(1, 2) @ values
    size = covariance.diagonal(dim1=1, dim2=2).mean()
    metric = covariance.square().sum() / x.shape[-1] / (size.square() + TINY)
    return values, covariance / size.clamp(min=TINY), metric


class _Whiten(torch.autograd.Function):
    """Adds the gradient of `whiteness`, scaled to ``strength`` times the norm of the gradient, where it is above the limit."""

    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, groups: int, limit: float, strength: float) -> Tensor:
        ctx.save_for_backward(x)
        ctx.settings = (groups, limit, strength)  # type: ignore[attr-defined]
        return x.view_as(x)

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, gradient: Tensor) -> tuple[Tensor, None, None, None]:
        (x,) = ctx.saved_tensors  # type: ignore[attr-defined]
        groups, limit, strength = ctx.settings  # type: ignore[attr-defined]
        values, covariance, metric = _covariance(x, groups)
        if metric.device.type == "cpu" and metric < limit:
            return gradient, None, None, None
        # Up to a factor, the derivative of the metric is x (C - metric), with a mean diagonal of C of 1.
        covariance.diagonal(dim1=1, dim2=2).sub_(metric)
        added = (values @ covariance).transpose(0, 1).reshape(x.shape)
        wide = gradient.float()
        factor = strength * wide.norm() / (added.norm() + TINY)
        factor = torch.where(metric < limit, 0.0, factor)  # without waiting for the device
        return (wide + added * factor).to(gradient.dtype), None, None, None


class _Bound(torch.autograd.Function):
    """Turns gradients around that would move a parameter further out of its range."""

    @staticmethod
    def forward(ctx: FunctionCtx, x: Tensor, least: float, most: float) -> Tensor:
        ctx.save_for_backward(x)
        ctx.range = (least, most)  # type: ignore[attr-defined]
        return x.view_as(x)

    @staticmethod
    @once_differentiable
    def backward(ctx: FunctionCtx, gradient: Tensor) -> tuple[Tensor, None, None]:
        (x,) = ctx.saved_tensors  # type: ignore[attr-defined]
        least, most = ctx.range  # type: ignore[attr-defined]
        outwards = ((gradient > 0) & (x < least)) | ((gradient < 0) & (x > most))
        return torch.where(outwards, -gradient, gradient), None, None


def bound(x: Tensor, least: float, most: float) -> Tensor:
    """A parameter as it is, whose gradient keeps it within a range."""
    out: Tensor = _Bound.apply(x, least, most)
    return out


def bound_at_times(x: Tensor, least: Level, most: float, batches: float | None) -> Tensor:
    """The same in most batches of a training."""
    if batches is None or not happens(CHANCE_OF_BOUND):
        return x
    return bound(x, level(least, batches), most)


def score_penalty(scores: Tensor) -> Tensor:
    """What a loss gets for attention scores beyond 25, scalar: a failsafe, 0 in any usual training."""
    return SCORE_PENALTY * (scores.float().abs() - SCORE_LIMIT).relu().sum()
