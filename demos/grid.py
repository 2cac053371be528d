"""Real clips: from GRID videos of one talker to a model that hears and lip-reads them, on the model that the quickstart leaves.

    python -m demos.grid --root GRID [--quickstart runs/quickstart] [--out runs/grid] [--talker s1] [--seed N]

The talker's clips are pre-trained on without their transcripts, together with the synthetic corpus, then fine-tuned on with them. The test
is 100 sentences held out for good (preprocess/corpora/grid.py) and whatever clips of other talkers are there. Configurations:
configs/vatlm/grid_pretrain.yaml and grid_finetune.yaml. Stages resume as those of the quickstart do.
"""

import argparse
import json
import shutil
import sys
from pathlib import Path
from typing import Any

from rich.console import Console

from demos.quickstart import results_table
from demos.stages import Stages, finish, machine, restart_tuned, write_json

SNRS = (10.0, 5.0, 0.0, -5.0, -10.0)
CONFIGS = Path(__file__).resolve().parent.parent / "configs" / "vatlm"
AFRESH = {name: (name,) for name in ("units", "pretrain", "finetune")}
LAYER, CLUSTERS = 3, 100
NEEDED = ("pretrain2/model", "lips/manifest.jsonl", "corpus/text_only/manifest.jsonl")


class Grid:
    """One run in one folder.

    Args:
        root: folder of the GRID corpus.
        quickstart: folder that the quickstart has made.
        out: folder for everything that is made here.
        steps: of pre-training and fine-tuning; None takes those of the configurations.

    Raises:
        ValueError: the quickstart has not been run.
    """

    def __init__(
        self, root: Path, quickstart: Path, out: Path, console: Console, talker: str = "s1", seed: int = 1, steps: int | None = None
    ) -> None:
        missing = [name for name in NEEDED if not (quickstart / name).exists()]
        if missing:
            raise ValueError(f"{quickstart}: has no {missing[0]}; run the quickstart first (make quickstart), or name its folder.")
        self.root, self.quickstart, self.out, self.console, self.talker, self.seed = root, quickstart, out, console, talker, seed
        self.steps = [] if steps is None else [f"steps={steps}"]
        self.stages = Stages(out, console, 6, AFRESH, seed=seed, talker=talker, steps=steps)
        self.lips = out / "lips" / "manifest.jsonl"
        self.synthetic = quickstart / "lips" / "manifest.jsonl"
        self.texts = quickstart / "corpus" / "text_only" / "manifest.jsonl"

    def run(self) -> Path:
        """All stages; returns the path of report.json."""
        stage = self.stages.run
        stage("clips", "read the corpus", self.read)
        stage("lips", "find faces, cut lip crops", self.cut_lips)
        stage("units", "cluster what the quickstart's encoder makes of them", self.label)
        stage("pretrain", "predict the units of real and synthetic clips", self.pretrain)
        stage("finetune", "learn to write from transcripts in growing noise", self.finetune)
        stage("evaluation", "held-out sentences, clean and in babble; other talkers", self.evaluate)
        return self.report()

    def read(self) -> None:
        from preprocess.corpora.grid import main

        chosen = ["--protocol", "one_talker", "--talker", self.talker]
        if main(["--root", str(self.root), "--out", str(self.out / "clips"), *chosen]):
            raise ValueError(f"{self.root}: could not be read; see above.")

    def cut_lips(self) -> None:
        from preprocess.lip_roi import run

        run(self.out / "clips" / "manifest.jsonl", self.out / "lips", format="npy", contact_sheet=self.out / "contact_sheet.png")

    def label(self) -> None:
        """Clusters of the real clips' features; the synthetic clips and the texts get units of the same inventory."""
        from avtlm.units.discovery import units
        from avtlm.units.kmeans import KMeansConfig
        from avtlm.units.text_to_units import label_text

        model, folder = self.quickstart / "pretrain2" / "model", self.out / "units"
        config = KMeansConfig(clusters=CLUSTERS, restarts=3, seed=self.seed)
        real = units(self.lips, folder, model, LAYER, config)
        synthetic = units(self.synthetic, folder / "synthetic", model, LAYER, config, clusters_from=real.clusters)
        shutil.copy(synthetic.labels, folder / "synthetic.units")
        label_text(self.synthetic, folder / "synthetic.units", self.texts, folder / "text.units")

    def pretrain(self) -> None:
        from avtlm.training.loop import train

        units = self.out / "units"
        overrides = [
            f"output={self.out / 'pretrain'}",
            f"initialise={self.quickstart / 'pretrain2' / 'model'}",
            f"seed={self.seed}",
            f"sources.grid.manifest={self.lips}",
            f"sources.grid.units={units / 'manifest.units'}",
            f"sources.synthetic.manifest={self.synthetic}",
            f"sources.synthetic.units={units / 'synthetic.units'}",
            f"sources.text.manifest={self.texts}",
            f"sources.text.units={units / 'text.units'}",
        ]
        train(CONFIGS / "grid_pretrain.yaml", overrides + self.steps)

    def finetune(self) -> None:
        from avtlm.training.loop import train

        overrides = [
            f"output={self.out / 'finetune'}",
            f"initialise={self.out / 'pretrain' / 'model'}",
            f"seed={self.seed}",
            f"sources.labelled.manifest={self.lips}",
            f"validation.manifest={self.lips}",
        ]
        train(CONFIGS / "grid_finetune.yaml", overrides + self.steps)

    @property
    def model(self) -> Path:
        """The mean of the best models of the fine-tuning, or its last one where it was too short to have several."""
        averaged = self.out / "finetune" / "average"
        return averaged if averaged.exists() else self.out / "finetune" / "model"

    def evaluate(self) -> None:
        """The talker's test sentences, with babble of the other talkers' clips; the other talkers' clips themselves, with its babble."""
        from avtlm.data.manifest import read_manifest
        from avtlm.evaluation.evaluate import evaluate
        from avtlm.evaluation.wer import corpus_wer
        from avtlm.text.normalize import normalize

        test = read_manifest(self.lips).split("test")
        speakers = {row.id: row.speaker for row in test}
        references = {row.id: normalize(row.transcript or "") for row in test}
        noisy = len(set(speakers.values())) > 1
        if not noisy:
            self.console.print("      only one talker is there, so there is no babble of others: clean speech alone is measured")
        found = evaluate(self.lips, self.model, ("a", "v", "av"), "test", SNRS if noisy else (), seed=self.seed)
        groups: dict[str, dict[str, Any]] = {}
        for group in ("talker", "others"):
            chosen = [name for name, speaker in speakers.items() if (speaker == self.talker) == (group == "talker")]
            if not chosen:
                continue
            cells = groups[group] = {"utterances": len(chosen), "wer": {}, "interval_95": {}}
            for condition in found.conditions:
                rate = corpus_wer([(references[name], normalize(condition.texts[name])) for name in chosen])
                cells["wer"].setdefault(condition.modality, {})[condition.name] = round(rate.percent, 2)
                cells["interval_95"].setdefault(condition.modality, {})[condition.name] = [round(end, 2) for end in rate.interval]
        write_json(self.out / "evaluation.json", groups)

    def report(self) -> Path:
        """report.json, the plot, and the tables on the screen."""
        from avtlm.evaluation.plots import wer_against_snr

        groups = json.loads((self.out / "evaluation.json").read_text())
        seconds = self.stages.seconds | {"total": round(sum(self.stages.seconds.values()), 1)}
        path = self.out / "report.json"
        write_json(path, {**groups["talker"], "groups": groups, "seconds": seconds, "machine": machine(), "seed": self.seed})
        wer_against_snr(groups["talker"], self.out / "wer_against_snr.png", title=f"GRID, talker {self.talker}")
        titles = {"talker": f"held-out sentences of {self.talker}", "others": "clips of other talkers, never seen"}
        for group, cells in groups.items():
            self.console.print(results_table(cells, f"{cells['utterances']} {titles[group]}"))
        self.console.print(f"Model: {self.model}   figures: {path}   compute: {seconds['total'] / 60:.1f} min", highlight=False)
        return path


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="grid", description=__doc__.splitlines()[0])
    parser.add_argument("--root", type=Path, required=True, metavar="DIR", help="folder of GRID, with the talkers' folders in it")
    parser.add_argument("--quickstart", type=Path, default="runs/quickstart", metavar="DIR", help="what `make quickstart` made")
    parser.add_argument("--out", type=Path, default="runs/grid", metavar="DIR", help="folder for everything that is made")
    parser.add_argument("--talker", default="s1", metavar="NAME")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--steps", type=int, metavar="N", help="of pre-training and of fine-tuning, for a quick look")
    options = parser.parse_args(arguments)
    restart_tuned("demos.grid", sys.argv[1:] if arguments is None else arguments)
    console = Console(stderr=True)
    return finish(
        "grid", lambda: Grid(options.root, options.quickstart, options.out, console, options.talker, options.seed, options.steps).run()
    )


if __name__ == "__main__":
    sys.exit(main())
