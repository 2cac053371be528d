"""Running averages of batch norms over the batches of several processes, as if one process had seen them all in order.

Every batch is normed by its own statistics, on one process as on many; only the averages for evaluation run from batch to batch. After a
step r0, batches 1 to n leave r = (1 - m)^n r0 + sum_i (1 - m)^(n - i) m s_i, a sum to which every process adds what it has seen.
"""

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

if TYPE_CHECKING:
    from avtlm.training.distributed import Processes

Place = tuple[int, int]  # round of the step, batch of the round


class NormAverages:
    """Watches the batch norms of a model during the forward passes of a step.

    Call `start_step`, then `start_batch` and `end_batch` around each batch, in order, and `finish_step`.
    """

    def __init__(self, model: nn.Module) -> None:
        found = [module for module in model.modules() if isinstance(module, _BatchNorm) and module.track_running_stats]
        self.norms = [module for module in found if module.training]  # a teacher's stay as they are
        self.touched: set[int] = set()
        for index, norm in enumerate(self.norms):
            assert norm.momentum is not None, "averages over all batches have no momentum"
            norm.register_forward_hook(partial(self._note, index))
        self.before: list[tuple[Tensor, Tensor]] = []
        self.seen: list[tuple[set[int], list[Tensor]]] = []

    def _note(self, index: int, module: nn.Module, inputs: object, output: object) -> None:
        del inputs, output
        if module.training:
            self.touched.add(index)

    def start_step(self) -> None:
        self.before = [(torch.cat(_averages(norm)), _tracked(norm).clone()) for norm in self.norms]
        self.seen = []

    def start_batch(self) -> None:
        self.touched = set()
        for norm in self.norms:
            if not norm.training:  # of a part that is frozen
                continue
            # New tensors, because the backward pass of the batch before holds on to the old ones.
            norm.running_mean, norm.running_var = (torch.zeros_like(average) for average in _averages(norm))

    def end_batch(self) -> None:
        """From zero, the averages have become this batch's share, m s_i."""
        self.seen.append((self.touched, [torch.cat(_averages(norm)) for norm in self.norms]))

    def finish_step(self, places: Sequence[Place], processes: "Processes") -> None:
        """Set the averages to what all batches of the step make of them; ``places`` are those of this process's batches."""
        notes: dict[Place, set[int]] = {}
        for part in processes.gather({place: touched for place, (touched, _) in zip(places, self.seen, strict=True)}):
            notes |= part
        for index, (norm, (before, tracked)) in enumerate(zip(self.norms, self.before, strict=True)):
            order = sorted(place for place, touched in notes.items() if index in touched)
            kept = 1.0 - (norm.momentum or 0.0)
            share = torch.zeros_like(before)
            for place, (touched, averages) in zip(places, self.seen, strict=True):
                if index in touched:
                    share += kept ** (len(order) - 1 - order.index(place)) * averages[index]
            new = kept ** len(order) * before + processes.sum(share)
            for average, value in zip(_averages(norm), new.chunk(2), strict=True):
                average.copy_(value)
            _tracked(norm).copy_(tracked + len(order))


def _averages(norm: _BatchNorm) -> list[Tensor]:
    assert norm.running_mean is not None
    assert norm.running_var is not None
    return [norm.running_mean, norm.running_var]


def _tracked(norm: _BatchNorm) -> Tensor:
    assert norm.num_batches_tracked is not None
    return norm.num_batches_tracked
