"""Captions while somebody speaks: a window of sound that grows is decoded again and again, and what two decodings agree on is final.

Every published system here has an encoder that sees the whole utterance, so what was decoded may change with every sound that follows.
Local agreement (Liu et al., Interspeech 2020; Machacek et al. 2023) makes a stream of it: twice a second the open segment is decoded from
its start; words on which this decoding and the one before agree, from the first not yet final one on, are final, and the rest is shown as
partial. When the speaker pauses, or the window is full, the segment is decoded a last time and all of it is final.

Latency is the time from the end of a word to the moment at which it is final. Input that is played faster than it was spoken is timed as
if it came in real time: a decoding starts when its sound is there and the one before is done, and lasts as long as was measured.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from avtlm.data.container import FPS, SAMPLE_RATE
from avtlm.data.dataset import collate
from avtlm.data.live_input import Chunk, DeviceInput, FileInput
from avtlm.decoding.merging import AGREE, shifted, timed
from avtlm.decoding.result import Word
from avtlm.decoding.segments import Segment, Segmenter
from avtlm.decoding.voice_activity import find_detector
from avtlm.lips.crop import LipError, find_lips
from avtlm.lips.landmarks import FaceMesh, LandmarkProvider
from avtlm.long_recordings import LongOptions, pictures_of, segment_item
from avtlm.transcribe import changed_decoding
from avtlm.transcriber import Transcriber

SHORTEST = 0.4  # seconds below which a segment is not decoded
BEHIND = 0.4  # seconds by which live sound may lag when it is decoded
MOST_MISSING = 0.5  # share of the pictures in which the face may be missing


@dataclass(frozen=True)
class LiveOptions(LongOptions):
    """How live speech is divided, and ``step``: seconds of new sound between two decodings."""

    step: float = 0.5

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.step <= 0:
            raise ValueError(f"step: {self.step}; give a number of seconds above 0.")


@dataclass(frozen=True)
class Caption:
    """Words that are ``final``, or may still change; ``time``: seconds from the start of the stream at which they are shown."""

    final: bool
    time: float
    words: tuple[Word, ...]

    @property
    def text(self) -> str:
        return " ".join(word.text for word in self.words)


@dataclass(frozen=True)
class CaptionReport:
    """What was measured.

    Attributes:
        seconds: of sound.
        words: that became final.
        latency_mean, latency_95: mean and 95th percentile of the seconds from the end of a word to its final caption; None without words.
        real_time_factor: seconds of computing for a second of sound.
        decodings: how often some window was decoded.
        problems: decodings that failed.
        word_times: ``recogniser``, or ``guessed`` if it knows none and the words shared the time of their segment by letters.
    """

    seconds: float
    words: int
    latency_mean: float | None
    latency_95: float | None
    real_time_factor: float
    decodings: int
    problems: tuple[str, ...]
    word_times: str

    def to_dict(self) -> dict[str, Any]:
        """Plain values."""
        values = {name: getattr(self, name) for name in self.__dataclass_fields__}
        return {name: round(value, 3) if isinstance(value, float) else value for name, value in values.items()} | {
            "problems": list(self.problems),
            "method": "growing window decoded again, local agreement of two decodings",
        }

    def __str__(self) -> str:
        if self.latency_mean is None or self.latency_95 is None:
            latency = "no words"
        else:
            latency = f"{self.words} words, final {self.latency_mean:.2f} s after their end on average, 95 % within {self.latency_95:.2f} s"
        guessed = " (ends of words guessed)" if self.word_times == "guessed" and self.words else ""
        return f"{self.seconds:.1f} s of sound: {latency}{guessed}; real-time factor {self.real_time_factor:.2f}"


class LocalAgreement:
    """Words become final once two successive decodings of a growing window agree on them."""

    def __init__(self) -> None:
        self._final: list[Word] = []
        self._before: list[Word] = []

    def update(self, words: Sequence[Word]) -> tuple[list[Word], list[Word]]:
        """The words of a new decoding of the window -> those that have become final, and those that may change."""
        rest, before = continuation(self._final, words), continuation(self._final, self._before)
        agreed = next((i for i, pair in enumerate(zip(rest, before)) if pair[0].text != pair[1].text), min(len(rest), len(before)))
        self._final += rest[:agreed]
        self._before = list(words)
        return rest[:agreed], rest[agreed:]

    def finish(self, words: Sequence[Word]) -> list[Word]:
        """The words of the last decoding -> what was not final yet."""
        rest = continuation(self._final, words)
        self._final += rest
        return rest


def continuation(said: Sequence[Word], words: Sequence[Word]) -> list[Word]:
    """What of ``words`` comes after ``said``: behind the beginning of them that is nearest to it by edits."""
    row = list(range(len(words) + 1))  # edits between nothing and the first words
    for count, word in enumerate(said, 1):
        above, row = row, [count]
        for j, other in enumerate(words, 1):
            row.append(min(above[j] + 1, row[-1] + 1, above[j - 1] + (word.text != other.text)))
    # Of equally near beginnings the one of as many words.
    best = min(range(len(row)), key=lambda j: (row[j], abs(j - len(said))))
    return list(words[best:])


def unheard(words: Sequence[Word], told: Sequence[Word]) -> list[Word]:
    """Words of a window, with times, behind the last one that was told of the window before it."""
    if not told or told[-1].start is None or told[-1].end is None:
        return list(words)
    last, end = told[-1], told[-1].end
    middle = (told[-1].start + end) / 2
    found: list[Word] = []
    for word in words:
        at = ((word.start or 0.0) + (word.end or 0.0)) / 2
        if at > end and not (not found and word.text == last.text and at - middle <= AGREE):
            found.append(word)
    return found


@dataclass
class LiveCaptions:
    """Captions of one stream.

    Args:
        recognizer: in evaluation mode.
        modality: ``av``, ``a``, or ``v`` (the sound then only says where the pauses are).
        live: the input comes in real time, so that the clock of the wall counts.
        options: how speech is divided, and how often it is decoded.
        decoding: changes to the model's decoding settings.
        geometry, provider: of the lips; see avtlm.transcribe.transcribe.

    Raises:
        ValueError: an unknown modality, or one the model cannot take.
        MissingExtra: lips or a detector need a package that is not installed.
    """

    recognizer: Transcriber
    modality: str = "a"
    live: bool = False
    options: LiveOptions = field(default_factory=LiveOptions)
    decoding: Sequence[str] = ()
    geometry: str | None = None
    provider: LandmarkProvider | None = None

    def __post_init__(self) -> None:
        if self.modality not in ("av", "a", "v"):
            raise ValueError(f"modality: {self.modality!r} is unknown; choose one of av, a, v.")
        if self.recognizer.inputs.video_size is None:
            if self.modality == "v":
                raise ValueError("modality: 'v' was asked for, but this model hears only; choose a.")
            self.modality = "a"
        if "v" in self.modality:
            self.provider = self.provider or FaceMesh()
        self._search = replace(changed_decoding(self.recognizer, self.decoding), words=True)
        self._segmenter = Segmenter(find_detector(self.options.vad), self.options)
        self._agreement = LocalAgreement()
        self._segment = -1.0  # start of the segment that the agreement is about
        self._said: list[Word] = []  # final words of the last segment
        self._told: list[Word] = []  # the last of them, if the segment overlaps that one
        self._pictures: list[np.ndarray] = []
        self._dropped = 0  # pictures before these
        self._started: float | None = None
        self._busy = self._decoded = 0.0  # until when the recogniser is busy; how much had been heard at the last decoding
        self._computing = 0.0
        self._latencies: list[float] = []
        self._decodings = 0
        self._guessed = False
        self._problems: list[str] = []

    def captions(self, source: FileInput | DeviceInput) -> Iterator[Caption]:
        """Captions of a source until it ends; `report` afterwards tells what was measured.

        Raises:
            MediaError: the source cannot be read.
        """
        for chunk in source:
            yield from self.feed(chunk)
        yield from self.finish()

    def feed(self, chunk: Chunk) -> Iterator[Caption]:
        """The next sound and pictures of the stream."""
        if self._started is None:
            self._started = time.monotonic() - len(chunk.sound) / SAMPLE_RATE
        self._pictures.extend(chunk.pictures)
        for segment in self._segmenter.feed(chunk.sound):
            yield from self._close(segment)
        heard, going_on = self._segmenter.seconds, self._segmenter.open()
        # Who is behind hears what has come meanwhile before decoding again.
        ready = self._now() - heard < BEHIND if self.live else self._busy <= heard
        due = ready and heard - self._decoded >= self.options.step
        if due and going_on is not None and going_on.end - going_on.start >= SHORTEST:
            self._begin(going_on)
            final, partial = self._agreement.update(self._decode(going_on))
            yield from self._show(final, True)
            yield from self._show(partial, False)
        self._forget(heard if going_on is None else going_on.start)

    def finish(self) -> Iterator[Caption]:
        """The stream has ended."""
        for segment in self._segmenter.finish():
            yield from self._close(segment)

    def report(self) -> CaptionReport:
        """What was measured so far."""
        seconds, found = self._segmenter.seconds, self._latencies
        mean, high = (float(np.mean(found)), float(np.percentile(found, 95))) if found else (None, None)
        times = "guessed" if self._guessed else "recogniser"
        factor = self._computing / max(seconds, 1e-9)
        return CaptionReport(seconds, len(found), mean, high, factor, self._decodings, tuple(self._problems), times)

    def _close(self, segment: Segment) -> Iterator[Caption]:
        """A segment has ended: all its words are final, but those that the next one will hear again, and better."""
        self._begin(segment)
        words = self._decode(segment)
        if segment.continues:
            limit = segment.end - self.options.shared / 2
            spans = timed(words, segment.start, segment.end)
            words = [word for word, (start, end) in zip(words, spans, strict=True) if (start + end) / 2 < limit]
        yield from self._show(self._agreement.finish(words), True)
        self._said = words

    def _begin(self, segment: Segment) -> None:
        if segment.start == self._segment:
            return
        self._agreement, self._segment = LocalAgreement(), segment.start
        self._told = self._said[-1:] if segment.overlaps else []

    def _decode(self, segment: Segment) -> list[Word]:
        """Words of a segment, on the clock of the stream; none if it cannot be used, which is noted."""
        started = time.perf_counter()
        try:
            item = segment_item("stream", *self._input(segment), self.recognizer.inputs)
            device = next(self.recognizer.parameters()).device
            (found,) = self.recognizer.transcribe_batch(collate([item], "recognition").to(device), self._search)
            words = list(shifted(found.words, segment.start))
        except (ValueError, ArithmeticError, RuntimeError) as error:
            self._problems.append(f"{segment.start:.2f}-{segment.end:.2f} s: {' '.join(str(error).split())}")
            words = []
        took = time.perf_counter() - started
        self._computing += took
        self._decodings += 1
        heard = self._segmenter.seconds
        self._busy, self._decoded = max(self._busy, heard) + took, heard
        if any(word.start is None for word in words):
            self._guessed = True
            spans = timed(words, segment.start, segment.end)
            words = [replace(word, start=start, end=end) for word, (start, end) in zip(words, spans, strict=True)]
        return unheard(words, self._told)

    def _input(self, segment: Segment) -> tuple[Segment, Any, int]:
        """Sound (None if it is only seen), lips (None if it is only heard), and the number of the first picture."""
        first, last = pictures_of(segment)
        if "v" not in self.modality:
            return segment, None, first
        assert self.provider is not None
        pictures = self._pictures[max(0, first - self._dropped) : last - self._dropped]
        geometry = self.geometry or self.recognizer.geometry
        try:
            crops = find_lips("stream", pictures, self.provider, geometry, MOST_MISSING, first=first).crops
        except LipError:
            if "a" not in self.modality:
                raise
            return segment, None, first
        return segment if "a" in self.modality else replace(segment, wave=None), self.recognizer.inputs.video(crops), first

    def _show(self, words: Sequence[Word], final: bool) -> Iterator[Caption]:
        if not words:
            return
        now = self._now()
        if final:
            self._latencies += [max(0.0, now - word.end) for word in words if word.end is not None]
        yield Caption(final, now, tuple(words))

    def _now(self) -> float:
        """Seconds since the stream began: by the clock if it is live, else as if it were."""
        assert self._started is not None
        return time.monotonic() - self._started if self.live else max(self._busy, self._segmenter.seconds)

    def _forget(self, start: float) -> None:
        """Let go of pictures before the open segment, but for the padding and what the detector still waits for."""
        drop = int((start - self.options.padding - self.options.min_silence - 2.0) * FPS) - self._dropped
        if drop > 0:
            del self._pictures[:drop]
            self._dropped += drop
