"""Sound and pictures in memory, or files, to transcripts: what `avtlm.transcribe` does in notebooks.

Arrays go the same way as files: sound to 16 kHz, pictures to 25 a second at the nearest time, lips found and cut as for the model's
training. Nothing is printed; what is unusual about a clip is logged as a warning.
"""

import logging
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import soxr
from torch import Tensor

from avtlm.checkpoint import WEIGHTS
from avtlm.data.container import FPS, SAMPLE_RATE, MediaError, open_media, video_stream
from avtlm.data.dataset import SIDE, Item, collate
from avtlm.data.media import Clip
from avtlm.data.sound import fit, mix_down, note_rate
from avtlm.decoding.result import Transcript
from avtlm.decoding.settings import DecodingConfig
from avtlm.export.folder import DESCRIPTION, is_exported
from avtlm.files import DEFAULT_MODEL
from avtlm.hub import folder_of
from avtlm.lips.crop import find_lips
from avtlm.lips.landmarks import FaceMesh, LandmarkProvider
from avtlm.transcribe import (
    BATCH_FILES,
    BATCH_SECONDS,
    MIN_SECONDS,
    MODALITIES,
    WINDOW,
    changed_decoding,
    load_recognizer,
    to_int16,
)
from avtlm.transcribe import transcribe as transcribe_files
from avtlm.transcriber import Transcriber

log = logging.getLogger(__name__)

Source = str | Path | np.ndarray | Tensor | Clip
LOUDEST = 32.0  # no sound within -1 and 1 gets there, however much noise was added to it; integers that were cast to floats do
CHANNELS = 8
GREY = np.array([0.299, 0.587, 0.114], np.float32)  # of red, green, blue, as in the luma plane of a video

_opened: dict[tuple[Any, ...], Transcriber] = {}  # the last model that was named, so that cell after cell need not open it again


def transcribe(
    clips: Source | Sequence[Source],
    model: str | Path | Transcriber = DEFAULT_MODEL,
    rate: float | None = None,
    modality: str | None = None,
    decoding: Sequence[str] = (),
    fps: float = FPS,
    geometry: str | None = None,
    provider: LandmarkProvider | None = None,
    window: float = WINDOW,
    vad: str = "energy",
    min_silence: float = 0.5,
    backend: str | None = None,
    weights: str | None = None,
) -> Any:
    """The transcript of a clip, or those of a list of clips in their order: text, and words with start, end and confidence.

    Args:
        clips: one clip or a list of clips. A clip is the path of a media file; sound (samples,) or (samples, channels), floats within -1
            and 1 or integers; pictures (frames, height, width) or (frames, height, width, 3), uint8, grey or RGB; or an avtlm.Clip of
            both. Grey pictures of 96 x 96 are lip crops already, as ``avtlm-lip-roi`` writes them.
        model: a model folder, ``owner/name`` of the hub, or a model that avtlm.load has opened.
        rate: samples per second of sound that comes as an array.
        modality: ``av``, ``a`` or ``v``; default: all that both the clip has and the model takes.
        decoding: changes to the model's decoding settings: ``["method=ctc_beam", "beam=20"]``.
        fps: pictures per second of pictures that come as an array.
        geometry, provider: how lips are cut and faces found; see avtlm.transcribe.transcribe.
        window, vad, min_silence: how files and sound of more than ``window`` seconds are divided.
        backend, weights: see avtlm.transcribe.load_recognizer; ``onnx`` for a folder that `avtlm export` has written, ``int8`` for 8 bits.

    Returns:
        A Transcript for one clip, a list of them for a list.

    Raises:
        MediaError: a clip cannot be used; it is called by its path, or by its number in the list, from 0.
        ValueError: no rate for an array of sound, an array of another kind, or an unknown modality, backend or kind of weights.
        CheckpointError, HubError: there is no such model.
        MissingExtra: lips are needed and the extra ``lips`` is not installed.
    """
    single = isinstance(clips, str | Path | np.ndarray | Tensor | Clip)
    given: list[Any] = [clips] if single else list(clips)  # type: ignore[arg-type]
    if modality is not None and modality not in MODALITIES:
        raise ValueError(f"modality: {modality!r} is unknown; choose one of {', '.join(MODALITIES)}, or None for what there is.")
    recognizer = _open(model, backend, weights)
    if modality == "v" and recognizer.inputs.video_size is None:
        raise ValueError("modality: 'v' was asked for, but this model hears only; choose a.")
    searched = changed_decoding(recognizer, decoding)
    lips = geometry or recognizer.geometry
    results: dict[int, Transcript] = {}
    files: dict[str, list[tuple[int, Path]]] = {}
    items: list[tuple[int, Item]] = []
    with tempfile.TemporaryDirectory(prefix="avtlm-") as folder:
        for number, clip in enumerate(given):
            if isinstance(clip, str | Path):
                files.setdefault(_modality(clip, modality, recognizer), []).append((number, Path(clip)))
                continue
            name = f"clip {number}"
            whole = _clip(name, clip, rate, fps)
            sees = recognizer.inputs.video_size is not None
            used = modality or ("a" if whole.audio is not None else "") + ("v" if whole.frames is not None and sees else "")
            wave, frames = _parts(name, whole, used if sees else "a")
            seconds = len(wave) / whole.sample_rate if wave is not None else len(frames) / whole.fps if frames is not None else 0.0
            if window and seconds > window:
                if frames is not None or wave is None:
                    raise MediaError(
                        name, f"{seconds:.1f} s of pictures are more than the window of {window:g} s; give their file, or window=0."
                    )
                path = Path(folder) / f"{name}.wav"  # recordings are divided as they are read
                soundfile.write(path, wave, round(whole.sample_rate), subtype="FLOAT")
                files.setdefault("a", []).append((number, path))
                continue
            if frames is not None and provider is None and not _cropped(frames):
                provider = FaceMesh()
            items.append((number, _item(name, wave, frames, whole, recognizer, lips, provider)))
        options = {"geometry": geometry, "provider": provider, "window": window, "vad": vad, "min_silence": min_silence}
        for each, group in files.items():
            found = transcribe_files([path for _, path in group], recognizer, each, decoding=decoding, **options)  # type: ignore[arg-type]
            results.update(zip((number for number, _ in group), found))
    results.update(_recognised(recognizer, items, searched))
    return results[0] if single else [results[number] for number in range(len(given))]


