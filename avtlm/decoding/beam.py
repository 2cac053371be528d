"""Beam search for attention decoders, by the rules of fairseq's sequence generator, for a whole batch at once.

Every step scores all continuations of ``beam`` hypotheses, keeps the best 2 x beam, finishes those among the first ``beam`` that end in
``</s>``, and goes on with the best ``beam`` others. An utterance is done when ``beam`` hypotheses are finished (not when the best one can
no longer be beaten) or at its length limit, where ``</s>`` is forced; it then leaves the batch. What differs from fairseq: the limit
follows each utterance's own length and not the longest one's of the batch, ties are broken in a fixed way, so that a transcript never
depends on its batch, and a beam may be wider than the vocabulary.

SpeechT5 and SpeechUT bring CTC in at every step, each in its own way (`CONVENTIONS`). ESPnet's search is another one: joint.py.
"""

import math
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor

from avtlm.decoding.hot_words import HotWords
from avtlm.decoding.next_tokens import NextTokens, StepDecoder, StepLanguageModel, forbid_early_ends, forbid_repeats
from avtlm.decoding.ranking import best
from avtlm.decoding.result import Hypothesis
from avtlm.nn.transformer import Memory
from avtlm.text.vocabulary import BLANK, EOS, PAD, UNKNOWN

Convention = Literal["fairseq", "speecht5", "speechut"]
# What else a generator does. ``speechut``: only so many of the decoder's best tokens, min(4 x beam, 33), can follow, with
# (1 - w) attention + w CTC; from as many tokens on as there are frames, CTC is silent and the decoder alone decides. ``speecht5``: 7 x beam
# tokens are scored in this way, and all others keep the decoder's whole score; the language model may lack the last ids. Both never write
# the blank, SpeechUT neither its start symbol, unless that is ``</s>``.
CONVENTIONS = {"fairseq": (0, 0), "speecht5": (7, math.inf), "speechut": (4, 33)}


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
        (0) in OFA's. convention: see CONVENTIONS. ctc_weight: CTC's share w, for speecht5 and speechut. blank: CTC's. never: ids that are
        never written, such as mask symbols. end_threshold: see next_tokens.forbid_early_ends; None has no such rule.
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
    convention: Convention = "fairseq"
    ctc_weight: float = 0.0
    blank: int = BLANK
    never: tuple[int, ...] = ()
    end_threshold: float | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.nbest <= self.beam:
            raise ValueError(f"beam {self.beam} and nbest {self.nbest}: give a beam of at least 1, and nbest from 1 to the beam.")
        if self.temperature <= 0:
            raise ValueError(f"temperature {self.temperature}: give a positive number; 1 leaves the logits as they are.")
        if self.max_len is not None and self.max_len < 0:
            raise ValueError(f"max_len {self.max_len}: give 0 or more tokens, or None.")
        if min(self.min_len, self.max_len_a, self.max_len_b, self.no_repeat_ngram, self.start) < 0:
            raise ValueError("min_len, max_len_a, max_len_b, no_repeat_ngram and start cannot be negative.")
        if self.convention not in CONVENTIONS:
            raise ValueError(f"convention {self.convention!r}: choose {', '.join(CONVENTIONS)}, or joint_beam for ESPnet's.")
        if not 0.0 <= self.ctc_weight <= 1.0 or (self.ctc_weight and self.convention == "fairseq"):
            raise ValueError(
                f"ctc_weight {self.ctc_weight} for {self.convention}: give a share from 0 to 1, above 0 for speecht5 and speechut only."
            )

    def forbidden(self) -> list[int]:
        """Ids that cannot be written at any place."""
        silent = [] if self.convention == "fairseq" else [self.blank]
        started = [self.start] if self.convention == "speechut" and self.start != EOS else []
        return [PAD, *self.never, *silent, *started]


@dataclass
class _Beams:
    """Running hypotheses of the utterances that are not done: A utterances x W hypotheses, of L tokens each with the start symbol."""

    owners: list[int]  # A: rows of the batch
    tokens: Tensor  # (A, W, L)
    totals: Tensor  # (A, W, L): sums of scores up to each token; 0 at the start symbol, minus infinity in places not in use
    parts: dict[str, Tensor]  # (A, W) each: sums of what every model said, unweighted

    def grow(self, kept: Tensor, source: Tensor, token: Tensor, total: Tensor, parts: dict[str, Tensor]) -> "_Beams":
        """The utterances ``kept`` (indices), each hypothesis ``source`` (A, W) of them with its next ``token``."""
        past = source[kept][:, :, None].expand(-1, -1, self.tokens.shape[2])
        return _Beams(
            [self.owners[index] for index in kept.tolist()],
            torch.cat([self.tokens[kept].gather(1, past), token[kept][:, :, None]], 2),
            torch.cat([self.totals[kept].gather(1, past), total[kept][:, :, None]], 2),
            {name: part[kept] for name, part in parts.items()},
        )


