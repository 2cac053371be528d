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
    try:
        if content is None and not Path(path).is_file():
            raise MediaError(path, "is a folder, not a media file." if Path(path).is_dir() else "there is no such file.")
        empty = not content if content is not None else Path(path).stat().st_size == 0
    except OSError as error:  # a name that is too long, or a folder that may not be looked into
        raise MediaError(path, f"cannot be opened ({describe(error)}).") from error
    if empty:
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


def segment_is_cut(path: str | Path, content: bytes | None = None) -> bool:
    """Whether a Matroska or WebM file ends before its segment does.

    FFmpeg reads what there is without a word. Live recordings give their segment no length, and other files have none: False.
    """
    size = Path(path).stat().st_size if content is None else len(content)
    file: BinaryIO
    with open(path, "rb") if content is None else io.BytesIO(content) as file:
        head = file.read(12)
        if head[:4] != b"\x1a\x45\xdf\xa3":
            return False
        at = 4 + sum(_variable_number(head[4:]))
        file.seek(at)
        head = file.read(12)
    width, length = _variable_number(head[4:])
    known = length < (1 << 7 * width) - 1
    return head[:4] == b"\x18\x53\x80\x67" and known and at + 4 + width + length > size


def _variable_number(head: bytes) -> tuple[int, int]:
    """Width in bytes, and value, of a number in EBML: the first bit that is set says how many bytes it has."""
    width = 9 - head[0].bit_length() if head and head[0] else 8
    return width, int.from_bytes(head[:width], "big") & ((1 << 7 * width) - 1)


def wave_bytes(path: str | Path, content: bytes | None = None) -> tuple[int, int] | None:
    """Bytes of sound that a WAV file holds and promises; None where they agree, or where it promises nothing.

    Readers take what there is without a word. Programs that write to a pipe promise 2 to 4 GB, which is no promise.
    """
    size = Path(path).stat().st_size if content is None else len(content)
    file: BinaryIO
    with open(path, "rb") if content is None else io.BytesIO(content) as file:
        head = file.read(12)
        at = 12
        while head[:4] == b"RIFF" and head[8:12] == b"WAVE" and at < size:
            file.seek(at)
            chunk = file.read(8)
            length = int.from_bytes(chunk[4:], "little")
            if chunk[:4] == b"data":
                held = size - at - 8
                return (held, length) if held < length < 0x7FFF0000 else None
            at += 8 + length + length % 2
    return None


def describe(error: BaseException) -> str:
    """A short cause out of an exception of PyAV or of the system."""
    if isinstance(error, av.error.FFmpegError | OSError):
        return str(error.strerror or type(error).__name__)
    return str(error).strip() or type(error).__name__


def video_stream(container: InputContainer) -> VideoStream | None:
    """The main video track; cover art of a sound file is none."""
    streams = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
    best = container.streams.best("video")
    return best if best in streams else (streams[0] if streams else None)
