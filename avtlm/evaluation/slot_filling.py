"""Slot filling as SUPERB scores it: ``B-type value E-type`` marks a slot in a transcript.

The F1 of slot types is a mean over utterances on *sets* of types, not a count over the corpus. The error rate of slot values compares each
value of the reference with the closest one of the same type in the hypothesis, and is a rate of the corpus.
"""

import re
from collections.abc import Callable, Iterable

from avtlm.evaluation.wer import ErrorRate, character_errors, corpus_cer, corpus_wer, word_errors

SLOT = re.compile(r"B-(\S+) (.+?) E-\1")
MARK = re.compile(r"B-\S+ | E-\S+")


def slots(text: str, marks: bool = False) -> dict[str, list[str]]:
    """Values by slot type; marks of other slots inside a value are left out unless they are to be kept."""
    found: dict[str, list[str]] = {}
    for kind, value in SLOT.findall(re.sub(" +", " ", text)):
        found.setdefault(kind, []).append(value if marks else MARK.sub("", value))
    return found


def slot_type_f1(pairs: Iterable[tuple[str, str]]) -> float:
    """Mean over utterances of the F1 between the sets of slot types; two empty sets agree.

    Args:
        pairs: (reference, hypothesis).

    Raises:
        ValueError: no utterance.
    """
    scores = []
    for reference, hypothesis in pairs:
        wanted, given = set(slots(reference)), set(slots(hypothesis))
        scores.append(2 * len(wanted & given) / (len(wanted) + len(given)) if wanted or given else 1.0)
    if not scores:
        raise ValueError("there is no utterance to score.")
    return sum(scores) / len(scores)


def slot_value_cer(pairs: Iterable[tuple[str, str]]) -> ErrorRate:
    """Character error rate of slot values, blanks included; arguments as for :func:`slot_type_f1`."""
    return corpus_cer(_values(pairs, character_errors))


def slot_value_wer(pairs: Iterable[tuple[str, str]]) -> ErrorRate:
    """Word error rate of slot values; arguments as for :func:`slot_type_f1`."""
    return corpus_wer(_values(pairs, word_errors))


def _values(pairs: Iterable[tuple[str, str]], errors: Callable[[str, str], tuple[int, int]]) -> list[tuple[str, str]]:
    """Each value of the references with the nearest of its type, the first of several, or nothing. SUPERB's code leaves marks inside a
    value out of hypotheses only."""
    found = []
    for reference, hypothesis in pairs:
        given = slots(hypothesis)
        for kind, values in slots(reference, marks=True).items():
            for value in values:
                found.append((value, min(given.get(kind, [""]), key=lambda other: errors(value, other)[0])))
    if not found:
        raise ValueError("no reference holds a slot (B-type value E-type), so there is no value to score.")
    return found
