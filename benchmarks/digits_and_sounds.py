"""Digits and sounds for small comparisons: strings of recorded digits with their speakers, and recorded sounds with their classes.

Files named ``<digit>_<speaker>_<take>.wav`` (as those of the Free Spoken Digit Dataset) are joined into strings; sounds lie in a folder for
each class (``dog_bark/1-110389-A.ogg``, as those of ESC-10; ``-A`` and ``-B`` are cuts of one recording). All of it lies as 16 kHz files in
a folder of the run, never in the repository. One speaker is held out whole, some takes of the others, and a third of the sounds.
"""

import dataclasses
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from avtlm.data.manifest import Manifest, Utterance, write_manifest
from avtlm.data.media import write_wav
from avtlm.data.seeds import seed_for
from avtlm.data.sound import SOUND_FILES, read_audio
from avtlm.evaluation.sounds_and_voices import Trial
from avtlm.files import write_text
from avtlm.frontends.filterbank import SAMPLE_RATE
from benchmarks.labelled_speech import DIGIT_FILE, LEVEL, PAUSES
from preprocess.synthesis.sentences import DIGITS

SOUNDS = {".wav", ".flac", ".ogg", ".mp3"}
TAKE = re.compile(r"-[A-Z]$")  # behind the name of a recording of which there are several cuts
HELD_OUT = 1 / 3  # of the recordings of each class
TESTED = 0.2  # share of the takes of each speaker


@dataclass(frozen=True)
class Amounts:
    """Digits of a string; how often training takes are joined anew; test strings of each speaker; trials of each kind."""

    digits: int = 4
    rounds: int = 3
    tested: int = 6
    trials: int = 300


@dataclass(frozen=True)
class Corpus:
    """Manifests of one seed.

    Attributes:
        digits: training strings with transcripts and speakers. sounds: training sounds with labels.
        unlabelled: both.
        digit_tests, sound_tests: what is held out. trials: between test strings.
        held_out: the speaker that is never heard in training.
    """

    digits: Path
    sounds: Path
    unlabelled: Path
    digit_tests: Path
    sound_tests: Path
    trials: Path
    held_out: str


def gather(digits: Path, sounds: Path, out: Path, amounts: Amounts, seed: int) -> Corpus:
    """Read, divide, join and write everything of one seed.

    Raises:
        ValueError: no folder, digits of fewer than three speakers, or fewer than two classes of sounds, or two recordings of one.
        MediaError: a recording cannot be read.
    """
    takes = _takes(digits)
    names = sorted(takes)
    held_out = names[(seed - 1) % len(names)]
    training: list[Utterance] = []
    tests: list[Utterance] = []
    for name in names:
        rng = np.random.default_rng(seed_for(seed, "takes", name))
        order = [takes[name][int(place)] for place in rng.permutation(len(takes[name]))]
        kept = len(order) if name == held_out else max(amounts.digits, round(TESTED * len(order)))
        tests += _strings(f"test_{seed}_{name}", name, order[-kept:], amounts.tested * (3 if name == held_out else 1), out, amounts, rng)
        if name != held_out:
            count = amounts.rounds * (len(order) - kept) // amounts.digits
            training += _strings(f"train_{seed}_{name}", name, order[:-kept], count, out, amounts, rng)
    heard, left = _sounds(sounds, out, seed)
    folder = out / "corpus"

    def write(name: str, rows: Sequence[Utterance], split: str) -> Path:
        path = folder / f"{name}_{seed}.jsonl"
        write_manifest(path, Manifest(out, tuple(dataclasses.replace(row, split=split) for row in rows)))
        return path

    trials = folder / f"trials_{seed}.txt"
    listed = list(_trials(tests, amounts.trials, seed))
    write_text(trials, "".join(f"{int(trial.same)} {trial.first} {trial.second}\n" for trial in listed))
    return Corpus(
        write("digits", training, "train"),
        write("sounds", heard, "train"),
        write("unlabelled", [*training, *heard], "train"),
        write("digit_tests", tests, "test"),
        write("sound_tests", left, "test"),
        trials,
        held_out,
    )


