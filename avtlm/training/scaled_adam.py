"""ScaledAdam (Yao et al. 2023, arXiv 2310.11230, section 3.6, in the form of the released recipes): Adam whose steps are in proportion to
how large a parameter is.

For each parameter tensor p with gradient g, at its step t:

    v <- b2 v + (1 - b2) g^2                                      second moment, corrected while 1 - b2^(t + 1) < 0.99
    d <- -lr g / (sqrt(v) + eps) * max(rms(p), 1e-5)              tensors of one number: -0.1 lr g / (sqrt(v) + eps)
    d <- d + p s                                                  every fourth step, s a step of the scale of p, from sum(p g)
    m <- b1 m + (1 - b1) d,    p <- p + m                         momentum stands behind the scaling; there is no weight decay

What is unusual here:
- Gradients are clipped by what is usual in this run: norms count a parameter by how large it is, and the bound is ``clipping_scale`` times
  the median of the last norms. Each group of parameters has a bound of its own.
- Nothing waits for a device: norms, medians and bounds stay where the parameters are.
- Of sharded parameters, sums over a tensor are made of the sums of all processes, in one exchange a step.
- A parameter without a gradient in a step goes on by its momentum, as in the official code; one that never had any is left alone.
"""

from collections.abc import Iterable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from avtlm.training.distributed import local

LEAST_RMS, MOST_RMS, MOST_SCALAR = 1e-5, 3.0, 10.0
SCALAR_RATE = 0.1  # of the learning rate, for single numbers and for the scales of tensors
PERIOD = 4  # steps from one update of scales to the next
EARLY = (10, 20, 40)  # steps at which the bound is set before a whole period of norms is known, twice as high


