"""Rows of speech, text, units and spectrograms to batches for models that read several of them, as SpeechT5's data code makes them.

Source: SpeechT5 (arXiv 2110.07205), data/speech_dataset.py and its kin: in pre-training all clips of a batch are cut to the shortest
one, and their spectrograms and units with them.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from avtlm.data.batching import Batch, pad
from avtlm.frontends.filterbank import SAMPLE_RATE
from avtlm.text.vocabulary import PAD


@dataclass(frozen=True)
class Utterance:
    """What there is of one utterance.

    Attributes:
        wave: float (samples,) that is read.
        text: ids (symbols,) that are read, or that ``text_units`` stand for.
        text_units: ids of units (units,) that are read, with the end symbol.
        tokens: ids (symbols,) that are written, without end symbol.
        units: (frames,), ids of units.
        mel: (frames, bands) that are written.
        voice: speaker embedding (width,) of whose voice they are written in.
        speaker: number of the voice that is to be named.
    """

    id: str
    wave: Tensor | None = None
    text: Tensor | None = None
    text_units: Tensor | None = None
    tokens: Tensor | None = None
    units: Tensor | None = None
    mel: Tensor | None = None
    voice: Tensor | None = None
    speaker: int | None = None


def crop_size(samples: Sequence[int], most: int, padded: bool = False) -> int:
    """Samples that all clips of a batch are cut to: the shortest one's, or the longest one's where shorter ones are padded; at most
    ``most``."""
    return min(max(samples) if padded else min(samples), most)


def draw_starts(samples: Sequence[int], size: int, generator: torch.Generator) -> list[int]:
    """Where the crops of ``size`` samples begin."""
    return [int(torch.randint(0, max(length - size, 0) + 1, (), generator=generator)) for length in samples]


def crop(
    utterances: Sequence[Utterance], starts: Sequence[int], size: int, label_rate: float = 50.0, padded: bool = False
) -> list[Utterance]:
    """Cut clips to ``size`` samples from their ``starts``, and their spectrograms and units to what belongs to that.

    Args:
        label_rate: units per second.
        padded: clips may be shorter; else all get equally many units.
    """
    firsts = [round(start * label_rate / SAMPLE_RATE) for start in starts]
    rests = [len(each.units) - first for each, first in zip(utterances, firsts, strict=True) if each.units is not None and not padded]
    labels = min([round(size * label_rate / SAMPLE_RATE), *rests])
    found = []
    for each, start, first in zip(utterances, starts, firsts, strict=True):
        assert each.wave is not None
        mel, units = each.mel, each.units
        if mel is not None:
            step = len(each.wave) / len(mel)
            mel = mel[int(start / step) : int(start / step) + int(size / step)]
        if units is not None:
            units = units[first : first + labels]
        found.append(replace(each, wave=each.wave[start : start + size], mel=mel, units=units))
    return found


def collate(utterances: Sequence[Utterance], task: str) -> Batch:
    """Padded tensors. All utterances have the same parts.

    Raises:
        ValueError: one lacks what another has.
    """
    parts: dict[str, tuple[Tensor, Tensor]] = {}
    for name, value in (("wave", 0.0), ("text", PAD), ("text_units", PAD), ("tokens", PAD), ("units", -1), ("mel", 0.0)):
        rows = [getattr(each, name) for each in utterances]
        _all_or_none(utterances, rows, name)
        if rows[0] is not None:
            parts[name] = pad(rows, value)
    targets: dict[str, Tensor] = {name: parts[name][0] for name in ("tokens", "units", "mel") if name in parts}
    lengths: dict[str, Tensor] = {name: parts[name][1] for name in targets}
    voices, speakers = [each.voice for each in utterances], [each.speaker for each in utterances]
    for name, rows in (("voice", voices), ("speaker", speakers)):
        _all_or_none(utterances, rows, name)
    if voices[0] is not None:
        targets["voice"] = torch.stack([voice for voice in voices if voice is not None])
    if speakers[0] is not None:
        targets["speaker"] = torch.tensor(speakers)
    nothing = (None, None)
    wave, text, read = parts.get("wave", nothing), parts.get("text", nothing), parts.get("text_units", nothing)
    return Batch(
        tuple(each.id for each in utterances),
        task,
        audio=wave[0],
        audio_lengths=wave[1],
        text=text[0],
        text_lengths=text[1],
        targets=targets,
        target_lengths=lengths,
        text_units=read[0],
        text_units_lengths=read[1],
    )


def _all_or_none(utterances: Sequence[Utterance], rows: Sequence[object], name: str) -> None:
    missing = [each.id for each, row in zip(utterances, rows, strict=True) if row is None]
    if missing and len(missing) < len(rows):
        raise ValueError(f"{missing[0]}: no {name}, which other utterances of its batch have; give it to all of them or to none.")
