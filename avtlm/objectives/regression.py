"""Regression of a teacher's representations, where the teacher is a moving average of the student (data2vec, arXiv 2202.03555, section 3).

What is unusual here:
- Targets are what the feed-forward parts of the teacher's last layers put out, before the residual, normed and averaged.
- Norms over time leave padding out, so that a target does not depend on its batch; the official code counts it (``over_padding``).
- The teacher is the encoder alone, over the student's features, or the whole student over the waveform (``TeacherConfig.whole``).
"""

import copy
from collections.abc import Iterable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from avtlm.nn.attention import padding_mask
from avtlm.nn.transformer import Encoder
from avtlm.objectives.loss import Loss

EPSILON = 1e-5


@dataclass(frozen=True)
class TeacherConfig:
    """How the teacher follows (section 3.2); the defaults are those of data2vec base and MT4SSL.

    Attributes:
        decay, end_decay: the teacher keeps ``decay`` of itself in the first update, rising linearly to ``end_decay``.
        anneal_steps: updates that this takes; null takes all of them.
        copy_positions: the teacher's positional convolution is the student's of the moment, not an average.
        whole: the teacher is all of the student, front-end and heads too, and hears the waveform itself.
    """

    decay: float = 0.999
    end_decay: float = 0.9999
    anneal_steps: int | None = 30000
    copy_positions: bool = True
    whole: bool = False

    def __post_init__(self) -> None:
        if not (0.0 <= self.decay <= 1.0 and 0.0 <= self.end_decay <= 1.0) or (self.anneal_steps is not None and self.anneal_steps < 1):
            raise ValueError(
                f"teacher: decay {self.decay} to {self.end_decay} in {self.anneal_steps} steps; give decays from 0 to 1, at least 1 step."
            )

    def decay_at(self, updates: int, steps: int) -> float:
        """Share that the teacher keeps in the update with this number, in a training of ``steps``."""
        anneal = self.anneal_steps or steps
        if updates >= anneal:
            return self.end_decay
        return self.end_decay - (self.end_decay - self.decay) * (1 - updates / anneal)


@dataclass(frozen=True)
class TargetConfig:
    """How targets are made of the teacher's layers (section 3.3), in this order; the defaults are those of data2vec base and MT4SSL.

    Attributes:
        layers: average so many of the last ones.
        batch_norm, instance_norm, group_norm, layer_norm: of each layer: of each channel over all frames of the batch, of each channel over
            its row's frames, of each row over frames and channels, of each frame over channels.
        average_layer_norm, average_instance_norm: of the average.
        over_padding: statistics over time take in padded frames.
        official_axes: without batch or instance norm, group and average instance norm go over rows in place of frames, as in the official
            code.
    """

    layers: int = 8
    batch_norm: bool = False
    instance_norm: bool = True
    group_norm: bool = False
    layer_norm: bool = False
    average_layer_norm: bool = False
    average_instance_norm: bool = False
    over_padding: bool = False
    official_axes: bool = False

    def __post_init__(self) -> None:
        if self.layers < 1:
            raise ValueError(f"targets.layers: {self.layers}; give at least 1.")


class Teacher(nn.Module):
    """A copy of parts of a student that no gradient changes, in float32 and always in evaluation mode.

    Args:
        student: has an ``encoder``.
        parts: what is copied, the encoder among it, under the names that the parts have in the student.
    """

    encoder: Encoder

    def __init__(self, student: nn.Module, parts: Iterable[str] = ("encoder",)) -> None:
        super().__init__()
        for name in parts:
            setattr(self, name, copy.deepcopy(getattr(student, name)))
        self.requires_grad_(False)
        self.eval()

    def train(self, mode: bool = True) -> "Teacher":
        """Stays in evaluation mode."""
        del mode
        return super().train(False)

    @torch.no_grad()
    def follow(self, student: nn.Module, decay: float, copy_positions: bool = True) -> None:
        """One step of the average: decay * teacher + (1 - decay) * student; at a decay of 1 nothing moves."""
        if decay >= 1.0:
            return
        own, others = dict(self.named_parameters()), dict(student.named_parameters())
        names = [name for name in own if not (copy_positions and name.startswith("encoder.positions."))]
        torch._foreach_mul_([own[name] for name in names], decay)
        torch._foreach_add_([own[name] for name in names], [others[name] for name in names], alpha=1.0 - decay)
        for name in own.keys() - set(names):
            own[name].copy_(others[name])
        buffers = dict(student.named_buffers())
        for name, buffer in self.named_buffers():
            buffer.copy_(buffers[name])

    @torch.no_grad()
    def targets(self, features: Tensor, lengths: Tensor, config: TargetConfig) -> Tensor:
        """Unmasked features (batch, frames, dim) of the given lengths -> targets (batch, frames, dim), float32."""
        outputs: list[Tensor] = []
        self.encoder.hidden_states(features.detach(), lengths, kept=outputs)
        return average_layers(outputs[-config.layers :], lengths, config)


