"""Sentences read aloud by one synthetic voice, and the same ones by others: the corpus for models that write speech.

    python -m preprocess.corpora.read_aloud --out DIR [--size smoke|default|long] [--seed N]

Text and speech are in five parts, each a folder with a manifest; no sentence stands in two splits or two parts but where it says so:

- ``reader/``: one voice with transcripts, and translations into German: recognition, synthesis, translation;
- ``others/``: other voices, some of which are heard in no other split. A row names the reader's clip of the same sentence as its
  ``target``: voice conversion; and its speaker: speaker identification (``named/`` has further sentences of the voices of train);
- ``named/``: more of the voices of ``others/`` that train on, in all splits, since a voice that is to be named has to be known;
- ``unpaired/``: many voices without transcripts, for pre-training;
- ``text/``: sentences that nobody says, for pre-training and language models.

The same seed gives the same files on any number of workers.
"""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from avtlm.data.manifest import Utterance
from avtlm.data.seeds import seed_for
from preprocess.corpora.recipe import claim
from preprocess.corpora.voicing import SPLITS, Reading, command, say_all
from preprocess.synthesis import espeak
from preprocess.synthesis.espeak import Voice
from preprocess.synthesis.tales import Tale, distinct_tales
from preprocess.synthesis.voices import draw_voices

READER = Voice("en-us+adam", 150, 45, 45)
VERSION = 1


@dataclass(frozen=True)
class Size:
    """How many sentences each part has; of the reader and the voices in the order of train, valid and test.

    Attributes:
        reader: sentences.
        voices: known ones, then those of valid and of test alone.
        each: sentences of each of ``others/`` in each split.
        named: sentences of each known voice in each split.
    """

    reader: tuple[int, int, int]
    voices: tuple[int, int, int]
    each: int
    named: tuple[int, int, int]
    unpaired: int
    text: int


SIZES = {
    "smoke": Size((24, 6, 6), (2, 1, 1), 4, (4, 2, 2), 24, 40),
    "default": Size((1500, 60, 120), (8, 2, 4), 30, (40, 5, 10), 1500, 10_000),
    "long": Size((6000, 200, 400), (24, 6, 12), 60, (80, 10, 20), 12_000, 100_000),
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
    claim(folder, {"corpus": "read_aloud", "size": size, "seed": seed, "version": VERSION}, ("reader", "text"))
    readings, texts = plan(folder, SIZES[size], seed)
    say_all(folder, readings, {"text": texts}, workers)
    return folder


def plan(out: Path, size: Size, seed: int) -> tuple[list[Reading], list[Utterance]]:
    """Who reads what, in a fixed order, and the sentences that nobody reads."""
    known, *held_out = size.voices
    spread = [known, known + held_out[0], known + held_out[0] + held_out[1]]
    count = sum(size.reader) + sum(size.named) * known + size.unpaired + size.text
    tales = iter(distinct_tales(count, np.random.default_rng(seed_for(seed, "tales"))))
    voices = _other_voices(known, sum(held_out), seed)
    readings: list[Reading] = []
    for number, split in enumerate(SPLITS):
        heard: list[Tale] = []
        for index in range(size.reader[number]):
            heard.append(next(tales))
            readings.append(_reading("reader", f"reader_{split}_{index:05d}", ("reader", READER), split, heard[-1], out, seed))
        first = 0 if number == 0 else spread[number - 1]
        for place in range(first, spread[number]):
            for index in range(min(size.each, len(heard))):
                chosen = (index + (place - first) * size.each) % len(heard)
                target = (("target", f"../reader/audio/reader_{split}_{chosen:05d}.wav"),)
                name = f"voice{place:02d}"
                readings.append(
                    _reading("others", f"{name}_{split}_{index:05d}", (name, voices[place]), split, heard[chosen], out, seed, target)
                )
        for place in range(known):
            for index in range(size.named[number]):
                name = f"voice{place:02d}"
                readings.append(_reading("named", f"{name}_{split}_{index:05d}", (name, voices[place]), split, next(tales), out, seed))
    for index in range(size.unpaired):
        place = index % (known + 1)
        who = ("reader", READER) if place == known else (f"voice{place:02d}", voices[place])
        readings.append(Reading("unpaired", f"unpaired_{index:06d}", *who, "train", next(tales).english, out, seed, transcribed=False))
    texts = [Utterance(f"text_{index:06d}", transcript=next(tales).english, split="train") for index in range(size.text)]
    return readings, texts


def _other_voices(known: int, held_out: int, seed: int) -> list[Voice]:
    """Voices to train on, then those that are not; the reader's is neither."""
    aside, training = draw_voices(held_out + 1, known + 1, np.random.default_rng(seed_for(seed, "voices")))
    aside, training = ([voice for voice in voices if _variant(voice) != _variant(READER)] for voices in (aside, training))
    return [*training[:known], *aside[:held_out]]


def _variant(voice: Voice) -> str:
    return voice.name.partition("+")[2]


def _reading(
    part: str, name: str, who: tuple[str, Voice], split: str, tale: Tale, out: Path, seed: int, columns: tuple[tuple[str, str], ...] = ()
) -> Reading:
    """With its translation behind what else is known of it."""
    return Reading(part, name, *who, split, tale.english, out, seed, (*columns, ("translation", tale.german)))


def main(arguments: Sequence[str] | None = None) -> int:
    """The command ``python -m preprocess.corpora.read_aloud``."""
    sizes = {name: f"{sum(size.reader):,} sentences of the reader" for name, size in SIZES.items()}
    return command("read_aloud", "Have sentences read aloud by synthetic voices.", sizes, generate, arguments)


if __name__ == "__main__":
    sys.exit(main())
