"""Starting from another model: its weights, all or in part, and its sizes with single settings changed."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn


def load_except(model: nn.Module, weights: dict[str, Tensor], fresh: Sequence[str]) -> None:
    """Copy weights, strictly, into all but the modules named in ``fresh``.

    Raises:
        ValueError: names or shapes differ elsewhere, or ``fresh`` names nothing.
    """
    own = model.state_dict()
    for name in fresh:
        if not any(key.startswith(name + ".") or key == name for key in own):
            raise ValueError(
                f"fresh: {name!r} is no part of this model; its parts are {', '.join(dict.fromkeys(key.split('.')[0] for key in own))}."
            )
    kept = {key: own[key] for key in own if any(key.startswith(name + ".") or key == name for name in fresh)}
    given = {key: value for key, value in weights.items() if not any(key.startswith(name + ".") or key == name for name in fresh)}
    wrong = [key for key in own if key not in kept and (key not in given or given[key].shape != own[key].shape)] + [
        key for key in given if key not in own
    ]
    if wrong:
        raise ValueError(
            f"initialise: {len(wrong)} tensors do not fit this model ({', '.join(wrong[:4])}); use the same sizes, or name them in fresh."
        )
    model.load_state_dict({**given, **kept})


def merged(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """``base`` with single settings of nested groups replaced."""
    result = dict(base)
    for key, value in changes.items():
        result[key] = merged(result[key], value) if isinstance(value, dict) and isinstance(result.get(key), dict) else value
    return result
