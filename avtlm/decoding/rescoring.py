"""Rescoring: finished hypotheses of an attention decoder ranked again with the help of CTC, which heard the same clip in another way.

Source: Watanabe et al., "Hybrid CTC/attention architecture for end-to-end speech recognition" (IEEE JSTSP 2017): rescoring, the simpler of
its two ways of joint decoding.
"""

from collections.abc import Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from avtlm.decoding.result import Hypothesis


def rescore_with_ctc(
    nbest: Sequence[Sequence[Hypothesis]], log_probs: Tensor, lengths: Tensor, weight: float, blank: int = 0
) -> list[list[Hypothesis]]:
    """Rank by ``(1 - weight) * attention + weight * ctc``, both the logarithm of the probability of the whole sequence.

    Args:
        nbest: for every row its hypotheses, with the component ``attention``.
        log_probs: CTC posteriors (batch, frames, vocabulary).
        lengths: frames of each row, (batch,).
        weight: of CTC, from 0 to 1.

    Returns:
        The same hypotheses, best first, with the new score and the component ``ctc``; equal ones keep their order. A text that does not fit
        into the frames has a CTC score of minus infinity.
    """
    rows = torch.tensor([row for row, found in enumerate(nbest) for _ in found], device=log_probs.device)
    sizes = torch.tensor([len(hypothesis.tokens) for found in nbest for hypothesis in found], device=log_probs.device)
    tokens = torch.tensor([token for found in nbest for hypothesis in found for token in hypothesis.tokens], device=log_probs.device)
    frames = log_probs.float()[rows].transpose(0, 1)
    scores = (-F.ctc_loss(frames, tokens.long(), lengths[rows], sizes, blank=blank, reduction="none")).tolist()
    ranked, place = [], 0
    for found in nbest:
        heard = scores[place : place + len(found)]
        place += len(found)
        again = [
            replace(
                hypothesis,
                score=_mix(hypothesis.components["attention"], score, weight),
                components={**hypothesis.components, "ctc": score},
            )
            for hypothesis, score in zip(found, heard, strict=True)
        ]
        ranked.append(sorted(again, key=lambda hypothesis: -hypothesis.score))
    return ranked


def _mix(attention: float, ctc: float, weight: float) -> float:
    """The weighted sum; a part of weight 0 does not count even if it is minus infinity."""
    return sum(share * score for share, score in ((1 - weight, attention), (weight, ctc)) if share > 0)
