"""What the training loop, the decoders and the evaluation ask of a system. Whatever meets a protocol trains, decodes and is probed."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from avtlm.data.batching import Batch
from avtlm.data.inputs import InputFormat
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


class WholeConfig(Protocol):
    """Configuration of a system that is trained and used whole: it reads and writes by itself what other encoders need a recogniser for.

    Attributes:
        vocabulary: symbols of text, which a run counts.
        speakers: voices that are told apart, which a run counts.
        inputs: what it reads, of ``speech`` and ``text``.
        further_symbols: what a vocabulary has behind the symbols of texts.
        vocabulary_parts: modules that belong to one vocabulary and mean nothing to another.
        optional_parts: modules that a run may do without though its initial model has them, such as a head for CTC in translation.
        speaker_parts: modules that belong to one list of speakers.
    """

    vocabulary: int
    speakers: int
    inputs: tuple[str, ...]
    further_symbols: ClassVar[tuple[str, ...]]
    vocabulary_parts: ClassVar[tuple[str, ...]]
    optional_parts: ClassVar[tuple[str, ...]]
    speaker_parts: ClassVar[tuple[str, ...]]

    @property
    def has_text(self) -> bool:
        """Whether it reads or writes any."""
        ...

    @classmethod
    def of_task(cls, task: str) -> dict[str, Any]:
        """Settings by which a run of this task differs from one of pre-training."""
        ...


@runtime_checkable
class FollowsSteps(Protocol):
    """A system in which something moves with training besides what gradients move: a teacher, a temperature, a freeze."""

    def start_step(self, step: int, steps: int) -> None:
        """Called before every step of a training of ``steps``, when ``step`` of them are done. What it changes depends on the step and on
        the model's weights alone, so that a resumed run repeats it."""
        ...


@runtime_checkable
class DropsHeads(Protocol):
    """A pre-trained encoder with parts that fine-tuning does not need."""

    def drop_heads(self) -> None:
        """Remove them."""
        ...


@runtime_checkable
class MakesTeacher(Protocol):
    """A system that learns from a moving average of itself."""

    def make_teacher(self) -> None:
        """Let the teacher be the student as it is."""
        ...


@runtime_checkable
class PredictsUnits(Protocol):
    """A system whose targets are discrete units."""

    @property
    def inventory(self) -> Mapping[str, int]:
        """Sizes of its tables: ``units`` and ``phones`` (special symbols among them; 0 without text), and ``text_units`` where units of
        texts are others than those of speech."""
        ...


@runtime_checkable
class SpeechEncoder(Protocol):
    """A system whose frames can be probed, clustered or recognised."""

    @property
    def input_format(self) -> InputFormat:
        """What its batches hold, and how many frames per second come out."""
        ...

    def encode(self, batch: Batch, output_layer: int | None = None) -> tuple[Tensor, Tensor]:
        """(batch, frames, dim), and the valid frames of each row (batch,)."""
        ...


@runtime_checkable
class ShowsLayers(Protocol):
    """An encoder of speech that gives all of its hidden states in one pass (SUPERB weighs them)."""

    @property
    def input_format(self) -> InputFormat:
        """What its batches hold, and how many frames per second come out."""
        ...

    def hidden_states(self, batch: Batch) -> tuple[list[Tensor], Tensor]:
        """What enters the layers and what each of them puts out, (batch, frames, dim) each, and the valid frames of each row (batch,)."""
        ...


@runtime_checkable
class ComputesFeatures(Protocol):
    """A system that makes features of waveforms by itself, before anything that it has learned: what comes behind them can be exported."""

    def features(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """(batch, frames, bands), and the valid frames of each row (batch,)."""
        ...

    def encode_features(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """What its heads read of them: (batch, frames, dim), and the valid frames of each row (batch,)."""
        ...
