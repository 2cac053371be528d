"""Rescoring: finished hypotheses ranked again by what had no say in the search: CTC, which heard the same clip in another way, or a
language model.

Source: Watanabe et al., "Hybrid CTC/attention architecture for end-to-end speech recognition" (IEEE JSTSP 2017): rescoring, the simpler of
its two ways of joint decoding.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from avtlm.decoding.next_tokens import StepLanguageModel
from avtlm.decoding.ngram import END, NGram
from avtlm.decoding.result import Hypothesis
from avtlm.text.vocabulary import EOS, PAD


def rescore_with_ctc(
    nbest: Sequence[Sequence[Hypothesis]],
    log_probs: Tensor,
    lengths: Tensor,
    weight: float,
    blank: int = 0,
    others: Mapping[str, float] | None = None,
) -> list[list[Hypothesis]]:
    """Rank by ``(1 - weight) * attention + weight * ctc``, both the logarithm of the probability of the whole sequence.

    Args:
        nbest: for every row its hypotheses, with the component ``attention``.
        log_probs: CTC posteriors (batch, frames, vocabulary).
        lengths: frames of each row, (batch,).
        weight: of CTC, from 0 to 1.
        others: weights of further components of the hypotheses, such as ``lm``, that are added.

    Returns:
        The same hypotheses, best first, with the new score and the component ``ctc``; equal ones keep their order. A text that does not fit
        into the frames has a CTC score of minus infinity.
    """
    rows = torch.tensor([row for row, found in enumerate(nbest) for _ in found], device=log_probs.device)
    sizes = torch.tensor([len(hypothesis.tokens) for found in nbest for hypothesis in found], device=log_probs.device)
    tokens = torch.tensor([token for found in nbest for hypothesis in found for token in hypothesis.tokens], device=log_probs.device)
    if not log_probs.shape[1]:
        log_probs = log_probs.new_zeros(len(log_probs), 1, log_probs.shape[2])  # of length 0, but the loss wants a frame to look at
    frames = log_probs.float()[rows].transpose(0, 1)
    scores = (-F.ctc_loss(frames, tokens.long(), lengths[rows], sizes, blank=blank, reduction="none")).tolist()
    ranked, place = [], 0
    for found in nbest:
        heard = scores[place : place + len(found)]
        place += len(found)
        again = [
            replace(
                hypothesis,
                score=_mix(hypothesis.components["attention"], score, weight)
                + sum(share * hypothesis.components.get(name, 0.0) for name, share in (others or {}).items()),
                components={**hypothesis.components, "ctc": score},
            )
            for hypothesis, score in zip(found, heard, strict=True)
        ]
        ranked.append(sorted(again, key=lambda hypothesis: -hypothesis.score))
    return ranked


def _mix(attention: float, ctc: float, weight: float) -> float:
    """The weighted sum; a part of weight 0 does not count even if it is minus infinity."""
    return sum(share * score for share, score in ((1 - weight, attention), (weight, ctc)) if share > 0)


def rescore_with_tokens(
    nbest: Sequence[Sequence[Hypothesis]], model: StepLanguageModel, weight: float, word_bonus: float = 0.0, length_penalty: float = 0.0
) -> list[list[Hypothesis]]:
    """Rank by score + weight * ln P(tokens) + word_bonus * words, the whole batch at once.

    Args:
        nbest: for every row its hypotheses, with ``text``.
        model: over the tokens.
        length_penalty: what scores are divided by, see `add_to_score`.

    Returns:
        Best first, with the new score and the components ``lm_tokens`` (with the end) and ``words``; equal ones keep their order.
    """
    flat = [hypothesis for found in nbest for hypothesis in found]
    scores = iter(score_tokens(model, [hypothesis.tokens for hypothesis in flat]))
    ranked = []
    for found in nbest:
        again = []
        for hypothesis in found:
            said, words = next(scores), float(len(hypothesis.text.split()))
            again.append(add_to_score(hypothesis, weight * said + word_bonus * words, {"lm_tokens": said, "words": words}, length_penalty))
        ranked.append(sorted(again, key=lambda hypothesis: -hypothesis.score))
    return ranked


def rescore_with_words(
    nbest: Sequence[Hypothesis], model: NGram, weight: float, word_bonus: float = 0.0, length_penalty: float = 0.0
) -> list[Hypothesis]:
    """Rank finished hypotheses by score + weight * ln P(words) + word_bonus * number of words.

    Args:
        nbest: with ``text``.
        model: an n-gram over words.
        length_penalty: what scores are divided by, see `add_to_score`.

    Returns:
        Best first, with the new score and the components ``lm_words`` (natural log, with the end) and ``words``; equal ones keep order.
    """
    again = []
    for hypothesis in nbest:
        words, context, total = hypothesis.text.split(), model.start, 0.0
        for word in [*words, END]:
            total += math.log(10) * model.score(context, word)
            context = model.extend(context, word)
        parts = {"lm_words": total, "words": float(len(words))}
        again.append(add_to_score(hypothesis, weight * total + word_bonus * len(words), parts, length_penalty))
    return sorted(again, key=lambda hypothesis: -hypothesis.score)


def add_to_score(hypothesis: Hypothesis, addition: float, components: Mapping[str, float], length_penalty: float = 0.0) -> Hypothesis:
    """A hypothesis with a further part of its score. Where scores are sums divided by (tokens with the end) ** length_penalty, the addition
    is divided too: it counts as if it had been there during the search."""
    score = hypothesis.score + addition / (len(hypothesis.tokens) + 1) ** length_penalty
    return replace(hypothesis, score=score, components={**hypothesis.components, **components})


@torch.no_grad()
def score_tokens(model: StepLanguageModel, texts: Sequence[Sequence[int]], start: int = EOS, end: int = EOS) -> list[float]:
    """ln P of every text with its end, token by token for all of them together."""
    if not texts:
        return []
    device = next(model.parameters()).device if isinstance(model, torch.nn.Module) else torch.device("cpu")
    longest = max(map(len, texts))
    rows = [[start, *text, end, *[PAD] * (longest - len(text))] for text in texts]
    table = torch.tensor(rows, device=device)
    sizes = torch.tensor([len(text) + 1 for text in texts], device=device)
    total = torch.zeros(len(texts), dtype=torch.double, device=device)
    state = model.initial_state(len(texts))
    for place in range(longest + 1):
        scores, state = model.step(table[:, place], state)
        said = scores.double().gather(1, table[:, place + 1, None])[:, 0]
        total += torch.where(place < sizes, said, 0.0)
    return [float(score) for score in total.tolist()]
