"""Speech for the miniature SUPERB: synthetic voices say commands, keywords, sentences of another language and feelings, made on the spot.

One pool of commands ("place blue at f nine now") in many voices serves most tasks, and is heard once: phones (PR), words (ASR),
a toy German (ST), intents (IC), slots (SF), speakers (SID, ASV), recordings to be searched (QbE), and what mixtures are made of. Voices of
dev and test are heard in no training, but where speakers are to be named. What stands for what is no more than that:

- an "emotion" (ER) is a setting of the synthesiser: pitch, its range, rate and loudness; nobody feels anything;
- an "intent" (IC) is the verb, the colour and the preposition of a command; slots (SF) are its colour, place and time;
- the other domain (OOD-ASR) is Spanish numerals;
- the translations (ST) go word by word (toy_languages.py).
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from avtlm.data.manifest import Utterance, read_manifest
from avtlm.data.media import read_audio, write_wav
from avtlm.data.seeds import seed_for
from benchmarks.toy_languages import translate
from preprocess.corpora.speech_commands import SILENCE, TEN, UNKNOWN
from preprocess.corpora.voicing import Reading, say_all
from preprocess.superb.folder import Prepared, Row, write_folder
from preprocess.synthesis.espeak import Voice
from preprocess.synthesis.sentences import GRAMMAR, distinct, spoken
from preprocess.synthesis.voices import VARIANTS, draw_voices

SPLITS = {"train": "train", "valid": "dev", "test": "test"}  # of readings -> of the benchmark
OTHERS = ("house", "tree", "bird", "happy", "marvin", "wow", "seven", "three", "dog", "bed")  # words that are no keyword
NUMERALS = ("cero", "uno", "dos", "tres", "cuatro", "cinco", "seis", "siete", "ocho", "nueve", "diez", "once", "doce", "trece", "catorce")
FOLDS = 5
# Rate, pitch, range of pitch (added to the voice's own) and loudness.
FEELINGS = {"neutral": (0, 0, 0, 1.0), "happy": (20, 18, 40, 1.2), "angry": (30, -8, 20, 2.0), "sad": (-40, -12, -30, 0.5)}


@dataclass(frozen=True)
class Size:
    """How much there is, of voices and their clips in the order of train, dev and test.

    Attributes:
        voices: drawn for each split.
        commands: of each voice.
        named: further commands of the voices of training, for dev and test of SID.
        unknown: words that are no keyword, of each voice; silence is as frequent as one keyword.
        foreign: sentences of each of the Spanish voices, of which there are as many as ``voices``.
        feelings: sentences of each feeling, voice and fold; ``actors`` voices in a fold.
        queries: phrases of dev, and of test.
        mixtures: for SD, SS and SE, each.
        trials: of ASV.
    """

    voices: tuple[int, int, int]
    commands: tuple[int, int, int]
    named: int
    unknown: int
    foreign: tuple[int, int, int]
    feelings: int
    actors: int
    queries: int
    mixtures: tuple[int, int, int]
    trials: int


SIZES = {
    "smoke": Size((3, 2, 2), (8, 2, 2), 1, 1, (2, 2, 2), 1, 1, 2, (3, 2, 2), 8),
    "small": Size((20, 4, 8), (16, 10, 10), 3, 2, (12, 6, 6), 4, 2, 12, (160, 24, 40), 600),
}


class Speech:
    """Everything that is said, below ``folder``, and the folders of the tasks that need nothing else.

    Args:
        folder: parts of what is said go to ``said/``, tasks into folders of their names.
    """

    def __init__(self, folder: Path, size: Size, seed: int) -> None:
        self.folder, self.size, self.seed = folder, size, seed
        held_out = size.voices[1] + size.voices[2]
        aside, training = draw_voices(held_out, size.voices[0], np.random.default_rng(seed_for(seed, "voices")))
        self.voices = {"train": training, "valid": aside[: size.voices[1]], "test": aside[size.voices[1] :]}

    def say(self, workers: int | None) -> None:
        """Make the sound, or what is missing of it."""
        readings = [*self._commands(), *self._keywords(), *self._foreign(), *self._feelings(), *self._queries()]
        say_all(self.folder / "said", readings, {}, workers)

    def rows(self, part: str, split: str | None = None) -> list[Utterance]:
        """What was said of a part."""
        manifest = read_manifest(self.folder / "said" / part / "manifest.jsonl")
        return [row for row in manifest if split in (None, row.split)]

    def wave(self, part: str, row: Utterance) -> np.ndarray:
        """(samples,) float32 at 16 kHz."""
        assert row.audio is not None
        return read_audio(self.folder / "said" / part / row.audio)

    # Who says what ------------------------------------------------------------------------------------------------------------------------

    def _who(self, split: str) -> list[tuple[str, Voice]]:
        return [(f"{split}{number:02d}", voice) for number, voice in enumerate(self.voices[split])]

    def _reading(self, part: str, name: str, who: tuple[str, Voice], split: str, text: str, **columns: Any) -> Reading:
        return Reading(part, name, *who, split, text, self.folder / "said", self.seed, tuple(columns.items()))

    def _commands(self) -> Iterable[Reading]:
        size = self.size
        counts = dict(zip(SPLITS, size.commands, strict=True))
        total = sum(len(self.voices[split]) * counts[split] for split in SPLITS) + 2 * size.named * len(self.voices["train"])
        texts = iter(distinct("command", total, np.random.default_rng(seed_for(self.seed, "commands"))))
        for split in SPLITS:
            for who in self._who(split):
                for number in range(counts[split]):
                    yield self._reading("commands", f"{who[0]}_{number:03d}", who, split, spoken(next(texts)))
        for split in ("valid", "test"):
            for who in self._who("train"):
                for number in range(size.named):
                    yield self._reading("named", f"{who[0]}_{split}_{number:03d}", who, split, spoken(next(texts)))

    def _keywords(self) -> Iterable[Reading]:
        for split in SPLITS:
            for who in self._who(split):
                rng = np.random.default_rng(seed_for(self.seed, "unknown", who[0]))
                others = [OTHERS[int(place)] for place in rng.permutation(len(OTHERS))[: self.size.unknown]]
                for word in (*TEN, *others):
                    yield self._reading("keywords", f"{who[0]}_{word}", who, split, word)

    def _foreign(self) -> Iterable[Reading]:
        rng = np.random.default_rng(seed_for(self.seed, "foreign"))
        variants = [VARIANTS[int(place)] for place in rng.permutation(len(VARIANTS))]
        for split, voices, count in zip(SPLITS, self.size.voices, self.size.foreign, strict=True):
            for place in range(voices):
                voice = Voice(f"es+{variants.pop()}", int(rng.integers(125, 175)), int(rng.integers(25, 80)), int(rng.integers(20, 80)))
                for number in range(count):
                    text = " ".join(NUMERALS[int(word)] for word in rng.integers(0, len(NUMERALS), int(rng.integers(3, 6))))
                    yield self._reading("foreign", f"{split}{place:02d}_{number:03d}", (f"es_{split}{place:02d}", voice), split, text)

    def _feelings(self) -> Iterable[Reading]:
        actors, _ = draw_voices(FOLDS * self.size.actors, 1, np.random.default_rng(seed_for(self.seed, "actors")))
        rng = np.random.default_rng(seed_for(self.seed, "feelings"))
        for place, own in enumerate(actors):
            for feeling, (rate, pitch, spread, _) in FEELINGS.items():
                voice = replace(own, rate=150 + rate, pitch=_between(own.pitch + pitch), pitch_range=_between(45 + spread))
                for number, text in enumerate(distinct("command", self.size.feelings, rng)):
                    name = f"actor{place:02d}_{feeling}_{number:02d}"
                    yield self._reading(
                        "feelings",
                        name,
                        (f"actor{place:02d}", voice),
                        "train",
                        spoken(text),
                        feeling=feeling,
                        fold=place // self.size.actors + 1,
                    )

    def _queries(self) -> Iterable[Reading]:
        """Two words that follow each other: verb and colour, or digit and adverb; of dev and test others, said by voices of training."""
        pairs = [f"{first} {second}" for one, other in ((0, 1), (4, 5)) for first in GRAMMAR[one] for second in GRAMMAR[other]]
        rng = np.random.default_rng(seed_for(self.seed, "queries"))
        said = {row for row in self._documents()}
        held = [pair for pair in (pairs[int(place)] for place in rng.permutation(len(pairs))) if any(pair in text for text in said)]
        who = self._who("train")
        for split in ("valid", "test"):
            for number in range(self.size.queries):
                if not held:
                    return
                yield self._reading("queries", f"{split}_{number:02d}", who[number % len(who)], split, held.pop())

    def _documents(self) -> list[str]:
        return [reading.text.lower() for reading in self._commands() if reading.part == "commands" and reading.split != "train"]

    # Tasks --------------------------------------------------------------------------------------------------------------------------------

    def write(self) -> None:
        """The folders of all tasks but mixtures."""
        commands = {SPLITS[split]: self.rows("commands", split) for split in SPLITS}
        named = {"train": commands["train"], **{SPLITS[split]: self.rows("named", split) for split in ("valid", "test")}}
        self._task("PR", commands, lambda row: {"phones": _phones(row)})
        self._task("ASR", commands, lambda row: {"text": _text(row).upper()})
        self._task("ST", commands, lambda row: {"text": _text(row), "translation": translate(_text(row), "german")})
        self._task("IC", commands, lambda row: {"labels": _text(row).split()[:3]})
        self._task("SF", commands, lambda row: {"text": slots_of(_text(row))})
        self._task("SID", named, lambda row: {"label": row.speaker}, part_of=lambda split: "commands" if split == "train" else "named")
        foreign = {SPLITS[split]: self.rows("foreign", split) for split in SPLITS}
        self._task("OOD-ASR", foreign, lambda row: {"text": _text(row).upper()}, part_of=lambda _: "foreign", name="Spanish numerals")
        self._verification(commands)
        self._spotting()
        self._emotions()
        self._search()

    def _task(
        self, task: str, rows: Mapping[str, Sequence[Utterance]], fields: Any, part_of: Any = lambda _: "commands", name: str = "commands"
    ) -> None:
        lists = {split: [clip(row, part_of(split), **fields(row)) for row in found] for split, found in rows.items()}
        write_folder(self.folder / task, task, f"miniature: {name}", Prepared(lists))

    def _verification(self, commands: Mapping[str, Sequence[Utterance]]) -> None:
        """As many trials of one speaker as of two, in a drawn order."""
        rng = np.random.default_rng(seed_for(self.seed, "trials"))
        tested = list(commands["test"])
        pairs = [(one, other) for place, one in enumerate(tested) for other in tested[place + 1 :]]
        same = [pair for pair in pairs if pair[0].speaker == pair[1].speaker]
        different = [pair for pair in pairs if pair[0].speaker != pair[1].speaker]
        count = min(self.size.trials // 2, len(same), len(different))
        trials = [
            f"{label} {group[int(place)][0].id} {group[int(place)][1].id}"
            for label, group in ((1, same), (0, different))
            for place in rng.permutation(len(group))[:count]
        ]
        lists = {split: [clip(row, "commands", label=row.speaker) for row in commands[split]] for split in ("train", "test")}
        write_folder(self.folder / "ASV", "ASV", "miniature: commands", Prepared(lists, trials))

    def _spotting(self) -> None:
        lists: dict[str, list[Row]] = {}
        for split, own in SPLITS.items():
            rows = self.rows("keywords", split)
            words = [(row, _text(row)) for row in rows]
            lists[own] = [clip(row, "keywords", label=word if word in TEN else UNKNOWN) for row, word in words]
            for number in range(len(self.voices[split])):
                lists[own].append({"id": f"silence_{number:03d}", "audio": self._silence(split, number), "label": SILENCE})
        write_folder(self.folder / "KS", "KS", "miniature: keywords", Prepared(lists))

    def _silence(self, split: str, number: int) -> str:
        """Faint noise, white to brown."""
        rng = np.random.default_rng(seed_for(self.seed, "silence", split, number))
        wave = coloured_noise(int(rng.uniform(0.6, 1.0) * 16000), float(rng.uniform(0, 2)), rng)
        name = f"silence/{split}_{number:03d}.wav"
        write_wav(self.folder / "KS" / name, (wave * rng.uniform(0.0005, 0.01)).astype(np.float32))
        return name

    def _emotions(self) -> None:
        rows = []
        for row in self.rows("feelings"):
            loud = FEELINGS[row.extra["feeling"]][3]
            name = f"audio/{row.id}.wav"
            write_wav(self.folder / "ER" / name, np.clip(loud * self.wave("feelings", row), -1, 1).astype(np.float32))
            rows.append({"id": row.id, "audio": name, "speaker": row.speaker, "label": row.extra["feeling"], "fold": row.extra["fold"]})
        write_folder(self.folder / "ER", "ER", "miniature: settings of prosody", Prepared({"train": rows}))

    def _search(self) -> None:
        documents = [row for split in ("valid", "test") for row in self.rows("commands", split)]
        queries = self.rows("queries")
        relevance = [
            {"query": query.id, "document": document.id, "split": SPLITS[query.split or ""]}
            for query in queries
            for document in documents
            if _text(query) in _text(document)
        ]
        asked = [clip(row, "queries", split=SPLITS[row.split or ""]) for row in queries]
        lists = {"queries": asked, "documents": [clip(row, "commands") for row in documents], "relevance": relevance}
        write_folder(self.folder / "QbE", "QbE", "miniature: phrases in commands", Prepared(lists))


def clip(row: Utterance, part: str, **fields: Any) -> Row:
    """A row of a task's list, beside ``said/``."""
    return {"id": row.id, "audio": f"../said/{part}/{row.audio}", "speaker": row.speaker, **fields}


