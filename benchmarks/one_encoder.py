"""Does it help to learn from teachers first? One small encoder for digits, sounds and speakers, distilled or from scratch.

    python -m benchmarks.one_encoder --digits DIR --noise DIR [--out runs/one_encoder] [--json FILE] [--plot PNG] [--size small|smoke]

For every seed three small teachers learn one task each (writing digits, tagging sounds, naming speakers); a student of the same size copies
what they say about all training clips, without labels, then learns the three tasks at once. Another one learns the three tasks at once from
scratch, with the same data, steps and order. Every seed holds out another speaker whole, a fifth of the takes of the others, and a third of
the recordings of every sound. Finished stages are kept, a stopped one goes on: give the same command again.
"""

import argparse
import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from benchmarks.digits_and_sounds import Amounts, Corpus, gather
from benchmarks.over_seeds import cell, command, draw_rates
from demos.stages import Stages, machine, write_json

CONFIGS = Path(__file__).resolve().parents[1] / "configs" / "mt2kd"
SOURCES = ("transcribed", "tagged", "named")
# Which source each teacher learns from; the names are those of the teachers.
TEACHERS = {"speech": "transcribed", "sound": "tagged", "speaker": "named"}
STARTS = {"scratch": "from scratch", "distilled": "distilled first"}
TITLES = {"teachers": "three teachers, one task each", **STARTS}
MEASURES = {"wer": "WER, %", "map": "mAP, %", "eer": "EER, %"}


@dataclass(frozen=True)
class Plan:
    """How much of everything.

    Attributes:
        speech_steps: of the teacher that writes. teacher_steps: of each of the others.
        distillation_steps, finetune_steps: of the students; every step of the latter has a batch of each task.
        subwords: pieces that texts are written in, of which every digit is one if there are as many as fit; null for letters.
    """

    amounts: Amounts = field(default_factory=Amounts)
    speech_steps: int = 600
    teacher_steps: int = 250
    distillation_steps: int = 500
    finetune_steps: int = 350
    subwords: int | None = 30
    seeds: int = 3


PLANS = {
    "small": Plan(),
    "smoke": Plan(Amounts(2, 1, 2, 4), 2, 2, 2, 2, None, 2),
}


