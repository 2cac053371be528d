"""Atomic writes: a reader sees the old file or the new one, never half of one."""

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

# Where `make quickstart` leaves its model; the command line and the demo take it if no other is named.
DEFAULT_MODEL = Path("runs/quickstart/model")


@contextlib.contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside ``path`` (same suffix); on success flush it to disk and rename it over ``path``.

    On an exception the temporary file is deleted and ``path`` keeps its old content. Parent folders are made.

    Raises:
        OSError: the folder cannot be written to.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.stem}.{secrets.token_hex(4)}.partial{target.suffix}")
    try:
        yield temporary
        with open(temporary, "rb+") as handle:
            os.fsync(handle.fileno())
        os.replace(temporary, target)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: str | Path, text: str) -> None:
    """Write UTF-8 text atomically."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")
