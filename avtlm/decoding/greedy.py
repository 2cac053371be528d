"""CTC decoding by the best symbol of every frame: repeats merged, blanks dropped (Graves et al. 2006, best path decoding)."""

import torch
from torch import Tensor

from avtlm.decoding.ranking import check_log_probs, valid_frames
from avtlm.decoding.result import Hypothesis


@torch.no_grad()
def ctc_greedy(log_probs: Tensor, lengths: Tensor, blank: int = 0) -> list[Hypothesis]:
    """The best path of every row.

    Padded frames take no part. A token covers the frames in which it is the best symbol in a row; its score is the mean of their
    log-probabilities. The score of the hypothesis is the log-probability of the path.

    Args:
        log_probs: (batch, frames, symbols).
        lengths: (batch,) valid frames of each row.
        blank: id of the blank.

    Raises:
        ValueError: shapes or lengths do not fit together, or a valid frame holds nan.
    """
    lengths = lengths.to(log_probs.device)
    check_log_probs(log_probs, lengths)
    rows, frames, _ = log_probs.shape
    if frames == 0:
        return [Hypothesis((), 0.0, {"ctc": 0.0}) for _ in range(rows)]
    valid = valid_frames(lengths, frames)
    scores, symbols = log_probs.float().max(-1)
    symbols = symbols.masked_fill(~valid, blank)
    scores = scores.double().masked_fill(~valid, 0.0)
    changes = torch.ones_like(valid)
    changes[:, 1:] = symbols[:, 1:] != symbols[:, :-1]
    starts = changes & (symbols != blank)
    totals = scores.sum(1).tolist()
    hypotheses = []
    for row, (symbol, score, start, change) in enumerate(zip(symbols.cpu(), scores.cpu(), starts.cpu(), changes.cpu())):
        first = start.nonzero()[:, 0]
        borders = torch.cat([change.nonzero()[:, 0], torch.tensor([frames])])
        end = torch.minimum(borders[torch.searchsorted(borders, first, right=True)], lengths[row].cpu())
        sums = torch.cat([torch.zeros(1, dtype=score.dtype), score.cumsum(0)])
        means = (sums[end] - sums[first]) / (end - first)
        hypotheses.append(
            Hypothesis(
                tuple(symbol[first].tolist()),
                totals[row],
                {"ctc": totals[row]},
                tuple(zip(first.tolist(), end.tolist())),
                tuple(means.tolist()),
            )
        )
    return hypotheses
