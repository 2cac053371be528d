"""Joint CTC/attention beam search in one pass, by the rules of ESPnet, for a whole batch at once.

    score(g c) = score(g) + (1 - w) log p_attention(c | g) + w (log psi(g c) - log psi(g)) + w_lm log p_lm(c | g) + w_length

What is unusual here:
- Hypotheses that end leave the beam, and nothing takes their places: it shrinks, and the search ends with it. Scores are sums, not divided
  by the length.
- Only tokens that the decoder (or all models but CTC) ranks high get a CTC score, and only they can follow; the end always can.
- Without a length limit the search also ends when three lengths in a row have brought nothing within e^-10 of the best (Watanabe et al.
  2017, equation 50). At the limit every hypothesis ends as it is, and no end is scored.
- A hypothesis that CTC finds impossible is dropped. ESPnet writes -1e10 for log 0, and such a hypothesis would go on at no cost.

Source: Watanabe et al., "Hybrid CTC/attention architecture for end-to-end speech recognition" (IEEE JSTSP 2017); ESPnet's BatchBeamSearch,
which auto_avsr (2303.14307) uses.
"""

from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor

from avtlm.decoding.hot_words import HotWords
from avtlm.decoding.next_tokens import NextTokens, StepDecoder, StepLanguageModel, forbid_early_ends, forbid_repeats
from avtlm.decoding.ranking import best
from avtlm.decoding.result import Hypothesis
from avtlm.text.vocabulary import BLANK, EOS, PAD

LENGTHS = 3  # so many lengths in a row
GAP = -10.0  # this much worse than the best end the search


@dataclass(frozen=True)
class JointOptions:
    """How to search. The defaults are those of auto_avsr.

    Args:
        beam: hypotheses kept per utterance, at most the vocabulary. nbest: hypotheses returned per utterance. ctc_weight: w, from 0 (CTC is
        not asked) to 1 (the decoder is not asked). lm_weight, length_bonus: w_lm, w_length; the latter for every token, the end included.
        pre_beam: ``decoder`` or ``full`` (decoder, language model and bonus): whose best int(pre_beam_ratio * beam) tokens CTC scores; None
        lets it score all. max_len_ratio: at most this many tokens a frame, the end included; 0 for as many as frames, with a search that
        may end before; a negative number is the limit itself. max_len_extra: so many tokens more than max_len_ratio says. max_len: never
        more tokens than this. min_len: no end before this many tokens. no_repeat_ngram: no sequence of this many tokens comes twice; 0 for
        no such rule. end_threshold: see next_tokens.forbid_early_ends; None has no such rule. length_penalty: rank what has ended by score
        / (length with the end) ** length_penalty. start, end, blank: ids. never: ids that are never written.
    """

    beam: int = 40
    nbest: int = 1
    ctc_weight: float = 0.1
    lm_weight: float = 0.0
    length_bonus: float = 0.0
    pre_beam: Literal["decoder", "full"] | None = "decoder"
    pre_beam_ratio: float = 1.5
    max_len_ratio: float = 0.0
    max_len_extra: float = 0.0
    max_len: int | None = None
    min_len: int = 0
    no_repeat_ngram: int = 0
    end_threshold: float | None = None
    length_penalty: float = 0.0
    start: int = EOS
    end: int = EOS
    blank: int = BLANK
    never: tuple[int, ...] = (PAD,)

    def __post_init__(self) -> None:
        if min(self.beam, self.nbest) < 1:
            raise ValueError(f"beam {self.beam} and nbest {self.nbest}: give at least 1 for both.")
        if not 0.0 <= self.ctc_weight <= 1.0:
            raise ValueError(f"ctc_weight {self.ctc_weight}: give a share from 0 (attention only) to 1 (CTC only).")
        if self.pre_beam_ratio < 1.0 or self.pre_beam not in ("decoder", "full", None):
            raise ValueError(
                f"pre_beam {self.pre_beam} and pre_beam_ratio {self.pre_beam_ratio}: give decoder, full or none, and at least 1."
            )
        if min(self.min_len, self.no_repeat_ngram, self.start, self.end, self.max_len_extra) < 0:
            raise ValueError("min_len, max_len_extra, no_repeat_ngram, start and end cannot be negative.")

    @property
    def detects_end(self) -> bool:
        """Whether the search may end before its limit."""
        return self.max_len_ratio == 0 and self.max_len_extra == 0

    def limit(self, frames: int) -> int:
        """Steps of the search over so many frames."""
        steps = frames if self.detects_end else int(self.max_len_ratio * frames + self.max_len_extra)
        if self.max_len_ratio < 0:
            steps = int(-self.max_len_ratio)
        return max(1, steps if self.max_len is None else min(steps, self.max_len))


