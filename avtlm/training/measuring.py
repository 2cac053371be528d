"""What one batch costs on this machine: useful operations, what is kept for the backward pass, seconds.

What is kept is what autograd saves between the forward and the backward pass, by memory (views of one tensor count once), without the
weights. It is the same on every device but for attention: on a CPU its weights are kept where they are dropped or in bfloat16
(avtlm/nn/products.py), on a GPU no kernel keeps them.
"""

import time
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from avtlm.data.batching import Batch
from avtlm.training.distributed import Rounds
from avtlm.training.peak import synchronize

ENOUGH, MOST = 1.0, 5  # seconds of measuring, and repetitions


@dataclass(frozen=True)
class Cost:
    """Of one batch.

    Attributes:
        work: useful operations of the forward and the backward pass.
        kept: bytes that are kept for the backward pass, attention weights left out.
        kept_weights: bytes of attention weights that are kept as well.
        seconds: of both passes, the least of a few; None if they were not timed.
    """

    work: float
    kept: int
    kept_weights: int
    seconds: float | None = None


class Kept:
    """Sums up what autograd saves while its hooks are on."""

    def __init__(self, model: nn.Module) -> None:
        own = [*model.parameters(), *model.buffers()]
        self._known = {tensor.untyped_storage().data_ptr() for tensor in own}
        self.bytes, self.weights = 0, 0

    def pack(self, tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        place, size = storage.data_ptr(), storage.nbytes()
        if place not in self._known and size:
            self._known.add(place)  # it is held until the backward pass, so no other takes its place
            if is_attention(tensor):
                self.weights += size
            else:
                self.bytes += size
        return tensor


def is_attention(tensor: Tensor) -> bool:
    """Whether something saved is of (heads, frames, frames), as attention's weights are."""
    return tensor.dim() == 3 and tensor.shape[1] == tensor.shape[2] > 1


def measure(rounds: Rounds, batch: Batch, timed: bool) -> Cost:
    """Run a batch forward, and backward if it shall be timed.

    Args:
        rounds: the model, ready for training; gradients are left as none.
    """
    rounds.work.take()
    kept = Kept(rounds.model)
    with saved_tensors_hooks(kept.pack, lambda tensor: tensor):
        total = rounds([batch], torch.Generator().manual_seed(0))
    work = float(rounds.work.take())
    del total
    if not timed:
        return Cost(work, kept.bytes, kept.weights)
    times: list[float] = []
    while len(times) < MOST and sum(times) < ENOUGH:
        synchronize(rounds.device)
        start = time.perf_counter()
        rounds([batch], torch.Generator().manual_seed(0)).backward()
        synchronize(rounds.device)
        times.append(time.perf_counter() - start)
    rounds.work.take()
    for parameter in rounds.parameters():
        parameter.grad = None
    return Cost(work, kept.bytes, kept.weights, min(times))


def seconds_of_update(model: nn.Module, optimizer: torch.optim.Optimizer, device: torch.device) -> float:
    """How long an update of all weights takes, the second one, at a learning rate of 0."""
    for group in optimizer.param_groups:
        group["lr"] = 0.0
    seconds = 0.0
    for _ in range(2):
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.grad = torch.zeros_like(parameter)
        synchronize(device)
        start = time.perf_counter()
        optimizer.step()
        synchronize(device)
        seconds = time.perf_counter() - start
        optimizer.zero_grad(set_to_none=True)
    return seconds
