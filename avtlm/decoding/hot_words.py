"""Hot words: a bonus for listed words and phrases, the same for every search.

The score of a text rises by its bonus for every place where a listed word or phrase stands as whole words. That is a property of the text,
not of the way it falls into tokens, so the listed words are matched letter by letter in one trie with failure links (Aho and Corasick
1975), and a token moves through it by all of its letters.

While a word is being spelled, a share of its bonus counts already, so that it is not pruned before it is complete; the share is taken back
where the text goes another way. Shares cancel out, so a finished text has exactly the sum of its bonuses.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from avtlm.text.vocabulary import EOS, SPACE, SPECIALS, Tokenizer, Vocabulary

GAP = " "


@dataclass
class _Places:
    """Where every row is in the trie; None before the start symbol has been fed."""

    rows: Tensor | None

    def reorder(self, rows: Tensor) -> "_Places":
        return self if self.rows is None else _Places(self.rows[rows])


class HotWords:
    """The trie, as a model of the next token (next_tokens.StepLanguageModel) whose scores are bonuses.

    Args:
        bonuses: words or phrases with what they add to the score, a natural logarithm; below 0 for words that are not wanted.
        vocabulary: of the recogniser; words are brought into its spelling (upper case for letters, SentencePiece's normal form).
        end: id of the end of the sentence.
        symbols: ids that the heads know, if there are more than the vocabulary has; those behind write nothing.
        never: ids of the vocabulary that are never written.

    Attributes:
        start: the state of the empty text.

    Raises:
        ValueError: a word is empty or has letters that the recogniser cannot write.
    """

    def __init__(
        self, bonuses: Mapping[str, float], vocabulary: Tokenizer, end: int = EOS, symbols: int | None = None, never: Sequence[int] = ()
    ) -> None:
        self.end = end
        phrases: dict[str, float] = {}
        for text, bonus in bonuses.items():
            written = _normal(text, vocabulary)
            phrases[written] = phrases.get(written, 0.0) + bonus
        self.phrases = phrases
        self._build([(GAP + text + GAP, bonus) for text, bonus in phrases.items()])
        self.start = int(self._goto[0, self._letters[GAP]])
        pieces = spellings(vocabulary)
        pieces += [""] * ((symbols or 0) - len(pieces))
        pieces = ["" if index in never else piece for index, piece in enumerate(pieces)]
        longest = max(map(len, pieces))
        other = len(self._letters)
        spelled = [[self._letters.get(letter, other) for letter in piece] for piece in pieces]
        self._pieces = np.array([row + [-1] * (longest - len(row)) for row in spelled])  # (tokens, letters), -1 behind the last
        self._known: dict[int, int] = {}  # state -> row of the tables below, which grow as states are met
        self._follow = torch.zeros(0, len(pieces), dtype=torch.long)
        self._gain = torch.zeros(0, len(pieces), dtype=torch.double)

    # As a model of the next token --------------------------------------------------------------------------------------------------------

    def initial_state(self, batch: int) -> _Places:
        del batch  # rows are counted by the first step's tokens
        return _Places(None)

    def step(self, tokens: Tensor, state: _Places) -> tuple[Tensor, _Places]:
        """tokens (rows,) -> what every token would add (rows, vocabulary), float64, and the new state. The first token only starts the
        text, whatever it is."""
        rows = torch.full_like(tokens, self.start) if state.rows is None else self.after(state.rows, tokens)
        gains = self.gains(rows).clone()
        gains[:, self.end] = self.closing(rows)
        return gains, _Places(rows)

    # As a table --------------------------------------------------------------------------------------------------------------------------

    def gains(self, states: Tensor) -> Tensor:
        """What every token adds in these states: (...,) int -> (..., vocabulary), float64."""
        rows = self._rows(states)
        return self._gain[rows]

    def after(self, states: Tensor, tokens: Tensor) -> Tensor:
        """The states behind one token each, both (...,) int."""
        rows = self._rows(states)
        return self._follow[rows, tokens]

    def closing(self, states: Tensor) -> Tensor:
        """What the end of the text adds: a word that it completes, less the share of one that it leaves open; (...,), float64."""
        return torch.from_numpy(self._closing).to(states.device)[states]

    def word(self, state: int, word: str) -> tuple[int, float]:
        """The state behind a whole word, and the bonuses that are complete with it; shares do not count here."""
        gained = 0.0
        for letter in word + GAP:
            state = int(self._goto[state, self._letters.get(letter, len(self._letters))])
            gained += float(self._done[state])
        return state, gained

    def total(self, text: str) -> float:
        """The bonuses of a whole text, as the recogniser writes it."""
        padded = f"{GAP}{' '.join(text.split())}{GAP}"
        return sum(
            bonus * sum(padded.startswith(GAP + phrase + GAP, place) for place in range(len(padded)))
            for phrase, bonus in self.phrases.items()
        )

    def _rows(self, states: Tensor) -> Tensor:
        """Rows of the tables for states."""
        self._follow, self._gain = self._follow.to(states.device), self._gain.to(states.device)
        distinct = states.unique().tolist()
        new = [state for state in distinct if state not in self._known]
        if new:
            found = [self._walk(state) for state in new]
            self._known |= {state: len(self._known) + place for place, state in enumerate(new)}
            self._follow = torch.cat([self._follow, torch.from_numpy(np.stack([follow for follow, _ in found])).to(states.device)])
            self._gain = torch.cat([self._gain, torch.from_numpy(np.stack([gain for _, gain in found])).to(states.device)])
        places = torch.zeros(len(self._done), dtype=torch.long)
        places[distinct] = torch.tensor([self._known[state] for state in distinct])
        return places.to(states.device)[states]

    def _walk(self, state: int) -> tuple[np.ndarray, np.ndarray]:
        """Every token from one state: the state behind it, and what it adds."""
        states = np.full(len(self._pieces), state)
        gain = np.zeros(len(self._pieces))
        gap = self._letters[GAP]
        for letters in self._pieces.T:
            moves = (letters >= 0) & ~((letters == gap) & self._at_gap[states])  # several gaps are one
            states = np.where(moves, self._goto[states, letters], states)
            gain += np.where(moves, self._done[states], 0.0)
        return states, gain + self._share[states] - self._share[state]

    def _build(self, patterns: Sequence[tuple[str, float]]) -> None:
        """The trie with failure links, all moves filled in. Letters that are in no pattern share the last column."""
        self._letters = {letter: place for place, letter in enumerate(sorted({GAP, *(letter for text, _ in patterns for letter in text)}))}
        children: list[dict[str, int]] = [{}]
        done, share, last = [0.0], [[0.0]], [""]
        for text, bonus in patterns:
            node = 0
            for place, letter in enumerate(text):
                if letter not in children[node]:
                    children[node][letter] = len(children)
                    children.append({})
                    done.append(0.0)
                    share.append([])
                    last.append(letter)
                node = children[node][letter]
                # A complete word has its bonus; what may follow it is another one's share, which begins anew behind the gap.
                share[node].append(0.0 if place == len(text) - 1 else bonus * place / (len(text) - 1))
            done[node] += bonus
        size = len(self._letters) + 1
        self._goto = np.zeros((len(children), size), dtype=np.int64)
        failure = [0] * len(children)
        queue = [0]
        for node in queue:
            for letter, place in self._letters.items():
                child = children[node].get(letter)
                fallback = int(self._goto[failure[node], place]) if node else 0
                self._goto[node, place] = fallback if child is None else child
                if child is not None:
                    failure[child] = fallback
                    done[child] += done[fallback]
                    queue.append(child)
        self._done = np.array(done)
        self._share = np.array([max(parts, key=abs, default=0.0) for parts in share])
        self._at_gap = np.array([letter == GAP for letter in last])
        gaps = np.where(self._at_gap, 0.0, self._done[self._goto[:, self._letters[GAP]]])
        self._closing = gaps - self._share


def spellings(vocabulary: Tokenizer) -> list[str]:
    """What every token writes, with a space where words part; nothing for special symbols."""
    symbols = vocabulary.symbols
    if isinstance(vocabulary, Vocabulary):
        if vocabulary.spelling == "tokens":
            return ["" if index < len(SPECIALS) else GAP + symbol for index, symbol in enumerate(symbols)]
        mark = SPACE
    else:
        from avtlm.text.subwords import WORD_START

        mark = WORD_START
    return ["" if index < len(SPECIALS) else symbol.replace(mark, GAP) for index, symbol in enumerate(symbols)]


def _normal(text: str, vocabulary: Tokenizer) -> str:
    """A listed word as the recogniser would write it."""
    unknown = vocabulary.unknown_report([text])
    if unknown.unknown:
        letters = ", ".join(map(repr, unknown.symbols))
        raise ValueError(f"hot_words: {text!r} has {letters}, which this model cannot write; is the case the same as in its transcripts?")
    written = vocabulary.decode(vocabulary.encode(text))
    if not written:
        raise ValueError(f"hot_words: {text!r} has no letters; give words or phrases with a bonus each.")
    return written
