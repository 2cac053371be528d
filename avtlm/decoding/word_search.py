"""The search over the words of a lexicon as a recogniser uses it: files are opened and checked once, what is found becomes hypotheses.

Transcripts may end in the symbol between words (fairseq's letters) or have it between words alone. In the second case a last word ends with
the clip: the search is given one more frame, in which that symbol costs nothing.
"""

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from avtlm.decoding.align import add_times
from avtlm.decoding.flashlight_search import FlashlightDecoder, KenModel, takes
from avtlm.decoding.hot_words import HotWords
from avtlm.decoding.lexicon import LexiconDecoder, LexiconOptions, Spelled, WordDecoder, read_lexicon
from avtlm.decoding.ngram import END, NGram
from avtlm.decoding.ranking import check_log_probs
from avtlm.decoding.result import Hypothesis
from avtlm.decoding.summed_words import SummedOptions, ctc_word_beam
from avtlm.text.vocabulary import BLANK, LETTERS, SPACE, Tokenizer, Vocabulary

LARGE = 50_000_000  # bytes of a language model that Python's dictionaries are too slow for


class WordSearch:
    """A lexicon, maybe a language model, and the search over them.

    Args:
        decoder: what searches one utterance.
        ended: whether transcripts end in the symbol between words.
        summed: words with spellings, without the symbol between words, if a text counts by all of its alignments (summed_words.py); None
            takes the best one.
    """

    def __init__(self, decoder: WordDecoder, ended: bool, summed: Sequence[tuple[str, tuple[int, ...]]] | None = None) -> None:
        self.decoder, self.ended, self.summed = decoder, ended, summed

    @classmethod
    def open(
        cls,
        lexicon: Path,
        language_model: Path | None,
        options: LexiconOptions,
        vocabulary: Tokenizer,
        hot_words: HotWords | None = None,
        summed: bool = False,
        blank: int = BLANK,
    ) -> "WordSearch":
        """Read the files.

        Args:
            lexicon: lines ``word <tab> symbols``, every spelling ending in ``|``.
            language_model: ARPA file, or where flashlight is installed and the file is large, anything that KenLM reads; None lets any word
                follow any other.
            summed: let a text count by all of its alignments; threshold and silence_score then have no meaning.
            blank: CTC's.

        Raises:
            ValueError: a file is missing or damaged, spells with unknown symbols, or does not fit the other; a hot word is not in the
                lexicon; ``summed`` for transcripts that end in the symbol between words.
        """
        if not isinstance(vocabulary, Vocabulary) or SPACE not in vocabulary.symbols:
            raise ValueError(
                f"decoding.lexicon: {lexicon} spells words in letters and '|', which this model does not write; choose ctc_beam."
            )
        for name, path in (("lexicon", lexicon), ("language_model", language_model)):
            if path is not None and not path.is_file():
                raise ValueError(f"decoding.{name}: there is no file {path}, neither here nor in the model's folder.")
        ids = {symbol: index for index, symbol in enumerate(vocabulary.symbols)}
        words = read_lexicon(lexicon, ids, SPACE)
        compiled = hot_words is None and not summed and takes(words)
        large = compiled and language_model is not None and language_model.stat().st_size > LARGE
        model: Any = None if language_model is None or large else NGram.read(language_model)
        if model is not None and not any((word,) in model.probabilities for word, _ in words):
            raise ValueError(f"{language_model}: has none of the words of {lexicon}, such as {words[0][0]!r}; is the case the same?")
        names = {word for word, _ in words}
        for phrase in [] if hot_words is None else hot_words.phrases:
            lacking = next((word for word in phrase.split() if word not in names), None)
            if lacking is not None:
                raise ValueError(f"hot_words: {lacking!r} is not in the lexicon {lexicon}, so it is never written; add it there.")
        ended = vocabulary.spelling == LETTERS
        if summed and ended:
            raise ValueError("alignments: summed is defined for texts without '|' behind their last word; this model writes one; set best.")
        if compiled and language_model is not None:
            model = KenModel(language_model, [word for word, _ in words])
        decoder: WordDecoder = (
            FlashlightDecoder(words, model, options, blank, ids[SPACE], len(ids))
            if compiled
            else LexiconDecoder(words, model, options, blank, ids[SPACE], hot_words)
        )
        return cls(decoder, ended, [(word, spelling[:-1]) for word, spelling in words] if summed else None)

    @torch.no_grad()
    def __call__(self, log_probs: Tensor, lengths: Tensor) -> list[list[Hypothesis]]:
        """The best word sequences of every row, best first.

        Args:
            log_probs: (batch, frames, symbols).
            lengths: (batch,) valid frames of each row.

        Raises:
            ValueError: shapes or lengths do not fit together, or a valid frame holds nan.
        """
        check_log_probs(log_probs, lengths.to(log_probs.device))
        rows = zip(log_probs.double().cpu(), lengths.tolist(), strict=True)
        return [self._search(row[:length]) for row, length in rows]

    def _search(self, emissions: Tensor) -> list[Hypothesis]:
        decoder, frames = self.decoder, emissions
        if self.summed is not None:
            options = decoder.options
            sums = SummedOptions(options.lm_weight / math.log(10), options.word_score, options.beam, options.nbest)
            bonus = None if decoder.hot_words is None else decoder.bonus
            found = ctc_word_beam(emissions, self.summed, decoder.model, sums, decoder.blank, decoder.silence, bonus)
            return add_times(found, emissions, decoder.blank) or [Hypothesis((), -math.inf, {"ctc": -math.inf})]
        if not self.ended:
            last = torch.full_like(emissions[:1] if len(emissions) else emissions.new_zeros(1, emissions.shape[1]), -math.inf)
            last[:, decoder.silence] = 0.0
            frames = torch.cat([emissions, last])
        return [self._hypothesis(found, emissions) for found in decoder.decode(frames)]

    def _hypothesis(self, found: Spelled, emissions: Tensor) -> Hypothesis:
        """Symbols of the words, a single silence behind each, with the frames they cover."""
        tokens: list[int] = []
        times: list[tuple[int, int]] = []
        path = found.path[1 : 1 + len(emissions)]
        words, inside = 0, False
        for symbol, start, end in _runs(path):
            silent = symbol == self.decoder.silence
            if symbol == self.decoder.blank or (silent and not inside) or words == len(found.words):
                continue
            words, inside = words + silent, not silent
            tokens.append(symbol)
            times.append((start, end))
        along: list[float] = emissions[range(len(path)), list(path)].tolist() if path else []
        scores = [math.fsum(along[start:end]) / (end - start) for start, end in times]
        components = {"ctc": math.fsum(along)}
        if self.decoder.model is not None:
            components["lm"] = math.log(10) * self._sentence(found.words)
        if self.decoder.hot_words is not None:
            components["hot_words"] = sum(self.decoder.bonus(found.words[:at], word) for at, word in enumerate(found.words))
        return Hypothesis(tuple(tokens), found.score, components, tuple(times), tuple(scores), " ".join(found.words))

    def _sentence(self, words: Sequence[str]) -> float:
        """Log10 probability of a whole sentence."""
        model = self.decoder.model
        assert model is not None
        context, total = model.start, 0.0
        for word in words:
            total += model.score(context, word)
            context = model.extend(context, word)
        return total + model.score(context, END)


def _runs(path: Sequence[int]) -> Iterator[tuple[int, int, int]]:
    """Stretches of equal symbols: symbol, first frame, frame behind the last."""
    start = 0
    for frame in range(1, len(path) + 1):
        if frame == len(path) or path[frame] != path[start]:
            yield path[start], start, frame
            start = frame
