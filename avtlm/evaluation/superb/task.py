"""What a task of SUPERB is to the harness: its data, its head over the weighted sum of an encoder's layers, its loss, its metrics.

The harness (run.py, training.py) does the rest for every task alike: features, weighted sum, updates, choosing on dev, learning rates,
resuming, tables. A task that learns nothing (QbE) is a `Search` instead.
"""

import abc
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Literal, TypeVar

import torch
from torch import Tensor, nn

from avtlm.data.seeds import seed_for
from avtlm.evaluation.superb.data import Clip, Corpus
from avtlm.objectives.loss import Loss

if TYPE_CHECKING:
    from avtlm.evaluation.superb.cache import States


@dataclass(frozen=True)
class Metric:
    """A figure of a task.

    Attributes:
        name: such as ``WER``.
        unit: ``%`` for rates, which are given in percent; otherwise empty.
        higher: whether more is better.
        digits: behind the point, in tables.
    """

    name: str
    unit: str = "%"
    higher: bool = True
    digits: int = 2

    def better(self, value: float, than: float | None) -> bool:
        """Whether a value is better than another; anything is better than nothing, nothing is not a number."""
        if value != value:
            return False
        return than is None or (value > than if self.higher else value < than)


@dataclass(frozen=True)
class TaskConfig:
    """How a task is learned; every task sets the defaults of its published recipe, and adds what its head has.

    Attributes:
        steps: updates.
        batch: clips of a batch.
        accumulation: batches of an update.
        lr: learning rate, the only setting that the benchmark lets one tune.
        optimizer: ``adam`` or ``adamw`` (with PyTorch's weight decay of 0.01).
        crop_seconds: longest piece of a clip in training, from a drawn place of it; null for whole clips.
        clip_norm: longest gradient.
        evaluate_every: updates between two looks at dev; null for forty looks.
        layer_norm: norm every layer before the sum (without parameters).
        seed: of the head's weights, the order of clips, crops and dropout.
    """

    steps: int = 200_000
    batch: int = 32
    accumulation: int = 1
    lr: float = 1e-4
    optimizer: Literal["adam", "adamw"] = "adam"
    crop_seconds: float | None = None
    clip_norm: float = 1.0
    evaluate_every: int | None = None
    layer_norm: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("steps", "batch", "accumulation", "lr", "clip_norm", "crop_seconds", "evaluate_every"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ValueError(f"{name}: {value}; give more than 0.")

    @property
    def looks(self) -> int:
        """Updates between two looks at dev."""
        return self.evaluate_every or max(1, self.steps // 40)


@dataclass(frozen=True)
class Heard:
    """A batch of clips behind the weighted sum.

    Attributes:
        features: (batch, frames, width); zeros behind the lengths.
        lengths: valid frames, (batch,).
        clips: of the rows.
        first: frames that were cut off in front of each row.
        frame_rate: frames per second.
    """

    features: Tensor
    lengths: Tensor
    clips: tuple[Clip, ...]
    first: tuple[int, ...]
    frame_rate: float


C = TypeVar("C", bound=TaskConfig)


class Task(abc.ABC, Generic[C]):
    """A task that learns a head.

    Attributes:
        metrics: what it is measured by; the first one chooses on dev and among learning rates.
    """

    metrics: ClassVar[tuple[Metric, ...]]

    def __init__(self, corpus: Corpus, config: C) -> None:
        self.corpus, self.config = corpus, config

    @abc.abstractmethod
    def head(self, width: int, frame_rate: float) -> nn.Module:
        """A new head for features of this width and rate; what it draws comes from torch's generator, which the harness seeds."""

    @abc.abstractmethod
    def loss(self, head: nn.Module, heard: Heard, generator: torch.Generator) -> Loss:
        """Sum and count of a batch of training; the generator (a CPU one) draws what is drawn."""

    @abc.abstractmethod
    def evaluate(self, head: nn.Module, batches: Iterable[Heard], split: str) -> dict[str, float]:
        """All metrics by name over the whole clips of ``dev`` or ``test``, each in one batch; head and features are frozen."""

    def clips(self, split: str) -> Sequence[Clip]:
        """The clips of a split. Raises CorpusError."""
        return self.corpus.split(split)

    def plan(self, frames: Sequence[int], epoch: int) -> list[list[int]]:
        """Rows of the batches of an epoch: by default all clips of training in a drawn order.

        Args:
            frames: of the clips.
        """
        generator = torch.Generator().manual_seed(seed_for(self.config.seed, "order", epoch))
        return self.cut(torch.randperm(len(frames), generator=generator).tolist())

    def cut(self, order: Sequence[int]) -> list[list[int]]:
        """Rows in batches, without a last small one if there are others."""
        batches = [list(order[start : start + self.config.batch]) for start in range(0, len(order), self.config.batch)]
        return batches[:-1] if len(batches) > 1 and len(batches[-1]) < self.config.batch else batches

    @property
    def choice(self) -> str | None:
        """The split that decides which head is kept, and which learning rate; None keeps the last one."""
        return "dev" if self.corpus.has("dev") else None

    def rate(self, step: int) -> float:
        """Factor of the learning rate at an update, counted from 0."""
        return 1.0


@dataclass(frozen=True)
class Outcome:
    """What a task came to with one encoder.

    Attributes:
        task, corpus: their names.
        metrics: by name, on test.
        dev: the same on dev, at the chosen update; of no task but those that choose.
        weights: of the layers, which sum to 1.
        details: whatever else is worth keeping, as JSON values: learning rates and what they came to, chosen updates, folds.
    """

    task: str
    corpus: str
    metrics: dict[str, float]
    dev: dict[str, float] = field(default_factory=dict)
    weights: tuple[float, ...] = ()
    details: dict[str, Any] = field(default_factory=dict)


class Search(abc.ABC, Generic[C]):
    """A task that learns nothing: it chooses a layer on dev.

    Attributes:
        metrics: see Task.
    """

    metrics: ClassVar[tuple[Metric, ...]]

    def __init__(self, corpus: Corpus, config: C) -> None:
        self.corpus, self.config = corpus, config

    @abc.abstractmethod
    def run(self, states: "States") -> Outcome:
        """Look at every layer on dev, and at the best one on test."""
