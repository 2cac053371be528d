"""Stored inputs and outputs of official code: tests/golden/<system>/<case>/."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

ROOT = Path(__file__).resolve().parent / "golden"


@dataclass(frozen=True)
class GoldenCase:
    """What went in, what came out, the weights in between (empty where there are none), and the case's description."""

    description: dict[str, Any]
    inputs: dict[str, Tensor]
    outputs: dict[str, Tensor]
    state: dict[str, Tensor]

    @property
    def config(self) -> dict[str, Any]:
        config: dict[str, Any] = self.description["config"]
        return config


def read_case(name: str) -> GoldenCase:
    folder = ROOT / name
    state = folder / "state.safetensors"
    return GoldenCase(
        json.loads((folder / "case.json").read_text()),
        load_file(folder / "inputs.safetensors"),
        load_file(folder / "outputs.safetensors"),
        load_file(state) if state.exists() else {},
    )


def error(ours: Tensor, official: Tensor) -> float:
    """max |ours - official| / max(1, max |official|), the measure of the cases' tolerances."""
    assert ours.shape == official.shape, f"{tuple(ours.shape)} and {tuple(official.shape)}"
    return ((ours.double() - official.double()).abs().max() / official.double().abs().max().clamp(min=1)).item()


def gradient_error(ours: Tensor | None, official: Tensor) -> float:
    """max |ours - official| / max |official|; a gradient that was never computed is zero."""
    ours = torch.zeros_like(official) if ours is None else ours
    assert ours.shape == official.shape
    return ((ours.double() - official.double()).abs().max() / official.double().abs().max().clamp(min=1e-12)).item()
