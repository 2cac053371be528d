"""What the structure of a video file says about bytes that are gone. FFmpeg passes over such places and reads on, without a word.

Only heads of chunks and packets are read, no media.
"""

import mmap
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from avtlm.data.container import END_OF_PROGRAM, PACK

SYNC = 0x47  # first byte of a packet of a transport stream
NO_STREAM = 0x1FFF  # packets that fill up
VIDEO_CHUNK = re.compile(rb"\d\d(?:dc|db)")
CHUNK = re.compile(rb"[ -~]{4}")
Bytes = mmap.mmap | bytes


def faults(form: str, path: str | Path, content: bytes | None = None) -> list[str]:
    """What is wrong with a file of FFmpeg's format ``form``, in clauses; empty when nothing is, and for formats that are not looked at."""
    with _opened(path, content) as data:
        if form == "mpegts":
            return _transport_stream(data)
        if form == "mpeg":
            return _program_stream(data)
        if form == "avi":
            return _avi(data)
    return []


@contextmanager
def _opened(path: str | Path, content: bytes | None) -> Iterator[Bytes]:
    if content is not None:
        yield content
        return
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        yield data


def _transport_stream(data: Bytes) -> list[str]:
    """Packets of every stream are numbered from 0 to 15, in circles (ISO 13818-1, 2.4.3.3)."""
    packets, cut = _heads(data)
    good = packets[:, 0] == SYNC
    broken = len(packets) - int(good.sum())
    packets = packets[good]
    stream = (packets[:, 1] & 0x1F) << 8 | packets[:, 2]
    renumbered = (packets[:, 3] & 0x20 > 0) & (packets[:, 4] > 0) & (packets[:, 5] & 0x80 > 0)
    for number in np.unique(stream[stream != NO_STREAM]):
        chosen = (stream == number) & (packets[:, 3] & 0x10 > 0)  # others carry nothing, and are not counted
        steps = np.diff(packets[chosen, 3] & 0xF) % 16
        broken += int(((steps > 1) & ~renumbered[chosen][1:]).sum())  # 0: a packet that is sent twice
    notes = [f"packets are missing or unreadable in {broken} places"] if broken else []
    return [*notes, "it ends in the middle of a packet"] if cut else notes


def _heads(data: Bytes) -> tuple[np.ndarray, bool]:
    """The first six bytes of every packet, of 188 bytes or, with a time in front, 192; and whether there are bytes behind the last."""
    whole = np.frombuffer(data, np.uint8)
    size, offset = max(((188, 0), (192, 4)), key=lambda form: int((whole[form[1] :: form[0]][:50] == SYNC).sum()))
    packets = whole[: len(whole) // size * size].reshape(-1, size)[:, offset : offset + 6].astype(np.int32)  # a copy
    return packets, len(whole) % size > 0


def _program_stream(data: Bytes) -> list[str]:
    """Packets follow each other without gaps, but for zeros (ISO 11172-1, 2.4.3)."""
    at = 0
    while at < len(data):
        head = data[at : at + 14]
        code = head[3] if len(head) >= 4 and head[:3] == b"\0\0\1" else 0
        if code == PACK:
            at += 12 if len(head) < 14 or head[4] >> 6 != 1 else 14 + (head[13] & 7)
        elif code == END_OF_PROGRAM:
            return []
        elif code > END_OF_PROGRAM and len(head) >= 6:
            at += 6 + int.from_bytes(head[4:6], "big")
        elif head[:3] == b"\0\0\0" or not any(head):
            at += 1
        else:
            return [f"its packets break off after {at / len(data):.0%} of the file"] if at else []
    return []


def _avi(data: Bytes) -> list[str]:
    """A header lists how many chunks of pictures there are, empty ones included."""
    at, held, listed = 0, 0, 0
    while at + 8 <= len(data):
        name, size = data[at : at + 4], int.from_bytes(data[at + 4 : at + 8], "little")
        if name in (b"RIFF", b"LIST"):
            at += 12
            continue
        if not CHUNK.fullmatch(name):
            break
        if name == b"strh" and data[at + 8 : at + 12] == b"vids" and not listed:
            listed = int.from_bytes(data[at + 40 : at + 44], "little")
        held += VIDEO_CHUNK.fullmatch(name) is not None and at + 8 + size <= len(data)
        at += 8 + size + size % 2
    return [f"only {held} of {listed} pictures are where they belong"] if held < listed else []
