"""The benchmark itself: a task, or all whose data are there, with one encoder.

``OUT/TASK/CORPUS/`` holds a training for each learning rate (and fold), each of which can be stopped and started again, and what they
came to (``outcome.json``); ``OUT/results.json`` all tasks together, ``OUT/table.txt`` them beside the published rows, ``OUT/weights.png``
the weights of the layers.
"""

import dataclasses
import hashlib
import json
import logging
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from avtlm.data.seeds import seed_for
from avtlm.evaluation.superb.cache import CachedStates, LiveStates, States
from avtlm.evaluation.superb.data import Clip, Corpus, CorpusError, corpora
from avtlm.evaluation.superb.features import Upstream, open_upstream
from avtlm.evaluation.superb.task import Outcome, Search, Task
from avtlm.evaluation.superb.tasks import Kind, find
from avtlm.evaluation.superb.training import DivergenceError, Training, write_json

log = logging.getLogger(__name__)
OUTCOME = "outcome.json"
DEV_SHARE = 0.2  # of the clips of the other folds, s3prl's valid_ratio


@dataclass(frozen=True)
class Settings:
    """How tasks are run.

    Attributes:
        overrides: ``key=value`` of the settings of all tasks, ``TASK:key=value`` of one.
        rates: learning rates to choose among on dev; none takes the one of the settings.
        cache: folder for hidden states; None computes them whenever they are needed.
        device: of the encoder and the heads; None takes a GPU if there is one.
        say: is told what is being done.
    """

    overrides: tuple[str, ...] = ()
    rates: tuple[float, ...] = ()
    cache: Path | None = None
    device: str | None = None
    say: Callable[[str], None] = field(default=lambda line: None)

    def of(self, name: str) -> list[str]:
        """The overrides of a task."""
        parts = [override.partition(":") if re.match(r"[\w-]+:", override) else ("", "", override) for override in self.overrides]
        return [override for task, _, override in parts if task.lower() in ("", name.lower())]

    def states(self, upstream: Upstream) -> States:
        return LiveStates(upstream) if self.cache is None else CachedStates(upstream, self.cache)

    @property
    def chosen_device(self) -> torch.device:
        return torch.device(self.device or ("cuda" if torch.cuda.is_available() else "cpu"))


@dataclass(frozen=True)
class Report:
    """Outcomes of tasks, and what went wrong with others, by task and corpus."""

    model: str
    parameters: int
    outcomes: tuple[Outcome, ...]
    failures: dict[str, str] = field(default_factory=dict)

    @property
    def values(self) -> dict[str, float]:
        """By column of the table, such as ``SF F1``: means over the corpora of a task."""
        found: dict[str, list[float]] = {}
        for outcome in self.outcomes:
            for metric in find(outcome.task)[1].task_class().metrics:
                found.setdefault(f"{outcome.task} {metric.name}", []).append(outcome.metrics[metric.name])
        return {name: sum(values) / len(values) for name, values in found.items()}

    def to_json(self) -> dict[str, Any]:
        return {
            "model": self.model,
            "parameters": self.parameters,
            "values": self.values,
            "outcomes": [dataclasses.asdict(outcome) for outcome in self.outcomes],
            "failures": self.failures,
        }


