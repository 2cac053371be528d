"""The transducer loss (Graves 2012, arXiv 1211.3711): -log p(text), all paths summed, by torchaudio's kernels."""

import torch
from torch import Tensor

from avtlm.objectives.loss import Loss


def transducer_loss(logits: Tensor, lengths: Tensor, tokens: Tensor, token_lengths: Tensor, blank: int = 0) -> Loss:
    """Sum of -log p(tokens | frames), in float32. The logits of a batch fill batch x frames x (labels + 1) x vocabulary numbers.

    Args:
        logits: (batch, frames, labels + 1, vocabulary), see avtlm.nn.transducer.
        lengths: frames, at least 1, (batch,).
        tokens: (batch, labels), anything behind token_lengths (batch,).

    Returns:
        Loss whose count is the number of labels.
    """
    count = token_lengths.sum()
    frames, most = int(lengths.max()), int(token_lengths.max())
    if most == 0:  # the only path is blank at every frame
        silent = logits[:, :, 0].float().log_softmax(-1)[..., blank]
        heard = torch.arange(silent.shape[1], device=lengths.device) < lengths[:, None]
        total = -silent.masked_fill(~heard, 0.0).sum()
    else:
        from torchaudio.functional import rnnt_loss

        cut = logits[:, :frames, : most + 1].float().contiguous()
        known = torch.arange(most, device=tokens.device) < token_lengths[:, None]
        labels = torch.where(known, tokens[:, :most], blank).int().contiguous()
        each = rnnt_loss(cut, labels, lengths.int(), token_lengths.int(), blank=blank, clamp=-1, reduction="none")
        total = each.sum()
    return Loss(total, count, {"transducer_loss": (total.detach(), count)})
