"""A folder holds one made corpus: how it was made is noted in it, and other recipes are refused."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from avtlm.files import write_text


def claim(folder: Path, recipe: dict[str, Any], parts: Sequence[str]) -> None:
    """Note in ``corpus.json`` how the corpus in a folder is made. Files are never made twice, so a folder has one recipe for good.

    Args:
        parts: names of files or folders that show that there is a corpus already.

    Raises:
        ValueError: the folder holds a corpus that was made in another way.
    """
    note = folder / "corpus.json"
    if note.exists():
        found = json.loads(note.read_text(encoding="utf-8"))
    else:
        found = {} if any((folder / name).exists() for name in parts) else recipe
    if found != recipe:
        differing = ", ".join(f"{key} {found.get(key, 'unknown')}" for key in recipe if found.get(key) != recipe[key])
        raise ValueError(f"{folder} holds a corpus that was made with {differing}; choose an empty folder, or delete this one.")
    write_text(note, json.dumps(recipe, indent=1) + "\n")
