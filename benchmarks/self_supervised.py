"""Does it help to learn from two kinds of targets? MT4SSL against its halves and no pre-training, small, on real and synthetic speech.

    python -m benchmarks.self_supervised --speech DIR [--out runs/self_supervised] [--json FILE] [--plot PNG] [--size small|smoke]

DIR holds recordings: spoken digits (``7_speaker_0.wav``) of at least two speakers, and any other speech. One network, the same data,
masks, steps and order for all: it classifies k-means units of MFCC (as HuBERT), regresses a moving teacher (data2vec), or both (MT4SSL),
then is fine-tuned with CTC on a small labelled part; a network from scratch is fine-tuned alike. Every seed holds out another speaker of
the digits, in pre-training and clustering as well. Finished stages are kept, a stopped one goes on: give the same command again.
"""

import argparse
import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from avtlm.evaluation.wer import character_errors, word_errors
from avtlm.files import atomic_path
from benchmarks.labelled_speech import Speech, Voices, gather, hours, write_lexicon
from benchmarks.over_seeds import cell, command
from demos.stages import Stages, machine, write_json

CONFIGS = Path(__file__).resolve().parents[1] / "configs" / "mt4ssl"
# What each start learns from; the names are those of the published systems whose targets these are.
STARTS: dict[str, tuple[str, ...]] = {
    "scratch": (),
    "hubert": ("model.regression_weight=0",),
    "data2vec": ("model.classification_weight=0",),
    "mt4ssl": (),
}
PRETRAINED = tuple(start for start in STARTS if start != "scratch")
TITLES = {"scratch": "from scratch", "hubert": "units (HuBERT)", "data2vec": "teacher (data2vec)", "mt4ssl": "both (MT4SSL)"}
TESTS = {"digits": "real digits, unseen speaker", "commands": "synthetic commands, unseen voices"}
MEASURES = {"cer": "CER", "wer": "WER", "wer_lexicon": "WER, words known"}
# The words are known, what may follow what is not: no language model.
KNOWN_WORDS = ("method=ctc_lexicon", "beam=20", "word_score=0")
RESAMPLES = 2000
LABEL_RATE = 25.0  # of units, that of the network's frames


@dataclass(frozen=True)
class Plan:
    """How much of everything; ``strings`` of digits are labelled for each training speaker (None: all)."""

    voices: Voices
    strings: int | None
    clusters: int
    pretrain_steps: int
    finetune_steps: int
    seeds: int


PLANS = {
    "small": Plan(Voices(40, 600, 120, 10, 10), None, 100, 600, 800, 3),
    "smoke": Plan(Voices(2, 4, 2, 1, 2), 2, 8, 2, 2, 2),
}


