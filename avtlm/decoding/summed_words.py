"""CTC search over the words of a lexicon with an n-gram language model, all alignments of a spelling summed.

    score(words) = log p_CTC(spelling) + alpha ln P(words, </s>) + beta |words|

The spelling has one delimiter between words and none at the ends. flashlight's search (lexicon.py) ranks by the best single alignment
instead, wants a delimiter after every word, and lets more of them go for free: other maxima, other results. With ``summed=False`` this
search takes the best alignment too, by the definition above. Exact as long as nothing falls out of the beam.

Source: Hannun et al. 2014, arXiv 1408.2873 (algorithm 1, words scored when they end). A word counts when the next one begins or the clip
ends, so that an empty or unfinished word is never scored. One utterance at a time, over dictionaries: for small tasks, and as a reference.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from avtlm.decoding.ngram import END, NGram
from avtlm.decoding.result import Hypothesis

MINUS_INFINITY = float("-inf")


@dataclass(frozen=True)
class SummedOptions:
    """alpha and beta of the score; hypotheses kept per frame and given out; whether alignments are summed or the best one counts."""

    alpha: float = 0.5
    beta: float = 1.5
    beam: int = 100
    nbest: int = 1
    summed: bool = True

    def __post_init__(self) -> None:
        if not 1 <= self.nbest <= self.beam:
            raise ValueError(f"A beam of {self.beam} cannot give {self.nbest} hypotheses; ask for at least 1 and at most the beam.")


@dataclass(frozen=True)
class _Prefix:
    """Words said, all symbols so far, those of the word that is being spelled, and what the language model thinks (ln) and remembers."""

    words: tuple[str, ...]
    symbols: tuple[int, ...]
    spelt: tuple[int, ...]
    language: float
    context: tuple[str, ...]


def ctc_word_beam(
    log_probs: Tensor,
    lexicon: Iterable[tuple[str, Sequence[int]]],
    model: NGram | None,
    options: SummedOptions | None = None,
    blank: int = 0,
    delimiter: int = 1,
    bonus: Callable[[tuple[str, ...], str], float] | None = None,
) -> list[Hypothesis]:
    """The best word sequences of one utterance, best first.

    Args:
        log_probs: (frames, symbols), without padding.
        lexicon: words with spellings, without delimiters.
        model: scores words; None lets any word follow any other alike.
        blank, delimiter: ids.
        bonus: what a word adds to the score behind others (hot words); None adds nothing.

    Returns:
        Hypotheses with the symbols of the words, one delimiter between them, and the words as text; none if no word fits. Components:
        ``ctc``, ``lm`` (natural log, with the end), ``words`` (their number) and, if there is a bonus, ``hot_words``; the score is ctc +
        alpha lm + beta words + hot_words.
    """
    options = options or SummedOptions()
    plus: Callable[[float, float], float] = np.logaddexp if options.summed else max
    spellings: dict[tuple[int, ...], list[str]] = {}
    following: dict[tuple[int, ...], set[int]] = {}
    for word, symbols in lexicon:
        spelling = tuple(symbols)
        spellings.setdefault(spelling, []).append(word)
        for place, symbol in enumerate(spelling):
            following.setdefault(spelling[:place], set()).add(symbol)

    def said(prefix: _Prefix, word: str) -> tuple[float, tuple[str, ...]]:
        if model is None:
            return prefix.language, prefix.context
        return prefix.language + math.log(10) * model.score(prefix.context, word), model.extend(prefix.context, word)

    def extra(words: tuple[str, ...]) -> float:
        return sum(bonus(words[:place], word) for place, word in enumerate(words)) if bonus is not None else 0.0

    def ranked(prefix: _Prefix, mass: list[float]) -> float:
        return float(plus(*mass)) + options.alpha * prefix.language + options.beta * len(prefix.words) + extra(prefix.words)

    start = _Prefix((), (), (), 0.0, model.start if model is not None else ())
    beams = {start: [0.0, MINUS_INFINITY]}  # ending in a blank, ending in a label
    for frame in log_probs.detach().double().cpu().tolist():
        grown: dict[_Prefix, list[float]] = {}

        def add(prefix: _Prefix, place: int, mass: float, grown: dict[_Prefix, list[float]] = grown) -> None:
            if mass > MINUS_INFINITY:
                held = grown.setdefault(prefix, [MINUS_INFINITY, MINUS_INFINITY])
                held[place] = float(plus(held[place], mass))

        for prefix, (in_blank, in_label) in beams.items():
            whole = float(plus(in_blank, in_label))
            add(prefix, 0, whole + frame[blank])
            last = prefix.symbols[-1] if prefix.symbols else -1
            if prefix.symbols:
                add(prefix, 1, in_label + frame[last])
            for symbol in sorted(following.get(prefix.spelt, ())):
                entering = (in_blank if symbol == last else whole) + frame[symbol]
                symbols, spelt = (*prefix.symbols, symbol), (*prefix.spelt, symbol)
                add(_Prefix(prefix.words, symbols, spelt, prefix.language, prefix.context), 1, entering)
            for word in spellings.get(prefix.spelt, ()):
                language, context = said(prefix, word)
                symbols = (*prefix.symbols, delimiter)
                add(_Prefix((*prefix.words, word), symbols, (), language, context), 1, whole + frame[delimiter])
        best = sorted(grown.items(), key=lambda item: (-ranked(*item), item[0].words, item[0].symbols))
        beams = dict(best[: options.beam])

    found: dict[tuple[str, ...], Hypothesis] = {}
    for prefix, mass in beams.items():
        ended: list[tuple[tuple[str, ...], float, tuple[str, ...]]] = [((), 0.0, prefix.context)] if not prefix.symbols else []
        ended += [((*prefix.words, word), *said(prefix, word)) for word in spellings.get(prefix.spelt, ())]
        ctc = float(plus(*mass))
        for words, language, context in ended if ctc > MINUS_INFINITY else []:
            if model is not None:
                language += math.log(10) * model.score(context, END)
            score = ctc + options.alpha * language + options.beta * len(words) + extra(words)
            components = {"ctc": ctc, "lm": language, "words": float(len(words))}
            if bonus is not None:
                components["hot_words"] = extra(words)
            if words not in found or score > found[words].score:  # a word may have several spellings
                found[words] = Hypothesis(prefix.symbols, score, components, text=" ".join(words))
    return sorted(found.values(), key=lambda hypothesis: -hypothesis.score)[: options.nbest]
