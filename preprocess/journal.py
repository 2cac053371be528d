"""Journals of long jobs: one JSON object a line, appended as results come, which is what a resumed run reads.

A run that is killed leaves at most its last line cut off; that item is done again.
"""

import contextlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TextIO


def read_journal(path: Path) -> dict[str, dict[str, Any]]:
    """The last record of every id; lines that are cut off or no records are passed over, so that their items are done again."""
    records: dict[str, dict[str, Any]] = {}
    for line in path.read_bytes().splitlines() if path.is_file() else []:
        try:
            record = json.loads(line)
            records[record["id"]] = record
        except (ValueError, KeyError, TypeError, RecursionError):
            continue
    return records


@contextlib.contextmanager
def journal(path: Path) -> Iterator["Journal"]:
    """Append to a journal while the block runs; its folder is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a", encoding="utf-8") as handle:
        if handle.tell():
            handle.write("\n")  # the last line of a killed run may be cut off
        yield Journal(handle)


class Journal:
    """An open journal."""

    def __init__(self, handle: TextIO) -> None:
        self._handle = handle

    def note(self, record: Mapping[str, Any]) -> None:
        """Append a record, which has an ``id``, and hand it to the system."""
        self._handle.write(json.dumps(record) + "\n")
        self._handle.flush()


def file_state(path: str | Path) -> tuple[int, int]:
    """Size and time of a file, (0, 0) if there is none: they change when the file does, whichever way the clock goes."""
    try:
        state = os.stat(path)
    except (OSError, ValueError):  # ValueError: a null byte in the name
        return 0, 0
    return state.st_size, state.st_mtime_ns