class Comparison:
    """One run in one folder.

    Args:
        speech: folder of recordings.
        out: folder for everything that is made.
    """

    def __init__(self, speech: Path, out: Path, plan: Plan, console: Console, changes: tuple[str, ...] = ()) -> None:
        self.recordings, self.out, self.plan, self.console, self.changes = speech, out, plan, console, changes
        stages = 1 + plan.seeds * (1 + len(PRETRAINED) + 2 * len(STARTS))
        afresh = {name: (name,) for seed in range(1, plan.seeds + 1) for name in self._folders(seed)}
        # More seeds leave what is there as it is.
        asked = {key: value for key, value in dataclasses.asdict(plan).items() if key != "seeds"} | {"changes": list(changes)}
        self.stages = Stages(out, console, stages, afresh | {"speech": ("speech",)}, **asked)

    def _folders(self, seed: int) -> list[str]:
        return [f"{kind}_{seed}" for kind in ("units", *(f"pretrain_{s}" for s in PRETRAINED), *(f"finetune_{s}" for s in STARTS))]

    def run(self) -> dict[str, Any]:
        """All stages; returns the report."""
        stage = self.stages.run
        stage("speech", "join digits, cut recordings, voice commands", self.gather)
        for seed in range(1, self.plan.seeds + 1):
            stage(f"units_{seed}", f"seed {seed}: hold a speaker out, cluster MFCC of the rest", lambda seed=seed: self.divide(seed))
            for start in PRETRAINED:
                what = f"seed {seed}: pre-train, {TITLES[start]}"
                stage(f"pretrain_{start}_{seed}", what, lambda start=start, seed=seed: self.pretrain(start, seed))
            for start in STARTS:
                what = f"seed {seed}: fine-tune, {TITLES[start]}"
                stage(f"finetune_{start}_{seed}", what, lambda start=start, seed=seed: self.finetune(start, seed))
        for seed in range(1, self.plan.seeds + 1):
            for start in STARTS:
                what = f"seed {seed}: transcribe what was held out"
                stage(f"evaluate_{start}_{seed}", what, lambda start=start, seed=seed: self.evaluate(start, seed))
        return self.report()

    # Stages --------------------------------------------------------------------------------------------------------------------------

    @property
    def folder(self) -> Path:
        return self.out / "speech"

    def gather(self) -> None:
        gather(self.recordings, self.folder, self.plan.voices, seed=1)

    def held_out(self, speech: Speech, seed: int) -> str:
        """The speaker of digits that a seed never hears."""
        return speech.speakers[(seed - 1) % len(speech.speakers)]

    def divide(self, seed: int) -> None:
        """Manifests of a seed, and the units of what is learned from."""
        from avtlm.units.discovery import units
        from avtlm.units.kmeans import KMeansConfig

        speech = Speech.load(self.folder)
        own = [row for row in speech.digits if row.speaker != self.held_out(speech, seed)]
        labelled = [row for row in speech.commands if row.transcript is not None]
        for speaker in speech.speakers:
            labelled += [row for row in own if row.speaker == speaker][: self.plan.strings]
        unlabelled = speech.write(f"unlabelled_{seed}", [*own, *speech.recordings, *speech.commands], "train")
        speech.write(f"labelled_{seed}", labelled, "train")
        speech.write(f"digits_{seed}", [row for row in speech.digits if row not in own], "test")
        speech.write(f"commands_{seed}", speech.held_out, "test")
        units(unlabelled, self.out / f"units_{seed}", config=KMeansConfig(self.plan.clusters, restarts=3, seed=seed), mfcc_rate=LABEL_RATE)

    def pretrain(self, start: str, seed: int) -> None:
        from avtlm.training.loop import train

        steps, name = self.plan.pretrain_steps, f"unlabelled_{seed}"
        overrides = [
            f"output={self.out / f'pretrain_{start}_{seed}'}",
            f"steps={steps}",
            f"save_every={steps}",
            f"seed={seed}",
            f"model.units={self.plan.clusters}",
            f"sources.audio.manifest={self.folder / name}.jsonl",
            f"sources.audio.units={self.out / f'units_{seed}' / name}.units",
        ]
        train(CONFIGS / "comparison_pretrain.yaml", [*overrides, *self.changes, *STARTS[start]])

    def finetune(self, start: str, seed: int) -> None:
        from avtlm.training.loop import train

        steps = self.plan.finetune_steps
        pretrained = self.out / f"pretrain_{'mt4ssl' if start == 'scratch' else start}_{seed}" / "model"
        overrides = [
            f"output={self.out / f'finetune_{start}_{seed}'}",
            f"steps={steps}",
            f"save_every={steps}",
            f"log_every={max(1, steps // 20)}",
            f"seed={seed}",
            f"initialise={pretrained}",
            # From scratch the sizes come from a pre-trained model's configuration, not its weights.
            f"initialise_weights={str(start != 'scratch').lower()}",
            f"sources.labelled.manifest={self.folder / f'labelled_{seed}.jsonl'}",
        ]
        train(CONFIGS / "comparison_finetune.yaml", overrides)

    def evaluate(self, start: str, seed: int) -> None:
        """Texts of both tests: reference, best path, and best words of the lexicon."""
        from avtlm.data.manifest import read_manifest
        from avtlm.evaluation.evaluate import evaluate

        model = self.out / f"finetune_{start}_{seed}" / "model"
        lexicon, found = self.folder / f"lexicon_{seed}.txt", {}
        write_lexicon(lexicon, [row.transcript or "" for row in self._labelled(seed)])
        for test in TESTS:
            manifest = self.folder / f"{test}_{seed}.jsonl"
            known = [*KNOWN_WORDS, f"lexicon={lexicon.resolve()}"]
            greedy, words = (
                evaluate(manifest, model, ("a",), decoding=changes).conditions[0].texts for changes in (["method=ctc_greedy"], known)
            )
            found[test] = [[row.transcript or "", greedy[row.id], words[row.id]] for row in read_manifest(manifest)]
        write_json(self.out / "texts" / f"{start}_{seed}.json", found)

    # Report --------------------------------------------------------------------------------------------------------------------------

    def report(self) -> dict[str, Any]:
        """Rates of every start and seed, their means, and differences to MT4SSL with intervals."""
        speech, seeds = Speech.load(self.folder), range(1, self.plan.seeds + 1)
        errors = {
            (start, seed): count(json.loads((self.out / "texts" / f"{start}_{seed}.json").read_text()))
            for start in STARTS
            for seed in seeds
        }
        results: dict[str, Any] = {}
        for test in TESTS:
            results[test] = {}
            for start in STARTS:
                each = [errors[start, seed][test] for seed in seeds]
                rates = {name: [round(percent(one[:, place]), 2) for one in each] for place, name in enumerate(MEASURES)}
                results[test][start] = {name: {"mean": round(float(np.mean(row)), 2), "seeds": row} for name, row in rates.items()}
                if start != "mt4ssl":
                    both = [errors["mt4ssl", seed][test] for seed in seeds]
                    place = list(MEASURES).index("wer_lexicon")
                    results[test][start]["minus_mt4ssl"] = difference([one[:, place] for one in each], [one[:, place] for one in both])
        return {
            "results": results,
            "held_out_speakers": [self.held_out(speech, seed) for seed in seeds],
            "hours": {
                "real": round(hours([*speech.digits, *speech.recordings]), 3),
                "synthetic": round(hours(speech.commands), 3),
                "labelled": [round(hours(self._labelled(seed)), 4) for seed in seeds],
            },
            "labelled_utterances": [len(self._labelled(seed)) for seed in seeds],
            "tested_words": {test: [int(errors["mt4ssl", seed][test][:, 1, 1].sum()) for seed in seeds] for test in TESTS},
            "ctc_loss": {start: self._losses(f"finetune_{start}", "ctc_loss") for start in STARTS},
            "pretraining": {start: self._last(f"pretrain_{start}") for start in PRETRAINED},
            "plan": dataclasses.asdict(self.plan) | {"changes": list(self.changes)},
            "seconds": {"total": round(sum(self.stages.seconds.values()), 1)},
            "machine": machine(),
        }

    def _labelled(self, seed: int) -> Any:
        from avtlm.data.manifest import read_manifest

        return read_manifest(self.folder / f"labelled_{seed}.jsonl").utterances

    def _journal(self, run: str, seed: int) -> list[dict[str, float]]:
        return [json.loads(line) for line in (self.out / f"{run}_{seed}" / "log.jsonl").read_text().splitlines()]

    def _losses(self, run: str, name: str) -> dict[str, list[float]]:
        """A curve of the log, mean over the seeds."""
        journals = [[line for line in self._journal(run, seed) if name in line] for seed in range(1, self.plan.seeds + 1)]
        means = [round(float(np.mean([line[name] for line in lines])), 4) for lines in zip(*journals, strict=True)]
        return {"step": [line["step"] for line in journals[0]], "mean": means}

    def _last(self, run: str) -> list[dict[str, float]]:
        """What the log says of the losses in the end, for every seed."""
        names = ("masked_loss", "masked_accuracy", "regression_loss", "classification_loss", "target_spread", "prediction_spread")
        last = [self._journal(run, seed)[-1] for seed in range(1, self.plan.seeds + 1)]
        return [{key: round(value, 4) for key, value in line.items() if key.rpartition("/")[2] in names} for line in last]


