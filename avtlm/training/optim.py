"""Optimiser and learning-rate schedule."""

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import nn

from avtlm.training.scaled_adam import ScaledAdam

EDEN_START = 0.5  # share of the rate with which Eden's warm-up begins


@dataclass(frozen=True)
class OptimConfig:
    """AdamW (decoupled weight decay, which is what fairseq's Adam does) or ScaledAdam, and a schedule over ``steps``.

    Attributes:
        optimizer: ``adamw``, or ``scaled_adam`` (see scaled_adam.py), which has no weight decay and a way of its own to clip gradients.
        schedule: ``linear`` (warm-up, then to 0: pre-training of AV-HuBERT and VATLM), ``cosine`` (to ``final_ratio``), ``tri_stage``
            (warm-up from 0.01, hold, exponential decay to ``final_ratio``: their fine-tuning), ``constant`` after the warm-up,
            ``polynomial`` (as ``linear``, to the ``power``), ``inverse_sqrt`` (after the warm-up, the root of its share of those done),
            ``triangular`` (up from ``final_ratio`` and down again, ``triangles`` times, each ``shrink`` times as high as the one before),
            or ``eden`` (warm-up from 0.5, times ((n / lr_batches)^2 + 1)^-0.25 at step n and ((e / lr_epochs)^2 + 1)^-0.25 after e passes
            over the data, whatever the number of steps: the recipes of the Zipformer).
        warmup: share of the steps.
        hold: share of the steps (tri_stage only).
        decay: share of the steps that the decay takes (tri_stage only); ``final_ratio`` holds for what is left, and a decay longer than
            that is cut off. Null takes all the steps after the hold.
        floor: share of the rate at which ``linear`` and ``polynomial`` end.
        power: polynomial only. triangles, shrink: triangular only, which has no warm-up besides. lr_batches, lr_epochs: eden only.
        clip_norm: bound on the norm of the gradient; null sets none.
        clipping_scale: scaled_adam only: bound on the norm of the gradient relative to the median of the last ``clipping_period`` norms,
            which count a parameter by its size; null sets none.
        encoder_lr_ratio: learning rate of the parts named in ``encoder_lr_parts`` relative to that of all others.
        encoder_lr_parts: usually the encoder of a recogniser; whole modules, by their names in the model, such as ``tagging``.
        fused: update all parameters in one kernel: ``always``, ``never`` or, ``auto``, on devices that have one (CPU, CUDA); adamw only.
    """

    lr: float = 5e-4
    optimizer: Literal["adamw", "scaled_adam"] = "adamw"
    betas: tuple[float, float] = (0.9, 0.98)
    eps: float = 1e-6
    weight_decay: float = 0.01
    clip_norm: float | None = 10.0
    clipping_scale: float | None = 2.0
    clipping_period: int = 100
    schedule: Literal["linear", "cosine", "tri_stage", "constant", "polynomial", "inverse_sqrt", "triangular", "eden"] = "linear"
    warmup: float = 0.08
    hold: float = 0.0
    decay: float | None = None
    final_ratio: float = 0.05
    floor: float = 0.0
    power: float = 1.0
    triangles: float = 1.0
    shrink: float = 1.0
    lr_batches: float = 7500.0
    lr_epochs: float = 3.5
    encoder_lr_ratio: float = 1.0
    encoder_lr_parts: tuple[str, ...] = ("encoder",)
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
        for name, kind, usual in (
            ("power", "polynomial", 1),
            ("triangles", "triangular", 1),
            ("shrink", "triangular", 1),
            ("lr_batches", "eden", 7500),
            ("lr_epochs", "eden", 3.5),
        ):
            value = getattr(self, name)
            if value <= 0 or (value != usual and self.schedule != kind):
                raise ValueError(f"{name}: {value} with schedule {self.schedule}; give a number above 0, and only with {kind}.")
        if self.schedule == "inverse_sqrt" and self.warmup == 0:
            raise ValueError("warmup: 0 with schedule inverse_sqrt, which falls from the end of its warm-up; give a share of the steps.")
        if self.schedule == "triangular" and self.warmup > 0:
            raise ValueError(f"warmup: {self.warmup} with schedule triangular, which rises by itself; set 0.")
        if self.encoder_lr_ratio < 0:
            raise ValueError(f"encoder_lr_ratio: {self.encoder_lr_ratio}; give a factor on the learning rate, 0 or more.")
        if not self.encoder_lr_parts or (self.encoder_lr_ratio == 1 and self.encoder_lr_parts != ("encoder",)):
            raise ValueError(
                f"encoder_lr_parts: {', '.join(self.encoder_lr_parts) or 'none'} with encoder_lr_ratio {self.encoder_lr_ratio}; name at "
                "least one part, and set a ratio other than 1 for it, or leave both out."
            )
        self._check_optimizer()

    def _check_optimizer(self) -> None:
        if self.optimizer == "scaled_adam":
            if self.weight_decay or self.clip_norm is not None or self.fused != "auto":
                raise ValueError(
                    f"weight_decay {self.weight_decay}, clip_norm {self.clip_norm}, fused {self.fused}: scaled_adam has none of them; set "
                    "weight_decay 0.0 and clip_norm null, leave fused out, and see clipping_scale."
                )
            if (self.clipping_scale is not None and self.clipping_scale <= 0) or self.clipping_period < 1:
                raise ValueError(
                    f"clipping_scale {self.clipping_scale}, clipping_period {self.clipping_period}: give a factor above 0, or null for no "
                    "clipping, and at least 1 step."
                )
        elif self.clipping_scale != 2.0 or self.clipping_period != 100:
            raise ValueError(
                f"clipping_scale {self.clipping_scale}, clipping_period {self.clipping_period}: only scaled_adam has them; leave them "
                "out, or set optimizer: scaled_adam."
            )


