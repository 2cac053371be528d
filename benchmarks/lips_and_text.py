"""What do text, and sound without lips, bring pre-training on lips and sound? VATLM beside AV-HuBERT, small, on synthetic talking heads.

    python -m benchmarks.lips_and_text [--out runs/lips_and_text] [--json FILE] [--plot PNG] [--size small|smoke] [--corpus DIR]

One network, the same clips, units, seeds and steps for all: pre-training on lips with sound alone, as AV-HuBERT; with sound without lips
besides; or with sound beside text and text alone as well, as VATLM. Each, and a network from scratch, is fine-tuned on few transcripts of
clips with lips, and measured on unseen speakers by lips, sound and both. A step with further kinds of input has their batches besides that
of lips and sound, so that it takes longer. Finished stages are kept, a stopped one goes on: give the same command again.
"""

import functools
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from rich.table import Table

from benchmarks.comparison_corpora import OnTalkingHeads
from benchmarks.over_seeds import averaged, cell, command, draw_rates, empty_table
from demos.parallel import Job, train_together
from demos.quickstart import train_and_score

CONFIGS = Path(__file__).resolve().parents[1] / "configs" / "vatlm"
SCRATCH = "scratch"
WITH_TEXT = ("audio_text", "text")
# What each pre-training leaves out.
LEFT_OUT: dict[str, tuple[str, ...]] = {"vatlm": (), "sound": WITH_TEXT, "avhubert": ("audio", *WITH_TEXT)}
TITLES = {
    "vatlm": "lips, sound and text (VATLM)",
    "sound": "lips, and sound without lips",
    "avhubert": "lips and sound (AV-HuBERT)",
    SCRATCH: "no pre-training",
}
# Word errors by what is given and the noise, "clean" or the ratio in dB.
MEASURES = {"v/clean": "lips", "av/clean": "both", "a/clean": "sound", "av/0": "both at 0 dB"}


@dataclass(frozen=True)
class Plan:
    """How much of everything; each further kind of input has a batch in a ``share`` of the steps."""

    corpus: str
    clusters: int
    pretrain_steps: int
    share: float
    labels: int
    finetune_steps: int
    seeds: int


PLANS = {
    "small": Plan("default", 100, 800, 0.5, 300, 400, 3),
    "smoke": Plan("smoke", 10, 4, 0.5, 8, 2, 2),
}


