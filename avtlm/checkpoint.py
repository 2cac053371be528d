"""Model folders: ``weights.safetensors``, ``config.yaml``, vocabulary files, ``decoding.yaml``, a model card, ``trainer/`` while training.

A folder rebuilds its model without any other file, and reading one never executes its content: tensors come from safetensors, all else is
text. A save builds the new folder beside the old one, flushes it to disk and swaps the two, so a killed save leaves the previous one
whole. One process at a time may write to a folder.
"""

import contextlib
import ctypes
import errno
import json
import os
import shutil
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from avtlm.config import to_dict, to_yaml
from avtlm.plain_yaml import read_yaml

WEIGHTS, CONFIG, DECODING, CARD = "weights.safetensors", "config.yaml", "decoding.yaml", "README.md"
HEADER, FORMAT = "avtlm", 1
TRANSCRIBES = ("avtlm transcribe VIDEO --model FOLDER",)
USES = {  # by the task of a configuration; all others transcribe
    "generation": ("avtlm synthesize TEXT --model FOLDER -o FILE", "avtlm convert-voice SOUND --model FOLDER -o FILE"),
    "speaker": ("avtlm evaluate MANIFEST --model FOLDER",),
    "text_to_units": ("avtlm units text2units TEXT --model FOLDER -o FILE",),
}


class CheckpointError(ValueError):
    """A model folder cannot be read; the message names the folder, the file and what is wrong with it."""


class SavesItself(Protocol):
    """A vocabulary: it writes its own files into a folder."""

    def save(self, folder: Path) -> Any: ...


def save_model(
    folder: str | Path,
    model: nn.Module,
    config: Any,
    vocabulary: SavesItself | None = None,
    extra_files: Mapping[str, str] | None = None,
    card: str | None = None,
    decoding: Any = None,
) -> None:
    """Replace ``folder`` by a complete model folder, atomically. The arguments are those of `write_model`."""
    with replace_folder(folder) as temporary:
        write_model(temporary, model, config, vocabulary, extra_files, card, decoding, name=Path(folder).resolve().name)


def write_model(
    folder: Path,
    model: nn.Module,
    config: Any,
    vocabulary: SavesItself | None = None,
    extra_files: Mapping[str, str] | None = None,
    card: str | None = None,
    decoding: Any = None,
    name: str | None = None,
) -> None:
    """Write the files of a model into an existing folder (not atomic: call it inside `replace_folder`).

    Args:
        config: a dataclass or mapping with the key ``system``, from which that system rebuilds the model.
        vocabulary: writes its files by ``save(folder)``.
        extra_files: text by file name.
        card: Markdown for README.md; a short one is written if None.
        decoding: a dataclass or mapping with the decoding settings that belong to this model.
        name: the model's name in the card.
    """
    settings = to_dict(config)
    assert isinstance(settings.get("system"), str), "the configuration of a model names its system"
    if vocabulary is not None:
        vocabulary.save(folder)
    texts = {CONFIG: to_yaml(settings), **(extra_files or {})}
    if decoding is not None:
        texts[DECODING] = to_yaml(decoding)
    texts[CARD] = model_card(name or folder.name, model, settings["system"], settings.get("task")) if card is None else card
    for file, text in texts.items():
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_text(text, encoding="utf-8")
    required = sorted(path.name for path in folder.iterdir() if path.is_file() and path.name not in (CARD, WEIGHTS))
    tensors, tied = _distinct(model.state_dict())
    # One value, since several would be written in an order that changes from run to run: equal models make equal files.
    save_file(tensors, folder / WEIGHTS, {HEADER: json.dumps({"format": FORMAT, "files": required, "tied": tied})})


def load_config(folder: str | Path) -> dict[str, Any]:
    """The configuration of a model, with its key ``system``. Raises CheckpointError if any file of the folder is missing or damaged."""
    folder = check(folder)
    config = read_yaml(folder / CONFIG)
    if not isinstance(config.get("system"), str):
        raise CheckpointError(f"{folder / CONFIG} does not name the system of the model (key 'system'); it is not a model of avtlm.")
    return config


def load_decoding(folder: str | Path) -> dict[str, Any]:
    """The decoding settings of a model; empty if it has none."""
    path = check(folder) / DECODING
    return read_yaml(path) if path.exists() else {}


def load_weights(folder: str | Path) -> dict[str, Tensor]:
    """All tensors of a model by name, on the CPU. Raises CheckpointError if a file is missing or damaged."""
    path = check(folder) / WEIGHTS
    with _opened(path) as handle:
        tensors = {key: handle.get_tensor(key) for key in handle.keys()}  # noqa: SIM118 (not a dictionary)
    return tensors | {alias: tensors[key] for alias, key in _notes(path)["tied"].items()}


def load_into(model: nn.Module, folder: str | Path) -> None:
    """Copy the weights of a model folder into ``model``, strictly.

    Raises:
        CheckpointError: a tensor is missing, unexpected or of another shape; all of them stand in one message.
    """
    weights, expected = load_weights(folder), model.state_dict()
    shapes = [key for key in expected if key in weights and weights[key].shape != expected[key].shape]
    faults = {
        "missing": [key for key in expected if key not in weights],
        "unexpected": [key for key in weights if key not in expected],
        "of another shape": [f"{key} {list(weights[key].shape)} instead of {list(expected[key].shape)}" for key in shapes],
    }
    if any(faults.values()):
        listed = "; ".join(f"{len(keys)} {fault} ({_some(keys)})" for fault, keys in faults.items() if keys)
        raise CheckpointError(f"{Path(folder) / WEIGHTS} does not fit the model that its config.yaml describes: {listed}.")
    model.load_state_dict(weights)


