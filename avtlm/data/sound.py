"""Sound of any container, rate and number of channels as mono float32, placed by its time stamps.

Sample ``n`` belongs to ``n / sample_rate`` seconds after the first picture of the file (after the first sample when there is no picture): a
track that starts early is cut, one that starts late or has a hole is filled with zeros.
"""

import io
from collections.abc import Iterator
from pathlib import Path

import av
import av.error
import numpy as np
import soundfile
import soxr
from av.container import InputContainer

from avtlm.data.container import (
    LONGEST_HOLE,
    PYAV_ERRORS,
    SAMPLE_RATE,
    MediaError,
    describe,
    open_media,
    segment_is_cut,
    video_stream,
    wave_bytes,
)

SOUND_FILES = {".wav", ".flac"}  # read by soundfile, which is ten times faster than a demuxer
PLANES = 8  # FFmpeg's AV_NUM_DATA_POINTERS
RATES = range(1000, 1_000_001)  # samples a second; a damaged header may say 1, of which resampling would make hours
JITTER = 0.02  # seconds by which audio time stamps may stray (millisecond rounding in Matroska, say) before a gap is believed


def read_audio(path: str | Path, sample_rate: int = SAMPLE_RATE, content: bytes | None = None) -> np.ndarray:
    """Mono float32 ``(samples,)`` at ``sample_rate`` from a sound file, or from a video's audio track starting with the first picture.

    ``content`` is what the file holds, if it was read already.

    Raises:
        MediaError: the file cannot be read or has no audio.
    """
    sound, _ = read_track(path, sample_rate, content=content)
    if sound is None:
        raise MediaError(path, "has no audio track.")
    return sound


def read_track(
    path: str | Path,
    sample_rate: int = SAMPLE_RATE,
    start: float | None = None,
    samples: int | None = None,
    content: bytes | None = None,
) -> tuple[np.ndarray | None, list[str]]:
    """The audio track from ``start``, cut or padded to ``samples``, and warnings.

    ``start`` is in seconds of the container's clock and defaults to the first picture.

    Returns None for the sound when the file has no audio track.
    """
    notes: list[str] = []
    sound = None
    if Path(path).suffix.lower() in SOUND_FILES and (content is not None or Path(path).is_file()):
        sound = _read_sound_file(path, content, sample_rate, notes)
        if sound is not None and (short := wave_bytes(path, content)) is not None:
            notes.append(f"the file ends early: {short[0] / short[1]:.0%} of the sound that it promises are there")
    if sound is None:
        with open_media(path, content) as container:
            sound = _decode_track(container, path, sample_rate, start, notes, content)
    if sound is None:
        return None, ["no audio track"]
    if samples is not None:
        if abs(len(sound) - samples) > 0.2 * sample_rate:
            longer = "longer" if len(sound) > samples else "shorter"
            notes.append(f"the audio is {abs(len(sound) - samples) / sample_rate:.2f} s {longer} than the video")
        sound = fit(sound, samples)
    if not np.any(np.abs(sound) > 1e-4):
        notes.append("the audio is silent")
    return sound, notes


def fit(sound: np.ndarray, samples: int) -> np.ndarray:
    """Cut at the end, or pad with zeros, to ``samples``."""
    return np.pad(sound[:samples], (0, max(0, samples - len(sound))))


def _read_sound_file(path: str | Path, content: bytes | None, sample_rate: int, notes: list[str]) -> np.ndarray | None:
    """None when libsndfile does not know the coding; FFmpeg may."""
    try:
        sound, rate = soundfile.read(str(path) if content is None else io.BytesIO(content), dtype="float32", always_2d=True)
    except (soundfile.SoundFileError, RuntimeError):
        return None
    _check_rate(path, rate)
    return _resampled(mix_down(sound), rate, sample_rate, notes)


def mix_down(sound: np.ndarray) -> np.ndarray:
    """float32 ``(samples, channels)`` to the mean of the channels, ``(samples,)``."""
    return sound.mean(axis=1, dtype=np.float32) if sound.shape[1] > 1 else sound[:, 0]


def _check_rate(path: str | Path, rate: int) -> None:
    if rate not in RATES:
        raise MediaError(path, f"is damaged: its sound has {rate} samples a second.")


