"""What the page of `demos.noisy_speech` does behind its buttons: open a clip, put noise on its sound, write down what is said.

Nothing here knows of a browser. The lips of a clip are found once; every noise after that costs only a mixture and two passes of the model.
"""

import functools
import hashlib
import tempfile
import threading
import time
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from avtlm.data.container import PYAV_ERRORS, describe, open_media, video_stream
from avtlm.data.dataset import Item, collate
from avtlm.data.manifest import Manifest, Utterance, read_manifest
from avtlm.data.media import SAMPLE_RATE, MediaError, read_audio, read_clip, write_clip
from avtlm.data.noise import BabblePool, mix_at_snr
from avtlm.data.seeds import seed_for
from avtlm.lips.crop import extract_lips
from avtlm.lips.landmarks import FaceMesh, LandmarkProvider
from avtlm.transcribe import to_int16
from avtlm.transcriber import Transcriber

CLEAN = 20  # dB on the slider from which on no noise is added
NOISES = ("babble", "white", "file")
MAX_SECONDS = 20.0
MAX_NOISE_SECONDS = 600.0
MAX_PIXELS = 4096 * 2304  # of a picture
KEPT_CLIPS = 50
LIPS_SCALE = 3  # the crops of 96 pixels are shown larger
VIDEOS = {".mp4", ".m4v", ".mov", ".webm", ".mkv", ".avi", ".mpg"}
FEW_SPEAKERS = 4  # fewer in the test split, and all splits lend their voices to the babble


@dataclass(frozen=True)
class Example:
    """A clip to choose, with what is said in it."""

    path: Path
    id: str
    speaker: str
    transcript: str
    picture: np.ndarray  # uint8 (height, width, 3)


@dataclass(frozen=True)
class OpenedClip:
    """A clip whose lips have been found.

    Attributes:
        id: seeds its noise.
        wave: int16 (samples,) at 16 kHz.
        video: uint8 (frames, size, size), as the model takes it in.
        lips: a small video of the crops for the browser.
        read: what the model reads from the lips alone, which no noise changes.
    """

    id: str
    speaker: str
    wave: np.ndarray
    video: torch.Tensor
    lips: Path
    read: str
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class Outcome:
    """A clip in noise: int16 (samples,) at 16 kHz, its transcripts by modality, and the seconds these took."""

    wave: np.ndarray
    texts: dict[str, str]
    seconds: float


