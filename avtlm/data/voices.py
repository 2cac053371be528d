"""Speaker embeddings of a corpus, such as x-vectors: one vector for each utterance or speaker, in one file.

A ``.npz`` of NumPy or a ``.safetensors``. Its names are ids of utterances or, for utterances without a vector of their own, of speakers.
"""

import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor


@dataclass(frozen=True)
class Voices:
    """Vectors by name, float32 (width,)."""

    path: Path
    vectors: Mapping[str, Tensor]

    def of(self, *names: str) -> Tensor:
        """The vector of the first of these names that has one. Raises ValueError: none has."""
        for name in names:
            if name in self.vectors:
                return self.vectors[name]
        raise ValueError(f"voices: {self.path}: no speaker embedding of {' or '.join(map(repr, names))}; add it under one of these names.")


def read_voices(path: str | Path, width: int) -> Voices:
    """Read a file of speaker embeddings; axes of length 1 do not count.

    Args:
        width: what the model takes.

    Raises:
        ValueError: the file cannot be read, or holds a vector of another width or with numbers that are not finite.
    """
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"voices: there is no file {path}; give one of speaker embeddings by utterance or speaker.")
    try:
        if path.suffix == ".safetensors":
            found = load_file(path)
        else:
            with np.load(path, allow_pickle=False) as stored:
                found = {name: torch.from_numpy(np.asarray(stored[name])) for name in stored.files}
    except (OSError, ValueError, TypeError, AttributeError, EOFError, SafetensorError, zipfile.BadZipFile) as error:
        raise ValueError(f"voices: {path} cannot be read as .npz or .safetensors; give one of speaker embeddings.") from error
    for name, vector in found.items():
        if vector.numel() != width or max(vector.shape, default=0) != width:
            raise ValueError(
                f"voices: {path}: the speaker embedding of {name!r} has {vector.numel()} values, but the model takes {width} "
                "(model.spectrogram.voice_dim)."
            )
        if not bool(torch.isfinite(vector.float()).all()):
            raise ValueError(f"voices: {path}: the speaker embedding of {name!r} has values that are not finite; leave it out.")
    return Voices(path, {name: vector.reshape(-1).float() for name, vector in found.items()})


def voice_names(utterance: str, speaker: str | None) -> Sequence[str]:
    """Names under which the voice of an utterance may stand, the most special first."""
    return (utterance,) if speaker is None else (utterance, speaker)
