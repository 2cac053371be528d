"""Clips made for tests: a drawn face that FaceMesh finds, tones, and containers of every unpleasant kind."""

import struct
from collections.abc import Sequence
from fractions import Fraction
from functools import cache
from pathlib import Path

import av
import cv2
import numpy as np


@cache
def face(opening: float = 0.3, side: int = 160, x: float = 0.5, y: float = 0.5, size: float = 1.0, angle: float = 0.0) -> np.ndarray:
    """uint8 RGB ``(side, side, 3)``, read-only: a face whose mouth is open by ``opening`` (0..1), turned by ``angle`` degrees."""
    fine = 4  # drawn four times as large and shrunk
    scale = fine * size * side / 160
    picture = np.full((side * fine, side * fine, 3), (150, 140, 120), np.uint8)
    turn = np.array([[np.cos(np.radians(angle)), -np.sin(np.radians(angle))], [np.sin(np.radians(angle)), np.cos(np.radians(angle))]])

    def at(px: float, py: float) -> tuple[int, int]:
        moved = turn @ (px, py) * scale + (x * side * fine, y * side * fine)
        return int(moved[0]), int(moved[1])

    def oval(
        px: float, py: float, rx: float, ry: float, colour: tuple[int, int, int], line: float = -1, arc: tuple[int, int] = (0, 360)
    ) -> None:
        radii = (max(1, int(rx * scale)), max(1, int(ry * scale)))
        width = -1 if line < 0 else max(1, int(line * scale))
        cv2.ellipse(picture, at(px, py), radii, angle, arc[0], arc[1], colour, width, cv2.LINE_AA)

    hair, shade = (60, 40, 35), (185, 145, 122)
    oval(0, -10, 47, 58, hair)
    cv2.line(picture, at(0, 45), at(0, 120), shade, int(32 * scale))
    oval(0, 5, 40, 52, (205, 165, 140))
    oval(0, -2, 36, 40, (214, 176, 150))
    for sign in (-1, 1):
        oval(sign * 41, 3, 5, 10, (190, 150, 125))
        oval(sign * 17, -6, 10, 7, shade)
        oval(sign * 17, -5, 8, 4, (245, 245, 240))
        oval(sign * 17, -5, 3.6, 3.8, (70, 50, 40))
        oval(sign * 17, -5, 1.6, 1.8, (15, 10, 10))
        oval(sign * 17, -6, 8.5, 4.6, (70, 45, 40), 1.2, (180, 360))
        oval(sign * 17, -13, 11, 5, hair, 2.2, (200, 340))
    cv2.line(picture, at(-3, -4), at(-5, 14), shade, max(1, int(1.5 * scale)), cv2.LINE_AA)
    oval(0, 16, 8, 5, (200, 158, 132))
    for sign in (-1, 1):
        oval(sign * 4.5, 18, 2.4, 1.5, (120, 80, 70))
    gap = 1 + 9 * opening
    oval(0, 33, 14, 4.5 + 0.7 * gap, (165, 85, 85))
    oval(0, 33, 11.5, 0.75 * gap, (60, 20, 25))
    picture = cv2.resize(cv2.GaussianBlur(picture, (0, 0), 2.0), (side, side), interpolation=cv2.INTER_AREA)
    picture.flags.writeable = False
    return picture


def talking(seconds: float = 1.0, fps: float = 25.0, side: int = 160, size: float = 1.0, x: float = 0.5) -> np.ndarray:
    """uint8 RGB frames of a face that opens and closes its mouth twice a second."""
    times = np.arange(max(1, round(seconds * fps))) / fps
    return np.stack([face(round(0.5 - 0.5 * np.cos(4 * np.pi * t), 1), side, x, 0.5, size) for t in times])


def two_faces(seconds: float = 1.0) -> np.ndarray:
    """A large face on the right and a smaller one on the left."""
    return np.concatenate([talking(seconds, size=0.7), talking(seconds)], axis=2)


def noise_frames(count: int = 25, side: int = 96) -> np.ndarray:
    """Pictures without any face."""
    generator = np.random.default_rng(5)
    blocks = generator.integers(0, 256, (count, side // 16, side // 16, 3), np.uint8)
    return blocks.repeat(16, axis=1).repeat(16, axis=2)


def tone(seconds: float, rate: int = 16000, pitch: float = 440.0) -> np.ndarray:
    """A sine, float32."""
    return (0.3 * np.sin(2 * np.pi * pitch * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


def chirps(seconds: float, rate: int = 16000) -> np.ndarray:
    """Sound without a period, so that a lag shows."""
    generator = np.random.default_rng(7)
    return (0.3 * np.sin(np.cumsum(generator.uniform(0.05, 0.6, round(seconds * rate))))).astype(np.float32)


def write_media(
    path: Path,
    frames: np.ndarray | None,
    fps: float = 25.0,
    times: Sequence[float] | None = None,
    audio: np.ndarray | None = None,
    rate: int = 16000,
    channels: int = 1,
    codec: str = "libx264",
    audio_codec: str = "aac",
    audio_start: float = 0.0,
    quality: dict[str, str] | None = None,
    fast_start: bool = False,
    pixels: str = "yuv420p",
) -> Path:
    """Write a container by hand: frames at given ``times`` (seconds) or a constant rate, any codec, audio that may start late."""
    with av.open(str(path), "w", options={"movflags": "faststart"} if fast_start else {}) as container:
        video = sound = None
        if frames is not None:
            video = container.add_stream(codec, rate=Fraction(fps).limit_denominator(1001), options=quality or {})
            video.width, video.height, video.pix_fmt = frames.shape[2], frames.shape[1], pixels
            video.codec_context.time_base = Fraction(1, 90000) if times is not None else 1 / Fraction(fps).limit_denominator(1001)
        if audio is not None:
            sound = container.add_stream(audio_codec, rate=rate, layout="stereo" if channels == 2 else "mono")
        if video is not None and frames is not None:
            for index, picture in enumerate(frames):
                frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24" if picture.ndim == 3 else "gray")
                frame.time_base = video.codec_context.time_base
                frame.pts = index if times is None else round(times[index] * 90000)
                container.mux(video.encode(frame))
            container.mux(video.encode(None))
        if sound is not None and audio is not None:
            block = av.AudioFrame.from_ndarray(np.stack([audio] * channels), format="fltp", layout="stereo" if channels == 2 else "mono")
            block.sample_rate, block.time_base, block.pts = rate, Fraction(1, rate), round(audio_start * rate)
            container.mux(sound.encode(block))
            container.mux(sound.encode(None))
    return path


def rotate_by_metadata(path: Path, degrees: int) -> Path:
    """Write a display matrix into an .mp4, counter-clockwise degrees (90, 180, 270) as PyAV reports them; pixels stay as they are."""
    data = bytearray(path.read_bytes())
    cosine, sine = {90: (0, -1), 180: (-1, 0), 270: (0, 1)}[degrees]
    one = 0x10000
    start = data.index(b"tkhd") + 4 + 40  # the first track is the video
    matrix = struct.pack(">9i", cosine * one, sine * one, 0, -sine * one, cosine * one, 0, 0, 0, 0x40000000)
    data[start : start + 36] = matrix
    path.write_bytes(bytes(data))
    return path


def truncate(path: Path, share: float) -> Path:
    """Keep only the first ``share`` of a file."""
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    return path
