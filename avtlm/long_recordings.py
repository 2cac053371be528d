"""Recordings of any length to transcripts: segment by segment, in memory that does not grow, on the recording's clock.

Sound is read in blocks and divided by voice activity (avtlm.decoding.segments); lips are cut out of the video segment by segment.
Segments are decoded in small batches, and words of overlapping ones are merged (avtlm.decoding.merging). A segment that cannot be used is
reported and left out; the rest goes on. For lips alone the pauses of the sound only say where to cut, and if nothing is heard, windows
that overlap are read.
"""

import logging
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from torch import Tensor

from avtlm.data.container import FPS, SAMPLE_RATE, MediaError, open_media, video_stream
from avtlm.data.dataset import Item, collate
from avtlm.data.inputs import InputFormat
from avtlm.data.sound_stream import SoundStream, media_seconds
from avtlm.decoding.merging import merge_windows, shifted, timed
from avtlm.decoding.result import Transcript, Word
from avtlm.decoding.segments import Segment, Segmenter, SegmentOptions, windows
from avtlm.decoding.settings import DecodingConfig
from avtlm.decoding.voice_activity import find_detector
from avtlm.lips.crop import LipError, extract_lips
from avtlm.lips.landmarks import LandmarkProvider
from avtlm.memory import give_memory_back
from avtlm.training.progress import bar
from avtlm.transcribe import to_int16
from avtlm.transcriber import Transcriber

logger = logging.getLogger(__name__)

BATCH_SECONDS = 60.0  # in one batch, padding too: what memory is bounded by
BATCH_SEGMENTS = 16


@dataclass(frozen=True)
class LongOptions(SegmentOptions):
    """How a long recording is divided, and by which detector of speech: ``energy`` or ``silero`` (the extra ``vad``)."""

    vad: str = "energy"


@dataclass(frozen=True)
class Part:
    """A segment of a recording, in seconds, with its words on the recording's clock; ``problem``: why it has none."""

    start: float
    end: float
    text: str
    words: tuple[Word, ...] = ()
    problem: str | None = None


@dataclass(frozen=True)
class LongTranscript(Transcript):
    """A transcript with its parts, in order. It has no n-best lists: they would grow with the recording."""

    parts: tuple[Part, ...] = ()

    @property
    def problems(self) -> list[str]:
        """What could not be transcribed, and why."""
        return [f"{part.start:.2f}-{part.end:.2f} s: {part.problem}" for part in self.parts if part.problem is not None]

    def to_dict(self) -> dict[str, Any]:
        parts = [{"start": round(part.start, 3), "end": round(part.end, 3), "text": part.text} for part in self.parts]
        return {**super().to_dict(), "segments": parts, "problems": self.problems}

    def cues(self) -> list[tuple[float, float, str]]:
        """As of a `Transcript`; words without times share the time of their segment by letters."""
        words = [
            Word(word.text, *span)
            for part in self.parts
            for word, span in zip(part.words, timed(part.words, part.start, part.end), strict=True)
        ]
        return Transcript(self.text, tuple(words), duration=self.duration).cues()


def transcribe_recording(
    path: str | Path,
    recognizer: Transcriber,
    modality: str,
    decoding: DecodingConfig,
    options: LongOptions | None = None,
    geometry: str = "avhubert",
    provider: LandmarkProvider | None = None,
) -> LongTranscript:
    """The transcript of one recording of any length; see avtlm.transcribe.transcribe for the arguments.

    Raises:
        MediaError: the file cannot be used, nothing is heard in it, or no segment of it could be transcribed.
        MissingExtra: the detector of speech is not installed.
    """
    decoding = replace(decoding, words=True)  # windows that overlap are merged by the times of their words
    return Recording(Path(path), recognizer, modality, decoding, options or LongOptions(), geometry, provider).transcribe()


