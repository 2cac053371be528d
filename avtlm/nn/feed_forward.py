"""The feed-forward part of a layer, plain or as modality experts.

Modality experts ("multipath" or multiway Transformers: VLMo, BEiT-3) share everything in a layer but this part, of which each kind of input
has its own. No official speech model has them; with equal experts a layer computes what a plain one does, and plain weights are loaded into
every expert.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from avtlm.nn.dropout import Dropout

Activation = Literal[
    "gelu",
    "gelu_tanh",
    "gelu_sigmoid",
    "gelu_clipped",
    "relu",
    "relu_squared",
    "relu6",
    "leaky_relu",
    "silu",
    "mish",
    "tanh",
    "sigmoid",
    "linear",
]
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": F.gelu,
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),  # fairseq's gelu_fast and gelu_accurate
    "gelu_sigmoid": lambda x: x * torch.sigmoid(1.702 * x),
    "gelu_clipped": lambda x: F.gelu(x).clamp(-10, 10),
    "relu": F.relu,
    "relu_squared": lambda x: F.relu(x).square(),
    "relu6": F.relu6,
    "leaky_relu": F.leaky_relu,
    "silu": F.silu,
    "mish": F.mish,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "linear": lambda x: x,
}
JOINT = "joint"
EXPERTS = ("audio", "video", "text", JOINT)


class FeedForward(nn.Module):
    """Two linear maps around an activation."""

    def __init__(self, dim: int, hidden: int, activation: str, activation_dropout: float) -> None:
        super().__init__()
        self.expand = nn.Linear(dim, hidden)
        self.contract = nn.Linear(hidden, dim)
        self.activation = ACTIVATIONS[activation]
        self.dropout = Dropout(activation_dropout)

    def forward(self, x: Tensor) -> Tensor:
        return self.contract(self.dropout(self.activation(self.expand(x))))


class GatedFeedForward(FeedForward):
    """The first of two linear maps has two halves, of which one, behind a SiLU, gates the other (Shazeer, arXiv 2002.05202: SwiGLU)."""

    def __init__(self, dim: int, hidden: int, activation_dropout: float) -> None:
        super().__init__(dim, hidden, "silu", activation_dropout)
        self.expand = nn.Linear(dim, 2 * hidden)

    def forward(self, x: Tensor) -> Tensor:
        value, gate = self.expand(x).chunk(2, -1)
        return self.contract(self.dropout(value * self.activation(gate)))


@dataclass(frozen=True)
class Routing:
    """Which expert each row of a batch goes through: by name, the rows (int) or None for all of them; in a graph that is exported, which
    knows no numbers of rows, whether a row does (bool)."""

    parts: tuple[tuple[str, Tensor | None], ...] = ((JOINT, None),)

    def of_frames(self, row: Tensor) -> "Routing":
        """The same for packed frames: ``row`` is the row that each comes from, int (frames of all,)."""
        return Routing(tuple((name, None if rows is None else torch.isin(row, rows).nonzero().flatten()) for name, rows in self.parts))


def route(present: Mapping[str, Tensor]) -> Routing:
    """Rows that hold one modality go to its expert, all others to the joint one.

    Args:
        present: by modality, bool (batch,).
    """
    there = torch.stack(list(present.values()))  # (modalities, batch)
    alone = there.sum(0) == 1
    groups = {name: alone & rows for name, rows in zip(present, there, strict=True)} | {JOINT: ~alone}
    if torch.compiler.is_exporting():
        return Routing(tuple(groups.items()))
    parts = [(name, rows.nonzero().flatten()) for name, rows in groups.items()]
    parts = [(name, rows) for name, rows in parts if len(rows)]
    return Routing(((parts[0][0], None),)) if len(parts) == 1 else Routing(tuple(parts))


class ExpertFeedForward(nn.Module):
    """A feed-forward part for each kind of input. What has no expert of its own goes through the joint one.

    A state dictionary of a plain layer loads into every expert.
    """

    def __init__(self, names: Sequence[str], make: Callable[[], FeedForward]) -> None:
        super().__init__()
        self.experts = nn.ModuleDict({name: make() for name in names})
        self.register_load_state_dict_pre_hook(_spread)

    def forward(self, x: Tensor, routing: Routing) -> Tensor:
        """x (batch, frames, dim), or packed frames (frames of all, dim) routed one by one -> the same."""
        result: Tensor | None = None
        for name, rows in routing.parts:
            expert = self.experts[name if name in self.experts else JOINT]
            if rows is None:
                whole: Tensor = expert(x)
                return whole
            if rows.dtype == torch.bool:
                every = expert(x)
                result = torch.where(rows[:, None, None], every, torch.zeros_like(every) if result is None else result)
                continue
            part = expert(x[rows])
            result = (part.new_zeros(x.shape) if result is None else result).index_copy(0, rows, part)
        assert result is not None
        return result


def spread(model: nn.Module, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights for a model with experts, where plain layers give theirs to every expert; what is there for experts already stays."""
    spread_out = dict(weights)
    for name, module in model.named_modules():
        if isinstance(module, ExpertFeedForward):
            _spread(module, spread_out, f"{name}." if name else "")
    return spread_out


def _spread(module: ExpertFeedForward, state: dict[str, Any], prefix: str, *_: Any) -> None:
    """Give the plain tensors of a state dictionary to every expert."""
    for part in ("expand", "contract"):
        for kind in ("weight", "bias"):
            plain = state.pop(f"{prefix}{part}.{kind}", None)
            if plain is not None:
                state.update({f"{prefix}experts.{name}.{part}.{kind}": plain for name in module.experts})