def _open(model: str | Path | Transcriber, backend: str | None, weights: str | None) -> Transcriber:
    if isinstance(model, Transcriber):
        return load_recognizer(model, backend, weights)
    folder = Path(model) if Path(model) == DEFAULT_MODEL or is_exported(model) else folder_of(model)
    marker = next((folder / name for name in (WEIGHTS, DESCRIPTION) if (folder / name).exists()), None)
    if marker is None:
        return load_recognizer(folder, backend, weights)  # which says what is missing
    key = (folder.resolve(), marker.stat().st_mtime_ns, backend, weights)
    if key not in _opened:
        recognizer = load_recognizer(folder, backend, weights)
        _opened.clear()
        _opened[key] = recognizer
    return _opened[key]


def _modality(path: str | Path, wanted: str | None, recognizer: Transcriber) -> str:
    """What of a file is used."""
    if wanted is not None or recognizer.inputs.video_size is None:
        return wanted or "a"
    with open_media(path) as container:
        heard, seen = bool(container.streams.audio), video_stream(container) is not None
    return ("a" if heard or not seen else "") + ("v" if seen else "")


# Arrays ------------------------------------------------------------------------------------------------------------------------------


def _clip(name: str, given: Any, rate: float | None, fps: float) -> Clip:
    """An array as a clip of sound or of pictures.

    Raises:
        ValueError: it is neither, or has no rate.
    """
    if isinstance(given, Clip):
        return given
    if not isinstance(given, np.ndarray | Tensor):
        raise ValueError(f"{name} is a {type(given).__name__}; give a path, an array of sound or pictures, or an avtlm.Clip of both.")
    array = given.detach().cpu().numpy() if isinstance(given, Tensor) else given
    if array.ndim >= 3:
        return Clip(array, None, fps)
    if rate is None:
        raise ValueError(f"rate: missing; say how many samples a second {name} has, such as rate=16000.")
    if not rate > 0:
        raise ValueError(f"rate: {rate:g} samples a second; give a number above 0.")
    return Clip(None, array, sample_rate=rate)  # type: ignore[arg-type]


