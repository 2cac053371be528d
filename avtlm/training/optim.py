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
            (warm-up from 0.01, hold, exponential decay to ``final_ratio``: their fine-tuning), ``constant`` after the warm-up,
            ``polynomial`` (as ``linear``, to the ``power``), ``inverse_sqrt`` (after the warm-up, the root of its share of those done), or
            ``triangular`` (up from ``final_ratio`` and down again, ``triangles`` times, each ``shrink`` times as high as the one before).
        warmup: share of the steps.
        hold: share of the steps (tri_stage only).
        decay: share of the steps that the decay takes (tri_stage only); ``final_ratio`` holds for what is left, and a decay longer than
            that is cut off. Null takes all the steps after the hold.
        floor: share of the rate at which ``linear`` and ``polynomial`` end.
        power: polynomial only. triangles, shrink: triangular only, which has no warm-up besides.
        clip_norm: bound on the norm of the gradient; null sets none.
        encoder_lr_ratio: learning rate of a recogniser's encoder relative to its heads.
        fused: update all parameters in one kernel: ``always``, ``never`` or, ``auto``, on devices that have one (CPU, CUDA).
    """

    lr: float = 5e-4
    betas: tuple[float, float] = (0.9, 0.98)
    eps: float = 1e-6
    weight_decay: float = 0.01
    clip_norm: float | None = 10.0
    schedule: Literal["linear", "cosine", "tri_stage", "constant", "polynomial", "inverse_sqrt", "triangular"] = "linear"
    warmup: float = 0.08
    hold: float = 0.0
    decay: float | None = None
    final_ratio: float = 0.05
    floor: float = 0.0
    power: float = 1.0
    triangles: float = 1.0
    shrink: float = 1.0
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
        if not 0 <= self.floor < 1 or (self.floor and self.schedule not in ("linear", "polynomial")):
            raise ValueError(f"floor: {self.floor} with schedule {self.schedule}; give a share below 1, with linear or polynomial only.")
        for name, kind in (("power", "polynomial"), ("triangles", "triangular"), ("shrink", "triangular")):
            value = getattr(self, name)
            if value <= 0 or (value != 1 and self.schedule != kind):
                raise ValueError(f"{name}: {value} with schedule {self.schedule}; give a number above 0, and only with {kind}.")
        if self.schedule == "inverse_sqrt" and self.warmup == 0:
            raise ValueError("warmup: 0 with schedule inverse_sqrt, which falls from the end of its warm-up; give a share of the steps.")
        if self.schedule == "triangular" and self.warmup > 0:
            raise ValueError(f"warmup: {self.warmup} with schedule triangular, which rises by itself; set 0.")


def schedule(config: OptimConfig, step: int, steps: int) -> float:
    """Factor on the learning rate at a step counted from 0."""
    if config.schedule == "triangular":
        half = steps / config.triangles / 2
        number = int((step + 1) // (2 * half))
        height = max(0.0, 1.0 - abs((step + 1) / half - 2 * number - 1))
        return config.final_ratio + (config.shrink**number - config.final_ratio) * height
    warm = round(config.warmup * steps)
    start = 0.01 if config.schedule == "tri_stage" else 0.0
    if step < warm:
        return start + (1.0 - start) * (step + 1) / warm
    if config.schedule == "constant":
        return 1.0
    if config.schedule == "inverse_sqrt":
        return math.sqrt(max(1, warm) / (step + 1))
    hold = round(config.hold * steps) if config.schedule == "tri_stage" else 0
    decay = steps - warm - hold if config.decay is None else round(config.decay * steps)
    share = min(1.0, max(0, step - warm - hold) / max(1, decay))
    if config.schedule in ("linear", "polynomial"):
        return float(config.floor + (1.0 - config.floor) * (1.0 - share) ** config.power)
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
