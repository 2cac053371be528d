"""Pictures and sound that a page holds within itself: PNG of arrays, tables of numbers as maps, WAV."""

import base64
import io
import struct
import wave
import zlib
from collections.abc import Sequence

import numpy as np

from avtlm.evaluation.report.page import Markup, element

INKS = {1: 0, 3: 2, 4: 6}  # PNG's colour types by channels
BLUE = (18, 97, 166)
LABEL, ROW, WIDTH = 64, 13, 560  # of maps, in pixels


def png(pixels: np.ndarray) -> bytes:
    """uint8 (height, width), or with 3 (RGB) or 4 (RGBA) channels behind, as a PNG file."""
    channels = pixels.shape[2] if pixels.ndim == 3 else 1
    height, width = pixels.shape[:2]
    rows = b"".join(b"\0" + np.ascontiguousarray(row).tobytes() for row in pixels)

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head = struct.pack(">IIBBBBB", width, height, 8, INKS[channels], 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows, 9)) + chunk(b"IEND", b"")


def embedded(content: bytes, kind: str) -> str:
    """A file as an address, such as ``data:image/png;base64,...``."""
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"


def picture(pixels: np.ndarray, alternative: str) -> Markup:
    """An image in its own size.

    Args:
        pixels: see `png`.
        alternative: what it shows, for those who do not see it.
    """
    height, width = pixels.shape[:2]
    return element("img", src=embedded(png(pixels), "image/png"), alt=alternative, width=width, height=height)


def sound(samples: np.ndarray, rate: int, label: str) -> Markup:
    """int16 (samples,) to be played."""
    file = io.BytesIO()
    with wave.open(file, "wb") as writer:
        writer.setnchannels(1)
        writer.setsampwidth(2)
        writer.setframerate(rate)
        writer.writeframes(samples.astype("<i2").tobytes())
    return element("audio", controls="", preload="none", aria_label=label, src=embedded(file.getvalue(), "audio/wav"))


def heat_map(values: np.ndarray, rows: Sequence[str], seconds: float, title: str) -> Markup:
    """A table of values from 0 to their largest as a picture, with the names of its rows and the time below.

    Args:
        values: (rows, columns); columns are moments one after the other.
        rows: names, from the top.
        seconds: that the columns last together.
        title: what it shows, for those who do not see it.
    """
    scaled = np.clip(values / max(float(values.max(initial=0.0)), 1e-9), 0.0, 1.0)
    pixels = np.empty((*scaled.shape, 4), np.uint8)  # one ink, more or less of it: readable on any paper
    pixels[..., :3] = BLUE
    pixels[..., 3] = np.rint(255 * scaled)
    height = ROW * len(rows)
    names = [element("text", name, x=LABEL - 4, y=ROW * place + ROW - 3, text_anchor="end") for place, name in enumerate(rows)]
    at = [(LABEL + WIDTH * share, seconds * share) for share in (0, 0.25, 0.5, 0.75, 1)]
    times = [element("text", f"{time:.2f}", x=f"{x:.0f}", y=height + 14, text_anchor="middle") for x, time in at]
    unit = element("text", "s", x=LABEL + WIDTH + 24, y=height + 14)
    image = element("image", href=embedded(png(pixels), "image/png"), x=LABEL, y=0, width=WIDTH, height=height,
                    preserveAspectRatio="none", style="image-rendering: pixelated")  # fmt: skip
    frame = element("rect", x=LABEL, y=0, width=WIDTH, height=height, class_="axis")
    return element("svg", image, frame, *names, *times, unit, viewBox=f"0 0 {LABEL + WIDTH + 36} {height + 20}", role="img",
                   aria_label=title, width=LABEL + WIDTH + 36)  # fmt: skip
