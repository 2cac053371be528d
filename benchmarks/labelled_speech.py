"""Speech for small comparisons of recognisers: strings of recorded digits, other recordings cut to pieces, synthetic commands.

A folder of recordings is read as it is. Files named ``<digit>_<speaker>_<take>.wav`` (as those of the Free Spoken Digit Dataset) are joined
into strings of digits, every take once; all other sound is speech without labels. Synthetic voices say commands of the GRID grammar. All of
it lies as 16 kHz files and manifests in a folder of the run, never in the repository.
"""

import dataclasses
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from avtlm.data.manifest import Manifest, Utterance, read_manifest, write_manifest
from avtlm.data.media import write_wav
from avtlm.data.seeds import seed_for
from avtlm.data.sound import SOUND_FILES, read_audio
from avtlm.files import write_text
from avtlm.frontends.filterbank import SAMPLE_RATE
from preprocess.corpora.talking_heads import Size, plan, say
from preprocess.synthesis import espeak
from preprocess.synthesis.sentences import DIGITS, GRAMMAR

DIGIT_FILE = re.compile(r"(\d)_([A-Za-z0-9]+)_(\d+)")
IN_A_STRING = 4
PIECE = 4.0  # seconds that a recording without labels is cut to at most
PAUSES = (0.08, 0.25)  # seconds of silence around joined digits
LEVEL = 0.08  # root mean square that digits are brought to before they are joined
PARTS = ("digits", "recordings", "commands", "held_out")


@dataclass(frozen=True)
class Voices:
    """Synthetic speakers, the commands that all of them say without and with labels; others for the test, and the commands of each."""

    speakers: int
    unlabelled: int
    labelled: int
    test_speakers: int
    tested: int


@dataclass(frozen=True)
class Speech:
    """What there is.

    Attributes:
        root: folder of the sound.
        digits: strings of recorded digits, with their speakers.
        recordings: pieces of other recordings, without text.
        commands: synthetic training speech; those with a transcript are for labels.
        held_out: commands of other voices.
    """

    root: Path
    digits: tuple[Utterance, ...]
    recordings: tuple[Utterance, ...]
    commands: tuple[Utterance, ...]
    held_out: tuple[Utterance, ...]

    @classmethod
    def load(cls, root: Path) -> "Speech":
        """What `gather` has made."""
        manifests = [root / f"{part}.jsonl" for part in PARTS]
        return cls(root, *(read_manifest(path).utterances if path.exists() else () for path in manifests))

    @property
    def speakers(self) -> list[str]:
        """Those who say digits."""
        return sorted({row.speaker or "" for row in self.digits})

    def write(self, name: str, rows: Sequence[Utterance], split: str) -> Path:
        """A manifest of some rows, all of one split."""
        path = self.root / f"{name}.jsonl"
        write_manifest(path, Manifest(self.root, tuple(dataclasses.replace(row, split=split) for row in rows)))
        return path


def gather(recordings: Path, out: Path, voices: Voices, seed: int) -> None:
    """Read, join, cut and voice everything into ``out``.

    Raises:
        ValueError: no folder, or digits of fewer than two speakers.
        MediaError: a recording cannot be read.
        MissingExtra: the synthetic voices are not installed.
    """
    digits, others = _found(recordings)
    espeak.require()
    if len(digits) < 2:
        raise ValueError(
            f"{recordings}: digits of {len(digits)} speakers; one is held out, so at least two are needed (files such as 7_speaker_0.wav)."
        )
    training, held_out = _commands(out, voices, seed)
    rows = {
        "digits": list(_all_strings(digits, out, seed)),
        "recordings": list(_all_pieces(others, out)),
        "commands": training,
        "held_out": held_out,
    }
    for part in PARTS:
        if rows[part]:
            write_manifest(out / f"{part}.jsonl", Manifest(out, tuple(rows[part])))


def unlabelled(recordings: Path, out: Path, seed: int) -> tuple[Utterance, ...]:
    """All recordings of a folder without their text, digits joined and the others cut; their sound lies in ``out/audio``.

    Raises:
        ValueError: no folder, or nothing to hear in it.
        MediaError: a recording cannot be read.
    """
    digits, others = _found(recordings)
    rows = (*_all_strings(digits, out, seed), *_all_pieces(others, out))
    if not rows:
        raise ValueError(f"{recordings}: holds no recordings; name a folder with some ({', '.join(sorted(SOUND_FILES))}).")
    return tuple(dataclasses.replace(row, transcript=None) for row in rows)


