"""Read and write clips: pictures and sound from any common container on one clock.

PyAV is the only decoder; :mod:`avtlm.data.frames` reads pictures, :mod:`avtlm.data.sound` reads sound, and whatever is wrong with a file
arrives as one :class:`MediaError`.
"""

import io
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import soundfile

from avtlm.data.container import FPS, SAMPLE_RATE, MediaError
from avtlm.data.frames import FULL_RANGE, FrameStream
from avtlm.data.sound import fit, read_audio, read_track
from avtlm.files import atomic_path

__all__ = [
    "FPS",
    "SAMPLE_RATE",
    "Clip",
    "FrameStream",
    "MediaError",
    "read_audio",
    "read_clip",
    "read_lip_crops",
    "read_track",
    "write_clip",
    "write_wav",
]


@dataclass(frozen=True)
class Clip:
    """One decoded clip.

    Attributes:
        frames: uint8 ``(frames, height, width)`` upright grey, or ``(frames, height, width, 3)`` RGB; None when not read.
        audio: float32 ``(samples,)`` in [-1, 1], mono; None when not read or when there is no audio track. Read together with the frames it
            has exactly ``frames * sample_rate / fps`` samples, cut or zero-padded at the end.
        info: ``source_fps``, ``width``, ``height`` (upright), ``rotation`` (degrees counter-clockwise that were applied), ``codec``,
            ``source_frames`` and ``warnings`` (list of sentences for the user).
    """

    frames: np.ndarray | None
    audio: np.ndarray | None
    fps: float = FPS
    sample_rate: int = SAMPLE_RATE
    info: dict[str, Any] = field(default_factory=dict)


def read_clip(
    path: str | Path,
    video: bool = True,
    audio: bool = True,
    fps: float = FPS,
    sample_rate: int = SAMPLE_RATE,
    colour: bool = False,
    damaged: str = "refuse",
    threads: int = 1,
) -> Clip:
    """Decode a clip to a constant frame rate and mono sound that starts with the first picture.

    Args:
        path: a media file.
        video: read the frames; the file must have a video track then.
        audio: read the sound; a file without an audio track gives None and a warning.
        fps: output frame rate.
        sample_rate: output rate of the sound in Hz.
        colour: RGB frames instead of grey.
        damaged: ``"refuse"`` (raise) or ``"keep"`` (warn) when fewer frames arrive than the file promises.
        threads: decoder threads.

    Raises:
        MediaError: the file cannot be used; the message says why.
    """
    info: dict[str, Any] = {"warnings": []}
    frames = None
    if video:
        stream = FrameStream(path, fps=fps, colour=colour, damaged=damaged, threads=threads)
        frames = np.stack(list(stream))
        info = stream.info
    sound = None
    if audio:
        sound, notes = read_track(
            path, sample_rate, start=info.get("first_time"), samples=None if frames is None else round(len(frames) * sample_rate / fps)
        )
        info["warnings"].extend(notes)
    return Clip(frames, sound, fps, sample_rate, info)


def read_lip_crops(path: str | Path, content: bytes | None = None) -> np.ndarray:
    """Lip crops uint8 ``(frames, 96, 96)`` from an .npy file (memory-mapped) or a video of crops.

    ``content`` is what the file holds, if it was read already.

    Raises:
        MediaError: the file cannot be read or does not hold 96 x 96 grey crops.
    """
    if Path(path).suffix == ".npy":
        try:
            if content is None:
                crops = np.load(path, mmap_mode="r", allow_pickle=False)
            else:
                crops = np.load(io.BytesIO(content), allow_pickle=False)
        except Exception as error:  # a damaged header may fail in any way; what it was is in the sentence
            reason = " ".join(str(error).split())[:120] or type(error).__name__
            raise MediaError(path, f"is not an array of lip crops ({reason}).") from error
    else:
        crops = np.stack(list(FrameStream(path, content=content)))
    if crops.dtype != np.uint8 or crops.shape[1:] != (96, 96):
        raise MediaError(path, f"holds {crops.dtype} of shape {tuple(crops.shape)}, not lip crops: uint8 (frames, 96, 96).")
    return crops


def write_clip(
    path: str | Path,
    frames: np.ndarray,
    audio: np.ndarray | None = None,
    fps: float = FPS,
    sample_rate: int = SAMPLE_RATE,
    crf: int = 23,
    preset: str = "ultrafast",
) -> None:
    """Write an .mp4 (H.264 yuv420p, AAC) atomically; equal input gives equal bytes.

    Grey frames are stored as full-range luma, so that reading them back is the plane itself. The audio is cut or padded to the length of
    the video.

    Args:
        frames: uint8 ``(frames, height, width)`` grey or ``(frames, height, width, 3)`` RGB, even height and width.
        audio: float ``(samples,)`` in [-1, 1].

    Raises:
        ValueError: wrong dtype, shape or odd size.
    """
    if frames.dtype != np.uint8 or not (frames.ndim == 3 or (frames.ndim == 4 and frames.shape[3] == 3)) or not len(frames):
        expected = "at least one uint8 frame, (frames, height, width) or (frames, height, width, 3)"
        raise ValueError(f"frames: {frames.dtype} {tuple(frames.shape)}; expected {expected}.")
    height, width = frames.shape[1:3]
    if height % 2 or width % 2:
        raise ValueError(f"frames: {width} x {height} pixels; H.264 in 4:2:0 needs an even width and height.")
    with atomic_path(path) as temporary, av.open(str(temporary), "w") as container:
        rate = Fraction(fps).limit_denominator(1001)
        video = container.add_stream("libx264", rate=rate, options={"crf": str(crf), "preset": preset, "threads": "1"})
        video.width, video.height, video.pix_fmt = width, height, "yuv420p"
        sound = container.add_stream("aac", rate=sample_rate, layout="mono") if audio is not None else None
        if frames.ndim == 3:
            video.codec_context.color_range = FULL_RANGE
        for picture in frames:
            container.mux(video.encode(_grey_frame(picture) if frames.ndim == 3 else av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(video.encode(None))
        if sound is not None and audio is not None:
            samples = fit(np.asarray(audio, np.float32), round(len(frames) * sample_rate / fps))
            block = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples[None]), format="fltp", layout="mono")
            block.sample_rate = sample_rate
            block.pts = 0
            container.mux(sound.encode(block))
            container.mux(sound.encode(None))


def _grey_frame(picture: np.ndarray) -> av.VideoFrame:
    height, width = picture.shape
    planes = np.full((height * 3 // 2, width), 128, np.uint8)
    planes[:height] = picture
    frame = av.VideoFrame.from_ndarray(planes, format="yuv420p")
    frame.color_range = FULL_RANGE
    return frame


def write_wav(path: str | Path, audio: np.ndarray, sample_rate: int = SAMPLE_RATE) -> None:
    """Write mono 16-bit PCM atomically; ``audio`` is float ``(samples,)`` in [-1, 1], clipped, or int16.

    Raises:
        OSError: it cannot be written.
    """
    whole = audio if audio.dtype == np.int16 else np.clip(audio, -1, 1)
    # By its number: libsndfile takes no path of more than 1,024 bytes.
    with atomic_path(path) as temporary, open(temporary, "wb") as file:
        try:
            soundfile.write(file.fileno(), whole, sample_rate, subtype="PCM_16", format="WAV", closefd=False)
        except soundfile.SoundFileError as error:
            raise OSError(f"{path}: cannot be written ({error})") from error
