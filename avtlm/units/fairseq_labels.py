"""Unit labels in the layout that fairseq, HuBERT and AV-HuBERT read: ``{split}.km`` and ``dict.km.txt`` beside ``{split}.tsv``.

A km file has one line of units, separated by blanks, for every line of the tsv. The dictionary has a line ``symbol count`` for every unit;
a unit's class in a model is the number of its line, whatever its symbol is. AV-HuBERT's README writes symbols from 1, so that its first
cluster, 0, becomes the unknown symbol; here such a file is refused, and dictionaries are written from 0.

Source: fairseq, examples/hubert/simple_kmeans, and AV-HuBERT, avhubert/clustering.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from avtlm.data.manifest import Manifest, read_tsv, write_tsv
from avtlm.files import write_text
from avtlm.units.labels import UnitLabels

DICTIONARY = "dict.km.txt"


def read_dictionary(path: str | Path) -> dict[str, int]:
    """Class of every symbol.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a line that is not ``symbol count``, or a symbol that is there twice, by its line.
    """
    found: dict[str, int] = {}
    for number, line in enumerate(Path(path).read_text(encoding="utf-8").splitlines(), 1):
        symbol, _, count = line.rpartition(" ")
        if not symbol or not count.isdecimal():
            raise ValueError(f"{path}, line {number}: expected a unit and a count; found {line[:60]!r}.")
        if symbol in found:
            raise ValueError(f"{path}, line {number}: unit {symbol} is there a second time; remove one of the lines.")
        found[symbol] = number - 1
    return found


def read_km(path: str | Path, manifest: Manifest | None = None, dictionary: str | Path | None = None) -> UnitLabels:
    """Read a km file.

    Args:
        path: the file.
        manifest: whose rows the lines belong to, in order; None takes the tsv of the same name beside it.
        dictionary: None takes ``dict.km.txt`` beside it if it is there, and numbers as they are if it is not.

    Raises:
        FileNotFoundError: no such file.
        ValueError: another number of lines than rows, or a unit that is no number or not in the dictionary, by file and line.
    """
    path = Path(path)
    lines = path.read_text(encoding="utf-8").splitlines()
    rows = read_tsv(path.with_suffix(".tsv")) if manifest is None else manifest
    if len(lines) != len(rows):
        raise ValueError(
            f"{path} has {len(lines)} lines but {rows.source or 'the manifest'} has {len(rows)} utterances; they must agree line by line."
        )
    beside = path.parent / DICTIONARY if dictionary is None else Path(dictionary)
    classes = read_dictionary(beside) if dictionary is not None or beside.exists() else None
    found = {}
    for number, (row, line) in enumerate(zip(rows, lines, strict=True), 1):
        symbols = line.split()
        wrong = next((s for s in symbols if not s.isdecimal() or (classes is not None and s not in classes)), None)
        if wrong is not None:
            reason = f"is not in {beside}" if wrong.isdecimal() else "is not a number"
            raise ValueError(f"{path}, line {number}: unit {wrong!r} {reason}; write the labels and the dictionary with units from 0.")
        found[row.id] = np.array([int(s) if classes is None else classes[s] for s in symbols], dtype=np.int32)
    return UnitLabels(path, found)


def write_km(folder: str | Path, manifest: Manifest, labels: Mapping[str, np.ndarray], units: int, name: str = "all") -> list[Path]:
    """Write ``{split}.tsv`` (and ``.wrd``, see write_tsv) and ``{split}.km`` for every split of a manifest, and ``dict.km.txt``.

    Args:
        labels: units of every row by id.
        units: size of the inventory, which is that of the dictionary.
        name: of the files for rows without a split.

    Returns:
        the km files.

    Raises:
        ValueError: a row without labels, or a unit outside of the inventory.
    """
    folder, files = Path(folder), []
    splits: dict[str | None, list[int]] = {}
    for index, row in enumerate(manifest):
        if row.id not in labels:
            raise ValueError(f"no labels for utterance {row.id!r}; label the manifest again.")
        if len(labels[row.id]) and not 0 <= labels[row.id].min() <= labels[row.id].max() < units:
            raise ValueError(f"utterance {row.id!r} has unit {labels[row.id].max()}, outside of the {units} of its clusters.")
        splits.setdefault(row.split, []).append(index)
    for split, indices in splits.items():
        rows = (manifest[index] for index in indices)
        marked = [replace(row, extra=row.extra | {"units": " ".join(map(str, labels[row.id].tolist()))}) for row in rows]
        path = folder / f"{split or name}.tsv"
        write_tsv(path, Manifest(manifest.root, tuple(marked)))
        files.append(path.with_suffix(".km"))
    write_text(folder / DICTIONARY, "".join(f"{unit} 1\n" for unit in range(units)))
    return files