def average_layers(layers: list[Tensor], lengths: Tensor, config: TargetConfig) -> Tensor:
    """Norm and average (batch, frames, dim) layers."""
    shape = layers[0].shape
    there = None if config.over_padding else ~padding_mask(lengths, shape[1])[..., None]
    turned = config.official_axes and not (config.batch_norm or config.instance_norm)
    total = torch.zeros(shape, device=layers[0].device)
    for layer in layers:
        x = layer.float()
        if config.batch_norm:
            x = _normed(x, there, (0, 1))
        if config.instance_norm:
            x = _normed(x, there, (1,))
        if config.group_norm:
            x = _normed(x, there, (0, 2) if turned else (1, 2))
        if config.layer_norm:
            x = F.layer_norm(x, shape[-1:])
        total += x
    average = total / len(layers)
    if config.average_layer_norm:
        average = F.layer_norm(average, shape[-1:])
    if config.average_instance_norm:
        average = _normed(average, there, (0,) if turned else (1,))
    return average


def _normed(x: Tensor, there: Tensor | None, dims: tuple[int, ...]) -> Tensor:
    """Zero mean and unit variance over some dimensions of (batch, frames, dim), counted where ``there`` (batch, frames, 1) is True.

    Over all of x these are PyTorch's own norms, as in the official code: variances of a few alike numbers are so small that they blow
    rounding up, so that only the same computation gives the same.
    """
    if there is None and dims in ((0,), (1,)):
        order = [0, 2, 1] if dims == (1,) else [1, 2, 0]
        return F.instance_norm(x.permute(order)).permute([order.index(dim) for dim in range(3)])
    if there is None and dims == (0, 1):
        return F.batch_norm(x.transpose(1, 2), None, None, training=True).transpose(1, 2)
    if there is None:
        turned = x if dims == (1, 2) else x.transpose(0, 1)
        normed = F.layer_norm(turned, turned.shape[1:])
        return normed if dims == (1, 2) else normed.transpose(0, 1)
    counted = there.expand_as(x)
    count = counted.sum(dims, keepdim=True).clamp(min=1)
    centred = x - (x * counted).sum(dims, keepdim=True) / count
    variance = (centred.square() * counted).sum(dims, keepdim=True) / count
    return centred * torch.rsqrt(variance + EPSILON)


def regression_loss(prediction: Tensor, target: Tensor, beta: float = 0.0, scale: float | None = None) -> Loss:
    """Squared error (smooth L1 for ``beta`` above 0), summed over dimensions and frames, times ``scale`` or 1 / sqrt(dim).

    Args:
        prediction, target: (frames, dim).

    Returns:
        Loss whose count is the number of frames. Its logs show the spread of targets and predictions over frames, averaged over dimensions:
        either near 0 means that training has collapsed.
    """
    x, y = prediction.float(), target.float()
    each = F.mse_loss(x, y, reduction="none") if beta == 0 else F.smooth_l1_loss(x, y, reduction="none", beta=beta)
    value = each.sum() * (x.shape[-1] ** -0.5 if scale is None else scale)
    count = torch.tensor(len(x), device=x.device)
    one = torch.ones_like(count)
    logs = {"regression_loss": (value.detach(), count), "target_spread": (spread(y), one), "prediction_spread": (spread(x.detach()), one)}
    return Loss(value, count, logs)


def spread(frames: Tensor) -> Tensor:
    """Standard deviation over frames (n, dim), averaged over dimensions; of fewer than two frames that of a constant."""
    if len(frames) < 2:
        return frames.new_tensor(1e-3)
    return torch.sqrt(frames.var(0) + 1e-6).mean()
