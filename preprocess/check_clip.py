"""One clip of a corpus, looked at in full: does it open, is it as long as it should be, what does it sound like.

The record of a clip is plain values, so that it can be kept in a journal: faults (which make a clip wrong for training) and remarks, true
lengths, checksums of the files, the print of the sound and the curve of lips against loudness.
"""

import base64
import hashlib
import json
import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soxr

from avtlm.data.container import FPS, SAMPLE_RATE, MediaError
from avtlm.data.frames import FrameStream
from avtlm.data.manifest import SPLITS, Utterance
from avtlm.data.media import read_lip_crops
from avtlm.data.sound import read_track
from preprocess.check_sound import Print, make_print
from preprocess.check_sync import lag_curve
from preprocess.journal import file_state

log = logging.getLogger(__name__)

VERSION = 2  # goes up when the same clip gives another record
SIDE = 96
APART = 0.2  # seconds by which sound and picture may differ in length, as for avtlm info
CLIPPED = 0.01  # share of samples at full scale
DAMAGE = ("ends early", "could not be decoded", "stopped early", "cut off")  # in what a reader notes of a file


@dataclass(frozen=True)
class Task:
    """A row of a manifest with the places of its files.

    Attributes:
        find_lips: crop the lips of videos that are no crops, to compare them with the sound (slow).
    """

    row: Utterance
    video: str | None
    audio: str | None
    find_lips: bool = False

    @property
    def key(self) -> str:
        """Changes with the files and with what is said of them."""
        states = [file_state(path) if path else None for path in (self.video, self.audio)]
        content = json.dumps([VERSION, asdict(self.row), self.video, self.audio, states, self.find_lips], sort_keys=True)
        return hashlib.sha256(content.encode("utf-8", "surrogatepass")).hexdigest()[:16]


@dataclass
class Findings:
    """What is noted of a clip: kind and sentence."""

    faults: list[tuple[str, str]]
    remarks: list[tuple[str, str]]


def examine(provider: Any, task: Task) -> dict[str, Any]:
    """The record of a clip; whatever is wrong with it is in there. ``provider`` finds faces, if lips are to be found."""
    found = Findings([], [])
    record: dict[str, Any] = {"id": task.row.id, "key": task.key}
    try:
        record |= _examine(task, provider, found)
    except Exception as error:  # one clip, whatever it does, must not end a run over thousands
        log.exception("unexpected error in %s", task.row.id)
        found.faults.append(("unreadable", f"unexpected {type(error).__name__}: {error}"))
    return record | {"faults": found.faults, "remarks": found.remarks}


def _examine(task: Task, provider: Any, found: Findings) -> dict[str, Any]:
    row = task.row
    if row.split not in (None, *SPLITS):
        found.faults.append(("split", f"is in the split {row.split!r:.40}; expected train, valid or test"))
    if not (task.video or task.audio or row.transcript or row.phones):
        found.faults.append(("empty", "has neither video nor audio nor text"))
    if row.transcript is not None and not row.transcript.strip():
        found.faults.append(("transcript", "has an empty transcript"))
    record: dict[str, Any] = {}
    frames = crops = wave = None
    if task.video is not None:
        frames, crops = _picture(task.video, row, found)
        record |= {"frames": frames, "video_sha256": _checksum(task.video)}
    if task.audio is not None:
        wave = _sound(task.audio, row, row.sample_rate, row.audio_samples, found)
        record["audio_sha256"] = _checksum(task.audio)
    elif task.video is not None and frames and Path(task.video).suffix != ".npy":
        wave = _sound(task.video, row, SAMPLE_RATE, 0, found, own=False)
    if wave is not None:
        _compare_lengths(wave, frames, "span" in row.extra, found)
        record |= {"samples": len(wave), **packed(make_print(wave))}
        if crops is None and task.find_lips and frames and task.video is not None and Path(task.video).suffix != ".npy":
            crops = _lips(task.video, provider, found)
        curve = None if crops is None else lag_curve(crops, wave)
        if curve is not None:
            record["curve"] = [round(float(value), 4) for value in curve]
    return record


