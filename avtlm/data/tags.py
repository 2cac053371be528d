"""Names of the classes of sounds that a model tags: ``tags.txt`` in its folder, one a line, by their numbers."""

import csv
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

TAGS = "tags.txt"


def read_tags(folder: str | Path | None) -> tuple[str, ...]:
    """Those that a model folder names; none if it has no list."""
    path = None if folder is None else Path(folder) / TAGS
    return tuple(path.read_text(encoding="utf-8").splitlines()) if path is not None and path.is_file() else ()


def listed(tags: Iterable[str]) -> dict[str, str]:
    """``tags.txt`` of a folder, by its name; nothing without tags."""
    text = "".join(f"{tag}\n" for tag in tags)
    return {TAGS: text} if text else {}


def read_display_names(path: str | Path) -> dict[str, str]:
    """AudioSet's ``class_labels_indices.csv``: what its identifiers (``/m/09x0r``) are called (``Speech``).

    Raises:
        ValueError: the file cannot be read, or lacks its columns.
    """
    try:
        with open(path, encoding="utf-8", newline="") as stream:
            reader = csv.DictReader(stream)
            rows = list(reader)
        if not {"mid", "display_name"} <= set(reader.fieldnames or ()):
            raise KeyError("no columns mid and display_name")
        return {row["mid"]: row["display_name"] for row in rows}
    except (OSError, UnicodeDecodeError, KeyError, csv.Error) as error:
        raise ValueError(f"{path} cannot be read as AudioSet's class_labels_indices.csv ({error}); name that file.") from error


def display_names(tags: Sequence[str], names: Mapping[str, str]) -> tuple[str, ...]:
    """Identifiers in their order, by what they are called.

    Raises:
        ValueError: one is not in the table.
    """
    missing = [tag for tag in tags if tag not in names]
    if missing:
        raise ValueError(
            f"{missing[0]}: one of {len(missing)} identifiers without a name; give the class_labels_indices.csv that has them."
        )
    return tuple(names[tag] for tag in tags)
