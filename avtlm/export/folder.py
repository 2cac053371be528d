"""What a folder holds that a model is opened from, graphs or weights, and whether that is what was asked for."""

import json
from pathlib import Path
from typing import Any

from avtlm.checkpoint import CheckpointError, put_back

DESCRIPTION = "export.json"
BACKENDS = ("torch", "onnx")
WEIGHTS = ("float32", "int8")


def is_exported(folder: str | Path) -> bool:
    """Whether a folder holds graphs in place of a model."""
    put_back(Path(folder))
    return (Path(folder) / DESCRIPTION).is_file()


def describe(folder: str | Path) -> dict[str, Any]:
    """What `export.json` says: ``format``, ``opset``, ``weights``, ``start`` and ``graphs``; see avtlm.export.write.

    Raises:
        CheckpointError: it is missing or damaged.
    """
    path = Path(folder) / DESCRIPTION
    try:
        about: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        files = [graph["file"] for graph in about["graphs"].values() if isinstance(graph["outputs"], list)]
        whole = len(files) == len(about["graphs"]) and all(isinstance(file, str) and Path(file).name == file for file in files)
        if not whole or not isinstance(about["format"], str) or not isinstance(about["start"], list):
            raise ValueError("entries of another kind")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path} is missing or damaged ({type(error).__name__}); export the model again.") from error
    return about


def check_choice(folder: str | Path, backend: str | None, weights: str | None) -> bool:
    """Whether a folder is opened as graphs.

    Args:
        backend: what was asked for, of BACKENDS; None for what there is.
        weights: of WEIGHTS; None for what there is.

    Raises:
        CheckpointError: graphs that are damaged.
        ValueError: an unknown backend or kind of weights, or another one than the folder holds.
    """
    if backend not in (None, *BACKENDS):
        raise ValueError(f"backend: {backend!r} is unknown; choose one of {', '.join(BACKENDS)}.")
    if weights not in (None, *WEIGHTS):
        raise ValueError(f"weights: {weights!r} is unknown; choose one of {', '.join(WEIGHTS)}.")
    if not is_exported(folder):
        if backend == "onnx":
            raise ValueError(f"backend: onnx was asked for, but {folder} is no export; make one: avtlm export {folder} -o DIR.")
        return False
    if backend == "torch":
        raise ValueError(f"backend: torch was asked for, but {folder} holds graphs alone; give the model folder that they were made from.")
    if weights is not None and weights != describe(folder).get("weights"):
        wanted = " --int8" if weights == "int8" else ""
        raise ValueError(f"weights: {weights} was asked for, but {folder} has others; export again: avtlm export MODEL -o DIR{wanted}.")
    return True
