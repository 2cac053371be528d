"""What a run starts with, and batches of noise, for measuring a model without its data."""

import dataclasses
import tempfile
from pathlib import Path
from typing import Any

import torch

from avtlm import systems
from avtlm.data.batching import Batch
from avtlm.data.dataset import OF_TEXT, Source, choose, seconds
from avtlm.data.heard_clips import HEARD
from avtlm.data.inputs import InputFormat
from avtlm.data.manifest import Manifest, ManifestError, Utterance, read_manifest, write_manifest
from avtlm.data.spoken_clips import SPOKEN, WRITTEN_AS_SPEECH
from avtlm.data.teacher_targets import TEACHERS
from avtlm.frontends.filterbank import BANDS, SAMPLE_RATE, STACK
from avtlm.frontends.mel import mel_frames
from avtlm.frontends.text import DOWNSAMPLING
from avtlm.nn.transformer import DecoderStack, Encoder
from avtlm.protocols import PredictsUnits
from avtlm.text.vocabulary import EOS, SPECIALS, Tokenizer, Vocabulary
from avtlm.training.initial import Start, build
from avtlm.training.loop import TrainConfig

KINDS = ("audio_video", "audio", "audio_text", "text", "recognition", "sentences", *SPOKEN, *HEARD)
SILENT = ("text", "infilling", "units", "synthesis")  # what is read
LABELLED = ("audio_video", "audio", "audio_text", "text", "speech")  # with units
# Symbols of a transcript per second of speech: LibriSpeech has about 14.5 letters and spaces, and 4 of 1000 word pieces.
LETTERS_PER_SECOND, PIECES_PER_SECOND, MANY = 14.5, 4.0, 200
LETTERS_PER_UNIT = 0.5  # of sequences of units without their repeats
CLIP_SECONDS, SENTENCE = 10.0, 100  # of clips that are not there, and tokens of a sentence


def made_start(settings: TrainConfig, assumed: list[str]) -> tuple[dict[str, float | None], Start]:
    """Mean seconds of the clips of every source, None where there are no data, and the model that a training would start with."""
    if settings.task == "text_to_units":
        raise ValueError("task: there are no made-up batches of text_to_units; its log.jsonl tells how fast such a training is.")
    changes: dict[str, Any] = {"model": undropped(settings)}
    if settings.initialise is not None and not Path(settings.initialise).exists():
        if settings.task != "pretrain":
            raise ValueError(
                f"initialise: {settings.initialise} is not there, and the encoder has its sizes from it; name another model folder, or "
                "give initialise=null and the sizes under model.encoder."
            )
        changes["initialise"] = None
    vocabulary: Tokenizer | None = None
    with tempfile.TemporaryDirectory() as folder:
        stand_in = Path(folder) / "manifest.jsonl"
        names = ("one", "two")
        known = {"audio": "made.wav", "audio_samples": 16000, "transcript": "a"}
        made = tuple(Utterance(name, speaker=name, extra={"labels": [name]}, **known) for name in names)  # type: ignore[arg-type]
        write_manifest(stand_in, Manifest(Path(folder), made))
        lengths: dict[str, float | None] = {}
        sources = {}
        for name, part in settings.sources.items():
            try:
                rows = choose(read_manifest(part.manifest), part)
                lengths[name], sources[name] = sum(map(seconds, rows)) / len(rows), part
            except (ManifestError, OSError):
                lengths[name] = None
                sources[name] = dataclasses.replace(part, manifest=str(stand_in), split=None, min_seconds=0.0, teachers=None)
        absent = [name for name, length in lengths.items() if length is None]
        if absent:
            texts = all(settings.sources[name].task in OF_TEXT for name in absent)
            what = f"sentences of {SENTENCE} tokens" if texts else f"clips of {CLIP_SECONDS:g} s"
            assumed.append(f"{what}, for want of data ({', '.join(absent)})")
            vocabulary = made_vocabulary(settings)
            changes["vocabulary_from"] = None
            if settings.task != "pretrain":
                assumed.append(f"a vocabulary of {len(vocabulary)} symbols")
        start = build(dataclasses.replace(settings, sources=sources, **changes), vocabulary)
    for module in start.model.modules():
        if isinstance(module, Encoder | DecoderStack):
            module.config = dataclasses.replace(module.config, layer_drop=0.0)
    return lengths, start


def made_vocabulary(settings: TrainConfig) -> Tokenizer:
    """As many symbols as a run's own vocabulary is likely to have."""
    if settings.subwords is not None:
        return Vocabulary.tokens([" ".join(f"t{number}" for number in range(settings.subwords - len(SPECIALS)))])
    return Vocabulary.letters()


def undropped(settings: TrainConfig) -> dict[str, Any]:
    """The settings of the model without modality dropout, and without files that only decoding needs."""
    model = dict(settings.model)
    if settings.task == "recognition":
        decoding = {"method": "attention" if model.get("ctc_weight", 1.0) == 0 else "ctc_greedy"}
        return model | {"modality_dropout": 0.0, "decoding": decoding}
    known = {field.name for field in dataclasses.fields(systems.find(settings.system).config_class())}
    return model | ({"modality_dropout": 0.0} if "modality_dropout" in known else {})