def _parts(name: str, clip: Clip, modality: str) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Mono sound, float32 (samples,) at its own rate, and pictures, those of them that a modality needs."""
    if "a" in modality and clip.audio is None:
        raise MediaError(name, f"has no sound{'; ask for modality v to read the lips alone' if 'v' in modality else ''}.")
    if "v" in modality and clip.frames is None:
        raise MediaError(name, f"has no pictures{'; ask for modality a to hear the sound alone' if 'a' in modality else ''}.")
    wave = _mono(name, np.asarray(clip.audio)) if "a" in modality else None
    return wave, _checked(name, np.asarray(clip.frames), clip.fps) if "v" in modality else None


def _mono(name: str, sound: np.ndarray) -> np.ndarray:
    if sound.ndim not in (1, 2) or not (np.issubdtype(sound.dtype, np.floating) or np.issubdtype(sound.dtype, np.integer)):
        raise MediaError(name, f"is an array {sound.shape} of {sound.dtype}; sound is (samples,) or (samples, channels) of numbers.")
    if np.issubdtype(sound.dtype, np.unsignedinteger):
        middle = 2.0 ** (8 * sound.dtype.itemsize - 1)
        sound = (sound.astype(np.float64) - middle) / middle
    elif np.issubdtype(sound.dtype, np.integer):
        sound = sound / -float(np.iinfo(sound.dtype).min)
    if sound.ndim == 2:
        if sound.shape[1] > CHANNELS:
            raise MediaError(name, f"is an array {sound.shape}; sound is (samples,) or (samples, channels), so turn it: array.T.")
        sound = mix_down(sound.astype(np.float32))
    sound = np.ascontiguousarray(sound, dtype=np.float32)
    if not np.isfinite(sound).all():
        raise MediaError(name, "holds samples that are not finite numbers.")
    if len(sound) and float(np.abs(sound).max()) > LOUDEST:
        raise MediaError(name, f"has samples up to {np.abs(sound).max():g}; sound as floats lies within -1 and 1, so divide by 32768.")
    return sound


def _checked(name: str, frames: np.ndarray, fps: float) -> np.ndarray:
    if frames.dtype != np.uint8 or frames.ndim not in (3, 4) or (frames.ndim == 4 and frames.shape[3] != 3):
        raise MediaError(
            name,
            f"has pictures {frames.shape} of {frames.dtype}; they are (frames, height, width) or (frames, height, width, 3) of uint8.",
        )
    if not fps > 0:
        raise ValueError(f"fps: {fps:g} pictures a second; give a number above 0.")
    return frames


def _cropped(frames: np.ndarray) -> bool:
    return frames.ndim == 3 and frames.shape[1:] == (SIDE, SIDE)


def _item(
    name: str,
    wave: np.ndarray | None,
    frames: np.ndarray | None,
    clip: Clip,
    recognizer: Transcriber,
    geometry: str,
    provider: LandmarkProvider | None,
) -> Item:
    """What the model takes in."""
    inputs, notes = recognizer.inputs, list[str]()
    crops = None
    if frames is not None:
        crops = _lips(name, frames, clip.fps, geometry, provider, notes)
    features = None
    if wave is not None:
        if len(wave) < MIN_SECONDS * clip.sample_rate:
            raise MediaError(name, f"has only {len(wave) / clip.sample_rate:.3f} s of sound; at least {MIN_SECONDS} s are needed.")
        if not np.any(np.abs(wave) > 1e-4):
            if crops is None:
                raise MediaError(name, "is silent; there is nothing to hear.")
            notes.append("the audio is silent")
        if float(np.abs(wave).max()) > 1:
            notes.append(f"samples beyond -1 and 1 (up to {np.abs(wave).max():.3g}) are cut there")
        note_rate(round(clip.sample_rate), SAMPLE_RATE, notes)
        if clip.sample_rate != SAMPLE_RATE:
            wave = soxr.resample(wave, clip.sample_rate, SAMPLE_RATE)
        if crops is not None:
            wave = fit(wave, round(len(crops) * SAMPLE_RATE / FPS))
        features = inputs.audio(to_int16(wave), None if crops is None else len(crops))
    for note in notes:
        log.warning("%s: %s.", name, note)
    return Item(name, audio=features, video=None if crops is None else inputs.video(crops))


def _lips(name: str, frames: np.ndarray, fps: float, geometry: str, provider: LandmarkProvider | None, notes: list[str]) -> np.ndarray:
    """Lip crops uint8 (frames, 96, 96) at 25 a second, from pictures or from crops."""
    count = max(1, int(len(frames) / fps * FPS + 0.5 + 1e-6)) if len(frames) else 0
    nearest = np.ceil(np.arange(count) * fps / FPS - 0.5 - 1e-9).astype(int).clip(0, max(len(frames) - 1, 0))
    if _cropped(frames):
        if not count:
            raise MediaError(name, "has no pictures.")
        return frames[nearest]
    assert provider is not None
    found = find_lips(name, _Grey(frames, nearest), provider, geometry)
    notes.extend(found.warnings)
    return found.crops


class _Grey:
    """Some of the pictures of an array in grey, as often as they are gone through."""

    def __init__(self, frames: np.ndarray, numbers: np.ndarray) -> None:
        self.frames, self.numbers = frames, numbers

    def __iter__(self) -> Iterator[np.ndarray]:
        for number in self.numbers:
            picture = self.frames[number]
            yield picture if picture.ndim == 2 else np.round(picture.astype(np.float32) @ GREY).astype(np.uint8)


# Recognition -------------------------------------------------------------------------------------------------------------------------


def _recognised(recognizer: Transcriber, items: Sequence[tuple[int, Item]], decoding: DecodingConfig) -> Iterator[tuple[int, Transcript]]:
    """Transcripts by the numbers of their clips; clips with the same inputs and of like lengths share batches."""
    inputs = recognizer.inputs

    def seconds(item: Item) -> float:
        return len(item.video) / FPS if item.video is not None else 0.0 if item.audio is None else inputs.seconds(item.audio)

    device = next(recognizer.parameters()).device
    ordered = sorted(items, key=lambda entry: (entry[1].audio is None, entry[1].video is None, seconds(entry[1])))
    while ordered:
        size = 1
        kind = (ordered[0][1].audio is None, ordered[0][1].video is None)
        while size < min(BATCH_FILES, len(ordered)):
            item = ordered[size][1]
            if (item.audio is None, item.video is None) != kind or seconds(item) * (size + 1) > BATCH_SECONDS:
                break
            size += 1
        batch, ordered = ordered[:size], ordered[size:]
        found = recognizer.transcribe_batch(collate([item for _, item in batch], "recognition").to(device), decoding)
        for (number, item), each in zip(batch, found, strict=True):
            yield number, replace(each, duration=seconds(item))