def count(texts: Mapping[str, list[list[str]]]) -> dict[str, np.ndarray]:
    """Errors and units of every utterance: int (utterances, measures, 2), in the order of `MEASURES`."""
    found = {}
    for test, rows in texts.items():
        each = [(character_errors(truth, greedy), word_errors(truth, greedy), word_errors(truth, words)) for truth, greedy, words in rows]
        found[test] = np.array(each)
    return found


def percent(errors: np.ndarray) -> float:
    """Rate of (utterances, 2) errors and units."""
    total, units = errors.sum(0)
    return 100.0 * float(total) / float(units)


def difference(one: list[np.ndarray], other: list[np.ndarray]) -> dict[str, Any]:
    """Mean over seeds of the difference of two rates, and its 95 % interval when the utterances of each seed are drawn again (Bisani and
    Ney 2004); the same utterances for both."""
    rng = np.random.default_rng(0)
    drawn = np.zeros(RESAMPLES)
    for mine, theirs in zip(one, other, strict=True):
        places = rng.integers(0, len(mine), (RESAMPLES, len(mine)))
        first, second = mine[places].sum(1), theirs[places].sum(1)
        drawn += 100.0 * (first[:, 0] / first[:, 1] - second[:, 0] / second[:, 1]) / len(one)
    mean = float(np.mean([percent(mine) - percent(theirs) for mine, theirs in zip(one, other, strict=True)]))
    return {"mean": round(mean, 2), "interval_95": [round(float(end), 2) for end in np.percentile(drawn, [2.5, 97.5])]}


