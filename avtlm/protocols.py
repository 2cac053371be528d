"""What the training loop, the decoders and the evaluation ask of a system. Whatever meets a protocol trains, decodes and is probed."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from avtlm.data.batching import Batch
from avtlm.objectives.loss import Loss


@runtime_checkable
class Trainable(Protocol):
    """A system that knows its losses. The loop alone sums, scales and reduces them."""

    def losses(self, batch: Batch, generator: torch.Generator) -> dict[str, Loss]:
        """Losses of one batch; everything drawn (masks, modality dropout) comes from the generator, a CPU one."""
        ...

    def named_parameters(self) -> Iterable[tuple[str, nn.Parameter]]: ...


@runtime_checkable
class CombinesLosses(Protocol):
    """A system that weighs the losses of the batches of one step against each other before the loop adds them up."""

    def combine(self, batches: Sequence[Batch], losses: Sequence[dict[str, Loss]]) -> list[dict[str, Loss]]:
        """The losses of every batch, weighed."""
        ...


@runtime_checkable
class PredictsUnits(Protocol):
    """A system whose targets are discrete units."""

    @property
    def inventory(self) -> Mapping[str, int]:
        """Sizes of its tables: ``units`` and ``phones`` (special symbols among them; 0 without text)."""
        ...


@runtime_checkable
class SpeechEncoder(Protocol):
    """A system whose frames can be probed, clustered or recognised."""

    def encode(self, batch: Batch, output_layer: int | None = None) -> tuple[Tensor, Tensor]:
        """(batch, frames, dim) at 25 Hz, and the valid frames of each row (batch,)."""
        ...
