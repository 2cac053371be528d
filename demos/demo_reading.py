"""What one model makes of a clip: its transcript, and where in time it found every symbol.

Readings are kept by what went into them, so the same sound is not read twice: back at a noise that was heard before, typing what was said,
or choosing a clip again costs nothing, and what the lips say is computed once for all noises.
"""

import hashlib
import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from avtlm.data.container import FPS
from avtlm.data.dataset import Item, collate
from avtlm.decoding.result import Hypothesis, Transcript, transcript
from avtlm.text.vocabulary import EOS, UNKNOWN
from avtlm.transcriber import Transcriber

MODALITIES = ("a", "v", "av")
KEPT_READINGS = 300
MOST_ROWS = 64  # symbols of one picture of where they were found


@dataclass(frozen=True)
class Trace:
    """Where symbols were found.

    Attributes:
        kind: ``CTC posteriors``, a row for each different symbol, or ``cross-attention``, a row for each token in its order.
        symbols: names of the rows; at most `MOST_ROWS`.
        weights: float16 (symbols, frames) from 0 to 1; the frames are spread evenly over the clip.
    """

    kind: str
    symbols: tuple[str, ...]
    weights: np.ndarray


@dataclass(frozen=True)
class Reading:
    """What a model writes down of one input, and where it found it; None for a model that knows no times (a transducer alone)."""

    transcript: Transcript
    trace: Trace | None

    @property
    def confidence(self) -> float | None:
        """Mean of the words' confidences, 0 to 1; None if they have none."""
        known = [word.confidence for word in self.transcript.words if word.confidence is not None]
        return float(np.mean(known)) if known else None


class Reader:
    """A model with the readings that were asked for last. Not for several threads at once.

    Args:
        name: as it is shown.
        model: in evaluation mode.
    """

    def __init__(self, name: str, model: Transcriber) -> None:
        self.name, self.model = name, model
        self._kept: OrderedDict[tuple[str, str, str], Reading] = OrderedDict()

    @property
    def modalities(self) -> tuple[str, ...]:
        """What it can read: ``a`` alone for a model that hears only."""
        return MODALITIES if self.model.inputs.video_size is not None else ("a",)

    def read(self, clip: str, modality: str, wave: np.ndarray, crops: np.ndarray) -> Reading:
        """The reading of a clip; from memory if these inputs were read before.

        Args:
            clip: names the crops.
            modality: one of `modalities`.
            wave: int16 (samples,) at 16 kHz, which ``v`` does not look at.
            crops: uint8 (frames, 96, 96), which ``a`` takes nothing but the length of.
        """
        key = (clip, modality, hashlib.blake2b(wave.tobytes()).hexdigest() if "a" in modality else "")
        if key in self._kept:
            self._kept.move_to_end(key)
            return self._kept[key]
        inputs = self.model.inputs
        audio = inputs.audio(wave, len(crops)) if "a" in modality else None
        video = inputs.video(crops) if "v" in modality else None
        self._kept[key] = self._read(Item(clip, audio=audio, video=video), len(crops) / FPS)
        while len(self._kept) > KEPT_READINGS:
            self._kept.popitem(last=False)
        return self._kept[key]

    def forget(self, clip: str) -> None:
        """Drop all readings of a clip."""
        for key in [key for key in self._kept if key[0] == clip]:
            del self._kept[key]

    @torch.inference_mode()
    def _read(self, item: Item, seconds: float) -> Reading:
        model = self.model
        start = time.perf_counter()
        batch = collate([item], "recognition").to(next(model.parameters()).device)
        encoded, lengths = model.encode(batch)
        hypotheses = model.search_encoded(batch, encoded, lengths)[0]
        took = {"recognition": time.perf_counter() - start}
        found = transcript(hypotheses, model.vocabulary, 1.0 / model.inputs.frame_rate, took, seconds)
        return Reading(found, self._trace(encoded, lengths, hypotheses[0]))

    def _trace(self, encoded: Tensor, lengths: Tensor, best: Hypothesis) -> Trace | None:
        heads, names = self.model.heads, self.model.vocabulary.symbols
        tokens = [token for token in best.tokens if token > UNKNOWN and token < len(names)]
        if not tokens:
            return None
        if heads.ctc is not None:
            chosen = list(dict.fromkeys(tokens))[:MOST_ROWS]
            weights = heads.ctc(encoded)[0].float().softmax(-1)[:, chosen].T
            return Trace("CTC posteriors", _shown(names, chosen), weights.cpu().numpy().astype(np.float16))
        if heads.decoder is None:
            return None
        said = torch.tensor([[getattr(heads, "start", EOS), *best.tokens[:-1]]], device=encoded.device)
        looks, _ = heads.decoder.look(said, encoded, lengths)
        seen = looks[len(looks) // 2 :, 0].float().mean((0, 1))[:MOST_ROWS]  # upper layers, as for times of words
        weights = seen / seen.amax(1, keepdim=True).clamp(min=1e-6)
        return Trace("cross-attention", _shown(names, best.tokens[:MOST_ROWS]), weights.cpu().numpy().astype(np.float16))


def _shown(names: Sequence[str], tokens: Sequence[int]) -> tuple[str, ...]:
    return tuple({"|": "␣"}.get(names[token], names[token]) if token < len(names) else "·" for token in tokens)


def open_readers(folders: Sequence[Path]) -> list[Reader]:
    """The models of some folders under names that tell them apart: ``a`` and ``b`` for ``runs/a/model`` and ``runs/b/model``.

    Raises:
        CheckpointError: a folder is incomplete or damaged.
        ValueError: it holds a model that writes no text, or one is named twice.
    """
    from avtlm.transcribe import load_recognizer

    if len({folder.resolve() for folder in folders}) < len(folders):
        raise ValueError("--models names one folder twice; name different ones to compare.")
    return [Reader(name, load_recognizer(folder)) for name, folder in zip(distinct_names(folders), folders, strict=True)]


def distinct_names(folders: Sequence[Path]) -> list[str]:
    """The shortest ends of paths that differ, without a last part that all share."""
    parts: list[tuple[Any, ...]] = [folder.resolve().parts for folder in folders]
    while len({path[-1] for path in parts}) == 1 and (len(parts) > 1 or parts[0][-1] == "model") and min(map(len, parts)) > 2:
        parts = [path[:-1] for path in parts]
    length = 1
    while len({path[-length:] for path in parts}) < len(parts):
        length += 1
    return ["/".join(path[-length:]) for path in parts]
