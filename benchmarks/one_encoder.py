"""Does it help to learn from teachers first? One small encoder for digits, sounds and speakers, distilled or from scratch.

    python -m benchmarks.one_encoder --digits DIR --noise DIR [--out runs/one_encoder] [--json FILE] [--plot PNG] [--size small|smoke]

For every seed three small teachers learn one task each (writing digits, tagging sounds, naming speakers); a student of the same size copies
what they say about all training clips, without labels, then learns the three tasks at once. Another one learns the three tasks at once from
scratch, with the same data, steps and order. Every seed holds out another speaker whole, a fifth of the takes of the others, and a third of
the recordings of every sound. Finished stages are kept, a stopped one goes on: give the same command again.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

from rich.table import Table

from benchmarks.digits_and_sounds import Amounts, gather
from benchmarks.over_seeds import OverSeeds, averaged, cell, command, draw_rates, empty_table
from demos.stages import write_json

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


class Comparison(OverSeeds):
    """One run in one folder."""

    FOLDERS: ClassVar = {
        "digits": ("recorded digits, 7_speaker_0.wav (FSDD)", True),
        "noise": ("recorded sounds, dog_bark/1-110389-A.ogg (ESC-10)", True),
    }
    STAGES: ClassVar = {
        "corpus": ("gather", "join digits, divide sounds"),
        **{f"teacher_{name}": ("train_teacher", f"train the teacher of {name}", name) for name in TEACHERS},
        "answers": ("teach", "ask the teachers"),
        "distilled": ("distil", "distil"),
        **{f"finetune_{start}": ("finetune", f"learn three tasks, {title}", start) for start, title in STARTS.items()},
        "measure": ("measure", "measure what was held out"),
    }

    # Stages --------------------------------------------------------------------------------------------------------------------------

    def manifest(self, name: str, seed: int) -> Path:
        """A manifest that `gather` has written."""
        return self.out / "corpus" / f"{name}_{seed}.jsonl"

    def gather(self, seed: int) -> None:
        corpus = gather(self.folders["digits"], self.folders["noise"], self.out, self.plan.amounts, seed)
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
        """The three figures of both students, and that of each teacher's own task; how many clips there were, and who was held out."""
        from avtlm.data.manifest import read_manifest

        figures = {start: self._figures(self.out / f"finetune_{start}_{seed}" / "model", seed) for start in STARTS}
        figures["teachers"] = {}
        for name, measure in zip(TEACHERS, MEASURES, strict=True):
            figures["teachers"] |= self._figures(self.out / f"teacher_{name}_{seed}" / "model", seed, (measure,))
        clips = {name: len(read_manifest(self.manifest(name, seed))) for name in ("digits", "sounds", "digit_tests", "sound_tests")}
        about = json.loads((self.out / "corpus" / f"about_{seed}.json").read_text())
        self.seeds.write(seed, {"figures": figures, "clips": clips} | about)

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
        each = self.seeds.read()
        figures = [one["figures"] for one in each]
        return self.told(
            results={start: {name: averaged([one[start][name] for one in figures], 2) for name in MEASURES} for start in TITLES},
            distilled_minus_scratch={
                name: averaged([one["distilled"][name] - one["scratch"][name] for one in figures], 2) for name in MEASURES
            },
            clips={name: [one["clips"][name] for one in each] for name in each[0]["clips"]},
            held_out_speakers=[one["held_out"] for one in each],
        )


def table(report: Mapping[str, Any]) -> Table:
    """Means over the seeds, with the lowest and the highest."""
    title = f"One encoder for digits, sounds and speakers, {report['plan']['seeds']} seeds: mean (lowest-highest)"
    result = empty_table(title, ["student"], MEASURES.values())
    for start, title in TITLES.items():
        result.add_row(title, *(cell(report["results"][start][name], 1) for name in MEASURES))
    return result


def draw(report: Mapping[str, Any], path: Path) -> None:
    """A panel for each measure, a bar for each row, a dot for each seed."""
    panels = {title: [report["results"][start][name] for start in TITLES] for name, title in MEASURES.items()}
    draw_rates(panels, list(TITLES.values()), [start == "distilled" for start in TITLES], path)


def main(arguments: list[str] | None = None) -> int:
    return command("one_encoder", __doc__.splitlines()[0], PLANS, Comparison, table, draw, arguments)


if __name__ == "__main__":
    raise SystemExit(main())
