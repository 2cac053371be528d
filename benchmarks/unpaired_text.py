"""What does unpaired text bring SpeechLM and SpeechUT? Pre-training with and without it at equal steps, small, on the synthetic corpus.

    python -m benchmarks.unpaired_text [--speech DIR] [--out runs/unpaired_text] [--json FILE] [--plot PNG] [--size small|smoke]

For every seed a text-to-unit model learns from the few transcripts of recognition, and gives the units of sentences that nobody reads.
Both systems are pre-trained with the tasks of text (units to letters; for SpeechUT masked units besides) and without them, on the same
speech with the same seeds and steps; or not at all. Each is fine-tuned for recognition on those transcripts and for translation into
German, and measured on what was held out; of what is pre-trained, how often a frame of speech and its unit are given the same phone
(avtlm.evaluation.unit_alignment), too. A step with text has its batches besides that of speech. With ``--speech`` all pre-train on the
recordings of a folder as well. Finished stages are kept, a stopped one goes on: give the same command again.
"""

import argparse
import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from rich.console import Console, Group
from rich.table import Table

from benchmarks.comparison_corpora import OnReadAloud
from benchmarks.labelled_speech import unlabelled
from benchmarks.over_seeds import Report, averaged, cell, command, draw_rates, empty_table
from demos.parallel import Job, measure_together, train_together

CONFIGS = Path(__file__).resolve().parents[1] / "configs"
# The sources of each system that hold text.
SYSTEMS = {"speechlm": ("text",), "speechut": ("text", "masked")}
NAMES = {"speechlm": "SpeechLM", "speechut": "SpeechUT"}
WITH, WITHOUT, SCRATCH = "with", "without", "scratch"
STARTS = {WITH: "speech and text", WITHOUT: "speech alone", SCRATCH: "no pre-training"}
# The configuration of each task, the column that it writes, and what is measured.
TASKS = {"asr": ("tiny_asr", "transcript", "WER, %"), "st": ("tiny_st", "translation", "BLEU")}
ALIGNMENT = "alignment"
KINDS = ("total", "vowel", "consonant", "silence", "chance")


def measured(asked: tuple[Path, str, Path]) -> float:
    """Word errors of recognition, or BLEU of translation, of sentences that were held out.

    Args:
        asked: their manifest, the task, the model's folder.
    """
    manifest, task, model = asked
    if task == "asr":
        from avtlm.evaluation.evaluate import evaluate

        return round(evaluate(manifest, model, ("a",)).conditions[0].rate.percent, 2)
    from avtlm.evaluation.translation import evaluate_translation

    return round(evaluate_translation(manifest, model, decoding=["beam=5"]).score.bleu, 2)


def aligned(asked: tuple[Path, Path, Path]) -> dict[str, dict[str, float]]:
    """Frames of a pre-trained model whose speech and units are given the same phone, in %: by layer those of each kind of phones, and what
    is to be expected of all by ``chance``.

    Args:
        asked: a manifest whose clips were not pre-trained on, its units, the model's folder.
    """
    from avtlm.evaluation.unit_alignment import unit_alignment

    found: dict[str, dict[str, float]] = {}
    for layer, kinds in unit_alignment(*asked, split="train")["layers"].items():
        shares = {kind: figures["aligned"] for kind, figures in kinds.items()} | {"chance": kinds["total"]["chance"]}
        found[layer] = {kind: round(100 * share, 2) for kind, share in shares.items()}
    return found


@dataclass(frozen=True)
class Plan:
    """How much of everything: ``labels`` transcripts, and translations, of the reader. Clips are cut to ``crop`` frames of 20 ms in
    pre-training; ``steps`` are those of recognition and of translation, which take ``max_frames`` each. Translations are
    written in ``pieces``: an attention decoder learns few long tokens sooner than many letters. Pre-training may hear
    ``recordings`` beside the synthetic speech."""

    corpus: str
    clusters: int
    crop: int
    generator_steps: int
    pretrain_steps: int
    labels: tuple[int, int]
    steps: tuple[int, int]
    max_frames: int
    pieces: int
    seeds: int
    recordings: bool = False


PLANS = {
    "small": Plan("default", 100, 100, 600, 1000, (300, 1500), (400, 600), 1200, 100, 3),
    "smoke": Plan("smoke", 10, 50, 40, 2, (12, 16), (2, 2), 1200, 40, 2),
}