@torch.no_grad()
def attention_beam(
    decoder: StepDecoder,
    encoded: Tensor,
    lengths: Tensor,
    options: BeamOptions | None = None,
    language_model: StepLanguageModel | None = None,
    ctc_log_probs: Tensor | None = None,
    hot_words: HotWords | None = None,
    ctc_lengths: Tensor | None = None,
) -> list[list[Hypothesis]]:
    """The n-best lists of a batch, best first.

    The score of a hypothesis is the sum of its tokens' scores, ``</s>`` included, divided as the options say. Its components are
    ``attention``, ``lm``, ``ctc`` and ``hot_words`` (sums, unweighted) and ``end`` (the part of the score that ``</s>`` brought). An
    utterance without memory gets the empty hypothesis.



    Args:
        decoder: in evaluation mode.
        encoded: (batch, frames, dim), the encoder's output.
        lengths: (batch,) valid frames of each row; they limit the length of the text.
        options: `BeamOptions`.
        language_model: adds to the scores; over the decoder's vocabulary.
        ctc_log_probs: (batch, frames, vocabulary) of the same frames; needed for a ctc_weight above 0.
        hot_words: their bonuses are added to the scores.
        ctc_lengths: (batch,) valid frames of CTC where it has others.

    Raises:
        ValueError: the decoder gives nan, which means damaged weights or input; vocabularies differ; ctc_weight without CTC.
    """
    options = options or BeamOptions()
    width, device = options.beam, encoded.device
    if options.ctc_weight and ctc_log_probs is None:
        raise ValueError(f"ctc_weight {options.ctc_weight}: joint decoding needs CTC's log-probabilities; give them, or set it to 0.")
    frames = lengths.tolist()
    ctc_frames = frames if ctc_lengths is None else ctc_lengths.tolist()
    limits = [int(options.max_len_a * length + options.max_len_b) for length in frames]
    if options.max_len is not None:
        limits = [min(limit, options.max_len) for limit in limits]
    finished: list[list[Hypothesis]] = [[] if length > 0 else [Hypothesis((), 0.0, {"attention": 0.0})] for length in frames]
    owners = [row for row, length in enumerate(frames) if length > 0]
    if owners:
        rows = torch.tensor(owners, device=device)
        ctc = ctc_log_probs[rows] if ctc_log_probs is not None and options.ctc_weight else None
        smaller = options.convention == "speecht5"
        own = None if ctc_lengths is None else ctc_lengths.to(device)[rows]
        others = (language_model, ctc, options.blank, smaller, hot_words, options.forbidden(), own)
        models = NextTokens(decoder, encoded[rows], lengths.to(device)[rows], width, *others)
        if width == 1 and isinstance(models.memory, Memory):
            models.memory = models.memory.heads_first()
        totals = torch.full((len(owners), width, 1), float("-inf"), device=device)
        totals[:, 0] = 0.0  # the first step grows one hypothesis only: all are the same
        heard = {"attention": True, "lm": language_model is not None, "ctc": ctc is not None, "hot_words": hot_words is not None}
        parts = {name: torch.zeros(len(owners), width, device=device) for name, there in heard.items() if there}
        beams = _Beams(owners, torch.full((len(owners), width, 1), options.start, device=device), totals, parts)
        step = 0
        while beams.owners:
            said, scores = _score(models, beams, step, [ctc_frames[owner] for owner in beams.owners], options)
            _constrain(scores, said["attention"], beams.tokens, step, [step >= limits[owner] for owner in beams.owners], options)
            vocabulary = scores.shape[-1]
            flat = (beams.totals[:, :, -1:] + scores).flatten(1)
            total, chosen = best(flat, min(2 * width, flat.shape[1]))
            source, token = chosen // vocabulary, chosen % vocabulary
            parts = {name: part.gather(1, source) + said[name].flatten(1).gather(1, chosen) for name, part in beams.parts.items()}

            _finish(finished, beams, source, token, total, parts, options)
            done = [len(finished[owner]) == width or step >= limits[owner] for owner in beams.owners]
            kept = torch.tensor([index for index, gone in enumerate(done) if not gone], dtype=torch.long, device=device)
            # every hypothesis has one </s> at most among the 2 x beam candidates, so at least beam others are there
            places = torch.arange(chosen.shape[1], device=device) + (token == EOS) * chosen.shape[1]
            active = places.topk(width, 1, largest=False).indices
            source, token, total = (part.gather(1, active) for part in (source, token, total))
            moved = (torch.arange(len(done), device=device)[:, None] * width + source)[kept].flatten()
            beams = beams.grow(kept, source, token, total, {name: part.gather(1, active) for name, part in parts.items()})
            if beams.owners:
                models.keep(moved, beams.tokens[:, :, -1].flatten(), kept if any(done) else None)
            step += 1
    ranked = [sorted(hypotheses, key=lambda hypothesis: -hypothesis.score)[: options.nbest] for hypotheses in finished]
    return [hypotheses or [Hypothesis((), float("-inf"), {"attention": float("-inf")})] for hypotheses in ranked]


