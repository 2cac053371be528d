"""Unit labels in the layout that fairseq, HuBERT, AV-HuBERT and SpeechLM read: ``{split}.km`` and ``dict.km.txt`` beside ``{split}.tsv``.

A km file has one line of units, separated by blanks, for every line of the tsv. The dictionary has a line ``symbol count`` for every unit;
a unit's class in a model is the number of its line, whatever its symbol is. AV-HuBERT's README writes symbols from 1, so that its first
cluster, 0, becomes the unknown symbol; here such a file is refused, and dictionaries are written from 0. Symbols may be names as well, such
as SpeechLM's phones (``.phn`` and ``dict.phn.txt``), where there is a dictionary of them.

Source: fairseq, examples/hubert/simple_kmeans, and AV-HuBERT, avhubert/clustering.
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np

from avtlm.data.manifest import Manifest, read_tsv, write_tsv
from avtlm.files import write_text
from avtlm.units.labels import UnitLabels

DICTIONARY = "dict.km.txt"


def dictionary_of(labels: str | Path) -> str:
    """Name of the dictionary beside a file of labels: ``dict.km.txt`` of ``train.km``, ``dict.phn.txt`` of ``train.phn``."""
    return f"dict.{Path(labels).suffix.removeprefix('.') or 'km'}.txt"


def write_dictionary(path: str | Path, symbols: Iterable[str]) -> None:
    """Write a dictionary, which `read_dictionary` reads: a line ``symbol 1`` for every symbol, in the order of their classes."""
    write_text(path, "".join(f"{symbol} 1\n" for symbol in symbols))


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
        dictionary: None takes ``dict.km.txt`` beside it, of a .phn file ``dict.phn.txt``, if it is there, and numbers as they are if it
            is not.

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
    beside = path.parent / dictionary_of(path) if dictionary is None else Path(dictionary)
    classes = read_dictionary(beside) if dictionary is not None or beside.exists() else None
    found = {}
    for number, (row, line) in enumerate(zip(rows, lines, strict=True), 1):
        symbols = line.split()
        wrong = next((s for s in symbols if (s not in classes if classes is not None else not s.isdecimal())), None)
        if wrong is not None:
            reason = "is not a number" if classes is None else f"is not in {beside}"
            hint = "write the labels and the dictionary with units from 0" if wrong.isdecimal() else "name a dictionary that has it"
            raise ValueError(f"{path}, line {number}: unit {wrong!r} {reason}; {hint}.")
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
    write_dictionary(folder / DICTIONARY, map(str, range(units)))
    return files
