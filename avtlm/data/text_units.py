"""Texts and the units that their speech was labelled with: what a text-to-unit model is trained on (source task ``text_to_units``).

A row has unit labels, and what is read: its ``phones``, or its transcript if the vocabulary is one of characters. Where phones have times,
their durations in frames of the units are given, too. No sound is read.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from avtlm.data.batching import Batch, pad
from avtlm.data.clip_memory import ClipMemory
from avtlm.data.dataset import ClipDataset, Source, written
from avtlm.data.inputs import InputFormat
from avtlm.data.manifest import Utterance
from avtlm.text.vocabulary import EOS, PAD, UNKNOWN, Tokenizer, Vocabulary
from avtlm.units.labels import TOLERANCE
from avtlm.units.text_to_units import timed_phones

TASK = "text_to_units"
NO_UNIT = -1


def row_phones(row: Utterance) -> list[str]:
    """Symbols of a row's phones, with their times or without; of one with times those that last no time are left out."""
    entries = (row.phones or "").split()
    if entries and all(entry.count(":") >= 2 for entry in entries):
        return [symbol for symbol, start, end in timed_phones(row) if end > start]
    return entries


def phone_durations(row: Utterance, frames: int, rate: float) -> list[int]:
    """How many of a row's ``frames`` each of its timed phones lasts; they add up to all of them.

    Raises:
        ValueError: the phones have no times, or end at another time than the units.
    """
    phones = [entry for entry in timed_phones(row) if entry[2] > entry[1]]
    if abs(phones[-1][2] * rate - frames) > max(TOLERANCE * rate, 1.0):
        raise ValueError(
            f"utterance {row.id!r} has phones of {phones[-1][2]:.2f} s but {frames} units at {rate:g} Hz, which are {frames / rate:.2f} s; "
            "check the label_rate, and that the labels are its own"
        )
    ends = np.clip(np.round([end * rate for _, _, end in phones]), 0, frames).astype(int)
    ends[-1] = frames
    durations: list[int] = np.diff(np.maximum.accumulate(ends), prepend=0).tolist()
    return durations


class TextUnitDataset(ClipDataset):
    """Examples of one source whose task is ``text_to_units``.

    Args:
        source, seed, inputs, training: see ClipDataset; with ``inputs.phone_durations`` batches have those of phones.
        vocabulary: phones, apart by spaces, or the characters of transcripts.

    Raises:
        ValueError: a row that cannot be used, by its id: no phones or transcript, no or no fitting times, no labels.
    """

    def __init__(
        self,
        source: Source,
        seed: int = 0,
        inputs: InputFormat | None = None,
        vocabulary: Tokenizer | None = None,
        training: bool = True,
    ) -> None:
        super().__init__(source, seed, inputs, vocabulary, None, training)
        assert vocabulary is not None, "texts need a vocabulary"
        if self.labels is None:
            raise ValueError(f"{source.manifest}: text_to_units needs unit labels; set the source's key 'units' (see avtlm units --help).")
        self._index = {symbol: number for number, symbol in enumerate(vocabulary.symbols)}
        self._reads_phones = isinstance(vocabulary, Vocabulary) and vocabulary.spelling == "tokens"
        self._timed = self.inputs.phone_durations
        self._lengths = [self._check(row) for row in self.manifest]

    def _memories(self) -> tuple[ClipMemory, ClipMemory]:
        """None: nothing is heard or seen."""
        return ClipMemory([0] * len(self.manifest), 0), ClipMemory([0] * len(self.manifest), 0)

    def _check(self, row: Utterance) -> int:
        """Refuse a row that cannot be used; returns how many units, or symbols if there are more, a batch holds of it."""
        assert self.labels is not None
        if row.id not in self.labels or not len(self.labels[row.id]):
            raise ValueError(f"{self.labels.path}: no labels for utterance {row.id!r}; run avtlm units over the manifest again.")
        try:
            symbols = self._symbols(row)
            if self._timed:
                phone_durations(row, len(self.labels[row.id]), self.inputs.label_rate)
        except ValueError as error:
            raise ValueError(f"{self.source.manifest}: {str(error).rstrip('.')}.") from None
        return max(len(symbols) + 1, len(self.labels[row.id]))

    def _symbols(self, row: Utterance) -> list[int]:
        """Ids of what is read, without their end."""
        if self._reads_phones:
            phones = row_phones(row)
            if not phones:
                raise ValueError(f"utterance {row.id!r} has no phones; this model reads them, so leave it out, or align the corpus")
            return [self._index.get(phone, UNKNOWN) for phone in phones]
        text = written(row, self.source.written)
        if text is None or not text.strip():
            raise ValueError(f"utterance {row.id!r} has {'no' if text is None else 'an empty'} {self.source.written}; leave it out")
        assert self.vocabulary is not None
        return self.vocabulary.encode(text)

    def frames(self, index: int) -> int:
        """Units of a row, or symbols if there are more."""
        return self._lengths[index]

    def batch(self, rows: Sequence[int], epoch: int = 0, progress: float = 1.0) -> Batch:
        """Several examples, the same in every epoch: ``text`` with end symbols, and the targets ``units`` and ``durations``."""
        del epoch, progress
        assert self.labels is not None
        chosen = [self.manifest[row] for row in rows]
        text, text_lengths = pad([torch.tensor([*self._symbols(row), EOS]) for row in chosen], PAD)
        units, unit_lengths = pad([torch.from_numpy(np.asarray(self.labels[row.id])).long() for row in chosen], NO_UNIT)
        targets: dict[str, Tensor] = {"units": units}
        lengths = {"units": unit_lengths}
        if self._timed:
            rate = self.inputs.label_rate
            counted = [[*phone_durations(row, len(self.labels[row.id]), rate), 0] for row in chosen]  # an end lasts no time
            targets["durations"], lengths["durations"] = pad([torch.tensor(each) for each in counted])
        ids = tuple(row.id for row in chosen)
        return Batch(ids, TASK, text=text, text_lengths=text_lengths, targets=targets, target_lengths=lengths)
