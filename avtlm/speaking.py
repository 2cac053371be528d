"""Speech from text and from other speech: what `avtlm synthesize`, `avtlm convert-voice` and `avtlm enhance` call.

What is unusual here:
- Texts and files that cannot be used are reported, and the others go on.
- Recordings longer than a window are divided at their pauses. Their parts are said one by one, and the pauses between them stay.

Source: SpeechT5 (arXiv 2110.07205), sections 4.2 (synthesis), 4.3 (voice conversion) and 4.5 (enhancement).
"""

import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch

from avtlm.data.batching import Batch
from avtlm.data.container import SAMPLE_RATE, MediaError
from avtlm.data.sound import read_track
from avtlm.data.sound_stream import AUDIBLE, SoundStream, media_seconds
from avtlm.decoding.segments import Segment, Segmenter, SegmentOptions
from avtlm.decoding.voice_activity import find_detector
from avtlm.frontends.mel import HOP, SILENCE
from avtlm.speech_writer import Delivery, SpeechWriter, Spoken, Vocoder, Voice
from avtlm.text.vocabulary import EOS, Tokenizer
from avtlm.training.progress import track
from avtlm.transcribe import to_int16

logger = logging.getLogger(__name__)

ROWS = 8  # utterances that are said at once
WINDOW = 20.0  # seconds of the longest recording that is taken whole
SHORTEST = 0.2  # seconds of sound after which something can be said

Given = TypeVar("Given", str, Path)
Fault = TypeVar("Fault", bound=ValueError)


class TextError(ValueError):
    """A text that cannot be said, in one sentence: which one and why."""

    def __init__(self, text: str, reason: str) -> None:
        super().__init__(f"{_shown(text)}: {reason}")
        self.text = text
        self.reason = reason

    def __reduce__(self) -> tuple[type["TextError"], tuple[str, str]]:
        return type(self), (self.text, self.reason)  # survives the way back from a worker process


# Text ---------------------------------------------------------------------------------------------------------------------------------


def synthesize(
    texts: Iterable[str],
    model: str | Path | SpeechWriter,
    voice: Voice | None = None,
    vocoder: Vocoder | None = None,
    seed: int = 0,
    options: Sequence[str] = (),
    speaker: str | None = None,
) -> list[Spoken]:
    """Say texts, in their order.

    Args:
        texts: sentences, in the symbols of the model's vocabulary.
        model: a model folder for generation, or one that is open already (avtlm.speech_writer.load_writer).
        voice: speaker embedding (voice_dim,) such as an x-vector of a reference clip, or a file (.npy, or .npz or .safetensors of one
            or several by name); None for models that know no voices.
        vocoder: its model folder, or one that is open already; None for Griffin-Lim.
        seed: repeats what is said; the decoder draws dropout while it speaks.
        options: changes to the model's settings: ``("threshold=0.4", "longest=10")``, see avtlm.decoding.synthesis.SynthesisOptions.
        speaker: whose of a file's embeddings.

    Raises:
        TextError: a text is empty or has symbols that the model does not know; see `synthesize_each` to go on with the others.
        CheckpointError, ConfigError, VocabularyError: a folder is incomplete.
        ValueError: a voice, vocoder or model that does not fit.
    """
    return _all(synthesize_each(texts, Delivery.prepare(model, voice, vocoder, seed, options, speaker)))


def synthesize_each(texts: Iterable[str], delivery: Delivery) -> Iterator[tuple[str, Spoken | TextError]]:
    """As `synthesize`, one pair of text and result at a time; a text that cannot be said gives its TextError and the others go on.

    Args:
        delivery: of Delivery.prepare, which takes the other arguments of `synthesize`.
    """
    writer = delivery.writer
    if "text" not in writer.model.config.inputs:
        raise ValueError(f"{writer.name}: this model reads speech, not text; convert voices or enhance with it.")
    if writer.vocabulary is None:
        raise ValueError(
            f"{writer.name}: the folder has no vocabulary to read text with; convert its source again with --vocabulary, which takes the "
            "dict.txt or the SentencePiece model that belongs to it."
        )
    waiting: list[tuple[str, Batch | TextError]] = []
    for text in track([texts] if isinstance(texts, str) else list(texts), "speaking"):
        try:
            ids = torch.tensor([text_ids(text, writer.vocabulary) + [EOS] * writer.options.end_symbol])
            waiting.append((text, Batch((_shown(text),), "generation", text=ids, text_lengths=torch.tensor([ids.shape[1]]))))
        except TextError as error:
            waiting.append((text, error))
        if len(waiting) == ROWS:
            yield from _say(delivery, waiting)
            waiting = []
    yield from _say(delivery, waiting)