class Comparison(OnReadAloud):
    """One run in one folder."""

    FOLDERS: ClassVar = {"speech": ("recordings to pre-train on beside the synthetic speech", False)}
    STAGES: ClassVar = {
        "generator": ("generator", "text to units, from few transcripts"),
        "text": ("label_text", "units of sentences that nobody reads"),
        "pretrain": ("pretrain", "pre-train with and without text"),
        "finetune": ("finetune", "recognition and translation"),
        "evaluate": ("evaluate", "what was held out"),
    }
    AFRESH: ClassVar = {"units": ("units", "reader_units")}

    @classmethod
    def compare(cls, options: argparse.Namespace, plan: Plan, console: Console) -> Report:
        return super().compare(options, dataclasses.replace(plan, recordings=options.speech is not None), console)

    # Stages --------------------------------------------------------------------------------------------------------------------------

    def make_corpus(self) -> None:
        """What is read aloud; recordings are further rows of its part without transcripts."""
        super().make_corpus()
        if "speech" in self.folders:
            from avtlm.data.manifest import Manifest, read_manifest, write_manifest

            made = read_manifest(self.part(self.UNLABELLED))
            recorded = unlabelled(self.folders["speech"], made.root, seed=1)
            ids = {row.id for row in recorded}  # which are there already if a stage that was killed is begun again
            write_manifest(self.part(self.UNLABELLED), Manifest(made.root, (*(row for row in made if row.id not in ids), *recorded)))

    def label(self) -> None:
        """Units of the speech without transcripts, and by the same clusters of the reader's."""
        from avtlm.units.discovery import units

        super().label()
        made = self.out / "units" / "kmeans.safetensors"
        units(self.part("reader"), self.out / "reader_units", clusters_from=made, splits=("train",), modality="a", mfcc_rate=50.0)

    def _labelled(self, source: str, task: int, seed: int) -> tuple[str, ...]:
        """The reader's clips that a training of this seed may know the text of."""
        return f"sources.{source}.limit={self.plan.labels[task]}", f"sources.{source}.limit_seed={seed}"

    def generator(self, seed: int) -> None:
        changes = (
            f"steps={self.plan.generator_steps}",
            f"save_every={self.plan.generator_steps}",
            "validate_every=0",
            f"seed={seed}",
            f"model.units={self.plan.clusters}",
            f"sources.paired.manifest={self.part('reader')}",
            f"sources.paired.units={self.out / 'reader_units' / 'manifest.units'}",
            *self._labelled("paired", 0, seed),
        )
        job = Job(CONFIGS / "text2unit" / "tiny_fast.yaml", changes, self.out / f"generator_{seed}")
        train_together("text to units", [job], self.plan.generator_steps)

    def label_text(self, seed: int) -> None:
        """Units of all sentences, and a manifest of those that have any."""
        from avtlm.data.manifest import Manifest, read_manifest, write_manifest
        from avtlm.units.generators import open_generator
        from avtlm.units.labels import read_labels
        from avtlm.units.text_stream import text2units

        folder = self.out / f"text_{seed}"
        folder.mkdir(parents=True, exist_ok=True)
        generator = open_generator(self.out / f"generator_{seed}" / "model", seed=seed)
        made = text2units(self.part("text"), folder / "manifest.units", generator)
        labels, text = read_labels(made.out), read_manifest(self.part("text"))
        rows = tuple(row for row in text if row.id in labels and len(labels[row.id]))
        write_manifest(folder / "manifest.jsonl", Manifest(folder, rows))

    def pretrain(self, seed: int) -> None:
        """With text first: these take twice as long, and no core should wait for one at the end."""
        jobs = [self._pretraining(system, start, seed) for start in (WITH, WITHOUT) for system in SYSTEMS]
        train_together("pre-training", jobs, self.plan.pretrain_steps * len(jobs))

    def _pretraining(self, system: str, start: str, seed: int) -> Job:
        steps, text = self.plan.pretrain_steps, self.out / f"text_{seed}"
        changes = [
            f"steps={steps}",
            f"save_every={steps}",
            f"seed={seed}",
            f"model.units={self.plan.clusters + 5}",
            f"sources.speech.manifest={self.part('unpaired')}",
            f"sources.speech.units={self.out / 'units' / 'manifest.units'}",
            f"sources.speech.crop_frames={self.plan.crop}",
            *self.changes,
        ]
        for name in SYSTEMS[system]:
            if start == WITHOUT:
                changes.append(f"sources.{name}=null")
            else:
                changes += [f"sources.{name}.manifest={text / 'manifest.jsonl'}", f"sources.{name}.units={text / 'manifest.units'}"]
        return Job(CONFIGS / system / "tiny_pretrain.yaml", tuple(changes), self.out / f"pretrain_{seed}" / f"{system}_{start}")

    def finetune(self, seed: int) -> None:
        jobs = []
        for system in SYSTEMS:
            for start in STARTS:
                initial = self.out / f"pretrain_{seed}" / f"{system}_{WITH if start == SCRATCH else start}" / "model"
                for task, (config, column, _) in enumerate(TASKS.values()):
                    steps = self.plan.steps[task]
                    changes = (
                        f"initialise={initial}",
                        # From scratch the sizes come from a pre-trained model's configuration, not its weights.
                        f"initialise_weights={str(start != SCRATCH).lower()}",
                        f"steps={steps}",
                        f"save_every={steps}",
                        f"max_frames={self.plan.max_frames}",
                        f"seed={seed}",
                        f"sources.labelled.manifest={self.part('reader')}",
                        f"sources.labelled.written={column}",
                        f"validation.manifest={self.part('reader')}",
                        "validate_every=0",
                        *self._labelled("labelled", task, seed),
                        *([f"subwords={self.plan.pieces}"] if column == "translation" else []),
                        *self.changes,
                    )
                    folder = self.out / f"finetune_{seed}" / f"{system}_{start}_{list(TASKS)[task]}"
                    jobs.append(Job(CONFIGS / system / f"{config}.yaml", changes, folder))
        train_together("fine-tuning", jobs, sum(self.plan.steps) * len(SYSTEMS) * len(STARTS))

    def evaluate(self, seed: int) -> None:
        rows = [(system, start) for system in SYSTEMS for start in STARTS]
        asked = [
            (self.part("reader"), task, self.out / f"finetune_{seed}" / f"{system}_{start}_{task}" / "model")
            for system, start in rows
            for task in TASKS
        ]
        figures = iter(measure_together("measuring", measured, asked))
        found: dict[str, dict[str, dict[str, Any]]] = {}
        for system, start in rows:
            found.setdefault(system, {})[start] = {task: next(figures) for task in TASKS}
        pretrained = [(system, start) for system, start in rows if start != SCRATCH]
        units = self.out / "reader_units" / "manifest.units"
        models = [self.out / f"pretrain_{seed}" / f"{system}_{start}" / "model" for system, start in pretrained]
        heard = [(self.part("reader"), units, model) for model in models]
        for (system, start), shares in zip(pretrained, measure_together("aligning", aligned, heard), strict=True):
            found[system][start][ALIGNMENT] = shares
        self.seeds.write(seed, found)

    # Report --------------------------------------------------------------------------------------------------------------------------

    def report(self) -> dict[str, Any]:
        """Figures of every system, start and seed, and their means."""
        each = self.seeds.read()
        results: dict[str, Any] = {}
        for system in SYSTEMS:
            for start in STARTS:
                cells: dict[str, Any] = {task: averaged([one[system][start][task] for one in each]) for task in TASKS}
                results.setdefault(system, {})[start] = cells
                if start != SCRATCH:
                    cells[ALIGNMENT] = {
                        layer: {kind: averaged([one[system][start][ALIGNMENT][layer][kind] for one in each]) for kind in kinds}
                        for layer, kinds in each[0][system][start][ALIGNMENT].items()
                    }
        return self.told(results=results)