class Studio:
    """A model, voices for the babble, and the clips that were opened last. May be used from several threads.

    Args:
        recognizer: in evaluation mode.
        voices: background voices.
        folder: where playable lip videos are put.
        provider: finds face landmarks; default: FaceMesh.
    """

    def __init__(self, recognizer: Transcriber, voices: BabblePool, folder: Path, provider: LandmarkProvider | None = None) -> None:
        self.recognizer = recognizer
        self.voices = voices
        self.folder = folder
        self.inputs = recognizer.inputs
        self.provider = provider or FaceMesh()
        self._names: dict[str, tuple[str, str]] = {}
        self._clips: OrderedDict[str, OpenedClip] = OrderedDict()
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
            self._clips[key] = self._open(path, *self._names.get(key, (key, "visitor")))
            while len(self._clips) > KEPT_CLIPS:
                _, old = self._clips.popitem(last=False)
                old.lips.unlink(missing_ok=True)
            return self._clips[key]

    def _open(self, path: Path, name: str, speaker: str) -> OpenedClip:
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
        found = extract_lips(path, self.provider, self.recognizer.geometry)
        if found.audio is None or not np.any(np.abs(found.audio) > 1e-4):
            raise MediaError(path, "is silent; choose or record a video in which somebody is heard.")
        with tempfile.NamedTemporaryFile(dir=self.folder, suffix=".mp4", delete=False) as file:
            lips = Path(file.name)
        try:
            write_clip(lips, found.crops.repeat(LIPS_SCALE, axis=1).repeat(LIPS_SCALE, axis=2))
            video = self.inputs.video(found.crops)
            read = self._recognise(Item(name, video=video), "v")
        except BaseException:
            lips.unlink(missing_ok=True)  # nobody would ask for it, or delete it, before the page ends
            raise
        return OpenedClip(name, speaker, to_int16(found.audio), video, lips, read, found.report.warnings)

    def listen(self, clip: OpenedClip, noise: str = "babble", snr: float = CLEAN, file: str | Path | None = None) -> Outcome:
        """Put noise on a clip and write down what is heard, seen, and both.

        Args:
            clip: from `open`.
            noise: ``babble`` of six clips of other speakers, ``white``, or ``file``.
            snr: energy of the speech over that of the noise in dB; from `CLEAN` on the sound stays as it is.
            file: the sound file of the noise ``file``.

        Raises:
            MediaError: the sound file cannot be used.
            ValueError: another noise, or no file was given.
        """
        wave = clip.wave
        if snr < CLEAN:
            wave = mix_at_snr(wave, self._noise(clip, noise, file), snr)
        start = time.perf_counter()
        item = Item(clip.id, audio=self.inputs.audio(wave, len(clip.video)), video=clip.video)
        with self._lock:
            texts = {"a": self._recognise(item, "a"), "v": clip.read, "av": self._recognise(item, "av")}
        return Outcome(wave, texts, time.perf_counter() - start)

    def _noise(self, clip: OpenedClip, noise: str, file: str | Path | None) -> np.ndarray:
        """The same for a clip at every ratio."""
        if noise == "babble":
            return self.voices.noise(clip.id, clip.speaker, len(clip.wave))
        if noise == "white":
            return np.random.default_rng(seed_for(0, "white", clip.id)).standard_normal(len(clip.wave))
        if noise != "file":
            raise ValueError(f"noise: {noise!r} is unknown; choose one of {', '.join(NOISES)}.")
        if file is None:
            raise ValueError("Choose a sound file for the noise, or another kind of noise.")
        with self._lock:
            if self._noise_file is None or self._noise_file[0] != str(file):
                self._noise_file = str(file), read_noise(file)
            return self._noise_file[1]

    @torch.inference_mode()
    def _recognise(self, item: Item, modality: str) -> str:
        device = next(self.recognizer.parameters()).device
        batch = collate([item], "recognition").to(device).only(modality)
        return self.recognizer.transcribe_batch(batch)[0].text


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


def pick_examples(manifest: str | Path, count: int = 8) -> list[Example]:
    """Clips of unseen speakers to choose from: the first of every speaker of the test split, then their second ones, and so on.

    Raises:
        ValueError: the corpus has no videos with transcripts in its test split.
    """
    corpus = read_manifest(manifest)
    ranks: dict[str, int] = {}
    rows: list[tuple[int, Utterance]] = []
    for row in corpus.split("test"):
        if row.video is not None and Path(row.video).suffix.lower() in VIDEOS and row.transcript:
            speaker = row.speaker or row.id
            ranks[speaker] = ranks.get(speaker, -1) + 1
            rows.append((ranks[speaker], row))
    if not rows:
        raise ValueError(f"{manifest}: the test split has no videos with transcripts to choose from; name another corpus with --corpus.")
    chosen = [row for _, row in sorted(rows, key=lambda pair: pair[0])[:count]]
    return [_example(corpus, row) for row in chosen]


def _example(corpus: Manifest, row: Utterance) -> Example:
    path = corpus.path(row.video)
    assert path is not None
    frames = read_clip(path, audio=False, colour=True).frames
    assert frames is not None
    return Example(path.resolve(), row.id, row.speaker or row.id, row.transcript or "", frames[len(frames) // 2])


def gather_voices(manifest: str | Path, each: int = 2, most: int = 40) -> BabblePool:
    """Background voices: some clips of every speaker of the test split, or of all splits if that has few speakers.

    Raises:
        ValueError: the corpus has no clips with sound.
    """
    corpus = read_manifest(manifest)
    test = corpus.split("test")
    rows = test if len({row.speaker for row in test}) >= FEW_SPEAKERS else corpus
    taken: dict[str, int] = {}
    waves: list[np.ndarray] = []
    speakers: list[str] = []
    for row in rows:
        path, speaker = corpus.path(row.audio or row.video), row.speaker or row.id
        if path is None or taken.get(speaker, 0) >= each or len(waves) >= most:
            continue
        taken[speaker] = taken.get(speaker, 0) + 1
        waves.append(read_audio(path, SAMPLE_RATE))
        speakers.append(speaker)
    if len(taken) < 2:
        raise ValueError(f"{manifest}: babble needs clips of at least two speakers; name another corpus with --corpus.")
    return BabblePool(waves, speakers)
