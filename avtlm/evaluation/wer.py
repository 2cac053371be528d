"""Word and character error rates with their uncertainty.

A rate is the sum of all errors over the sum of all reference units, never a mean of utterance rates. If the references hold no unit at all,
the number of inserted ones stands for the rate, as in jiwer. The interval comes from a bootstrap over utterances (Bisani and Ney 2004).
Errors of an utterance are unique, their division into substitutions, deletions and insertions is not: compare sums.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from avtlm.errors import needs

if TYPE_CHECKING:
    from rich.table import Table

RESAMPLES = 1000
CHUNK = 4_000_000  # drawn utterances held in memory at once


@dataclass(frozen=True)
class ErrorRate:
    """An error rate over a corpus. ``rate``, ``low`` and ``high`` are fractions: 0.12 is 12 %.

    ``words`` counts reference units: words, or characters for a CER. ``low`` and ``high`` bound the 95 % interval.
    """

    rate: float
    errors: int
    words: int
    low: float
    high: float
    utterances: int = 0
    substitutions: int = 0
    deletions: int = 0
    insertions: int = 0

    @property
    def percent(self) -> float:
        return 100 * self.rate

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval in percent."""
        return 100 * self.low, 100 * self.high

    def __str__(self) -> str:
        return f"{self.percent:.1f} % ({self.interval[0]:.1f}-{self.interval[1]:.1f})"


@dataclass(frozen=True)
class WordPair:
    """One step of an alignment: ``kind`` is equal, substitute, delete or insert; the side that lacks a word is empty."""

    kind: str
    reference: str
    hypothesis: str


def align_words(reference: str, hypothesis: str) -> list[WordPair]:
    """A minimal alignment of two sentences, word by word."""
    words, heard = reference.split(), hypothesis.split()
    pairs = []
    for chunk in _process([reference], [hypothesis], characters=False).alignments[0]:
        if chunk.type == "delete":
            pairs += [WordPair("delete", word, "") for word in words[chunk.ref_start_idx : chunk.ref_end_idx]]
        elif chunk.type == "insert":
            pairs += [WordPair("insert", "", word) for word in heard[chunk.hyp_start_idx : chunk.hyp_end_idx]]
        else:
            sides = zip(words[chunk.ref_start_idx : chunk.ref_end_idx], heard[chunk.hyp_start_idx : chunk.hyp_end_idx])
            pairs += [WordPair(chunk.type, word, other) for word, other in sides]
    return pairs


def word_errors(reference: str, hypothesis: str) -> tuple[int, int]:
    """Errors and reference words of one sentence; words are what white space divides."""
    errors, words, _ = _count([(reference, hypothesis)], characters=False, spaces=True)
    return int(errors[0]), int(words[0])


def character_errors(reference: str, hypothesis: str, spaces: bool = True) -> tuple[int, int]:
    """Errors and reference characters of one sentence, with spaces counted (English tables) or after removing them (Chinese ones)."""
    errors, characters, _ = _count([(reference, hypothesis)], characters=True, spaces=spaces)
    return int(errors[0]), int(characters[0])


def corpus_wer(pairs: Iterable[tuple[str, str]], resamples: int = RESAMPLES, seed: int = 0) -> ErrorRate:
    """Word error rate of (reference, hypothesis) pairs with its 95 % bootstrap interval.

    Raises:
        ValueError: there are no pairs.
    """
    return _rate(list(pairs), False, True, resamples, seed)


def corpus_cer(pairs: Iterable[tuple[str, str]], spaces: bool = True, resamples: int = RESAMPLES, seed: int = 0) -> ErrorRate:
    """Character error rate of (reference, hypothesis) pairs with its 95 % bootstrap interval.

    Args:
        pairs: reference and hypothesis of every utterance.
        spaces: True counts single spaces between words (jiwer's way, English tables); False removes all spaces first (AISHELL).
        resamples: draws of the bootstrap.
        seed: of the bootstrap.

    Raises:
        ValueError: there are no pairs.
    """
    return _rate(list(pairs), True, spaces, resamples, seed)


def corpus_per(pairs: Iterable[tuple[Sequence[str], Sequence[str]]], resamples: int = RESAMPLES, seed: int = 0) -> ErrorRate:
    """Phone error rate of (reference, hypothesis) pairs, lists of phones, with its 95 % bootstrap interval.

    Raises:
        ValueError: there are no pairs, or a phone is empty or has white space in it.
    """
    given = [(list(reference), list(hypothesis)) for reference, hypothesis in pairs]
    broken = [phone for pair in given for side in pair for phone in side if len(phone.split()) != 1 or phone != phone.strip()]
    if broken:
        raise ValueError(f"{broken[0]!r} is no phone: phones are not empty and have no white space; give lists of them.")
    return corpus_wer([(" ".join(reference), " ".join(hypothesis)) for reference, hypothesis in given], resamples, seed)