def slots_of(command: str) -> str:
    """A command in upper case with the marks of its slots: colour, place (letter and digit), time."""
    verb, colour, preposition, letter, digit, adverb = command.upper().split()
    return f"{verb} B-colour {colour} E-colour {preposition} B-place {letter} {digit} E-place B-time {adverb} E-time"


def coloured_noise(samples: int, slope: float, rng: np.random.Generator) -> np.ndarray:
    """(samples,) of unit RMS whose power falls with the ``slope``-th power of the frequency: 0 is white, 1 pink, 2 brown."""
    spectrum = np.fft.rfft(rng.standard_normal(samples))
    spectrum /= np.maximum(np.fft.rfftfreq(samples), 1 / samples) ** (slope / 2)
    spectrum[0] = 0
    wave = np.fft.irfft(spectrum, samples)
    return np.asarray(wave / np.sqrt(np.mean(wave**2)), np.float32)


def _between(value: float) -> int:
    return int(np.clip(value, 0, 99))


def _text(row: Utterance) -> str:
    assert row.transcript is not None
    return row.transcript.lower()


def _phones(row: Utterance) -> list[str]:
    """Symbols without silence."""
    symbols = [phone.split(":")[0] for phone in (row.phones or "").split()]
    return [symbol for symbol in symbols if symbol != "sil"]
