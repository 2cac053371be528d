"""A stored case of official code, and the comparison of what we compute with what it holds.

A case is a folder with ``case.json`` (description, options, tolerance) and, where there are any, ``inputs.safetensors``,
``outputs.safetensors`` and ``state.safetensors`` (weights under official names).
"""

import functools
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

# What tolerances are called that a case states in words.
STATED = {
    "forward": r"forward tensors rtol (\S+)",
    "forward_abs": r"forward tensors rtol \S+ atol (\S+)",
    "loss_rel": r"loss rtol (\S+)",
    "grad_rel": r"gradients rtol (\S+)",
}


class CaseError(ValueError):
    """A case that asks for something that we have not got, in one sentence."""


@dataclass(frozen=True)
class Case:
    """What went in, what came out, the weights in between (each empty where there is none), and the description."""

    name: str
    folder: Path
    description: dict[str, Any]
    inputs: dict[str, Tensor]
    outputs: dict[str, Tensor]
    state: dict[str, Tensor]

    @property
    def config(self) -> dict[str, Any]:
        config: dict[str, Any] = self.description.get("config", {})
        return config

    @property
    def official(self) -> str:
        """Name of the official class or function."""
        return str(self.description.get("official_class", ""))

    @property
    def stated(self) -> dict[str, float]:
        """Tolerances that the case states in words, by our names; empty for those that state numbers."""
        words = self.description.get("tolerance")
        found = {name: re.search(pattern, words) for name, pattern in STATED.items()} if isinstance(words, str) else {}
        return {name: float(match[1].rstrip(";,")) for name, match in found.items() if match}

    @property
    def source(self) -> str:
        """Where it stands: repository and path in it."""
        return f"{self.description.get('repo', '')} {self.description.get('path', '')}"

    def bound(self, *names: str) -> float:
        """The first of these entries of the case's tolerance, or the tolerance itself if it is one number; "exact" is 0.

        Raises:
            CaseError: the case states none of them.
        """
        tolerance = self.stated or self.description.get("tolerance")
        if isinstance(tolerance, Mapping):
            found = [tolerance[name] for name in names if name in tolerance]
            tolerance = found[0] if found else None
        if tolerance == "exact":
            return 0.0
        if not isinstance(tolerance, int | float):
            raise CaseError(f"case.json: the tolerance states no number under {' or '.join(names)}.")
        return float(tolerance)


def read_case(folder: Path, name: str | None = None) -> Case:
    """Read a case.

    Raises:
        OSError, ValueError: a file is missing or damaged, or describes nothing.
    """
    parts = {}
    for part in ("inputs", "outputs", "state"):
        path = folder / f"{part}.safetensors"
        parts[part] = load_file(path) if path.exists() else {}
    description = json.loads((folder / "case.json").read_text(encoding="utf-8"))
    if not isinstance(description, dict) or not isinstance(description.get("config", {}), dict):
        raise CaseError("case.json: neither it nor its config may be anything but a mapping.")
    return Case(name or folder.name, folder, description, **parts)


@dataclass(frozen=True)
class Comparison:
    """One tensor: its error in the measure of its tolerance, and its largest plain difference."""

    name: str
    error: float
    tolerance: float
    largest: float

    @property
    def passed(self) -> bool:
        return self.error <= self.tolerance


@dataclass
class Check:
    """What an adapter tells about a case: comparisons by the names of the official tensors, and what it leaves out."""

    case: Case
    comparisons: list[Comparison] = field(default_factory=list)
    skipped: dict[str, str] = field(default_factory=dict)

    def forward(self, name: str, ours: Tensor, where: Tensor | None = None) -> None:
        """Activations: max |a - b| / max(1, max |b|), or / max |b| where the case says that its tolerance is relative; of a case that
        states both an absolute and a relative tolerance in words, element by element.

        Args:
            where: bool like the first dimensions, the places to compare; None for all.
        """
        expected = self._expected(name)
        if expected is not None and where is not None and ours.shape == expected.shape:
            ours, expected = ours[where], expected[where]
        stated = self.case.stated
        if expected is not None and "forward_abs" in stated:
            floor = stated["forward_abs"] / stated["forward"]
            error = _difference(ours.detach(), expected, floor)
            self.comparisons.append(Comparison(name, error, stated["forward"], _difference(ours.detach(), expected)))
            return
        tolerance = self.case.description.get("tolerance")
        floor = 1e-6 if isinstance(tolerance, Mapping) and "relative_to" in tolerance else 1.0
        if expected is not None:
            self._add(name, ours, expected, self.case.bound("forward_max_abs_over_max1", "forward"), max(floor, _size(expected)))

    def loss(self, name: str, ours: Tensor | float) -> None:
        """A loss: |a - b| / |b|; one below 0.001 is what rounding leaves of a difference."""
        expected = self._expected(name)
        if expected is not None:
            self._add(name, torch.as_tensor(ours), expected, self.case.bound("loss_rel", "forward"), max(1e-3, _size(expected)))

    def gradient(self, name: str, ours: Tensor | None) -> None:
        """A gradient: max |a - b| / max |b|; one that was never computed is zero, and so is what rounding leaves of one below 0.001 or
        below 0.0001 of the case's largest."""
        expected = self._expected(name)
        if expected is not None:
            ours = torch.zeros_like(expected) if ours is None else ours
            floor = max(1e-3, 1e-4 * self._largest_gradient)
            self._add(name, ours, expected, self.case.bound("grad_rel", "gradients"), max(floor, _size(expected)))

    def close(self, name: str, ours: Tensor, tolerance: float) -> None:
        """max |a - b|."""
        expected = self._expected(name)
        if expected is not None:
            self._add(name, ours, expected, tolerance, 1.0)

    def equal(self, name: str, ours: Tensor | float) -> None:
        """Counts, ids, masks: the same to the last bit."""
        self.close(name, torch.as_tensor(ours), 0.0)

    def value(self, name: str, ours: float, expected: float, tolerance: float) -> None:
        """A number that is not among the tensors."""
        self._add(name, torch.as_tensor(float(ours)), torch.as_tensor(float(expected)), tolerance, 1.0)

    def skip(self, name: str, why: str) -> None:
        """Leave a tensor out, and say why."""
        if name in self.case.outputs:
            self.skipped[name] = why

    @functools.cached_property
    def _largest_gradient(self) -> float:
        return max((_size(tensor) for name, tensor in self.case.outputs.items() if "grad." in name), default=0.0)

    def _expected(self, name: str) -> Tensor | None:
        """The official tensor, None if this case does not hold it."""
        return self.case.outputs.get(name)

    def _add(self, name: str, ours: Tensor, expected: Tensor, tolerance: float, scale: float) -> None:
        largest = _difference(ours.detach(), expected)
        self.comparisons.append(Comparison(name, largest / scale, tolerance, largest))


def _size(tensor: Tensor) -> float:
    """The largest finite absolute value."""
    values = tensor.double().abs()
    values = values[values.isfinite()]
    return float(values.max()) if values.numel() else 0.0


def _difference(ours: Tensor, expected: Tensor, floor: float | None = None) -> float:
    """The largest absolute difference, with a ``floor`` relative to that and |b|; infinite where shapes differ, one is nan, or only one is
    infinite."""
    if ours.shape != expected.shape:
        return float("inf")
    if not expected.numel():
        return 0.0
    a, b = ours.double(), expected.double()
    scale = torch.ones_like(b) if floor is None else floor + b.abs()
    difference = ((a - b).abs() / scale).masked_fill(a == b, 0.0)  # two equal infinities differ by nan
    return float(torch.where(difference.isnan(), float("inf"), difference).max())
