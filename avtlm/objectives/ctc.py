"""Connectionist temporal classification (Graves et al. 2006) over an encoder's frames."""

import torch.nn.functional as F
from torch import Tensor

from avtlm.objectives.loss import Loss


def ctc_loss(logits: Tensor, lengths: Tensor, targets: Tensor, target_lengths: Tensor, blank: int = 0) -> Loss:
    """Sum of -log p(target | frames), in float32.

    A target that cannot fit into its frames (too many symbols or repeats) has no probability; it counts as zero loss and is reported in the
    logs.

    Args:
        logits: (batch, frames, vocabulary).
        lengths: frames, (batch,).
        targets: (batch, symbols) int, without blanks or end symbol.
        target_lengths: (batch,).

    Returns:
        Loss whose count is the number of target symbols.
    """
    log_probs = logits.float().log_softmax(-1).transpose(0, 1)
    each = F.ctc_loss(log_probs, targets, lengths, target_lengths, blank=blank, reduction="none", zero_infinity=True)
    impossible = (each == 0) & (target_lengths > 0)
    count = target_lengths.sum()
    total = each.sum()
    return Loss(total, count, {"ctc_loss": (total.detach(), count), "ctc_too_short": (impossible.sum(), count.new_tensor(len(lengths)))})