@dataclass
class _Running:
    """Hypotheses of A utterances x W places, of L tokens each with the start symbol; a total of minus infinity is an empty place."""

    owners: list[int]
    tokens: Tensor  # (A, W, L)
    totals: Tensor  # (A, W)
    parts: dict[str, Tensor]  # (A, W) each: sums of what every model said, unweighted


@dataclass
class _Ended:
    """What has ended for one utterance, and the best score by length."""

    hypotheses: list[tuple[float, Hypothesis]] = field(default_factory=list)
    best: dict[int, float] = field(default_factory=dict)

    def add(self, step: int, total: float, ranked: float, tokens: list[int], components: dict[str, float]) -> None:
        self.hypotheses.append((total, Hypothesis(tuple(tokens), ranked, components)))
        self.best[step] = max(total, self.best.get(step, total))

    def hopeless(self, step: int) -> bool:
        """Whether the search may end after this step. ESPnet counts the start and the end in a length, hence the two."""
        if not self.best:
            return False
        limit = max(self.best.values()) + GAP
        return all(step - 2 - back in self.best and self.best[step - 2 - back] < limit for back in range(LENGTHS))


@torch.no_grad()
def joint_beam(
    decoder: StepDecoder | None,
    encoded: Tensor,
    lengths: Tensor,
    ctc_log_probs: Tensor | None = None,
    options: JointOptions | None = None,
    language_model: StepLanguageModel | None = None,
    hot_words: HotWords | None = None,
    ctc_lengths: Tensor | None = None,
) -> list[list[Hypothesis]]:
    """The n-best lists of a batch, best first.

    The score of a hypothesis is (1 - ctc_weight) ``attention`` + ctc_weight ``ctc`` + lm_weight ``lm`` + length_bonus ``length`` +
    ``hot_words`` of its components (divided, if length_penalty says so); models with weight 0 are not asked and have no component. An
    utterance without frames gets the empty hypothesis.

    Args:
        decoder: in evaluation mode; not needed with a ctc_weight of 1.
        encoded: (batch, frames, dim), the encoder's output.
        lengths: (batch,) valid frames of each row.
        ctc_log_probs: (batch, frames, vocabulary) of the same frames; not needed with a ctc_weight of 0.
        options: `JointOptions`.
        language_model: over the same vocabulary.
        hot_words: their bonuses are added to the scores.
        ctc_lengths: (batch,) valid frames of CTC where it has others.

    Raises:
        ValueError: a beam larger than the vocabulary, vocabularies that differ, a model that is missing or gives nan.
    """
    options = options or JointOptions()
    device, frames = encoded.device, lengths.tolist()
    if options.ctc_weight > 0 and ctc_log_probs is None:
        raise ValueError(f"ctc_weight {options.ctc_weight}: joint decoding needs CTC's log-probabilities; give them, or set it to 0.")
    if options.ctc_weight < 1 and decoder is None:
        raise ValueError(f"ctc_weight {options.ctc_weight}: joint decoding needs a decoder; give one, or set it to 1.")
    results = [[Hypothesis((), 0.0, {})] for _ in frames]
    owners = [row for row, length in enumerate(frames) if length > 0]
    if not owners:
        return results
    rows = torch.tensor(owners, device=device)
    models = NextTokens(
        decoder if options.ctc_weight < 1 else None,
        encoded[rows],
        lengths.to(device)[rows],
        1,
        language_model if options.lm_weight else None,
        ctc_log_probs[rows] if ctc_log_probs is not None and options.ctc_weight > 0 else None,
        options.blank,
        hot_words=hot_words,
        never=options.never,
        ctc_lengths=None if ctc_lengths is None else ctc_lengths.to(device)[rows],
    )
    heard = {"attention": models.decoder, "ctc": models.ctc, "lm": models.language_model, "length": options.length_bonus or None}
    heard["hot_words"] = hot_words
    nothing = torch.zeros(len(owners), 1, dtype=torch.double, device=device)
    parts = {name: nothing.clone() for name, there in heard.items() if there is not None}
    running = _Running(owners, torch.full((len(owners), 1, 1), options.start, device=device), nothing.clone(), parts)
    ended = {owner: _Ended() for owner in owners}
    step = 0
    while running.owners:
        running = _take_step(models, running, ended, step, frames, options)
        step += 1
    for owner in owners:
        found = sorted(ended[owner].hypotheses, key=lambda pair: -pair[1].score)
        results[owner] = [hypothesis for _, hypothesis in found[: options.nbest]] or [Hypothesis((), float("-inf"), {})]
    return results


