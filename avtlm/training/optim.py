"""Optimiser and learning-rate schedule."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn


@dataclass(frozen=True)
class OptimConfig:
    """AdamW (decoupled weight decay, which is what fairseq's Adam does) and a schedule over ``steps``.

    Attributes:
        schedule: ``linear`` (warm-up, then to 0: pre-training of AV-HuBERT and VATLM), ``cosine`` (to ``final_ratio``), ``tri_stage``
            (warm-up from 0.01, hold, exponential decay to ``final_ratio``: their fine-tuning), or ``constant`` after the warm-up.
        warmup: share of the steps.
        hold: share of the steps (tri_stage only).
        decay: share of the steps that the decay takes (tri_stage only); ``final_ratio`` holds for what is left, and a decay longer than
            that is cut off. Null takes all the steps after the hold.
        clip_norm: bound on the norm of the gradient; null sets none.
        encoder_lr_ratio: learning rate of a recogniser's encoder relative to its heads.
        fused: update all parameters in one kernel: ``always``, ``never`` or, ``auto``, on devices that have one (CPU, CUDA).
    """

    lr: float = 5e-4
    betas: tuple[float, float] = (0.9, 0.98)
    eps: float = 1e-6
    weight_decay: float = 0.01
    clip_norm: float | None = 10.0
    schedule: Literal["linear", "cosine", "tri_stage", "constant"] = "linear"
    warmup: float = 0.08
    hold: float = 0.0
    decay: float | None = None
    final_ratio: float = 0.05
    encoder_lr_ratio: float = 1.0
    fused: Literal["auto", "always", "never"] = "auto"

    def __post_init__(self) -> None:
        if self.lr <= 0 or not 0 <= self.warmup < 1 or not 0 <= self.hold <= 1 - self.warmup:
            raise ValueError(
                f"lr {self.lr}, warmup {self.warmup}, hold {self.hold}: "
                "give lr > 0, and warm-up and hold as shares of the steps that sum to at most 1."
            )
        if self.clip_norm is not None and self.clip_norm <= 0:
            raise ValueError(f"clip_norm: {self.clip_norm}; give a bound above 0, or null for none.")
        if self.decay is not None and (self.decay <= 0 or self.schedule != "tri_stage"):
            raise ValueError(f"decay: {self.decay}; give a share of the steps above 0, and schedule tri_stage, or null.")


def schedule(config: OptimConfig, step: int, steps: int) -> float:
    """Factor on the learning rate at a step counted from 0."""
    warm = round(config.warmup * steps)
    start = 0.01 if config.schedule == "tri_stage" else 0.0
    if step < warm:
        return start + (1.0 - start) * (step + 1) / warm
    if config.schedule == "constant":
        return 1.0
    hold = round(config.hold * steps) if config.schedule == "tri_stage" else 0
    decay = steps - warm - hold if config.decay is None else round(config.decay * steps)
    share = min(1.0, max(0, step - warm - hold) / max(1, decay))
    if config.schedule == "linear":
        return 1.0 - share
    if config.schedule == "cosine":
        return config.final_ratio + (1.0 - config.final_ratio) * 0.5 * (1.0 + math.cos(math.pi * share))
    return float(config.final_ratio**share)


def make_optimizer(config: OptimConfig, named: Iterable[tuple[str, nn.Parameter]]) -> torch.optim.AdamW:
    """AdamW over all parameters; those of a recogniser's encoder may have a learning rate of their own."""
    parameters = [(name, parameter) for name, parameter in named if parameter.requires_grad]
    groups = []
    for in_encoder, ratio in ((True, config.encoder_lr_ratio), (False, 1.0)):
        chosen = [p for name, p in parameters if name.startswith("encoder.") == in_encoder]
        if chosen:
            groups.append({"params": chosen, "lr": config.lr * ratio, "base_lr": config.lr * ratio})
    fused = config.fused == "always" or (config.fused == "auto" and all(p.device.type in ("cpu", "cuda") for _, p in parameters))
    return torch.optim.AdamW(groups, lr=config.lr, betas=config.betas, eps=config.eps, weight_decay=config.weight_decay, fused=fused)


def set_lr(optimizer: torch.optim.Optimizer, factor: float) -> float:
    """Apply the schedule's factor; returns the learning rate of the last group (the heads)."""
    for group in optimizer.param_groups:
        group["lr"] = group["base_lr"] * factor
    return float(optimizer.param_groups[-1]["lr"])
