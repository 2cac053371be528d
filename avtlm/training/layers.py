"""What is done to the encoder's layers for memory and speed before a training: activation checkpointing and torch.compile.

What is unusual here:
- Both work layer by layer. Layers of one kind share their compiled code, and dropping whole layers stays outside of it.
- Attention calls its kernels as ever, because the lengths of packed sequences change from batch to batch; all else of a layer is compiled.
  Its dropout is drawn by PyTorch from the seed of the step (``fallback_random``), so that a resumed run repeats it.
- Batch norms would see a recomputed pass twice, so that front-ends are left alone.
"""

import functools
import os
import shutil
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from avtlm.nn.transformer import EncoderLayer
from avtlm.nn.zipformer.layer import View, ZipformerLayer


def trained_layers(model: nn.Module) -> list[EncoderLayer | ZipformerLayer]:
    """Layers of all encoders but those that no gradient reaches (teachers)."""
    found = [module for module in model.modules() if isinstance(module, EncoderLayer | ZipformerLayer)]
    return [layer for layer in found if any(parameter.requires_grad for parameter in layer.parameters())]


def prepare_layers(model: nn.Module, recompute: bool, compiled: bool) -> None:
    """Change the forward passes of a model's layers in place; names of weights stay.

    Args:
        recompute: keep only what goes into a layer, and compute the layer again for its gradient, with the same dropout.
        compiled: by torch.compile.

    Raises:
        ValueError: there is no compiler, or a Zipformer is to be compiled.
    """
    if compiled and (reason := missing_compiler()) is not None:
        raise ValueError(f"compile: true, but {reason}; install one, or set compile=false.")
    for layer in trained_layers(model):
        forward: Callable[..., Tensor] = layer.forward
        if isinstance(layer, ZipformerLayer):
            if compiled:
                raise ValueError(
                    "compile: true, but a Zipformer decides in every layer what it drops, which cannot be compiled; set compile=false."
                )
            if recompute:
                layer.forward = functools.partial(_recomputed_view, forward)  # type: ignore[method-assign]
            continue
        if compiled:
            attention = layer.self_attention
            attention.weigh = torch.compiler.disable(attention.weigh)  # type: ignore[method-assign]
            forward = functools.partial(_compiled, torch.compile(forward, dynamic=True, options={"fallback_random": True}), forward)
        if recompute:
            forward = functools.partial(_recomputed, forward)
        layer.forward = forward  # type: ignore[method-assign]


def _compiled(fast: Callable[..., Tensor], plain: Callable[..., Tensor], *inputs: Any) -> Tensor:
    """Compiled for steps alone: every mode of use would be compiled anew, and validation is rare."""
    return fast(*inputs) if torch.is_grad_enabled() else plain(*inputs)


def _recomputed(
    forward: Callable[..., Tensor],
    x: Tensor,
    lengths: Tensor | None,
    bias: Tensor | None = None,
    kept: list[Tensor] | None = None,
    routing: Any = None,
    distances: Tensor | None = None,
) -> Tensor:
    """See EncoderLayer.forward. Whoever collects the outputs of feed-forward parts has them computed once."""
    if kept is not None or not torch.is_grad_enabled():
        return forward(x, lengths, bias, kept, routing, distances)
    again: Tensor = checkpoint(forward, x, lengths, bias, None, routing, distances, use_reentrant=False)
    return again


def _recomputed_view(forward: Callable[..., Tensor], x: Tensor, view: View) -> Tensor:
    """See ZipformerLayer.forward."""
    if not torch.is_grad_enabled():
        return forward(x, view)
    again: Tensor = checkpoint(forward, x, view, use_reentrant=False)
    return again


def missing_compiler() -> str | None:
    """Why torch.compile cannot work here; None if it can."""
    names = [os.environ["CXX"]] if os.environ.get("CXX") else ["g++", "clang++"]
    return None if any(shutil.which(name) for name in names) else f"there is no C++ compiler ({' or '.join(names)})"
