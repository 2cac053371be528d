"""Whose voice is it? The accuracy of a model that names speakers, over a manifest (SpeechT5, section 4.6: VoxCeleb1)."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from avtlm import systems
from avtlm.data.dataset import Source
from avtlm.data.spoken_clips import open_source
from avtlm.evaluation.tables import figures
from avtlm.training.progress import bar
from avtlm.training.whole_system import SPEAKERS, read_speakers

NORMAL = 1.959964  # 97.5 % of a normal distribution lie below


@dataclass(frozen=True)
class Identification:
    """How many clips of a manifest were given to who speaks in them.

    Attributes:
        speakers: how many the model tells apart.
        right: clips with the right name.
        named: who it was taken for, by utterance id.
    """

    model: str
    manifest: str
    split: str | None
    speakers: int
    right: int
    named: Mapping[str, str] = field(repr=False)

    @property
    def accuracy(self) -> float:
        """In percent."""
        return 100.0 * self.right / len(self.named)

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval in percent (Wilson 1927)."""
        return wilson(self.right, len(self.named))

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "model": self.model,
            "manifest": self.manifest,
            "split": self.split,
            "utterances": len(self.named),
            "speakers": self.speakers,
            "accuracy": round(self.accuracy, 2),
            "interval_95": [round(end, 2) for end in self.interval],
        }

    def table(self) -> str:
        """The figure as text."""
        title = f"Speaker identification: {len(self.named)} utterances, {self.speakers} speakers"
        low, high = self.interval
        return figures(title, {"accuracy, % (95 % interval)": f"{self.accuracy:.1f} ({low:.1f}-{high:.1f})"})


def evaluate_speakers(manifest: str | Path, model: str | Path, split: str | None = "test", limit: int | None = None) -> Identification:
    """Name the speaker of every clip, and count how often that is right. Every clip is heard alone and whole.

    Args:
        manifest: clips with the key ``speaker``.
        model: folder of a model for ``speaker``, with the names of its classes (speakers.txt, or the vocabulary of an official one).
        split: None takes all rows.
        limit: only the first rows.

    Raises:
        ManifestError, MediaError, CheckpointError: something cannot be read.
        ValueError: no rows, no names, or an utterance of nobody or of somebody the model does not know.
    """
    network, vocabulary = systems.load_whole(model, "speaker")
    network = systems.for_use(network)
    count: int = network.config.speakers  # type: ignore[union-attr, assignment]
    names = read_speakers(model) or (() if vocabulary is None else tuple(vocabulary.symbols))
    if len(names) != count:
        found = f"names {len(names)} speakers" if names else "names no speakers"
        raise ValueError(
            f"{model}: tells {count} speakers apart but {found}; write them into its {SPEAKERS}, one a line, by their numbers."
        )
    source = Source(str(manifest), "speaker", split=split, max_seconds=float("inf"), min_seconds=0.0, cache=False)
    dataset = open_source(source, inputs=systems.input_format(network), training=False, speakers=names)
    rows = range(len(dataset) if limit is None else min(limit, len(dataset)))
    device = next(network.parameters()).device
    named, right = {}, 0
    with bar("evaluating", len(rows)) as progress, torch.inference_mode():
        for index in rows:
            batch = dataset.batch([index]).to(device)
            best = int(network.name_speaker(*network.encode(batch)).argmax(-1))  # type: ignore[operator]
            named[batch.ids[0]] = names[best]
            right += best == int(batch.targets["speaker"][0])
            progress.advance(1)
    return Identification(str(model), str(manifest), split, count, right, named)


def wilson(right: int, total: int) -> tuple[float, float]:
    """The 95 % interval of a share, in percent (Wilson 1927): no end of it lies below 0 or above 100."""
    share, spread = right / total, NORMAL**2 / total
    middle = share + spread / 2
    half = NORMAL * math.sqrt(share * (1 - share) / total + spread / (4 * total))
    return 100 * max(0.0, (middle - half) / (1 + spread)), 100 * min(1.0, (middle + half) / (1 + spread))
