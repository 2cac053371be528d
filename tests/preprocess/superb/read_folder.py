"""Prepared folders, read back as the harness reads them."""

from pathlib import Path
from typing import Any

from avtlm.evaluation.superb.data import Clip, Corpus
from preprocess.superb.__main__ import preparation


def prepare(task: str, root: Path, out: Path, **options: Any) -> Corpus:
    """The corpus that a preparation writes."""
    preparation(task)(root, out, 0, **options)
    return Corpus.read(out)


def clips(corpus: Corpus, split: str) -> dict[str, Clip]:
    """Clips of a split by id, all of whose sound files are there."""
    found = {clip.id: clip for clip in corpus.split(split)}
    assert all(clip.audio.is_file() for clip in found.values())
    return found