def made_batch(source: Source, start: Start, rows: int, frames: int, generator: torch.Generator) -> Batch:
    """What a source would give for ``rows`` utterances of ``frames`` frames of the model each, without any padding.

    Args:
        frames: of texts alone, tokens.

    Raises:
        ValueError: a task that no batch can be made up for.
    """
    if source.task not in KINDS:
        raise ValueError(f"task: there are no made-up batches of {source.task}, only of {', '.join(KINDS)}.")
    task, inputs = source.task, start.inputs
    ids = tuple(f"made{row}" for row in range(rows))
    lengths = torch.full((rows,), frames)
    length = frames / inputs.frame_rate
    if task == "sentences":
        return Batch(ids, task, targets={"tokens": _tokens(start, rows, frames, generator)}, target_lengths={"tokens": lengths})
    parts: dict[str, torch.Tensor] = {}
    if task not in SILENT and "a" in source.modality:
        parts |= _sound(inputs, rows, frames, generator)
    if task in ("audio_video", "recognition") and "v" in source.modality and inputs.video_size is not None:
        side = inputs.video_size
        video = torch.randint(256, (rows, frames, side, side), generator=generator, dtype=torch.uint8)
        parts |= {"video": video, "video_lengths": lengths}
    sizes = dict(start.model.inventory) if isinstance(start.model, PredictsUnits) else {}
    if task in ("text", "audio_text"):
        text = torch.randint(len(SPECIALS), sizes["phones"], (rows, DOWNSAMPLING * frames), generator=generator)
        parts |= {"text": text, "text_lengths": DOWNSAMPLING * lengths}
    if task in ("infilling", "synthesis"):
        symbols = frames if task == "infilling" else max(1, round(length * LETTERS_PER_SECOND))
        parts |= {"text": _tokens(start, rows, symbols, generator), "text_lengths": torch.full((rows,), symbols)}
    if task == "units":
        units = torch.randint(inputs.first_unit, sizes.get("text_units", sizes["units"]), (rows, frames), generator=generator)
        units[:, -1] = EOS
        parts |= {"text_units": units, "text_units_lengths": lengths}
        if source.written is not None:
            symbols = max(1, round(frames * LETTERS_PER_UNIT))
            parts |= {"text": _tokens(start, rows, symbols, generator), "text_lengths": torch.full((rows,), symbols)}
    targets, ends = _spoken(task, start, rows, length, generator), {}
    if task == "recognition":
        assert start.vocabulary is not None
        per_second = PIECES_PER_SECOND if len(start.vocabulary) > MANY else LETTERS_PER_SECOND
        targets["tokens"] = _tokens(start, rows, max(1, round(length * per_second)), generator)
        if "text_units" in sizes:
            targets["phones"] = torch.randint(inputs.first_unit, sizes["text_units"], targets["tokens"].shape, generator=generator)
    for name, size in sizes.items() if task in LABELLED else ():
        if name not in ("phones", "text_units") and size:
            targets[name] = torch.randint(size, (rows, round(length * inputs.label_rate)), generator=generator)
    if task in HEARD:
        targets = _heard(task, start, rows, frames, generator)
    for name, target in targets.items():
        if name not in ("voice", "speaker", "sound", "tags", "learned"):
            ends[name] = torch.full((rows,), target.shape[1])
    return Batch(ids, task, **parts, targets=targets, target_lengths=ends)


def _spoken(task: str, start: Start, rows: int, length: float, generator: torch.Generator) -> dict[str, torch.Tensor]:
    """Speech that is written, in someone's voice, and whose voice it is."""
    found: dict[str, torch.Tensor] = {}
    if task in WRITTEN_AS_SPEECH and start.inputs.mel_bands:
        found["mel"] = torch.randn(rows, mel_frames(round(length * SAMPLE_RATE)), start.inputs.mel_bands, generator=generator)
        if start.inputs.voice_dim:
            found["voice"] = torch.randn(rows, start.inputs.voice_dim, generator=generator)
    if task == "speaker":
        found["speaker"] = torch.zeros(rows, dtype=torch.long)
    return found


def _heard(task: str, start: Start, rows: int, frames: int, generator: torch.Generator) -> dict[str, torch.Tensor]:
    """Classes of sounds, or what all teachers say."""
    settings: Any = start.model.config
    if task == "tagging":
        return {"tags": torch.randint(2, (rows, settings.tags), generator=generator).float()}
    return {
        "learned": torch.ones(rows, len(TEACHERS), dtype=torch.bool),
        "speech": torch.randn(rows, frames, settings.speech_width, generator=generator),
        "sound": torch.rand(rows, settings.tags, generator=generator),
        "speaker": torch.randn(rows, settings.voice_dim, generator=generator),
    }


def _sound(inputs: InputFormat, rows: int, frames: int, generator: torch.Generator) -> dict[str, torch.Tensor]:
    if not inputs.waveform:
        return {"audio": torch.randn(rows, frames, BANDS * STACK, generator=generator), "audio_lengths": torch.full((rows,), frames)}
    samples = round((frames - 1) * SAMPLE_RATE / inputs.frame_rate) + inputs.shortest
    return {"audio": torch.randn(rows, samples, generator=generator), "audio_lengths": torch.full((rows,), samples)}


def _tokens(start: Start, rows: int, length: int, generator: torch.Generator) -> torch.Tensor:
    assert start.vocabulary is not None
    return torch.randint(len(SPECIALS), len(start.vocabulary), (rows, length), generator=generator)