class Comparison:
    """One run in one folder.

    Args:
        digits, noise: folders of recordings.
        out: folder for everything that is made.
        changes: settings of all trainings.
    """

    def __init__(self, digits: Path, noise: Path, out: Path, plan: Plan, console: Console, changes: Sequence[str] = ()) -> None:
        self.digits, self.noise, self.out, self.plan, self.changes = digits, noise, out, plan, tuple(changes)
        each = (1, len(TEACHERS), 1, 1, len(STARTS), 1)
        names = [f"{kind}_{seed}" for seed in range(1, plan.seeds + 1) for kind in self._folders()]
        asked = {key: value for key, value in dataclasses.asdict(plan).items() if key != "seeds"} | {"changes": list(changes)}
        self.stages = Stages(out, console, plan.seeds * sum(each), {name: (name,) for name in names}, **asked)
        self.corpora: dict[int, Corpus] = {}

    @staticmethod
    def _folders() -> list[str]:
        return [*(f"teacher_{name}" for name in TEACHERS), "answers", "distilled", *(f"finetune_{start}" for start in STARTS)]

    def run(self) -> dict[str, Any]:
        """All stages; returns the report."""
        stage = self.stages.run
        for seed in range(1, self.plan.seeds + 1):
            stage(f"corpus_{seed}", f"seed {seed}: join digits, divide sounds", lambda seed=seed: self.gather(seed))
            for name in TEACHERS:
                what = f"seed {seed}: train the teacher of {name}"
                stage(f"teacher_{name}_{seed}", what, lambda name=name, seed=seed: self.train_teacher(name, seed))
            stage(f"answers_{seed}", f"seed {seed}: ask the teachers", lambda seed=seed: self.teach(seed))
            stage(f"distilled_{seed}", f"seed {seed}: distil", lambda seed=seed: self.distil(seed))
            for start, title in STARTS.items():
                what = f"seed {seed}: learn three tasks, {title}"
                stage(f"finetune_{start}_{seed}", what, lambda start=start, seed=seed: self.finetune(start, seed))
            stage(f"measure_{seed}", f"seed {seed}: measure what was held out", lambda seed=seed: self.measure(seed))
        return self.report()

    # Stages --------------------------------------------------------------------------------------------------------------------------

    def manifest(self, name: str, seed: int) -> Path:
        """A manifest that `gather` has written."""
        return self.out / "corpus" / f"{name}_{seed}.jsonl"

    def gather(self, seed: int) -> None:
        corpus = gather(self.digits, self.noise, self.out, self.plan.amounts, seed)
        write_json(self.out / "corpus" / f"about_{seed}.json", {"held_out": corpus.held_out})

    def _sources(self, seed: int, learned: Sequence[str] = SOURCES) -> list[str]:
        """Settings of the sources of a run; those that it does not learn from are left out."""
        manifests = {"transcribed": "digits", "tagged": "sounds", "named": "digits"}
        return [
            f"sources.{name}.manifest={self.manifest(manifests[name], seed)}" if name in learned else f"sources.{name}=null"
            for name in SOURCES
        ]

    def _train(self, config: str, name: str, steps: int, seed: int, settings: Sequence[str]) -> None:
        from avtlm.training.loop import train

        own = [f"output={self.out / name}", f"steps={steps}", f"save_every={steps}", f"log_every={max(1, steps // 20)}", f"seed={seed}"]
        train(CONFIGS / config, [*own, *settings, *self.changes])

    def train_teacher(self, name: str, seed: int) -> None:
        source = TEACHERS[name]
        settings = ["initialise=null", "model.freeze_encoder_steps=0", *self._sources(seed, (source,))]
        writes = source == "transcribed"
        settings += self._pieces if writes else ["model.vocabulary=0"]
        steps = self.plan.speech_steps if writes else self.plan.teacher_steps
        self._train("tiny_finetune.yaml", f"teacher_{name}_{seed}", steps, seed, settings)

    @property
    def _pieces(self) -> list[str]:
        return [] if self.plan.subwords is None else [f"subwords={self.plan.subwords}"]

    def teach(self, seed: int) -> None:
        from avtlm.teaching import teach

        teachers = {name: self.out / f"teacher_{name}_{seed}" / "model" for name in TEACHERS}
        done = teach(self.manifest("unlabelled", seed), teachers, self.out / f"answers_{seed}")
        if done.failed:
            raise ValueError(f"{done.folder}: teachers could not hear {len(done.failed)} clips; see failed.jsonl there.")

    def distil(self, seed: int) -> None:
        settings = [
            f"sources.heard.manifest={self.manifest('unlabelled', seed)}",
            f"sources.heard.teachers={self.out / f'answers_{seed}'}",
        ]
        self._train("tiny_pretrain.yaml", f"distilled_{seed}", self.plan.distillation_steps, seed, settings)

    def finetune(self, start: str, seed: int) -> None:
        settings = self._sources(seed) + self._pieces
        if start == "distilled":
            settings += [f"initialise={self.out / f'distilled_{seed}' / 'model'}"]
        else:
            settings += ["initialise=null", "model.freeze_encoder_steps=0"]
        self._train("tiny_finetune.yaml", f"finetune_{start}_{seed}", self.plan.finetune_steps, seed, settings)

    def measure(self, seed: int) -> None:
        """The three figures of both students, and that of each teacher's own task."""
        found: dict[str, dict[str, float]] = {
            start: self._figures(self.out / f"finetune_{start}_{seed}" / "model", seed) for start in STARTS
        }
        found["teachers"] = {}
        for name, measure in zip(TEACHERS, MEASURES, strict=True):
            found["teachers"] |= self._figures(self.out / f"teacher_{name}_{seed}" / "model", seed, (measure,))
        write_json(self.out / "figures" / f"{seed}.json", found)

    def _figures(self, model: Path, seed: int, measures: Sequence[str] = tuple(MEASURES)) -> dict[str, float]:
        """In percent."""
        from avtlm.evaluation.evaluate import evaluate
        from avtlm.evaluation.sounds_and_voices import evaluate_tags, evaluate_trials

        found: dict[str, float] = {}
        digits = self.manifest("digit_tests", seed)
        if "wer" in measures:
            found["wer"] = 100 * evaluate(digits, model, ("a",)).conditions[0].rate.rate
        if "map" in measures:
            found["map"] = 100 * evaluate_tags(self.manifest("sound_tests", seed), model).found.mean_average_precision
        if "eer" in measures:
            found["eer"] = 100 * evaluate_trials(self.out / "corpus" / f"trials_{seed}.txt", digits, model).rate
        return found

    # Report --------------------------------------------------------------------------------------------------------------------------

    def report(self) -> dict[str, Any]:
        """Means and single seeds of all starts and measures, and the differences that distillation makes."""
        from avtlm.data.manifest import read_manifest

        seeds = range(1, self.plan.seeds + 1)
        each = {seed: json.loads((self.out / "figures" / f"{seed}.json").read_text()) for seed in seeds}
        results = {start: {name: _over_seeds([each[seed][start][name] for seed in seeds]) for name in MEASURES} for start in TITLES}
        gains = {name: _over_seeds([each[seed]["distilled"][name] - each[seed]["scratch"][name] for seed in seeds]) for name in MEASURES}
        rows = {
            name: [len(read_manifest(self.manifest(name, seed))) for seed in seeds]
            for name in ("digits", "sounds", "digit_tests", "sound_tests")
        }
        held = [json.loads((self.out / "corpus" / f"about_{seed}.json").read_text())["held_out"] for seed in seeds]
        return {
            "results": results,
            "distilled_minus_scratch": gains,
            "clips": rows,
            "held_out_speakers": held,
            "plan": dataclasses.asdict(self.plan) | {"changes": list(self.changes)},
            "seconds": self.stages.seconds,
            "machine": machine(),
        }


