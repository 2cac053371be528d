"""What a model hears in a file besides words: sounds by name, and voices as vectors (MT2KD).

A model folder for transcription that also tags sounds and knows voices answers ``avtlm transcribe``, ``avtlm tag`` and ``avtlm verify``.
Files are heard whole, as in evaluation; longer ones than a window in equal parts, whose answers are averaged.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from avtlm import systems
from avtlm.data.batching import Batch
from avtlm.data.inputs import InputFormat
from avtlm.data.media import MediaError, read_track
from avtlm.data.tags import read_tags
from avtlm.frontends.filterbank import SAMPLE_RATE

WINDOW = 60.0  # seconds


@dataclass(frozen=True)
class Tag:
    """A class of sounds and how probable it is in a clip."""

    name: str
    probability: float


class Listener:
    """A model that hears clips one by one.

    Args:
        folder: of a model for transcription, such as one of MT2KD.
        window: seconds that are heard at once; longer clips are divided; 0 hears every clip whole.

    Raises:
        CheckpointError, ConfigError: the folder is incomplete or damaged.
        ValueError: its model neither tags nor knows voices.
    """

    def __init__(self, folder: str | Path, window: float = WINDOW) -> None:
        if window < 0:
            raise ValueError(f"window: {window:g} seconds; give some, or 0 to hear every file whole.")
        model, _ = systems.load_whole(folder, "transcription")
        self.folder, self.window = Path(folder), window
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.model: Any = model.to(self.device)
        if not (hasattr(model, "tag_logits") and hasattr(model, "embed_speaker")):
            system = type(model).__name__
            raise ValueError(f"{folder}: a {system} model neither tags sounds nor knows voices; give the folder of an MT2KD model.")
        self.inputs: InputFormat = systems.input_format(model)
        settings: Any = model.config
        count: int = settings.tags
        named = read_tags(folder)
        self.tags = named if len(named) == count else tuple(f"class {number}" for number in range(count))

    @torch.inference_mode()
    def tag_scores(self, wave: np.ndarray) -> np.ndarray:
        """Probabilities of all classes in int16 (samples,) at 16 kHz, (classes,)."""
        parts = self._parts(wave)
        logits = [self.model.tag_logits(self.model.hear(part))[0] for part in parts]
        return _mean(logits, parts).sigmoid().cpu().double().numpy()

    @torch.inference_mode()
    def voice(self, wave: np.ndarray) -> np.ndarray:
        """The vector of the voice in int16 (samples,) at 16 kHz, of length 1, (width,)."""
        parts = self._parts(wave)
        vectors = [nn.functional.normalize(self.model.embed_speaker(self.model.hear(part))[0], dim=0) for part in parts]
        return nn.functional.normalize(_mean(vectors, parts), dim=0).cpu().double().numpy()

    def _parts(self, wave: np.ndarray) -> list[Batch]:
        """Equal parts of at most a window."""
        most = round(self.window * SAMPLE_RATE)
        count = -(-len(wave) // most) if most else 1
        batches = []
        for piece in np.array_split(wave, max(count, 1)):
            audio = self.inputs.audio(piece)
            lengths = torch.tensor([len(audio)])
            batches.append(Batch(("clip",), "recognition", audio=audio[None], audio_lengths=lengths).to(self.device))
        return batches


def _mean(answers: Sequence[Tensor], parts: Sequence[Batch]) -> Tensor:
    """Weighted by how long the parts are."""
    lengths = torch.tensor([part.audio.shape[1] for part in parts if part.audio is not None], device=answers[0].device)
    return (torch.stack(list(answers)) * (lengths / lengths.sum())[:, None]).sum(0)


def read_sound(path: str | Path) -> np.ndarray:
    """The sound of any common file, int16 (samples,) at 16 kHz.

    Raises:
        MediaError: it cannot be read, or has none.
    """
    sound, _ = read_track(path)
    if sound is None:
        raise MediaError(path, "has no audio track.")
    return np.round(np.clip(sound, -1, 32767 / 32768) * 32768).astype(np.int16)


def tag_each(files: Sequence[str | Path], listener: Listener) -> Iterator[tuple[Path, list[Tag] | ValueError]]:
    """All classes by their probability in every file, the likeliest first; what is wrong with a file stands in its place."""
    for file in files:
        path = Path(file)
        try:
            scores = listener.tag_scores(read_sound(path))
        except ValueError as error:
            yield path, error
            continue
        order = np.argsort(-scores, kind="stable")
        yield path, [Tag(listener.tags[place], float(scores[place])) for place in order]


def verify(first: str | Path, second: str | Path, listener: Listener) -> float:
    """The cosine of the voices in two files: the higher, the likelier it is one speaker.

    Raises:
        MediaError, ValueError: a file cannot be read, or is too short.
    """
    return float(listener.voice(read_sound(first)) @ listener.voice(read_sound(second)))
