"""Symbols and their ids. Special symbols come first, in fairseq's order, so that ids agree with the dictionaries of released models.

``<s>`` = 0 (also the CTC blank), ``<pad>`` = 1, ``</s>`` = 2, ``<unk>`` = 3. Word pieces are in `avtlm.text.subwords`; both kinds meet the
protocol `Tokenizer`, and `load_vocabulary` reads back whichever kind a model folder holds.
"""

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from avtlm.files import write_text

SPECIALS = ("<s>", "<pad>", "</s>", "<unk>")
BLANK, PAD, EOS, UNKNOWN = 0, 1, 2, 3
BOS = BLANK
SPACE = "|"
FILE = "vocabulary.json"
LETTERS = "letters"
SPELLINGS = ("characters", LETTERS, "tokens")
ENGLISH = "|ETAONIHSRDLUMWCFGYPBVK'XJQZ"  # fairseq's dictionary of LibriSpeech's letters, by frequency


class VocabularyError(ValueError):
    """A vocabulary cannot be built or read; the message names the file or the symbol."""


@dataclass(frozen=True)
class WordSpan:
    """A word and the positions of its symbols in a sequence of ids: from ``first`` to before ``end``."""

    text: str
    first: int
    end: int


@dataclass(frozen=True)
class UnknownReport:
    """How much of a text the vocabulary cannot spell: ``rate`` = unknown / total symbols, and how often each unknown symbol occurs."""

    unknown: int
    total: int
    symbols: dict[str, int]

    @property
    def rate(self) -> float:
        return self.unknown / self.total if self.total else 0.0

    def __str__(self) -> str:
        worst = ", ".join(
            f"{symbol!r} {count}x" for symbol, count in sorted(self.symbols.items(), key=lambda pair: (-pair[1], pair[0]))[:10]
        )
        return f"{self.unknown} of {self.total} symbols unknown ({100 * self.rate:.2f} %)" + (f": {worst}" if worst else "")


class Tokenizer(Protocol):
    """What data loading, decoding and checkpoints ask of a vocabulary."""

    @property
    def symbols(self) -> list[str]: ...
    def __len__(self) -> int: ...
    def encode(self, text: str) -> list[int]: ...
    def decode(self, ids: Iterable[int]) -> str: ...
    def words(self, ids: Sequence[int]) -> list[WordSpan]: ...
    def unknown_report(self, texts: Iterable[str]) -> UnknownReport: ...
    def save(self, folder: str | Path) -> None: ...


