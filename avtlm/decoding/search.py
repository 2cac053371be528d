"""The search that settings describe, for a model's heads: files are opened and everything is checked once, then batches are searched.

What a search finds goes through the same stations: CTC's share in the ranking, a language model for whole texts, the n best, word times.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from avtlm.decoding.align import add_times
from avtlm.decoding.attention_times import add_attention_times
from avtlm.decoding.beam import BeamOptions, attention_beam
from avtlm.decoding.blanks import put_back, skip_blanks
from avtlm.decoding.ctc_prefix import ctc_beam
from avtlm.decoding.greedy import ctc_greedy
from avtlm.decoding.hot_words import HotWords
from avtlm.decoding.joint import JointOptions, joint_beam
from avtlm.decoding.language_model import NGramTokens, Unscored
from avtlm.decoding.lexicon import LexiconOptions
from avtlm.decoding.next_tokens import StepLanguageModel, TextDecoder, heard_frames
from avtlm.decoding.ngram import END, START, UNKNOWN, NGram
from avtlm.decoding.rescoring import rescore_with_ctc, rescore_with_tokens, rescore_with_words
from avtlm.decoding.result import Hypothesis
from avtlm.decoding.settings import TOKEN_BY_TOKEN, DecodingConfig
from avtlm.decoding.transducer import Transducer, transducer_beam, transducer_greedy
from avtlm.decoding.word_search import WordSearch
from avtlm.text.vocabulary import BLANK, EOS, PAD, Tokenizer

Limit = tuple[float, float]  # tokens a frame, and more


@dataclass(frozen=True)
class Heads:
    """What a model writes with.

    Attributes:
        ctc: gives CTC's logits of what the encoder says, of as many frames or some more.
        vocabulary: symbols of the texts.
        blank: id of CTC's blank.
        never: ids that no text holds, whichever head gives them.
        start: what stands before a text.
        size: ids that the heads know; those behind the vocabulary's are among ``never``. None for as many as it has.
        ctc_frames: of CTC for so many valid ones of the encoder (batch,); None for as many, or as many more as there are in all.
        ctc_stride: frames of the encoder for each of CTC's.
    """

    decoder: TextDecoder | None
    ctc: Callable[[Tensor], Tensor] | None
    vocabulary: Tokenizer
    transducer: Transducer | None = None
    blank: int = BLANK
    never: tuple[int, ...] = ()
    size: int | None = None
    start: int = EOS
    ctc_frames: Callable[[Tensor], Tensor] | None = None
    ctc_stride: int = 1

    @property
    def symbols(self) -> int:
        """Ids that the heads know."""
        return len(self.vocabulary) if self.size is None else self.size

    def heard(self, lengths: Tensor, encoded: Tensor, log_probs: Tensor) -> Tensor:
        """Valid frames of CTC's log-probabilities (batch, frames, vocabulary) for those of the encoder's output (batch, frames, dim)."""
        return heard_frames(lengths, encoded, log_probs) if self.ctc_frames is None else self.ctc_frames(lengths)

    def timed(self, hypothesis: Hypothesis) -> Hypothesis:
        """With times in the encoder's frames, of one that has them in CTC's."""
        if self.ctc_stride == 1 or not hypothesis.timesteps:
            return hypothesis
        return replace(hypothesis, timesteps=tuple((first * self.ctc_stride, end * self.ctc_stride) for first, end in hypothesis.timesteps))


class Search:
    """A search that is ready to run.

    Args:
        settings: what to do.
        heads: of the recogniser, in evaluation mode.
        folder: the model's, in which files may lie; None for a model without one.
        open_model: loads a language model from its folder: the model, on the device of the recogniser, and its vocabulary.

    Raises:
        ValueError: heads that are missing, a beam larger than the vocabulary, a language model of another vocabulary, a lexicon or an ARPA
            file that is missing, damaged or does not fit, hot words that cannot be written.
    """

    def __init__(
        self,
        settings: DecodingConfig,
        heads: Heads,
        folder: Path | None = None,
        open_model: Callable[[Path], tuple[Any, Tokenizer]] | None = None,
    ) -> None:
        self.settings, self.heads, self._folder, self._open_model = settings, heads, folder, open_model
        there = (heads.ctc is not None, heads.decoder is not None, heads.transducer is not None)
        check_heads(settings, *there, " was asked for, but this model has no {}")
        if settings.method == "joint" and settings.convention == "espnet" and settings.beam > heads.symbols:
            raise ValueError(f"beam: {settings.beam} is larger than the vocabulary of {heads.symbols} tokens; give at most that for joint.")
        self.hot_words: HotWords | None = None
        if settings.hot_words:
            self.hot_words = HotWords(settings.hot_words, heads.vocabulary, symbols=heads.symbols, never=heads.never)
        self.fused: StepLanguageModel | None = None
        if settings.fusion is not None:
            self.fused = self._token_model("fusion.language_model", settings.fusion.language_model)
            if not settings.fusion.score_end:
                self.fused = Unscored(self.fused, [EOS])
        self.rescorer: StepLanguageModel | NGram | None = None
        if settings.rescoring is not None:
            path = self._file("rescoring.language_model", settings.rescoring.language_model)
            self.rescorer = self._token_model("rescoring.language_model", str(path)) if path.is_dir() else self._word_model(path)
        self.words = self._word_search() if settings.lexicon is not None else None

    def __call__(self, encoded: Tensor, lengths: Tensor, limit: Limit | None = None) -> list[list[Hypothesis]]:
        """The n best hypotheses of every row, best first, with ``text``; the best one with times if the settings ask for words.

        Args:
            encoded: (batch, frames, dim), the encoder's output.
            lengths: (batch,) valid frames of each row.
            limit: tokens that attention and joint searches may write; by default as the settings say.
        """
        settings = self.settings
        log_probs = None
        spoken = settings.method in ("attention", "transducer") and not settings.ctc_weight
        if self.heads.ctc is not None and (settings.words or not spoken):
            log_probs = self.heads.ctc(encoded).float().log_softmax(-1)
        found = self._find(encoded, lengths, log_probs, limit or (settings.max_length_ratio, settings.max_length_extra))
        vocabulary = self.heads.vocabulary
        found = [[each if each.text else replace(each, text=vocabulary.decode(each.tokens)) for each in row] for row in found]
        found = [row[: settings.nbest] for row in self._rescore(found)]
        return self._add_times(found, encoded, lengths, log_probs) if settings.words else found

    # Stations --------------------------------------------------------------------------------------------------------------------------

    @property
    def _kept(self) -> int:
        """How many hypotheses the search has to give to what follows."""
        settings = self.settings
        ranked_again = settings.rescoring is not None or (settings.method == "attention" and settings.ctc_weight > 0)
        return settings.beam if ranked_again else settings.nbest

    def _find(self, encoded: Tensor, lengths: Tensor, log_probs: Tensor | None, limit: Limit) -> list[list[Hypothesis]]:
        settings, decoder = self.settings, self.heads.decoder
        heard = lengths if log_probs is None else self.heads.heard(lengths, encoded, log_probs)
        if settings.method == "attention" or (settings.method == "joint" and settings.convention != "espnet"):
            assert decoder is not None
            joint = log_probs if settings.method == "joint" else None
            options = self.beam_options(limit)
            found = attention_beam(decoder, encoded, lengths, options, self.fused, joint, self.hot_words, heard)
            if settings.method == "attention" and settings.ctc_weight:
                assert log_probs is not None
                others = {"lm": options.lm_weight} if self.fused is not None else {}
                others |= {"hot_words": 1.0} if self.hot_words is not None else {}
                found = rescore_with_ctc(found, log_probs, heard, settings.ctc_weight, self.heads.blank, others)
            return found
        if settings.method == "transducer":
            assert self.heads.transducer is not None
            if settings.beam == 1:
                most = settings.symbols_per_frame
                return [[best] for best in transducer_greedy(self.heads.transducer, encoded, lengths, max_symbols=most)]
            return transducer_beam(self.heads.transducer, encoded, lengths, settings.beam, nbest=self._kept)
        assert log_probs is not None
        if settings.method == "joint":
            return joint_beam(decoder, encoded, lengths, log_probs, self.joint_options(limit), self.fused, self.hot_words, heard)
        lengths = heard
        blank, unwritten = self.heads.blank, [index for index in self.heads.never if index != self.heads.blank]
        if unwritten:
            log_probs = log_probs.index_fill(2, torch.tensor(unwritten, device=log_probs.device), -math.inf)
        if settings.method == "ctc_greedy":
            return [[self.heads.timed(best)] for best in ctc_greedy(log_probs, lengths, blank)]
        places = None
        if settings.skip_blanks is not None:
            log_probs, lengths, places = skip_blanks(log_probs, lengths, settings.skip_blanks, blank)
        if self.words is not None:
            found = self.words(log_probs, lengths)
        else:
            found = ctc_beam(log_probs, lengths, settings.beam, blank, self._kept, self.hot_words)
        found = found if places is None else [put_back(row, kept) for row, kept in zip(found, places, strict=True)]
        return [[self.heads.timed(each) for each in row] for row in found]

    def _rescore(self, found: list[list[Hypothesis]]) -> list[list[Hypothesis]]:
        settings = self.settings
        if settings.rescoring is None or self.rescorer is None:
            return found
        again = settings.method == "attention" and settings.ctc_weight > 0  # these scores are sums
        penalty = 0.0 if again or settings.method not in TOKEN_BY_TOKEN else self._length_penalty
        weights = (settings.rescoring.weight, settings.rescoring.word_bonus, penalty)
        if isinstance(self.rescorer, NGram):
            return [rescore_with_words(row, self.rescorer, *weights) for row in found]
        return rescore_with_tokens(found, self.rescorer, *weights)

    def _add_times(
        self, found: list[list[Hypothesis]], encoded: Tensor, lengths: Tensor, log_probs: Tensor | None
    ) -> list[list[Hypothesis]]:
        """Times of the best hypothesis of every row, and posteriors of its tokens where a language model or hot words have changed them."""
        best = [row[0] for row in found]
        best = [
            replace(each, token_scores=()) if {"lm", "hot_words"} & set(each.components) and not each.timesteps else each for each in best
        ]
        if log_probs is not None:
            rows = zip(best, log_probs, self.heads.heard(lengths, encoded, log_probs).tolist(), strict=True)
            best = [
                each if each.timesteps else self.heads.timed(add_times([each], frames[:length], self.heads.blank)[0])
                for each, frames, length in rows
            ]
        left = [row for row, each in enumerate(best) if each.tokens and not each.timesteps]  # without CTC, or without a path through it
        if left and self.heads.decoder is not None:
            chosen = torch.tensor(left, device=encoded.device)
            timed = add_attention_times(
                self.heads.decoder, encoded[chosen], lengths[chosen.to(lengths.device)], [best[row] for row in left], self.heads.start
            )
            for row, each in zip(left, timed, strict=True):
                best[row] = each
        return [[first, *row[1:]] for first, row in zip(best, found, strict=True)]

    # Settings of the searches ------------------------------------------------------------------------------------------------------------

    @property
    def _length_penalty(self) -> float:
        espnet = self.settings.method == "joint" and self.settings.convention == "espnet"
        return self.settings.length_penalty if self.settings.length_penalty is not None else 0.0 if espnet else 1.0

    def beam_options(self, limit: Limit) -> BeamOptions:
        """How the attention decoder searches, alone or with CTC by the rules of SpeechT5 and SpeechUT, and up to which length."""
        assert self.heads.decoder is not None
        settings = self.settings
        joint = settings.method == "joint"
        return BeamOptions(
            settings.beam,
            self._kept,
            self._length_penalty,
            min_len=1 if settings.min_length is None else settings.min_length,
            max_len_a=limit[0],
            max_len_b=limit[1],
            max_len=self.heads.decoder.config.max_positions - 1,
            no_repeat_ngram=settings.no_repeat_ngram,
            lm_weight=0.0 if settings.fusion is None else settings.fusion.weight,
            convention=settings.convention if joint and settings.convention != "espnet" else "fairseq",
            ctc_weight=settings.ctc_weight if joint else 0.0,
            end_threshold=settings.end_threshold,
            start=self.heads.start,
            blank=self.heads.blank,
            never=self.heads.never,
        )

    def joint_options(self, limit: Limit) -> JointOptions:
        """How the joint search by the rules of ESPnet goes. The usual limit of a token a frame lets it end before, too."""
        settings, decoder = self.settings, self.heads.decoder
        ratio, extra = (0.0, 0.0) if limit == (1.0, 0.0) else limit
        return JointOptions(
            settings.beam,
            self._kept,
            settings.ctc_weight,
            lm_weight=0.0 if settings.fusion is None else settings.fusion.weight,
            length_bonus=settings.length_bonus,
            max_len_ratio=ratio,
            max_len_extra=extra,
            max_len=None if decoder is None else decoder.config.max_positions - 1,
            min_len=settings.min_length or 0,
            no_repeat_ngram=settings.no_repeat_ngram,
            end_threshold=settings.end_threshold,
            length_penalty=self._length_penalty,
            start=self.heads.start,
            blank=self.heads.blank,
            never=(self.heads.blank, PAD, *self.heads.never),
        )

    # Files -------------------------------------------------------------------------------------------------------------------------------

    def _word_search(self) -> WordSearch:
        settings = self.settings
        assert settings.lexicon is not None
        options = LexiconOptions(
            settings.beam, settings.threshold, settings.lm_weight, settings.word_score, settings.silence_score, self._kept
        )
        model = None if settings.language_model is None else self._file("language_model", settings.language_model)
        lexicon, summed = self._file("lexicon", settings.lexicon), settings.alignments == "summed"
        return WordSearch.open(lexicon, model, options, self.heads.vocabulary, self.hot_words, summed, self.heads.blank)

    def _token_model(self, key: str, name: str) -> StepLanguageModel:
        """A language model over the recogniser's tokens: from a model folder, or n-grams from an ARPA file."""
        path, vocabulary = self._file(key, name), self.heads.vocabulary
        if not path.is_dir():
            return NGramTokens(NGram.read(path), vocabulary.symbols)
        if self._open_model is None:
            raise ValueError(f"decoding.{key}: {path} is a model folder, which this search cannot open; give an ARPA file.")
        model, own = self._open_model(path)
        if own.symbols != vocabulary.symbols:
            raise ValueError(
                f"decoding.{key}: {path} was trained on other tokens ({len(own)}) than this recogniser writes ({len(vocabulary)}); "
                "train it with vocabulary_from set to the recogniser's folder."
            )
        found: StepLanguageModel = model
        return found

    def _word_model(self, path: Path) -> NGram:
        """N-grams over words as the recogniser writes them."""
        model, vocabulary = NGram.read(path), self.heads.vocabulary
        words = [entry[0] for entry in model.probabilities if len(entry) == 1 and entry[0] not in (START, END, UNKNOWN)]
        if not any(vocabulary.decode(vocabulary.encode(word)) == word for word in words):
            raise ValueError(
                f"decoding.rescoring.language_model: {path} has no word that this recogniser can write, such as {words[:1]}; is the case "
                "the same?"
            )
        return model

    def _file(self, key: str, name: str) -> Path:
        """A file or folder in the model's folder, or where the name says."""
        own = None if self._folder is None else self._folder / name
        path = own if own is not None and own.exists() else Path(name)
        if not path.exists():
            raise ValueError(f"decoding.{key}: there is no file {name}, neither here nor in the model's folder.")
        return path


def check_heads(settings: DecodingConfig, ctc: bool, decoder: bool, transducer: bool, missing: str = " needs a {}") -> None:
    """Make sure that a search has the heads that it needs.

    Raises:
        ValueError: a head is missing.
    """
    method, weight = settings.method, settings.ctc_weight
    free = method == "joint" and weight == 1 and settings.convention == "espnet"
    if method in TOKEN_BY_TOKEN and not decoder and not free:
        fix = "choose ctc_greedy, ctc_beam, or joint with ctc_weight=1"
        raise ValueError(f"decoding.method: {method}{missing.format('decoder')}; describe one or {fix}.")
    if method == "transducer" and not transducer:
        raise ValueError(f"decoding.method: transducer{missing.format('transducer')}; describe one or choose another method.")
    if method not in ("attention", "transducer") and not ctc:
        raise ValueError(f"decoding.method: {method}{missing.format('CTC head')}; set ctc_weight above 0 or choose attention.")
    if weight and not ctc:
        raise ValueError(f"decoding.ctc_weight: {weight}{missing.format('CTC head')}; set ctc_weight of the model above 0, or this to 0.")
