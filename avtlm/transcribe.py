"""Media files to transcripts: lips and sound, features, model, search. What `avtlm transcribe` and the demo call.

``avtlm.transcribe`` is both this module and a function of the same name for notebooks (avtlm.arrays.transcribe): the module can be called.
"""

import logging
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from avtlm import checkpoint, config, systems
from avtlm.data.container import FPS, SAMPLE_RATE, MediaError, open_media, video_stream
from avtlm.data.dataset import Item, collate
from avtlm.data.inputs import InputFormat
from avtlm.data.sound import read_track
from avtlm.data.sound_stream import media_seconds
from avtlm.decoding.result import Transcript
from avtlm.decoding.settings import DecodingConfig
from avtlm.export.folder import check_choice
from avtlm.lips.crop import extract_lips
from avtlm.lips.landmarks import FaceMesh, LandmarkProvider
from avtlm.nn.int8 import quantise
from avtlm.training.progress import track
from avtlm.transcriber import Transcriber

logger = logging.getLogger(__name__)

BATCH_SECONDS = 120.0  # in one batch, padding too
BATCH_FILES = 16
MIN_SECONDS = 0.1
WINDOW = 20.0  # seconds of the longest recording that is decoded whole; training takes clips of this length at most by default
MODALITIES = ("av", "a", "v")


def transcribe(
    paths: Iterable[str | Path],
    model: str | Path | Transcriber,
    modality: str = "av",
    geometry: str | None = None,
    provider: LandmarkProvider | None = None,
    decoding: Sequence[str] = (),
    window: float = WINDOW,
    vad: str = "energy",
    min_silence: float = 0.5,
) -> list[Transcript]:
    """Transcripts of media files, in their order.

    Args:
        paths: videos of one speaking face, or sound files for modality ``a``.
        model: a model folder of a recogniser, or of a whole model that writes text, or one that is loaded already.
        modality: ``av`` (sound and lips), ``a`` or ``v``. With ``a`` no face is looked for.
        geometry: how lips are aligned; default: as they were for the model. See avtlm.lips.align.GEOMETRIES.
        provider: finds face landmarks; default: FaceMesh.
        decoding: changes to the model's decoding settings: ``("method=ctc_beam", "beam=20")``.
        window: seconds that the model takes at once; longer recordings are divided (see avtlm.long_recordings). 0 takes every file whole.
        vad: what finds speech in them: ``energy``, or ``silero`` (the extra ``vad``).
        min_silence: seconds of a pause that divides them.

    Raises:
        MediaError: a file cannot be used; see `transcribe_each` to go on with the others.
        CheckpointError: the model folder is incomplete.
        MissingExtra: lips are needed and the extra is not installed.
        ValueError: an unknown modality.
    """
    found = []
    for _, result in transcribe_each(paths, model, modality, geometry, provider, decoding, window, vad, min_silence):
        if isinstance(result, MediaError):
            raise result
        found.append(result)
    return found


def transcribe_each(
    paths: Iterable[str | Path],
    model: str | Path | Transcriber,
    modality: str = "av",
    geometry: str | None = None,
    provider: LandmarkProvider | None = None,
    decoding: Sequence[str] = (),
    window: float = WINDOW,
    vad: str = "energy",
    min_silence: float = 0.5,
) -> Iterator[tuple[Path, Transcript | MediaError]]:
    """As `transcribe`, one pair of path and result at a time; a file that cannot be used gives its MediaError and the others go on."""
    if modality not in MODALITIES:
        raise ValueError(f"modality: {modality!r} is unknown; choose one of {', '.join(MODALITIES)}.")
    from avtlm.long_recordings import LongOptions, transcribe_recording  # which reads features as this file does

    recognizer = load_recognizer(model)
    searched = changed_decoding(recognizer, decoding)
    inputs = recognizer.inputs
    if inputs.video_size is None:
        if modality == "v":
            raise ValueError("modality: 'v' was asked for, but this model hears only; choose a.")
        modality = "a"
    if provider is None and "v" in modality:
        provider = FaceMesh()
    options = LongOptions(window=window, vad=vad, min_silence=min_silence) if window else None
    lips = geometry or recognizer.geometry
    waiting: list[tuple[Path, Item | MediaError]] = []
    for path in track([Path(path) for path in paths], "transcribing"):
        if options is not None and media_seconds(path) > options.window:
            yield from _recognise(recognizer, waiting, searched)
            waiting = []
            try:
                yield path, transcribe_recording(path, recognizer, modality, searched, options, lips, provider)
            except MediaError as error:
                yield path, error
            continue
        entry: tuple[Path, Item | MediaError]
        try:
            entry = path, read_item(path, modality, inputs, lips, provider)
        except MediaError as error:
            entry = path, error
        items = [item for _, item in [*waiting, entry] if isinstance(item, Item)]
        if len(items) > BATCH_FILES or len(items) * max((_seconds(item, inputs) for item in items), default=0) > BATCH_SECONDS:
            yield from _recognise(recognizer, waiting, searched)
            waiting = []
        waiting.append(entry)
    yield from _recognise(recognizer, waiting, searched)