def text_ids(text: str, vocabulary: Tokenizer) -> list[int]:
    """The ids of a text that can be said, without start or end symbols.

    Raises:
        TextError: it is empty, or has symbols that the vocabulary lacks.
    """
    ids = vocabulary.encode(text)
    if not text.strip() or not ids:
        raise TextError(text, "there is nothing to say; give at least one letter.")
    unknown = sorted(vocabulary.unknown_report([text]).symbols)
    if getattr(vocabulary, "spelling", None) != "tokens":  # word pieces report neighbouring letters as one
        unknown = sorted(set("".join(unknown)))
    if unknown:
        known = set(vocabulary.symbols)
        cases = (("lower", str.lower), ("upper", str.upper))
        case = next((name for name, change in cases if all(change(symbol) in known for symbol in unknown)), None)
        listed = ", ".join(map(repr, unknown[:10])) + (f" and {len(unknown) - 10} more" if len(unknown) > 10 else "")
        advice = f"write it in {case} case" if case else "spell it in symbols that there are"
        raise TextError(text, f"the model's vocabulary has no {listed}; {advice}.")
    return ids


# Speech -------------------------------------------------------------------------------------------------------------------------------


def convert_voice(
    paths: Iterable[str | Path],
    model: str | Path | SpeechWriter,
    voice: Voice | None = None,
    vocoder: Vocoder | None = None,
    seed: int = 0,
    options: Sequence[str] = (),
    window: float = WINDOW,
    speaker: str | None = None,
) -> list[Spoken]:
    """Say in another voice what is said in sound files or videos, in their order; see `synthesize` for the other arguments.

    Args:
        paths: media files.
        window: seconds that the model takes at once; longer recordings are divided at pauses. 0 takes every file whole.

    Raises:
        MediaError: a file cannot be used; see `convert_voice_each` to go on with the others.
        CheckpointError, ConfigError: a folder is incomplete.
        ValueError: a voice, vocoder or model that does not fit.
    """
    return _all(convert_voice_each(paths, Delivery.prepare(model, voice, vocoder, seed, options, speaker), window))


def convert_voice_each(
    paths: Iterable[str | Path], delivery: Delivery, window: float = WINDOW
) -> Iterator[tuple[Path, Spoken | MediaError]]:
    """As `convert_voice`, one pair of path and result at a time; a file that cannot be used gives its MediaError and the others go on."""
    if "speech" not in delivery.writer.model.config.inputs:
        raise ValueError(f"{delivery.writer.name}: this model reads text, not speech; synthesize with it.")
    division = SegmentOptions(window=window, overlap=0.0) if window else None
    waiting: list[tuple[Path, Batch | MediaError]] = []
    for path in track([Path(path) for path in ([paths] if isinstance(paths, str | Path) else paths)], "speaking"):
        if division is not None and media_seconds(path) > division.window:
            yield from _say(delivery, waiting)
            waiting = []
            try:
                yield path, _say_recording(delivery, path, division)
            except MediaError as error:
                yield path, error
            continue
        try:
            waiting.append((path, _sound(str(path), _read(path), delivery.writer)))
        except MediaError as error:
            waiting.append((path, error))
        if len(waiting) == ROWS:
            yield from _say(delivery, waiting)
            waiting = []
    yield from _say(delivery, waiting)


# The same by a model that has learned to keep the voice and leave out the noise; only one that knows voices needs that of who speaks.
enhance = convert_voice


def _read(path: Path) -> np.ndarray:
    """Mono float32 (samples,) at 16 kHz.

    Raises:
        MediaError: it cannot be read, or nothing could be said after it.
    """
    wave, notes = read_track(path)
    if wave is None:
        raise MediaError(path, "has no audio track.")
    if not np.any(np.abs(wave) > AUDIBLE):
        raise MediaError(path, "is silent; there is nothing to hear.")
    if len(wave) < SHORTEST * SAMPLE_RATE:
        raise MediaError(path, f"has only {len(wave) / SAMPLE_RATE:.3f} s of sound; at least {SHORTEST} s are needed.")
    for note in notes:
        logger.warning("%s: %s.", path, note)
    return wave


def _sound(name: str, wave: np.ndarray, writer: SpeechWriter) -> Batch:
    samples = writer.model.input_format.audio(to_int16(wave))[None]
    return Batch((name,), "generation", audio=samples, audio_lengths=torch.tensor([samples.shape[1]]))


