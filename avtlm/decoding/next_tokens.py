"""What may come next: the models that a search over an attention decoder asks, for all hypotheses of a batch together.

Rows are hypotheses, those of one utterance side by side and as many for each utterance: row = utterance x width + place. What the encoder
said lies there once per utterance.
"""

from collections.abc import Collection
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from avtlm.decoding.ctc_prefix import PrefixScorer, PrefixState
from avtlm.decoding.hot_words import HotWords
from avtlm.nn.transformer import DecoderConfig


class StepDecoder(Protocol):
    """A decoder that goes token by token and keeps what it knows in a state with ``reorder(rows) -> state``.

    A state is used up by ``step`` and ``reorder``: a search goes on with what they return.
    """

    def project_memory(self, encoded: Tensor, lengths: Tensor) -> Any:
        """encoded (utterances, frames, dim), lengths (utterances,) -> what the decoder attends to, with ``select(utterances)``: some of
        them again."""

    def initial_state(self, batch: int) -> Any: ...

    def step(self, tokens: Tensor, memory: Any, state: Any) -> tuple[Tensor, Any]:
        """tokens (rows,) -> logits (rows, vocabulary) of the next token, and the new state. Rows are a multiple of the memory's."""


class TextDecoder(StepDecoder, Protocol):
    """One that writes whole texts: how long they may get, and where it looked."""

    @property
    def config(self) -> DecoderConfig: ...

    def look(self, tokens: Tensor, encoded: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """tokens (utterances, length), beginning with the start symbol -> where each layer looks while it reads them, (layers, utterances,
        heads, length, frames), and the logits (utterances, length, vocabulary)."""


class StepLanguageModel(Protocol):
    """A language model over the same vocabulary, like a decoder without memory, but with log-probabilities (natural) as they count."""

    def initial_state(self, batch: int) -> Any: ...

    def step(self, tokens: Tensor, state: Any) -> tuple[Tensor, Any]:
        """tokens (rows,) -> log-probabilities (rows, vocabulary) of the next token, and the new state."""


class NextTokens:
    """Decoder, language model, CTC prefixes and hot words of the running hypotheses.

    Args:
        decoder: in evaluation mode; None if it does not count.
        encoded: (utterances, frames, dim).
        lengths: (utterances,) valid frames, all above 0.
        width: hypotheses of each utterance.
        language_model: None for none.
        ctc: log-probabilities (utterances, frames, vocabulary) for prefix scores; None for none.
        blank: CTC's blank.
        smaller_language_model: let the language model lack any number of the last ids, for which it then gives 0.
        hot_words: None for none.
        never: ids that are never written; where they are the last ones, a language model may lack them.
        ctc_lengths: (utterances,) valid frames of CTC where it has others than the decoder; see `heard_frames`.
    """

    def __init__(
        self,
        decoder: StepDecoder | None,
        encoded: Tensor,
        lengths: Tensor,
        width: int,
        language_model: StepLanguageModel | None = None,
        ctc: Tensor | None = None,
        blank: int = 0,
        smaller_language_model: bool = False,
        hot_words: HotWords | None = None,
        never: Collection[int] = (),
        ctc_lengths: Tensor | None = None,
    ) -> None:
        rows = len(lengths) * width
        self.decoder, self.language_model, self._smaller, self._never = decoder, language_model, smaller_language_model, never
        self.memory: Any = None if decoder is None else decoder.project_memory(encoded, lengths)
        self._state: Any = None if decoder is None else decoder.initial_state(rows)
        self._lm_state: Any = None if language_model is None else language_model.initial_state(rows)
        self.hot_words = hot_words
        self._places = None if hot_words is None else hot_words.initial_state(rows)
        self.ctc = None if ctc is None else PrefixScorer(ctc, lengths if ctc_lengths is None else ctc_lengths, blank)
        owners = torch.arange(len(lengths), device=lengths.device).repeat_interleave(width)
        self.prefixes: PrefixState | None = None if self.ctc is None else self.ctc.start(owners)
        self.tokens = 0

    def step(self, last: Tensor, temperature: float = 1.0) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """Feed the last token of every hypothesis.

        Args:
            last: (rows,).
            temperature: divides the decoder's logits.

        Returns:
            Log-probabilities (rows, vocabulary) of the decoder in float32, and of the language model, and bonuses of hot words in float64;
            None for what there is not.

        Raises:
            ValueError: nan, or models with vocabularies that do not fit together.
        """
        self.tokens += 1
        attention = language = bonus = None
        if self.decoder is not None:
            logits, self._state = self.decoder.step(last, self.memory, self._state)
            attention = (logits.float() / temperature if temperature != 1.0 else logits.float()).log_softmax(-1)
            if bool(attention.isnan().any()):
                raise ValueError(f"The decoder gave nan at token {self.tokens}; the model's weights or its input are damaged.")
            if self.ctc is not None and attention.shape[-1] != self.ctc.symbols:
                sizes = f"The decoder writes {attention.shape[-1]} tokens and CTC {self.ctc.symbols}"
                raise ValueError(f"{sizes}; joint decoding needs one vocabulary for both.")
        if self.language_model is not None:
            language, self._lm_state = self.language_model.step(last, self._lm_state)
            language = self._fitted(language.float(), attention)
        if self.hot_words is not None and self._places is not None:
            bonus, self._places = self.hot_words.step(last, self._places)
        return attention, language, bonus

    def close_words(self, rows: Tensor, tokens: Tensor) -> Tensor | None:
        """What hot words still bring or take if the texts of these hypotheses end behind these tokens, both (...,) -> (...,)."""
        if self.hot_words is None or self._places is None or self._places.rows is None:
            return None
        return self.hot_words.closing(self.hot_words.after(self._places.rows[rows], tokens))

    def keep(self, rows: Tensor, tokens: Tensor, utterances: Tensor | None) -> None:
        """Go on with these hypotheses.

        Args:
            rows: (new rows,) which hypothesis each one continues.
            tokens: (new rows,) its new token; no blank in a hypothesis that is possible.
            utterances: those that stay, if not all do.
        """
        if self.decoder is not None:
            self._state = self._state.reorder(rows)
            if utterances is not None:
                self.memory = self.memory.select(utterances)
        if self.language_model is not None:
            self._lm_state = self._lm_state.reorder(rows)
        if self._places is not None:
            self._places = self._places.reorder(rows)
        if self.ctc is not None and self.prefixes is not None:
            self.prefixes = self.ctc.advance(self.prefixes, rows, tokens)

    def _fitted(self, language: Tensor, attention: Tensor | None) -> Tensor:
        """What the language model says, with zeros for the ids that it may lack."""
        known = attention.shape[-1] if attention is not None else self.ctc.symbols if self.ctc is not None else language.shape[-1]
        lacks = known - language.shape[-1]
        if lacks == 0:
            return language
        if lacks < 0 or (language.shape[-1] < written(known, self._never) and not self._smaller):
            raise ValueError(
                f"The language model knows {language.shape[-1]} tokens and the recogniser {known}; "
                "train it with the recogniser's vocabulary, or map its ids with MappedLanguageModel."
            )
        return F.pad(language, (0, lacks))


def heard_frames(lengths: Tensor, encoded: Tensor, log_probs: Tensor) -> Tensor:
    """Valid frames of CTC's log-probabilities (batch, frames, vocabulary) for those of the encoder's output (batch, frames, dim): as many,
    or as many more as there are more of them in all (SpeechLM and SpeechUT, whose heads give one more)."""
    return torch.where(lengths > 0, lengths + log_probs.shape[1] - encoded.shape[1], 0)


def written(symbols: int, never: Collection[int]) -> int:
    """How many ids there are in front of the last ones that are never written."""
    while symbols - 1 in never:
        symbols -= 1
    return symbols


def forbid_repeats(scores: Tensor, said: Tensor, size: int, end: int) -> Tensor:
    """Scores (..., vocabulary) with minus infinity where a sequence of ``size`` tokens would come twice.

    Args:
        said: (..., tokens) so far, without the start symbol.
        size: 0 forbids nothing.
        end: id of the end of the sentence, which is never forbidden.
    """
    if not size or said.shape[-1] < size:
        return scores
    windows = said.unfold(-1, size, 1)  # (..., windows, size)
    tail = said[..., None, said.shape[-1] - size + 1 :]
    repeated = (windows[..., :-1] == tail).all(-1) & (windows[..., -1] != end)
    banned = torch.where(repeated, float("-inf"), float("inf")).to(scores.dtype)
    return scores.scatter_reduce(-1, windows[..., -1], banned, "amin")


def forbid_early_ends(scores: Tensor, attention: Tensor, threshold: float, end: int) -> Tensor:
    """Scores (..., vocabulary) with minus infinity for the end wherever the decoder's log-probability of it is at most ``threshold`` times
    that of its best other token (Hannun et al. 2019, arXiv 1904.02619, section 3.3)."""
    others = attention.index_fill(-1, torch.tensor([end], device=attention.device), float("-inf")).amax(-1)
    early = attention[..., end] <= threshold * others
    ends = scores[..., end].masked_fill(early, float("-inf"))
    return scores.index_copy(-1, torch.tensor([end], device=scores.device), ends[..., None])
