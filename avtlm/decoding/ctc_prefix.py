"""CTC with all alignments summed: prefix beam search, and prefix scores for joint decoding with an attention decoder.

p(g) sums all alignments that merge to g; the prefix probability psi(g) sums all whose merged sequence STARTS with g (psi of the empty
prefix is 1 if every frame is normalised). Sources: Graves et al. 2006; Hannun et al. 2014, arXiv 1408.2873 (search); Watanabe et al. 2017
(prefix scores).

Everything is float64 in the log domain with true minus infinity: sums over frames in float32 would be off by 1e-3 after 200 frames. A
difference of two log zeros is never taken.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from avtlm.decoding.align import ctc_align
from avtlm.decoding.hot_words import HotWords
from avtlm.decoding.ranking import best, check_log_probs, valid_frames
from avtlm.decoding.result import Hypothesis

MULTIPLIER = 0x2545F4914F6CDD1D  # odd; prefixes are told apart by a 64-bit polynomial hash with this base
SALT = 0x1C69B3F74AC4AE35
UNDERFLOW = -650.0  # relative log mass below which a sum of exponentials may have lost something


@torch.no_grad()
def ctc_beam(
    log_probs: Tensor, lengths: Tensor, beam: int = 10, blank: int = 0, nbest: int = 1, hot_words: HotWords | None = None
) -> list[list[Hypothesis]]:
    """The most probable label sequences, all alignments of each summed; exact as long as no prefix falls out of the beam.

    All rows advance together, and no row sees another one's padding. Ties go to prefixes that stay as they are, then to the
    better previous hypothesis, then to the smaller id.

    Args:
        log_probs: (batch, frames, symbols).
        lengths: (batch,) valid frames of each row.
        beam: prefixes kept per frame.
        blank: id of the blank.
        nbest: hypotheses returned per row, at most ``beam``.
        hot_words: their bonuses are added to the score.

    Returns:
        For every row up to ``nbest`` hypotheses, best first. Their score is log p(tokens), ``ctc`` among its components, and the bonuses,
        ``hot_words``; their times are those of the best single path.

    Raises:
        ValueError: shapes or lengths do not fit together, a valid frame holds nan, or ``nbest`` or ``beam`` is out of range.
    """
    lengths = lengths.to(log_probs.device)
    check_log_probs(log_probs, lengths)
    if not 1 <= nbest <= beam:
        raise ValueError(f"A beam of {beam} cannot give {nbest} hypotheses; ask for at least 1 and at most the beam.")
    rows, frames, symbols = log_probs.shape
    emissions = log_probs.double().masked_fill(~valid_frames(lengths, frames)[:, :, None], 0.0)
    place = torch.arange(beam, device=log_probs.device)
    minus_infinity = emissions.new_full((rows, beam), float("-inf"))
    in_blank = minus_infinity.clone()  # prefix ends in a blank (or is empty)
    in_blank[:, 0] = 0.0
    in_label = minus_infinity.clone()
    last = torch.full((rows, beam), -1, device=log_probs.device)
    identity = (place * SALT).expand(rows, beam)  # only the first is the empty prefix; the others stand for nothing and stay at log 0
    hot = None if hot_words is None else torch.full_like(place, hot_words.start).expand(rows, beam)
    bonus = torch.zeros_like(minus_infinity)  # of each prefix; no part of its mass
    sources, labels = [], []
    for frame in range(frames):
        now = emissions[:, frame]
        total = torch.logaddexp(in_blank, in_label)
        said = now.gather(1, last.clamp(min=0))  # (rows, beam): score of each prefix's own last label
        stay_blank = total + now[:, blank, None]
        stay_label = in_label + said

        grow = total[:, :, None] + now[:, None]  # (rows, beam, symbols)
        grow.scatter_(2, last.clamp(min=0)[:, :, None], (in_blank + said)[:, :, None])  # the same label again needs a blank between
        grow = torch.where((last < 0)[:, :, None], total[:, :, None] + now[:, None], grow)
        grow[:, :, blank] = float("-inf")

        # A prefix that grows into one that is in the beam already adds its mass there instead. parent i + last label of j == j?
        ends = last.clamp(min=0)[:, None].expand(rows, beam, beam)
        same = (identity[:, :, None] * MULTIPLIER + ends + 1 == identity[:, None]) & (last >= 0)[:, None]
        moved = grow.gather(2, ends).masked_fill(~same, float("-inf")).logsumexp(1)
        stay_label = torch.logaddexp(stay_label, moved)
        taken = torch.where(same, float("-inf"), float("inf")).to(grow.dtype)
        grow = grow.scatter_reduce(2, ends, taken, "amin")

        stay = torch.logaddexp(stay_blank, stay_label)
        risen = bonus[:, :, None]
        if hot_words is not None and hot is not None:
            risen = risen + hot_words.gains(hot)
            ranked = torch.cat([stay + bonus, (grow + risen).flatten(1)], 1)
        else:
            ranked = torch.cat([stay, grow.flatten(1)], 1)
        _, chosen = best(ranked, beam)
        stays = chosen < beam
        source = torch.where(stays, chosen, (chosen - beam) // symbols)
        label = torch.where(stays, -1, (chosen - beam) % symbols)
        running = (frame < lengths)[:, None]
        source = torch.where(running, source, place)
        label = torch.where(running, label, -1)
        in_blank = torch.where(running, torch.where(stays, stay_blank.gather(1, source), minus_infinity), in_blank)
        new = grow.flatten(1).gather(1, (chosen - beam).clamp(min=0))
        in_label = torch.where(running, torch.where(stays, stay_label.gather(1, source), new), in_label)
        if hot_words is not None and hot is not None:
            moved_to, before = hot.gather(1, source), bonus.gather(1, source)
            hot = torch.where(label < 0, moved_to, hot_words.after(moved_to, label.clamp(min=0)))
            new = risen.flatten(1).gather(1, (chosen - beam).clamp(min=0))
            bonus = torch.where(label < 0, before, new)
        grown = identity.gather(1, source) * MULTIPLIER + label + 1
        identity = torch.where(label < 0, identity.gather(1, source), grown)
        last = torch.where(label < 0, last.gather(1, source), label)
        sources.append(source)
        labels.append(label)

    mass = torch.logaddexp(in_blank, in_label)
    if hot_words is not None and hot is not None:
        bonus = bonus + hot_words.closing(hot)
    scores, order = best(mass + bonus, nbest)
    bonuses = bonus.gather(1, order).tolist()
    sequences = _trace_back(sources, labels, order)
    results = []
    for row, (row_scores, row_bonuses, row_sequences) in enumerate(zip(scores.tolist(), bonuses, sequences)):
        entries = zip(row_scores, row_bonuses, row_sequences)
        known = [(score, extra, tokens) for score, extra, tokens in entries if score > float("-inf")]
        own = emissions[row, : int(lengths[row])]
        hypotheses = []
        for score, extra, tokens in known or [(float("-inf"), 0.0, ())]:
            spans, means, _ = ctc_align(own, tokens, blank)
            components = {"ctc": score} if hot_words is None else {"ctc": score - extra, "hot_words": extra}
            hypotheses.append(Hypothesis(tokens, score, components, spans, means))
        results.append(hypotheses)
    return results


def _trace_back(sources: list[Tensor], labels: list[Tensor], order: Tensor) -> list[list[tuple[int, ...]]]:
    """Token sequences (rows x nbest) from the beam place and the label of every frame, followed from the last frame to the first."""
    rows, nbest = order.shape
    if not sources:
        return [[()] * nbest for _ in range(rows)]
    place, emitted = order, []
    for source, label in zip(reversed(sources), reversed(labels)):
        emitted.append(label.gather(1, place))
        place = source.gather(1, place)
    table = torch.stack(emitted[::-1], 2).tolist()
    return [[tuple(label for label in sequence if label >= 0) for sequence in row] for row in table]


@dataclass
class PrefixState:
    """Hypotheses of joint decoding on the CTC side.

    Args:
        rows: (hypotheses,) the utterance of each. last: (hypotheses,) last label, -1 for the empty prefix. in_label, in_blank: (hypotheses,
        frames) log mass of the alignments of the frames up to each one that merge to the prefix and end in a
            label or in a blank.
        psi: (hypotheses,) log prefix probability.
    """

    rows: Tensor
    last: Tensor
    in_label: Tensor
    in_blank: Tensor
    psi: Tensor

    def complete(self) -> Tensor:
        """(hypotheses,) log p(prefix): the prefix and nothing more."""
        if self.in_blank.shape[1] == 0:
            return torch.where(self.last < 0, 0.0, float("-inf")).to(self.psi.dtype)
        return torch.logaddexp(self.in_label[:, -1], self.in_blank[:, -1])


class PrefixScorer:
    """log psi of prefixes that grow label by label, for many hypotheses of many utterances at once.

    Padded frames count as certain blanks, so that they change nothing. No loop over frames is needed: psi is a product of matrices
    (alignments before a frame x posteriors of that frame), the forward variables are cumulative sums in the log domain.

    Args:
        log_probs: (batch, frames, symbols).
        lengths: (batch,) valid frames of each row.
        blank: id of the blank.

    Raises:
        ValueError: shapes or lengths do not fit together, or a valid frame holds nan.
    """

    def __init__(self, log_probs: Tensor, lengths: Tensor, blank: int = 0) -> None:
        lengths = lengths.to(log_probs.device)
        check_log_probs(log_probs, lengths)
        self.blank, self.symbols, self.lengths = blank, log_probs.shape[2], lengths
        self._log_probs = log_probs
        self._valid = valid_frames(lengths, log_probs.shape[1])
        mass = log_probs.double().logsumexp(2).masked_fill(~self._valid, 0.0)
        after = mass.flip(1).cumsum(1).flip(1)  # (batch, frames): log mass of all that can come from each frame on
        self._whole = after[:, 0] if mass.shape[1] else mass.new_zeros(len(mass))
        self._after = torch.cat([after[:, 1:], mass.new_zeros(len(mass), 1)], 1)[:, : mass.shape[1]]
        # (batch, symbols, frames), so that the posteriors of a label lie side by side
        self._posteriors = log_probs.transpose(1, 2).double().exp().masked_fill_(~self._valid[:, None], 0.0).contiguous()

    def start(self, rows: Tensor) -> PrefixState:
        """One empty prefix for every entry of ``rows`` (hypotheses,), which names its utterance."""
        blanks = self._emissions(rows, torch.full_like(rows, self.blank)).cumsum(1)
        return PrefixState(rows, torch.full_like(rows, -1), torch.full_like(blanks, float("-inf")), blanks, self._whole[rows])

    def psi(self, state: PrefixState, candidates: Tensor | None = None) -> Tensor:
        """log psi of every prefix with one more label.

        Args:
            state: the prefixes.
            candidates: (hypotheses, labels) ids to try; every id if None.

        Returns:
            (hypotheses, labels); minus infinity for the blank. ``state.psi`` taken from it is the score of the label in joint decoding, and
            ``state.complete() - state.psi`` is that of the end of the sentence; drop prefixes whose psi is minus infinity first.
        """
        if candidates is None:
            candidates = torch.arange(self.symbols, device=state.rows.device).expand(len(state.rows), -1)
            pieces = [(self._posteriors[row], state.rows == row) for row in state.rows.unique().tolist()]

            def multiply(weights: Tensor) -> Tensor:
                out = weights.new_zeros(len(weights), self.symbols)
                for posteriors, own in pieces:
                    out[own] = weights[own] @ posteriors.T
                return out
        else:
            chosen = self._posteriors[state.rows[:, None], candidates]  # (hypotheses, labels, frames)

            def multiply(weights: Tensor) -> Tensor:
                return (chosen @ weights[:, :, None])[:, :, 0]

        after = self._after[state.rows]
        any_end = self._before(state, torch.logaddexp(state.in_label, state.in_blank)) + after
        scores = _log_product(any_end, multiply)
        repeated = candidates == state.last[:, None]
        if bool(repeated.any()):  # the same label again needs a blank between
            last = self._emissions(state.rows, state.last.clamp(min=0))
            again = (self._before(state, state.in_blank) + after + last).logsumexp(1)
            scores = torch.where(repeated, again[:, None], scores)
        scores = scores.masked_fill(candidates == self.blank, float("-inf"))
        largest = any_end.amax(1, keepdim=True) if any_end.shape[1] else any_end.new_full((len(any_end), 1), float("-inf"))
        lost = (scores < largest + UNDERFLOW) & (candidates != self.blank) & ~repeated
        if bool(lost.any()):
            places, labels = lost.nonzero(as_tuple=True)
            emissions = self._emissions(state.rows[places], candidates[places, labels])
            scores[places, labels] = (any_end[places] + emissions).logsumexp(1)
        return scores

    def following(self, state: PrefixState, end: int, candidates: Tensor | None = None) -> Tensor:
        """The scores of joint decoding: log psi(prefix + label) - log psi(prefix), and for ``end`` that of the prefix being all.

        Args:
            end: id of the end of the sentence; it is no label to CTC.
            candidates: (hypotheses, labels) ids to score; every id if None.

        Returns:
            (hypotheses, labels); minus infinity for the blank and wherever nothing is possible.
        """
        scores = self.psi(state, candidates)
        ids = candidates if candidates is not None else torch.arange(self.symbols, device=scores.device)[None]
        scores = torch.where(ids == end, state.complete()[:, None], scores)
        possible = (state.psi > float("-inf"))[:, None] & (scores > float("-inf"))
        return torch.where(possible, scores - state.psi[:, None], float("-inf"))

    def advance(self, state: PrefixState, hypotheses: Tensor, labels: Tensor) -> PrefixState:
        """Prefixes ``hypotheses`` (chosen,), each grown by its own of ``labels`` (chosen,), none of them a blank."""
        rows, last = state.rows[hypotheses], state.last[hypotheses]
        in_label, in_blank = state.in_label[hypotheses], state.in_blank[hypotheses]
        kept = PrefixState(rows, last, in_label, in_blank, state.psi[hypotheses])
        ends = torch.where((last == labels)[:, None], in_blank, torch.logaddexp(in_label, in_blank))
        before = self._before(kept, ends)
        label = self._emissions(rows, labels)
        blank = self._emissions(rows, torch.full_like(rows, self.blank))
        psi = (before + label + self._after[rows]).logsumexp(1)
        if not before.shape[1]:
            return PrefixState(rows, labels, in_label, in_blank, torch.full_like(psi, float("-inf")))
        valid = self._valid[rows]
        if bool((label.isfinite() | ~valid).all()) and bool(blank.isfinite().all()):
            grown_label, grown_blank = _scan(before, label.masked_fill(~valid, 0.0), blank, valid)
        else:
            grown_label, grown_blank = _loop(before, label, blank)
        return PrefixState(rows, labels, grown_label, grown_blank, psi)

    def _emissions(self, rows: Tensor, labels: Tensor) -> Tensor:
        """(hypotheses, frames): log-probability of each hypothesis' own label at every frame; of padded frames, certain blanks."""
        found = self._log_probs[rows, :, labels].double()
        padded = torch.where(labels == self.blank, 0.0, float("-inf")).to(found.dtype)
        return torch.where(self._valid[rows], found, padded[:, None])

    def _before(self, state: PrefixState, ends: Tensor) -> Tensor:
        """(hypotheses, frames): log mass of the alignments of all earlier frames after which a new label may begin at each frame.

        ``ends`` (hypotheses, frames) is the mass of the alignments up to and with each frame.
        """
        at_first = torch.where(state.last < 0, 0.0, float("-inf")).to(ends.dtype)[:, None]
        return torch.cat([at_first, ends], 1)[:, : ends.shape[1]]