@dataclass
class Recording:
    """One run over one file."""

    path: Path
    recognizer: Transcriber
    modality: str
    decoding: DecodingConfig
    options: LongOptions
    geometry: str
    provider: LandmarkProvider | None
    notes: list[str] = field(default_factory=list)
    seconds: float = 0.0
    recognition: float = 0.0
    errors: list[Exception] = field(default_factory=list)

    def transcribe(self) -> LongTranscript:
        """See `transcribe_recording`."""
        started = time.perf_counter()
        self.seconds = media_seconds(self.path)
        parts: list[Part] = []
        with bar(self.path.name, round(self.seconds) or None) as progress:
            for segment, part in self._recognised():
                if segment.overlaps and parts:
                    parts[-1], part = self._merge(parts[-1], part)
                parts.append(part)
                progress.advance(max(0, round(min(part.end, self.seconds)) - progress.done), f"{len(parts)} segments")
        for note in dict.fromkeys(self.notes):
            logger.warning("%s: %s.", self.path, note)
        if self.errors and all(part.problem is not None for part in parts):
            first = self.errors[0]
            if isinstance(first, MediaError):
                raise MediaError(self.path, f"none of its {len(parts)} segments could be used; of the first: {first.reason}")
            raise first
        took = time.perf_counter() - started
        timings = {"recognition": self.recognition, "total": took, "real_time_factor": took / max(self.seconds, 1e-9)}
        words = tuple(word for part in parts for word in part.words)
        text = " ".join(part.text for part in parts if part.text)
        return LongTranscript(text, words, (), timings, self.seconds, tuple(parts))

    # Segments ------------------------------------------------------------------------------------------------------------------------

    def _segments(self) -> Iterator[Segment]:
        lips, heard = "v" in self.modality, True
        if lips:
            with open_media(self.path) as container:
                if video_stream(container) is None:
                    more = "; ask for modality a to hear the sound alone" if "a" in self.modality else ""
                    raise MediaError(self.path, f"has no video track{more}.")
                heard = bool(container.streams.audio)
                if not heard and "a" in self.modality:
                    raise MediaError(self.path, "has no audio track; ask for modality v to read the lips alone.")
        if heard:
            stream = SoundStream(self.path)
            segmenter = Segmenter(find_detector(self.options.vad), self.options)
            for block in stream:
                yield from segmenter.feed(block)
            yield from segmenter.finish()
            self.notes += stream.notes
            self.seconds = segmenter.seconds if not lips else self.seconds
            if stream.audible:
                return
            if not lips:
                raise MediaError(self.path, "is silent; there is nothing to hear.")
            self.notes.append("the audio is silent; the lips are read in windows that overlap")
        yield from windows(self.seconds, self.options)

    def _item(self, segment: Segment) -> Item:
        """What the model takes in.

        Raises:
            MediaError, ValueError: it cannot be used.
        """
        name, inputs, wave = f"{self.path} {segment.start:.2f}", self.recognizer.inputs, segment.wave
        first, last = pictures_of(segment)
        video = None
        if "v" in self.modality:
            try:
                clip = extract_lips(self.path, self.provider, self.geometry, audio=False, span=(first / FPS, last / FPS), seek=True)
                video = inputs.video(clip.crops)
                for note in clip.report.warnings:
                    logger.debug("%s: from %.2f to %.2f s: %s.", self.path, segment.start, segment.end, note)
            except LipError as error:
                if "a" not in self.modality or wave is None:
                    raise
                self.notes.append(f"from {segment.start:.2f} to {segment.end:.2f} s only the sound is used: {error.reason.rstrip('.')}")
        return segment_item(name, replace(segment, wave=wave if "a" in self.modality else None), video, first, inputs)

    # Recognition ---------------------------------------------------------------------------------------------------------------------

    def _recognised(self) -> Iterator[tuple[Segment, Part]]:
        waiting: list[tuple[Segment, Item | Exception]] = []
        for segment in self._segments():
            entry: tuple[Segment, Item | Exception]
            try:
                entry = segment, self._item(segment)
            except ValueError as error:  # MediaError is one
                entry = segment, error
            longest = max(each.end - each.start for each, _ in [*waiting, entry])
            kinds = {item.video is None for _, item in [*waiting, entry] if isinstance(item, Item)}
            if waiting and (len(waiting) == BATCH_SEGMENTS or longest * (len(waiting) + 1) > BATCH_SECONDS or len(kinds) > 1):
                yield from self._batch(waiting)
                waiting = []
            waiting.append((replace(entry[0], wave=None), entry[1]))
        yield from self._batch(waiting)

    def _batch(self, entries: Sequence[tuple[Segment, Item | Exception]]) -> Iterator[tuple[Segment, Part]]:
        items = [item for _, item in entries if isinstance(item, Item)]
        started = time.perf_counter()
        found = iter(self._search(items))
        give_memory_back()
        self.recognition += time.perf_counter() - started
        for segment, entry in entries:
            result = next(found) if isinstance(entry, Item) else entry
            if isinstance(result, Transcript):
                yield segment, Part(segment.start, segment.end, result.text, shifted(result.words, segment.start))
                continue
            reason = result.reason if isinstance(result, MediaError) else " ".join(str(result).split())
            self.errors.append(result)
            logger.warning("%s: from %.2f to %.2f s: %s", self.path, segment.start, segment.end, reason)
            yield segment, Part(segment.start, segment.end, "", problem=reason)

    def _search(self, items: list[Item]) -> list[Transcript | Exception]:
        """Transcripts of a batch; if it fails, one by one, so that one row does not take the others with it."""
        if not items:
            return []
        device = next(self.recognizer.parameters()).device
        try:
            return list(self.recognizer.transcribe_batch(collate(items, "recognition").to(device), self.decoding))
        except (ValueError, ArithmeticError, RuntimeError) as error:
            return [error] if len(items) == 1 else [result for item in items for result in self._search([item])]

    def _merge(self, left: Part, right: Part) -> tuple[Part, Part]:
        """Two parts that overlap, each with the words that are its own."""
        if left.problem is not None or right.problem is not None or left.end <= right.start:
            return left, right
        ours, theirs = merge_windows(left.words, right.words, (left.start, left.end), (right.start, right.end))
        return _with_words(left, ours), _with_words(right, theirs)


def pictures_of(segment: Segment) -> tuple[int, int]:
    """The first picture that lies in a segment whole, and the number behind the last one."""
    return math.ceil(segment.start * FPS - 1e-6), int(segment.end * FPS + 1e-6)


def segment_item(name: str, segment: Segment, video: Tensor | None, first: int, inputs: InputFormat) -> Item:
    """What a model takes in of a segment.

    Args:
        name: id.
        segment: its ``wave`` is None if it is only seen.
        video: lips (frames, size, size) from picture ``first`` on; None if it is only heard.
        inputs: what the model wants.

    Raises:
        ValueError: the sound is too short.
    """
    wave = segment.wave
    if wave is None:
        return Item(name, video=video)
    if video is not None:
        begin = max(0, round((first / FPS - segment.start) * SAMPLE_RATE))
        wave = wave[begin : begin + round(len(video) * SAMPLE_RATE / FPS)]
    return Item(name, audio=inputs.audio(to_int16(wave), None if video is None else len(video)), video=video)


def _with_words(part: Part, words: Sequence[Word]) -> Part:
    if len(words) == len(part.words):
        return part
    between = " " if " ".join(word.text for word in part.words) == part.text else ""
    return replace(part, words=tuple(words), text=between.join(word.text for word in words))
