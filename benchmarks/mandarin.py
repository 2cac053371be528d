"""What does each task of MMSpeech's pre-training bring? Left out one by one, small, on synthetic Mandarin speech that is read aloud.

    python -m benchmarks.mandarin [--out runs/mandarin] [--json FILE] [--plot PNG] [--size small|long|smoke]

One network, the same data and seeds for all, in the three stages of the method: on texts alone; on speech, texts and few pairs with all
five tasks, or with one of them left out; on the pairs alone, as recognition. Left out are each task that needs no pairs (codes of speech,
agreement on phonemes, texts, these in the first stage as well), phonemes of pairs in the second stage, or all that comes before the third.
Measured are the characters of held-out sentences, in the voices that were heard and in others. Finished stages are kept, a stopped one goes
on: give the same command again.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from rich.table import Table

from benchmarks.comparison_corpora import OnReadAloud
from benchmarks.over_seeds import averaged, cell, command, draw_rates, empty_table
from demos.parallel import Job, measure_together, train_together

CONFIGS = Path(__file__).resolve().parents[1] / "configs" / "mmspeech"
SCRATCH, TEXT = "scratch", "p2t"
# What is left out of pre-training, by the changes to its configuration. Fine-tuning is the same for all.
VARIANTS: dict[str, tuple[str, ...]] = {
    "whole": (),
    "s2c": ("model.losses.s2c=0",),
    "msp": ("model.losses.msp=0",),
    "p2t": ("sources.text=null", "initialise=null"),
    "pp": ("model.losses.pp=0",),
}
TITLES = {
    "whole": "MMSpeech",
    "s2c": "without speech to codes (s2c)",
    "msp": "without agreement on phonemes (msp)",
    "p2t": "without texts (p2t)",
    "pp": "without phonemes of pairs (pp)",
    SCRATCH: "no pre-training",
}
# Parts of the corpus whose test is measured.
TESTS = {"labelled": "CER, %: known voices", "others": "CER, %: other voices"}
SAMPLES = 5  # sentences of the report as they are and as they were understood


def transcripts(asked: tuple[Path, Path]) -> list[str]:
    """What a model writes for every sentence of a test.

    Args:
        asked: the test's manifest, the model's folder.
    """
    from avtlm.data.manifest import read_manifest
    from avtlm.evaluation.evaluate import evaluate

    manifest, model = asked
    texts = evaluate(manifest, model, ("a",), characters=True).conditions[0].texts
    return [texts[row.id] for row in read_manifest(manifest).split("test")]


@dataclass(frozen=True)
class Plan:
    """How much of everything: ``labels`` pairs; ``steps`` of the three stages."""

    corpus: str
    clusters: int
    labels: int
    steps: tuple[int, int, int]
    seeds: int


PLANS = {
    "small": Plan("default", 100, 1000, (400, 400, 1000), 3),
    "long": Plan("default", 100, 1200, (1000, 2000, 3000), 3),
    "smoke": Plan("smoke", 10, 8, (2, 2, 2), 2),
}


class Ablation(OnReadAloud):
    """One run in one folder."""

    UNLABELLED: ClassVar = "unlabelled"
    STAGES: ClassVar = {
        "text": ("read_texts", "texts alone; and what never sees any"),
        "pretrain": ("pretrain", "all five tasks, and without one"),
        "finetune": ("finetune", "recognition"),
        "evaluate": ("evaluate", "what was held out"),
    }

    # Stages --------------------------------------------------------------------------------------------------------------------------

    def make_corpus(self) -> None:
        from preprocess.corpora.read_aloud_mandarin import generate

        generate(self.corpus, self.plan.corpus)

    def _pairs(self, seed: int) -> tuple[str, ...]:
        """The clips that trainings of this seed may know the text of."""
        return (
            f"seed={seed}",
            f"sources.pairs.manifest={self.part('labelled')}",
            f"sources.pairs.phonemes={self.corpus / 'labelled' / 'phonemes.units'}",
            f"sources.pairs.limit={self.plan.labels}",
            f"sources.pairs.limit_seed={seed}",
        )

    def read_texts(self, seed: int) -> None:
        """The first stage, which one variant has not; that one's second stage beside it, so that no core waits."""
        steps = self.plan.steps[0]
        texts = (
            f"steps={steps}",
            f"save_every={steps}",
            f"seed={seed}",
            f"model.codes={self.plan.clusters}",
            *self._texts(),
            *self.changes,
        )
        jobs = [Job(CONFIGS / "tiny_text.yaml", texts, self.out / f"text_{seed}" / "text"), self._pretraining(TEXT, seed)]
        train_together("texts", jobs, sum(self.plan.steps[:2]))

    def _texts(self) -> tuple[str, ...]:
        return f"sources.text.manifest={self.part('text')}", f"sources.text.units={self.corpus / 'text' / 'phonemes.units'}"

    def _pretraining(self, name: str, seed: int) -> Job:
        steps = self.plan.steps[1]
        changes = (
            f"initialise={self.out / f'text_{seed}' / 'text' / 'model'}",
            f"steps={steps}",
            f"save_every={steps}",
            f"model.codes={self.plan.clusters}",
            f"sources.speech.manifest={self.part('unlabelled')}",
            f"sources.speech.units={self.out / 'units' / 'manifest.units'}",
            *self._texts(),
            *self._pairs(seed),
            *self.changes,
            *VARIANTS[name],
        )
        return Job(CONFIGS / "tiny_pretrain.yaml", changes, self.out / f"{'text' if name == TEXT else 'pretrain'}_{seed}" / name)

    def pretrain(self, seed: int) -> None:
        """The second stage of all others."""
        jobs = [self._pretraining(name, seed) for name in VARIANTS if name != TEXT]
        train_together("pre-training", jobs, self.plan.steps[1] * len(jobs))

    def finetune(self, seed: int) -> None:
        steps = self.plan.steps[2]
        jobs = []
        for start in TITLES:
            initial = self._pretraining("whole" if start == SCRATCH else start, seed).folder
            changes = (
                f"initialise={initial / 'model'}",
                # From scratch the sizes come from a pre-trained model's configuration, not its weights.
                f"initialise_weights={str(start != SCRATCH).lower()}",
                f"steps={steps}",
                f"save_every={steps}",
                f"validation.manifest={self.part('labelled')}",
                f"validation.phonemes={self.corpus / 'labelled' / 'phonemes.units'}",
                "validate_every=0",
                *self._pairs(seed),
                *self.changes,
            )
            jobs.append(Job(CONFIGS / "tiny_finetune.yaml", changes, self.out / f"finetune_{seed}" / start))
        train_together("fine-tuning", jobs, steps * len(jobs))

    def evaluate(self, seed: int) -> None:
        """What every model writes for every sentence of the tests."""
        from avtlm.data.manifest import read_manifest

        asked = [(self.part(part), self.out / f"finetune_{seed}" / start / "model") for part in TESTS for start in TITLES]
        written = iter(measure_together("transcribing", transcripts, asked))
        found: dict[str, dict[str, list[str]]] = {}
        for part in TESTS:
            found[part] = {"said": [row.transcript for row in read_manifest(self.part(part)).split("test")]}
            found[part] |= {start: next(written) for start in TITLES}
        self.seeds.write(seed, found)

    # Report --------------------------------------------------------------------------------------------------------------------------

    def report(self) -> dict[str, Any]:
        """Error rates of every start and seed, their means and intervals, and some sentences."""
        each = self.seeds.read()
        results = {start: {part: rates([(one[part]["said"], one[part][start]) for one in each]) for part in TESTS} for start in TITLES}
        first = each[0]["labelled"]
        samples = [dict(zip(("said", "understood"), pair, strict=True)) for pair in zip(first["said"], first["whole"], strict=True)]
        return self.told(results=results, samples=samples[:SAMPLES])


