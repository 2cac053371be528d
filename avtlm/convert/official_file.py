"""What fairseq's trainer saves: configuration, weights, dictionaries, without an optimiser.

The file names fairseq's classes for its dictionaries and its tokenizer without importing them.
"""

import copyreg
import pickle
import types
from collections import OrderedDict
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from avtlm.files import atomic_path
from avtlm.text.vocabulary import SPECIALS


def save(content: dict[str, Any], output: str | Path) -> Path:
    """Write a checkpoint; it is whole or not there at all. Raises OSError."""
    with atomic_path(output) as temporary:
        torch.save(content, temporary, pickle_module=types.SimpleNamespace(__name__="pickle", Pickler=Pickler))
    return Path(output)


def configuration(task: dict[str, Any], model: dict[str, Any], criterion: dict[str, Any]) -> dict[str, Any]:
    """The groups of options that a checkpoint holds."""
    return {"_name": None, "common": {"seed": 1}, "task": task, "model": model, "criterion": criterion, "bpe": None, "tokenizer": None}


def container(cfg: dict[str, Any], state: dict[str, Tensor], task_state: dict[str, Any]) -> dict[str, Any]:
    """What fairseq's trainer saves, without an optimiser."""
    history = {"criterion_name": "", "optimizer_name": "", "lr_scheduler_state": {"best": None}, "num_updates": 0}
    return {
        "args": None,
        "cfg": cfg,
        "model": OrderedDict(state),
        "criterion": None,
        "optimizer_history": [history],
        "task_state": task_state,
        "extra_state": {"metrics": {}, "train_iterator": {"epoch": 1, "iterations_in_epoch": 0, "shuffle": True}, "val_loss": None},
    }


def flat(tree: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings by dotted names."""
    found: dict[str, Any] = {}
    for key, value in tree.items():
        found |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return found


# Objects of fairseq -------------------------------------------------------------------------------------------------------------------


class OfficialObject:
    """Is pickled as an object of a class of fairseq or sentencepiece, which need not be there: the class's name and a state."""

    module: ClassVar[str]

    def __init__(self, state: Any) -> None:
        self.state = state

    def __reduce_ex__(self, protocol: Any) -> Any:
        return copyreg.__newobj__, (type(self),), self.state  # type: ignore[attr-defined]


class Dictionary(OfficialObject):
    module = "fairseq.data.dictionary"


class SentencepieceBPE(OfficialObject):
    module = "fairseq.data.encoders.sentencepiece_bpe"


class SentencePieceProcessor(OfficialObject):
    """Its state is the serialised model, which every version of sentencepiece reads."""

    module = "sentencepiece"


class Pickler(pickle._Pickler):
    """Names the classes above as those of their modules. (The pickler in C would import them to make sure.)"""

    def save_global(self, obj: Any, name: str | None = None) -> None:
        if isinstance(obj, type) and issubclass(obj, OfficialObject):
            self.write(pickle.GLOBAL + f"{obj.module}\n{obj.__name__}\n".encode())  # type: ignore[attr-defined]
            self.memoize(obj)  # type: ignore[attr-defined]
        else:
            super().save_global(obj, name)  # type: ignore[misc]


def dictionary(symbols: list[str]) -> Dictionary:
    """Fairseq's dictionary of these symbols, the special ones among them."""
    state: dict[str, Any] = {
        "symbols": list(symbols),
        "count": [1] * len(symbols),
        "indices": {symbol: index for index, symbol in enumerate(symbols)},
        "nspecial": len(SPECIALS),
    }
    for index, (name, word) in enumerate(zip(("bos", "pad", "eos", "unk"), SPECIALS, strict=True)):
        state |= {f"{name}_word": word, f"{name}_index": index}
    return Dictionary(state)
