"""A stream of sound divided into what a recogniser takes at once: at pauses, and where there is none, into windows that overlap.

Speech that is at least ``min_speech`` long and ends in ``min_silence`` makes a segment, with ``padding`` at both sides. Where speech goes
on for ``window`` seconds it is cut at the quietest tenth of a second of the window's second half: between two words if there is a short
pause, and otherwise so that ``overlap`` seconds are in both parts, whose words avtlm.decoding.merging brings together. Nothing but the
open segment is held in memory.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from avtlm.data.container import SAMPLE_RATE
from avtlm.decoding.voice_activity import FRAME, FRAME_SECONDS, FrameLevels, VoiceDetector

QUIET = 5  # frames, a tenth of a second, whose level decides where speech is cut
NEARLY = 3.0  # dB
PAUSE = 10  # frames without speech that are a pause between words; the closure of a plosive lasts half as long


@dataclass(frozen=True)
class SegmentOptions:
    """How speech is divided; all in seconds.

    Attributes:
        window: the longest segment: what the model was trained on at most.
        overlap: shared by two segments that no pause divides; at most a quarter of the window is used.
        min_speech: less speech between two pauses is dropped as a noise.
        min_silence: a pause from this length on ends a segment.
        padding: kept before and after speech.
    """

    window: float = 20.0
    overlap: float = 2.0
    min_speech: float = 0.1
    min_silence: float = 0.5
    padding: float = 0.2

    def __post_init__(self) -> None:
        for name in ("overlap", "min_speech", "padding"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name}: {getattr(self, name)}; give a number of seconds, at least 0.")
        if self.min_silence < 2 * FRAME_SECONDS:
            raise ValueError(f"min_silence: {self.min_silence}; give at least {2 * FRAME_SECONDS} seconds.")
        if self.window < 1.0:
            raise ValueError(f"window: {self.window}; give at least 1 second, or 0 to take every recording whole.")

    @property
    def shared(self) -> float:
        """The overlap that is used."""
        return min(self.overlap, self.window / 4)


@dataclass(frozen=True)
class Segment:
    """A part of a recording: ``start`` and ``end`` in seconds, its sound float32 (samples,), None if it is seen only.

    ``overlaps``: its first seconds are the last ones of the segment before it. ``continues``: its last ones are the first of the next.
    """

    start: float
    end: float
    wave: np.ndarray | None
    overlaps: bool = False
    continues: bool = False


class Segmenter:
    """Divide a stream.

    Args:
        detector: finds speech.
        options: lengths.
    """

    def __init__(self, detector: VoiceDetector, options: SegmentOptions | None = None) -> None:
        self.options = options = options or SegmentOptions()
        self._detector = detector
        self._meter = FrameLevels()
        frames = {name: max(1, round(getattr(options, name) / FRAME_SECONDS)) for name in ("min_speech", "min_silence", "window")}
        self._min_speech, self._min_silence, self._window = frames["min_speech"], frames["min_silence"], frames["window"]
        self._padding = min(round(options.padding / FRAME_SECONDS), self._min_silence)
        self._shared = round(options.shared / FRAME_SECONDS)
        self._sound = np.zeros(0, np.float32)  # from frame `_kept` on
        self._levels: list[float] = []  # of the same frames
        self._flags: list[bool] = []  # of the same frames, as far as they are decided
        self._kept = 0
        self._begin: int | None = None  # of the open segment; all counts of frames are from the start of the stream
        self._voiced = 0  # frames of speech in it
        self._last = 0  # behind its last frame of speech
        self._free = 0  # frames before this one belong to earlier segments
        self._overlaps = False

    def feed(self, block: np.ndarray) -> list[Segment]:
        """float32 (samples,) at 16 kHz, the next of the stream -> segments that have ended."""
        self._sound = np.concatenate([self._sound, block])
        self._levels.extend(self._meter.feed(block).tolist())
        found = list(self._walk(self._detector.feed(block)))
        self._forget()
        return found

    def finish(self) -> list[Segment]:
        """The stream has ended: what was open."""
        found = list(self._walk(self._detector.finish()))
        if self._begin is not None and self._voiced >= self._min_speech:
            found.append(self._cut(self._begin, self._last + self._padding))
        self._begin = None
        return found

    @property
    def seconds(self) -> float:
        """How much of the stream has come."""
        return self._kept * FRAME_SECONDS + len(self._sound) / SAMPLE_RATE

    def open(self) -> Segment | None:
        """The speech that goes on, up to the latest sound; None if there is none."""
        if self._begin is None or self._voiced < self._min_speech:
            return None
        wave = self._sound[(self._begin - self._kept) * FRAME :]
        return Segment(self._begin * FRAME_SECONDS, self.seconds, wave, self._overlaps)

    def _walk(self, flags: np.ndarray) -> Iterator[Segment]:
        for flag in flags.tolist():
            now = self._kept + len(self._flags)
            self._flags.append(flag)
            if self._begin is None:
                if flag:
                    self._begin, self._voiced, self._last = max(now - self._padding, self._free, self._kept), 1, now + 1
                    self._overlaps = False
                continue
            if flag:
                self._voiced, self._last = self._voiced + 1, now + 1
            elif now + 1 - self._last >= self._min_silence:
                if self._voiced >= self._min_speech:
                    yield self._cut(self._begin, self._last + self._padding)
                    self._free = self._last + self._padding
                self._begin = None
                continue
            if now + 1 - self._begin >= self._window:
                yield from self._divide(now + 1)

    def _divide(self, now: int) -> Iterator[Segment]:
        """Cut the open segment at the quietest place of its second half, and go on with the rest."""
        assert self._begin is not None
        half = self._shared // 2
        first, last = self._begin + (now - self._begin) // 2, now - half
        levels = np.array(self._levels[first - self._kept : last - self._kept])
        quiet = np.convolve(levels, np.ones(QUIET) / QUIET, "valid")
        # Of about equally quiet stretches the middle of the last one: the longer the segment, the more the model knows.
        still = np.flatnonzero(quiet <= quiet.min() + NEARLY)
        stretch = np.split(still, np.flatnonzero(np.diff(still) > 1) + 1)[-1]
        place = first + int(stretch[len(stretch) // 2]) + QUIET // 2
        pause = self._still(place) >= PAUSE
        before, behind = (place, place) if pause else (place + half, place - half)
        if self._voiced >= self._min_speech:
            yield self._cut(self._begin, before, continues=not pause)
        spoken = [number for number in range(behind, now) if self._flags[number - self._kept]]
        self._free, self._begin = behind, None
        if spoken:
            self._begin, self._voiced, self._last, self._overlaps = behind, len(spoken), spoken[-1] + 1, not pause

    def _still(self, place: int) -> int:
        """How many frames without speech lie around a place in a row."""
        flags, at = self._flags, place - self._kept
        first, last = at, at
        while last < len(flags) and not flags[last]:
            last += 1
        while first > 0 and not flags[first - 1]:
            first -= 1
        return last - first if last > at else 0

    def _cut(self, begin: int, end: int, continues: bool = False) -> Segment:
        wave = self._sound[(begin - self._kept) * FRAME : (end - self._kept) * FRAME].copy()
        start = begin * FRAME_SECONDS
        return Segment(start, start + len(wave) / SAMPLE_RATE, wave, self._overlaps, continues)

    def _forget(self) -> None:
        """Let go of what no segment can need any more."""
        decided = self._kept + len(self._flags)
        needed = self._begin if self._begin is not None else max(self._free, decided - self._padding)
        drop = min(max(0, needed - self._kept), len(self._flags))
        if drop:
            self._sound = self._sound[drop * FRAME :].copy()
            self._levels, self._flags = self._levels[drop:], self._flags[drop:]
            self._kept += drop


def windows(seconds: float, options: SegmentOptions) -> Iterator[Segment]:
    """Overlapping windows over a recording whose sound tells nothing, or that has none."""
    start = 0.0
    while True:
        end = min(start + options.window, seconds)
        if seconds - end < options.shared:  # the rest would be all overlap
            end = seconds
        yield Segment(start, end, None, start > 0)
        if end >= seconds:
            return
        start = end - options.shared