class Vocabulary:
    """A list of symbols: letters with ``|`` for the space (spelling ``characters``) or in upper case with ``|`` behind every word, as
    fairseq writes them (``letters``), or phonemes or units set apart by spaces (``tokens``).

    Args:
        symbols: all symbols in the order of their ids, the four special ones first.
        spelling: how text falls into symbols.

    Raises:
        VocabularyError: the special symbols are not where they belong, or a symbol comes twice or holds white space.
    """

    def __init__(self, symbols: Sequence[str], spelling: str = "characters") -> None:
        if tuple(symbols[:4]) != SPECIALS:
            raise VocabularyError(f"A vocabulary starts with {' '.join(SPECIALS)}, not with {' '.join(symbols[:4])}.")
        if spelling not in SPELLINGS:
            raise VocabularyError(f"There is no spelling {spelling!r}; choose one of {', '.join(SPELLINGS)}.")
        self._symbols = list(symbols)
        self._ids = {symbol: index for index, symbol in enumerate(symbols)}
        self.spelling = spelling
        written = [symbol for symbol in symbols[len(SPECIALS) :] if not (symbol.startswith("<") and symbol.endswith(">"))]
        lower = next((symbol for symbol in written if spelling == LETTERS and symbol != symbol.upper()), None)
        if lower is not None:
            raise VocabularyError(f"The symbol {lower!r} is in lower case; letters are written in upper case.")
        if len(self._ids) != len(self._symbols):
            twice = next(symbol for symbol, count in Counter(symbols).items() if count > 1)
            raise VocabularyError(f"The symbol {twice!r} is in the vocabulary more than once; give every symbol once.")
        for symbol in symbols:
            if not symbol or symbol.split() != [symbol]:
                raise VocabularyError(f"The symbol {symbol!r} is empty or holds white space; the space is written as '|'.")

    @classmethod
    def characters(cls, texts: Iterable[str]) -> "Vocabulary":
        """Every character of ``texts``, sorted, with ``|`` for the space."""
        found = {character for text in texts for character in "".join(text.split())} - {SPACE}
        return cls([*SPECIALS, SPACE, *sorted(found)])

    @classmethod
    def letters(cls) -> "Vocabulary":
        """The 32 symbols that wav2vec 2.0 and its kin write English with: special ones, ``|``, letters in upper case, the apostrophe."""
        return cls([*SPECIALS, *ENGLISH], LETTERS)

    @classmethod
    def tokens(cls, texts: Iterable[str]) -> "Vocabulary":
        """Every symbol set apart by white space in ``texts``, sorted: phonemes, unit ids."""
        return cls([*SPECIALS, *sorted({token for text in texts for token in text.split()} - set(SPECIALS))], "tokens")

    @property
    def symbols(self) -> list[str]:
        return list(self._symbols)

    def __len__(self) -> int:
        return len(self._symbols)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Vocabulary) and (self._symbols, self.spelling) == (other._symbols, other.spelling)

    def __hash__(self) -> int:
        return hash((tuple(self._symbols), self.spelling))

    def _split(self, text: str) -> list[str]:
        if self.spelling == LETTERS:
            return list("".join(word + SPACE for word in text.upper().split()))
        return text.split() if self.spelling == "tokens" else list(SPACE.join(text.split()))

    def encode(self, text: str) -> list[int]:
        """Ids of ``text``, without start or end symbols; what the vocabulary lacks, and text that spells a special symbol, is ``<unk>``."""
        ids = (self._ids.get(part, UNKNOWN) for part in self._split(text))
        return [index if index > UNKNOWN else UNKNOWN for index in ids]

    def decode(self, ids: Iterable[int]) -> str:
        """Text of ``ids``; special symbols, ``<unk>`` among them, are left out."""
        parts = [self._symbols[index] for index in ids if index > UNKNOWN]
        return " ".join(parts) if self.spelling == "tokens" else " ".join("".join(parts).replace(SPACE, " ").split())

    def words(self, ids: Sequence[int]) -> list[WordSpan]:
        """The words of ``ids`` with the positions of their symbols; special symbols belong to no word but do not divide one."""
        if self.spelling == "tokens":
            return [WordSpan(self._symbols[index], place, place + 1) for place, index in enumerate(ids) if index > UNKNOWN]
        spans: list[WordSpan] = []
        open_word: list[int] = []
        for place, index in enumerate([*ids, self._ids.get(SPACE, -1)]):
            if place < len(ids) and index <= UNKNOWN:
                continue
            if place < len(ids) and self._symbols[index] != SPACE:
                open_word.append(place)
            elif open_word:
                spans.append(WordSpan("".join(self._symbols[ids[at]] for at in open_word), open_word[0], open_word[-1] + 1))
                open_word = []
        return spans

    def unknown_report(self, texts: Iterable[str]) -> UnknownReport:
        """How many symbols of ``texts`` the vocabulary lacks."""
        counts = Counter(part for text in texts for part in self._split(text))
        unknown = {part: count for part, count in counts.items() if self._ids.get(part, UNKNOWN) <= UNKNOWN}
        return UnknownReport(sum(unknown.values()), sum(counts.values()), unknown)

    def save(self, folder: str | Path) -> None:
        """Write ``vocabulary.json`` into a model folder."""
        content = {"kind": "symbols", "spelling": self.spelling, "symbols": self._symbols}
        write_text(Path(folder) / FILE, json.dumps(content, ensure_ascii=False, indent=0) + "\n")

    @classmethod
    def load(cls, folder: str | Path) -> "Vocabulary":
        """Read ``vocabulary.json`` from a model folder.

        Raises:
            VocabularyError: the file is missing, damaged, or of another kind.
        """
        path = Path(folder) / FILE
        content = read_description(folder)
        symbols, spelling = content.get("symbols"), str(content.get("spelling", "characters"))
        if content.get("kind") != "symbols" or not isinstance(symbols, list):
            raise VocabularyError(f"{path} does not list symbols (its kind is {content.get('kind')!r}); read it with load_vocabulary.")
        return cls(symbols, spelling)

    def save_dict(self, path: str | Path) -> None:
        """Write fairseq's ``dict.txt``: a symbol and a count in every line, no special symbols. Counts are not kept: all are 1."""
        write_text(path, "".join(f"{symbol} 1\n" for symbol in self._symbols[len(SPECIALS) :]))

    @classmethod
    def load_dict(cls, path: str | Path, spelling: str = "characters") -> "Vocabulary":
        """Read fairseq's ``dict.txt``. Padding entries such as ``madeupword0000`` keep their ids.

        Raises:
            VocabularyError: the file cannot be read, or a line is not a symbol and a count.
        """
        return cls([*SPECIALS, *read_dict(path)], spelling)


def read_dict(path: str | Path) -> list[str]:
    """The symbols of a fairseq ``dict.txt``, without the special ones. Raises VocabularyError naming file and line."""
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise VocabularyError(f"{path} cannot be read as a dictionary: {error}") from error
    symbols = []
    for number, line in enumerate(lines, 1):
        fields = line.rsplit(" #fairseq:overwrite", 1)[0].rsplit(" ", 1)
        if len(fields) != 2 or not fields[1].lstrip("-").isdigit():
            raise VocabularyError(f"{path}, line {number}: expected a symbol and a count, found {line[:60]!r}.")
        symbols.append(fields[0])
    return symbols


def read_description(folder: str | Path) -> dict[str, object]:
    """The content of ``vocabulary.json`` in a model folder. Raises VocabularyError if it is missing or damaged."""
    path = Path(folder) / FILE
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise VocabularyError(f"{path} is missing; a model that writes text keeps its vocabulary there.") from error
    except (OSError, ValueError) as error:
        raise VocabularyError(f"{path} cannot be read: {error}") from error
    if not isinstance(content, dict):
        raise VocabularyError(f"{path} is damaged: expected a JSON object.")
    return content


def load_vocabulary(folder: str | Path) -> Tokenizer:
    """The vocabulary of a model folder, whichever kind it is. Raises VocabularyError if it is missing or damaged."""
    kind = read_description(folder).get("kind")
    if kind == "subwords":
        from avtlm.text.subwords import Subwords  # sentencepiece is needed for this kind only

        return Subwords.load(folder)
    if kind == "wordpieces":
        from avtlm.text.wordpieces import WordPieces  # which builds on this module

        return WordPieces.load(folder)
    return Vocabulary.load(folder)
