"""Pieces of sound files, copied or mixed into files of their own by several workers; used by `preprocess.noise`."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

from avtlm.data.media import SAMPLE_RATE, MediaError, read_audio, write_wav
from avtlm.data.noise import mean_babble
from avtlm.training.progress import bar
from preprocess.pool import Crash, run_tasks


@dataclass(frozen=True)
class Piece:
    """A part of a sound file: ``samples`` from ``start`` on."""

    path: Path
    start: int
    samples: int


@dataclass(frozen=True)
class Mixture:
    """A sound file to be made: one piece as it is, or the mean of several."""

    target: Path
    pieces: tuple[Piece, ...]


def cut(path: Path, seconds: float, least_seconds: float, unusable: dict[str, str]) -> list[Piece]:
    """The pieces of a file of MUSAN that are long enough: none of one that is not longer than a piece.

    A file that cannot be used goes to ``unusable`` with the reason.
    """
    try:
        info = soundfile.info(str(path))
    except (soundfile.SoundFileError, RuntimeError) as error:
        unusable[str(path)] = f"cannot be read ({error})"
        return []
    if (info.samplerate, info.channels) != (SAMPLE_RATE, 1):
        unusable[str(path)] = f"has {info.channels} channels at {info.samplerate} Hz, and MUSAN has one at {SAMPLE_RATE} Hz"
        return []
    size, least = round(seconds * SAMPLE_RATE), least_seconds * SAMPLE_RATE
    if info.frames <= size:
        return []
    starts = range(0, info.frames, size)
    return [piece for start in starts if (piece := Piece(path, start, min(size, info.frames - start))).samples >= least]


Work = Callable[[str, Sequence[Mixture]], dict[Path, str]]


def write_all(name: str, mixtures: Sequence[Mixture], workers: int) -> dict[Path, str]:
    """Write what is not there yet; the targets that could not be made, with the reason."""
    left = [mixture for mixture in mixtures if not mixture.target.is_file()]
    failed: dict[Path, str] = {}
    with bar(name, len(mixtures), done=len(mixtures) - len(left)) as progress:
        for index, reason in run_tasks(_write, left, _nothing, min(workers, len(left))) if left else ():
            if reason is not None:
                failed[left[index].target] = reason.reason if isinstance(reason, Crash) else reason
            progress.advance(note=f"{len(failed)} failed" if failed else None)
    return failed


def _nothing() -> None:
    """Workers need nothing but their tasks."""


def _write(_: None, mixture: Mixture) -> str | None:
    """Write one file; the reason if it cannot be."""
    try:
        waves = [_read(piece) for piece in mixture.pieces]
    except MediaError as error:
        return str(error)
    write_wav(mixture.target, waves[0] if len(waves) == 1 else mean_babble(waves))
    return None


def _read(piece: Piece) -> np.ndarray:
    """int16 (samples,) at 16 kHz."""
    try:
        with soundfile.SoundFile(str(piece.path)) as file:
            if file.samplerate == SAMPLE_RATE and file.channels == 1:
                file.seek(piece.start)
                wave = file.read(piece.samples, dtype="int16")
            else:
                wave = None
    except (soundfile.SoundFileError, RuntimeError) as error:
        raise MediaError(piece.path, f"cannot be read ({error}).") from error
    if wave is None:
        sound = read_audio(piece.path)[piece.start : piece.start + piece.samples]
        wave = np.round(np.clip(sound, -1, 32767 / 32768) * 32768).astype(np.int16)
    if len(wave) < piece.samples:
        raise MediaError(piece.path, f"ends {piece.samples - len(wave)} samples before the end that its header promises.")
    return wave
