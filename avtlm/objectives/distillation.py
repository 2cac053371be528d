"""Learning from several frozen teachers at once (MT2KD, arXiv 2409.17010): frames of speech, probabilities of sounds, a voice.

What is unusual here:
- Every loss is a sum over clips, of the speech loss over frames, too; nothing is divided by frames (the logs are).
- A clip counts for a teacher's loss where it has that teacher's answer, so that corpora may have different teachers (``use_task_id`` of the
  official code), or all of them.
- Student frames that hold several of the teacher learn these side by side. A causal student may answer some frames late (``delay``).
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from avtlm.nn.attention import padding_mask
from avtlm.objectives.loss import Loss

EPSILON = 1e-6  # of the cosine


def joined_frames(answers: Tensor, frames: int, ratio: int) -> Tensor:
    """Teacher's frames (batch, many, width), ``ratio`` of them in one: (batch, frames, ratio x width), cut, or filled up with zeros."""
    answers = F.pad(answers, (0, 0, 0, max(0, ratio * frames - answers.shape[1])))[:, : ratio * frames]
    return answers.unflatten(1, (frames, ratio)).flatten(2)


def speech_distances(predicted: Tensor, answers: Tensor, lengths: Tensor, delay: int = 0) -> Tensor:
    """Mean absolute differences of frames, (batch, frames - delay); 0 at padding.

    Args:
        predicted: (batch, frames, width) of which so many are valid (batch,).
        answers: of the teacher, of the same shape; frame t is compared with the student's frame t + ``delay``.
    """
    frames = predicted.shape[1]
    late = predicted[:, delay:]
    apart = (late.float() - answers[:, : frames - delay].float()).abs().mean(2)
    return apart.masked_fill(padding_mask(lengths, frames)[:, delay:], 0.0)


def sound_losses(logits: Tensor, probabilities: Tensor) -> Tensor:
    """Binary cross entropies against probabilities, or against 0 and 1, (batch, classes)."""
    return F.binary_cross_entropy_with_logits(logits.float(), probabilities.float(), reduction="none")


def speaker_distances(embedded: Tensor, answers: Tensor) -> Tensor:
    """1 - cosine of vectors (batch, dim), (batch,)."""
    return 1.0 - F.cosine_similarity(embedded.float(), answers.float(), dim=-1, eps=EPSILON)


def of_rows(each: Tensor, rows: Tensor, scale: float, name: str, parts: Tensor | None = None) -> Loss:
    """A loss over the rows (bool, batch) that have an answer, times ``scale``; its count is that of these rows.

    Args:
        each: (batch, ...), summed over all but the rows.
        parts: what the log divides by, as a number for each row: frames; None divides by rows.
    """
    summed = each.flatten(1).sum(1) if each.dim() > 1 else each
    value = torch.where(rows, summed, 0.0).sum()
    count = rows.sum()
    shown = count if parts is None else torch.where(rows, parts, 0).sum()
    return Loss(scale * value, count, {name: (value.detach(), shown)})