def table(report: Mapping[str, Any]) -> Group:
    """A row for every system and start, and for every layer of those that are pre-trained: means over seeds, lowest and highest."""
    return Group(_errors(report), _alignments(report))


def _errors(report: Mapping[str, Any]) -> Table:
    measures = [measure for *_, measure in TASKS.values()]
    result = empty_table(f"Mean of {report['plan']['seeds']} seeds (lowest to highest)", ["system", "pre-training"], measures)
    for system, name in NAMES.items():
        for start, words in STARTS.items():
            cells = [cell(report["results"][system][start][task]) for task in TASKS]
            result.add_row(name, words, *cells, end_section=start == SCRATCH)
    return result


def _alignments(report: Mapping[str, Any]) -> Table:
    result = empty_table("Frames whose speech and units are given the same phone, %", ["system", "pre-training", "layer"], KINDS)
    for system, name in NAMES.items():
        for start in (WITH, WITHOUT):
            layers = report["results"][system][start][ALIGNMENT]
            for layer, kinds in layers.items():
                result.add_row(name, STARTS[start], layer, *(cell(kinds[kind], 1) for kind in KINDS), end_section=layer == list(layers)[-1])
    return result


def draw(report: Mapping[str, Any], path: Path) -> None:
    """A panel for every task, with a dot for every seed."""
    rows = [(system, start) for system in SYSTEMS for start in STARTS]
    panels = {measure: [report["results"][system][start][task] for system, start in rows] for task, (*_, measure) in TASKS.items()}
    draw_rates(panels, [f"{NAMES[system]}: {STARTS[start]}" for system, start in rows], [start == WITH for _, start in rows], path)


def main(arguments: list[str] | None = None) -> int:
    return command("unpaired_text", __doc__.splitlines()[0], PLANS, Comparison, table, draw, arguments, width=140)


if __name__ == "__main__":
    raise SystemExit(main())
