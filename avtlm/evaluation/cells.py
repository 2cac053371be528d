"""Finished cells of an evaluation on disk, so that one that was stopped goes on, and what was recognised can be looked at later.

A cell is one modality under one condition. Its file holds what was asked for (``asked``) and every utterance with what was said and what
was recognised. A cell is taken over only if all of what was asked is the same: the model's weights and settings, the rows and their
transcripts, the kind, strength and seed of what was done to them. Sound and pictures themselves are not compared; use another folder when
files of a corpus were replaced.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from avtlm.files import write_text

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class KeptCell:
    """A finished cell as it is read again.

    Attributes:
        asked: condition and origin by name: ``modality``, ``noise``, ``snr``, ``visual``, ``strength``, ``manifest``, ``characters``, ...
        utterances: (id, reference as it is scored, what was recognised).
    """

    path: Path
    asked: Mapping[str, Any]
    utterances: Sequence[tuple[str, str, str]]


class Cells:
    """The folder of one evaluation, or of several.

    Args:
        folder: made when the first cell is kept.
        asked: what all cells have in common.
        references: what was said, by utterance id.
    """

    def __init__(self, folder: str | Path, asked: Mapping[str, Any], references: Mapping[str, str]) -> None:
        self.folder, self.asked, self.references = Path(folder), dict(asked), dict(references)

    def _place(self, condition: Mapping[str, Any]) -> tuple[Path, dict[str, Any]]:
        asked = {**self.asked, **condition}
        digest = hashlib.blake2b(json.dumps([asked, self.references], sort_keys=True).encode(), digest_size=6).hexdigest()
        words = [str(value) for value in condition.values() if value is not None]
        name = re.sub(r"[^\w.+-]+", "_", "-".join(words)).strip("_")[-60:]
        return self.folder / f"{name}-{digest}.json", asked

    def find(self, condition: Mapping[str, Any]) -> dict[str, str] | None:
        """What was recognised, by utterance id; None if this cell was not finished.

        Raises:
            ValueError: the file is damaged.
        """
        path, asked = self._place(condition)
        if not path.exists():
            return None
        kept = read_cell(path)
        found = {name: text for name, _, text in kept.utterances}
        if dict(kept.asked) != asked or found.keys() != self.references.keys():
            raise ValueError(f"{path}: is of another evaluation than its name says; delete the file.")
        return found

    def keep(self, condition: Mapping[str, Any], texts: Mapping[str, str]) -> None:
        """Write a finished cell, atomically."""
        path, asked = self._place(condition)
        rows = [{"id": name, "reference": said, "text": texts[name]} for name, said in self.references.items()]
        write_text(path, json.dumps({"asked": asked, "utterances": rows}, ensure_ascii=False, indent=1) + "\n")


def read_cell(path: Path) -> KeptCell:
    """Raises ValueError: the file is no cell."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        rows = [(row["id"], row["reference"], row["text"]) for row in content["utterances"]]
        if not isinstance(content["asked"], dict) or not all(isinstance(value, str) for row in rows for value in row):
            raise TypeError
    except (ValueError, KeyError, TypeError):
        raise ValueError(f"{path}: is no finished cell of an evaluation, or damaged; delete the file to measure it anew.") from None
    return KeptCell(path, content["asked"], rows)


def fingerprint(model: "nn.Module", settings: Iterable[object]) -> str:
    """A short name for a model's weights and further settings; equal models have equal names, whatever device they are on."""
    import torch

    digest = hashlib.blake2b(digest_size=12)
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    for setting in settings:
        digest.update(repr(setting).encode())
    return digest.hexdigest()
