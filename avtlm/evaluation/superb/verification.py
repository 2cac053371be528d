"""Are two clips of one speaker (ASV)? An x-vector learned on other speakers, compared by cosines.

Linear(width, 512), time-delay layers over 5, 3, 3, 1 and 1 frames (dilations 1, 2, 3, 1, 1; ReLU, no batch norm), means and deviations over
time, two linear layers with ReLU; trained by AM-softmax (Wang et al., arXiv 1801.05599). The first of the two layers gives the vector.
Source: s3prl, downstream/sv_voxceleb1.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from avtlm.data.seeds import seed_for
from avtlm.evaluation.speaker import equal_error_rate
from avtlm.evaluation.superb.data import Clip, Corpus, CorpusError
from avtlm.evaluation.superb.pooling import statistics_pool
from avtlm.evaluation.superb.task import Heard, Metric, Task, TaskConfig
from avtlm.objectives.loss import Loss

EER = Metric("EER", higher=False)
LAYERS = ((5, 1), (3, 2), (3, 3), (1, 1), (1, 1))  # frames that a layer sees, and their distance
NARROWER = sum((kernel - 1) * dilation for kernel, dilation in LAYERS)  # frames that are lost at both ends together: 14


@dataclass(frozen=True)
class VerificationConfig(TaskConfig):
    """Attributes:
    dim: of the time-delay layers and of the vector.
    pooled_dim: of the last of these layers, in front of the pooling.
    scale, margin: of AM-softmax.
    least_seconds: shorter clips take no part in training.
    """

    dim: int = 512
    pooled_dim: int = 1500
    scale: float = 30.0
    margin: float = 0.4
    least_seconds: float = 2.0


class AMSoftmax(nn.Module):
    """Cross-entropy of scaled cosines, that of the right class less a margin. Initialised Xavier normal, as in s3prl."""

    def __init__(self, dim: int, classes: int, scale: float, margin: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(dim, classes))
        nn.init.xavier_normal_(self.weight)
        self.scale, self.margin = scale, margin

    def forward(self, x: Tensor, targets: Tensor) -> Tensor:
        """x (batch, dim), targets (batch,) -> losses (batch,)."""
        cosines = F.normalize(x, dim=1) @ F.normalize(self.weight, dim=0)
        less = F.one_hot(targets, cosines.shape[1]) * self.margin
        return F.cross_entropy(self.scale * (cosines - less), targets, reduction="none")


class XVectorHead(nn.Module):
    """Frames to vectors of voices, and to the loss of speakers."""

    def __init__(self, width: int, speakers: int, config: VerificationConfig) -> None:
        super().__init__()
        dims = [config.dim] * len(LAYERS) + [config.pooled_dim]
        self.projection = nn.Linear(width, config.dim)
        self.frames = nn.ModuleList(
            nn.Conv1d(inputs, outputs, kernel, dilation=dilation)
            for inputs, outputs, (kernel, dilation) in zip(dims[:-1], dims[1:], LAYERS, strict=True)
        )
        self.first = nn.Linear(2 * config.pooled_dim, config.dim)
        self.second = nn.Linear(config.dim, config.dim)
        self.objective = AMSoftmax(config.dim, speakers, config.scale, config.margin)

    def embed(self, features: Tensor, lengths: Tensor) -> Tensor:
        """(batch, frames, width) of at least 16 valid frames each -> (batch, dim)."""
        x = self.projection(features).transpose(1, 2)
        for layer in self.frames:
            x = F.relu(layer(x))
        pooled = statistics_pool(x.transpose(1, 2), lengths - NARROWER)
        out: Tensor = F.relu(self.first(pooled))
        return out

    def forward(self, features: Tensor, lengths: Tensor, speakers: Tensor) -> Tensor:
        """Losses (batch,) of clips of the given speakers (batch,)."""
        out: Tensor = self.objective(F.relu(self.second(self.embed(features, lengths))), speakers)
        return out


class SpeakerVerification(Task[VerificationConfig]):
    """ASV. Without trials of dev the best of all looks at test counts, as in the benchmark, which has no dev set."""

    metrics: ClassVar[tuple[Metric, ...]] = (EER,)

    def __init__(self, corpus: Corpus, config: VerificationConfig) -> None:
        super().__init__(corpus, config)
        self.speakers = {name: number for number, name in enumerate(sorted({self._speaker(clip) for clip in self.clips("train")}))}
        self._rate = 0.0  # of frames, known when the head is made
        self._trials = {split: corpus.trials(split) for split in ("dev", "test") if split == "test" or self._has_dev}

    @property
    def _has_dev(self) -> bool:
        return (self.corpus.folder / "dev_trials.txt").is_file()

    @staticmethod
    def _speaker(clip: Clip) -> str:
        return clip.text("label" if "label" in clip.fields else "speaker")

    def plan(self, frames: Sequence[int], epoch: int) -> list[list[int]]:
        """Without clips that are too short for training."""
        least = max(NARROWER + 2, round(self.config.least_seconds * self._rate))
        rows = [row for row, count in enumerate(frames) if count >= least]
        if not rows:
            raise CorpusError(f"{self.corpus.folder}: no clip of training lasts {self.config.least_seconds:g} s; lower least_seconds.")
        generator = torch.Generator().manual_seed(seed_for(self.config.seed, "order", epoch))
        return self.cut([rows[place] for place in torch.randperm(len(rows), generator=generator).tolist()])

    @property
    def choice(self) -> str | None:
        return "dev" if "dev" in self._trials else "test"

    def head(self, width: int, frame_rate: float) -> nn.Module:
        self._rate = frame_rate
        return XVectorHead(width, len(self.speakers), self.config)

    def loss(self, head: nn.Module, heard: Heard, generator: torch.Generator) -> Loss:
        targets = torch.tensor([self.speakers[self._speaker(clip)] for clip in heard.clips], device=heard.features.device)
        losses = head(heard.features, heard.lengths, targets)
        return Loss(losses.sum(), torch.tensor(len(heard.clips), device=losses.device))

    def evaluate(self, head: nn.Module, batches: Iterable[Heard], split: str) -> dict[str, float]:
        assert isinstance(head, XVectorHead)
        vectors: dict[str, Tensor] = {}
        for heard in batches:
            short = next((clip for clip, length in zip(heard.clips, heard.lengths.tolist()) if length < NARROWER + 2), None)
            if short is not None:
                raise CorpusError(f"{short.place}: {short.id} has fewer than the {NARROWER + 2} frames of an x-vector; leave it out.")
            found = F.normalize(head.embed(heard.features, heard.lengths), dim=1).cpu()
            vectors.update({clip.id: vector for clip, vector in zip(heard.clips, found, strict=True)})
        trials = self._trials[split]
        scores = [float(vectors[trial.first.id] @ vectors[trial.second.id]) for trial in trials]
        return {EER.name: 100 * equal_error_rate([int(trial.same) for trial in trials], scores).rate}
