"""From talking-face video to transcripts in noise, in one go and with no downloads: what `make quickstart` runs.

    python -m demos.quickstart [--size smoke|default|long] [--out runs/quickstart] [--seed N]

Each stage calls one public function of the library on plain files, so that the same calls work on a corpus of one's own; nothing behind
the first stage knows that the corpus is synthetic. A finished stage is not run again, an interrupted one goes on where it stopped.
"""

import argparse
import contextlib
import dataclasses
import functools
import json
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from demos.parallel import Job, train_quietly, train_together
from demos.stages import Stages, finish, machine, restart_tuned, write_json

# Stages that go on from whatever lies in their folders; corpus and lips check for themselves whether that is theirs.
AFRESH = {name: (name,) for name in ("units1", "pretrain1", "units2", "pretrain2")} | {"finetune": ("finetune", "comparison")}
SNRS = (10.0, 5.0, 0.0, -5.0, -10.0)
CONFIGS = Path(__file__).resolve().parent.parent / "configs" / "vatlm"


@dataclass(frozen=True)
class Plan:
    """How much of everything. ``labels`` utterances fine-tune the model that stays; ``few_labels`` are for the comparison with scratch."""

    corpus: str
    pretrain_steps: tuple[int, int]
    finetune_steps: int
    clusters: int
    labels: int
    few_labels: int
    few_steps: int
    seeds: int


PLANS = {
    "smoke": Plan("smoke", (15, 15), 30, 20, 12, 6, 10, 1),
    "default": Plan("default", (800, 1200), 1600, 100, 800, 100, 200, 3),
    "long": Plan("long", (8000, 12000), 8000, 200, 1200, 100, 1500, 5),
}