class ScaledAdam(torch.optim.Optimizer):
    """See the module's docstring.

    Args:
        clipping_scale: factor on the median of norms; None clips nothing.
        clipping_period: norms that the median is taken of, and steps from one bound to the next.
    """

    # What it remembers of a parameter that is not shaped, and not sharded, like it.
    whole_state = frozenset({"rms", "scale_gradients", "scale_square", "norms", "bound"})

    def __init__(
        self,
        params: Iterable[nn.Parameter] | Iterable[dict[str, Any]],
        lr: float,
        betas: tuple[float, float] = (0.9, 0.98),
        eps: float = 1e-8,
        clipping_scale: float | None = 2.0,
        clipping_period: int = 100,
    ) -> None:
        defaults = {"lr": lr, "betas": betas, "eps": eps, "clipping_scale": clipping_scale, "clipping_period": clipping_period}
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One update of all parameters. There is no ``closure``, which nobody here needs."""
        assert closure is None
        for group in self.param_groups:
            moving = [p for p in group["params"] if p.grad is not None or "step" in self.state[p]]
            if moving:
                self._update(group, moving)

    def _update(self, group: dict[str, Any], parameters: list[nn.Parameter]) -> None:
        by_step: dict[int, list[nn.Parameter]] = {}
        for parameter in parameters:
            if "step" not in self.state[parameter]:
                self.state[parameter] |= _first_state(parameter)
            by_step.setdefault(int(self.state[parameter]["step"]), []).append(parameter)
        due = [p for step, some in by_step.items() for p in some if p.numel() > 1 and (step == 0 or step % PERIOD == PERIOD - 1)]
        sums = self._sums(parameters, due)
        sizes = {parameter: (square / parameter.numel()).sqrt() for parameter, square in zip(due, sums["squares"], strict=True)}
        for parameter in by_step.get(0, []):
            if parameter in sizes:
                self.state[parameter]["rms"] = sizes[parameter]
        factor = self._factor(group, parameters, sums["gradients"], max(by_step))  # with the sizes that were known before
        for parameter, size in sizes.items():
            self.state[parameter]["rms"] = size
        products = dict(zip(parameters, sums["products"], strict=True))
        for step, some in by_step.items():
            self._move(group, some, step, factor, [products[parameter] for parameter in some])

    def _sums(self, parameters: list[nn.Parameter], due: list[nn.Parameter]) -> dict[str, list[Tensor]]:
        """Over whole tensors: squares of gradients, and products with their parameters; squares of the parameters that are ``due``."""
        gradients = [_flat(_gradient(parameter)) for parameter in parameters]
        own = [_flat(parameter) for parameter in parameters]
        found = [torch.dot(gradient, gradient) for gradient in gradients]
        found += [torch.dot(values, gradient) for values, gradient in zip(own, gradients, strict=True)]
        found += [torch.dot(values, values) for values in map(_flat, due)]
        together = torch.stack(found)
        sharded = next((parameter for parameter in parameters if isinstance(parameter, DTensor)), None)
        if sharded is not None:
            dist.all_reduce(together, group=sharded.device_mesh.get_group())
        values, count = list(together.unbind()), len(parameters)
        return {"gradients": values[:count], "products": values[count : 2 * count], "squares": values[2 * count :]}

    def _factor(self, group: dict[str, Any], parameters: list[nn.Parameter], squares: list[Tensor], step: int) -> Tensor | None:
        """What gradients are multiplied by, at most 1; None for nothing."""
        scale, period = group["clipping_scale"], group["clipping_period"]
        if scale is None or step == 0:
            return None
        weights = [
            self.state[p]["rms"].square() if p.numel() > 1 else torch.full_like(s, SCALAR_RATE**2) for p, s in zip(parameters, squares)
        ]
        norm = torch.dot(torch.stack(squares), torch.stack(weights)).sqrt()
        shared = self.state[group["params"][0]]
        norms = shared.setdefault("norms", norm.new_zeros(period))
        norms[step % period] = norm
        early = step in EARLY and step < period
        if early or step % period == 0:
            known = norms.sort().values[-step:] if early else norms.sort().values
            shared["bound"] = known[len(known) // 4 * 2] * (2.0 * scale if early else scale)
        if "bound" not in shared:
            return None
        return (shared["bound"] / (norm + 1e-20)).clamp(max=1.0)

    def _move(
        self, group: dict[str, Any], parameters: list[nn.Parameter], step: int, factor: Tensor | None, products: list[Tensor]
    ) -> None:
        """Parameters that are all at the same step."""
        lr, (first, second), eps = group["lr"], group["betas"], group["eps"]
        states = [self.state[parameter] for parameter in parameters]
        gradients = [local(_gradient(parameter)) for parameter in parameters]
        if factor is not None and not (factor.device.type == "cpu" and float(factor) == 1.0):
            gradients = list(torch._foreach_mul(gradients, factor))
            products = [product * factor for product in products]
        squares = [local(state["exp_avg_sq"]) for state in states]
        torch._foreach_mul_(squares, second)
        torch._foreach_addcmul_(squares, gradients, gradients, value=1.0 - second)
        correction = 1.0 - second ** (step + 1)
        deltas = torch._foreach_sqrt(squares)
        if correction < 0.99:
            torch._foreach_div_(deltas, correction**0.5)
        torch._foreach_add_(deltas, eps)
        deltas = torch._foreach_div(gradients, deltas)
        single = [parameter.numel() == 1 for parameter in parameters]
        rates = [
            torch.full_like(product, -lr * SCALAR_RATE) if alone else state["rms"].clamp(min=LEAST_RMS) * -lr
            for alone, state, product in zip(single, states, products, strict=True)
        ]
        torch._foreach_mul_(deltas, rates)
        own = [local(parameter) for parameter in parameters]
        shaped = [place for place, alone in enumerate(single) if not alone]
        for place in shaped:
            states[place]["scale_gradients"][step % PERIOD] = products[place]
        if shaped and step % PERIOD == PERIOD - 1:
            steps = self._scale_steps([states[place] for place in shaped], step, lr, second, eps)
            for place, scale_step in zip(shaped, steps, strict=True):
                deltas[place].addcmul_(own[place], scale_step)
        momenta = [local(state["delta"]) for state in states]
        torch._foreach_mul_(momenta, first)
        torch._foreach_add_(momenta, deltas, alpha=1.0 - first)
        torch._foreach_add_(own, momenta)
        for values, alone, state in zip(own, single, states, strict=True):
            if alone:
                values.clamp_(-MOST_SCALAR, MOST_SCALAR)
            state["step"] += 1

    @staticmethod
    def _scale_steps(states: list[dict[str, Tensor]], step: int, lr: float, second: float, eps: float) -> list[Tensor]:
        """By which share parameters shall grow: Adam's step for their scales, of the last gradients of these."""
        rms = torch.stack([state["rms"] for state in states])
        gradients = torch.stack([state["scale_gradients"] for state in states])
        kept = second**PERIOD
        square = torch.stack([state["scale_square"] for state in states]).mul_(kept)
        square.add_(gradients.square().mean(1), alpha=1.0 - kept)
        for state, value in zip(states, square, strict=True):
            state["scale_square"] = value
        correction = 1.0 - kept ** ((step + 1) // PERIOD)
        steps = -SCALAR_RATE * lr * correction**0.5 * gradients.sum(1) / (square.sqrt() + eps)
        steps = steps.masked_fill(rms < LEAST_RMS, 0.0).clamp(-0.1, 0.1)
        return list(torch.minimum(steps, (MOST_RMS - rms) / rms))


def _first_state(parameter: nn.Parameter) -> dict[str, Tensor]:
    state = {"step": torch.zeros(()), "exp_avg_sq": torch.zeros_like(parameter), "delta": torch.zeros_like(parameter)}
    if parameter.numel() > 1:
        device = parameter.device
        state |= {"rms": torch.zeros((), device=device), "scale_square": torch.zeros((), device=device)}
        state["scale_gradients"] = torch.zeros(PERIOD, device=device)
    return state


def _gradient(parameter: nn.Parameter) -> Tensor:
    if parameter.grad is None:
        parameter.grad = torch.zeros_like(parameter)
    return parameter.grad


def _flat(tensor: Tensor) -> Tensor:
    return local(tensor).reshape(-1)
