"""The search of lexicon.py by flashlight, in C++ (Pratap et al., arXiv 1812.07625), and its KenLM for n-grams of any size.

Where flashlight-text is installed (extra ``lexicon``) it takes the place of our own search, with the same results; hot words and texts
that count by all their alignments stay with ours.
"""

import contextlib
import functools
import importlib
import os
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from avtlm.decoding.lexicon import LexiconOptions, Spelled, WordDecoder
from avtlm.decoding.ngram import END, UNKNOWN

MOST_ALIKE = 6  # words that its tree can hold for one spelling
IMPOSSIBLE = -1e9  # in place of minus infinity, of which its sums would make nan


@functools.cache
def library() -> Any | None:
    """flashlight's decoder module; None where it is not installed."""
    try:
        return importlib.import_module("flashlight.lib.text.decoder")
    except ImportError:
        return None


def takes(lexicon: Sequence[tuple[str, Sequence[int]]]) -> bool:
    """Whether flashlight is there and can hold these words with their spellings."""
    if library() is None:
        return False
    alike: dict[tuple[int, ...], int] = {}
    for _, spelling in lexicon:
        alike[tuple(spelling)] = alike.get(tuple(spelling), 0) + 1
    return max(alike.values()) <= MOST_ALIKE


class KenModel:
    """An n-gram in KenLM, with the interface of NGram: a context is one of its states.

    Args:
        path: an ARPA file or a binary one of KenLM.
        words: those that may be asked for; all others are unknown.

    Raises:
        ValueError: KenLM cannot read the file.
    """

    def __init__(self, path: Path, words: Sequence[str]) -> None:
        assert library() is not None
        dictionary = importlib.import_module("flashlight.lib.text.dictionary").Dictionary()
        self.ids: dict[str, int] = {}
        for word in dict.fromkeys([*words, UNKNOWN]):
            self.ids[word] = len(self.ids)
            dictionary.add_entry(word)
        try:
            with _without_reports():
                self.model = importlib.import_module("flashlight.lib.text.decoder.kenlm").KenLM(str(path), dictionary)
        except Exception as error:  # what C++ throws has no class of its own
            raise ValueError(f"{path}: KenLM cannot read it ({' '.join(str(error).split())[:200]}).") from error

    @property
    def start(self) -> Any:
        """The context of a sentence's first word."""
        return self.model.start(False)

    def extend(self, context: Any, word: str) -> Any:
        """The context after a word."""
        return self.model.score(context, self.ids.get(word, self.ids[UNKNOWN]))[0]

    def score(self, context: Any, word: str) -> float:
        """Log10 probability of a word, or of the end of the sentence, after a context."""
        if word == END:
            return float(self.model.finish(context)[1])
        return float(self.model.score(context, self.ids.get(word, self.ids[UNKNOWN]))[1])


class FlashlightDecoder(WordDecoder):
    """A lexicon in flashlight's tree, and its search.

    Args:
        lexicon: words with spellings; a word may have several, and at most MOST_ALIKE share one.
        model: scores words, made of the words of this lexicon in this order; None lets any word follow any other alike.
        blank, silence: symbols of CTC's blank and of the space between words.
        symbols: how many there are.
    """

    def __init__(
        self,
        lexicon: Sequence[tuple[str, Sequence[int]]],
        model: KenModel | None,
        options: LexiconOptions,
        blank: int,
        silence: int,
        symbols: int,
    ) -> None:
        super().__init__(model, options, blank, silence)
        flashlight = library()
        assert flashlight is not None
        self.words = list(dict.fromkeys([*(word for word, _ in lexicon), UNKNOWN]))
        ids = {word: number for number, word in enumerate(self.words)}
        assert model is None or list(model.ids) == self.words
        self._scorer = flashlight.ZeroLM() if model is None else model.model
        start, tree = self._scorer.start(False), flashlight.Trie(symbols, silence)
        for word, spelling in lexicon:
            tree.insert(list(spelling), ids[word], self._scorer.score(start, ids[word])[1])
        tree.smear(flashlight.SmearingMode.MAX)
        settings = flashlight.LexiconDecoderOptions(
            options.beam,
            min(options.symbols or symbols, symbols),
            options.threshold,
            options.lm_weight,
            options.word_score,
            options.unknown_score,
            options.silence_score,
            False,
            flashlight.CriterionType.CTC,
        )
        self._decoder = flashlight.LexiconDecoder(settings, tree, self._scorer, silence, blank, ids[UNKNOWN], [], False)

    def decode(self, emissions: Tensor) -> list[Spelled]:
        """The best word sequences of one utterance, best first; emissions (frames, symbols), log-probabilities or logits."""
        options, frames = self.options, emissions.clamp(min=IMPOSSIBLE).to("cpu", torch.float32).contiguous()
        found = self._decoder.decode(frames.data_ptr(), *frames.shape)[: options.nbest]
        spelled = [
            Spelled(tuple(self.words[word] for word in each.words if word >= 0), float(each.score), tuple(each.tokens)) for each in found
        ]
        return [each for each in spelled if each.score >= spelled[0].score - options.threshold]


@contextlib.contextmanager
def _without_reports() -> Iterator[None]:
    """Keep what a library writes to standard error by itself off the screen."""
    with tempfile.TemporaryFile() as sink:
        kept = os.dup(2)
        os.dup2(sink.fileno(), 2)
        try:
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)
