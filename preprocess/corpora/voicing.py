"""Sentences said by synthetic voices, as parts of a corpus with a manifest each: what all corpora that are read aloud have in common.

Every sentence is said a little faster or slower, higher or lower than the voice is by itself. What is drawn for one depends on the seed,
its part and its id alone, so that the same seed gives the same files on any number of workers; files that are there stay as they are.
"""

import argparse
import dataclasses
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from avtlm.data.manifest import Manifest, Utterance, write_manifest
from avtlm.data.media import write_wav
from avtlm.data.seeds import seed_for
from avtlm.training.progress import bar
from preprocess.pool import Crash, run_tasks
from preprocess.synthesis.espeak import Voice, speak

SPLITS = ("train", "valid", "test")
SHARE = 20  # sentences that a worker takes at once


@dataclass(frozen=True)
class Reading:
    """One sentence in one voice, to be made.

    Attributes:
        part: folder of the corpus.
        text: what is said.
        out: folder of the corpus.
        columns: what else its row knows, for ``extra``.
        transcribed: its row says the text; otherwise it is sound alone.
    """

    part: str
    id: str
    speaker: str
    voice: Voice
    split: str
    text: str
    out: Path
    seed: int
    columns: tuple[tuple[str, str], ...] = ()
    transcribed: bool = True


def say_all(folder: Path, readings: Sequence[Reading], texts: Mapping[str, Sequence[Utterance]], workers: int | None) -> None:
    """Make the sound of all sentences, or what is missing of it, and the manifests of all parts.

    Args:
        texts: by part, rows that nobody says.
        workers: processes; None for one for each core. 0 works in this process.

    Raises:
        RuntimeError: a worker died.
    """
    count = (os.cpu_count() or 1) if workers is None else workers
    shares = [readings[start : start + SHARE] for start in range(0, len(readings), SHARE)]
    rows: dict[str, list[Utterance]] = {part: list(found) for part, found in texts.items()}
    with bar("reading aloud", len(readings)) as progress:
        for index, made in run_tasks(_read, shares, _no_preparation, count):
            if isinstance(made, Crash):
                raise RuntimeError(f"{folder}: reading {shares[index][0].id} and those after it failed: {made.reason}.")
            for part, row in made:
                rows.setdefault(part, []).append(row)
            progress.advance(len(made))
    for part, found in rows.items():
        write_manifest(folder / part / "manifest.jsonl", Manifest(folder / part, tuple(sorted(found, key=lambda row: row.id))))


def _no_preparation() -> None:
    """Workers need none."""


def _read(_: None, share: Sequence[Reading]) -> list[tuple[str, Utterance]]:
    return [(reading.part, _row(reading)) for reading in share]


def _row(reading: Reading) -> Utterance:
    """Say a sentence in its voice, a little faster or slower, higher or lower, and write it."""
    rng = np.random.default_rng(seed_for(reading.seed, "reading", reading.part, reading.id))
    own = dataclasses.replace(
        reading.voice,
        rate=round(reading.voice.rate * rng.uniform(0.97, 1.03)),
        pitch=int(np.clip(reading.voice.pitch + rng.integers(-3, 4), 0, 99)),
    )
    speech = speak(reading.text, own, lead=0.1, tail=0.15, seed=int(rng.integers(2**31)))
    name = f"audio/{reading.id}.wav"
    if not (reading.out / reading.part / name).exists():
        write_wav(reading.out / reading.part / name, speech.wave)
    return Utterance(
        reading.id,
        audio=name,
        audio_samples=len(speech.wave),
        transcript=reading.text if reading.transcribed else None,
        speaker=reading.speaker,
        split=reading.split,
        phones=" ".join(f"{phone.symbol}:{phone.start:.4f}:{phone.end:.4f}" for phone in speech.phones),
        extra=dict(reading.columns),
    )


def command(
    name: str,
    summary: str,
    sizes: Mapping[str, str],
    generate: Callable[[Path, str, int, int | None], Path],
    arguments: Sequence[str] | None,
) -> int:
    """The command ``python -m preprocess.corpora.NAME``.

    Args:
        sizes: how much there is of each, in words; ``default`` is the usual one.
        generate: given a folder, a size, a seed and workers, makes the corpus.

    Returns:
        The exit code: 0 done, 1 if it cannot be made.
    """
    parser = argparse.ArgumentParser(prog=f"python -m preprocess.corpora.{name}", description=summary)
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="folder of the corpus")
    parser.add_argument("--size", choices=list(sizes), default="default", help="; ".join(f"{size}: {what}" for size, what in sizes.items()))
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--workers", type=int, metavar="N", help="processes (default: one for each core)")
    options = parser.parse_args(arguments)
    try:
        folder = generate(options.out, options.size, options.seed, options.workers)
    except (ValueError, ImportError, OSError, RuntimeError) as error:
        print(f"{name}: {error}", file=sys.stderr)
        return 1
    print(folder)
    return 0
