"""Which first stage, and does a second one help? Multi-stage pre-training for recognition, small, on the synthetic talking heads.

    python -m benchmarks.multistage [--out runs/multistage_grid] [--json FILE] [--plot PNG] [--size small|smoke] [--corpus DIR]

The grid of the paper's questions (arXiv 2403.19822): an audio encoder from scratch, or pre-trained by masked autoencoding of sound alone,
of sound and lips, by telling clips apart, or by both; then no mid-training, or translation into one of two toy languages; then recognition
of speech alone from few transcripts. All have the same network, data and seeds, and the same steps in each stage that they pass. What is
measured are word errors of unseen speakers. Finished stages are kept, a stopped one goes on: give the same command again.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from rich.table import Table

from benchmarks.comparison_corpora import OnTalkingHeads
from benchmarks.over_seeds import averaged, cell, command, draw_rates, empty_table
from benchmarks.toy_languages import LANGUAGES, add_translations
from demos.parallel import Job, last_line, measure_together, train_together

CONFIGS = Path(__file__).resolve().parents[1] / "configs" / "multistage" / "tiny"
SCRATCH, NONE = "random", "none"
# What the first stage learns, by the changes to its configuration.
PRETRAINING: dict[str, tuple[str, ...]] = {
    "audio_mae": ("model.objective=mae", "model.video=none"),
    "av_mae": ("model.objective=mae",),
    "av_clr": ("model.objective=clr",),
    "both": ("model.objective=both",),
}
STARTS = {
    SCRATCH: "random initialisation",
    "audio_mae": "MAE of sound",
    "av_mae": "MAE of sound and lips",
    "av_clr": "CLR of sound and lips",
    "both": "MAE and CLR",
}
MIDDLES = {NONE: "none", **{name: f"into toy {name.title()}" for name in LANGUAGES}}


def word_errors(asked: tuple[Path, Path]) -> float:
    """Word error rate of a test from sound alone, in percent.

    Args:
        asked: the manifest, the model's folder.
    """
    from avtlm.evaluation.evaluate import evaluate

    return round(evaluate(*asked, ("a",)).conditions[0].rate.percent, 2)


@dataclass(frozen=True)
class Plan:
    """How much of everything: ``labels`` transcripts for recognition, ``translated`` clips for translation, neither of the other, and the
    ``pieces`` of translations, most of them whole words: an attention decoder learns few long tokens sooner than many letters."""

    corpus: str
    pretrain_steps: int
    translate_steps: int
    finetune_steps: int
    translated: int
    pieces: int
    labels: int
    seeds: int


PLANS = {
    "small": Plan("default", 1000, 300, 400, 1000, 60, 300, 3),
    "smoke": Plan("smoke", 2, 2, 2, 12, 40, 12, 2),
}


class Grid(OnTalkingHeads):
    """One run in one folder."""

    SHARED: ClassVar = {
        "corpus": ("make_corpus", "draw and voice talking heads, cut their lips"),
        "translations": ("translate_corpus", "translate commands into toy languages"),
    }
    STAGES: ClassVar = {
        "pretrain": ("pretrain", "sound alone, sound and lips"),
        "translate": ("translate", "mid-training by translation"),
        "finetune": ("finetune", "recognition"),
        "evaluate": ("evaluate", "unseen speakers"),
    }

    @property
    def translations(self) -> Path:
        return self.out / "translations.jsonl"

    # Stages --------------------------------------------------------------------------------------------------------------------------

    def translate_corpus(self) -> None:
        add_translations(self.made / "corpus" / "audio_only" / "manifest.jsonl", self.translations)

    def pretrain(self, seed: int) -> None:
        steps = self.plan.pretrain_steps
        jobs = []
        for start, own in PRETRAINING.items():
            changes = (f"sources.audio_video.manifest={self.lips}", *self._length(steps, seed), *own)
            if start == "audio_mae":
                changes = (*changes, "sources.audio_video.task=audio")
            jobs.append(Job(CONFIGS / "1_pretrain.yaml", changes, self.out / f"pretrain_{seed}" / start))
        train_together("pre-training", jobs, steps * len(jobs))

    def translate(self, seed: int) -> None:
        steps = self.plan.translate_steps
        jobs = []
        for start in STARTS:
            for language in LANGUAGES:
                changes = (
                    *self._initial(start, NONE, seed),
                    f"sources.translated.manifest={self.translations}",
                    f"sources.translated.written={language}",
                    f"sources.translated.limit={self.plan.translated}",
                    f"subwords={self.plan.pieces}",
                    *self._length(steps, seed),
                )
                jobs.append(Job(CONFIGS / "2_translate.yaml", changes, self.out / f"translate_{seed}" / f"{start}_{language}"))
        train_together("mid-training", jobs, steps * len(jobs))

    def finetune(self, seed: int) -> None:
        steps = self.plan.finetune_steps
        jobs = []
        for start in STARTS:
            for middle in MIDDLES:
                changes = (
                    *self._initial(start, middle, seed),
                    f"sources.labelled.manifest={self.lips}",
                    f"sources.labelled.limit={self.plan.labels}",
                    f"sources.labelled.limit_seed={seed}",
                    f"validation.manifest={self.lips}",
                    "validate_every=0",
                    *self._length(steps, seed),
                )
                jobs.append(Job(CONFIGS / "3_recognise.yaml", changes, self.out / f"finetune_{seed}" / f"{start}_{middle}"))
        train_together("fine-tuning", jobs, steps * len(jobs))

    def _length(self, steps: int, seed: int) -> tuple[str, ...]:
        return f"steps={steps}", f"save_every={steps}", f"seed={seed}", *self.changes

    def _initial(self, start: str, middle: str, seed: int) -> tuple[str, ...]:
        """The model that a training begins with; from scratch it has the sizes of a pre-trained one, not its weights."""
        if middle == NONE:
            folder = self.out / f"pretrain_{seed}" / ("audio_mae" if start == SCRATCH else start)
        else:
            folder = self.out / f"translate_{seed}" / f"{start}_{middle}"
        weights = start != SCRATCH or middle != NONE
        return f"initialise={folder / 'model'}", f"initialise_weights={str(weights).lower()}"

    def evaluate(self, seed: int) -> None:
        rows = [(start, middle) for start in STARTS for middle in MIDDLES]
        asked = [(self.lips, self.out / f"finetune_{seed}" / f"{start}_{middle}" / "model") for start, middle in rows]
        found: dict[str, dict[str, dict[str, float]]] = {}
        for (start, middle), rate in zip(rows, measure_together("measuring", word_errors, asked), strict=True):
            cells = {"wer": rate}
            if middle != NONE:
                journal = self.out / f"translate_{seed}" / f"{start}_{middle}" / "log.jsonl"
                cells["token_accuracy"] = round(100 * last_line(journal)["token_accuracy"], 2)
            found.setdefault(start, {})[middle] = cells
        self.seeds.write(seed, found)

    # Report --------------------------------------------------------------------------------------------------------------------------

    def report(self) -> dict[str, Any]:
        """Figures of every start, mid-training and seed, their means, and how they change against two baselines that each row names."""
        each = self.seeds.read()
        results: dict[str, Any] = {}
        for start in STARTS:
            for middle in MIDDLES:
                kinds = each[0][start][middle]
                row = {kind: averaged([one[start][middle][kind] for one in each]) for kind in kinds}
                results.setdefault(start, {})[middle] = row
        for start, middles in results.items():
            for middle, row in middles.items():
                row["baselines"] = baselines(results, start, middle)
        return self.told(results=results)


def baselines(results: Mapping[str, Any], start: str, middle: str) -> list[dict[str, Any]]:
    """What a row is compared with: random initialisation without mid-training, and the same start without it; not with itself.

    Returns:
        Of each the name, its word error rate, and (rate of the baseline - rate) / rate of the baseline in percent: above 0 is better.
    """
    own = results[start][middle]["wer"]["mean"]
    others = [
        (f"{STARTS[SCRATCH]}, no mid-training", results[SCRATCH][NONE]["wer"]["mean"], (start, middle) != (SCRATCH, NONE)),
        (f"{STARTS[start]}, no mid-training", results[start][NONE]["wer"]["mean"], middle != NONE and start != SCRATCH),
    ]
    return [{"baseline": name, "wer": rate, "relative": relative(rate, own)} for name, rate, wanted in others if wanted]


def relative(baseline: float, rate: float) -> float | None:
    """Relative reduction in percent; None against a baseline without errors."""
    return round(100 * (baseline - rate) / baseline, 2) if baseline else None


def table(report: Mapping[str, Any]) -> Table:
    """A row for every start and mid-training: means over seeds, with the lowest and the highest, and every baseline with its rate."""
    title = f"Mean of {report['plan']['seeds']} seeds (lowest to highest); beside baselines: relative reduction in %, and their rate"
    figures = ("WER, %", f"against {STARTS[SCRATCH]}, no mid-training", "against the same start, no mid-training")
    result = empty_table(title, ["pre-training", "mid-training"], figures)
    for start, name in STARTS.items():
        for middle, words in MIDDLES.items():
            row = report["results"][start][middle]
            told = {each["baseline"]: f"{_percent(each['relative'])} (from {each['wer']:.2f})" for each in row["baselines"]}
            first = told.get(f"{STARTS[SCRATCH]}, no mid-training", "-")
            second = told.get(f"{name}, no mid-training", "-")
            result.add_row(name, words, cell(row["wer"]), first, second, end_section=middle == list(MIDDLES)[-1])
    return result


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{value:+.1f}"


def draw(report: Mapping[str, Any], path: Path) -> None:
    """A panel for every mid-training, with a dot for every seed."""
    panels = {
        f"WER, %; mid-training: {words}": [report["results"][start][middle]["wer"] for start in STARTS] for middle, words in MIDDLES.items()
    }
    draw_rates(panels, list(STARTS.values()), [start != SCRATCH for start in STARTS], path)


def main(arguments: list[str] | None = None) -> int:
    return command("multistage", __doc__.splitlines()[0], PLANS, Grid, table, draw, arguments, width=140)


if __name__ == "__main__":
    raise SystemExit(main())
