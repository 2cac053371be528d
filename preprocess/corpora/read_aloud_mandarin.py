"""Mandarin sentences read aloud by synthetic voices: the corpus for MMSpeech, which learns from speech, from texts and from few pairs.

    python -m preprocess.corpora.read_aloud_mandarin --out DIR [--size smoke|default|long] [--seed N]

Text and speech are in four parts, each a folder with a manifest; no sentence stands in two parts or two splits but where it says so:

- ``labelled/``: several voices with transcripts in characters, in all splits;
- ``others/``: the test sentences of ``labelled/``, said by voices that are heard nowhere else;
- ``unlabelled/``: the voices of ``labelled/`` without transcripts, for pre-training;
- ``text/``: sentences that nobody says, for pre-training.

Pinyin and phonemes stand beside all texts, under these names; ``phonemes.units`` in the folders of parts with texts holds the phonemes as
a source's keys ``units`` and ``phonemes`` take them (numbered as by avtlm.units.mandarin). The same seed gives the same files on any number
of workers.
"""

import dataclasses
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from avtlm.data.manifest import Utterance, read_manifest
from avtlm.data.seeds import seed_for
from avtlm.text.mandarin import PHONEMES
from avtlm.units.labels import write_labels
from preprocess.corpora.recipe import claim
from preprocess.corpora.voicing import SPLITS, Reading, command, say_all
from preprocess.synthesis import espeak
from preprocess.synthesis.espeak import Voice
from preprocess.synthesis.mandarin_tales import Phrase, distinct_tales
from preprocess.synthesis.voices import draw_voices

VERSION = 1
LANGUAGE = "cmn"
FASTER = 1.3  # than voices of English, in whose words a minute rates are given: three to five characters a second
LEAST_RANGE = 45  # of pitch, 0 to 99: tones of a flatter voice can hardly be told apart
WITH_TEXTS = ("labelled", "others", "text")


@dataclass(frozen=True)
class Size:
    """How many sentences each part has.

    Attributes:
        labelled: of train, valid and test.
        voices: that are heard in all splits, and those of ``others/``.
    """

    labelled: tuple[int, int, int]
    voices: tuple[int, int]
    unlabelled: int
    text: int


SIZES = {
    "smoke": Size((16, 4, 6), (2, 1), 16, 3000),  # in texts there are all characters, of which models make their vocabulary
    "default": Size((1200, 40, 100), (6, 2), 1500, 10_000),
    "long": Size((6000, 200, 400), (24, 8), 20_000, 200_000),
}


def generate(out: str | Path, size: str = "default", seed: int = 1, workers: int | None = None) -> Path:
    """Make the corpus, or what is missing of it.

    Args:
        out: folder for the parts and ``corpus.json`` (how it was made).
        size: ``smoke``, ``default`` or ``long``.
        workers: processes; default: one for each core. 0 works in this process.

    Returns:
        The folder.

    Raises:
        MissingExtra: eSpeak NG is not installed.
        ValueError: unknown size; or the folder holds a corpus that was made in another way.
        RuntimeError: a worker died.
    """
    if size not in SIZES:
        raise ValueError(f"size: {size!r} is unknown; choose one of {', '.join(SIZES)}.")
    espeak.require()
    folder = Path(out)
    claim(folder, {"corpus": "read_aloud_mandarin", "size": size, "seed": seed, "version": VERSION}, ("labelled", "text"))
    readings, texts = plan(folder, SIZES[size], seed)
    say_all(folder, readings, {"text": texts}, workers)
    numbers = {phoneme: number for number, phoneme in enumerate(PHONEMES)}
    for part in WITH_TEXTS:
        rows = read_manifest(folder / part)
        said = {row.id: np.array([numbers[phoneme] for phoneme in row.extra["phonemes"].split()], dtype=np.int32) for row in rows}
        write_labels(folder / part / "phonemes.units", said)
    return folder


def plan(out: Path, size: Size, seed: int) -> tuple[list[Reading], list[Utterance]]:
    """Who reads what, in a fixed order, and the sentences that nobody reads."""
    count = sum(size.labelled) + size.unlabelled + size.text
    tales = iter(distinct_tales(count, np.random.default_rng(seed_for(seed, "tales"))))
    known, aside = _voices(size.voices, seed)
    readings: list[Reading] = []
    for split, many in zip(SPLITS, size.labelled, strict=True):
        heard = [next(tales) for _ in range(many)]
        speakers = [(known, "voice", "labelled"), *([(aside, "other", "others")] if split == "test" else [])]
        for voices, kind, part in speakers:
            for index, tale in enumerate(heard):
                place = index % len(voices)
                who = f"{kind}{place:02d}", voices[place]
                readings.append(Reading(part, f"{part}_{split}_{index:05d}", *who, split, tale.text, out, seed, columns(tale)))
    for index in range(size.unlabelled):
        place = index % len(known)
        who, name = (f"voice{place:02d}", known[place]), f"unlabelled_{index:06d}"
        readings.append(Reading("unlabelled", name, *who, "train", next(tales).text, out, seed, transcribed=False))
    texts = []
    for index in range(size.text):
        tale = next(tales)
        texts.append(Utterance(f"text_{index:06d}", transcript=tale.text, split="train", extra=dict(columns(tale))))
    return readings, texts


def columns(tale: Phrase) -> tuple[tuple[str, str], ...]:
    """What a row knows of its sentence besides its characters."""
    return ("pinyin", " ".join(tale.pinyin)), ("phonemes", " ".join(tale.phonemes))


def _voices(counts: tuple[int, int], seed: int) -> tuple[list[Voice], list[Voice]]:
    """Those of all splits and those that are set aside, in Mandarin."""
    aside, known = draw_voices(counts[1], counts[0], np.random.default_rng(seed_for(seed, "voices")))
    return [_mandarin(voice) for voice in known], [_mandarin(voice) for voice in aside]


def _mandarin(voice: Voice) -> Voice:
    name = f"{LANGUAGE}+{voice.name.partition('+')[2]}"
    return dataclasses.replace(voice, name=name, rate=round(FASTER * voice.rate), pitch_range=max(voice.pitch_range, LEAST_RANGE))


def main(arguments: Sequence[str] | None = None) -> int:
    """The command ``python -m preprocess.corpora.read_aloud_mandarin``."""
    sizes = {name: f"{sum(size.labelled):,} sentences with text" for name, size in SIZES.items()}
    return command("read_aloud_mandarin", "Have Mandarin sentences read aloud by synthetic voices.", sizes, generate, arguments)


if __name__ == "__main__":
    sys.exit(main())