def _takes(folder: Path) -> dict[str, list[tuple[int, Path]]]:
    """Digit and file of all takes, by speaker."""
    if not folder.is_dir():
        raise ValueError(f"{folder}: there is no such folder; name one with digits (7_speaker_0.wav).")
    found: dict[str, list[tuple[int, Path]]] = {}
    for path in sorted(folder.rglob("*")):
        match = DIGIT_FILE.fullmatch(path.stem) if path.suffix.lower() in SOUND_FILES else None
        if match:
            found.setdefault(match[2], []).append((int(match[1]), path))
    if len(found) < 3:
        raise ValueError(
            f"{folder}: digits of {len(found)} speakers; one is held out and two are told apart, so at least three are needed."
        )
    return found


def _strings(
    name: str, speaker: str, takes: Sequence[tuple[int, Path]], count: int, out: Path, amounts: Amounts, rng: np.random.Generator
) -> Iterator[Utterance]:
    """Strings of a speaker's takes: all of them, in random order, as often as there are strings for."""
    order: list[int] = []
    while len(order) < count * amounts.digits:
        order += rng.permutation(len(takes)).tolist()
    for number in range(count):
        chosen = [takes[place] for place in order[number * amounts.digits : (number + 1) * amounts.digits]]
        parts = [_silence(rng)]
        for _, path in chosen:
            sound = read_audio(path)
            parts += [sound * (LEVEL / max(float(np.sqrt(np.mean(sound**2))), 1e-4)), _silence(rng)]
        text = " ".join(DIGITS[digit] for digit, _ in chosen)
        yield _row(f"{name}_{number:04d}", np.concatenate(parts), out, transcript=text, speaker=speaker)


def _silence(rng: np.random.Generator) -> np.ndarray:
    return np.zeros(round(SAMPLE_RATE * rng.uniform(*PAUSES)), np.float32)


def _sounds(folder: Path, out: Path, seed: int) -> tuple[list[Utterance], list[Utterance]]:
    """Two thirds of the recordings of every class, and the others."""
    recordings: dict[str, dict[str, list[Path]]] = {}
    for path in sorted(folder.rglob("*")):
        if path.suffix.lower() in SOUNDS:
            recordings.setdefault(path.parent.name, {}).setdefault(TAKE.sub("", path.stem), []).append(path)
    if len(recordings) < 2 or min(map(len, recordings.values())) < 2:
        fewest = min(map(len, recordings.values()), default=0)
        raise ValueError(
            f"{folder}: {len(recordings)} classes of at least {fewest} recordings; two of each are needed (dog_bark/1-110389-A.ogg)."
        )
    parts: tuple[list[Utterance], list[Utterance]] = ([], [])
    for label, found in recordings.items():
        names = sorted(found)
        order = np.random.default_rng(seed_for(seed, "sounds", label)).permutation(len(names)).tolist()
        tested = {names[place] for place in order[: max(1, round(HELD_OUT * len(names)))]}
        for name in names:
            for path in found[name]:
                row = _row(f"sound_{label}_{path.stem}", read_audio(path), out, extra={"labels": [label]})
                parts[name in tested].append(row)
    return parts


def _trials(rows: Sequence[Utterance], count: int, seed: int) -> Iterator[Trial]:
    """As many pairs of one speaker as of two, or all that there are."""
    pairs: dict[bool, list[tuple[str, str]]] = {True: [], False: []}
    for place, first in enumerate(rows):
        for second in rows[place + 1 :]:
            pairs[first.speaker == second.speaker].append((first.id, second.id))
    for same, found in pairs.items():
        rng = np.random.default_rng(seed_for(seed, "trials", int(same)))
        for place in rng.permutation(len(found))[:count].tolist():
            yield Trial(same, *found[place])


def _row(name: str, sound: np.ndarray, out: Path, **known: object) -> Utterance:
    file = f"audio/{name}.wav"
    write_wav(out / file, sound)
    return Utterance(name, audio=file, audio_samples=len(sound), **known)  # type: ignore[arg-type]
