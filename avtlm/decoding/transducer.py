"""Transducers (Graves 2012, arXiv 1211.3711): greedy search, beam search, and the probability of a given text.

A path goes through (frame, labels so far): a blank takes it to the next frame, a label to the next place of the text; the last step is a
blank in the last frame. p(text) sums all paths.

The beam search is alignment-length synchronous (Saon et al. 2020): all hypotheses have taken equally many steps, so that two paths of one
text meet at the same step and are summed there, and the model is asked once a step for the hypotheses of a whole batch. It is exact as long
as nothing falls out of the beam. Sums are float64.
"""

from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from avtlm.decoding.ctc_prefix import MULTIPLIER, SALT
from avtlm.decoding.ranking import best
from avtlm.decoding.result import Hypothesis

MINUS_INFINITY = float("-inf")


class Transducer(Protocol):
    """What a search needs of a transducer. A state is one tensor with a row for every hypothesis."""

    def initial_state(self, rows: int) -> Tensor: ...

    def predict(self, tokens: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """The prediction network: tokens (rows,), the blank at the start, -> what it says (rows, dim), and the new state."""

    def join(self, encoded: Tensor, predicted: Tensor) -> Tensor:
        """Frames (rows, dim) and predictions (rows, dim) -> logits (rows, symbols)."""


@torch.no_grad()
def transducer_greedy(model: Transducer, encoded: Tensor, lengths: Tensor, blank: int = 0, max_symbols: int = 10) -> list[Hypothesis]:
    """The best symbol at every step; after ``max_symbols`` labels in a frame the blank is taken.

    Args:
        encoded: (batch, frames, dim).
        lengths: (batch,) valid frames of each row.

    Returns:
        For every row the text; its score is the log-probability of the path, and a token covers the frame it was said in.

    Raises:
        ValueError: the model gives nan.
    """
    rows, frames = encoded.shape[:2]
    device, lengths = encoded.device, lengths.to(encoded.device)
    total = torch.zeros(rows, dtype=torch.double, device=device)
    found: list[list[tuple[int, int, float]]] = [[] for _ in range(rows)]
    predicted, state = model.predict(torch.full((rows,), blank, device=device), model.initial_state(rows))
    for frame in range(min(frames, int(lengths.max()) if rows else 0)):
        speaking = (frame < lengths).nonzero()[:, 0]
        for said in range(max_symbols + 1):
            log_probs = _log_probs(model, encoded[speaking, frame], predicted[speaking])
            symbol = log_probs.argmax(1) if said < max_symbols else torch.full_like(speaking, blank)
            score = log_probs.gather(1, symbol[:, None])[:, 0]
            total[speaking] += score
            labels = symbol != blank
            for row, token, value in zip(speaking[labels].tolist(), symbol[labels].tolist(), score[labels].tolist(), strict=True):
                found[row].append((token, frame, value))
            speaking = speaking[labels]
            if not len(speaking):
                break
            predicted[speaking], state[speaking] = model.predict(symbol[labels], state[speaking])
    return [
        Hypothesis(
            tuple(token for token, _, _ in said),
            score,
            {"transducer": score},
            tuple((frame, frame + 1) for _, frame, _ in said),
            tuple(value for _, _, value in said),
        )
        for said, score in zip(found, total.tolist(), strict=True)
    ]


@dataclass
class _Trace:
    """Where every place of the beam came from at every step, (rows, beam) each; a label of -1 is a blank. ``scores`` are log p(label)."""

    sources: list[Tensor] = field(default_factory=list)
    labels: list[Tensor] = field(default_factory=list)
    frames: list[Tensor] = field(default_factory=list)
    scores: list[Tensor] = field(default_factory=list)

    def follow(self, row: int, step: int, place: int) -> tuple[tuple[int, ...], tuple[tuple[int, int], ...], tuple[float, ...]]:
        """Tokens, the frames they were said in and their log-probabilities, of the hypothesis that held a place before a step."""
        tokens, spans, scores = [], [], []
        for before in range(step - 1, -1, -1):
            label, score = int(self.labels[before][row, place]), float(self.scores[before][row, place])
            place = int(self.sources[before][row, place])
            if label >= 0:
                frame = int(self.frames[before][row, place])
                tokens.append(label)
                spans.append((frame, frame + 1))
                scores.append(score)
        return tuple(reversed(tokens)), tuple(reversed(spans)), tuple(reversed(scores))


@torch.no_grad()
def transducer_beam(
    model: Transducer,
    encoded: Tensor,
    lengths: Tensor,
    beam: int = 10,
    blank: int = 0,
    nbest: int = 1,
    max_tokens: int | None = None,
    threshold: float = float("inf"),
) -> list[list[Hypothesis]]:
    """The most probable texts of every row, best first, all paths of each summed.

    The search for a row ends when no hypothesis that is still open can come among the ``nbest`` any more. Ties go to hypotheses that stay
    as they are, then to the better previous hypothesis, then to the smaller id.

    Args:
        encoded: (batch, frames, dim).
        lengths: (batch,) valid frames of each row.
        beam: hypotheses kept per row and step.
        max_tokens: longest text; as many as frames if None.
        threshold: drop hypotheses that are this much worse (natural log) than the best of the step.

    Returns:
        For every row up to ``nbest`` hypotheses. Their score is log p(text); tokens cover the frame in which one path says them.

    Raises:
        ValueError: the model gives nan, or ``nbest`` or ``beam`` is out of range.
    """
    if not 1 <= nbest <= beam:
        raise ValueError(f"A beam of {beam} cannot give {nbest} hypotheses; ask for at least 1 and at most the beam.")
    rows, device = len(encoded), encoded.device
    lengths = lengths.to(device)
    limits = lengths if max_tokens is None else torch.full_like(lengths, max_tokens)
    total = torch.full((rows, beam), MINUS_INFINITY, dtype=torch.double, device=device)
    total[:, 0] = torch.where(lengths > 0, 0.0, MINUS_INFINITY).double()
    last = torch.full((rows, beam), -1, device=device)
    said = torch.zeros(rows, beam, dtype=torch.long, device=device)
    identity = (torch.arange(beam, device=device) * SALT).expand(rows, beam)  # see ctc_prefix.py
    predicted, state = model.predict(torch.full((rows * beam,), blank, device=device), model.initial_state(rows * beam))
    owners = torch.arange(rows, device=device).repeat_interleave(beam)
    trace, step = _Trace(), 0
    finals: list[list[tuple[float, int, int]]] = [[] for _ in range(rows)]
    while bool((total > MINUS_INFINITY).any()):
        frame = step - said  # (rows, beam)
        alive = total.flatten() > MINUS_INFINITY
        log_probs = torch.full((rows * beam, 1), MINUS_INFINITY, dtype=torch.double, device=device)
        open_rows = alive.nonzero()[:, 0]
        scores = _log_probs(model, encoded[owners[open_rows], frame.flatten()[open_rows]], predicted[open_rows])
        symbols = scores.shape[1]
        log_probs = log_probs.repeat(1, symbols)
        log_probs[open_rows] = scores
        grow = total[:, :, None] + log_probs.unflatten(0, (rows, beam))
        stay = grow[:, :, blank].clone()
        grow[:, :, blank] = MINUS_INFINITY
        grow = grow.masked_fill((said >= limits[:, None])[:, :, None], MINUS_INFINITY)
        ending = (frame == lengths[:, None] - 1) & (stay > MINUS_INFINITY)
        for row, place in ending.nonzero().tolist():
            finals[row].append((float(stay[row, place]), step, place))
        stay = stay.masked_fill(ending, MINUS_INFINITY)

        # A text that grows into one that is in the beam already adds its paths there. parent i + last label of j == j?
        ends = last.clamp(min=0)[:, None].expand(rows, beam, beam)
        same = (identity[:, :, None] * MULTIPLIER + ends + 1 == identity[:, None]) & (last >= 0)[:, None]
        same &= (stay > MINUS_INFINITY)[:, None]
        stay = torch.logaddexp(stay, grow.gather(2, ends).masked_fill(~same, MINUS_INFINITY).logsumexp(1))
        grow = grow.scatter_reduce(2, ends, torch.where(same, MINUS_INFINITY, float("inf")).to(grow.dtype), "amin")

        total, chosen = best(torch.cat([stay, grow.flatten(1)], 1), beam)
        total = total.masked_fill(total < total[:, :1] - threshold, MINUS_INFINITY)
        for row, found in enumerate(finals):
            found.sort(key=lambda final: -final[0])
            if len(found) >= nbest and found[nbest - 1][0] >= float(total[row].logsumexp(0)):
                total[row] = MINUS_INFINITY
        stays = chosen < beam
        source = torch.where(stays, chosen, (chosen - beam) // symbols)
        label = torch.where(stays, -1, (chosen - beam) % symbols)
        trace.sources.append(source)
        trace.labels.append(label)
        trace.frames.append(frame)
        trace.scores.append(log_probs.unflatten(0, (rows, beam)).flatten(1).gather(1, (chosen - beam).clamp(min=0)))
        moved = (torch.arange(rows, device=device)[:, None] * beam + source).flatten()
        predicted, state = predicted[moved], state[moved]
        new = (~stays & (total > MINUS_INFINITY)).flatten().nonzero()[:, 0]
        if len(new):
            predicted[new], state[new] = model.predict(label.flatten()[new], state[new])
        grown = identity.gather(1, source) * MULTIPLIER + label + 1
        identity = torch.where(stays, identity.gather(1, source), grown)
        last = torch.where(stays, last.gather(1, source), label)
        said = said.gather(1, source) + (~stays).long()
        step += 1
    results = []
    for row, found in enumerate(finals):
        hypotheses = []
        for score, when, place in found[:nbest]:
            tokens, spans, posteriors = trace.follow(row, when, place)
            hypotheses.append(Hypothesis(tokens, score, {"transducer": score}, spans, posteriors))
        results.append(hypotheses or [Hypothesis((), 0.0, {"transducer": 0.0})])
    return results


@torch.no_grad()
def transducer_score(model: Transducer, encoded: Tensor, lengths: Tensor, tokens: Tensor, token_lengths: Tensor, blank: int = 0) -> Tensor:
    """log p(text) of every row, all paths summed, (batch,) in float64.

    Args:
        encoded: (batch, frames, dim). lengths: (batch,) valid frames, at least 1.
        tokens: (batch, labels), anything behind token_lengths (batch,).
    """
    rows, frames = encoded.shape[:2]
    width = tokens.shape[1] + 1
    tokens = torch.where(torch.arange(width - 1, device=tokens.device) < token_lengths[:, None], tokens, blank)
    fed = torch.cat([torch.full_like(lengths, blank)[:, None].to(tokens), tokens], 1)
    state, spoken = model.initial_state(rows), []
    for place in range(width):
        said, state = model.predict(fed[:, place], state)
        spoken.append(said)
    predictions = torch.stack(spoken, 1)[:, None].expand(-1, frames, -1, -1)
    heard = encoded[:, :, None].expand(-1, -1, width, *encoded.shape[2:])
    log_probs = _log_probs(model, heard.flatten(0, 2), predictions.flatten(0, 2)).unflatten(0, (rows, frames, width))
    blanks = log_probs[..., blank]
    labels = log_probs[:, :, :-1].gather(3, tokens[:, None, :, None].expand(-1, frames, -1, 1))[..., 0]
    places = torch.arange(width, device=encoded.device)
    mass = torch.full((rows, width), MINUS_INFINITY, dtype=torch.double, device=encoded.device)
    mass[:, 0] = 0.0
    result = torch.full((rows,), MINUS_INFINITY, dtype=torch.double, device=encoded.device)
    for step in range(frames + width - 1):  # along the diagonals: all places that take equally many steps
        frame = step - places
        inside = (frame >= 0) & (frame < frames)
        leave = mass + torch.where(inside, blanks[:, frame.clamp(0, frames - 1), places], MINUS_INFINITY)
        ends = (frame[None] == lengths[:, None] - 1) & (places[None] == token_lengths[:, None])
        result = torch.where(ends.any(1), leave.gather(1, token_lengths[:, None])[:, 0], result)
        spelled = mass[:, :-1] + torch.where(inside[:-1], labels[:, frame[:-1].clamp(0, frames - 1), places[:-1]], MINUS_INFINITY)
        mass = torch.logaddexp(leave, torch.nn.functional.pad(spelled, (1, 0), value=MINUS_INFINITY))
    return result


def _log_probs(model: Transducer, encoded: Tensor, predicted: Tensor) -> Tensor:
    """(rows, symbols), float64."""
    log_probs = model.join(encoded, predicted).double().log_softmax(-1)
    if bool(log_probs.isnan().any()):
        raise ValueError("The transducer gave nan; the model's weights or its input are damaged.")
    return log_probs
