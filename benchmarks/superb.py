"""SUPERB in miniature: every task for real, in minutes on a CPU, with a trained encoder beside filter banks.

    python -m benchmarks.superb --model DIR|fbank [--tasks KS PR ...] [--digits DIR] [--noise DIR] [--json FILE] [--plot FILE]

The corpora are made on the spot (superb_speech.py and superb_mixtures.py say of what); ``--digits`` adds real speakers (the Free Spoken
Digit Dataset), ``--noise`` takes recorded noise (ESC-10) in place of made noise. Heads are those of the benchmark, narrower, and learn for
minutes instead of days, so figures compare encoders with each other and with nothing that is published. Finished parts are kept, a stopped
one goes on: give the same command again. One task that fails does not end the others.
"""

import argparse
import dataclasses
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from avtlm.data.seeds import seed_for
from avtlm.evaluation.superb.cache import CachedStates
from avtlm.evaluation.superb.data import Corpus, corpora
from avtlm.evaluation.superb.features import FBANK, Upstream, open_upstream
from avtlm.evaluation.superb.run import Settings, run_corpus
from avtlm.evaluation.superb.task import Outcome
from avtlm.evaluation.superb.tasks import TASKS, find
from benchmarks.superb_mixtures import Mixtures, add_digits
from benchmarks.superb_speech import SIZES, Speech
from demos.stages import Stages, finish, machine, restart_tuned, write_json
from preprocess.corpora.recipe import claim

# What a miniature head and its training are, where they differ from the benchmark's.
POOLED = ("steps=300", "batch=32", "accumulation=1", "lr=3e-3", "evaluate_every=60", "crop_seconds=null")
LETTERS = (
    *("steps=300", "batch=16", "lr=3e-3", "evaluate_every=60", "projection=96", "hidden=64"),
    *("spec_augment.time_width=8", "spec_augment.frequency_width=8", "spec_augment.frequency_masks=2", "spec_augment.time_warp=0"),
)
# A spectrogram of 100 windows a second for every encoder: one of 50 is harder to separate by whatever draws the masks.
MASKS = ("steps=250", "batch=8", "lr=2e-3", "evaluate_every=50", "hidden=96", "layers=2", "dropout=0.1", "windows=100")
MINIATURE: dict[str, tuple[str, ...]] = {
    "SID": POOLED,
    "ASV": (
        *("steps=300", "batch=16", "accumulation=1", "lr=1e-3", "evaluate_every=50", "crop_seconds=1.5"),
        *("dim=96", "pooled_dim=192", "least_seconds=1.0"),
    ),
    "SD": ("steps=300", "batch=8", "accumulation=1", "lr=2e-3", "evaluate_every=50", "hidden=96", "crop_seconds=null"),
    "PR": ("steps=400", "batch=16", "accumulation=1", "lr=5e-3", "evaluate_every=80"),
    "ASR": LETTERS,
    "OOD-ASR": LETTERS,
    "KS": POOLED,
    "QbE": (),
    "ST": (
        *("steps=500", "batch_frames=4000", "accumulation=1", "lr=2e-3", "warmup=100", "evaluate_every=125", "clip_norm=10"),
        *("dim=96", "heads=4", "feed_forward_dim=192", "channels=96", "beam=5", "longest=60"),
    ),
    "IC": POOLED,
    "SF": LETTERS,
    "ER": ("steps=200", "batch=16", "accumulation=1", "lr=3e-3", "evaluate_every=50"),
    "SE": MASKS,
    "SS": MASKS,
}
SMOKE = ("steps=2", "evaluate_every=2")


