"""Measures of a model that tags sounds and knows voices, over a manifest: mAP of its tags, equal error rate of speaker trials (MT2KD).

Every clip is heard alone and whole. Trials are scored by the cosine of vectors of whole clips, without any normalisation of scores.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from avtlm.data.dataset import ClipDataset, Source
from avtlm.data.heard_clips import labels_of
from avtlm.evaluation.speaker import equal_error_rate, min_detection_cost, nearest_error_rate
from avtlm.evaluation.tables import figures
from avtlm.evaluation.tagging import Tagging, tagging
from avtlm.hearing import Listener
from avtlm.training.progress import bar


@dataclass(frozen=True)
class TaggingReport:
    """How well tags rank the clips of a manifest.

    Attributes:
        classes: of the model; ``held`` of them are in some clip.
    """

    model: str
    manifest: str
    split: str | None
    clips: int
    classes: tuple[str, ...]
    found: Tagging = field(repr=False)

    @property
    def held(self) -> int:
        return int((~np.isnan(self.found.average_precision)).sum())

    def to_json(self) -> dict[str, Any]:
        """Plain values; mAP in percent."""
        each = zip(self.classes, self.found.average_precision.tolist(), strict=True)
        return {
            "model": self.model,
            "manifest": self.manifest,
            "split": self.split,
            "clips": self.clips,
            "classes": len(self.classes),
            "classes_in_clips": self.held,
            "mean_average_precision": round(100 * self.found.mean_average_precision, 2),
            "d_prime": round(self.found.d_prime, 3),
            "average_precision": {name: round(100 * value, 2) for name, value in each if not np.isnan(value)},
        }

    def table(self) -> str:
        """The figures as text."""
        title = f"Audio tagging: {self.clips} clips, {self.held} of {len(self.classes)} classes in them"
        return figures(title, {"mAP, %": f"{100 * self.found.mean_average_precision:.1f}", "d'": f"{self.found.d_prime:.2f}"})


@dataclass(frozen=True)
class Trial:
    """Two utterances, and whether they are of one speaker."""

    same: bool
    first: str
    second: str


@dataclass(frozen=True)
class VerificationReport:
    """How well cosines tell speakers apart.

    Attributes:
        rate, threshold: where errors of both kinds are equally frequent, between thresholds; a share.
        nearest: the same at the nearest threshold, as MT2KD's code reports it.
        costs: least detection costs by the probability of one speaker.
    """

    model: str
    trials: int
    clips: int
    rate: float
    threshold: float
    nearest: float
    costs: Mapping[float, float]

    def to_json(self) -> dict[str, Any]:
        """Plain values; rates in percent."""
        return {
            "model": self.model,
            "trials": self.trials,
            "clips": self.clips,
            "equal_error_rate": round(100 * self.rate, 3),
            "equal_error_rate_at_threshold": round(100 * self.nearest, 3),
            "threshold": round(self.threshold, 4),
            "min_detection_cost": {str(prob): round(cost, 4) for prob, cost in self.costs.items()},
        }

    def table(self) -> str:
        """The figures as text."""
        shown = {"EER, %": f"{100 * self.rate:.2f}", "threshold": f"{self.threshold:.3f}"}
        shown |= {f"minDCF ({prob:g})": f"{cost:.3f}" for prob, cost in self.costs.items()}
        return figures(f"Speaker verification: {self.trials} trials of {self.clips} clips", shown)


def evaluate_tags(manifest: str | Path, model: str | Path, split: str | None = "test", limit: int | None = None) -> TaggingReport:
    """Tag every clip of a manifest, and compare with ``extra["labels"]``.

    Raises:
        ManifestError, MediaError, CheckpointError: something cannot be read.
        ValueError: no rows, a clip without labels, or with one that the model does not know.
    """
    listener = Listener(model, window=0.0)
    clips = _clips(manifest, split, listener)
    rows = range(len(clips) if limit is None else min(limit, len(clips)))
    places = {name: place for place, name in enumerate(listener.tags)}
    labels, scores = np.zeros((len(rows), len(places)), np.int64), np.zeros((len(rows), len(places)))
    with bar("tagging", len(rows)) as progress:
        for row in rows:
            names = labels_of(clips.manifest[row])
            unknown = [name for name in names if name not in places]
            if unknown or not names:
                what = f"has the label {unknown[0]!r}, which the model does not know" if unknown else "has no labels under extra"
                raise ValueError(f"{manifest}: utterance {clips.manifest[row].id!r} {what}; leave it out.")
            labels[row, [places[name] for name in names]] = 1
            scores[row] = listener.tag_scores(clips.wave(row))
            progress.advance(1)
    return TaggingReport(str(model), str(manifest), split, len(rows), listener.tags, tagging(labels, scores))


def read_trials(path: str | Path) -> list[Trial]:
    """Lines ``1 FIRST SECOND`` of VoxCeleb's lists, 0 for two speakers; names are ids of utterances, with ``.wav`` behind them or without.

    Raises:
        ValueError: a line that is none, or no lines.
    """
    trials = []
    for number, line in enumerate(Path(path).read_text(encoding="utf-8").splitlines(), 1):
        cells = line.split()
        if cells and (len(cells) != 3 or cells[0] not in ("0", "1")):
            raise ValueError(f"{path}, line {number}: expected 0 or 1 and two utterances, found {line[:60]!r}.")
        if cells:
            trials.append(Trial(cells[0] == "1", cells[1].removesuffix(".wav"), cells[2].removesuffix(".wav")))
    if not trials:
        raise ValueError(f"{path}: no trials; give lines such as: 1 id10270/x6uYqmx31kE/00001 id10270/8jEAjG6SegY/00008.")
    return trials


def evaluate_trials(
    trials: str | Path | Sequence[Trial], manifest: str | Path, model: str | Path, split: str | None = "test"
) -> VerificationReport:
    """Score trials between utterances of a manifest.

    Args:
        trials: a list in a file, see read_trials, or the trials themselves.

    Raises:
        ManifestError, MediaError, CheckpointError: something cannot be read.
        ValueError: an utterance that is not in the manifest, or trials of one kind alone.
    """
    listed = read_trials(trials) if isinstance(trials, str | Path) else list(trials)
    listener = Listener(model, window=0.0)
    clips = _clips(manifest, split, listener)
    places = {row.id: place for place, row in enumerate(clips.manifest)}
    names = sorted({name for trial in listed for name in (trial.first, trial.second)})
    unknown = [name for name in names if name not in places]
    if unknown:
        raise ValueError(f"{manifest}: has no utterance {unknown[0]!r} in split {split or 'any'}, which a trial names; check the list.")
    voices = {}
    with bar("hearing voices", len(names)) as progress:
        for name in names:
            voices[name] = listener.voice(clips.wave(places[name]))
            progress.advance(1)
    labels = [int(trial.same) for trial in listed]
    scores = [float(voices[trial.first] @ voices[trial.second]) for trial in listed]
    found = equal_error_rate(labels, scores)
    costs = {prob: min_detection_cost(labels, scores, prob) for prob in (0.01, 0.05)}
    nearest = nearest_error_rate(labels, scores).rate
    return VerificationReport(str(model), len(listed), len(names), found.rate, found.threshold, nearest, costs)


def _clips(manifest: str | Path, split: str | None, listener: Listener) -> ClipDataset:
    source = Source(str(manifest), "audio", split=split, max_seconds=float("inf"), min_seconds=0.0, cache=False)
    return ClipDataset(source, inputs=listener.inputs, training=False)