class Quickstart:
    """One run in one folder.

    Args:
        out: folder for everything that is made.
        plan: sizes of the stages.
        seed: of the corpus and of every training.
    """

    def __init__(self, out: Path, plan: Plan, seed: int, console: Console) -> None:
        self.out, self.plan, self.seed, self.console = out, plan, seed, console
        self.stages = Stages(out, console, 8, AFRESH, seed=seed)
        self.lips = out / "lips" / "manifest.jsonl"
        self.audio_only = out / "corpus" / "audio_only" / "manifest.jsonl"
        self.text_only = out / "corpus" / "text_only" / "manifest.jsonl"

    def run(self) -> Path:
        """All stages; returns the path of report.json."""
        plan = self.plan
        stage = self.stages.run
        first, second = plan.pretrain_steps
        stage("corpus", "draw and voice talking heads", self.make_corpus, corpus=plan.corpus)
        stage("lips", "find faces, cut lip crops", self.cut_lips)
        stage("units1", "cluster the filter bank of the sound into units", lambda: self.label(1), clusters=plan.clusters)
        stage("pretrain1", "predict hidden units from sound, lips and text", lambda: self.pretrain(1), pretrain1=first)
        stage("units2", "cluster what the model has learned", lambda: self.label(2))
        stage("pretrain2", "predict its own units", lambda: self.pretrain(2), pretrain2=second)
        what = f"learn to write from {plan.labels} transcripts in growing noise; from {plan.few_labels}, pre-trained against scratch"
        few = [plan.few_labels, plan.few_steps, plan.seeds]
        stage("finetune", what, self.finetune, finetune=[plan.labels, plan.finetune_steps], few=few)
        stage("evaluation", "unseen speakers and sentences, clean and in babble", self.evaluate)
        return self.report()

    # Stages --------------------------------------------------------------------------------------------------------------------------

    def make_corpus(self) -> None:
        from preprocess.corpora.talking_heads import generate

        generate(self.out / "corpus", size=self.plan.corpus, seed=self.seed)

    def cut_lips(self) -> None:
        from preprocess.lip_roi import run

        run(self.out / "corpus" / "manifest.jsonl", self.out / "lips", format="npy", contact_sheet=self.out / "contact_sheet.png")

    def label(self, iteration: int) -> None:
        """Units of the audio-visual clips, then, with the same clusters, of the audio-only ones, then of the text."""
        from avtlm.units.discovery import units
        from avtlm.units.kmeans import KMeansConfig
        from avtlm.units.text_to_units import label_text

        model = None if iteration == 1 else self.out / "pretrain1" / "model"
        layer = None if iteration == 1 else 3
        folder = self.out / f"units{iteration}"
        config = KMeansConfig(clusters=self.plan.clusters, restarts=3, seed=self.seed)
        labels = units(self.lips, folder, model, layer, config, fraction=0.5)
        audio = units(self.audio_only, folder / "audio", model, layer, config, clusters_from=labels.clusters, modality="a")
        shutil.copy(audio.labels, folder / "audio.units")
        label_text(self.audio_only, folder / "audio.units", self.text_only, folder / "text.units")

    def pretrain(self, iteration: int) -> None:
        from avtlm.training.loop import train

        overrides = [
            f"output={self.out / f'pretrain{iteration}'}",
            f"steps={self.plan.pretrain_steps[iteration - 1]}",
            f"seed={self.seed + iteration}",
            f"model.units={self.plan.clusters}",
            f"sources.audio_video.manifest={self.lips}",
            f"sources.audio_video.units={self.out / f'units{iteration}' / 'manifest.units'}",
            f"sources.text.manifest={self.text_only}",
            f"sources.text.units={self.out / f'units{iteration}' / 'text.units'}",
        ]
        for name in ("audio", "audio_text"):
            overrides.append(f"sources.{name}.manifest={self.audio_only}")
            overrides.append(f"sources.{name}.units={self.out / f'units{iteration}' / 'audio.units'}")
        if iteration == 2:
            overrides += [f"initialise={self.out / 'pretrain1' / 'model'}", "fresh=[predictor]"]
        train(CONFIGS / "tiny_pretrain.yaml", overrides)

    def finetune(self) -> None:
        """The model that stays, and the comparison on few labels: the same fine-tuning from the pre-trained model and from scratch."""
        config = CONFIGS / "tiny_finetune.yaml"
        jobs = [Job(config, self.finetuning(self.plan.labels, self.plan.finetune_steps, self.seed, True), self.out / "finetune")]
        starts: list[tuple[str, int]] = []
        for seed in range(1, self.plan.seeds + 1):
            for start in ("pretrained", "scratch"):
                changes = self.finetuning(self.plan.few_labels, self.plan.few_steps, seed, start == "pretrained")
                changes = (*changes, "validate_every=0", f"save_every={self.plan.few_steps}")
                jobs.append(Job(config, changes, self.out / "comparison" / f"{start}_{seed}"))
                starts.append((start, seed))
        results: dict[str, Any] = {"labels": self.plan.few_labels, "steps": self.plan.few_steps, "pretrained": [], "scratch": []}
        steps = self.plan.finetune_steps + self.plan.few_steps * len(starts)
        scores = train_together("fine-tuning", jobs, steps, functools.partial(train_and_score, manifest=self.lips))
        for (start, seed), wer in zip(starts, scores[1:], strict=True):
            results[start].append({"seed": seed, "wer": wer})
        write_json(self.out / "comparison.json", results)
        self.keep_model()

    def finetuning(self, labels: int, steps: int, seed: int, pretrained: bool) -> tuple[str, ...]:
        """Overrides of the fine-tuning configuration. The labelled part and the augmentation are the same with and without pre-training."""
        return (
            f"steps={steps}",
            f"seed={seed}",
            f"sources.labelled.manifest={self.lips}",
            f"sources.labelled.limit={labels}",
            f"sources.labelled.limit_seed={seed}",
            f"validation.manifest={self.lips}",
            f"initialise={self.out / 'pretrain2' / 'model'}",
            # From scratch the encoder's sizes come from the pre-trained model's configuration, not its weights.
            f"initialise_weights={str(pretrained).lower()}",
        )

    def keep_model(self) -> None:
        """The finished model, without the trainer's state, where `avtlm transcribe` looks for it."""
        from avtlm import checkpoint, systems
        from avtlm.training.initial import PHONES

        recognizer = systems.load(self.out / "finetune" / "model")
        card = CARD.format(labels=self.plan.labels)
        trained = self.out / "finetune" / "model"
        settings, phones = checkpoint.load_config(trained), {PHONES: (trained / PHONES).read_text(encoding="utf-8")}
        checkpoint.save_model(
            self.out / "model", recognizer, settings, recognizer.vocabulary, phones, card, decoding=recognizer.config.decoding
        )

    def evaluate(self) -> None:
        from avtlm.evaluation.evaluate import evaluate

        found = evaluate(self.lips, self.out / "model", modalities=("a", "v", "av"), split="test", snrs=SNRS, seed=self.seed)
        write_json(self.out / "evaluation.json", found.to_json())

    # Report --------------------------------------------------------------------------------------------------------------------------

    def report(self) -> Path:
        """report.json, the plot, and the tables on the screen."""
        from avtlm.evaluation.plots import text_plot, wer_against_snr

        evaluation = json.loads((self.out / "evaluation.json").read_text())
        comparison = json.loads((self.out / "comparison.json").read_text())
        for start in ("pretrained", "scratch"):
            runs = [run["wer"] for run in comparison[start]]
            comparison[f"{start}_mean"] = {
                modality: {name: round(sum(run[modality][name] for run in runs) / len(runs), 2) for name in runs[0][modality]}
                for modality in runs[0]
            }
        report = {
            "wer": evaluation["wer"],
            "interval_95": evaluation["interval_95"],
            "pretrained_vs_scratch": comparison,
            "seconds": self.stages.seconds | {"total": round(sum(self.stages.seconds.values()), 1)},
            "machine": machine(),
            "plan": dataclasses.asdict(self.plan) | {"seed": self.seed},
        }
        path = self.out / "report.json"
        write_json(path, report)
        wer_against_snr(report, self.out / "wer_against_snr.png")
        self.console.print()
        self.console.print(results_table(report, f"{evaluation['utterances']} test clips of unseen speakers"))
        self.console.print(comparison_table(comparison))
        self.console.print(text_plot(report), highlight=False)
        self.console.print(
            f"\n[bold]The speech, faces and voices above are synthetic.[/] Compute: {report['seconds']['total'] / 60:.1f} min.\n"
            f"Plot: {self.out / 'wer_against_snr.png'}   lip crops: {self.out / 'contact_sheet.png'}   figures: {path}\n"
            f"Transcribe a video of your own:\n\n    .venv/bin/avtlm transcribe VIDEO.mp4 --model {self.out / 'model'}\n",
            highlight=False,
        )
        return path


