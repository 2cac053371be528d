"""Phonemes of Mandarin lines as units, one after the other without silences or durations: what MMSpeech reads, and names by CTC."""

import json
from collections.abc import Sequence
from dataclasses import asdict

import numpy as np

from avtlm.text.mandarin import PHONEMES, MandarinConfig, MandarinPhonemizer
from avtlm.units.generators import Counts, hash_of


class MandarinUnits:
    """A generator of units, see avtlm.units.generators.TextToUnits; they are numbered in the order of the official dictionary.

    Args:
        config: how text becomes phonemes.

    Raises:
        OSError, ValueError, MissingExtra: see MandarinPhonemizer.
    """

    def __init__(self, config: MandarinConfig) -> None:
        self.symbols = list(PHONEMES)
        self.counts = Counts()
        self._phonemizer = MandarinPhonemizer(config)
        self._index = {phone: number for number, phone in enumerate(PHONEMES)}

    @property
    def identity(self) -> str:
        words = "".join(f"{word} {' '.join(phones)}" for word, phones in (self._phonemizer.words or {}).items())
        return hash_of(json.dumps([asdict(self._phonemizer.config), hash_of(words)]))

    def __call__(self, texts: Sequence[str], ids: Sequence[str]) -> list[np.ndarray | None]:
        """Phonemes of every line; None for one of which nothing can be said.

        Raises:
            ValueError: a line cannot be said, by its id; or the lexicon has other phonemes.
        """
        found: list[np.ndarray | None] = []
        for name, text in zip(ids, texts, strict=True):
            phones = self._phonemizer(text, f"line {name!r}")
            odd = next((phone for phone in phones if phone not in self._index), None)
            if odd is not None:
                raise ValueError(f"line {name!r}: the lexicon writes {odd!r}, which is none of the {len(PHONEMES)} phonemes of Mandarin.")
            found.append(np.array([self._index[phone] for phone in phones], dtype=np.int32) if phones else None)
        return found
