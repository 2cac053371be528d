"""Everything a resumed run needs, beside the weights in the model folder: optimiser, step, position in the data.

What is random in a step depends on the run's seed and the step's number alone (masks, dropout) or on seed, epoch and utterance
(augmentation), so there is no generator state to keep, and a resumed run repeats the lost steps bit for bit. Nothing here is pickled.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from avtlm.training.distributed import like, whole

FOLDER, EMA = "trainer", "ema"


@dataclass
class TrainState:
    """Finished steps, and for every source the epoch and the batch within it that come next.

    ``best`` is the quality of the best validation so far, ``candidates`` those of the models kept for averaging, by step. ``mean_loss`` is
    the running mean over ``good_steps`` that spikes are compared with.
    """

    step: int = 0
    positions: dict[str, tuple[int, int]] = field(default_factory=dict)
    best: float | None = None
    candidates: dict[int, float] = field(default_factory=dict)
    bad_steps: int = 0
    mean_loss: float = 0.0
    good_steps: int = 0


def moments(optimizer: torch.optim.Optimizer, names: Mapping[nn.Parameter, str]) -> dict[str, Tensor]:
    """What the optimiser remembers, as whole tensors; of a sharded model every process has to ask."""
    found = {}
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            for key, value in optimizer.state[parameter].items():
                found[f"{names[parameter]}|{key}"] = whole(torch.as_tensor(value)).contiguous()
    return found


def save_state(folder: Path, state: TrainState, remembered: Mapping[str, Tensor]) -> None:
    """Write into a model folder that is being saved (see checkpoint.replace_folder) what :func:`moments` found."""
    target = folder / FOLDER
    target.mkdir()
    save_file(dict(remembered), target / "optimizer.safetensors")
    (target / "state.json").write_text(json.dumps(asdict(state)), encoding="utf-8")


def load_state(folder: Path, optimizer: torch.optim.Optimizer, names: Mapping[nn.Parameter, str]) -> TrainState:
    """Read what :func:`save_state` wrote, into the optimiser.

    Raises:
        ValueError: the folder has no trainer state, or one of another model.
    """
    target = folder / FOLDER
    if not (target / "state.json").is_file() or not (target / "optimizer.safetensors").is_file():
        raise ValueError(f"{folder}: no trainer state to resume from (folder {FOLDER}/); remove the folder to start again.")
    found: dict[str, dict[str, Tensor]] = {}
    for key, value in load_file(target / "optimizer.safetensors").items():
        name, _, kind = key.rpartition("|")
        found.setdefault(name, {})[kind] = value
    known = {name: parameter for parameter, name in names.items()}
    if set(found) - set(known):
        raise ValueError(
            f"{target}: optimiser state of another model ({sorted(set(found) - set(known))[0]}); remove the folder to start again."
        )
    unshaped: frozenset[str] = getattr(optimizer, "whole_state", frozenset())  # of no parameter's shape, and whole on every process
    for name, values in found.items():
        parameter = known[name]
        # The count of updates is read by the kernel that updates all parameters at once, else by Python.
        device = parameter.device if optimizer.defaults.get("fused") else torch.device("cpu")
        optimizer.state[parameter] = {
            key: value.to(device) if key == "step" else value.to(parameter.device) if key in unshaped else like(value, parameter)
            for key, value in values.items()
        }
    raw = json.loads((target / "state.json").read_text(encoding="utf-8"))
    raw["positions"] = {name: (epoch, index) for name, (epoch, index) in raw["positions"].items()}
    raw["candidates"] = {int(step): quality for step, quality in raw["candidates"].items()}
    return TrainState(**raw)
