"""The weights of a Hugging Face folder: safetensors or pytorch_model.bin, in one file or in several that an index lists.

Tensors stay in their files until they are read. A ``.bin`` file is a pickle, and is read without running it (pickles.py).
"""

import json
from dataclasses import dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open
from torch import Tensor

from avtlm.convert.model import Stored
from avtlm.convert.pickles import StoredTensor, TorchFile, TorchFileError

SAFETENSORS, PICKLE = "model.safetensors", "pytorch_model.bin"
INDEX = ".index.json"


class WeightsError(ValueError):
    """The weights of a folder are missing or damaged; one sentence."""


@dataclass(frozen=True)
class SafeTensor:
    """A tensor of a safetensors file."""

    path: Path
    key: str
    shape: tuple[int, ...]

    def read(self) -> Tensor:
        """The tensor. Raises WeightsError if the file is damaged."""
        try:
            with safe_open(self.path, framework="pt", device="cpu") as handle:
                tensor: Tensor = handle.get_tensor(self.key)
        except (SafetensorError, OSError) as error:
            raise _damaged(self.path, error) from error
        return tensor


def read_weights(folder: Path) -> dict[str, Stored]:
    """All tensors of a folder by name; safetensors where there are both kinds, as transformers does.

    Raises:
        WeightsError: there are none, a part is missing, or a file is damaged.
        TorchFileError: a ``.bin`` file is damaged or asks for foreign code.
    """
    for name in (SAFETENSORS, PICKLE):
        if (folder / name).is_file():
            return _tensors(folder / name)
        if (folder / (name + INDEX)).is_file():
            return _listed(folder / (name + INDEX))
    raise WeightsError(f"{folder} has no weights: neither {SAFETENSORS} nor {PICKLE} is there, whole or in parts with an index.")


def _listed(index: Path) -> dict[str, Stored]:
    """Tensors of several files, by the one that says where each is."""
    try:
        places = json.loads(index.read_text(encoding="utf-8"))["weight_map"]
        good = isinstance(places, dict) and all(isinstance(file, str) and Path(file).name == file for file in places.values())
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        good = False
    if not good or not places:
        raise WeightsError(f"{index} is damaged: expected 'weight_map' with a file beside it for every tensor; copy it again.")
    files = {file: index.with_name(file) for file in sorted(set(places.values()))}
    absent = [file for file, path in files.items() if not path.is_file()]
    if absent:
        raise WeightsError(f"{index.parent}: {', '.join(absent)} of {len(files)} parts of the weights is missing; copy it again.")
    parts = {file: _tensors(path) for file, path in files.items()}
    lost = [key for key, file in places.items() if key not in parts[file]]
    if lost:
        raise WeightsError(f"{index.parent}: {', '.join(lost[:4])} {'are' if lost[1:] else 'is'} not in the part that {index.name} names.")
    return {key: parts[file][key] for key, file in places.items()}


def _tensors(path: Path) -> dict[str, Stored]:
    return _of_pickle(path) if path.suffix == ".bin" else _of_safetensors(path)


def _of_safetensors(path: Path) -> dict[str, Stored]:
    try:
        with safe_open(path, framework="pt", device="cpu") as handle:
            return {key: SafeTensor(path, key, tuple(handle.get_slice(key).get_shape())) for key in handle.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise _damaged(path, error) from error


def _of_pickle(path: Path) -> dict[str, Stored]:
    content = TorchFile(path).content
    odd = not isinstance(content, dict) or [str(key) for key, value in content.items() if not isinstance(value, StoredTensor)]
    if odd or not content:
        raise TorchFileError(f"{path} should hold tensors by name only; it is no file of weights of transformers.")
    return {str(key): tensor for key, tensor in content.items()}


def _damaged(path: Path, error: Exception) -> WeightsError:
    return WeightsError(f"{path} is truncated, damaged or no safetensors file ({' '.join(str(error).split())[:100]}); copy it again.")