def rates(seeds: Sequence[tuple[Sequence[str], Sequence[str]]]) -> dict[str, Any]:
    """Character error rates in percent of what several models understood.

    Args:
        seeds: of every model, what was said, the same for all, and what it understood.

    Returns:
        That of each under ``seeds``, their mean, and its 95 % interval: sentences are drawn anew, with the errors of all models in each.
    """
    from avtlm.evaluation.wer import bootstrap_interval, character_errors

    counts = np.array([[character_errors(*pair, spaces=False) for pair in zip(*texts, strict=True)] for texts in seeds])
    errors, characters = counts[..., 0].sum(0), counts[..., 1].sum(0)  # (sentences,)
    interval = [round(100 * end, 2) for end in bootstrap_interval(errors, characters)]
    found = [round(100 * float(errors / characters), 2) for errors, characters in counts.sum(1)]
    return averaged(found) | {"interval_95": interval}


def table(report: Mapping[str, Any]) -> Table:
    """A row for every pre-training: means over seeds, with the lowest and the highest, and their intervals."""
    title = f"Mean of {report['plan']['seeds']} seeds (lowest to highest), and its 95 % interval over sentences"
    result = empty_table(title, ["pre-training"], [heading for measure in TESTS.values() for heading in (measure, "95 %")])
    for start, name in TITLES.items():
        cells = []
        for part in TESTS:
            found = report["results"][start][part]
            cells += [cell(found, 1), "{:.1f}-{:.1f}".format(*found["interval_95"])]
        result.add_row(name, *cells, end_section=start == "pp")
    return result


def draw(report: Mapping[str, Any], path: Path) -> None:
    """A panel for every test, with a dot for every seed."""
    panels = {measure: [report["results"][start][part] for start in TITLES] for part, measure in TESTS.items()}
    draw_rates(panels, list(TITLES.values()), [start == "whole" for start in TITLES], path)


def main(arguments: list[str] | None = None) -> int:
    return command("mandarin", __doc__.splitlines()[0], PLANS, Ablation, table, draw, arguments)


if __name__ == "__main__":
    raise SystemExit(main())