def slot_errors(pairs: Iterable[tuple[str, str]], slots: Sequence[str], resamples: int = RESAMPLES, seed: int = 0) -> dict[str, ErrorRate]:
    """Where sentences of a fixed form go wrong: substituted and deleted words per slot. Inserted words belong to no slot.

    Args:
        pairs: reference and hypothesis of every utterance; references have one word per slot.
        slots: names, such as command, colour, preposition, letter, digit, adverb.
        resamples: draws of the bootstrap.
        seed: of the bootstrap.

    Raises:
        ValueError: there are no pairs, or a reference has another number of words than there are slots.
    """
    rows = []
    for reference, hypothesis in pairs:
        aligned = [pair.kind for pair in align_words(reference, hypothesis) if pair.kind != "insert"]
        if len(aligned) != len(slots):
            raise ValueError(f"The reference {reference!r} has {len(aligned)} words, not one for each of the {len(slots)} slots.")
        rows.append([(kind == "substitute", kind == "delete") for kind in aligned])
    if not rows:
        raise ValueError("Error rates need at least one pair of reference and hypothesis.")
    wrong = np.asarray(rows, dtype=np.int64)  # (utterances, slots, 2)
    ones = np.ones(len(rows), dtype=np.int64)
    rates = {}
    for place, name in enumerate(slots):
        substituted, deleted = wrong[:, place].sum(0).tolist()
        low, high = bootstrap_interval(wrong[:, place].sum(1), ones, resamples, seed)
        total = substituted + deleted
        rates[name] = ErrorRate(total / len(rows), total, len(rows), low, high, len(rows), substituted, deleted, 0)
    return rates


def bootstrap_interval(errors: np.ndarray, words: np.ndarray, resamples: int = RESAMPLES, seed: int = 0) -> tuple[float, float]:
    """The 95 % percentile interval of sum(errors) / sum(words) when utterances are drawn again with replacement.

    It is widened to hold the rate itself, which can lie outside in tiny corpora of very unequal utterances.

    Args:
        errors: (utterances,) int.
        words: (utterances,) int.
        resamples: number of draws of the whole corpus.
        seed: the same seed gives the same interval.

    Raises:
        ValueError: there are no utterances, or fewer than one resample is asked for.
    """
    if len(errors) == 0 or len(errors) != len(words):
        raise ValueError(f"A bootstrap needs as many errors as words and at least one utterance, not {len(errors)} and {len(words)}.")
    if resamples < 1:
        raise ValueError(f"A bootstrap of {resamples} resamples cannot be made; ask for at least one.")
    rng = np.random.default_rng(seed)
    rates = []
    step = max(1, CHUNK // len(errors))
    for start in range(0, resamples, step):
        drawn = rng.integers(0, len(errors), size=(min(step, resamples - start), len(errors)))
        rates.append(errors[drawn].sum(1) / np.maximum(words[drawn].sum(1), 1))
    low, high = np.percentile(np.concatenate(rates), [2.5, 97.5])
    rate = errors.sum() / max(words.sum(), 1)
    return float(min(low, rate)), float(max(high, rate))


def error_table(rates: Mapping[str, ErrorRate], title: str = "Word error rate", unit: str = "Words") -> "Table":
    """A table for the terminal: one line for every named rate."""
    from rich.table import Table

    table = Table(title=title, title_justify="left")
    table.add_column("")
    for heading in ("%", "95 % interval", "Errors", unit, "Sub.", "Del.", "Ins."):
        table.add_column(heading, justify="right")
    for name, rate in rates.items():
        interval = f"{rate.interval[0]:.1f}-{rate.interval[1]:.1f}"
        counts = (rate.errors, rate.words, rate.substitutions, rate.deletions, rate.insertions)
        table.add_row(name, f"{rate.percent:.1f}", interval, *(f"{count:,}" for count in counts))
    return table


def check() -> None:
    """Raises MissingExtra: jiwer, which aligns texts, is not installed. For those who would learn it only after hours."""
    with needs("train", "jiwer", "error rates"):
        import jiwer  # noqa: F401


def _process(references: list[str], hypotheses: list[str], characters: bool) -> Any:
    with needs("train", "jiwer", "error rates"):
        import jiwer

    if characters:
        return jiwer.process_characters(references, hypotheses)
    return jiwer.process_words([" ".join(text.split()) for text in references], [" ".join(text.split()) for text in hypotheses])


def _count(pairs: Sequence[tuple[str, str]], characters: bool, spaces: bool) -> tuple[np.ndarray, np.ndarray, tuple[int, int, int]]:
    """Errors (utterances,), reference units (utterances,), and the corpus sums of substitutions, deletions and insertions."""
    if not pairs:
        raise ValueError("Error rates need at least one pair of reference and hypothesis.")
    texts = [[side if spaces else "".join(side.split()) for side in pair] for pair in pairs]
    out = _process([pair[0] for pair in texts], [pair[1] for pair in texts], characters)
    errors = np.zeros(len(pairs), dtype=np.int64)
    for row, chunks in enumerate(out.alignments):
        for chunk in chunks:
            if chunk.type != "equal":
                errors[row] += max(chunk.ref_end_idx - chunk.ref_start_idx, chunk.hyp_end_idx - chunk.hyp_start_idx)
    words = np.asarray([len(units) for units in out.references], dtype=np.int64)
    return errors, words, (int(out.substitutions), int(out.deletions), int(out.insertions))


def _rate(pairs: Sequence[tuple[str, str]], characters: bool, spaces: bool, resamples: int, seed: int) -> ErrorRate:
    errors, words, kinds = _count(pairs, characters, spaces)
    low, high = bootstrap_interval(errors, words, resamples, seed)
    total, units = int(errors.sum()), int(words.sum())
    return ErrorRate(total / max(units, 1), total, units, low, high, len(pairs), *kinds)
