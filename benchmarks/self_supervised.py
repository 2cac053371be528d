"""Does it help to learn from two kinds of targets? MT4SSL against its halves and no pre-training, small, on real and synthetic speech.

    python -m benchmarks.self_supervised --speech DIR [--out runs/self_supervised] [--json FILE] [--plot PNG] [--size small|smoke]

DIR holds recordings: spoken digits (``7_speaker_0.wav``) of at least two speakers, and any other speech. One network, the same data,
masks, steps and order for all: it classifies k-means units of MFCC (as HuBERT), regresses a moving teacher (data2vec), or both (MT4SSL),
then is fine-tuned with CTC on a small labelled part; a network from scratch is fine-tuned alike. Every seed holds out another speaker of
the digits, in pre-training and clustering as well. Finished stages are kept, a stopped one goes on: give the same command again.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from rich.table import Table

from avtlm.evaluation.wer import character_errors, word_errors
from avtlm.files import atomic_path
from benchmarks.labelled_speech import Speech, Voices, gather, hours, write_lexicon
from benchmarks.over_seeds import OverSeeds, averaged, cell, command, empty_table

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


class Comparison(OverSeeds):
    """One run in one folder."""

    FOLDERS: ClassVar = {"speech": ("folder of recordings: digits and other speech", True)}
    SHARED: ClassVar = {"speech": ("gather", "join digits, cut recordings, voice commands")}
    STAGES: ClassVar = {
        "units": ("divide", "hold a speaker out, cluster MFCC of the rest"),
        **{f"pretrain_{start}": ("pretrain", f"pre-train, {TITLES[start]}", start) for start in PRETRAINED},
        **{f"finetune_{start}": ("finetune", f"fine-tune, {TITLES[start]}", start) for start in STARTS},
        "evaluate": ("evaluate", "transcribe what was held out"),
    }
    AFRESH: ClassVar = {"speech": ("speech",)}

    # Stages --------------------------------------------------------------------------------------------------------------------------

    @property
    def folder(self) -> Path:
        return self.out / "speech"

    def gather(self) -> None:
        gather(self.folders["speech"], self.folder, self.plan.voices, seed=1)

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

    def evaluate(self, seed: int) -> None:
        """Texts of both tests by all starts, what was learned from, and how the trainings went."""
        from avtlm.data.manifest import read_manifest

        speech = Speech.load(self.folder)
        labelled = read_manifest(self.folder / f"labelled_{seed}.jsonl").utterances
        lexicon = self.folder / f"lexicon_{seed}.txt"
        write_lexicon(lexicon, [row.transcript or "" for row in labelled])
        found = {
            "held_out": self.held_out(speech, seed),
            "hours": {
                "real": round(hours([*speech.digits, *speech.recordings]), 3),
                "synthetic": round(hours(speech.commands), 3),
                "labelled": round(hours(labelled), 4),
            },
            "labelled_utterances": len(labelled),
            "texts": {start: self._texts(start, lexicon, seed) for start in STARTS},
            "ctc_loss": {start: self._losses(f"finetune_{start}_{seed}", "ctc_loss") for start in STARTS},
            "pretraining": {start: self._last(f"pretrain_{start}_{seed}") for start in PRETRAINED},
        }
        self.seeds.write(seed, found)

    def _texts(self, start: str, lexicon: Path, seed: int) -> dict[str, list[list[str]]]:
        """Of every utterance of both tests: reference, best path, and best words of the lexicon."""
        from avtlm.data.manifest import read_manifest
        from avtlm.evaluation.evaluate import evaluate

        model, found = self.out / f"finetune_{start}_{seed}" / "model", {}
        for test in TESTS:
            manifest = self.folder / f"{test}_{seed}.jsonl"
            known = [*KNOWN_WORDS, f"lexicon={lexicon.resolve()}"]
            greedy, words = (
                evaluate(manifest, model, ("a",), decoding=changes).conditions[0].texts for changes in (["method=ctc_greedy"], known)
            )
            found[test] = [[row.transcript or "", greedy[row.id], words[row.id]] for row in read_manifest(manifest)]
        return found

    def _journal(self, run: str) -> list[dict[str, float]]:
        return [json.loads(line) for line in (self.out / run / "log.jsonl").read_text().splitlines()]

    def _losses(self, run: str, name: str) -> dict[str, list[float]]:
        """A curve of the log."""
        lines = [line for line in self._journal(run) if name in line]
        return {"step": [line["step"] for line in lines], name: [line[name] for line in lines]}

    def _last(self, run: str) -> dict[str, float]:
        """What the log says of the losses in the end."""
        names = ("masked_loss", "masked_accuracy", "regression_loss", "classification_loss", "target_spread", "prediction_spread")
        return {key: round(value, 4) for key, value in self._journal(run)[-1].items() if key.rpartition("/")[2] in names}

    # Report --------------------------------------------------------------------------------------------------------------------------

    def report(self) -> dict[str, Any]:
        """Rates of every start and seed, their means, and differences to MT4SSL with intervals."""
        each = self.seeds.read()
        errors = {start: [count(one["texts"][start]) for one in each] for start in STARTS}
        results: dict[str, Any] = {test: {start: rates([one[test] for one in errors[start]]) for start in STARTS} for test in TESTS}
        place = list(MEASURES).index("wer_lexicon")
        for test, rows in results.items():
            for start in STARTS:
                if start != "mt4ssl":
                    sides = ([one[test][:, place] for one in errors[side]] for side in (start, "mt4ssl"))
                    rows[start]["minus_mt4ssl"] = difference(*sides)
        first = each[0]["hours"]
        return self.told(
            results=results,
            held_out_speakers=[one["held_out"] for one in each],
            hours={"real": first["real"], "synthetic": first["synthetic"], "labelled": [one["hours"]["labelled"] for one in each]},
            labelled_utterances=[one["labelled_utterances"] for one in each],
            tested_words={test: [int(one[test][:, 1, 1].sum()) for one in errors["mt4ssl"]] for test in TESTS},
            ctc_loss={start: mean_curve([one["ctc_loss"][start] for one in each], "ctc_loss") for start in STARTS},
            pretraining={start: [one["pretraining"][start] for one in each] for start in PRETRAINED},
        )


def rates(errors: Sequence[np.ndarray]) -> dict[str, Any]:
    """Error rates in percent by each measure.

    Args:
        errors: those of every seed, as `count` gives them.
    """
    return {name: averaged([round(percent(one[:, place]), 2) for one in errors], 2) for place, name in enumerate(MEASURES)}


def mean_curve(curves: Sequence[Mapping[str, list[float]]], name: str) -> dict[str, list[float]]:
    """A curve of the log, mean over the seeds.

    Args:
        curves: of every seed ``step``, the same for all, and the values under ``name``.
    """
    values = zip(*(curve[name] for curve in curves), strict=True)
    return {"step": curves[0]["step"], "mean": [round(float(np.mean(column)), 4) for column in values]}


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
    title = f"Held-out error rates in %, mean of {report['plan']['seeds']} seeds (lowest to highest)"
    result = empty_table(title, ["test", "pre-training"], [*MEASURES.values(), "minus MT4SSL (95 %)"])
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


def main(arguments: list[str] | None = None) -> int:
    return command("self_supervised", __doc__.splitlines()[0], PLANS, Comparison, table, draw, arguments, width=150)


if __name__ == "__main__":
    raise SystemExit(main())