def _say_recording(delivery: Delivery, path: Path, division: SegmentOptions) -> Spoken:
    """A recording of any length, part by part, with its pauses.

    Raises:
        MediaError: it cannot be read, or nothing is heard in it.
    """
    stream = SoundStream(path)
    parts: list[Spoken] = []
    pauses: list[float] = []  # seconds before each part
    waiting: list[Segment] = []
    end = 0.0

    def say() -> None:
        batches = [
            _sound(f"{path} from {segment.start:.2f} s", segment.wave, delivery.writer) for segment in waiting if segment.wave is not None
        ]
        parts.extend(delivery.say(batches))
        waiting.clear()

    for segment in _segments(stream, division):
        pauses.append(max(0.0, segment.start - end))
        end = segment.end
        waiting.append(segment)
        if len(waiting) == ROWS:
            say()
    say()
    for note in stream.notes:
        logger.warning("%s: %s.", path, note)
    if not parts:
        raise MediaError(path, "no speech is heard in it.")
    return _joined(parts, pauses)


def _segments(stream: SoundStream, division: SegmentOptions) -> Iterator[Segment]:
    segmenter = Segmenter(find_detector("energy"), division)
    for block in stream:
        yield from segmenter.feed(block)
    yield from segmenter.finish()


def _joined(parts: Sequence[Spoken], pauses: Sequence[float]) -> Spoken:
    """Parts one after another, each behind a pause of so many seconds."""
    waves: list[np.ndarray] = []
    mels: list[np.ndarray] = []
    for part, pause in zip(parts, pauses, strict=True):
        frames = round(pause * part.rate / HOP)
        waves += [np.zeros(frames * HOP, np.float32), part.wave]
        mels += [np.full((frames, part.mel.shape[1]), SILENCE, np.float32), part.mel]
    looks = tuple(look for part in parts for look in part.attention)
    return Spoken(np.concatenate(waves), np.concatenate(mels), looks, any(part.cut for part in parts))


# Both -----------------------------------------------------------------------------------------------------------------------------------


def _say(delivery: Delivery, entries: Sequence[tuple[Given, Batch | Fault]]) -> Iterator[tuple[Given, Spoken | Fault]]:
    found = iter(delivery.say([entry for _, entry in entries if isinstance(entry, Batch)]))
    for given, entry in entries:
        yield given, next(found) if isinstance(entry, Batch) else entry


def _all(results: Iterable[tuple[Any, Spoken | ValueError]]) -> list[Spoken]:
    found = []
    for _, result in results:
        if isinstance(result, ValueError):
            raise result
        found.append(result)
    return found


def _shown(text: str) -> str:
    return repr(text if len(text) <= 40 else f"{text[:37]}...")


# Files ----------------------------------------------------------------------------------------------------------------------------------


def read_texts(path: str | Path) -> list[tuple[str, str]]:
    """The texts of a file by name: one in each line, which ``name<TAB>`` may begin; without it the name is the number of the line. Empty
    lines are left out.

    Raises:
        ValueError: the file cannot be read or has no texts, or a name is none for a file.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: cannot be read as text ({getattr(error, 'strerror', None) or error}).") from error
    found = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        name, tab, text = line.partition("\t")
        name, text = (name.strip(), text) if tab else (f"{number:04d}", line)
        if Path(name).name != name or name in ("", ".."):
            raise ValueError(f"{path}, line {number}: {name!r} cannot be the name of a file; write NAME<TAB>TEXT, or the text alone.")
        found.append((name, text))
    if not found:
        raise ValueError(f"{path}: there is no text in it; write one in each line.")
    return found


def output_files(names: Sequence[str], out: str | Path, ending: str = ".wav") -> list[Path]:
    """Where what is made of every name goes: ``out`` itself if it ends so, else a file in this folder.

    Raises:
        ValueError: several would go into one file, or one into a file of another kind.
    """
    out = Path(out)
    if out.suffix.lower() == ending:
        if len(names) > 1:
            raise ValueError(f"{out} is one file, but there are {len(names)} to write; give a folder.")
        return [out]
    if out.suffix[1:2].isalpha() and not out.is_dir():
        raise ValueError(f"{out}: what is written here is a file *{ending}; name it so, or give a folder.")
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise ValueError(f"{out / twice[0]}{ending} would be written twice; give every input a name of its own.")
    return [out / f"{name}{ending}" for name in names]
