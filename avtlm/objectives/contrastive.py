"""Contrastive loss: find the true target of a hidden frame among others (wav2vec 2.0, section 3.2, eq. 3).

Frames and all candidates are compared by one matrix product, and the similarities of each frame's own negatives are then picked from it;
copying every negative's vector, as the official code does, costs a hundred times the memory.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from avtlm.objectives.loss import Loss


@dataclass(frozen=True)
class Candidates:
    """Vectors that frames may be told to find.

    Attributes:
        vectors: (candidates, dim).
        kinds: int (candidates,); candidates of one kind are the same, so that none is a negative of the other.
        positives: which is the true one of each frame, int (frames,).
        negatives: which are the wrong ones of each frame, int (frames, negatives).
    """

    vectors: Tensor
    kinds: Tensor
    positives: Tensor
    negatives: Tensor


def draw_negatives(counts: Tensor, number: int, generator: torch.Generator, from_batch: bool = False) -> Tensor:
    """Negatives for every hidden frame, drawn from the other hidden frames of its own row, or of the whole batch.

    Args:
        counts: hidden frames of each row, int (batch,), on the CPU.
        number: negatives of each.
        generator: a CPU one.

    Returns:
        int (all hidden frames, number): places among all hidden frames, row after row. A row's only hidden frame gets itself, which as a
        negative of the same kind counts for nothing.
    """
    total = int(counts.sum())
    if from_batch:
        counts = counts.new_tensor([total])
    first = torch.cat([counts.new_zeros(1), counts.cumsum(0)[:-1]])
    size, start = (torch.repeat_interleave(part, counts)[:, None] for part in (counts, first))
    own = torch.arange(total)[:, None] - start
    drawn = (torch.rand(total, number, generator=generator) * (size - 1)).long().minimum((size - 2).clamp(min=0))
    return torch.minimum(drawn + (drawn >= own).long(), size - 1) + start


def contrastive_logits(context: Tensor, candidates: Candidates, temperature: float = 0.1) -> Tensor:
    """Cosine similarities over the temperature, float32 (frames, 1 + negatives), the true candidate first; -inf for negatives that are of
    its kind. context: (frames, dim)."""
    similarity = F.normalize(context.float(), dim=-1, eps=1e-8) @ F.normalize(candidates.vectors.float(), dim=-1, eps=1e-8).t()
    index = torch.cat([candidates.positives[:, None], candidates.negatives], 1)
    logits = similarity.gather(1, index) / temperature
    kinds = candidates.kinds[index]
    same = kinds == kinds[:, :1]
    same[:, 0] = False
    return logits.masked_fill(same, float("-inf"))


def contrastive_loss(logits: Tensor) -> Loss:
    """Cross-entropy of the first column, summed over frames; logits (frames, 1 + negatives)."""
    value = F.cross_entropy(logits, torch.zeros(len(logits), dtype=torch.long, device=logits.device), reduction="sum")
    count = torch.tensor(len(logits), device=logits.device)
    first = logits.argmax(-1) == 0
    alike = first & (logits.argmin(-1) == 0)  # nothing was told apart
    return Loss(value, count, {"contrastive_loss": (value.detach(), count), "contrastive_accuracy": ((first & ~alike).sum(), count)})


def paired_contrastive_loss(first: Tensor, second: Tensor, temperature: Tensor | float, both_ways: bool = True) -> Loss:
    """Two views of every clip of a batch find each other among all (InfoNCE; CAV-MAE, arXiv 2210.07839, eq. 2).

    Args:
        first, second: (clips, dim), compared by cosine.
        both_ways: the mean of both directions; else every ``second`` finds its ``first`` only, as CAV-MAE is trained.

    Returns:
        Loss whose count is the number of clips; of a single one, or of clips that are all alike, it is log(clips) each.
    """
    similarity = F.normalize(first.float(), dim=-1) @ F.normalize(second.float(), dim=-1).t() / temperature
    own = torch.arange(len(similarity), device=similarity.device)
    value, found = F.cross_entropy(similarity.t(), own, reduction="sum"), (similarity.argmax(0) == own).sum().float()
    if both_ways:
        value = (value + F.cross_entropy(similarity, own, reduction="sum")) / 2
        found = (found + (similarity.argmax(1) == own).sum()) / 2
    count = torch.tensor(len(own), device=own.device)
    return Loss(value, count, {"contrastive_loss": (value.detach(), count), "contrastive_accuracy": (found, count)})