def check(folder: str | Path) -> Path:
    """Make sure that a folder holds every file its model was saved with; return its path.

    If a save was killed in the moment between two renames, the previous folder is put back first.

    Raises:
        CheckpointError: the folder or one of its files is missing or damaged.
    """
    folder = Path(folder)
    put_back(folder)
    if not folder.is_dir():
        raise CheckpointError(f"{folder} is not a folder; give the folder of a model, which holds {WEIGHTS} and {CONFIG}.")
    missing = [name for name in (WEIGHTS, CONFIG) if not (folder / name).is_file()]
    if WEIGHTS not in missing:
        missing += [name for name in _notes(folder / WEIGHTS)["files"] if name not in missing and not (folder / name).is_file()]
    if missing:
        raise CheckpointError(
            f"{folder}: {' and '.join(missing)} {'are' if missing[1:] else 'is'} missing; copy the whole model folder again."
        )
    return folder


@contextlib.contextmanager
def replace_folder(folder: str | Path, marker: str = CONFIG) -> Iterator[Path]:
    """Yield a new empty folder; when the block ends well it takes the place of ``folder`` in one step, flushed to disk.

    On an exception the new folder is deleted and ``folder`` stays as it was. After a kill the remains are cleared by the next save.

    Raises:
        CheckpointError: ``folder`` is a file, or holds files but not ``marker``, so it is something else that must not be deleted.
    """
    target = Path(folder).resolve()
    target.parent.mkdir(parents=True, exist_ok=True)
    put_back(target)
    if target.exists() and not (target / marker).exists() and (target.is_file() or any(target.iterdir())):
        raise CheckpointError(f"{target} exists and is not a model folder; choose another place to save to, or remove it.")
    temporary = target.with_name(f".{target.name}.partial")
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    try:
        yield temporary
        for path in [*temporary.rglob("*"), temporary]:
            _flush(path)
        if not target.exists():
            os.rename(temporary, target)
        elif not _exchange(temporary, target):
            previous = _previous(target)
            shutil.rmtree(previous, ignore_errors=True)
            os.rename(target, previous)
            os.rename(temporary, target)
            shutil.rmtree(previous)
        _flush(target.parent)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def model_card(name: str, model: nn.Module, system: str, task: str | None = None) -> str:
    """A short README.md for a model folder; ``task`` is that of its configuration."""
    count = sum(parameter.numel() for parameter in model.parameters())
    uses = "".join(f"    {command}\n" for command in ("avtlm info FOLDER", *USES.get(task or "", TRANSCRIBES)))
    return (
        f"# {name}\n\nA {system} model of avtlm with {count / 1e6:.1f} million parameters.\n\n{uses}\n"
        f"`{WEIGHTS}` holds the parameters and `{CONFIG}` the configuration that rebuilds the model; keep all files together.\n"
    )


def _distinct(state: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Contiguous CPU tensors, each stored once, and the names that share a tensor with another name."""
    kept: dict[tuple[Any, ...], str] = {}
    tensors, tied = {}, {}
    for key, tensor in state.items():
        place = (tensor.data_ptr(), tuple(tensor.shape), tensor.stride(), tensor.dtype, tensor.device)
        if tensor.numel() and place in kept:
            tied[key] = kept[place]
        else:
            kept[place] = key
            own = tensor.untyped_storage().nbytes() == tensor.numel() * tensor.element_size() and tensor.is_contiguous()
            tensors[key] = tensor.detach().cpu() if own else tensor.detach().cpu().contiguous().clone()
    return tensors, tied


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Any]:
    try:
        with safe_open(path, framework="pt", device="cpu") as handle:
            yield handle
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path} is damaged or not a safetensors file ({error}); copy the model folder again.") from None


def _notes(path: Path) -> dict[str, Any]:
    """What `write_model` noted in the header of the weights; checked, since the file may come from anywhere."""
    with _opened(path) as handle:
        metadata = handle.metadata() or {}
        names = set(handle.keys())
    try:
        notes = json.loads(metadata.get(HEADER, "{}"))
        files, tied = notes.get("files", []), notes.get("tied", {})
    except (ValueError, AttributeError):
        files, tied = None, None
    good = isinstance(files, list) and all(isinstance(file, str) and Path(file).name == file for file in files)
    if not good or not isinstance(tied, dict) or not all(isinstance(key, str) and key in names for key in tied.values()):
        raise CheckpointError(f"{path} has a damaged header; copy the model folder again.")
    return {"files": files, "tied": tied}


def _previous(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.previous")


def put_back(folder: Path) -> None:
    """Undo the first half of a save that was killed between its two renames."""
    if not folder.exists() and folder.name and _previous(folder.resolve()).is_dir():
        os.rename(_previous(folder.resolve()), folder)


def _exchange(first: Path, second: Path) -> bool:
    """Swap two folders in one step where the system can (renameat2 of Linux); False where it cannot."""
    if not sys.platform.startswith("linux"):
        return False
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if rename is None:
        return False
    here, swap = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    if rename(here, os.fsencode(first), here, os.fsencode(second), swap) == 0:
        return True
    code = ctypes.get_errno()
    if code in (errno.ENOSYS, errno.EINVAL, errno.ENOTSUP):  # an old kernel or a file system without it
        return False
    raise OSError(code, os.strerror(code), str(second))


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _some(keys: list[str]) -> str:
    return ", ".join(keys[:8]) + (f" and {len(keys) - 8} more" if len(keys) > 8 else "")
