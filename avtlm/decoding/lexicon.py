"""CTC search over the words of a lexicon with an n-gram language model, as flashlight's LexiconDecoder finds them (arXiv 1812.06864).

What is unusual here:
- A hypothesis is scored by its best alignment, not by the sum over alignments: emissions + ``lm_weight`` * log10 of the language model +
  ``word_score`` for every word + ``silence_score`` for every silent frame.
- Spellings end in the silence symbol, and a word counts when that has been emitted. More silence is free between words.
- While a word is spelled, the best that may become of it counts already (smearing by the maximum of the words' scores at the start of a
  sentence, those of words spelled alike taken together); that only steers the pruning.

Written for exactness and small vocabularies: every step is a loop over dictionaries. flashlight_search.py is the same in C++. Recognisers
come here through word_search.py.
"""

import abc
import functools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from avtlm.decoding.hot_words import HotWords
from avtlm.decoding.ngram import END, UNKNOWN, NGram


@dataclass(frozen=True)
class LexiconOptions:
    """Weights and pruning.

    Attributes:
        threshold: how much worse than the best a hypothesis may be.
        nbest: how many are given out.
        unknown_score: for every prefix of a spelling that is taken for an unknown word; -inf takes none.
        symbols: a hypothesis is spelled on with so many best symbols of a frame; null takes all.
    """

    beam: int = 500
    threshold: float = 50.0
    lm_weight: float = 2.0
    word_score: float = -1.0
    silence_score: float = 0.0
    nbest: int = 1
    unknown_score: float = -math.inf
    symbols: int | None = None


@dataclass(frozen=True)
class Spelled:
    """Words, their score, and the symbol of every frame of the best alignment between two artificial silences."""

    words: tuple[str, ...]
    score: float
    path: tuple[int, ...]


@dataclass
class _Node:
    """A prefix of spellings: what may come next, which words end here, and the best score of the words that go through."""

    children: dict[int, "_Node"] = field(default_factory=dict)
    words: list[str] = field(default_factory=list)
    best: float = float("-inf")


@dataclass(frozen=True)
class _Hypothesis:
    score: float
    node: _Node
    symbol: int
    blank: bool
    words: tuple[str, ...]
    before: "_Hypothesis | None"


def read_lexicon(path: str | Path, ids: Mapping[str, int], end: str | None = None) -> list[tuple[str, tuple[int, ...]]]:
    """Words with spellings from lines ``word <tab> symbols separated by blanks``.

    Args:
        end: symbol that every spelling has to end in and must not hold elsewhere; None takes any spelling.

    Raises:
        OSError: the file cannot be opened.
        ValueError: a symbol without an id, or a line without a proper spelling, by its number; or no words at all.
    """
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(f"{path}: is no text; give lines of a word, a tab, and its symbols.") from error
    found = []
    for number, line in enumerate(lines, 1):
        word, _, spelling = line.partition("\t")
        symbols = spelling.split()
        unknown = [symbol for symbol in symbols if symbol not in ids]
        if not symbols or unknown:
            problem = f"symbol {unknown[0]!r} is not in the vocabulary" if unknown else "expected a word, a tab, and its symbols"
            raise ValueError(f"{path}, line {number}: {problem}.")
        if end is not None and (len(symbols) < 2 or symbols[-1] != end or end in symbols[:-1]):
            raise ValueError(f"{path}, line {number}: the spelling of {word!r} has to end in {end!r}, behind symbols of its own.")
        found.append((word, tuple(ids[symbol] for symbol in symbols)))
    if not found:
        raise ValueError(f"{path}: holds no words; give lines of a word, a tab, and its symbols.")
    return found


class WordDecoder(abc.ABC):
    """What a search over words is given, whoever does it.

    Args:
        model: scores words, an NGram or what has its interface; None lets any word follow any other alike.
        blank, silence: symbols of CTC's blank and of the space between words.
        hot_words: their bonuses are added when a word is complete.
    """

    def __init__(self, model: Any, options: LexiconOptions, blank: int, silence: int, hot_words: HotWords | None = None) -> None:
        self.model, self.options, self.blank, self.silence, self.hot_words = model, options, blank, silence, hot_words
        self._hot = functools.lru_cache(maxsize=100_000)(self._find_hot)

    @abc.abstractmethod
    def decode(self, emissions: Tensor) -> list[Spelled]:
        """The best word sequences of one utterance, best first; emissions (frames, symbols), log-probabilities or logits."""

    def bonus(self, words: tuple[str, ...], word: str) -> float:
        """What hot words add when a word is said behind others."""
        return 0.0 if self.hot_words is None else self._hot((*words, word))[1]

    def _find_hot(self, words: tuple[str, ...]) -> tuple[int, float]:
        """The state behind these words, and the bonus of the last one."""
        assert self.hot_words is not None
        return self.hot_words.word(self._hot(words[:-1])[0], words[-1]) if words else (self.hot_words.start, 0.0)