def _score(models: NextTokens, beams: _Beams, step: int, frames: list[int], options: BeamOptions) -> tuple[dict[str, Tensor], Tensor]:
    """What every model says of the next token, and all of it weighted: (A, W, V) each; ``frames`` are CTC's, of A utterances."""
    width = beams.tokens.shape[1]
    attention, language, bonus = models.step(beams.tokens[:, :, -1].flatten(), options.temperature)
    assert attention is not None
    said = {"attention": attention}
    scores = attention.clone()
    if models.ctc is not None and models.prefixes is not None:
        factor, most = CONVENTIONS[options.convention]
        count = min(int(min(factor * options.beam, most)), attention.shape[-1] - len(set(options.forbidden()) - {PAD}))
        choice = attention.clone()
        choice[:, [index for index in options.forbidden() if index != PAD]] = float("-inf")
        candidates = best(choice, count)[1]
        heard = models.ctc.following(models.prefixes, EOS, candidates).float()
        mixed = (1 - options.ctc_weight) * attention.gather(1, candidates) + options.ctc_weight * heard
        joint = (scores if options.convention == "speecht5" else torch.full_like(scores, float("-inf"))).scatter(1, candidates, mixed)
        if options.convention == "speechut":
            over = torch.tensor(frames, device=scores.device).repeat_interleave(width) <= step
            joint = torch.where(over[:, None], scores, joint)
        scores = joint
        said["ctc"] = torch.zeros_like(attention).scatter(1, candidates, heard)
    if language is not None:
        said["lm"] = language
        scores = scores + options.lm_weight * said["lm"]
    if bonus is not None:
        said["hot_words"] = bonus.to(scores.dtype)
        scores = scores + said["hot_words"]
    return {name: part.unflatten(0, (-1, width)) for name, part in said.items()}, scores.unflatten(0, (-1, width))


def _constrain(scores: Tensor, attention: Tensor, tokens: Tensor, step: int, at_limit: list[bool], options: BeamOptions) -> None:
    """Forbid, in place, what may not come next. scores, attention (A, W, V); tokens (A, W, L); at_limit (A,)."""
    scores[..., options.forbidden()] = float("-inf")
    if options.unk_penalty and scores.shape[-1] > UNKNOWN:
        scores[..., UNKNOWN] -= options.unk_penalty
    ends = scores[..., EOS].clone()
    if options.no_repeat_ngram:
        scores.copy_(forbid_repeats(scores, tokens[..., 1:], options.no_repeat_ngram, EOS))  # the start symbol is no part of the text
    if options.end_threshold is not None:
        scores.copy_(forbid_early_ends(scores, attention, options.end_threshold, EOS))
    if step < options.min_len:
        scores[..., EOS] = float("-inf")
    for index in [index for index, ending in enumerate(at_limit) if ending]:
        scores[index] = float("-inf")
        scores[index, :, EOS] = ends[index]


def _finish(
    finished: list[list[Hypothesis]],
    beams: _Beams,
    source: Tensor,
    token: Tensor,
    total: Tensor,
    parts: dict[str, Tensor],
    options: BeamOptions,
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
        components = {name: float(part[index, place]) for name, part in parts.items()}
        hypotheses.append(
            Hypothesis(
                tuple(tokens[index, parent, 1:].tolist()),
                score / length**options.length_penalty if options.normalize else score,
                components | {"end": score - sums[-1]},
                token_scores=tuple(after - before for before, after in pairwise(sums)),
            )
        )
