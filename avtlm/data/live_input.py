"""Sound and pictures as they come: from a file that is played, or from a microphone and a camera.

Devices are opened through PyAV, by the inputs its build of FFmpeg has: ``alsa`` and ``v4l2`` on Linux (``pulse`` in some builds),
``avfoundation`` on a Mac, ``dshow`` on Windows, and ``lavfi`` for made-up signals. Each is read by a thread of its own.
"""

import itertools
import platform
import queue
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
import soxr
from av.container import InputContainer
from av.format import ContainerFormat

from avtlm.data.container import FPS, PYAV_ERRORS, SAMPLE_RATE, MediaError, describe, open_media, video_stream
from avtlm.data.frames import FrameStream, grey, timed_frames
from avtlm.data.sound import track_pieces
from avtlm.data.sound_stream import SoundStream

CHUNK = 0.2  # seconds
PATIENCE = 10.0  # seconds that a device has to start
DEVICES = ("pulse", "alsa", "v4l2", "avfoundation", "dshow", "lavfi")
# What `mic` and `camera` stand for, the first that the build has.
MICROPHONES = {"Linux": ("pulse:default", "alsa:default"), "Darwin": ("avfoundation::0",), "Windows": ("dshow:audio=default",)}
CAMERAS = {"Linux": ("v4l2:/dev/video0",), "Darwin": ("avfoundation:0",), "Windows": ("dshow:video=default",)}


@dataclass(frozen=True)
class Chunk:
    """The next sound, float32 (samples,) at 16 kHz, and the next pictures, uint8 (height, width) at 25 a second."""

    sound: np.ndarray
    pictures: tuple[np.ndarray, ...] = ()


class FileInput:
    """A file that is played: as fast as it can be read, or in real time.

    Args:
        path: a media file with sound.
        pictures: give the pictures of its video, too.
        real_time: give what is due by the clock, not more.

    Raises:
        MediaError: when iterated: the file cannot be used.
    """

    def __init__(self, path: str | Path, pictures: bool = False, real_time: bool = False) -> None:
        self.name = str(path)
        self.live = real_time
        self._sound = SoundStream(path)
        self._pictures = FrameStream(path, damaged="keep") if pictures else None

    def __iter__(self) -> Iterator[Chunk]:
        frames = iter(()) if self._pictures is None else iter(self._pictures)
        started = time.monotonic()
        shown = heard = 0
        for block in self._blocks():
            heard += len(block)
            until = round(heard / SAMPLE_RATE * FPS)
            pictures = tuple(itertools.islice(frames, until - shown))
            shown = until
            if self.live:
                time.sleep(max(0.0, started + heard / SAMPLE_RATE - time.monotonic()))
            yield Chunk(block, pictures)
        if not heard or not self._sound.audible:
            raise MediaError(self.name, "is silent; there is nothing to hear.")

    def _blocks(self) -> Iterator[np.ndarray]:
        size, rest = round(CHUNK * SAMPLE_RATE), np.zeros(0, np.float32)
        for block in self._sound:
            rest = np.concatenate([rest, block])
            while len(rest) >= size:
                yield rest[:size]
                rest = rest[size:]
        if len(rest):
            yield rest