def _take_step(
    models: NextTokens, running: _Running, ended: dict[int, _Ended], step: int, frames: list[int], options: JointOptions
) -> _Running:
    """Grow every hypothesis by a token, keep the best of each utterance, set aside what ends, and drop utterances that are done."""
    width, device = running.totals.shape[1], running.totals.device
    ids, scores, said = _candidates(models, running, step, options)
    flat = (running.totals[:, :, None] + scores).flatten(1)
    total, chosen = best(flat, min(options.beam, flat.shape[1]))
    source = chosen // ids.shape[2]
    token = ids.flatten(1).gather(1, chosen)
    parts = {name: part.gather(1, source) + said[name].flatten(1).gather(1, chosen) for name, part in running.parts.items()}

    last = [step == options.limit(frames[owner]) - 1 for owner in running.owners]
    possible = total > float("-inf")
    ends = possible & ((token == options.end) | torch.tensor(last, device=device)[:, None])
    if bool(ends.any()):
        rows = torch.arange(len(last), device=device)[:, None] * width + source
        total, parts = _close_words(models, rows, token, ends & (token != options.end), total, parts)
        _set_aside(running, ended, ends, step, source, token, total, parts, options)
    alive = possible & ~ends
    counts = alive.sum(1).tolist()
    kept = [
        index for index, owner in enumerate(running.owners) if counts[index] and not (options.detects_end and ended[owner].hopeless(step))
    ]  # at the limit nothing is left alive
    if not kept:
        return _Running([], running.tokens, running.totals, {})
    places = torch.tensor(kept, device=device)
    wide = max(counts[index] for index in kept)
    order = (~alive[places]).to(torch.uint8).sort(dim=1, stable=True).indices[:, :wide]  # those that go on, best first
    source, token, total = (each[places].gather(1, order) for each in (source, token, total))
    total = total.masked_fill(~alive[places].gather(1, order), float("-inf"))
    past = source[:, :, None].expand(-1, -1, running.tokens.shape[2])
    tokens = torch.cat([running.tokens[places].gather(1, past), token[:, :, None]], 2)
    moved = (places[:, None] * width + source).flatten()
    models.keep(moved, token.flatten(), places if len(kept) < len(running.owners) else None)
    left = [running.owners[index] for index in kept]
    return _Running(left, tokens, total, {name: part[places].gather(1, order) for name, part in parts.items()})


