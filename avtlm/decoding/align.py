"""When each symbol of a known sequence is said: the best single CTC path that spells it (Viterbi)."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from torch import Tensor

from avtlm.decoding.result import Hypothesis


def ctc_align(log_probs: Tensor, tokens: tuple[int, ...], blank: int = 0) -> tuple[tuple[tuple[int, int], ...], tuple[float, ...], float]:
    """The best path through ``log_probs`` whose merged symbols are ``tokens``.

    Of equally good paths the one that leaves a symbol later is taken.

    Args:
        log_probs: (frames, symbols), one utterance without padding.
        tokens: ids without blanks.
        blank: id of the blank.

    Returns:
        For every token the frames it covers (first, before last); for every token the mean log-probability of these frames; and the
        log-probability of the path. Without any possible path: no frames, no means, and minus infinity.
    """
    emissions = log_probs.detach().double().cpu().numpy()
    frames, states = len(emissions), 2 * len(tokens) + 1
    symbols = np.full(states, blank)
    symbols[1::2] = tokens
    skips = np.zeros(states, dtype=bool)  # a symbol may follow another one without a blank between them
    skips[3::2] = symbols[3::2] != symbols[1:-2:2]
    if frames == 0:
        return ((), (), 0.0 if not tokens else -np.inf)
    score = np.full(states, -np.inf)
    score[:2] = emissions[0, symbols[:2]]
    came = np.zeros((frames, states), dtype=np.int8)
    for frame in range(1, frames):
        ways = np.full((3, states), -np.inf)
        ways[0] = score
        ways[1, 1:] = score[:-1]
        ways[2, 2:] = np.where(skips[2:], score[:-2], -np.inf)
        came[frame] = ways.argmax(0)
        score = ways.max(0) + emissions[frame, symbols]
    state = states - 1 if states == 1 or score[-1] >= score[-2] else states - 2
    total = float(score[state])
    if total == -np.inf:
        return (), (), total
    path = np.empty(frames, dtype=int)
    for frame in range(frames - 1, -1, -1):
        path[frame] = state
        state -= came[frame, state]
    spans, means = [], []
    for place, token in enumerate(tokens):
        covered = np.flatnonzero(path == 2 * place + 1)
        spans.append((int(covered[0]), int(covered[-1]) + 1))
        means.append(float(emissions[covered, token].mean()))
    return tuple(spans), tuple(means), total


def add_times(hypotheses: Sequence[Hypothesis], log_probs: Tensor, blank: int = 0) -> list[Hypothesis]:
    """Hypotheses of a search that knows no times, with those of the best CTC path; one that no path spells stays as it is.

    Args:
        log_probs: (frames, symbols) of CTC, one utterance without padding; symbols are those of the tokens.
    """
    timed = []
    for hypothesis in hypotheses:
        spans, means, _ = ctc_align(log_probs, hypothesis.tokens, blank)
        known = len(spans) == len(hypothesis.tokens)
        timed.append(replace(hypothesis, timesteps=spans, token_scores=hypothesis.token_scores or means) if known else hypothesis)
    return timed