def load_recognizer(model: str | Path | Transcriber, backend: str | None = None, weights: str | None = None) -> Transcriber:
    """A model that writes text in evaluation mode, on the GPU if there is one and it has a use for it.

    Args:
        backend: ``torch`` or ``onnx``, what has to compute; None for what the folder holds (avtlm.export).
        weights: ``int8`` for 8-bit weights of linear layers, on the CPU (avtlm.nn.int8); None for those that there are.

    Raises:
        CheckpointError: the folder is incomplete or damaged.
        ValueError: it holds a model that writes no text, or no such backend or weights.
        MissingExtra: graphs without the extra ``export``.
    """
    if isinstance(model, Transcriber):
        if backend is not None or weights is not None:
            raise ValueError("backend, weights: they are chosen when a model is opened, and this one is open already; give its folder.")
        return model
    if not Path(model).exists():
        raise checkpoint.CheckpointError(
            f"{model}: there is no such model; name its folder with --model, or make one by `make quickstart`."
        )
    if check_choice(model, backend, weights):
        from avtlm.export.exported import open_exported

        return open_exported(model)
    recognizer: Transcriber = systems.load(model)
    return systems.for_use(quantise(recognizer), "cpu") if weights == "int8" else systems.for_use(recognizer)


def changed_decoding(recognizer: Transcriber, changes: Sequence[str]) -> DecodingConfig:
    """The decoding settings of a model with some of them set anew: ``beam=20``.

    Raises:
        ConfigError: an unknown setting or a wrong value.
    """
    return config.load(DecodingConfig, config.to_dict(recognizer.decoding), changes)


def read_item(path: Path, modality: str, inputs: InputFormat, geometry: str = "avhubert", provider: LandmarkProvider | None = None) -> Item:
    """The features of one media file that ``modality`` needs.

    Raises:
        MediaError: unreadable, no face, or no sound where sound is needed.
    """
    crops = frames = None
    if "v" in modality:
        with open_media(path) as container:
            if video_stream(container) is None:
                raise MediaError(path, f"has no video track{'; ask for modality a to hear the sound alone' if 'a' in modality else ''}.")
        clip = extract_lips(path, provider, geometry, audio="a" in modality)
        wave, warnings = clip.audio, clip.report.warnings
        crops, frames = inputs.video(clip.crops), len(clip.crops)
    else:
        wave, notes = read_track(path)
        warnings = tuple(notes)
    features = None
    if "a" in modality:
        if wave is None:
            raise MediaError(path, f"has no audio track{'; ask for modality v to read the lips alone' if 'v' in modality else ''}.")
        if "v" not in modality and not np.any(np.abs(wave) > 1e-4):
            raise MediaError(path, "is silent; there is nothing to hear.")
        if len(wave) < MIN_SECONDS * SAMPLE_RATE:
            raise MediaError(path, f"has only {len(wave) / SAMPLE_RATE:.3f} s of sound; at least {MIN_SECONDS} s are needed.")
        features = inputs.audio(to_int16(wave), frames)
    for warning in warnings:
        logger.warning("%s: %s.", path, warning)
    return Item(str(path), audio=features, video=crops)


def to_int16(wave: np.ndarray) -> np.ndarray:
    """float (samples,) in [-1, 1] -> int16 (samples,), as the models are trained."""
    return np.round(np.clip(wave, -1, 32767 / 32768) * 32768).astype(np.int16)


def _recognise(
    recognizer: Transcriber, entries: list[tuple[Path, Item | MediaError]], decoding: DecodingConfig
) -> Iterator[tuple[Path, Transcript | MediaError]]:
    items = [item for _, item in entries if isinstance(item, Item)]
    found: Iterator[Transcript] = iter(())
    if items:
        device = next(recognizer.parameters()).device
        found = iter(recognizer.transcribe_batch(collate(items, "recognition").to(device), decoding))
    for path, entry in entries:
        yield path, entry if isinstance(entry, MediaError) else replace(next(found), duration=_seconds(entry, recognizer.inputs))


def _seconds(item: Item, inputs: InputFormat) -> float:
    if item.video is not None:
        return len(item.video) / FPS
    return 0.0 if item.audio is None else inputs.seconds(item.audio)


class _CallableModule(ModuleType):
    def __call__(self, *arguments: Any, **options: Any) -> Any:
        """avtlm.arrays.transcribe: one clip or a list of clips, files or arrays, to transcripts."""
        from avtlm.arrays import transcribe  # which reads features as this file does

        return transcribe(*arguments, **options)


sys.modules[__name__].__class__ = _CallableModule