def run(name: str, model: str | Path, data: str | Path, out: str | Path, settings: Settings | None = None) -> Report:
    """Run a task, or ``all``, and write everything; what is finished already is not done again.

    Args:
        name: of the task, whatever its case; ``all`` takes every corpus in the subfolders of ``data`` and goes on after a failure.
        model: a model folder, or ``fbank``.
        data: folder of a corpus, or of several.

    Raises:
        ConfigError, CorpusError, CheckpointError, ValueError: the task, its data or the model cannot be used.
    """
    settings, out = settings or Settings(), Path(out)
    everything = name.lower() == "all"
    wanted = None if everything else find(name)[0]
    given = corpora(data)
    if wanted is not None:
        other = given[0]
        given = [corpus for corpus in given if corpus.task.lower() == wanted.lower()]
        if not given:
            raise CorpusError(f"{data}: holds {other.name} for {other.task}, nothing for {wanted}; give the folder of such a corpus.")
    upstream = open_upstream(model, settings.device)
    states = settings.states(upstream)
    failures = {}
    for corpus in given:
        label = f"{corpus.task} {corpus.name}"
        settings.say(f"{label}, {upstream.name}")
        try:
            run_corpus(corpus, states, out, settings)
        except (ValueError, ImportError, OSError, FloatingPointError) as error:
            if not everything:
                raise
            failures[label] = " ".join(str(error).split()) or type(error).__name__
            log.warning("%s: %s", label, failures[label])
    report = Report(upstream.name, upstream.parameters, _kept(out, upstream), failures)
    write_report(report, out)
    return report


def run_corpus(corpus: Corpus, states: States, out: Path, settings: Settings) -> Outcome:
    """A task on one corpus: folds, learning rates, choice on dev, result on test. Errors as of `run`."""
    name, kind = find(corpus.task)
    corpus = dataclasses.replace(corpus, task=name)
    folder = out / name / _safe(corpus.folder.resolve().name)
    config = kind.configure(settings.of(name))
    identity = _identity(corpus, kind)
    about = json.dumps({"encoder": states.upstream.key, "data": identity, "settings": repr(config), "rates": settings.rates})
    finished = _finished(folder, about)
    if finished is not None:
        return finished
    cls: Any = kind.task_class()
    if issubclass(cls, Search):
        outcome = cls(corpus, config).run(states)
    else:
        outcome = _learn(cls, config, corpus, _parts(corpus, kind), states, folder, settings, identity)
    write_json(folder / OUTCOME, {**dataclasses.asdict(outcome), "about": about})
    return outcome


def _learn(
    cls: type[Task[Any]],
    config: Any,
    corpus: Corpus,
    parts: dict[str, Corpus],
    states: States,
    folder: Path,
    settings: Settings,
    identity: str,
) -> Outcome:
    """Every learning rate over all parts of a corpus; the best of dev on test."""
    metric = cls.metrics[0]
    rates = settings.rates or (config.lr,)
    swept: dict[float, float] = {}
    best: tuple[float, list[Training]] | None = None
    for rate in rates:
        trainings = []
        for part, piece in parts.items():
            task = cls(piece, dataclasses.replace(config, lr=rate))
            if len(rates) > 1 and task.choice is None:
                raise CorpusError(f"{corpus.folder}: has no dev.jsonl to choose among learning rates by; add one, or give one rate.")
            place = folder / f"lr_{rate:g}" / part
            trainings.append(Training(task, states, place, settings.chosen_device, f"{identity} {part}", task.choice))
        try:
            curves = [training.run() for training in trainings]
        except DivergenceError as error:
            if len(rates) == 1:
                raise
            settings.say(str(error))
            swept[rate] = float("nan")
            continue
        chosen = [curve.dev[curve.best][metric.name] for curve in curves if curve.best in curve.dev]
        swept[rate] = sum(chosen) / len(chosen) if chosen else float("nan")
        if best is None or metric.better(swept[rate], swept[best[0]]):
            best = rate, trainings
    if best is None:
        raise DivergenceError(f"{folder}: the loss is no number any more with any of the learning rates; give smaller ones.")
    rate, trainings = best
    tested = [training.evaluate("test") for training in trainings]
    looked = [training.curve.dev[training.curve.best] for training in trainings if training.curve.best in training.curve.dev]
    weights = torch.tensor([training.weights for training in trainings]).mean(0).tolist()
    details: dict[str, Any] = {
        "lr": rate,
        "dev by lr": {f"{each:g}": value for each, value in swept.items()},
        "chosen on": trainings[0].choose,
        "updates": [training.curve.best for training in trainings],
    }
    if len(trainings) > 1:
        details["folds"] = [found[metric.name] for found in tested]
    return Outcome(corpus.task, corpus.name, _mean(tested), _mean(looked) if looked else {}, tuple(weights), details)


