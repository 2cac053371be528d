"""What the synthetic speakers say: command sentences of the GRID grammar, digit strings and word strings, all distinct."""

from typing import Literal

import numpy as np

Kind = Literal["command", "digits", "words", "mixed"]
KINDS: tuple[Kind, ...] = ("command", "digits", "words", "mixed")

GRAMMAR: tuple[tuple[str, ...], ...] = (
    ("bin", "lay", "place", "set"),
    ("blue", "green", "red", "white"),
    ("at", "by", "in", "with"),
    tuple("abcdefghijklmnopqrstuvxyz"),  # no w: its name is three syllables long
    ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"),
    ("again", "now", "please", "soon"),
)
DIGITS = GRAMMAR[4]
WORDS = tuple(word for slot in (0, 1, 2, 4, 5) for word in GRAMMAR[slot])


def sentence(kind: Kind, rng: np.random.Generator) -> str:
    """One sentence in lower case. Digit and word strings have 4 to 7 words; of mixed sentences three in five are commands."""
    if kind == "mixed":
        kind = ("command", "command", "command", "digits", "words")[int(rng.integers(5))]
    if kind == "command":
        return " ".join(slot[int(rng.integers(len(slot)))] for slot in GRAMMAR)
    words = DIGITS if kind == "digits" else WORDS
    return " ".join(words[int(i)] for i in rng.integers(0, len(words), int(rng.integers(4, 8))))


def distinct(kind: Kind, count: int, rng: np.random.Generator) -> list[str]:
    """``count`` different sentences.

    Raises:
        ValueError: the grammar has not got that many.
    """
    if kind == "command" and count > 64_000:
        raise ValueError(f"sentences: {count} command sentences, but the grammar has 64,000; ask for fewer or for digits or words.")
    found: dict[str, None] = {}
    while len(found) < count:
        found[sentence(kind, rng)] = None
    return list(found)


def spoken(text: str) -> str:
    """As the synthesiser is to read it: lone letters in upper case are spelt."""
    return " ".join(word.upper() if len(word) == 1 else word for word in text.split())