class LexiconDecoder(WordDecoder):
    """A lexicon as a tree, and the search over it.

    Args:
        lexicon: words with spellings; a word may have several.
        model, blank, silence, hot_words: see WordDecoder.
    """

    def __init__(
        self,
        lexicon: Iterable[tuple[str, Sequence[int]]],
        model: NGram | None,
        options: LexiconOptions,
        blank: int,
        silence: int,
        hot_words: HotWords | None = None,
    ) -> None:
        super().__init__(model, options, blank, silence, hot_words)
        # Hypotheses that are alive share their last words, so the same words are asked for again and again.
        self.log10 = functools.lru_cache(maxsize=100_000)(self._log10)
        self.root = _Node()
        for word, spelling in lexicon:
            node = self.root
            for symbol in spelling:
                node = node.children.setdefault(symbol, _Node())
            node.words.append(word)
            node.best = float(np.logaddexp(node.best, self.log10((), word)))
        _smear(self.root)

    def decode(self, emissions: Tensor) -> list[Spelled]:
        """The best word sequences of one utterance, best first; emissions (frames, symbols), log-probabilities or logits."""
        options = self.options
        alive = [_Hypothesis(0.0, self.root, self.silence, False, (), None)]
        for frame in emissions.tolist():
            allowed = set(sorted(range(len(frame)), key=lambda symbol: -frame[symbol])[: options.symbols])
            grown: dict[tuple[tuple[str, ...], int, int, bool], _Hypothesis] = {}
            for hypothesis in alive:
                for each in self._continued(hypothesis, frame, allowed):
                    key = (each.words, id(each.node), each.symbol, each.blank)
                    if key not in grown or each.score > grown[key].score:
                        grown[key] = each
            ranked = sorted(grown.values(), key=lambda each: -each.score)[: options.beam]
            alive = [each for each in ranked if each.score >= ranked[0].score - options.threshold]
        whole = [each for each in alive if each.node is self.root] or alive
        found: dict[tuple[tuple[str, ...], int], Spelled] = {}
        for each in whole:
            score = each.score + options.lm_weight * self.log10(self._last(each.words), END)
            place = (each.words, id(each.node))  # without a whole word at the end, the same words may be going on in different ways
            if place not in found or score > found[place].score:
                found[place] = Spelled(each.words, score, (*_path(each), self.silence))
        last = sorted(found.values(), key=lambda each: -each.score)[: options.nbest]
        return [each for each in last if each.score >= last[0].score - options.threshold]

    def _continued(self, at: _Hypothesis, frame: list[float], allowed: set[int]) -> Iterable[_Hypothesis]:
        """What one more frame makes of a hypothesis: a new symbol among the allowed ones, a new word, the same symbol again, or blank."""
        options, inside = self.options, at.node is not self.root
        counted = at.node.best if inside else 0.0
        for symbol, node in at.node.children.items():
            if symbol not in allowed:
                continue
            score = at.score + frame[symbol] + (options.silence_score if symbol == self.silence else 0.0)
            if node.children and (at.blank or symbol != at.symbol):
                yield _Hypothesis(score + options.lm_weight * (node.best - counted), node, symbol, False, at.words, at)
            # Two words of the same single symbol need a blank between them.
            if inside or symbol != at.symbol:
                for word in node.words:
                    rise = options.lm_weight * (self.log10(self._last(at.words), word) - counted) + options.word_score
                    rise += self.bonus(at.words, word)
                    yield _Hypothesis(score + rise, self.root, symbol, False, (*at.words, word), at)
            if not node.words and options.unknown_score > -math.inf:
                rise = options.lm_weight * (self.log10(self._last(at.words), UNKNOWN) - counted) + options.unknown_score
                yield _Hypothesis(score + rise, self.root, symbol, False, (*at.words, UNKNOWN), at)
        if not at.blank or not inside:
            symbol = at.symbol if inside else self.silence
            score = at.score + frame[symbol] + (options.silence_score if symbol == self.silence else 0.0)
            yield _Hypothesis(score, at.node, symbol, False, at.words, at)
        yield _Hypothesis(at.score + frame[self.blank], at.node, self.blank, True, at.words, at)

    def _last(self, words: tuple[str, ...]) -> tuple[str, ...]:
        """The words that can matter to the next one."""
        return () if self.model is None else words[-self.model.order :]

    def _log10(self, words: tuple[str, ...], word: str) -> float:
        """Log10 probability of a word, or of the end, behind a sentence's first or last words; 0 without a language model."""
        if self.model is None:
            return 0.0
        context = self.model.start
        for each in words:
            context = self.model.extend(context, each)
        return self.model.score(context, word)


def _smear(node: _Node) -> float:
    """The best score goes up to where spellings begin."""
    node.best = max([node.best, *map(_smear, node.children.values())])
    return node.best


def _path(hypothesis: _Hypothesis) -> list[int]:
    """Symbols from the first artificial silence to the last frame."""
    symbols: list[int] = []
    at: _Hypothesis | None = hypothesis
    while at is not None:
        symbols.append(at.symbol)
        at = at.before
    return symbols[::-1]