class DeviceInput:
    """A microphone, and a camera if one is named. What both tell begins when the later of them has started.

    Args:
        microphone: ``alsa:default`` and the like.
        camera: ``v4l2:/dev/video0`` and the like, or None.

    Raises:
        ValueError: this build of PyAV has no such input, or it cannot be opened.
    """

    live = True

    def __init__(self, microphone: str, camera: str | None = None) -> None:
        self.name = microphone if camera is None else f"{microphone}+{camera}"
        self._inputs = {kind: open_device(name) for kind, name in (("sound", microphone), ("pictures", camera)) if name is not None}
        for kind, container in self._inputs.items():
            if (kind == "sound" and not container.streams.audio) or (kind == "pictures" and video_stream(container) is None):
                raise ValueError(f"{self.name}: the device for {kind} gives none; name the microphone first, then the camera.")
        self._arrived: dict[str, queue.Queue[np.ndarray | Exception | None]] = {kind: queue.Queue() for kind in self._inputs}
        self._first: dict[str, float] = {}
        self._stop = threading.Event()

    def __iter__(self) -> Iterator[Chunk]:
        threads = [threading.Thread(target=self._read, args=(kind,), daemon=True) for kind in self._inputs]
        for thread in threads:
            thread.start()
        pending: dict[str, list[np.ndarray]] = {kind: [] for kind in self._inputs}
        open_inputs, dropped, given_up = set(self._inputs), False, time.monotonic() + PATIENCE
        try:
            while open_inputs:
                time.sleep(CHUNK / 2)
                for kind in list(open_inputs):
                    if not self._drain(kind, pending[kind]):
                        open_inputs.discard(kind)
                if len(self._first) < len(self._inputs) and open_inputs:
                    if time.monotonic() > given_up:
                        silent = ", ".join(kind for kind in self._inputs if kind not in self._first)
                        raise MediaError(self.name, f"no {silent} came from the device for {PATIENCE:g} s; is it in use, or switched off?")
                    continue
                if not dropped:
                    self._drop_the_early(pending)
                    dropped = True
                sound = np.concatenate([np.zeros(0, np.float32), *pending["sound"]])
                if len(sound):
                    yield Chunk(sound, tuple(pending.get("pictures", ())))
                    for kept in pending.values():
                        kept.clear()
                if "sound" not in open_inputs:
                    return
        finally:
            self._stop.set()
            for thread in threads:
                thread.join(timeout=2.0)

    def _drain(self, kind: str, into: list[np.ndarray]) -> bool:
        """Take what has arrived; whether more may come.

        Raises:
            MediaError: the device has failed.
        """
        while True:
            try:
                piece = self._arrived[kind].get_nowait()
            except queue.Empty:
                return True
            if isinstance(piece, Exception):
                raise MediaError(self.name, f"the device has stopped ({describe(piece)}).") from piece
            if piece is None:
                return False
            into.append(piece)

    def _drop_the_early(self, pending: dict[str, list[np.ndarray]]) -> None:
        if len(self._first) < 2:
            return
        early = self._first["pictures"] - self._first["sound"]
        if early > 0:
            joined = np.concatenate(pending["sound"] or [np.zeros(0, np.float32)])
            pending["sound"][:] = [joined[round(early * SAMPLE_RATE) :]]
        else:
            del pending["pictures"][: round(-early * FPS)]

    def _read(self, kind: str) -> None:
        pieces = self._sounds() if kind == "sound" else self._pictures()
        try:
            for piece in pieces:
                self._first.setdefault(kind, time.monotonic())
                self._arrived[kind].put(piece)
                if self._stop.is_set():
                    break
            self._arrived[kind].put(None)
        except PYAV_ERRORS as error:
            self._arrived[kind].put(error)
        finally:
            self._inputs[kind].close()

    def _sounds(self) -> Iterator[np.ndarray]:
        resampler: soxr.ResampleStream | None = None
        for piece, rate in track_pieces(self._inputs["sound"], self.name, None, []):
            resampler = resampler or soxr.ResampleStream(rate, SAMPLE_RATE, 1, dtype="float32")
            yield resampler.resample_chunk(piece) if rate != SAMPLE_RATE else piece

    def _pictures(self) -> Iterator[np.ndarray]:
        container = self._inputs["pictures"]
        stream = video_stream(container)
        assert stream is not None
        first, count = None, 0
        for at, frame in timed_frames(container, stream, Path(self.name), {"warnings": []}):
            first = at if first is None else first
            picture = grey(frame)
            while count / FPS <= at - first + 1e-9:
                yield picture
                count += 1


def open_input(source: str, pictures: bool, real_time: bool = False) -> FileInput | DeviceInput:
    """A file, or devices: ``mic``, ``mic+camera``, ``alsa:default+v4l2:/dev/video0``.

    Raises:
        ValueError: there is no such device, or a camera is needed and none is named.
        MediaError: there is no such file, or it has no pictures where they are needed.
    """
    names = source.split("+")
    if Path(source).exists() or not all(name in ("mic", "camera") or name.split(":")[0] in DEVICES for name in names):
        with open_media(source) as container:
            if pictures and video_stream(container) is None:
                raise MediaError(source, "has no video track; ask for modality a to hear the sound alone.")
            if not container.streams.audio:
                raise MediaError(source, "has no audio track; live captions need sound to find the pauses.")
        return FileInput(source, pictures, real_time)
    if len(names) > 2 or names[0] == "camera":
        raise ValueError(f"{source}: name a microphone, and a camera behind a plus sign: mic+camera.")
    if pictures and len(names) == 1:
        raise ValueError(f"{source}: the lips need a camera: {source}+camera; or ask for modality a to hear the sound alone.")
    microphone = _default(MICROPHONES) if names[0] == "mic" else names[0]
    camera = None if not pictures else _default(CAMERAS) if names[1] == "camera" else names[1]
    return DeviceInput(microphone, camera)


def open_device(name: str) -> InputContainer:
    """A device by the input it is read through and its name there: ``alsa:default``.

    Raises:
        ValueError: this build of PyAV has no such input, or it cannot be opened.
    """
    kind, _, rest = name.partition(":")
    if not _has(kind):
        there = ", ".join(each for each in DEVICES if _has(each)) or "none"
        raise ValueError(f"{name}: this build of PyAV cannot read from {kind}; the inputs it has: {there}.")
    try:
        return av.open(rest, "r", format=kind)
    except PYAV_ERRORS as error:
        raise ValueError(f"{name}: the device cannot be opened ({describe(error)}); is it there, and free?") from error


def _has(kind: str) -> bool:
    try:
        return bool(ContainerFormat(kind, "r").is_input)
    except ValueError:
        return False


def _default(names: Mapping[str, tuple[str, ...]]) -> str:
    choice = names.get(platform.system(), ())
    found = next((name for name in choice if _has(name.split(":")[0])), None)
    if found is None:
        raise ValueError(
            f"No microphone or camera can be read here: this build of PyAV has none of {', '.join(choice) or 'the inputs of this system'}; "
            "name a device, such as alsa:default, or a file."
        )
    return found