def _parts(corpus: Corpus, kind: Kind) -> dict[str, Corpus]:
    """The corpus as it is, or by fold: one fold is test, a drawn fifth of the others dev, the rest train."""
    if not kind.cross_validated or not corpus.folds:
        return {"all": corpus}
    clips = corpus.split("train")
    lacking = next((clip for clip in clips if "fold" not in clip.fields), None)
    if lacking is not None:
        raise lacking.wrong("fold", "the number of its fold, as the other clips have")
    if len(corpus.folds) < 2:
        raise CorpusError(f"{corpus.folder}: all clips are in one fold; give at least two.")
    found = {}
    for fold in corpus.folds:
        test = tuple(clip for clip in clips if int(clip.fields["fold"]) == fold)
        others = [clip for clip in clips if int(clip.fields["fold"]) != fold]
        drawn = sorted(others, key=lambda clip: seed_for("dev", fold, clip.id))
        count = max(1, round(DEV_SHARE * len(others)))
        kept = {clip.id for clip in drawn[count:]}
        train = tuple(clip for clip in others if clip.id in kept)
        splits: dict[str, tuple[Clip, ...]] = {"train": train, "dev": tuple(drawn[:count]), "test": test}
        found[f"fold_{fold}"] = corpus.with_clips(splits)
    return found


def _mean(metrics: Sequence[dict[str, float]]) -> dict[str, float]:
    return {name: sum(each[name] for each in metrics) / len(metrics) for name in metrics[0]}


def _identity(corpus: Corpus, kind: Kind) -> str:
    """A hash of all lists of a corpus."""
    found = hashlib.blake2b(kind.task.encode(), digest_size=16)
    for path in sorted([*corpus.folder.glob("*.json*"), *corpus.folder.glob("*trials.txt")]):
        found.update(path.name.encode() + path.read_bytes())
    return found.hexdigest()


def _finished(folder: Path, about: str) -> Outcome | None:
    """What was written, if it was made by the same; results of something else are in the way."""
    path = folder / OUTCOME
    if not path.is_file():
        return None
    values = json.loads(path.read_text(encoding="utf-8"))
    if values.pop("about", None) != about:
        raise ValueError(f"{folder}: holds the result of other settings, data or weights; choose another --out, or delete it.")
    return _outcome(values)


def _outcome(values: dict[str, Any]) -> Outcome:
    metrics = {name: float("nan") if value is None else value for name, value in values["metrics"].items()}
    return Outcome(values["task"], values["corpus"], metrics, values["dev"], tuple(values["weights"]), values["details"])


def _kept(out: Path, upstream: Upstream) -> tuple[Outcome, ...]:
    """All that runs of this encoder have left in the folder, this one and earlier ones."""
    found = []
    for path in sorted(out.glob(f"*/*/{OUTCOME}")):
        values = json.loads(path.read_text(encoding="utf-8"))
        if json.loads(values.pop("about"))["encoder"] == upstream.key:
            found.append(_outcome(values))
    return tuple(found)


def _safe(name: str) -> str:
    return "".join(letter if letter.isalnum() or letter in "-_." else "_" for letter in name)


def write_report(report: Report, out: Path) -> None:
    """results.json, table.txt and weights.png."""
    from avtlm.evaluation.superb.tables import beside_published, layer_weights

    write_json(out / "results.json", report.to_json())
    if report.outcomes:
        from avtlm.files import write_text

        write_text(out / "table.txt", beside_published(report.model, report.parameters, report.values) + "\n")
        layer_weights([outcome for outcome in report.outcomes if outcome.weights], out / "weights.png", report.model)
