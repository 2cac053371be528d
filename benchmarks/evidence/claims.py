"""Which figures of which run test which claim. What is published, and where, stands in docs/evidence.md.

A claim is decided by the comparisons that are marked so here, chosen before the runs but for those of MT4SSL and AV-HuBERT, whose figures
were there already. All others are shown with their own words beside them. Names of rows and measures are those of the benchmarks that make
them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from benchmarks import lips_and_text, mandarin, multistage, one_encoder, self_supervised, spoken_ablation, unpaired_text


@dataclass(frozen=True)
class Measure:
    """A column.

    Attributes:
        path: where it is in a row of the results.
        higher: whether high figures are good ones.
        digits: behind the point.
    """

    path: str
    title: str
    higher: bool = False
    digits: int = 1


@dataclass(frozen=True)
class Comparison:
    """One row is claimed to be better than another, by some measures or, where none is named, by all. ``decides``: see above."""

    better: str
    other: str
    measures: tuple[str, ...] = ()
    decides: bool = False


@dataclass(frozen=True)
class Trial:
    """A table of one run.

    Attributes:
        run: its name.
        title: what the table shows.
        heading: of the column that names the rows.
        where: path of a cell in the report, with ``{row}`` and ``{measure}``.
        rows: their titles, by their names in the report. One that the report lacks is left out, unless it is compared.
    """

    run: str
    title: str
    heading: str
    where: str
    rows: Mapping[str, str]
    measures: tuple[Measure, ...]
    comparisons: tuple[Comparison, ...] = ()

    def found(self, report: Mapping[str, Any], row: str, measure: Measure) -> Mapping[str, Any] | None:
        """A cell of the results, which has ``seeds``; None where the report has no such row.

        Raises:
            ValueError: the report is of another form.
        """
        found: Any = report
        path = self.where.format(row=row, measure=measure.path)
        for name in path.split("/"):
            if not isinstance(found, Mapping):
                raise ValueError(f"{self.run}: there are no figures at {path}; the results are of another form.")
            if name not in found:
                return None
            found = found[name]
        if not isinstance(found, Mapping) or not isinstance(found.get("seeds"), Sequence) or not found["seeds"]:
            raise ValueError(f"{self.run}: there are no figures of seeds at {path}; the results are of another form.")
        return found

    def seeds(self, report: Mapping[str, Any], row: str, measure: Measure) -> list[float] | None:
        """Figures of one cell, one for every seed. None and raises as `found`."""
        found = self.found(report, row, measure)
        return None if found is None else [float(each) for each in found["seeds"]]


@dataclass(frozen=True)
class Claim:
    """A system, the question that is asked of it here, and the tables that answer it."""

    title: str
    question: str
    trials: tuple[Trial, ...]

    @property
    def runs(self) -> tuple[str, ...]:
        """Names of the runs, each once."""
        return tuple(dict.fromkeys(trial.run for trial in self.trials))


def _against(own: str, others: Sequence[str], first: str, *measures: str) -> tuple[Comparison, ...]:
    """``own`` against each of the others; it is ``first`` that decides, by these measures (or by all), and only by them."""
    found = []
    for other in others:
        if other != first:
            found.append(Comparison(own, other))
        elif measures:
            found += [Comparison(own, other, (measure,), True) for measure in measures]
        else:
            found.append(Comparison(own, other, (), True))
    return tuple(found)


NOISE = ("10", "5", "0", "-5", "-10")
_WORDS = tuple(Measure(name, measure + ", %") for name, measure in self_supervised.MEASURES.items())
_TEXT = (Measure("asr", "WER, %"), Measure("st", "BLEU", higher=True))


def _unpaired(system: str) -> Trial:
    """SpeechLM and SpeechUT are measured by one run."""
    comparisons = (
        Comparison("with", "without", ("asr",), True),
        Comparison("with", "without", ("st",)),
        Comparison("with", "scratch"),
    )
    title = "Recognition from 300 transcripts and translation into German, on held-out sentences"
    return Trial("unpaired_text", title, "pre-training", f"results/{system}/{{row}}/{{measure}}", unpaired_text.STARTS, _TEXT, comparisons)


def _targets(test: str, decides: bool) -> Trial:
    """MT4SSL and its halves on one of their two tests."""
    comparisons = (
        Comparison("mt4ssl", "hubert", ("wer_lexicon",), decides),
        Comparison("mt4ssl", "data2vec", ("wer_lexicon",), decides),
        Comparison("mt4ssl", "scratch", ("wer_lexicon",)),
        *(Comparison("mt4ssl", other, ("cer",)) for other in ("hubert", "data2vec", "scratch")),
    )
    title = self_supervised.TESTS[test][0].upper() + self_supervised.TESTS[test][1:]
    return Trial(
        "self_supervised", title, "pre-training", f"results/{test}/{{row}}/{{measure}}", self_supervised.TITLES, _WORDS, comparisons
    )


def _stages() -> Trial:
    """First and second stages of Multi-Stage."""
    random, none = multistage.SCRATCH, multistage.NONE
    rows = {
        f"{start}/{middle}": f"{multistage.STARTS[start]}; {'no mid-training' if middle == none else 'then ' + multistage.MIDDLES[middle]}"
        for start in multistage.STARTS
        for middle in multistage.MIDDLES
    }
    comparisons = (
        Comparison(f"av_mae/{none}", f"{random}/{none}", (), True),
        Comparison("av_mae/italian", f"av_mae/{none}", (), True),
        Comparison(f"av_mae/{none}", f"audio_mae/{none}"),
        Comparison(f"av_mae/{none}", f"av_clr/{none}"),
        Comparison(f"av_clr/{none}", f"{random}/{none}"),
        Comparison(f"both/{none}", f"{random}/{none}"),
        Comparison("av_mae/german", f"av_mae/{none}"),
        Comparison("av_mae/italian", "av_mae/german"),
        Comparison("av_mae/italian", f"{random}/{none}"),
    )
    title = "Recognition from sound alone, unseen speakers"
    return Trial("multistage", title, "first and second stage", "results/{row}/{measure}", rows, (Measure("wer", "WER, %"),), comparisons)


_KINDS = Trial(
    "lips_and_text",
    "WER in % by what is given, fine-tuned on 300 transcripts of clips with lips, unseen speakers",
    "pre-training",
    "results/{row}/{measure}",
    lips_and_text.TITLES,
    tuple(Measure(path, title) for path, title in lips_and_text.MEASURES.items()),
    (
        Comparison("vatlm", "avhubert", ("v/clean",), True),
        Comparison("vatlm", "avhubert", ("av/clean",), True),
        Comparison("vatlm", "avhubert", ("a/clean", "av/0")),
        Comparison("vatlm", "sound"),
        Comparison("sound", "avhubert"),
        Comparison("vatlm", "scratch"),
    ),
)
_START = Trial(
    "quickstart",
    "Fine-tuning on few transcripts, pre-trained and from scratch (clean, and at 0 dB of babble)",
    "start",
    "results/start/{row}/{measure}",
    {"pretrained": "pre-trained", "scratch": "from scratch"},
    (
        Measure("a/clean", "sound, WER, %"),
        Measure("v/clean", "lips, WER, %"),
        Measure("av/clean", "both, WER, %"),
        Measure("av/0", "both at 0 dB, WER, %"),
    ),
    (Comparison("pretrained", "scratch"),),
)
_LIPS = Trial(
    "quickstart",
    "WER in % of one model in babble of other speakers, by what it is given",
    "input",
    "results/noise/{row}/{measure}",
    {"a": "sound", "v": "lips", "av": "both"},
    (Measure("clean", "clean"), *(Measure(snr, f"{snr} dB") for snr in NOISE)),
    (
        Comparison("av", "a", ("0",), True),
        Comparison("av", "a", ("clean", "10", "5", "-5", "-10")),
        Comparison("av", "v", ("clean", "-10")),
    ),
)
_SPOKEN = Trial(
    "spoken_ablation",
    "Fine-tuning for recognition, voice conversion and speaker identification after pre-training as a whole, in part, and none",
    "pre-training",
    "results/{row}/{measure}",
    spoken_ablation.TITLES,
    tuple(
        Measure(task, title, higher=task == "sid", digits=2 if task == "vc" else 1) for task, (*_, title) in spoken_ablation.TASKS.items()
    ),
    _against("whole", [name for name in spoken_ablation.TITLES if name != "whole"], spoken_ablation.SCRATCH, *spoken_ablation.TASKS),
)
_SPEAKING = Trial(
    "speaking",
    "WER in % of who writes down the reader's recordings, and speech that is synthesised from the same unseen sentences",
    "understood by",
    "results/wer/{row}/{measure}",
    {"avtlm": "the recogniser made in the run", "whisper": "Whisper tiny.en"},
    (Measure("recorded", "recorded"), Measure("synthesised", "synthesised")),
)
_MANDARIN = Trial(
    "mandarin",
    "Characters of held-out sentences",
    "pre-training",
    "results/{row}/{measure}",
    mandarin.TITLES,
    tuple(Measure(name, title) for name, title in mandarin.TESTS.items()),
    _against("whole", [name for name in mandarin.TITLES if name != "whole"], mandarin.SCRATCH, "labelled", "others"),
)
_TEACHERS = Trial(
    "one_encoder",
    "Digits, sounds and speakers by one encoder",
    "student",
    "results/{row}/{measure}",
    one_encoder.TITLES,
    tuple(Measure(name, title, higher=name == "map") for name, title in one_encoder.MEASURES.items()),
    tuple(Comparison("distilled", "scratch", (measure,), True) for measure in one_encoder.MEASURES),
)

_SUPERB = Trial(
    "superb_speechlm",
    "Four tasks of SUPERB in miniature, by the frozen encoders of these pre-trainings and small heads",
    "features",
    "results/{row}/{measure}",
    {"speechlm_with": "speech and text", "speechlm_without": "speech alone", "FBANK": "filter banks"},
    (
        Measure("PR/PER", "phonemes: PER, %"),
        Measure("ASR/WER", "words: WER, %"),
        Measure("KS/accuracy", "keywords: accuracy, %", higher=True),
        Measure("SID/accuracy", "speakers: accuracy, %", higher=True),
    ),
    (
        Comparison("speechlm_with", "speechlm_without", ("PR/PER", "ASR/WER")),
        Comparison("speechlm_with", "FBANK", ("PR/PER", "ASR/WER", "KS/accuracy")),
    ),
)

CLAIMS: dict[str, Claim] = {
    "vatlm": Claim("VATLM", "Do text, and sound without lips, in pre-training lower word errors?", (_KINDS, _START)),
    "avhubert": Claim("AV-HuBERT", "Do lips lower word errors in noise?", (_LIPS,)),
    "speecht5": Claim("SpeechT5", "Does each part of pre-training on unpaired speech and text help every task?", (_SPOKEN, _SPEAKING)),
    "speechlm": Claim("SpeechLM", "Does unpaired text in pre-training lower word errors?", (_unpaired("speechlm"), _SUPERB)),
    "speechut": Claim("SpeechUT", "Does unpaired text in pre-training lower word errors?", (_unpaired("speechut"),)),
    "mmspeech": Claim("MMSpeech", "Do five tasks on speech, text and pairs lower character errors?", (_MANDARIN,)),
    "mt4ssl": Claim("MT4SSL", "Are two kinds of targets better than either?", (_targets("digits", True), _targets("commands", False))),
    "mt2kd": Claim("MT2KD", "Is an encoder that learned from three teachers better than one from scratch?", (_TEACHERS,)),
    "multistage": Claim("Multi-Stage", "Do audio-visual pre-training and then translation lower word errors?", (_stages(),)),
}
