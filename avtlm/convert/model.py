"""A model made of foreign tensors: built without values, filled strictly, written whole or not at all."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from avtlm import checkpoint
from avtlm.decoding.synthesis import SynthesisOptions
from avtlm.recognizer import DecodingConfig
from avtlm.text.vocabulary import Tokenizer

# How the systems are called that have official checkpoints.
TITLES = {
    "avhubert": "AV-HuBERT",
    "vatlm": "VATLM",
    "wav2vec2": "wav2vec 2.0",
    "hubert": "HuBERT",
    "wavlm": "WavLM",
    "data2vec": "data2vec",
    "mt4ssl": "MT4SSL",
    "speecht5": "SpeechT5",
    "speech2c": "Speech2C",
    "fast_text2unit": "the text-to-unit model of SpeechLM",
    "speechlm": "SpeechLM",
    "speechut": "SpeechUT",
    "mmspeech": "MMSpeech",
    "hifigan": "HiFi-GAN",
    "mt2kd": "MT2KD",
}


class ConversionError(ValueError):
    """A checkpoint that cannot be converted; one sentence that names the file and what to do."""


@dataclass(frozen=True)
class Converted:
    """A model in our terms, ready to be written.

    Attributes:
        settings: for config.yaml.
        files: further text files by name.
    """

    model: nn.Module
    settings: dict[str, Any]
    vocabulary: Tokenizer | None
    decoding: DecodingConfig | SynthesisOptions | None
    files: dict[str, str]
    card: str


def write(made: Converted, output: str | Path) -> Path:
    """Write a model folder; it is whole or not there at all."""
    with checkpoint.replace_folder(output) as temporary:
        name = Path(output).resolve().name
        checkpoint.write_model(temporary, made.model, made.settings, made.vocabulary, made.files, f"# {name}\n\n{made.card}", made.decoding)
    return Path(output)


def card(title: str, model: nn.Module, source: str, commands: Sequence[str], notes: Sequence[str]) -> str:
    """The text of a model card.

    Args:
        title: the system, and in brackets how it is called there.
        source: what it was converted from.
        commands: to go on with; FOLDER stands for the model's.
        notes: further paragraphs.
    """
    count = sum(parameter.numel() for parameter in model.parameters())
    return (
        f"{title} with {count / 1e6:.1f} million parameters, converted from {source}.\nIts weights stay under the licence that they came "
        "with.\n\n" + "".join(f"    {command}\n" for command in commands) + "".join(f"\n{note}\n" for note in notes)
    )


# Tensors ------------------------------------------------------------------------------------------------------------------------------


class Stored(Protocol):
    """A tensor that is still in its file."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    def read(self) -> Tensor:
        """The tensor. Raises ValueError, in one sentence, if the file is damaged."""
        ...


@dataclass(frozen=True)
class Reshaped:
    """A stored tensor in another shape of the same size."""

    stored: Stored
    shape: tuple[int, ...]

    def read(self) -> Tensor:
        return self.stored.read().reshape(self.shape)


@dataclass(frozen=True)
class Rows:
    """Rows of a stored tensor in another order; rows that it lacks (None) hold one value."""

    stored: Stored
    order: tuple[int | None, ...]
    value: float

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self.order), *self.stored.shape[1:])

    def read(self) -> Tensor:
        tensor = self.stored.read()
        if self.order == tuple(range(len(tensor))):
            return tensor
        taken = torch.full(self.shape, self.value, dtype=tensor.dtype)
        for row, source in enumerate(self.order):
            if source is not None:
                taken[row] = tensor[source]
        return taken


def build_empty(make: Callable[[], nn.Module]) -> nn.Module:
    """A model without values, which cost neither memory nor time."""
    with torch.device("meta"):
        return make()


def fill(
    model: nn.Module,
    stored: Mapping[str, Stored],
    official: Callable[[str], str],
    where: str,
    unknown: Sequence[str] = (),
    spare: Collection[str] = (),
) -> list[str]:
    """Give a model without values those of a checkpoint, strictly; returns the names of what had to be filled with zeros.

    Args:
        stored: by our names; several names may share one.
        official: what a tensor of ours is called there, for errors.
        where: begins the error: which file does not hold the tensors of what.
        unknown: official keys without a counterpart.
        spare: names that may be missing.

    Raises:
        ConversionError: tensors that are unknown, missing or of another shape, all in one message, by their official names.
    """
    expected = model.state_dict()
    lost = [name for name in stored if name not in expected]
    missing = [official(name) for name in expected if name not in stored and name not in spare]
    shapes = [
        f"{official(name)} {list(tensor.shape)} instead of {list(expected[name].shape)}"
        for name, tensor in stored.items()
        if name in expected and tuple(tensor.shape) != tuple(expected[name].shape)
    ]
    faults = {"unknown": [*unknown, *map(official, lost)], "missing": missing, "of another shape": shapes}
    if any(faults.values()):
        listed = "; ".join(f"{len(keys)} {fault} ({', '.join(keys)})" for fault, keys in faults.items() if keys)
        raise ConversionError(f"{where} as its configuration describes it: {listed}.")
    weights: dict[str, Tensor] = {}
    read: dict[int, Tensor] = {}
    filled = []
    for name, like in expected.items():
        source = stored.get(name)
        if source is None:
            weights[name] = torch.zeros(like.shape, dtype=like.dtype)
            filled.append(name)
            continue
        if id(source) not in read:
            read[id(source)] = source.read().to(like.dtype)
        weights[name] = read[id(source)]
    model.load_state_dict(weights, assign=True)
    return filled
