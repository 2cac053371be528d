"""Back-off n-gram language models from ARPA files (Katz 1987), word by word; log10 as in the file.

Plain dictionaries: right for the models of tests and of small tasks. A pruned 4-gram of LibriSpeech has tens of millions of entries and
wants KenLM.
"""

import gzip
import io
import math
import zlib
from dataclasses import dataclass
from pathlib import Path

START, END, UNKNOWN = "<s>", "</s>", "<unk>"
IMPOSSIBLE = -99.0  # stands for log10 of 0, as in the files of SRILM


@dataclass(frozen=True)
class NGram:
    """Log10 probabilities and back-off weights by tuples of words.

    Attributes:
        order: words of the longest entries.
    """

    order: int
    probabilities: dict[tuple[str, ...], float]
    backoffs: dict[tuple[str, ...], float]

    @property
    def start(self) -> tuple[str, ...]:
        """The context of a sentence's first word."""
        return (START,)

    def extend(self, context: tuple[str, ...], word: str) -> tuple[str, ...]:
        """The context after a word, as long as it can matter."""
        known = word if (word,) in self.probabilities else UNKNOWN
        return (*context, known)[-max(self.order - 1, 0) :] if self.order > 1 else ()

    def score(self, context: tuple[str, ...], word: str) -> float:
        """Log10 probability of a word, or of the end of the sentence, after a context. Unknown words share the entry of ``<unk>``."""
        known = word if (word,) in self.probabilities else UNKNOWN
        entry = (*context, known)
        found = self.probabilities.get(entry)
        if found is not None:
            return found
        if not context:
            return -100.0  # a model without <unk>, as KenLM has it
        return self.backoffs.get(context, 0.0) + self.score(context[1:], known)

    @classmethod
    def read(cls, path: str | Path) -> "NGram":
        """Read an ARPA file, plain or compressed (``.gz``).

        Raises:
            OSError: it cannot be opened.
            ValueError: it is no ARPA file, is cut off, or has a line that belongs to no n-gram, by its number.
        """
        try:
            with _opened(path) as lines:
                return cls._parse(path, lines)
        except (UnicodeDecodeError, gzip.BadGzipFile, zlib.error, EOFError) as error:
            raise ValueError(f"{path}: is damaged or no text; give a language model in ARPA format, plain or as .gz.") from error

    @classmethod
    def _parse(cls, path: str | Path, lines: io.TextIOBase) -> "NGram":
        order, length, ended = 0, 0, False
        promised: dict[int, int] = {}
        found: dict[int, int] = {}
        probabilities: dict[tuple[str, ...], float] = {}
        backoffs: dict[tuple[str, ...], float] = {}
        for number, line in enumerate(lines, 1):
            text = line.strip()
            if text == "\\end\\":
                ended = True
                break
            if text.startswith("ngram ") and not length:
                size, _, count = text.removeprefix("ngram ").partition("=")
                promised[_whole(path, number, size)] = _whole(path, number, count)
            elif text.endswith("-grams:") and text.startswith("\\"):
                length = _whole(path, number, text[1 : -len("-grams:")])
                order = max(order, length)
            elif text and length and not text.startswith("\\"):
                fields = text.split()
                if len(fields) not in (length + 1, length + 2):
                    raise ValueError(f"{path}, line {number}: {len(fields)} fields where a {length}-gram has {length + 1} or {length + 2}.")
                words = tuple(fields[1 : length + 1])
                found[length] = found.get(length, 0) + 1
                probabilities[words] = _log10(path, number, fields[0])
                if len(fields) == length + 2:
                    backoffs[words] = _log10(path, number, fields[-1])
        if not order:
            raise ValueError(f"{path}: no n-grams; give a language model in ARPA format.")
        short = next((size for size, count in sorted(promised.items()) if found.get(size, 0) != count), None)
        if short is not None or not ended:
            counts = "" if short is None else f", with {found.get(short, 0)} of {promised[short]} {short}-grams"
            raise ValueError(f"{path}: does not end as an ARPA file{counts}; it is cut off, copy it again.")
        return cls(order, probabilities, backoffs)


def _opened(path: str | Path) -> io.TextIOBase:
    if Path(path).suffix == ".gz":
        return io.TextIOWrapper(gzip.open(path), encoding="utf-8")
    return open(path, encoding="utf-8")


def _whole(path: str | Path, number: int, text: str) -> int:
    if not text.strip().isdecimal():
        raise ValueError(f"{path}, line {number}: {text.strip()[:40]!r} where a number of words or n-grams belongs.")
    return int(text)


def _log10(path: str | Path, number: int, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if math.isnan(value) or value == math.inf:
        raise ValueError(f"{path}, line {number}: {text[:40]!r} is no log10 of a probability.")
    return max(value, IMPOSSIBLE)
