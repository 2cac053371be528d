"""Sound files of a corpus, opened by several workers: how long they are, or copies of them at 16 kHz, each whole or not there at all."""

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile
import soxr

from avtlm.data.container import SAMPLE_RATE, MediaError, open_media
from avtlm.data.manifest import Utterance
from avtlm.data.sound import SOUND_FILES, mix_down, read_audio
from avtlm.files import atomic_path
from avtlm.training.progress import bar
from preprocess.journal import file_state, journal, read_journal
from preprocess.pool import Crash, run_tasks

SHARE = 64  # files of one task
END = 0.1  # seconds by which lists may reach beyond the end of a recording


@dataclass(frozen=True)
class Sounding:
    """A file of a corpus: where it lies, which seconds of it are meant (None: all), and where a copy goes (None: nowhere)."""

    row: Utterance
    path: Path
    span: tuple[float, float] | None = None
    copy: Path | None = None

    @property
    def key(self) -> str:
        """Changes with what a copy is made of."""
        return repr((str(self.path), *file_state(self.path), self.span))


Sized = tuple[int, int] | str  # samples and their rate, or what is wrong


def open_all(title: str, soundings: Sequence[Sounding], workers: int, copies: Path | None = None) -> list[Sized]:
    """Samples and rate of every file or copy, in order, or why it cannot be used.

    Args:
        title: of the bar that is shown.
        copies: folder of the copies; which are done is noted in ``copied.jsonl`` there, and those are not made again.
    """
    found: list[Sized] = ["was not looked at"] * len(soundings)
    done = read_journal(copies / "copied.jsonl") if copies is not None else {}
    left = []
    for place, sounding in enumerate(soundings):
        record = done.get(sounding.row.id)
        if record and record.get("key") == sounding.key and sounding.copy is not None and sounding.copy.is_file():
            found[place] = int(record["samples"]), SAMPLE_RATE
        else:
            left.append(place)
    shares = [left[start : start + SHARE] for start in range(0, len(left), SHARE)]
    with contextlib.ExitStack() as stack:
        notes = stack.enter_context(journal(copies / "copied.jsonl")) if copies is not None else None
        progress = stack.enter_context(bar(title, len(soundings), done=len(soundings) - len(left)))

        def work(shares: Sequence[Sequence[int]]) -> list[int]:
            """Do some shares; the places of those that took their worker down."""
            lost: list[int] = []
            tasks = [[soundings[place] for place in share] for share in shares]
            for number, result in run_tasks(_open_share, tasks, _nothing, min(workers, len(tasks))) if tasks else ():
                if isinstance(result, Crash) and len(shares[number]) > 1:
                    lost += shares[number]
                    continue
                for place, sized in zip(shares[number], [result.reason] if isinstance(result, Crash) else result, strict=True):
                    found[place] = sized
                    if notes is not None and not isinstance(sized, str):
                        notes.note({"id": soundings[place].row.id, "key": soundings[place].key, "samples": sized[0]})
                progress.advance(len(shares[number]))
            return lost

        work([[place] for place in work(shares)])  # one of a share may have done it: each by itself
    return found


def _nothing() -> None:
    """Workers need nothing but their tasks."""


def _open_share(_: None, share: Sequence[Sounding]) -> list[Sized]:
    return [_open(sounding) for sounding in share]


def _open(sounding: Sounding) -> Sized:
    """Raises OSError if a copy cannot be written: that ends the run, as it would befall all that follow."""
    path = sounding.path
    try:
        if not path.is_file():
            return "is listed, and not there"
        if path.stat().st_size == 0:
            return "is an empty file"
        if sounding.copy is None:
            samples, rate = measure(path)
        else:
            sound = read_audio(path) if sounding.span is None else read_span(path, *sounding.span)
            samples, rate = len(sound), SAMPLE_RATE
    except MediaError as error:
        return error.reason.rstrip(".")
    except OSError as error:
        return f"cannot be read ({error.strerror or error})"
    if not samples:
        return "has no sound in it"
    if sounding.copy is not None:
        write_flac(sounding.copy, sound)
    return samples, rate


def measure(path: Path) -> tuple[int, int]:
    """Samples and their rate: what the header of a WAV or FLAC file says, of other files what is decoded.

    Raises:
        MediaError: the file cannot be read.
    """
    if path.suffix.lower() in SOUND_FILES:
        with contextlib.suppress(soundfile.SoundFileError, RuntimeError):  # a coding that FFmpeg may know
            info = soundfile.info(str(path))
            return info.frames, info.samplerate
    with open_media(path) as container:
        codec = container.streams.audio[0].codec_context if container.streams.audio else None
        rate = codec.sample_rate if codec is not None and codec.sample_rate else SAMPLE_RATE
    return len(read_audio(path, rate)), rate


def write_flac(path: Path, sound: np.ndarray) -> None:
    """Write float (samples,) at 16 kHz as mono FLAC of 16 bits, atomically.

    Raises:
        OSError: it cannot be written.
    """
    whole = np.round(np.clip(sound, -1, 32767 / 32768) * 32768).astype(np.int16)
    # By its number: libsndfile takes no path of more than 1,024 bytes.
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        try:
            soundfile.write(file.fileno(), whole, SAMPLE_RATE, subtype="PCM_16", format="FLAC", closefd=False)
        except soundfile.SoundFileError as error:
            raise OSError(f"{path}: cannot be written ({error})") from error


def read_span(path: Path, start: float, end: float) -> np.ndarray:
    """Some seconds of a recording, float32 (samples,) at 16 kHz; of WAV and FLAC files nothing else is read.

    Raises:
        MediaError: the file cannot be read, or ends before the span does.
    """
    if path.suffix.lower() not in SOUND_FILES:
        sound = read_audio(path)
        _check_end(path, end, len(sound) / SAMPLE_RATE)
        return sound[round(start * SAMPLE_RATE) : round(end * SAMPLE_RATE)]
    try:
        with soundfile.SoundFile(str(path)) as file:
            rate = file.samplerate
            _check_end(path, end, file.frames / rate)
            first = round(start * rate)
            file.seek(first)
            sound = mix_down(file.read(max(0, min(round(end * rate), file.frames) - first), dtype="float32", always_2d=True))
    except (soundfile.SoundFileError, RuntimeError) as error:
        raise MediaError(path, f"cannot be read ({error}).") from error
    return np.ascontiguousarray(sound if rate == SAMPLE_RATE else soxr.resample(sound, rate, SAMPLE_RATE), dtype=np.float32)


def _check_end(path: Path, end: float, seconds: float) -> None:
    if end > seconds + END:
        raise MediaError(path, f"lasts {seconds:.2f} s, and an utterance is listed up to {end:.2f} s.")
