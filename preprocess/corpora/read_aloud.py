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

import argparse
import dataclasses
import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from avtlm.data.manifest import Manifest, Utterance, write_manifest
from avtlm.data.media import write_wav
from avtlm.data.seeds import seed_for
from avtlm.training.progress import bar
from preprocess.corpora.recipe import claim
from preprocess.pool import Crash, run_tasks
from preprocess.synthesis import espeak
from preprocess.synthesis.espeak import Voice, speak
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
SPLITS = ("train", "valid", "test")


@dataclass(frozen=True)
class Reading:
    """One sentence in one voice, to be made."""

    part: str
    id: str
    speaker: str
    voice: Voice
    split: str
    tale: Tale
    out: Path
    seed: int
    extra: tuple[tuple[str, str], ...] = ()


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
    count = (os.cpu_count() or 1) if workers is None else workers
    shares = [readings[start : start + 20] for start in range(0, len(readings), 20)]
    rows: dict[str, list[Utterance]] = {"text": texts}
    with bar("reading aloud", len(readings)) as progress:
        for index, made in run_tasks(_read, shares, _no_preparation, count):
            if isinstance(made, Crash):
                raise RuntimeError(f"{folder}: reading {shares[index][0].id} and those after it failed: {made.reason}.")
            for part, row in made:
                rows.setdefault(part, []).append(row)
            progress.advance(len(made))
    for part, found in rows.items():
        write_manifest(folder / part / "manifest.jsonl", Manifest(folder / part, tuple(sorted(found, key=lambda row: row.id))))
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
        readings.append(_reading("unpaired", f"unpaired_{index:06d}", who, "train", next(tales), out, seed))
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
    part: str, name: str, who: tuple[str, Voice], split: str, tale: Tale, out: Path, seed: int, extra: tuple[tuple[str, str], ...] = ()
) -> Reading:
    return Reading(part, name, *who, split, tale, out, seed, extra)


def _no_preparation() -> None:
    """Workers need none."""


def _read(_: None, share: list[Reading]) -> list[tuple[str, Utterance]]:
    return [(reading.part, _row(reading)) for reading in share]


def _row(reading: Reading) -> Utterance:
    """Say a sentence in its voice, a little faster or slower, higher or lower, and write it."""
    rng = np.random.default_rng(seed_for(reading.seed, "reading", reading.part, reading.id))
    own = dataclasses.replace(
        reading.voice,
        rate=round(reading.voice.rate * rng.uniform(0.97, 1.03)),
        pitch=int(np.clip(reading.voice.pitch + rng.integers(-3, 4), 0, 99)),
    )
    speech = speak(reading.tale.english, own, lead=0.1, tail=0.15, seed=int(rng.integers(2**31)))
    name = f"audio/{reading.id}.wav"
    if not (reading.out / reading.part / name).exists():
        write_wav(reading.out / reading.part / name, speech.wave)
    extra: dict[str, Any] = dict(reading.extra)
    transcript: str | None = None
    if reading.part != "unpaired":
        transcript = reading.tale.english
        extra["translation"] = reading.tale.german
    phones = " ".join(f"{phone.symbol}:{phone.start:.4f}:{phone.end:.4f}" for phone in speech.phones)
    return Utterance(
        reading.id,
        audio=name,
        audio_samples=len(speech.wave),
        transcript=transcript,
        speaker=reading.speaker,
        split=reading.split,
        phones=phones,
        extra=extra,
    )


def main(arguments: list[str] | None = None) -> int:
    """The command ``python -m preprocess.corpora.read_aloud``."""
    parser = argparse.ArgumentParser(
        prog="python -m preprocess.corpora.read_aloud", description="Have sentences read aloud by synthetic voices."
    )
    parser.add_argument("--out", required=True, metavar="DIR", help="folder of the corpus")
    parser.add_argument("--size", choices=list(SIZES), default="default", help="36, 1,680 or 6,600 sentences of the reader")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--workers", type=int, metavar="N", help="processes (default: one for each core)")
    options = parser.parse_args(arguments)
    try:
        folder = generate(options.out, options.size, options.seed, options.workers)
    except (ValueError, ImportError, OSError, RuntimeError) as error:
        print(f"read_aloud: {error}", file=sys.stderr)
        return 1
    print(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
