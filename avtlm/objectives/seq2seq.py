"""Label-smoothed cross-entropy for an attention decoder, in fairseq's form (AV-HuBERT fine-tuning)."""

import torch
from torch import Tensor

from avtlm.objectives.loss import Loss


def shift_right(targets: Tensor, start: int, padding: int) -> Tensor:
    """Decoder input: the start symbol, then all targets but the last. targets (batch, length) end with the end symbol before any
    padding."""
    shifted = torch.full_like(targets, padding)
    shifted[:, 0] = start
    shifted[:, 1:] = targets[:, :-1]
    # The end symbol of a shorter row would stand in front of its padding; nothing is predicted from it, but padding is what it is.
    shifted[:, 1:][targets[:, 1:] == padding] = padding
    return shifted


def seq2seq_loss(logits: Tensor, targets: Tensor, padding: int, smoothing: float = 0.1) -> Loss:
    """(1 - eps - eps / (V - 1)) * nll + eps / (V - 1) * sum over the vocabulary of -log p, padding left out.

    Args:
        logits: (batch, length, V).
        targets: (batch, length).

    Returns:
        Loss whose count is the number of target tokens, end symbols included.
    """
    kept = targets != padding
    log_probs = logits[kept].float().log_softmax(-1)
    target = targets[kept]
    nll = -log_probs.gather(-1, target[:, None]).sum()
    share = smoothing / (log_probs.shape[-1] - 1)
    loss = (1.0 - smoothing - share) * nll + share * -log_probs.sum()
    count = kept.sum()
    correct = (log_probs.argmax(-1) == target).sum()
    return Loss(loss, count, {"nll": (nll.detach(), count), "token_accuracy": (correct, count)})
