"""Losses of written spectrograms: distance, end of speech, and attention along the diagonal (Tachibana et al., arXiv 1710.08969, section
4.1), as SpeechT5 trains speech out of its decoder."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from avtlm.nn.attention import padding_mask
from avtlm.nn.spectrogram import Written
from avtlm.objectives.loss import Loss


@dataclass(frozen=True)
class ReconstructionConfig:
    """Weights; the defaults are those of SpeechT5's pre-training.

    Attributes:
        absolute, squared: of the mean absolute and squared differences, before and after the convolutions added up.
        stop_weight: of the cross-entropy of the end, in which the frame that is the end counts ``stop_positive`` times.
        guided_weight: of attention away from the diagonal (fine-tuning: 1, Hugging Face: 10); ``guided_width`` says how wide the diagonal
            is, in shares of the lengths, and ``guided_heads`` how many heads of every layer are guided.
        average: over all valid ``frames``; over ``rows``, each of which counts the same, however long it is; or over ``padding`` too,
            where silence and the end are to be written, so that a row's loss depends on its batch.
    """

    absolute: float = 1.0
    squared: float = 0.0
    stop_weight: float = 1.0
    stop_positive: float = 5.0
    guided_weight: float = 0.0
    guided_width: float = 0.4
    guided_heads: int = 2
    average: Literal["frames", "rows", "padding"] = "frames"


def spectrogram_loss(written: Written, mel: Tensor, lengths: Tensor, config: ReconstructionConfig, reduction: int = 1) -> Loss:
    """Distance of what was written, and the end of speech, times the frames.

    Args:
        mel: (batch, frames, bands); frames that make no whole step are left out.
        lengths: valid frames, (batch,).

    Returns:
        Loss whose count is the number of frames in the loss. The last valid one of each row is the end.
    """
    spoken, lengths = lengths, lengths - lengths % reduction
    frames = written.before.shape[1]
    valid = ~padding_mask(lengths, frames)
    ends = torch.arange(frames, device=lengths.device) == lengths[:, None] - 1
    if config.average == "padding":
        ends, valid = ends | padding_mask(spoken - 1, frames), torch.ones_like(valid)
    count = valid.sum()
    shares = (1.0 / (len(lengths) * lengths.clamp(min=1)))[:, None].expand_as(valid)[valid] if config.average == "rows" else None

    def mean(each: Tensor) -> Tensor:
        """Of (frames, bands) or (frames,)."""
        return each.mean() if shares is None else ((each.mean(1) if each.dim() > 1 else each) * shares).sum()

    target, before, after = mel[:, :frames][valid].float(), written.before[valid].float(), written.after[valid].float()
    absolute, squared = (
        mean(distance(after, target, reduction="none")) + mean(distance(before, target, reduction="none"))
        for distance in (F.l1_loss, F.mse_loss)
    )
    positive = torch.full((), config.stop_positive, device=lengths.device)
    stop = mean(F.binary_cross_entropy_with_logits(written.stop[valid].float(), ends[valid].float(), pos_weight=positive, reduction="none"))
    total = config.absolute * absolute + config.squared * squared + config.stop_weight * stop
    parts = {"absolute": absolute, "squared": squared, "stop": stop}
    return Loss(total * count, count, {name: (part.detach() * count, count) for name, part in parts.items()})


def guided_attention_loss(weights: Sequence[Tensor], steps: Tensor, keys: Tensor, config: ReconstructionConfig) -> Tensor:
    """Mean of attention times 1 - exp(-(key / keys - step / steps)^2 / (2 width^2)).

    Args:
        weights: of every layer, (batch, heads, steps, keys); 0 comes of none, as of a step in which all layers were dropped.
        steps, keys: valid ones of each row, (batch,).
    """
    if not weights:
        return torch.zeros((), device=steps.device)
    guided = torch.cat([each[:, : config.guided_heads] for each in weights], 1)
    place = torch.arange(guided.shape[2], device=steps.device) / steps[:, None]
    source = torch.arange(guided.shape[3], device=keys.device) / keys[:, None]
    away = 1.0 - torch.exp(-((source[:, None] - place[:, :, None]) ** 2) / (2 * config.guided_width**2))
    valid = ~padding_mask(steps, guided.shape[2])[:, :, None] & ~padding_mask(keys, guided.shape[3])[:, None]
    total = (guided * (away * valid)[:, None]).sum()
    return total / (valid.sum() * guided.shape[1]).clamp(min=1)


# Removed tokens (masked autoencoders: arXiv 2111.06377, section 3; CAV-MAE, arXiv 2210.07839, section 3.2) -----------------------------


def token_targets(values: Tensor, normalise: bool = True) -> Tensor:
    """Values of tokens (batch, tokens, values) as they are to be reconstructed, in float32: normalised, each with mean 0 and (unbiased)
    variance 1."""
    values = values.float()
    if not normalise:
        return values
    return (values - values.mean(-1, keepdim=True)) / (values.var(-1, keepdim=True) + 1e-6).sqrt()


def removed_token_loss(predicted: Tensor, target: Tensor, removed: Tensor, name: str = "error") -> Loss:
    """Mean squared error of every removed token, added up; tokens that were seen have no part in it.

    Args:
        predicted, target: (batch, tokens, values).
        removed: bool (batch, tokens), False at padding too.
        name: under which it is logged.

    Returns:
        Loss whose count is the number of removed tokens.
    """
    each = (predicted.float() - target).square().mean(-1)
    value, count = (each * removed).sum(), removed.sum()
    return Loss(value, count, {name: (value.detach(), count)})
