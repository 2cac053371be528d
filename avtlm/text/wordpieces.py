"""BERT's word pieces: Chinese falls into characters, everything else into the longest pieces that its list has (MMSpeech's texts).

What is unusual here:
- Text is lower-cased and loses its accents, as in uncased models. What the list lacks is ``<unk>``.
- Pieces that go on with a word begin with ``##``. Text that is put together again has no spaces around Chinese characters.

Source: google-research/bert, tokenization.py, as transformers' BertTokenizer has it.
"""

import json
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from avtlm.files import write_text
from avtlm.text.vocabulary import FILE, SPECIALS, UNKNOWN, UnknownReport, VocabularyError, WordSpan, read_description, read_dict

KIND = "wordpieces"
GOES_ON = "##"
LONGEST = 100  # characters of a word that is looked up
# Blocks of characters that are words by themselves.
CHINESE = (
    *((0x4E00, 0x9FFF), (0x3400, 0x4DBF), (0x20000, 0x2A6DF), (0x2A700, 0x2B73F), (0x2B740, 0x2B81F), (0x2B820, 0x2CEAF)),
    *((0xF900, 0xFAFF), (0x2F800, 0x2FA1F)),
)


class WordPieces:
    """Symbols of word pieces; meets the protocol `avtlm.text.vocabulary.Tokenizer`.

    Args:
        symbols: in the order of their ids, the four special ones first.

    Raises:
        VocabularyError: the special symbols are not where they belong, or a symbol comes twice.
    """

    def __init__(self, symbols: Sequence[str]) -> None:
        if tuple(symbols[: len(SPECIALS)]) != SPECIALS:
            raise VocabularyError(f"A vocabulary starts with {' '.join(SPECIALS)}, not with {' '.join(symbols[:4])}.")
        self._symbols = list(symbols)
        self._ids = {symbol: index for index, symbol in enumerate(symbols)}
        if len(self._ids) != len(self._symbols):
            twice = next(symbol for symbol, count in Counter(symbols).items() if count > 1)
            raise VocabularyError(f"The symbol {twice!r} is in the vocabulary more than once; give every symbol once.")

    @classmethod
    def read(cls, path: str | Path, further: Sequence[str] = ()) -> "WordPieces":
        """BERT's ``vocab.txt`` (a symbol in every line), or fairseq's ``dict.txt`` of the same (a symbol and a count).

        Args:
            further: symbols behind them, those that are not there yet.

        Raises:
            VocabularyError: the file cannot be read.
        """
        try:
            first = Path(path).read_text(encoding="utf-8").split("\n", 1)[0]
            counted = len(first.rsplit(" ", 1)) == 2
            symbols = read_dict(path) if counted else Path(path).read_text(encoding="utf-8").rstrip("\n").split("\n")
        except (OSError, UnicodeDecodeError) as error:
            raise VocabularyError(f"{path} cannot be read as a list of word pieces: {error}") from error
        whole = symbols if tuple(symbols[: len(SPECIALS)]) == SPECIALS else [*SPECIALS, *symbols]
        return cls([*whole, *(symbol for symbol in further if symbol not in whole)])

    @property
    def symbols(self) -> list[str]:
        return list(self._symbols)

    def __len__(self) -> int:
        return len(self._symbols)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, WordPieces) and self._symbols == other._symbols

    def __hash__(self) -> int:
        return hash(tuple(self._symbols))

    def encode(self, text: str) -> list[int]:
        """Ids of ``text``, without start or end symbols."""
        return [index for word in split_words(text) for index in self._pieces(word)]

    def _pieces(self, word: str) -> list[int]:
        """The longest pieces from the left, or ``<unk>`` for the whole word."""
        found, start = list[int](), 0
        if len(word) > LONGEST:
            return [UNKNOWN]
        while start < len(word):
            end = len(word)
            prefix = GOES_ON if start else ""
            while end > start and self._ids.get(prefix + word[start:end], UNKNOWN) <= UNKNOWN:
                end -= 1
            if end == start:
                return [UNKNOWN]
            found.append(self._ids[prefix + word[start:end]])
            start = end
        return found

    def decode(self, ids: Iterable[int]) -> str:
        """Text of ``ids``; special symbols, ``<unk>`` among them, are left out."""
        text = ""
        for span in self.words([index for index in ids if index > UNKNOWN]):
            apart = text and not (_is_wide(text[-1]) or _is_wide(span.text[0]))
            text += f" {span.text}" if apart else span.text
        return text

    def words(self, ids: Sequence[int]) -> list[WordSpan]:
        """Characters of Chinese and words of anything else, with the positions of their pieces."""
        spans: list[WordSpan] = []
        for place, index in enumerate(ids):
            if index <= UNKNOWN:
                continue
            symbol = self._symbols[index]
            if symbol.startswith(GOES_ON) and len(symbol) > len(GOES_ON) and spans:
                last = spans[-1]
                spans[-1] = WordSpan(last.text + symbol[len(GOES_ON) :], last.first, place + 1)
            else:
                spans.append(WordSpan(symbol, place, place + 1))
        return spans

    def unknown_report(self, texts: Iterable[str]) -> UnknownReport:
        """How many words of ``texts`` the vocabulary cannot write; Chinese characters are words."""
        counts = Counter(word for text in texts for word in split_words(text))
        unknown = {word: count for word, count in counts.items() if self._pieces(word) == [UNKNOWN]}
        return UnknownReport(sum(unknown.values()), sum(counts.values()), unknown)

    def save(self, folder: str | Path) -> None:
        """Write ``vocabulary.json`` into a model folder."""
        write_text(Path(folder) / FILE, json.dumps({"kind": KIND, "symbols": self._symbols}, ensure_ascii=False, indent=0) + "\n")

    @classmethod
    def load(cls, folder: str | Path) -> "WordPieces":
        """Read ``vocabulary.json`` from a model folder.

        Raises:
            VocabularyError: the file is missing, damaged, or of another kind.
        """
        content = read_description(folder)
        symbols = content.get("symbols")
        if content.get("kind") != KIND or not isinstance(symbols, list):
            raise VocabularyError(f"{Path(folder) / FILE} does not list word pieces (its kind is {content.get('kind')!r}).")
        return cls(symbols)


def split_words(text: str) -> list[str]:
    """Lower-case words without accents; Chinese characters and marks of punctuation are words by themselves."""
    words: list[str] = []
    inside = False
    for character in unicodedata.normalize("NFD", unicodedata.normalize("NFC", text).lower()):
        kind = unicodedata.category(character)
        if character.isspace():
            inside = False
        elif kind == "Mn" or kind.startswith("C") or character == "\ufffd":
            continue
        elif _is_chinese(character) or _is_mark(character, kind):
            words.append(character)
            inside = False
        elif inside:
            words[-1] += character
        else:
            words.append(character)
            inside = True
    return words


def _is_chinese(character: str) -> bool:
    return any(first <= ord(character) <= last for first, last in CHINESE)


def _is_wide(character: str) -> bool:
    """Chinese characters and marks, which have no spaces around them."""
    return unicodedata.east_asian_width(character) in "WF"


def _is_mark(character: str, kind: str) -> bool:
    return kind.startswith("P") or (character.isascii() and not character.isalnum() and character.isprintable())
