"""What the page of `demos.noisy_speech` does behind its buttons: open a clip, put noise on its sound, have models write down what is said.

Nothing here knows of a browser. The lips of a clip are found once; every noise after that costs a mixture and what the models have not read
before. Who no longer waits for an answer stops it between two readings.
"""

import functools
import hashlib
import tempfile
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from avtlm.data.container import PYAV_ERRORS, describe, open_media, video_stream
from avtlm.data.media import MediaError, read_audio, write_clip
from avtlm.data.noise import BabblePool, mix_at_snr
from avtlm.data.seeds import seed_for
from avtlm.lips.crop import LipClip, extract_lips
from avtlm.lips.landmarks import FaceMesh, LandmarkProvider
from avtlm.transcribe import to_int16
from demos.demo_examples import Example
from demos.demo_reading import Reader, Reading

CLEAN = 20  # dB on the slider from which on no noise is added
NOISES = ("babble", "white", "file")
MAX_SECONDS = 20.0
MAX_NOISE_SECONDS = 600.0
MAX_PIXELS = 4096 * 2304  # of a picture
KEPT_CLIPS = 50
LIPS_SCALE = 3  # the crops of 96 pixels are shown larger


class OvertakenError(Exception):
    """Nobody waits for this answer any more: the visitor has asked for something else."""


@dataclass(frozen=True)
class OpenedClip:
    """A clip whose lips have been found.

    Attributes:
        key: names the content of the file.
        id: seeds its noise.
        wave: int16 (samples,) at 16 kHz.
        crops: uint8 (frames, 96, 96) by the way in which they were aligned (avtlm.lips.align), one for each that a model wants.
        lips: a small video of the crops for the browser.
    """

    key: str
    id: str
    speaker: str
    wave: np.ndarray
    crops: Mapping[str, np.ndarray]
    lips: Path
    warnings: tuple[str, ...]

    @property
    def pictures(self) -> np.ndarray:
        """The crops to show: those of the first model."""
        return next(iter(self.crops.values()))


@dataclass(frozen=True)
class Outcome:
    """A clip in noise: int16 (samples,) at 16 kHz, and what each model reads by modality."""

    wave: np.ndarray
    readings: dict[str, dict[str, Reading]]

    @property
    def seconds(self) -> float:
        """What all readings took, when they were made."""
        return sum(reading.transcript.timings.get("recognition", 0.0) for each in self.readings.values() for reading in each.values())