def _candidates(models: NextTokens, running: _Running, step: int, options: JointOptions) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """Tokens that may follow, their scores, and what every model says of them: (A, W, candidates) each; ids rise along the candidates."""
    width = running.totals.shape[1]
    attention, language, bonus = models.step(running.tokens[:, :, -1].flatten())
    said = {"attention": attention, "lm": language, "hot_words": bonus}
    weights = {"attention": 1 - options.ctc_weight, "lm": options.lm_weight, "hot_words": 1.0}
    vocabulary = next(each.shape[-1] for each in (attention, language) if each is not None) if models.ctc is None else models.ctc.symbols
    if options.beam > vocabulary:
        raise ValueError(f"A beam of {options.beam} is larger than the vocabulary of {vocabulary} tokens; give at most {vocabulary}.")
    heard = {name: score for name, score in said.items() if score is not None}
    ids = torch.arange(vocabulary, device=running.totals.device).expand(len(running.owners) * width, -1)
    chosen: Tensor | None = None
    size = int(options.pre_beam_ratio * options.beam)
    if models.ctc is not None and attention is not None and options.pre_beam is not None and size < vocabulary:
        full = torch.stack([weights[name] * score.float() for name, score in heard.items()]).sum(0)
        key = (attention if options.pre_beam == "decoder" else full).clone()
        if bonus is not None and options.pre_beam == "decoder":
            key = key + bonus.float()  # a token that a hot word wants may follow even where the decoder alone would not think of it
        key[:, list(options.never)] = float("-inf")
        taken = best(key, size)[1]
        missing = ~(taken == options.end).any(1)  # the end may always come: where it is missing, it takes an extra place
        extra = torch.where(missing, options.end, taken[:, 0])
        ids = chosen = torch.cat([taken, extra[:, None]], 1).sort(1).values
    spare = torch.zeros_like(ids, dtype=torch.bool)
    spare[:, 1:] = ids[:, 1:] == ids[:, :-1]
    heard = {name: score.gather(1, ids).double() for name, score in heard.items()}
    if models.ctc is not None and models.prefixes is not None:
        heard["ctc"], weights["ctc"] = models.ctc.following(models.prefixes, options.end, chosen), options.ctc_weight
    if options.length_bonus:
        heard["length"], weights["length"] = torch.ones_like(ids, dtype=torch.double), options.length_bonus
    scores = torch.stack([weights[name] * score for name, score in heard.items()]).sum(0)
    scores = scores.masked_fill(spare | torch.isin(ids, torch.tensor(options.never, device=ids.device)), float("-inf"))
    if step < options.min_len:
        scores = scores.masked_fill(ids == options.end, float("-inf"))
    if options.end_threshold is not None and attention is not None:
        ends = forbid_early_ends(torch.zeros_like(attention), attention, options.end_threshold, options.end)
        scores = scores + ends.gather(1, ids)
    if options.no_repeat_ngram:
        spread = scores.new_full((len(scores), vocabulary), 0.0)
        spread = forbid_repeats(spread, running.tokens[:, :, 1:].flatten(0, 1), options.no_repeat_ngram, options.end)
        scores = scores + spread.gather(1, ids)
    shape = (len(running.owners), width)
    return ids.unflatten(0, shape), scores.unflatten(0, shape), {name: score.unflatten(0, shape) for name, score in heard.items()}


def _close_words(
    models: NextTokens, rows: Tensor, token: Tensor, cut: Tensor, total: Tensor, parts: dict[str, Tensor]
) -> tuple[Tensor, dict[str, Tensor]]:
    """Totals and parts (A, beam) where texts are ``cut`` off without an end: half a hot word has counted and goes, a whole one comes."""
    closing = models.close_words(rows, token)
    if closing is None:
        return total, parts
    closing = closing.masked_fill(~cut, 0.0)
    return total + closing, {**parts, "hot_words": parts["hot_words"] + closing}


def _set_aside(
    running: _Running,
    ended: dict[int, _Ended],
    ends: Tensor,
    step: int,
    source: Tensor,
    token: Tensor,
    total: Tensor,
    parts: dict[str, Tensor],
    options: JointOptions,
) -> None:
    """Note the candidates (A, beam) that ``ends`` marks."""
    tokens, sources, last, totals = running.tokens.tolist(), source.tolist(), token.tolist(), total.tolist()
    sums = {name: part.tolist() for name, part in parts.items()}
    for index, place in ends.nonzero().tolist():
        final = [] if last[index][place] == options.end else [last[index][place]]
        said = tokens[index][sources[index][place]][1:] + final
        score = totals[index][place]
        ranked = score / (len(said) + 1) ** options.length_penalty if options.length_penalty else score
        ended[running.owners[index]].add(step, score, ranked, said, {name: part[index][place] for name, part in sums.items()})
