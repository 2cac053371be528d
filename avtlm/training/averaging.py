"""Averaging checkpoints: the mean of the weights of several models of one run, which is often better than each of them.

Source: the last or the best checkpoints of a run, as in Vaswani et al. (arXiv 1706.03762, section 6.1) and fairseq's average_checkpoints.
"""

import shutil
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from avtlm import checkpoint
from avtlm.checkpoint import CARD, WEIGHTS, CheckpointError
from avtlm.model_card import licence_of, model_card, read_card
from avtlm.training.state import EMA, FOLDER


def average(folders: Sequence[str | Path], output: str | Path) -> Path:
    """Write a model folder whose weights are the mean of those of ``folders``; all else is the first one's.

    Sums are taken in float64. Whole numbers (counters of batch norms) are those of the last folder.

    Returns:
        The new folder; it is whole or not there at all.

    Raises:
        CheckpointError: a folder is damaged.
        ValueError: fewer than two folders, or models of different configurations.
    """
    if len(folders) < 2:
        raise ValueError(f"average: {len(folders)} model folder; give at least two of the same run.")
    first = Path(folders[0])
    config = checkpoint.load_config(first)
    total: dict[str, Tensor] = {}
    kinds: dict[str, torch.dtype] = {}
    for folder in folders:
        if checkpoint.load_config(folder) != config:
            raise ValueError(f"average: {folder} has another configuration than {first}; average models of one run.")
        weights = checkpoint.load_weights(folder)
        if total and {name: part.shape for name, part in weights.items()} != {name: part.shape for name, part in total.items()}:
            raise CheckpointError(f"{Path(folder) / WEIGHTS} holds other tensors than {first / WEIGHTS}; average models of one run.")
        for name, part in weights.items():
            total[name] = total.get(name, torch.zeros((), dtype=torch.float64)) + part.double() if part.is_floating_point() else part
            kinds[name] = part.dtype
    mean = {name: (part / len(folders)).to(kinds[name]) if kinds[name].is_floating_point else part for name, part in total.items()}
    with checkpoint.replace_folder(output) as temporary:
        shutil.copytree(first, temporary, dirs_exist_ok=True, ignore=shutil.ignore_patterns(FOLDER, EMA, WEIGHTS, CARD))
        names = ", ".join(Path(folder).name for folder in folders)
        count = sum(part.numel() for part in mean.values() if part.is_floating_point())
        note = f"The mean of the weights of {len(folders)} models: {names}."
        card = model_card(Path(output).name, config, count, licence_of(read_card(first)), notes=[note])
        checkpoint.write_model(temporary, Weights(mean), config, card=card)
    return Path(output)


class Weights(torch.nn.Module):
    """Tensors under given names, for saving."""

    def __init__(self, tensors: dict[str, Tensor]) -> None:
        super().__init__()
        self.tensors = tensors

    def state_dict(self, *args: object, **kwargs: object) -> dict[str, Tensor]:  # type: ignore[override]
        return self.tensors
