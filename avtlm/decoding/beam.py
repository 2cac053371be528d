"""Beam search for attention decoders, by the rules of fairseq's sequence generator, for a whole batch at once.

Every step scores all continuations of ``beam`` hypotheses, keeps the best 2 x beam, finishes those among the first ``beam`` that end in
``</s>``, and goes on with the best ``beam`` others. An utterance is done when ``beam`` hypotheses are finished (not when the best one can
no longer be beaten) or at its length limit, where ``</s>`` is forced; it then leaves the batch. What differs from fairseq: the limit
follows each utterance's own length and not the longest one's of the batch, and ties are broken in a fixed way, so that a transcript never
depends on its batch.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Protocol

import torch
from torch import Tensor

from avtlm.decoding.ranking import best
from avtlm.decoding.result import Hypothesis
from avtlm.text.vocabulary import EOS, PAD, UNKNOWN


class StepDecoder(Protocol):
    """A decoder that goes token by token and keeps what it knows in a state with ``reorder(rows) -> state``."""

    def project_memory(self, encoded: Tensor, lengths: Tensor) -> Any:
        """encoded (rows, frames, dim), lengths (rows,) -> what the decoder attends to, with ``select(rows)``: rows again, in any order."""

    def initial_state(self, batch: int) -> Any: ...

    def step(self, tokens: Tensor, memory: Any, state: Any) -> tuple[Tensor, Any]:
        """tokens (rows,) -> logits (rows, vocabulary) of the next token, and the new state."""


class StepLanguageModel(Protocol):
    """A language model over the same vocabulary, like a decoder without memory."""

    def initial_state(self, batch: int) -> Any: ...

    def step(self, tokens: Tensor, state: Any) -> tuple[Tensor, Any]:
        """tokens (rows,) -> logits (rows, vocabulary) of the next token, and the new state."""


@dataclass(frozen=True)
class BeamOptions:
    """How to search. The defaults are those of AV-HuBERT and VATLM except for the beam (theirs is 50).

    Args:
        beam: hypotheses kept per utterance. nbest: hypotheses returned per utterance, at most ``beam``. length_penalty: scores are divided
        by (length with ``</s>``) ** length_penalty (fairseq's lenpen); 1 is the mean, more favours long sentences. normalize: False leaves
        scores undivided. min_len: ``</s>`` is forbidden before this many tokens. max_len_a, max_len_b: at most int(max_len_a * frames +
        max_len_b) tokens before ``</s>``, and never more than max_len. no_repeat_ngram: no sequence of this many tokens comes twice; 0 for
        no such rule. unk_penalty: taken from the score of every ``<unk>``. temperature: divides the logits. lm_weight: log-probabilities of
        the language model are added with this weight. start: the first token the decoder sees: ``</s>`` (2) in fairseq's recipes, ``<s>``
        (0) in OFA's.
    """

    beam: int = 5
    nbest: int = 1
    length_penalty: float = 1.0
    normalize: bool = True
    min_len: int = 1
    max_len_a: float = 1.0
    max_len_b: float = 0.0
    max_len: int | None = None
    no_repeat_ngram: int = 0
    unk_penalty: float = 0.0
    temperature: float = 1.0
    lm_weight: float = 0.0
    start: int = EOS

    def __post_init__(self) -> None:
        if not 1 <= self.nbest <= self.beam:
            raise ValueError(f"beam {self.beam} and nbest {self.nbest}: give a beam of at least 1, and nbest from 1 to the beam.")
        if self.temperature <= 0:
            raise ValueError(f"temperature {self.temperature}: give a positive number; 1 leaves the logits as they are.")
        if self.max_len is not None and self.max_len < 0:
            raise ValueError(f"max_len {self.max_len}: give 0 or more tokens, or None.")
        if min(self.min_len, self.max_len_a, self.max_len_b, self.no_repeat_ngram, self.start) < 0:
            raise ValueError("min_len, max_len_a, max_len_b, no_repeat_ngram and start cannot be negative.")


@dataclass
class _Beams:
    """Running hypotheses of the utterances that are not done: A utterances x W hypotheses, of L tokens each with the start symbol."""

    owners: list[int]  # A: rows of the batch
    tokens: Tensor  # (A, W, L)
    totals: Tensor  # (A, W, L): sums of scores up to each token; 0 at the start symbol, minus infinity in places not in use
    attention: Tensor  # (A, W): sums of the decoder's own log-probabilities
    language: Tensor  # (A, W): sums of the language model's log-probabilities, unweighted

    def grow(self, kept: Tensor, source: Tensor, token: Tensor, total: Tensor, attention: Tensor, language: Tensor) -> "_Beams":
        """The utterances ``kept`` (indices), each hypothesis ``source`` (A, W) of them with its next ``token``."""
        past = source[kept][:, :, None].expand(-1, -1, self.tokens.shape[2])
        return _Beams(
            [self.owners[index] for index in kept.tolist()],
            torch.cat([self.tokens[kept].gather(1, past), token[kept][:, :, None]], 2),
            torch.cat([self.totals[kept].gather(1, past), total[kept][:, :, None]], 2),
            attention[kept],
            language[kept],
        )


@torch.no_grad()
def attention_beam(
    decoder: StepDecoder,
    encoded: Tensor,
    lengths: Tensor,
    options: BeamOptions | None = None,
    language_model: StepLanguageModel | None = None,
) -> list[list[Hypothesis]]:
    """The n-best lists of a batch, best first.

    The score of a hypothesis is the sum of its tokens' scores, ``</s>`` included, divided as the options say. Its components are
    ``attention`` and ``lm`` (sums, unweighted) and ``end`` (the part of the score that ``</s>`` brought). An utterance without memory gets
    the empty hypothesis.

    Args:
        decoder: in evaluation mode.
        encoded: (batch, frames, dim), the encoder's output.
        lengths: (batch,) valid frames of each row; they limit the length of the text.
        options: `BeamOptions`.
        language_model: adds to the scores; over the decoder's vocabulary.

    Raises:
        ValueError: the decoder gives nan, which means damaged weights or input.
    """
    options = options or BeamOptions()
    width, device = options.beam, encoded.device
    frames = lengths.tolist()
    limits = [int(options.max_len_a * length + options.max_len_b) for length in frames]
    if options.max_len is not None:
        limits = [min(limit, options.max_len) for limit in limits]
    finished: list[list[Hypothesis]] = [[] if length > 0 else [Hypothesis((), 0.0, {"attention": 0.0})] for length in frames]
    owners = [row for row, length in enumerate(frames) if length > 0]
    if owners:
        rows = torch.tensor(owners, device=device)
        memory = decoder.project_memory(encoded[rows], lengths.to(device)[rows])
        memory = memory.select(torch.arange(len(owners), device=device).repeat_interleave(width))
        state = decoder.initial_state(len(owners) * width)
        lm_state = language_model.initial_state(len(owners) * width) if language_model is not None else None
        totals = torch.full((len(owners), width, 1), float("-inf"), device=device)
        totals[:, 0] = 0.0  # the first step grows one hypothesis only: all are the same
        nothing = torch.zeros(len(owners), width, device=device)
        beams = _Beams(owners, torch.full((len(owners), width, 1), options.start, device=device), totals, nothing, nothing)
        step = 0
        while beams.owners:
            last = beams.tokens[:, :, -1].flatten()
            logits, state = decoder.step(last, memory, state)
            if bool(logits.isnan().any()):
                raise ValueError(f"The decoder gave nan at token {step + 1}; the model's weights or its input are damaged.")
            scores = (logits.float() / options.temperature).log_softmax(-1).unflatten(0, (-1, width))  # (A, W, V)
            attention, language = beams.attention[:, :, None] + scores, beams.language[:, :, None]
            if language_model is not None:
                lm_logits, lm_state = language_model.step(last, lm_state)
                lm_scores = lm_logits.float().log_softmax(-1).unflatten(0, (-1, width))
                scores, language = scores + options.lm_weight * lm_scores, language + lm_scores
            at_limit = torch.tensor([step >= limits[owner] for owner in beams.owners], device=device)
            scores = _constrain(scores, beams.tokens, step, at_limit, options)
            vocabulary = scores.shape[-1]
            flat = (beams.totals[:, :, -1:] + scores).flatten(1)
            total, chosen = best(flat, min(2 * width, flat.shape[1]))
            source, token = chosen // vocabulary, chosen % vocabulary
            attention = attention.flatten(1).gather(1, chosen)
            language = language.expand(-1, -1, vocabulary).flatten(1).gather(1, chosen)

            _finish(finished, beams, source, token, total, attention, language, options, language_model is not None)
            done = [len(finished[owner]) == width or step >= limits[owner] for owner in beams.owners]
            kept = torch.tensor([index for index, gone in enumerate(done) if not gone], dtype=torch.long, device=device)
            # every hypothesis has one </s> at most among the 2 x beam candidates, so at least beam others are there
            places = torch.arange(chosen.shape[1], device=device) + (token == EOS) * chosen.shape[1]
            active = places.topk(width, 1, largest=False).indices
            source = source.gather(1, active)
            moved = (torch.arange(len(done), device=device)[:, None] * width + source)[kept].flatten()
            beams = beams.grow(kept, source, *(part.gather(1, active) for part in (token, total, attention, language)))
            if beams.owners:
                state = state.reorder(moved)
                lm_state = lm_state.reorder(moved) if lm_state is not None else None
                memory = memory.select(moved) if any(done) else memory
            step += 1
    ranked = [sorted(hypotheses, key=lambda hypothesis: -hypothesis.score)[: options.nbest] for hypotheses in finished]
    return [hypotheses or [Hypothesis((), float("-inf"), {"attention": float("-inf")})] for hypotheses in ranked]


def _constrain(scores: Tensor, tokens: Tensor, step: int, at_limit: Tensor, options: BeamOptions) -> Tensor:
    """Forbid what may not come next. scores (A, W, V); tokens (A, W, L); at_limit (A,)."""
    scores = scores.clone()
    scores[..., PAD] = float("-inf")
    if scores.shape[-1] > UNKNOWN:
        scores[..., UNKNOWN] -= options.unk_penalty
    ending = torch.full_like(scores, float("-inf"))
    ending[..., EOS] = scores[..., EOS]
    said = tokens[..., 1:]  # the start symbol is no part of the text
    if options.no_repeat_ngram and said.shape[-1] >= options.no_repeat_ngram:
        windows = said.unfold(2, options.no_repeat_ngram, 1)  # (A, W, windows, n)
        tail = said[:, :, None, said.shape[-1] - options.no_repeat_ngram + 1 :]
        repeats = (windows[..., :-1] == tail).all(-1) & (windows[..., -1] != EOS)
        banned = torch.where(repeats, float("-inf"), float("inf")).to(scores.dtype)
        scores = scores.scatter_reduce(2, windows[..., -1], banned, "amin")
    if step < options.min_len:
        scores[..., EOS] = float("-inf")
    return torch.where(at_limit[:, None, None], ending, scores)


def _finish(
    finished: list[list[Hypothesis]],
    beams: _Beams,
    source: Tensor,
    token: Tensor,
    total: Tensor,
    attention: Tensor,
    language: Tensor,
    options: BeamOptions,
    with_language_model: bool,
) -> None:
    """Move candidates (A, 2W) that end among the first W of their utterance to ``finished``, as long as it holds fewer than W."""
    width = options.beam
    ends = ((token == EOS) & (total > float("-inf")))[:, :width].nonzero().tolist()
    if not ends:
        return
    tokens, totals = beams.tokens.cpu(), beams.totals.cpu()
    length = tokens.shape[2]  # tokens with </s> in place of the start symbol
    for index, place in ends:
        hypotheses = finished[beams.owners[index]]
        if len(hypotheses) == width:
            continue
        parent, score = int(source[index, place]), float(total[index, place])
        sums = totals[index, parent].tolist()
        components = {"attention": float(attention[index, place]), "end": score - sums[-1]}
        if with_language_model:
            components["lm"] = float(language[index, place])
        hypotheses.append(
            Hypothesis(
                tuple(tokens[index, parent, 1:].tolist()),
                score / length**options.length_penalty if options.normalize else score,
                components,
                token_scores=tuple(after - before for before, after in pairwise(sums)),
            )
        )
