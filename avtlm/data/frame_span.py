"""A part of a long video at the cost of that part: reading starts at the last key picture before it."""

import itertools
from collections.abc import Iterator
from pathlib import Path

from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.stream import VideoStream
from numpy import ndarray

from avtlm.data.container import FPS, PYAV_ERRORS, MediaError, open_media
from avtlm.data.frames import FrameStream, timed_frames


class FrameSpan(FrameStream):
    """The frames from ``begin`` up to before ``end`` (None: the last) of what a `FrameStream` of the whole file yields.

    Frames behind the end of the video are not there; whether the file is whole is not looked at. ``info`` has no timing of the source.

    Args:
        path: a media file.
        begin: number of the first frame at ``fps``.
        end: number behind the last one.
        fps, colour, threads: as for a `FrameStream`.

    Raises:
        MediaError: when iterated: no such file, not a media file, no video track, nothing decodable.
    """

    def __init__(self, path: str | Path, begin: int, end: int | None, fps: float = FPS, colour: bool = False, threads: int = 1) -> None:
        super().__init__(path, fps, colour, "keep", threads)
        self.begin = begin
        self.end = end

    def __iter__(self) -> Iterator[ndarray]:
        self.info = {"warnings": []}
        with open_media(self.path) as container:
            stream = self._open(container)
            head = next(timed_frames(container, stream, self.path, self.info), None)
            if head is None:
                raise MediaError(self.path, "holds no picture that can be decoded.")
            first, frame = head
            self.info.update(first_time=first, source_fps=round(float(stream.average_rate or self.fps), 3), source_frames=stream.frames)
            self._note_source(stream, frame)
            found = self._sought(container, stream, first) if self.begin and frame.pts is not None else None
            if found is not None:
                yield from self._nearest(found, first)
                return
        with open_media(self.path) as container:
            yield from self._nearest(timed_frames(container, self._open(container), self.path, self.info), first)

    def _sought(self, container: InputContainer, stream: VideoStream, first: float) -> Iterator[tuple[float, VideoFrame]] | None:
        """Frames from a key picture before the span; None if the container cannot be sought in, or lands elsewhere."""
        assert stream.time_base is not None
        if container.format.name == "mpeg":  # program streams have no index, and a guess lands between pictures that need each other
            return None
        # One picture early: the nearest one to the first frame may lie before it.
        target = first + (self.begin - 1) / self.fps
        try:
            container.seek(int(target / stream.time_base), stream=stream)
        except PYAV_ERRORS:
            return None
        frames = timed_frames(container, stream, self.path, self.info)
        head = next(frames, None)
        if head is None or head[1].pts is None or not head[1].key_frame or head[0] > target + 1e-6:
            return None
        return itertools.chain([head], frames)

    def _nearest(self, frames: Iterator[tuple[float, VideoFrame]], first: float) -> Iterator[ndarray]:
        """The source frame nearest in time to every output frame; of two equally near ones the earlier."""
        number = self.begin
        shown: VideoFrame | None = None
        shown_at, step = 0.0, 1 / self.fps
        for at, frame in frames:
            if shown is not None:
                picture: ndarray | None = None
                while number / self.fps <= (at + shown_at) / 2 - first + 1e-9:
                    if number == self.end:
                        return
                    picture = self._convert(shown) if picture is None else picture
                    yield picture
                    number += 1
                step = at - shown_at
            shown, shown_at = frame, at
        if shown is None:
            return
        length = float(shown.duration * shown.time_base) if shown.duration and shown.time_base else 0.0
        behind = int((shown_at - first + (length if 0 < length < 1 else step)) * self.fps + 0.5 + 1e-6)
        picture = self._convert(shown)
        for _ in range(number, behind if self.end is None else min(self.end, behind)):
            yield picture