CARD = """# VATLM, tiny, for audio-visual recognition

Trained by the quickstart of avtlm on synthetic talking heads: two rounds of masked unit prediction, then CTC and an attention decoder on
{labels} transcripts in babble. It knows the 51 words of the GRID grammar as synthetic speakers say them and is not meant for real people;
it shows the method.

    avtlm transcribe VIDEO --model FOLDER [--modality av|a|v]
"""


def train_and_score(job: Job, manifest: Path) -> dict[str, dict[str, float]]:
    """One fine-tuning, in a process of its own; returns word error rates clean and at 0 dB."""
    from avtlm.evaluation.evaluate import evaluate

    model = train_quietly(job)
    with open(job.folder / "train.log", "a") as journal, contextlib.redirect_stderr(journal):
        return evaluate(manifest, model, modalities=("a", "v", "av"), split="test", snrs=(0.0,)).wer


def results_table(report: dict[str, Any], what: str) -> Any:
    """Rates with half their 95 % interval, narrow enough for 80 columns; report.json has both ends. ``what`` was measured on."""
    from rich import box
    from rich.table import Table

    title = f"Word error rate, % (± half the 95 % interval), {what}"
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1))
    table.add_column("input", no_wrap=True)
    names = list(report["wer"]["av"])
    for name in names:
        table.add_column(name if name == "clean" else f"{name} dB", justify="right", no_wrap=True)
    for modality, title in (("a", "audio"), ("v", "video"), ("av", "audio-visual")):
        cells = []
        for name in names:
            low, high = report["interval_95"][modality][name]
            cells.append(f"{report['wer'][modality][name]:.1f} [dim]±{(high - low) / 2:.0f}[/]")
        table.add_row(title, *cells, style="bold" if modality == "av" else "")
    return table


def comparison_table(comparison: dict[str, Any]) -> Any:
    from rich import box
    from rich.table import Table

    sizes = f"{comparison['labels']} labels, {comparison['steps']} steps, mean of {len(comparison['scratch'])} seeds (each)"
    table = Table(title=f"Does pre-training help? {sizes}, WER %", title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1))
    for column in ("start", "audio", "video", "both", "both at 0 dB"):
        table.add_column(column, justify="left" if column == "start" else "right")
    for start, name in (("pretrained", "pre-trained"), ("scratch", "from scratch")):
        cells = []
        for modality, condition in (("a", "clean"), ("v", "clean"), ("av", "clean"), ("av", "0")):
            each = " ".join(f"{run['wer'][modality][condition]:.0f}" for run in comparison[start])
            cells.append(f"{comparison[f'{start}_mean'][modality][condition]:.0f} [dim]({each})[/]")
        table.add_row(name, *cells)
    return table


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="quickstart", description=__doc__.splitlines()[0])
    parser.add_argument("--out", default="runs/quickstart", type=Path, help="folder for everything that is made (default: runs/quickstart)")
    parser.add_argument(
        "--size", choices=sorted(PLANS), default="default", help="smoke: a minute, to see that all works; long: an hour, better figures"
    )
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args(arguments)
    restart_tuned("demos.quickstart", sys.argv[1:] if arguments is None else arguments)
    console = Console(stderr=True)
    console.print("[bold]avtlm quickstart[/]: from talking faces to transcripts in noise", highlight=False)
    return finish("quickstart", lambda: Quickstart(options.out, PLANS[options.size], options.seed, console).run())


if __name__ == "__main__":
    sys.exit(main())