def note_rate(rate: int, sample_rate: int, notes: list[str]) -> None:
    """Say that the sound is narrower than the model's; the other way round nothing is lost that a model could hear."""
    if rate < sample_rate:
        notes.append(f"the audio has {rate} samples a second; it was resampled to {sample_rate}, with nothing above {rate // 2} Hz in it")


def _resampled(sound: np.ndarray, rate: int, sample_rate: int, notes: list[str]) -> np.ndarray:
    note_rate(rate, sample_rate, notes)
    if rate != sample_rate and len(sound):
        sound = soxr.resample(sound, rate, sample_rate)
    return np.ascontiguousarray(sound, dtype=np.float32)


def _decode_track(
    container: InputContainer, path: str | Path, sample_rate: int, start: float | None, notes: list[str], content: bytes | None
) -> np.ndarray | None:
    if not container.streams.audio:
        return None
    found = list(track_pieces(container, path, start, notes))
    if "matroska" in container.format.name and segment_is_cut(path, content):
        notes.append("the file ends early, before the end that it promises")
    return _resampled(np.concatenate([piece for piece, _ in found]), found[0][1], sample_rate, notes)


def track_pieces(container: InputContainer, path: str | Path, start: float | None, notes: list[str]) -> Iterator[tuple[np.ndarray, int]]:
    """The audio track of an open container piece by piece: mono float32 ``(samples,)`` and their rate, which is the same for all.

    ``start`` is as in :func:`read_track`; what is unusual is added to ``notes`` at the end.

    Raises:
        MediaError: no sound can be decoded, or its time stamps leap.
    """
    stream = container.streams.best("audio") or container.streams.audio[0]
    if stream.codec_context is None:  # PyAV's answer to an unknown or damaged codec tag
        raise MediaError(path, "has an audio track in a coding that this build of FFmpeg does not know.")
    if start is None:
        picture = video_stream(container)
        start = (
            float(picture.start_time * picture.time_base)
            if picture is not None and picture.start_time is not None and picture.time_base
            else None
        )
    position = 0  # samples placed so far, at the source's rate
    rate = bad = 0
    begun = False
    stopped = ""
    packets = container.demux(stream)
    while True:
        try:
            packet = next(packets)
            frames = packet.decode()
        except StopIteration:
            break
        except av.error.EOFError:
            break
        except PYAV_ERRORS as error:
            bad, stopped = bad + 1, describe(error)
            if bad > 1000:
                break
            continue
        for frame in frames:
            assert isinstance(frame, av.AudioFrame)
            _check_rate(path, frame.sample_rate)
            rate = rate or frame.sample_rate
            sound = _mono(frame)
            if frame.sample_rate != rate:
                sound = soxr.resample(sound, frame.sample_rate, rate)
            if frame.pts is not None and frame.time_base is not None:
                at = float(frame.pts * frame.time_base)
                start = at if start is None else start
                wanted = round((at - start) * rate)
                if not begun or abs(wanted - position) > JITTER * rate:
                    hole = wanted - position
                    if hole > LONGEST_HOLE * rate:
                        raise MediaError(path, f"is damaged: its audio time stamps jump by {hole / rate:.0f} s.")
                    if hole > 0:
                        yield np.zeros(hole, np.float32), rate
                    else:
                        sound = sound[-hole:]
                    position = wanted if hole > 0 else position
            begun = True
            yield sound, rate
            position += len(sound)
    if not position:
        raise MediaError(path, f"has an audio track that cannot be decoded{f' ({stopped})' if stopped else ''}.")
    if bad:
        notes.append(f"{bad} audio packets could not be decoded ({stopped})")


def _mono(frame: av.AudioFrame) -> np.ndarray:
    """Float32 in [-1, 1], the mean of the channels."""
    channels = frame.layout.nb_channels
    if channels >= PLANES:
        # PyAV looks for a null pointer behind the last plane and finds none behind the eighth; FFmpeg mixes these itself.
        frame = av.AudioResampler(format="s32", layout="mono", rate=frame.sample_rate).resample(frame)[0]
        channels = 1
    sound = frame.to_ndarray()
    if not frame.format.is_planar:
        sound = sound.reshape(-1, channels).T
    if sound.dtype == np.uint8:
        sound = (sound.astype(np.float32) - 128) / 128
    elif sound.dtype.kind == "i":
        sound = sound.astype(np.float32) / float(1 << (8 * sound.dtype.itemsize - 1))
    return sound.mean(axis=0, dtype=np.float32) if len(sound) > 1 else sound[0].astype(np.float32, copy=False)