def _picture(path: str, row: Utterance, found: Findings) -> tuple[int | None, np.ndarray | None]:
    """Number of frames, and the frames themselves where they are lip crops."""
    try:
        crops: np.ndarray | None
        if Path(path).suffix == ".npy":
            crops = np.asarray(read_lip_crops(path))
            count = len(crops)
        else:
            stream, kept, count = FrameStream(path), [], 0
            for frame in stream:
                count += 1
                if frame.shape == (SIDE, SIDE):
                    kept.append(frame)
            crops = np.stack(kept) if kept and len(kept) == count else None
            _note(found, "picture", stream.info["warnings"])
    except (MediaError, OSError) as error:
        found.faults.append(("unreadable", f"video: {_reason(error)}"))
        return None, None
    if row.video_frames and "span" not in row.extra and count != row.video_frames:
        found.faults.append(("length", f"the manifest says {row.video_frames} frames, {Path(path).name} has {count}"))
    return count, crops


def _sound(path: str, row: Utterance, rate: int, samples: int, found: Findings, own: bool = True) -> np.ndarray | None:
    """float32 (samples,) at 16 kHz; of a video without a sound of its own that is no fault."""
    try:
        wave, notes = read_track(path, rate if rate > 0 else SAMPLE_RATE)
    except (MediaError, OSError) as error:
        found.faults.append(("unreadable", f"audio: {_reason(error)}"))
        return None
    if wave is None:
        (found.faults if own else found.remarks).append(("unreadable" if own else "sound", "has no audio track"))
        return None
    _note(found, "sound", notes)
    if samples and len(wave) != samples:
        found.faults.append(("length", f"the manifest says {samples} samples at {rate} Hz, {Path(path).name} has {len(wave)}"))
    if len(wave) and float(np.mean(np.abs(wave) >= 0.999)) > CLIPPED:
        found.remarks.append(("clipped", f"{np.mean(np.abs(wave) >= 0.999):.0%} of the samples are at full scale"))
    return wave if rate == SAMPLE_RATE or not len(wave) else soxr.resample(wave, rate, SAMPLE_RATE)


def _note(found: Findings, kind: str, notes: Sequence[str]) -> None:
    """What a reader said of a file that it could read: signs of damage are faults."""
    for note in notes:
        if any(sign in note for sign in DAMAGE):
            found.faults.append(("damaged", note))
        else:
            found.remarks.append(("silent" if "is silent" in note else kind, note))


def _compare_lengths(wave: np.ndarray, frames: int | None, part: bool, found: Findings) -> None:
    """Rows that mean a part of a video are compared when it has been cut."""
    seconds = len(wave) / SAMPLE_RATE
    if frames and not part and abs(frames / FPS - seconds) > APART:
        found.faults.append(("lengths", f"{frames / FPS:.2f} s of picture and {seconds:.2f} s of sound"))


def _lips(path: str, provider: Any, found: Findings) -> np.ndarray | None:
    from avtlm.lips.crop import LipError, extract_lips

    try:
        return extract_lips(path, provider, audio=False).crops
    except LipError as error:
        found.remarks.append(("lips", error.reason.rstrip(".")))
        return None


def _reason(error: MediaError | OSError) -> str:
    return error.reason.rstrip(".") if isinstance(error, MediaError) else error.strerror or str(error)


def _checksum(path: str) -> str | None:
    digest = hashlib.sha256()
    try:
        with open(path, "rb") as file:
            while part := file.read(1 << 20):
                digest.update(part)
    except OSError:
        return None
    return digest.hexdigest()


def packed(print_: Print) -> dict[str, str]:
    """A print as text."""
    coded = {"print": print_.bits.astype("<u2").tobytes(), "loud": np.packbits(print_.loud).tobytes()}
    return {name: base64.b85encode(content).decode() for name, content in coded.items()}


def unpacked(record: dict[str, Any]) -> Print:
    """The print of a record; an empty one if it has none."""
    bits = np.frombuffer(base64.b85decode(record.get("print", "")), "<u2").astype(np.uint16)
    loud = np.unpackbits(np.frombuffer(base64.b85decode(record.get("loud", "")), np.uint8))[: len(bits)].astype(bool)
    return Print(bits, loud)