class Comparison(OnTalkingHeads):
    """One run in one folder."""

    SHARED: ClassVar = {
        "corpus": ("make_corpus", "draw and voice talking heads, cut their lips"),
        "units": ("label", "one inventory of units for lips, sound and text"),
    }
    STAGES: ClassVar = {
        "pretrain": ("pretrain", "with and without text and further sound"),
        "finetune": ("finetune", "recognition of unseen speakers"),
    }
    AFRESH: ClassVar = {"units": ("units",)}

    @property
    def audio_only(self) -> Path:
        return self.made / "corpus" / "audio_only" / "manifest.jsonl"

    @property
    def text_only(self) -> Path:
        return self.made / "corpus" / "text_only" / "manifest.jsonl"

    # Stages --------------------------------------------------------------------------------------------------------------------------

    def label(self) -> None:
        """Units of clips with lips, of sound alone by the same clusters, and of text by the phones that go with them."""
        from avtlm.units.discovery import units
        from avtlm.units.kmeans import KMeansConfig
        from avtlm.units.text_to_units import label_text

        folder, config = self.out / "units", KMeansConfig(clusters=self.plan.clusters, restarts=3, seed=1)
        made = units(self.lips, folder, config=config, fraction=0.5)
        audio = units(self.audio_only, folder / "audio", config=config, clusters_from=made.clusters, modality="a")
        shutil.copy(audio.labels, folder / "audio.units")
        label_text(self.audio_only, folder / "audio.units", self.text_only, folder / "text.units")

    def pretrain(self, seed: int) -> None:
        steps, units = self.plan.pretrain_steps, self.out / "units"
        sources = {
            "audio_video": (self.lips, "manifest.units"),
            "audio": (self.audio_only, "audio.units"),
            "audio_text": (self.audio_only, "audio.units"),
            "text": (self.text_only, "text.units"),
        }
        jobs = []
        for start, left_out in LEFT_OUT.items():
            changes = [f"steps={steps}", f"save_every={steps}", f"seed={seed}", f"model.units={self.plan.clusters}"]
            for name, (manifest, labels) in sources.items():
                if name in left_out:
                    changes.append(f"sources.{name}=null")
                    continue
                changes += [f"sources.{name}.manifest={manifest}", f"sources.{name}.units={units / labels}"]
                if name != "audio_video":
                    changes.append(f"sources.{name}.weight={self.plan.share}")
            jobs.append(Job(CONFIGS / "tiny_pretrain.yaml", (*changes, *self.changes), self.out / f"pretrain_{seed}" / start))
        train_together("pre-training", jobs, steps * len(jobs))

    def finetune(self, seed: int) -> None:
        """Fine-tuning of every start, each measured as soon as it is done."""
        steps, jobs = self.plan.finetune_steps, []
        for start in TITLES:
            initial = self.out / f"pretrain_{seed}" / ("vatlm" if start == SCRATCH else start) / "model"
            changes = (
                f"initialise={initial}",
                # From scratch the sizes come from a pre-trained model's configuration, not its weights.
                f"initialise_weights={str(start != SCRATCH).lower()}",
                f"steps={steps}",
                f"save_every={steps}",
                f"seed={seed}",
                f"sources.labelled.manifest={self.lips}",
                f"sources.labelled.limit={self.plan.labels}",
                f"sources.labelled.limit_seed={seed}",
                f"validation.manifest={self.lips}",
                "validate_every=0",
                *self.changes,
            )
            jobs.append(Job(CONFIGS / "tiny_finetune.yaml", changes, self.out / f"finetune_{seed}" / start))
        score = functools.partial(train_and_score, manifest=self.lips)
        found = train_together("fine-tuning", jobs, steps * len(jobs), score)
        self.seeds.write(seed, dict(zip(TITLES, found, strict=True)))

    # Report --------------------------------------------------------------------------------------------------------------------------

    def report(self) -> dict[str, Any]:
        """Word errors of every start and seed by input and noise, and their means."""
        each = self.seeds.read()
        results: dict[str, Any] = {}
        for start in TITLES:
            for path in MEASURES:
                given, noise = path.split("/")
                row = [one[start][given][noise] for one in each]
                results.setdefault(start, {}).setdefault(given, {})[noise] = averaged(row)
        return self.told(results=results)


def _cells(report: Mapping[str, Any], start: str) -> list[Mapping[str, Any]]:
    return [report["results"][start][given][noise] for given, noise in (path.split("/") for path in MEASURES)]


def table(report: Mapping[str, Any]) -> Table:
    """A row for every start: means over seeds, with the lowest and the highest."""
    title = f"Word error rate in % by what is given: mean of {report['plan']['seeds']} seeds (lowest to highest)"
    result = empty_table(title, ["pre-training"], MEASURES.values())
    for start, words in TITLES.items():
        result.add_row(words, *(cell(found, 1) for found in _cells(report, start)), end_section=start == "avhubert")
    return result


def draw(report: Mapping[str, Any], path: Path) -> None:
    """A panel for every input, with a dot for every seed."""
    rows = [_cells(report, start) for start in TITLES]
    panels = {f"WER, %: {measure}": [row[place] for row in rows] for place, measure in enumerate(MEASURES.values())}
    draw_rates(panels, list(TITLES.values()), [start == "vatlm" for start in TITLES], path)


def main(arguments: list[str] | None = None) -> int:
    return command("lips_and_text", __doc__.splitlines()[0], PLANS, Comparison, table, draw, arguments)


if __name__ == "__main__":
    raise SystemExit(main())
