"""Units for text that nobody spoke (VATLM section III-C): what each phone sounds like, counted on paired data.

For every frame of a labelled corpus whose phones are timed, the pair (phone, third of the phone) is counted with the frame's unit; text is
then labelled with the most frequent unit of each pair. VATLM trains a neural phone-to-unit generator in its place; the counts are its
simplest form and are enough to bring text into a small model.
"""

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from avtlm.data.manifest import Manifest, Utterance, read_manifest
from avtlm.units.labels import RATE, UnitLabels, read_labels, write_labels

PARTS = 3


def timed_phones(row: Utterance) -> list[tuple[str, float, float]]:
    """``symbol:start:end ...`` of a manifest row as (symbol, start, end) in seconds.

    Raises:
        ValueError: the row has no timed phones.
    """
    try:
        entries = [entry.rsplit(":", 2) for entry in (row.phones or "").split()]
        timed = [(symbol, float(start), float(end)) for symbol, start, end in entries]
    except ValueError:
        timed = []
    if not timed:
        raise ValueError(f"utterance {row.id!r} has no timed phones (symbol:start:end in seconds).")
    return timed


def frame_phones(row: Utterance) -> list[tuple[str, int]]:
    """The phone in the middle of every frame of 40 ms, and which third of it the middle lies in."""
    phones = timed_phones(row)
    frames: list[tuple[str, int]] = []
    current = 0
    for index in range(max(1, round(phones[-1][2] * RATE))):
        middle = (index + 0.5) / RATE
        while current < len(phones) - 1 and middle >= phones[current][2]:
            current += 1
        symbol, start, end = phones[current]
        inside = start <= middle < end
        frames.append((symbol, min(int(PARTS * (middle - start) / (end - start)), PARTS - 1)) if inside else ("", 0))
    return frames


@dataclass(frozen=True)
class PhoneUnits:
    """The most frequent unit of each (phone, third), and of each phone where a third was never seen."""

    table: Mapping[tuple[str, int], int]
    default: int

    def __call__(self, row: Utterance) -> np.ndarray:
        """Units at 25 Hz for a row with timed phones, int32 (frames,)."""
        return np.array([self.table.get(key, self.default) for key in frame_phones(row)], dtype=np.int32)


def learn(manifest: Manifest, labels: UnitLabels) -> PhoneUnits:
    """Count on every row that has both labels and timed phones.

    Raises:
        ValueError: no row has both.
    """
    counts: dict[tuple[str, int], Counter[int]] = defaultdict(Counter)
    total: Counter[int] = Counter()
    for row in manifest:
        if row.id not in labels or not row.phones:
            continue
        for key, unit in zip(frame_phones(row), labels[row.id].tolist(), strict=False):
            counts[key][unit] += 1
            total[unit] += 1
    if not total:
        raise ValueError(f"{manifest.source or manifest.root}: no utterance has both unit labels and timed phones, so none can be learned.")
    return PhoneUnits({key: counter.most_common(1)[0][0] for key, counter in counts.items()}, total.most_common(1)[0][0])


def label_text(paired: str | Path, paired_labels: str | Path, text: str | Path, out: str | Path) -> Path:
    """Learn from a paired manifest and its labels, label a text manifest, write ``out``; returns its path."""
    generator = learn(read_manifest(paired), read_labels(paired_labels))
    write_labels(out, {row.id: generator(row) for row in read_manifest(text)})
    return Path(out)
