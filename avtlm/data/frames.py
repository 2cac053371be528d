"""Pictures of a video at a constant rate, placed by their presentation time.

Output frame ``k`` is the source frame shown nearest to ``k / fps`` seconds after the first picture, so a variable frame rate, 24, 29.97 or
50 frames a second never add up to a drift. Pictures are full-range grey, within a level of OpenCV's colour-to-grey conversion: the luma
plane is read directly, several times faster than converting frames, and limited-range luma (16..235) is stretched by a table.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av.error
import numpy as np
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from avtlm.data.container import (
    FPS,
    LONGEST_HOLE,
    PYAV_ERRORS,
    MediaError,
    describe,
    ends_in_a_packet,
    open_media,
    segment_is_cut,
    video_stream,
)
from avtlm.data.structure import faults

LUMA_8_BIT = {"yuv420p", "yuvj420p", "yuv422p", "yuvj422p", "yuv444p", "yuvj444p", "yuv440p", "nv12", "nv16", "nv21", "gray"}
FULL_RANGE = 2  # AVCOL_RANGE_JPEG
ONE_TO_ONE = {"mpeg1video", "mpeg2video", "mpeg4", "mjpeg"}  # codings in which every packet is a picture
# Limited-range luma to full range, rounded.
STRETCH = np.clip(np.round((np.arange(256) - 16.0) * 255.0 / 219.0), 0, 255).astype(np.uint8).tobytes()


class FrameStream:
    """Iterate over the frames of a video at a constant rate without holding them all; ``info`` is complete after the last one.

    Args:
        path: a media file.
        fps: output rate; the source frame nearest in time is taken, so frames are dropped or repeated, never blended.
        colour: RGB instead of grey (slower).
        damaged: ``"refuse"`` raises at the end when the file is cut off or has fewer frames than it promises, ``"keep"`` only warns.
        threads: decoder threads; 1 is best for small pictures and in worker processes, 0 takes all cores.
        content: what the file holds, if it was read already.

    Raises:
        MediaError: when iterated: no such file, not a media file, no video track, nothing decodable, or damaged.
    """

    def __init__(
        self,
        path: str | Path,
        fps: float = FPS,
        colour: bool = False,
        damaged: str = "refuse",
        threads: int = 1,
        content: bytes | None = None,
    ) -> None:
        if damaged not in ("refuse", "keep"):
            raise ValueError(f"damaged={damaged!r}: expected 'refuse' or 'keep'.")
        self.path = Path(path)
        self.fps = fps
        self.colour = colour
        self.damaged = damaged
        self.threads = threads
        self.content = content
        self.info: dict[str, Any] = {"warnings": []}

    def __iter__(self) -> Iterator[np.ndarray]:
        self.info = {"warnings": []}
        with open_media(self.path, self.content) as container:
            stream = self._open(container)
            self._cut = (container.format.name == "mpeg" and ends_in_a_packet(self.path, self.content)) or (
                "matroska" in container.format.name and segment_is_cut(self.path, self.content)
            )
            self._faults = faults(container.format.name, self.path, self.content)
            self._lists_frames = container.format.name != "avi"  # which lists empty chunks, that repeat a frame, as well
            yield from self._resample(stream, timed_frames(container, stream, self.path, self.info))

    def _open(self, container: InputContainer) -> VideoStream:
        stream = video_stream(container)
        if stream is None:
            raise MediaError(self.path, "has no video track.")
        if stream.codec_context is None:  # PyAV's answer to an unknown or damaged codec tag
            raise MediaError(self.path, "has a video track in a coding that this build of FFmpeg does not know.")
        stream.codec_context.thread_count = self.threads
        if self.threads != 1:
            stream.thread_type = "AUTO"
        return stream

    def _resample(self, stream: VideoStream, frames: Iterator[tuple[float, VideoFrame]]) -> Iterator[np.ndarray]:
        shown: VideoFrame | None = None  # the latest source frame, and when it is shown
        picture: np.ndarray | None = None  # the same converted, once somebody wants it
        emitted = count = 0
        longest_gap = shortest_gap = 0.0
        first = shown_at = 0.0
        for at, frame in frames:
            if shown is None:
                first = at
                self.info["first_time"] = first
                self._note_source(stream, frame)
            else:
                gap = at - shown_at
                if gap > LONGEST_HOLE:
                    raise MediaError(self.path, f"is damaged: its picture time stamps jump by {gap:.0f} s after {shown_at - first:.2f} s.")
                longest_gap, shortest_gap = max(longest_gap, gap), min(shortest_gap or gap, gap)
                middle = (at + shown_at) / 2 - first
                while emitted / self.fps <= middle + 1e-9:
                    picture = self._convert(shown) if picture is None else picture
                    yield picture
                    emitted += 1
            shown, shown_at, picture = frame, at, None
            count += 1
        if shown is None:
            raise MediaError(self.path, "holds no picture that can be decoded.")
        length = float(shown.duration * shown.time_base) if shown.duration and shown.time_base else 0.0
        if not 0 < length < 1:
            length = (shown_at - first) / (count - 1) if count > 1 else 1 / max(float(stream.average_rate or self.fps), 1.0)
        end = shown_at - first + length
        for _ in range(emitted, max(1, int(end * self.fps + 0.5 + 1e-6))):
            picture = self._convert(shown) if picture is None else picture
            yield picture
        self._note_timing(stream, count, end, shortest_gap, longest_gap)

    def _note_source(self, stream: VideoStream, frame: VideoFrame) -> None:
        rotation = round(frame.rotation / 90.0) * 90 % 360
        size = (frame.height, frame.width) if rotation % 180 else (frame.width, frame.height)
        self.info.update(rotation=rotation, width=size[0], height=size[1], codec=stream.codec_context.name)
        self._source_size = frame.width, frame.height
        if rotation:
            self.info["warnings"].append(f"turned by {rotation} degrees, as its rotation metadata asks")

    def _note_timing(self, stream: VideoStream, count: int, seconds: float, shortest: float, longest: float) -> None:
        rate = count / seconds
        self.info.update(source_frames=count, source_fps=round(rate, 3), seconds=seconds)
        warnings = self.info["warnings"]
        if abs(rate - self.fps) > 0.01 * self.fps:
            warnings.append(f"resampled from {rate:.4g} to {self.fps:g} frames a second")
        if longest > 1:
            warnings.append(f"the picture stands still for {longest:.1f} s because the file holds no frames there")
        elif longest > 1.6 * shortest:
            warnings.append("variable frame rate, resampled by time stamps")
        promised = _promised(stream)
        listed = stream.frames if self._lists_frames else 0
        if listed and promised and stream.average_rate and abs(listed - promised * float(stream.average_rate)) > 1.5:
            if listed > count + 1:
                warnings.append(f"the file lists {listed} frames but shows {count} (an edit list, or damage)")
            listed = 0
        short = listed > count + 1 or promised > seconds + max(0.12, 2.5 / rate)
        warnings.extend(f"damaged: {fault}" for fault in self._faults)
        if not short and promised > seconds + 1.5 / rate:
            warnings.append(f"the file promises {promised:.2f} seconds of video, {seconds:.2f} are there")
        if short or self._cut:
            have, want = (f"{count}", f"{listed} frames") if listed else (f"{seconds:.2f}", f"{promised:.2f} seconds of video")
            reason = (
                f"is cut off in the middle of a packet, after {count} frames"
                if self._cut
                else f"is damaged: only {have} of {want} can be decoded"
            )
            if self.damaged == "refuse":
                raise MediaError(self.path, f"{reason}.")
            warnings.append(reason)

    def _convert(self, frame: VideoFrame) -> np.ndarray:
        if (frame.width, frame.height) != self._source_size:  # the size may change in the middle of a recorded call
            frame = frame.reformat(width=self._source_size[0], height=self._source_size[1])
        picture = frame.to_ndarray(format="rgb24") if self.colour else grey(frame)
        rotation = self.info["rotation"]
        return np.ascontiguousarray(np.rot90(picture, rotation // 90)) if rotation else picture


def _promised(stream: VideoStream) -> float:
    """Seconds of video that the file says it has; 0 if it does not say. Matroska's own length is that of its longest track."""
    if stream.duration and stream.time_base:
        return float(stream.duration * stream.time_base)
    try:
        hours, minutes, seconds = (float(part) for part in stream.metadata.get("DURATION", "").split(":"))
    except ValueError:
        return 0.0
    return 3600 * hours + 60 * minutes + seconds


