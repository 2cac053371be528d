"""Who speaks when (SD): two speakers' activity frame by frame, which may overlap.

One LSTM layer of 512 and Linear(512, 2), trained by binary cross-entropy under the better assignment of speakers. Source: s3prl,
downstream/diarization (after EEND, Fujita et al. 2019). Activities are compared at 100 frames a second whatever the encoder's rate; the
benchmark reports the lowest error over median filters of 1 and 11 frames and thresholds of 0.3 to 0.7 on test itself, which is the first
metric here, and the plain error (threshold 0.5, no filter) stands beside it.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import permutations
from typing import ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from avtlm.evaluation.diarization import diarization_error
from avtlm.evaluation.superb.data import Clip, CorpusError
from avtlm.evaluation.superb.task import Heard, Metric, Task, TaskConfig
from avtlm.nn.attention import padding_mask
from avtlm.objectives.loss import Loss

DER, PLAIN = Metric("DER", higher=False), Metric("DER at 0.5", higher=False)
MEDIANS, THRESHOLDS = (1, 11), (0.3, 0.4, 0.5, 0.6, 0.7)
SCORED_RATE = 100.0  # frames per second at which activities are compared


@dataclass(frozen=True)
class DiarizationConfig(TaskConfig):
    """Attributes:
    hidden: of the LSTM.
    speakers: most that a clip has.
    """

    hidden: int = 512
    speakers: int = 2


class ActivityHead(nn.Module):
    """Frames to the logits of speakers' activity."""

    def __init__(self, width: int, hidden: int, speakers: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(width, hidden, batch_first=True)
        self.output = nn.Linear(hidden, speakers)

    def forward(self, features: Tensor) -> Tensor:
        """(batch, frames, width) -> (batch, frames, speakers). Time runs forward alone, so that padding behind a clip changes nothing."""
        out: Tensor = self.output(self.lstm(features)[0])
        return out


def permutation_loss(logits: Tensor, activity: Tensor, lengths: Tensor) -> Tensor:
    """Binary cross-entropy under the best assignment of speakers, summed over frames, the mean over speakers.

    Args:
        logits, activity: (batch, frames, speakers) each.
        lengths: valid frames, (batch,).

    Returns:
        (batch,).
    """
    padding = padding_mask(lengths, logits.shape[1])[..., None]
    each = []
    for order in permutations(range(activity.shape[2])):
        losses = F.binary_cross_entropy_with_logits(logits, activity[..., list(order)], reduction="none")
        each.append(losses.masked_fill(padding, 0.0).sum(1).mean(1))
    return torch.stack(each).min(0).values


def smoothed(active: np.ndarray, median: int) -> np.ndarray:
    """The median of so many (an odd number) neighbouring frames, silence beyond the ends: 0 or 1 (frames, speakers) -> the same."""
    reach = median // 2
    sums = np.cumsum(np.pad(active.astype(np.int64), ((reach + 1, reach), (0, 0))), axis=0)
    counted: np.ndarray = sums[median:] - sums[:-median]
    return (counted > reach).astype(np.int64)


class SpeakerDiarization(Task[DiarizationConfig]):
    """SD."""

    metrics: ClassVar[tuple[Metric, ...]] = (DER, PLAIN)

    def head(self, width: int, frame_rate: float) -> nn.Module:
        return ActivityHead(width, self.config.hidden, self.config.speakers)

    def activity(self, clip: Clip, rate: float, frames: int, first: int = 0) -> np.ndarray:
        """0 or 1, (frames, speakers), of the frames from ``first`` on.

        Raises:
            CorpusError: segments are none, or of more speakers than the task has.
        """
        found = np.zeros((first + frames, self.config.speakers), dtype=np.int64)
        numbers: dict[str, int] = {}
        for speaker, start, end in segments(clip):
            number = numbers.setdefault(speaker, len(numbers))
            if number >= self.config.speakers:
                raise CorpusError(f"{clip.place}: {clip.id} has more than {self.config.speakers} speakers; set speakers, or leave it out.")
            found[round(start * rate) : round(end * rate), number] = 1
        return found[first:]

    def loss(self, head: nn.Module, heard: Heard, generator: torch.Generator) -> Loss:
        """Sum of the clips' losses, over all frames."""
        frames = heard.features.shape[1]
        rows = [self.activity(clip, heard.frame_rate, frames, first) for clip, first in zip(heard.clips, heard.first, strict=True)]
        activity = torch.from_numpy(np.stack(rows)).to(heard.features)
        losses = permutation_loss(head(heard.features), activity, heard.lengths)
        return Loss(losses.sum(), heard.lengths.sum())

    def evaluate(self, head: nn.Module, batches: Iterable[Heard], split: str) -> dict[str, float]:
        settings = [(median, threshold) for median in MEDIANS for threshold in THRESHOLDS]
        wrong, total = dict.fromkeys(settings, 0), 0
        for heard in batches:
            probabilities = head(heard.features).sigmoid().cpu().numpy()
            for clip, row, length in zip(heard.clips, probabilities, heard.lengths.tolist(), strict=True):
                last = max((end for _, _, end in segments(clip)), default=0.0)
                scored = max(round(length / heard.frame_rate * SCORED_RATE), round(last * SCORED_RATE))
                reference = self.activity(clip, SCORED_RATE, scored)
                total += int(reference.sum())
                for median, threshold in settings:
                    active = smoothed(row[:length] > threshold, median)
                    found = diarization_error(reference, _at_rate(active, heard.frame_rate, scored))
                    wrong[median, threshold] += found.missed + found.false_alarm + found.confusion
        if total == 0:
            raise CorpusError(f"{self.corpus.folder}: nobody speaks in any clip of {split}; check its segments.")
        best = min(settings, key=lambda setting: wrong[setting])
        rates = {setting: 100 * errors / total for setting, errors in wrong.items()}
        return {DER.name: rates[best], PLAIN.name: rates[1, 0.5], "median": float(best[0]), "threshold": best[1]}


def segments(clip: Clip) -> Sequence[tuple[str, float, float]]:
    """Speaker, start and end in seconds of the clip. Raises CorpusError: they are no such list."""
    found = clip.fields.get("segments")
    good = isinstance(found, list) and all(
        isinstance(part, list) and len(part) == 3 and isinstance(part[0], str) and all(isinstance(time, int | float) for time in part[1:])
        for part in found
    )
    if not good:
        raise clip.wrong("segments", "a list of [speaker, start, end]")
    assert isinstance(found, list)
    return [(speaker, float(start), float(end)) for speaker, start, end in found]


def _at_rate(active: np.ndarray, rate: float, frames: int) -> np.ndarray:
    """Frames at a rate, each repeated or passed by, as so many frames at SCORED_RATE; silence behind the last one."""
    places = (np.arange(frames) * rate / SCORED_RATE).astype(np.int64)
    padded = np.concatenate([active, np.zeros((1, active.shape[1]), dtype=active.dtype)])
    return padded[np.minimum(places, len(active))]
