"""Tasks that name a whole clip: who speaks (SID), which keyword (KS), what is wanted (IC), which emotion (ER).

One head for all: Linear(width, 256), the mean over time, Linear(256, classes). Source: s3prl, downstream/voxceleb1, speech_commands,
fluent_commands, emotion.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from avtlm.data.seeds import seed_for
from avtlm.evaluation.superb.data import Clip, Corpus, CorpusError
from avtlm.evaluation.superb.pooling import mean_pool
from avtlm.evaluation.superb.task import Heard, Metric, Task, TaskConfig
from avtlm.objectives.loss import Loss

ACCURACY = Metric("accuracy")


@dataclass(frozen=True)
class ClassificationConfig(TaskConfig):
    """Attributes:
    projection: width in front of the pooling.
    """

    projection: int = 256


class UtteranceHead(nn.Module):
    """Frames to the logits of classes."""

    def __init__(self, width: int, projection: int, classes: int) -> None:
        super().__init__()
        self.projection = nn.Linear(width, projection)
        self.output = nn.Linear(projection, classes)

    def forward(self, features: Tensor, lengths: Tensor) -> Tensor:
        """(batch, frames, width) of the given lengths -> (batch, classes)."""
        out: Tensor = self.output(mean_pool(self.projection(features), lengths))
        return out


class Classification(Task[ClassificationConfig]):
    """One label for every clip, or several, whose logits stand side by side.

    Attributes:
        balanced: draw clips so that every class is equally frequent in training, and count them so on dev (KS).
    """

    metrics: ClassVar[tuple[Metric, ...]] = (ACCURACY,)
    balanced: ClassVar[bool] = False

    def __init__(self, corpus: Corpus, config: ClassificationConfig) -> None:
        super().__init__(corpus, config)
        rows = [self.labels(clip) for clip in self.clips("train")]
        count = len(rows[0])
        uneven = next((clip for clip, row in zip(self.clips("train"), rows) if len(row) != count), None)
        if uneven is not None:
            raise CorpusError(f"{uneven.place}: {uneven.id} has another number of labels than the clips before it, which have {count}.")
        # By slot, the names of the classes in alphabetical order.
        self.classes = [sorted({row[slot] for row in rows}) for slot in range(count)]
        self._numbers = [{name: number for number, name in enumerate(names)} for names in self.classes]

    def labels(self, clip: Clip) -> list[str]:
        """Those of a clip. Raises CorpusError: it has none."""
        return [clip.text("label")]

    def targets(self, clips: Sequence[Clip]) -> Tensor:
        """Numbers of the classes, (clips, slots). Raises CorpusError: a label that training lacks."""
        found = []
        for clip in clips:
            labels = self.labels(clip)
            wrong = [label for label, known in zip(labels, self._numbers) if label not in known]
            if wrong or len(labels) != len(self._numbers):
                what = f"the label {wrong[0]!r}, which no clip of training has" if wrong else f"{len(labels)} labels"
                raise CorpusError(f"{clip.place}: {clip.id} has {what}; add such clips to train.jsonl, or leave this one out.")
            found.append([known[label] for label, known in zip(labels, self._numbers)])
        return torch.tensor(found)

    def head(self, width: int, frame_rate: float) -> nn.Module:
        return UtteranceHead(width, self.config.projection, sum(map(len, self.classes)))

    def plan(self, frames: Sequence[int], epoch: int) -> list[list[int]]:
        """As many draws as there are clips; balanced ones with replacement."""
        if not self.balanced:
            return super().plan(frames, epoch)
        labels = [tuple(self.labels(clip)) for clip in self.clips("train")]
        counts = Counter(labels)
        weights = torch.tensor([1.0 / counts[label] for label in labels], dtype=torch.float64)
        generator = torch.Generator().manual_seed(seed_for(self.config.seed, "order", epoch))
        return self.cut(torch.multinomial(weights, len(frames), replacement=True, generator=generator).tolist())

    def loss(self, head: nn.Module, heard: Heard, generator: torch.Generator) -> Loss:
        """Cross-entropy, summed over slots and clips."""
        logits = head(heard.features, heard.lengths)
        targets = self.targets(heard.clips).to(logits.device)
        parts = logits.split([len(names) for names in self.classes], 1)
        value = torch.stack([F.cross_entropy(part, targets[:, slot], reduction="sum") for slot, part in enumerate(parts)]).sum()
        return Loss(value, torch.tensor(len(heard.clips), device=logits.device))

    def evaluate(self, head: nn.Module, batches: Iterable[Heard], split: str) -> dict[str, float]:
        """A clip counts if all of its slots are right. On dev of a balanced task classes count alike."""
        right: Counter[tuple[int, ...]] = Counter()
        total: Counter[tuple[int, ...]] = Counter()
        for heard in batches:
            logits = head(heard.features, heard.lengths)
            parts = logits.split([len(names) for names in self.classes], 1)
            guessed = torch.stack([part.argmax(1) for part in parts], 1).cpu()
            for row, hit in zip(self.targets(heard.clips).tolist(), (guessed == self.targets(heard.clips)).all(1).tolist(), strict=True):
                total[tuple(row)] += 1
                right[tuple(row)] += int(hit)
        if self.balanced and split == "dev":
            return {ACCURACY.name: 100 * sum(right[label] / count for label, count in total.items()) / len(total)}
        return {ACCURACY.name: 100 * sum(right.values()) / sum(total.values())}


class SpeakerIdentification(Classification):
    """SID: the label is who speaks."""

    def labels(self, clip: Clip) -> list[str]:
        return [clip.text("label" if "label" in clip.fields else "speaker")]


class KeywordSpotting(Classification):
    """KS: keywords, ``unknown`` and ``silence``, which are as frequent as any of them."""

    balanced = True


class IntentClassification(Classification):
    """IC: three labels (action, object, location), all of which have to be right."""

    def labels(self, clip: Clip) -> list[str]:
        return clip.names("labels")


class EmotionRecognition(Classification):
    """ER: the mean over folds (see run.py) is what counts."""
