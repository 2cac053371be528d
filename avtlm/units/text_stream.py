"""A text file to a label file, some lines at a time: memory does not grow with the file, and a stopped call goes on where it was.

Beside the file that is written lie ``.NAME.partial`` and a note of how far it is; both go when it is whole. Windows of lines are the same
whether a call was stopped or not, and so is the result.
"""

import json
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from avtlm.data.manifest import parse_utterance
from avtlm.files import write_text
from avtlm.training.progress import bar
from avtlm.units.fairseq_labels import dictionary_of, write_dictionary
from avtlm.units.generators import Counts, TextToUnits, hash_of
from avtlm.units.reduced import reduce_units

WINDOW = 512  # lines that are generated, and kept in memory, at once
LABELS = ".units"


@dataclass(frozen=True)
class Written:
    """What a call did.

    Attributes:
        lines: of the text; ``kept`` of them have units, the others were left out.
        units: in all of them.
        before: lines that an earlier call had done.
        seconds: that this call took.
        counts: words without phones, unknown symbols.
    """

    out: Path
    dictionary: Path
    lines: int
    kept: int
    units: int
    before: int
    seconds: float
    counts: Counts

    @property
    def lines_per_second(self) -> float:
        return (self.lines - self.before) / max(self.seconds, 1e-9)


def text2units(text: str | Path, out: str | Path, generator: TextToUnits, reduced: bool = False) -> Written:
    """Write the units of every line of a text.

    Args:
        text: a file with a sentence in every line, or a manifest (.jsonl) whose rows have transcripts.
        out: ``NAME.units`` for lines ``id <tab> numbers``, as avtlm reads them; any other ending, such as .km or .phn, for fairseq's lines
            of units by their names. ``dict.ENDING.txt`` beside it names them.
        reduced: merge runs of one unit.

    Raises:
        FileNotFoundError: no such text.
        ValueError: empty lines; bytes that are no UTF-8; a row without transcript; lines would be left out of a file without ids.
    """
    text, out = Path(text), Path(out)
    total = check_lines(text)
    labelled = out.suffix == LABELS
    stat = text.stat()
    told = [generator.identity, str(text.resolve()), stat.st_size, stat.st_mtime_ns, reduced, labelled, WINDOW]
    partial, note = out.with_name(f".{out.name}.partial"), out.with_name(f".{out.name}.partial.json")
    out.parent.mkdir(parents=True, exist_ok=True)
    state: dict[str, Any] = {"run": hash_of(json.dumps(told)), "lines": 0, "bytes": 0, "kept": 0, "units": 0}
    earlier = _read_note(note)
    if earlier.get("run") == state["run"] and partial.exists() and partial.stat().st_size >= earlier["bytes"]:
        state = earlier
        generator.counts = Counts.from_json(state["counts"])
    before, started = state["lines"], time.perf_counter()
    with open(partial, "r+b" if state["lines"] else "wb") as handle, bar("text to units", total, before) as progress:
        handle.truncate(state["bytes"])
        handle.seek(state["bytes"])
        for ids, texts in _windows(text, before):
            for number, units in enumerate(generator(texts, ids), state["lines"] + 1):
                if units is None:
                    _leave_out(labelled, text, number)
                    continue
                units = reduce_units(units)[0] if reduced else units
                _write_line(handle, ids[number - state["lines"] - 1] if labelled else None, units, generator.symbols)
                state["kept"] += 1
                state["units"] += len(units)
            handle.flush()
            state |= {"lines": state["lines"] + len(ids), "bytes": handle.tell(), "counts": generator.counts.to_json()}
            write_text(note, json.dumps(state))
            progress.advance(len(ids))
        os.fsync(handle.fileno())
    dictionary = out.with_suffix(".dict.txt") if labelled else out.with_name(dictionary_of(out))
    write_dictionary(dictionary, generator.symbols)
    os.replace(partial, out)
    note.unlink(missing_ok=True)
    seconds = time.perf_counter() - started
    return Written(out, dictionary, total, state["kept"], state["units"], before, seconds, generator.counts)


def _leave_out(labelled: bool, text: Path, number: int) -> None:
    if not labelled:
        raise ValueError(
            f"{text}, line {number}: cannot be said in units (too long, or with words that the lexicon lacks), and a file without ids "
            "would no longer agree with the text line by line; remove the line, or write NAME.units."
        )


def _write_line(handle: IO[bytes], name: str | None, units: np.ndarray, symbols: list[str]) -> None:
    if name is None:
        handle.write((" ".join(symbols[unit] for unit in units.tolist()) + "\n").encode())
    else:
        handle.write(f"{name}\t{' '.join(map(str, units.tolist()))}\n".encode())


def _read_note(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


# Lines ---------------------------------------------------------------------------------------------------------------------------------


def check_lines(path: Path) -> int:
    """Count the lines of a text, or the rows of a manifest.

    Raises:
        FileNotFoundError: no such file.
        ValueError: there are none, or some are empty, by the first of them.
    """
    if path.is_dir():
        raise ValueError(f"{path} is a folder; give a text file, or a manifest.jsonl.")
    count = empty = first = 0
    with open(path, "rb") as handle:
        for number, line in enumerate(handle, 1):
            if line.strip():
                count += 1
            else:
                first = first or number
                empty += 1
    if not count:
        raise ValueError(f"{path} has no lines of text; give a file with a sentence in every line.")
    if empty:
        raise ValueError(f"{path}, line {first}: is empty, as {empty} of {count + empty} lines are; remove empty lines, and give it again.")
    return count - _has_root(path)


def _has_root(path: Path) -> bool:
    """Whether the first line of a manifest names its root, and is no row."""
    if path.suffix != ".jsonl":
        return False
    with open(path, "rb") as handle:
        try:
            first = json.loads(handle.readline())
        except ValueError:
            return False
    return isinstance(first, dict) and "root" in first and "id" not in first


def read_lines(path: Path, skip: int = 0) -> Iterator[tuple[str, str]]:
    """Id and text of every line, as read_manifest gives them, without holding more than one.

    Args:
        skip: leave so many of the first ones out.

    Raises:
        ValueError: a line that is not UTF-8, or a row without transcript, by its number.
    """
    rooted, rows = _has_root(path), path.suffix == ".jsonl"
    with open(path, "rb") as handle:
        for number, raw in enumerate(handle, 1):
            if number <= skip + rooted:
                continue
            try:
                line = raw.decode("utf-8")
            except UnicodeDecodeError:
                raise ValueError(f"{path}, line {number}: is not UTF-8 text; convert the file.") from None
            if rows:
                yield _row(path, number, line)
            else:
                yield f"{path.stem}-{number}", " ".join(line.split())


def _row(path: Path, number: int, line: str) -> tuple[str, str]:
    try:
        values = json.loads(line)
    except ValueError:
        values = None
    if not isinstance(values, dict):
        raise ValueError(f"{path}, line {number}: is not a JSON object.")
    row = parse_utterance(values, path, number)
    if not (row.transcript or "").strip():
        raise ValueError(f"{path}, line {number}: utterance {row.id!r} has no transcript; leave it out.")
    return row.id, " ".join((row.transcript or "").split())


def _windows(path: Path, skip: int) -> Iterator[tuple[list[str], list[str]]]:
    """Ids and texts of 512 lines at a time."""
    ids: list[str] = []
    texts: list[str] = []
    for name, text in read_lines(path, skip):
        ids.append(name)
        texts.append(text)
        if len(ids) == WINDOW:
            yield ids, texts
            ids, texts = [], []
    if ids:
        yield ids, texts