def _found(recordings: Path) -> tuple[dict[str, list[tuple[int, Path]]], list[Path]]:
    """Digits and their files by speaker, and all other sound of a folder."""
    if not recordings.is_dir():
        raise ValueError(f"{recordings}: there is no such folder; name one with recordings (.wav, .flac).")
    digits: dict[str, list[tuple[int, Path]]] = {}
    others = []
    for path in sorted(path for path in recordings.rglob("*") if path.suffix.lower() in SOUND_FILES):
        found = DIGIT_FILE.fullmatch(path.stem)
        if found:
            digits.setdefault(found[2], []).append((int(found[1]), path))
        else:
            others.append(path)
    return digits, others


def _all_strings(digits: Mapping[str, list[tuple[int, Path]]], out: Path, seed: int) -> Iterator[Utterance]:
    for name in sorted(digits):
        yield from _strings(name, digits[name], out, seed)


def _all_pieces(others: Sequence[Path], out: Path) -> Iterator[Utterance]:
    for number, path in enumerate(others):
        yield from _pieces(number, path, out)


def write_lexicon(path: Path, texts: Sequence[str]) -> None:
    """All words of digits and commands that can be spelled with the letters of some texts."""
    letters = {letter for text in texts for letter in text}
    words = sorted({word for slot in GRAMMAR for word in slot if set(word) <= letters})
    write_text(path, "".join(f"{word}\t{' '.join(word)} |\n" for word in words))


def hours(rows: Sequence[Utterance]) -> float:
    """Length of all of them together."""
    return sum(row.duration for row in rows) / 3600


def _strings(speaker: str, takes: list[tuple[int, Path]], out: Path, seed: int) -> Iterator[Utterance]:
    """Every take once, in random order, four to a string; what is left over makes a shorter one."""
    rng = np.random.default_rng(seed_for(seed, "strings", speaker))
    order = [takes[int(i)] for i in rng.permutation(len(takes))]
    for number, start in enumerate(range(0, len(order), IN_A_STRING)):
        chosen = order[start : start + IN_A_STRING]
        parts = [_silence(rng)]
        for _, path in chosen:
            sound = read_audio(path)
            parts += [sound * (LEVEL / max(float(np.sqrt(np.mean(sound**2))), 1e-4)), _silence(rng)]
        text = " ".join(DIGITS[digit] for digit, _ in chosen)
        yield _row(f"digits_{speaker}_{number:03d}", np.concatenate(parts), out, text, speaker)


def _silence(rng: np.random.Generator) -> np.ndarray:
    return np.zeros(round(SAMPLE_RATE * rng.uniform(*PAUSES)), np.float32)


def _pieces(number: int, path: Path, out: Path) -> Iterator[Utterance]:
    """Equal pieces of at most `PIECE` seconds."""
    sound = read_audio(path)
    count = max(1, int(np.ceil(len(sound) / (PIECE * SAMPLE_RATE))))
    for index, piece in enumerate(np.array_split(sound, count)):
        yield _row(f"recording_{number:04d}_{index:03d}", piece, out, None, None)


def _commands(out: Path, voices: Voices, seed: int) -> tuple[list[Utterance], list[Utterance]]:
    """Sound of training and of test speakers of the synthetic corpus; no picture is drawn."""
    each = -(-voices.labelled // voices.speakers)
    size = Size((voices.speakers, each), (1, 0), (voices.test_speakers, voices.tested), voices.unlabelled, 0)
    rows: dict[str, list[Utterance]] = {"train": [], "test": []}
    for speaker in plan(out, size, seed, "command", "drawn"):
        for clip in speaker.clips:
            wave = say(clip, speaker.voice, speaker.seed).wave
            text = clip.text if speaker.parts == "av" else None
            rows[clip.split].append(_row(f"command_{clip.id}", wave, out, text, clip.speaker))
    return rows["train"], rows["test"]


def _row(name: str, sound: np.ndarray, out: Path, text: str | None, speaker: str | None) -> Utterance:
    file = f"audio/{name}.wav"
    write_wav(out / file, sound)
    return Utterance(name, audio=file, audio_samples=len(sound), transcript=text, speaker=speaker)