def _log_product(logs: Tensor, multiply: Callable[[Tensor], Tensor]) -> Tensor:
    """log(exp(logs) @ factors), (hypotheses, frames) -> (hypotheses, labels); minus infinity stays minus infinity."""
    if not logs.shape[1]:
        return multiply(logs).fill_(float("-inf"))
    largest = logs.amax(1, keepdim=True)
    largest = largest.masked_fill(largest == float("-inf"), 0.0)
    return multiply((logs - largest).exp()).log() + largest


def _scan(before: Tensor, label: Tensor, blank: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    """Forward variables of grown prefixes, all (hypotheses, frames); label and blank are finite."""
    first = before.new_full((len(before), 1), float("-inf"))
    path = label.cumsum(1)  # staying in the label up to each frame
    in_label = path + (before - torch.cat([torch.zeros_like(first), path[:, :-1]], 1)).logcumsumexp(1)
    in_label = in_label.masked_fill(~valid, float("-inf"))
    path = blank.cumsum(1)
    in_blank = path + torch.cat([first, in_label[:, :-1] - path[:, :-1]], 1).logcumsumexp(1)
    return in_label, in_blank


def _loop(before: Tensor, label: Tensor, blank: Tensor) -> tuple[Tensor, Tensor]:
    """The same where a probability is 0: a cumulative sum cannot leave minus infinity again."""
    in_label, in_blank = torch.full_like(label, float("-inf")), torch.full_like(label, float("-inf"))
    for frame in range(label.shape[1]):
        entering = before[:, frame]
        if frame:
            in_blank[:, frame] = torch.logaddexp(in_label[:, frame - 1], in_blank[:, frame - 1]) + blank[:, frame]
            entering = torch.logaddexp(in_label[:, frame - 1], entering)
        in_label[:, frame] = entering + label[:, frame]
    return in_label, in_blank