class Miniature:
    """All tasks with all encoders in one folder.

    Args:
        out: folder for the data, hidden states, trainings and results.
        models: model folders, or ``fbank``, the first column of every table.
        tasks: which; those of other names are left out.
    """

    def __init__(
        self,
        out: Path,
        models: Sequence[str],
        tasks: Sequence[str],
        size: str,
        console: Console,
        digits: Path | None = None,
        noise: Path | None = None,
        seed: int = 1,
        changes: Sequence[str] = (),
    ) -> None:
        self.out, self.models, self.size, self.console = out, list(models), size, console
        self.digits, self.noise, self.seed, self.changes = digits, noise, seed, tuple(changes)
        self.tasks = set(tasks)
        self.outcomes: dict[tuple[str, str], dict[str, Outcome]] = {}
        self.failures: dict[str, str] = {}
        self.seconds: dict[str, dict[str, float]] = {}

    @property
    def data(self) -> Path:
        return self.out / "data"

    def run(self) -> dict[str, Any]:
        """Everything that is not done yet; returns the report."""
        recipe = {"corpus": "miniature SUPERB", "size": self.size, "seed": self.seed}
        recipe |= {"noise": self.noise is not None}
        claim(self.data, recipe, ("said",))
        labels = [self._label(model) for model in self.models]
        twice = next((label for label in labels if labels.count(label) > 1), None)
        if twice is not None:
            raise ValueError(f"model: two of the folders are called {twice}; give folders of different names.")
        upstreams = {label: open_upstream(model) for label, model in zip(labels, self.models, strict=True)}
        further = 0 if self.digits is None else len(self.tasks & {"KS", "SID"})
        stages = Stages(self.out, self.console, 1 + bool(self.digits) + len(upstreams) * (len(self.tasks) + further), recipe=recipe)
        stages.run("data", "let synthetic voices speak, and mix them", self.make)
        if self.digits is not None:
            stages.run("digits", "list recorded digits", lambda: add_digits(self.data, Path(self.digits or ""), self.seed))
        for corpus in corpora(self.data):
            if corpus.task not in self.tasks:
                continue
            for label, upstream in upstreams.items():
                name = f"{corpus.folder.name} {label}"
                stage = f"{name}-{self._tag(corpus, upstream)}".replace(" ", "_")
                try:
                    stages.run(stage, f"{TASKS[corpus.task].about}, heard by {label}", partial(self.learn, corpus, label, upstream))
                    self.learn(corpus, label, upstream)  # a part that was done before is read
                except (ValueError, ImportError, OSError, FloatingPointError) as error:
                    self.failures[name] = " ".join(str(error).split())
                    self.console.print(f"      [red]failed:[/] {self.failures[name]}", highlight=False)
                    continue
                self.seconds.setdefault(corpus.folder.name, {})[label] = stages.seconds[stage]
        return self.report(upstreams)

    def make(self) -> None:
        """The corpora."""
        speech = Speech(self.data, SIZES[self.size], self.seed)
        speech.say(None if self.size == "small" else 0)
        speech.write()
        Mixtures(speech, self.noise).write()

    def settings(self, task: str) -> tuple[str, ...]:
        """Of a task."""
        return (*MINIATURE[task], *(SMOKE if self.size == "smoke" and task != "QbE" else ()), *self.changes)

    def learn(self, corpus: Corpus, label: str, upstream: Upstream) -> None:
        """One task with one encoder."""
        settings = Settings(self.settings(corpus.task))
        states = CachedStates(upstream, self.out / "cache")
        outcome = run_corpus(corpus, states, self.out / "heads" / self._tag(corpus, upstream), settings)
        self.outcomes.setdefault((corpus.folder.name, corpus.name), {})[label] = outcome

    def _tag(self, corpus: Corpus, upstream: Upstream) -> str:
        """Changes with whatever a result depends on but the data."""
        return f"{seed_for(corpus.folder.name, upstream.key, *self.settings(corpus.task)):016x}"

    def _label(self, model: str) -> str:
        """What an encoder is called in tables: the folder of its run, where its own is ``model``."""
        if model == FBANK:
            return "FBANK"
        path = Path(model).resolve()
        return path.parent.name if path.name == "model" else path.name

    def report(self, upstreams: Mapping[str, Upstream]) -> dict[str, Any]:
        """All figures as plain values."""
        rows = []
        for (folder, name), found in self.outcomes.items():
            task = next(iter(found.values())).task
            for metric in find(task)[1].task_class().metrics:
                figures = {label: outcome.metrics[metric.name] for label, outcome in found.items()}
                rows.append({"task": folder, "corpus": name, "metric": metric.name, "higher": metric.higher, "figures": figures})
        encoders = {
            label: {"parameters": one.parameters, "layers": one.layers, "width": one.width, "frames per second": one.frame_rate}
            for label, one in upstreams.items()
        }
        weights = {
            label: {folder: outcome[label].weights for (folder, _), outcome in self.outcomes.items() if label in outcome}
            for label in upstreams
        }
        return {
            "encoders": encoders,
            "rows": rows,
            "seconds": self.seconds,
            "layer_weights": weights,
            "failures": self.failures,
            "size": dataclasses.asdict(SIZES[self.size]),
            "settings": {task: self.settings(task) for task in MINIATURE if task in self.tasks},
            "data": {"digits": self.digits is not None, "recorded noise": self.noise is not None, "seed": self.seed},
            "machine": machine(),
        }


