"""What does each part of SpeechT5's pre-training bring? Its ablation (table 7), small, on the synthetic corpus that is read aloud.

    python -m benchmarks.spoken_ablation [--out runs/spoken_ablation] [--json FILE] [--plot PNG] [--size small|smoke]

One network, the same data, seeds and steps for all: pre-training as a whole, and without speech, without text, without the codebook that
both share, or without masked prediction; and none at all. Each is fine-tuned for recognition on few transcripts, for voice conversion and
for speaker identification, as in the paper, and measured on what was held out. Conversion is measured by its own loss, the distance of the
next frames from those of the voice wanted, given the frames before: after so few steps no conversion attends to its source yet, and the
mel-cepstral distortion of what it says by itself follows the length of that. Finished stages are kept, a stopped one goes on: give the same
command again.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from rich.table import Table

from benchmarks.comparison_corpora import OnReadAloud
from benchmarks.over_seeds import averaged, cell, command, draw_rates, empty_table
from demos.parallel import Job, last_line, measure_together, train_together

CONFIGS = Path(__file__).resolve().parents[1] / "configs" / "speecht5"
SCRATCH = "scratch"
# What is left out of pre-training, by the changes to its configuration.
VARIANTS: dict[str, tuple[str, ...]] = {
    "whole": (),
    "speech": ("sources.speech=null",),
    "text": ("sources.text=null",),
    "codebook": ("model.codebook=null",),
    "units": ("model.losses.units=0",),
}
TITLES = {
    "whole": "SpeechT5",
    "speech": "without speech",
    "text": "without text",
    "codebook": "without the codebook",
    "units": "without masked prediction",
    SCRATCH: "no pre-training",
}
# The configuration of each task, its source, the part of the corpus that it learns from, and what is measured.
TASKS = {
    "asr": ("tiny_asr", "labelled", "reader", "WER, %"),
    "vc": ("tiny_vc", "pairs", "others", "conversion: L1 of spectra"),
    "sid": ("tiny_sid", "named", "named", "accuracy of speakers, %"),
}


def measured(asked: tuple[Path, str, Path]) -> float:
    """The figure of a task on what was held out of a part of the corpus.

    Args:
        asked: the part's manifest, the task, the model's folder.
    """
    manifest, task, model = asked
    if task == "asr":
        from avtlm.evaluation.evaluate import evaluate

        return round(evaluate(manifest, model, ("a",)).conditions[0].rate.percent, 2)
    if task == "vc":
        return round(last_line(model.parent / "log.jsonl")["valid_absolute"], 4)
    from avtlm.evaluation.identification import evaluate_speakers

    return round(evaluate_speakers(manifest, model).accuracy, 2)


@dataclass(frozen=True)
class Plan:
    """How much of everything; ``labels`` transcripts for recognition. Clips are cut to ``crop`` frames of 20 ms in pre-training; a step of
    fine-tuning takes ``max_frames`` of them."""

    corpus: str
    clusters: int
    crop: int
    pretrain_steps: int
    labels: int
    steps: tuple[int, int, int]
    max_frames: int
    seeds: int


PLANS = {
    "small": Plan("default", 100, 100, 400, 400, (500, 300, 100), 1200, 3),
    "smoke": Plan("smoke", 10, 50, 2, 8, (2, 2, 2), 1200, 2),
}


class Ablation(OnReadAloud):
    """One run in one folder."""

    STAGES: ClassVar = {
        "pretrain": ("pretrain", "pre-train, whole and in part"),
        "finetune": ("finetune", "recognition, conversion, speakers"),
        "evaluate": ("evaluate", "what was held out"),
    }

    # Stages --------------------------------------------------------------------------------------------------------------------------

    def pretrain(self, seed: int) -> None:
        steps = self.plan.pretrain_steps
        jobs = []
        for name, left_out in VARIANTS.items():
            changes = (
                f"steps={steps}",
                f"save_every={steps}",
                f"seed={seed}",
                f"model.units={self.plan.clusters}",
                f"sources.speech.manifest={self.part('unpaired')}",
                f"sources.speech.units={self.out / 'units' / 'manifest.units'}",
                f"sources.speech.crop_frames={self.plan.crop}",
                f"sources.text.manifest={self.part('text')}",
                *self.changes,
                *left_out,
            )
            jobs.append(Job(CONFIGS / "tiny_pretrain.yaml", changes, self.out / f"pretrain_{seed}" / name))
        train_together("pre-training", jobs, steps * len(jobs))

    def finetune(self, seed: int) -> None:
        jobs = []
        for start in (*VARIANTS, SCRATCH):
            initial = self.out / f"pretrain_{seed}" / ("whole" if start == SCRATCH else start) / "model"
            for (task, (config, source, part, _)), steps in zip(TASKS.items(), self.plan.steps, strict=True):
                changes = (
                    f"initialise={initial}",
                    # From scratch the sizes come from a pre-trained model's configuration, not its weights.
                    f"initialise_weights={str(start != SCRATCH).lower()}",
                    f"steps={steps}",
                    f"save_every={steps}",
                    f"max_frames={self.plan.max_frames}",
                    f"seed={seed}",
                    f"sources.{source}.manifest={self.part(part)}",
                    f"validation.manifest={self.part(part)}",
                    # The loss of what was held out is asked for once, at the end.
                    *(["validation.split=test", f"validate_every={steps}"] if task == "vc" else ["validate_every=0"]),
                    *([f"sources.{source}.limit={self.plan.labels}", f"sources.{source}.limit_seed={seed}"] if task == "asr" else []),
                    *self.changes,
                )
                jobs.append(Job(CONFIGS / f"{config}.yaml", changes, self.out / f"finetune_{seed}" / f"{start}_{task}"))
        train_together("fine-tuning", jobs, sum(self.plan.steps) * (len(VARIANTS) + 1))

    def evaluate(self, seed: int) -> None:
        starts = (*VARIANTS, SCRATCH)
        cells = [
            (self.part(TASKS[task][2]), task, self.out / f"finetune_{seed}" / f"{start}_{task}" / "model")
            for start in starts
            for task in TASKS
        ]
        figures = iter(measure_together("measuring", measured, cells))
        self.seeds.write(seed, {start: {task: next(figures) for task in TASKS} for start in starts})

    # Report --------------------------------------------------------------------------------------------------------------------------

    def report(self) -> dict[str, Any]:
        """Figures of every start and seed, and their means."""
        each = self.seeds.read()
        results = {start: {task: averaged([one[start][task] for one in each]) for task in TASKS} for start in (*VARIANTS, SCRATCH)}
        return self.told(results=results)


def table(report: Mapping[str, Any]) -> Table:
    """A row for every pre-training: means over seeds, with the lowest and the highest."""
    measures = [measure for *_, measure in TASKS.values()]
    result = empty_table(f"Mean of {report['plan']['seeds']} seeds (lowest to highest)", ["pre-training"], measures)
    for start, title in TITLES.items():
        cells = [cell(report["results"][start][task]) for task in TASKS]
        result.add_row(title, *cells, end_section=start == "units")
    return result


def draw(report: Mapping[str, Any], path: Path) -> None:
    """A panel for every task, with a dot for every seed."""
    panels = {measure: [report["results"][start][task] for start in TITLES] for task, (*_, measure) in TASKS.items()}
    draw_rates(panels, list(TITLES.values()), [start == "whole" for start in TITLES], path)


def main(arguments: list[str] | None = None) -> int:
    return command("spoken_ablation", __doc__.splitlines()[0], PLANS, Ablation, table, draw, arguments)


if __name__ == "__main__":
    raise SystemExit(main())
