"""Sound of a file of any length, block by block: what recordings of hours are read through.

As :func:`avtlm.data.sound.read_track` reads a whole track, but no more than a second or so of it is in memory at any time.
"""

from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import soundfile
import soxr

from avtlm.data.container import PYAV_ERRORS, SAMPLE_RATE, MediaError, open_media
from avtlm.data.sound import SOUND_FILES, mix_down, note_rate, track_pieces

BLOCK = 16000  # samples of a block at the rate of the source, where the file does not come in packets of its own
LONGEST = 48000  # samples that are handed on at once
AUDIBLE = 1e-4  # amplitude below which a recording is silent


class SoundStream:
    """Iterate over the sound of a file as mono float32 blocks ``(samples,)``; ``notes`` and ``peak`` are complete after the last one.

    Sample 0 belongs to the first picture, as in `avtlm.data.sound`. A file that breaks off gives what there is, and a note.

    Args:
        path: a media file.
        sample_rate: of the blocks.

    Raises:
        MediaError: when iterated: no such file, no audio track, or nothing that can be decoded.
    """

    def __init__(self, path: str | Path, sample_rate: int = SAMPLE_RATE) -> None:
        self.path = Path(path)
        self.sample_rate = sample_rate
        self.notes: list[str] = []
        self.peak = 0.0

    def __iter__(self) -> Iterator[np.ndarray]:
        self.notes, self.peak = [], 0.0
        if self.path.suffix.lower() in SOUND_FILES and self.path.is_file():
            try:
                file = soundfile.SoundFile(str(self.path))
            except (soundfile.SoundFileError, RuntimeError):
                file = None  # libsndfile does not know the coding; FFmpeg may
            if file is not None:
                with file:
                    yield from self._resample(self._blocks(file))
                return
        with open_media(self.path) as container:
            if not container.streams.audio:
                raise MediaError(self.path, "has no audio track.")
            yield from self._resample(track_pieces(container, self.path, None, self.notes))

    def _blocks(self, file: soundfile.SoundFile) -> Iterator[tuple[np.ndarray, int]]:
        done = 0
        while True:
            try:
                block = file.read(BLOCK, dtype="float32", always_2d=True)
            except (soundfile.SoundFileError, RuntimeError) as error:
                self.notes.append(f"the audio breaks off after {done / file.samplerate:.2f} s ({str(error).strip().rstrip('.')})")
                return
            if not len(block):
                break
            done += len(block)
            yield mix_down(block), file.samplerate
        missing = promised_bytes(self.path) - self.path.stat().st_size
        if missing > 1:  # a file of odd length may lack its last padding byte
            at = done / file.samplerate
            self.notes.append(f"the file is cut off after {at:.2f} s: {missing} bytes that its header promises are missing")

    def _resample(self, pieces: Iterator[tuple[np.ndarray, int]]) -> Iterator[np.ndarray]:
        resampler: soxr.ResampleStream | None = None
        first = True
        for piece, rate in pieces:
            if first:
                note_rate(rate, self.sample_rate, self.notes)
                resampler = None if rate == self.sample_rate else soxr.ResampleStream(rate, self.sample_rate, 1, dtype="float32")
                first = False
            for at in range(0, len(piece), LONGEST):  # some files hold minutes in one packet
                part = piece[at : at + LONGEST]
                yield from self._seen(part if resampler is None else resampler.resample_chunk(part))
        if resampler is not None:
            yield from self._seen(resampler.resample_chunk(np.zeros(0, np.float32), last=True))

    def _seen(self, block: np.ndarray) -> Iterator[np.ndarray]:
        if len(block):
            self.peak = max(self.peak, float(np.abs(block).max()))
            yield np.ascontiguousarray(block, dtype=np.float32)

    @property
    def audible(self) -> bool:
        """Whether anything so far was louder than digital silence."""
        return self.peak > AUDIBLE


def promised_bytes(path: Path) -> int:
    """Size of a .wav file by its header; 0 for other files and for recordings that were written to a pipe and promise nothing."""
    with path.open("rb") as file:
        head = file.read(12)
    size = int.from_bytes(head[4:8], "little")
    return size + 8 if head[:4] == b"RIFF" and head[8:12] == b"WAVE" and size < 2**32 - 2**16 else 0


def media_seconds(path: str | Path) -> float:
    """How long a file is: what it says, or else by the time stamps in it (recordings of browsers promise nothing); 0 if it is no media.

    Whatever is wrong with a file is for those to report who read it.
    """
    path = Path(path)
    if path.suffix.lower() in SOUND_FILES and path.is_file():
        try:
            return float(soundfile.info(str(path)).duration)
        except (soundfile.SoundFileError, RuntimeError):
            pass  # libsndfile does not know the coding; FFmpeg may
    try:
        with open_media(path) as container:
            if container.duration is not None:
                return container.duration / av.time_base
            first, last = float("inf"), 0.0
            try:
                for packet in container.demux():
                    if packet.pts is not None and packet.time_base is not None:
                        begin = float(packet.pts * packet.time_base)
                        first, last = min(first, begin), max(last, begin + float((packet.duration or 0) * packet.time_base))
            except PYAV_ERRORS:
                pass  # as far as it goes
            return max(0.0, last - first)
    except MediaError:
        return 0.0
