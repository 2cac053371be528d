"""Language models in a search over tokens: n-grams over pieces, models with other ids, models that leave some tokens to others.

Everything is in natural logarithms; n-gram files are log10. Whatever has ``initial_state`` and ``step`` (next_tokens.py) can take part.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from avtlm.decoding.next_tokens import StepLanguageModel
from avtlm.decoding.ngram import END, START, UNKNOWN, NGram
from avtlm.text.vocabulary import EOS

MISSING = -1e7  # for tokens that a language model does not know, as in SpeechUT's generator


@dataclass
class _Contexts:
    """What every row has said, as far as it matters; None where nothing has been fed."""

    rows: list[tuple[str, ...] | None]

    def reorder(self, rows: Tensor) -> "_Contexts":
        return _Contexts([self.rows[row] for row in rows.tolist()])


class NGramTokens:
    """An n-gram model whose words are the tokens of the vocabulary.

    The first token that is fed only starts the sentence, whatever it is. Rows of the same context are scored once.

    Args:
        model: over symbols.
        symbols: of the vocabulary, by id.
        end: id that stands for the end of the sentence.
        silent: score of a token by its id where the model shall not decide, such as ``{0: 0.0}``.

    Raises:
        ValueError: the model knows none of the symbols.
    """

    def __init__(self, model: NGram, symbols: Sequence[str], end: int = EOS, silent: Mapping[int, float] | None = None) -> None:
        self.model, self.symbols, self.end, self.silent = model, list(symbols), end, dict(silent or {})
        known = [
            symbol
            for index, symbol in enumerate(self.symbols)
            if index != end and symbol not in (START, UNKNOWN) and (symbol,) in model.probabilities
        ]
        if not known:
            raise ValueError(
                f"The n-gram model knows none of the {len(self.symbols)} tokens, such as {self.symbols[-1]!r}; "
                "train it on text that is split into the recogniser's tokens."
            )
        self._cache: dict[tuple[str, ...], Tensor] = {}

    def initial_state(self, batch: int) -> _Contexts:
        return _Contexts([None] * batch)

    def step(self, tokens: Tensor, state: _Contexts) -> tuple[Tensor, _Contexts]:
        """tokens (rows,) -> log-probabilities (rows, vocabulary), and the new state."""
        contexts = [
            self.model.start if context is None else self.model.extend(context, self.symbols[token])
            for token, context in zip(tokens.tolist(), state.rows, strict=True)
        ]
        scores = torch.stack([self._scores(context) for context in contexts])
        return scores.to(tokens.device), _Contexts(list(contexts))

    def _scores(self, context: tuple[str, ...]) -> Tensor:
        if context not in self._cache:
            words = [END if index == self.end else symbol for index, symbol in enumerate(self.symbols)]
            scores = [math.log(10) * self.model.score(context, word) for word in words]
            for index, score in self.silent.items():
                scores[index] = score
            self._cache[context] = torch.tensor(scores)
        return self._cache[context]


class MappedLanguageModel:
    """A language model that numbers tokens in its own way.

    Args:
        model: over its own vocabulary.
        ids: for every token of the recogniser its id in the model, -1 if the model has none.
        stand_in: id that is fed to the model where it has none.
        missing: log-probability of a token that the model does not have.

    Raises:
        ValueError: the model knows none of the tokens.
    """

    def __init__(self, model: StepLanguageModel, ids: Sequence[int], stand_in: int, missing: float = MISSING) -> None:
        self.model, self.missing, self.stand_in = model, missing, stand_in
        self._ids = torch.tensor(ids)
        if not bool((self._ids >= 0).any()):
            raise ValueError("The language model has none of the recogniser's tokens; take one that is trained on the same symbols.")

    def initial_state(self, batch: int) -> Any:
        return self.model.initial_state(batch)

    def step(self, tokens: Tensor, state: Any) -> tuple[Tensor, Any]:
        """tokens (rows,) -> log-probabilities (rows, recogniser's vocabulary), and the new state."""
        self._ids = self._ids.to(tokens.device)
        own = self._ids[tokens]
        scores, state = self.model.step(torch.where(own < 0, self.stand_in, own), state)
        return torch.where(self._ids >= 0, scores[:, self._ids.clamp(min=0)], self.missing), state


class Unscored:
    """A language model without a say on some tokens, such as the end of the sentence: their score is 0."""

    def __init__(self, model: StepLanguageModel, tokens: Sequence[int]) -> None:
        self.model, self.tokens = model, list(tokens)

    def initial_state(self, batch: int) -> Any:
        return self.model.initial_state(batch)

    def step(self, tokens: Tensor, state: Any) -> tuple[Tensor, Any]:
        """tokens (rows,) -> log-probabilities (rows, vocabulary), and the new state."""
        scores, state = self.model.step(tokens, state)
        return scores.index_fill(1, torch.tensor(self.tokens, device=scores.device), 0.0), state