def table(report: Mapping[str, Any]) -> Table:
    """A row for every start and test: means over seeds with lowest and highest, and how much worse than MT4SSL."""
    result = Table(title=f"Held-out error rates in %, mean of {report['plan']['seeds']} seeds (lowest to highest)", title_justify="left")
    for heading in ("test", "pre-training", *MEASURES.values(), "minus MT4SSL (95 %)"):
        result.add_column(heading, justify="left" if heading in ("test", "pre-training") else "right", overflow="fold")
    for test, title in TESTS.items():
        for start in STARTS:
            row = report["results"][test][start]
            cells = [cell(row[name], 1) for name in MEASURES]
            worse = row.get("minus_mt4ssl")
            cells.append("" if worse is None else "{:+.1f} ({:+.1f} to {:+.1f})".format(worse["mean"], *worse["interval_95"]))
            result.add_row(title if start == "scratch" else "", TITLES[start], *cells, end_section=start == "mt4ssl")
    return result


def draw(report: Mapping[str, Any], path: Path) -> None:
    """Rates of both tests with a dot for every seed, and the loss while fine-tuning."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11.0, 4.0), dpi=160, facecolor="white")
    FigureCanvasAgg(figure)
    *panels, curves = figure.subplots(1, 3)
    colours = dict(zip(STARTS, ("#6b7280", "#c2571a", "#2e7d32", "#1261a6"), strict=True))
    for axes, (test, title) in zip(panels, TESTS.items(), strict=True):
        for place, start in enumerate(STARTS):
            rate = report["results"][test][start]["wer_lexicon"]
            axes.bar(place, rate["mean"], color=colours[start], alpha=0.35, width=0.65)
            axes.plot([place] * len(rate["seeds"]), rate["seeds"], "o", color=colours[start], markersize=5)
        axes.set_xticks(range(len(STARTS)), [TITLES[start].replace(" (", "\n(") for start in STARTS], fontsize=7.5)
        axes.set_title(title, fontsize=10, loc="left")
        axes.set_ylim(bottom=0)
        axes.set_ylabel("Word error rate, words known, %", fontsize=8)
    for start, curve in report["ctc_loss"].items():
        curves.plot(curve["step"], curve["mean"], color=colours[start], label=TITLES[start])
    curves.set_title("CTC loss in fine-tuning, per letter", fontsize=10, loc="left")
    curves.set_xlabel("step", fontsize=8)
    curves.legend(fontsize=7.5, frameon=False)
    for axes in (*panels, curves):
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", color="#e4e7eb", linewidth=0.8)
        axes.set_axisbelow(True)
        axes.tick_params(labelsize=7.5)
    figure.tight_layout()
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", metadata={"Software": None})


def add_speech(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--speech", type=Path, required=True, metavar="DIR", help="folder of recordings: digits and other speech")


def main(arguments: list[str] | None = None) -> int:
    def compare(options: argparse.Namespace, plan: Plan, console: Console) -> dict[str, Any]:
        return Comparison(options.speech, options.out, plan, console, tuple(options.changes)).run()

    return command("self_supervised", __doc__.splitlines()[0], PLANS, compare, table, draw, arguments, 150, add_speech, keeps_seeds=False)


if __name__ == "__main__":
    raise SystemExit(main())
