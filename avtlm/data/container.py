"""Opening media files: one named error for everything that can be wrong with them."""

import io
from pathlib import Path
from typing import BinaryIO

import av
import av.error
from av.container import InputContainer
from av.stream import Disposition
from av.video.stream import VideoStream

FPS = 25.0
SAMPLE_RATE = 16000
LONGEST_HOLE = 60.0  # seconds without picture or sound; a larger jump of the time stamps is damage, and filling it could take all memory
END_OF_PROGRAM, PACK = 0xB9, 0xBA  # start codes of an MPEG program stream
# What PyAV was seen to raise on 300 damaged files, next to FFmpegError: no stream of that kind, broken metadata text, an absurd allocation.
PYAV_ERRORS = (av.error.FFmpegError, IndexError, UnicodeDecodeError, MemoryError, ValueError, OSError)


class MediaError(ValueError):
    """A file that cannot be used, in one sentence: which file and why."""

    def __init__(self, path: str | Path, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path = str(path)
        self.reason = reason

    def __reduce__(self) -> tuple[type["MediaError"], tuple[str, str]]:
        return type(self), (self.path, self.reason)  # survives the way back from a worker process


def open_media(path: str | Path, content: bytes | None = None) -> InputContainer:
    """Open a media file for reading; ``content`` is what it holds if that was read already, and ``path`` only its name then.

    Raises:
        MediaError: no such file, a folder, or nothing that FFmpeg knows.
    """
    if content is not None:
        if not content:
            raise MediaError(path, "is empty.")
    elif not Path(path).is_file():
        raise MediaError(path, "is a folder, not a media file." if Path(path).is_dir() else "there is no such file.")
    elif Path(path).stat().st_size == 0:
        raise MediaError(path, "is empty.")
    try:
        return av.open(str(path) if content is None else io.BytesIO(content), "r", metadata_errors="replace")
    except PYAV_ERRORS as error:
        raise MediaError(path, f"is not a media file that can be read ({describe(error)}).") from error


def ends_in_a_packet(path: str | Path, content: bytes | None = None) -> bool:
    """Whether an MPEG program stream (.mpg) stops in the middle of a packet.

    Such a file promises no length, so nothing else tells a cut one from a whole one. Files of another structure give False.
    """
    size = Path(path).stat().st_size if content is None else len(content)
    file: BinaryIO
    with open(path, "rb") if content is None else io.BytesIO(content) as file:
        at = 0
        while at < size:
            file.seek(at)
            head = file.read(14)
            code = head[3] if len(head) >= 4 and head[:3] == b"\0\0\1" else 0
            if code == PACK:  # MPEG-2 marks itself with 01 and says how many bytes of stuffing follow
                at += 12 if len(head) < 14 or head[4] >> 6 != 1 else 14 + (head[13] & 7)
            elif code == END_OF_PROGRAM:
                return False
            elif code > END_OF_PROGRAM and len(head) >= 6:
                at += 6 + int.from_bytes(head[4:6], "big")
            else:
                return len(head) < 6 and head == b"\0\0\1"[: len(head)]
    return at > size


def describe(error: BaseException) -> str:
    """A short cause out of an exception of PyAV."""
    if isinstance(error, av.error.FFmpegError):
        return str(error.strerror or type(error).__name__)
    return str(error).strip() or type(error).__name__


def video_stream(container: InputContainer) -> VideoStream | None:
    """The main video track; cover art of a sound file is none."""
    streams = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
    best = container.streams.best("video")
    return best if best in streams else (streams[0] if streams else None)