def schedule(config: OptimConfig, step: int, steps: int, passes: int = 0) -> float:
    """Factor on the learning rate at a step counted from 0, of which ``passes`` over the data are done (eden only)."""
    if config.schedule == "eden":
        warm = round(config.warmup * steps)
        start = EDEN_START + (1.0 - EDEN_START) * step / warm if step < warm else 1.0
        batches, epochs = step / config.lr_batches, passes / config.lr_epochs
        return float(start * ((batches**2 + 1.0) * (epochs**2 + 1.0)) ** -0.25)
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


def make_optimizer(config: OptimConfig, named: Iterable[tuple[str, nn.Parameter]]) -> torch.optim.Optimizer:
    """The optimiser of all parameters; those of a recogniser's encoder, or of other parts, may have a learning rate of their own.

    Raises:
        ValueError: a part that has one is not there.
    """
    known = list(named)
    if config.encoder_lr_ratio != 1:
        for part in config.encoder_lr_parts:
            if not any(name.startswith(f"{part}.") for name, _ in known):
                parts = ", ".join(dict.fromkeys(name.split(".")[0] for name, _ in known))
                raise ValueError(f"encoder_lr_parts: {part!r} is no part of this model; it has {parts}.")
    slow = tuple(f"{part}." for part in config.encoder_lr_parts)
    parameters = [(name, parameter) for name, parameter in known if parameter.requires_grad]
    groups = []
    for is_slow, ratio in ((True, config.encoder_lr_ratio), (False, 1.0)):
        chosen = [p for name, p in parameters if name.startswith(slow) == is_slow]
        if chosen:
            groups.append({"params": chosen, "lr": config.lr * ratio, "base_lr": config.lr * ratio})
    if config.optimizer == "scaled_adam":
        return ScaledAdam(groups, config.lr, config.betas, config.eps, config.clipping_scale, config.clipping_period)
    fused = config.fused == "always" or (config.fused == "auto" and all(p.device.type in ("cpu", "cuda") for _, p in parameters))
    return torch.optim.AdamW(groups, lr=config.lr, betas=config.betas, eps=config.eps, weight_decay=config.weight_decay, fused=fused)


def set_lr(optimizer: torch.optim.Optimizer, factor: float) -> float:
    """Apply the schedule's factor; returns the learning rate of the last group (the heads)."""
    for group in optimizer.param_groups:
        group["lr"] = group["base_lr"] * factor
    return float(optimizer.param_groups[-1]["lr"])
