"""A moving average of a model's weights over its updates, which is often better than the last of them (EMA; Polyak and Juditsky 1992)."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from avtlm.training.distributed import like, local


class WeightAverage:
    """decay * average + (1 - decay) * weights after every update, in the weights' own precision; on shards, of the shards.

    Args:
        decay: the share that stays; the average reaches back about 1 / (1 - decay) updates.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.decay = decay
        self.parameters = dict(model.named_parameters())
        self.weights = {name: parameter.detach().clone() for name, parameter in self.parameters.items()}

    @torch.no_grad()
    def update(self) -> None:
        own = [local(weight) for weight in self.weights.values()]
        torch._foreach_mul_(own, self.decay)
        torch._foreach_add_(own, [local(parameter) for parameter in self.parameters.values()], alpha=1.0 - self.decay)

    @torch.no_grad()
    def load(self, weights: Mapping[str, Tensor]) -> None:
        """Go on from whole tensors; names that are not parameters (buffers) are left out."""
        for name, weight in self.weights.items():
            weight.copy_(like(weights[name], weight))