def grey(frame: VideoFrame) -> np.ndarray:
    """Full-range uint8 ``(height, width)``, read-only, from a decoded frame: its luma plane where the format has one of 8 bits."""
    name = frame.format.name
    if name not in LUMA_8_BIT:
        return frame.to_ndarray(format="gray")
    plane = frame.planes[0]
    full = name == "gray" or name.startswith("yuvj") or frame.color_range == FULL_RANGE
    luma = bytes(plane) if full else bytes(plane).translate(STRETCH)  # half the time of indexing an array
    return np.frombuffer(luma, np.uint8).reshape(-1, plane.line_size)[: frame.height, : frame.width]


def timed_frames(container: InputContainer, stream: VideoStream, path: Path, info: dict[str, Any]) -> Iterator[tuple[float, VideoFrame]]:
    """Frames with their presentation time in seconds, strictly increasing; packets that cannot be decoded are counted in ``info``."""
    bad = fed = shown = 0
    stopped = ""
    untimed = 0
    last: float | None = None
    step = 1 / float(stream.average_rate or stream.guessed_rate or FPS)
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets)
        except StopIteration:
            break
        except PYAV_ERRORS as error:
            stopped = describe(error)
            break
        fed += packet.size > 0
        try:
            frames = packet.decode()
        except PYAV_ERRORS as error:
            bad, stopped = bad + 1, describe(error)
            if isinstance(error, av.error.EOFError):
                break
            continue
        for frame in frames:
            shown += 1
            at = float(frame.pts * frame.time_base) if frame.pts is not None and frame.time_base else None
            if at is None or (last is not None and at <= last):
                untimed += 1
                at = 0.0 if last is None else last + step
            last = at
            yield at, frame
    if last is None and stopped:
        raise MediaError(path, f"holds no picture that can be decoded ({stopped}).")
    if bad:
        info["warnings"].append(f"{bad} video packets could not be decoded ({stopped})")
    elif stopped:
        info["warnings"].append(f"reading stopped early ({stopped})")
    elif shown < fed and stream.codec_context.name in ONE_TO_ONE:
        info["warnings"].append(f"{fed - shown} of {fed} coded pictures could not be decoded")
    if untimed:
        info["warnings"].append(f"{untimed} frames without a usable time stamp were placed by the frame rate")
