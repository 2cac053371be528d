"""Unit labels: one unit per frame of every utterance, written with the utterance's id.

The file has a line ``id <tab> units separated by blanks`` for every utterance; fairseq's layout is read and written by fairseq_labels.py.
Labels are made by discovery.py from features (features.py) and clusters (kmeans.py); text is labelled by text_to_units.py.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from avtlm.data.manifest import Manifest
from avtlm.files import atomic_path

RATE = 25
# Labels of an utterance may end this many seconds before or after its media: 0.1 s as in AV-HuBERT's data code, and a started frame.
TOLERANCE = 0.12


@dataclass(frozen=True)
class UnitLabels(Mapping[str, np.ndarray]):
    """Units of every utterance by id, int32 (frames,); ``counts`` where their numbers are known without reading them."""

    path: Path
    rows: Mapping[str, np.ndarray]
    counts: Mapping[str, int] | None = None

    def __getitem__(self, key: str) -> np.ndarray:
        return self.rows[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    def check(self, manifest: Manifest, rate: float = RATE) -> None:
        """Every utterance has labels of its own length, ``rate`` of them per second.

        Raises:
            ValueError: names the file, the first utterance at fault, and both lengths.
        """
        for row in manifest:
            if row.id not in self.rows:
                raise ValueError(f"{self.path}: no labels for utterance {row.id!r}; run avtlm units over the manifest again.")
            frames, labels = row.duration * rate, len(self.rows[row.id]) if self.counts is None else self.counts[row.id]
            if row.duration and abs(frames - labels) > TOLERANCE * rate:
                raise ValueError(
                    f"{self.path}: {labels} labels for utterance {row.id!r} of {frames:.0f} frames at {rate:g} Hz; "
                    "the labels belong to other media, or have another rate than the model's label_rate."
                )


def read_labels(path: str | Path) -> UnitLabels:
    """Read a label file.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a line that is not ``id <tab> numbers``, by its number, or a file that is no text.
    """
    rows = {}
    try:
        lines = Path(path).read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError:
        raise ValueError(f"{path}: is not UTF-8 text; give a file of unit labels, as avtlm units writes it.") from None
    for number, line in enumerate(lines, 1):
        name, tab, units = line.partition("\t")
        try:
            rows[name] = np.array(units.split(), dtype=np.int32)
        except (ValueError, OverflowError):
            tab = ""
        if not tab:
            raise ValueError(f"{path}, line {number}: expected an id, a tab, and unit numbers; found {line[:60]!r}.")
    return UnitLabels(Path(path), rows)


def write_labels(path: str | Path, rows: Mapping[str, np.ndarray]) -> None:
    """Write a label file atomically."""
    with atomic_path(path) as temporary, open(temporary, "w", encoding="utf-8") as handle:
        for name, units in rows.items():
            handle.write(f"{name}\t{' '.join(map(str, units.tolist()))}\n")