def _over_seeds(values: Sequence[float]) -> dict[str, Any]:
    return {"mean": round(float(np.mean(values)), 2), "seeds": [round(value, 2) for value in values]}


def table(report: Mapping[str, Any]) -> Table:
    """Means over the seeds, with the lowest and the highest."""
    result = Table(title=f"One encoder for digits, sounds and speakers, {report['plan']['seeds']} seeds: mean (lowest-highest)")
    for heading in ("student", *MEASURES.values()):
        result.add_column(heading, justify="left" if heading == "student" else "right")
    for start, title in TITLES.items():
        result.add_row(title, *(cell(report["results"][start][name], 1) for name in MEASURES))
    return result


def draw(report: Mapping[str, Any], path: Path) -> None:
    """A panel for each measure, a bar for each row, a dot for each seed."""
    panels = {title: [report["results"][start][name] for start in TITLES] for name, title in MEASURES.items()}
    draw_rates(panels, list(TITLES.values()), [start == "distilled" for start in TITLES], path)


def add_folders(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--digits", type=Path, required=True, metavar="DIR", help="recorded digits, 7_speaker_0.wav (FSDD)")
    parser.add_argument("--noise", type=Path, required=True, metavar="DIR", help="recorded sounds, dog_bark/1-110389-A.ogg (ESC-10)")


def main(arguments: list[str] | None = None) -> int:
    def compare(options: argparse.Namespace, plan: Plan, console: Console) -> dict[str, Any]:
        return Comparison(options.digits, options.noise, options.out, plan, console, options.changes).run()

    return command("one_encoder", __doc__.splitlines()[0], PLANS, compare, table, draw, arguments, 110, add_folders, keeps_seeds=False)


if __name__ == "__main__":
    raise SystemExit(main())