def table(report: Mapping[str, Any]) -> Table:
    """A row for every figure, a column for every encoder; the better of two is bold."""
    found = Table(title="SUPERB in miniature (made corpora, small heads: nothing published stands beside these)", title_justify="left")
    labels = list(report["encoders"])
    for heading in ("task", "metric", *labels, *(f"{label}, s" for label in labels)):
        found.add_column(heading, justify="left" if heading in ("task", "metric") else "right", no_wrap=True)
    last = ""
    for row in report["rows"]:
        figures = row["figures"]
        best = (max if row["higher"] else min)(figures.values())
        cells = [
            "" if label not in figures else f"[bold]{figures[label]:.3g}[/]" if figures[label] == best else f"{figures[label]:.3g}"
            for label in labels
        ]
        first = row["task"] != last
        times = [f"{report['seconds'].get(row['task'], {}).get(label, 0):.0f}" if first else "" for label in labels]
        found.add_row(row["task"] if first else "", f"{row['metric']} {'↑' if row['higher'] else '↓'}", *cells, *times)
        last = row["task"]
    return found


def draw(report: Mapping[str, Any], path: Path) -> None:
    """Which layers each task listens to, of the first encoder that has several."""
    from avtlm.evaluation.superb.tables import layer_weights

    for label, tasks in report["layer_weights"].items():
        outcomes = [Outcome(task, task, {}, {}, tuple(weights)) for task, weights in tasks.items() if len(weights) > 1]
        if outcomes:
            layer_weights(outcomes, path, label)
            return


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns the exit code: 1 if a task failed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.superb", description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--model", nargs="+", required=True, metavar="DIR", help="model folders, or fbank; filter banks stand beside them")
    parser.add_argument("--tasks", nargs="+", choices=list(MINIATURE), default=list(MINIATURE), metavar="TASK", help="(default: all)")
    parser.add_argument("--out", type=Path, default=Path("runs/superb_miniature"), metavar="DIR", help="folder for everything that is made")
    parser.add_argument("--digits", type=Path, metavar="DIR", help="recordings of the Free Spoken Digit Dataset")
    parser.add_argument("--noise", type=Path, metavar="DIR", help="recordings of noise")
    parser.add_argument("--size", choices=list(SIZES), default="small", help="smoke: to see that all works (default: small)")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results to this file")
    parser.add_argument("--plot", type=Path, metavar="PNG", help="weights of the layers (default: weights.png in the folder of the run)")
    parser.add_argument("--settings", nargs="+", default=[], metavar="KEY=VALUE", help="of all tasks that are run: steps=100")
    options = parser.parse_args(arguments)
    restart_tuned("benchmarks.superb", sys.argv[1:] if arguments is None else arguments)
    models = [FBANK, *(model for model in options.model if model != FBANK)]
    failed = False

    def work() -> None:
        nonlocal failed
        run = Miniature(
            *(options.out, models, options.tasks, options.size, Console(stderr=True)),
            *(options.digits, options.noise, options.seed, options.settings),
        )
        report = run.run()
        Console(width=110).print(table(report))
        if options.json is not None:
            write_json(options.json, report)
        draw(report, options.plot or options.out / "weights.png")
        for name, reason in run.failures.items():
            print(f"superb: {name}: {reason}", file=sys.stderr)
        failed = bool(run.failures)

    return finish("superb", work) or int(failed)


if __name__ == "__main__":
    raise SystemExit(main())