class Studio:
    """Models, voices for the babble, and the clips that were opened last. May be used from several threads.

    Args:
        readers: the models; at least one.
        voices: background voices.
        folder: where playable lip videos are put.
        provider: finds face landmarks; default: FaceMesh.
    """

    def __init__(self, readers: Sequence[Reader], voices: BabblePool, folder: Path, provider: LandmarkProvider | None = None) -> None:
        self.readers = list(readers)
        self.voices = voices
        self.folder = folder
        self.provider = provider or FaceMesh()
        self._geometries = list(dict.fromkeys(reader.model.geometry for reader in self.readers))
        self._names: dict[str, tuple[str, str]] = {}
        self._clips: OrderedDict[str, OpenedClip] = OrderedDict()
        self._noises: OrderedDict[tuple[str, str], np.ndarray] = OrderedDict()
        self._noise_file: tuple[str, np.ndarray] | None = None
        self._lock = threading.RLock()

    def introduce(self, examples: list[Example]) -> None:
        """Tell who speaks in the examples, so that they do not babble behind themselves."""
        self._names |= {fingerprint(example.path): (example.id, example.speaker) for example in examples}

    def open(self, path: str | Path) -> OpenedClip:
        """The lips and the sound of a clip; from memory if it was opened before.

        Raises:
            MediaError: unreadable, too long, without a face, or without sound.
        """
        path = Path(path)
        if not path.is_file():
            raise MediaError(path, "is no longer there; choose the clip again.")
        key = fingerprint(path)
        with self._lock:
            if key in self._clips:
                self._clips.move_to_end(key)
                return self._clips[key]
            self._clips[key] = self._open(path, key, *self._names.get(key, (key, "visitor")))
            while len(self._clips) > KEPT_CLIPS:
                self._forget(*self._clips.popitem(last=False))
            return self._clips[key]

    def _forget(self, key: str, clip: OpenedClip) -> None:
        clip.lips.unlink(missing_ok=True)
        for reader in self.readers:
            reader.forget(key)
        for name in [name for name in self._noises if name[1] == clip.id]:
            del self._noises[name]

    def _open(self, path: Path, key: str, name: str, speaker: str) -> OpenedClip:
        with open_media(path) as container:
            stream = video_stream(container)
            if stream is None:
                raise MediaError(path, "has no video track; choose or record a video of a speaking face.")
            if stream.width * stream.height > MAX_PIXELS:
                raise MediaError(path, f"has pictures of {stream.width} x {stream.height}; this page takes at most 4096 x 2304.")
            if not container.streams.audio:
                raise MediaError(path, "has no audio track; choose or record a video with sound.")
        if (seconds := round(length(path))) > MAX_SECONDS:  # of the number that is told
            raise MediaError(path, f"is {seconds} s long; this page takes clips of at most {MAX_SECONDS:.0f} s.")
        found: dict[str, LipClip] = {}
        for geometry in self._geometries:
            found[geometry] = extract_lips(path, self.provider, geometry, audio=not found)
        first = found[self._geometries[0]]
        if first.audio is None or not np.any(np.abs(first.audio) > 1e-4):
            raise MediaError(path, "is silent; choose or record a video in which somebody is heard.")
        with tempfile.NamedTemporaryFile(dir=self.folder, suffix=".mp4", delete=False) as file:
            lips = Path(file.name)
        try:
            write_clip(lips, first.crops.repeat(LIPS_SCALE, axis=1).repeat(LIPS_SCALE, axis=2))
        except BaseException:
            lips.unlink(missing_ok=True)  # nobody would ask for it, or delete it, before the page ends
            raise
        crops = {geometry: clip.crops for geometry, clip in found.items()}
        return OpenedClip(key, name, speaker, to_int16(first.audio), crops, lips, first.report.warnings)

    def listen(
        self,
        clip: OpenedClip,
        noise: str = "babble",
        snr: float = CLEAN,
        file: str | Path | None = None,
        wanted: Callable[[], bool] = lambda: True,
    ) -> Outcome:
        """Put noise on a clip and have every model write down what is heard, seen, and both.

        Args:
            clip: from `open`.
            noise: ``babble`` of six clips of other speakers, ``white``, or ``file``.
            snr: energy of the speech over that of the noise in dB; from `CLEAN` on the sound stays as it is.
            file: the sound file of the noise ``file``.
            wanted: whether somebody still waits for this; asked before every reading.

        Raises:
            MediaError: the sound file cannot be used.
            OvertakenError: it is not wanted any more; what was read until then is kept.
            ValueError: another noise, or no file was given.
        """
        wave = clip.wave if snr >= CLEAN else mix_at_snr(clip.wave, self._noise(clip, noise, file), snr)
        readings: dict[str, dict[str, Reading]] = {reader.name: {} for reader in self.readers}
        for reader in self.readers:
            for modality in reader.modalities:
                if not wanted():
                    raise OvertakenError
                with self._lock:
                    crops = clip.crops[reader.model.geometry]
                    readings[reader.name][modality] = reader.read(clip.key, modality, wave, crops)
        return Outcome(wave, readings)

    def _noise(self, clip: OpenedClip, noise: str, file: str | Path | None) -> np.ndarray:
        """The same for a clip at every ratio; made once for the clips that are open."""
        if noise not in NOISES:
            raise ValueError(f"noise: {noise!r} is unknown; choose one of {', '.join(NOISES)}.")
        with self._lock:
            if noise == "file":
                if file is None:
                    raise ValueError("Choose a sound file for the noise, or another kind of noise.")
                if self._noise_file is None or self._noise_file[0] != str(file):
                    self._noise_file = str(file), read_noise(file)
                return self._noise_file[1]
            key = (noise, clip.id)
            if key not in self._noises:
                made = (
                    self.voices.noise(clip.id, clip.speaker, len(clip.wave))
                    if noise == "babble"
                    else np.random.default_rng(seed_for(0, "white", clip.id)).standard_normal(len(clip.wave))
                )
                self._noises[key] = made.astype(np.float32)
            return self._noises[key]


def fingerprint(path: Path) -> str:
    """Names the content of a file: the server keeps copies of examples and uploads under names of its own."""
    return _digest(str(path), path.stat().st_size, path.stat().st_mtime_ns)


@functools.lru_cache(maxsize=1000)
def _digest(path: str, size: int, changed: int) -> str:
    return hashlib.sha256(Path(path).read_bytes()).hexdigest()


def read_noise(path: str | Path) -> np.ndarray:
    """float32 (samples,) at 16 kHz.

    Raises:
        MediaError: unreadable, too long, or silent.
    """
    if (seconds := round(length(path))) > MAX_NOISE_SECONDS:
        raise MediaError(path, f"is {seconds} s long; choose a noise of at most {MAX_NOISE_SECONDS:.0f} s.")
    sound = read_audio(path)
    if not np.any(np.abs(sound) > 1e-4):
        raise MediaError(path, "is silent; choose a file with some noise in it.")
    return sound


def length(path: str | Path) -> float:
    """Seconds of a media file by the time stamps in it: recordings of browsers promise none.

    Raises:
        MediaError: the file cannot be read.
    """
    spans: dict[int, tuple[float, float]] = {}
    with open_media(path) as container:
        try:
            for packet in container.demux():
                if packet.pts is not None and packet.time_base is not None:
                    begin = float(packet.pts * packet.time_base)
                    end = begin + float((packet.duration or 0) * packet.time_base)
                    first, last = spans.get(packet.stream_index, (begin, end))
                    spans[packet.stream_index] = min(first, begin), max(last, end)
        except PYAV_ERRORS as error:
            raise MediaError(path, f"is damaged ({describe(error)}).") from error
    return max((last - first for first, last in spans.values()), default=0.0)
