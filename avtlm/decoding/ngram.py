"""Back-off n-gram language models from ARPA files (Katz 1987), word by word; log10 as in the file.

Plain dictionaries: right for the models of tests and of small tasks. A pruned 4-gram of LibriSpeech has tens of millions of entries and
wants KenLM.
"""

from dataclasses import dataclass
from pathlib import Path

START, END, UNKNOWN = "<s>", "</s>", "<unk>"


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
        """Read an ARPA file.

        Raises:
            OSError: it cannot be opened.
            ValueError: a line that belongs to no n-gram, by its number.
        """
        order, length = 0, 0
        probabilities: dict[tuple[str, ...], float] = {}
        backoffs: dict[tuple[str, ...], float] = {}
        with open(path, encoding="utf-8") as lines:
            for number, line in enumerate(lines, 1):
                text = line.strip()
                if text.endswith("-grams:") and text.startswith("\\"):
                    length = int(text[1 : -len("-grams:")])
                    order = max(order, length)
                elif text and length and not text.startswith("\\"):
                    fields = text.split()
                    if len(fields) not in (length + 1, length + 2):
                        raise ValueError(
                            f"{path}, line {number}: {len(fields)} fields where a {length}-gram has {length + 1} or {length + 2}."
                        )
                    words = tuple(fields[1 : length + 1])
                    probabilities[words] = float(fields[0])
                    if len(fields) == length + 2:
                        backoffs[words] = float(fields[-1])
        if not order:
            raise ValueError(f"{path}: no n-grams; give a language model in ARPA format.")
        return cls(order, probabilities, backoffs)
