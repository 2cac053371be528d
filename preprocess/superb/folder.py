"""The folder of a corpus that `avtlm superb` reads: ``task.json`` and a list of clips for each split (avtlm/evaluation/superb/data.py).

What is prepared comes from a reader of the corpus, which has opened every file; what could not be used is named in ``left_out.tsv``.
"""

import argparse
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from avtlm.data.manifest import Utterance
from avtlm.evaluation.superb.data import TASK_FILE
from avtlm.files import write_text
from preprocess.corpora.reading import Reading
from preprocess.corpora.sound_corpus import SoundCorpus, no_options

SPLITS = {"train": "train", "valid": "dev", "test": "test"}  # of manifests -> of the benchmark
LISTS = ("train", "dev", "test", "queries", "documents", "relevance")
TRIALS = "trials.txt"

Row = dict[str, Any]
Fields = Callable[[Utterance], Row]


@dataclass(frozen=True)
class Prepared:
    """What a folder is to hold.

    Attributes:
        lists: rows by the name of their file.
        trials: lines of ``trials.txt``.
        about: further keys of ``task.json``.
        left_out: files that cannot be used, and why.
        remarks: on the whole.
    """

    lists: Mapping[str, Sequence[Row]]
    trials: Sequence[str] = ()
    about: Mapping[str, Any] = field(default_factory=dict)
    left_out: Mapping[str, str] = field(default_factory=dict)
    remarks: Sequence[str] = ()


@dataclass(frozen=True)
class Preparation:
    """How an official corpus becomes a task's folder.

    Attributes:
        task: of the benchmark.
        corpus: its name in ``task.json``.
        needs: lists that may not be empty.
        prepare: takes the folder of the corpus, ``out``, ``workers`` and the options by name.
        add_options: to the command line.
    """

    task: str
    corpus: str
    needs: tuple[str, ...]
    prepare: Callable[..., Prepared]
    add_options: Callable[[argparse.ArgumentParser], None] = no_options

    def __call__(self, root: Path, out: Path, workers: int | None = 0, **options: Any) -> Prepared:
        """Prepare a folder.

        Args:
            workers: processes; None takes one for each core, 0 works in this one.

        Raises:
            ValueError: no such corpus there, or nothing usable of a split.
            OSError: files cannot be written.
        """
        prepared = self.prepare(root, out, workers, **options)
        for name in self.needs:
            if not prepared.lists.get(name):
                reason = f" (left out: {next(iter(prepared.left_out.items()))})" if prepared.left_out else ""
                raise ValueError(f"{root}: has nothing usable for {name}, and {self.task} needs it{reason}.")
        write_folder(out, self.task, self.corpus, prepared)
        return prepared


def row(utterance: Utterance, place: Reading, out: Path, **fields: Any) -> Row:
    """A clip: its id, its sound file (relative if it lies in ``out``, else absolute), its speaker if known, and what else is given."""
    assert place.root is not None
    assert utterance.audio is not None
    audio = utterance.audio if place.root == out else str((place.root / utterance.audio).resolve())
    known = {"id": utterance.id, "audio": audio} | ({"speaker": utterance.speaker} if utterance.speaker else {})
    return known | {key: value for key, value in fields.items() if value is not None}


def by_split(reading: Reading, out: Path, fields: Fields) -> dict[str, list[Row]]:
    """Clips of a reading by the name of their list; clips of no split are nowhere."""
    lists: dict[str, list[Row]] = {}
    for utterance in reading.rows:
        if utterance.split is not None:
            lists.setdefault(SPLITS[utterance.split], []).append(row(utterance, reading, out, **fields(utterance)))
    return lists


def prepared(reading: Reading, out: Path, fields: Fields, **about: Any) -> Prepared:
    """A reading as lists, for tasks whose clips are divided into splits and nothing else."""
    return Prepared(by_split(reading, out, fields), about=about, left_out=reading.left_out, remarks=reading.remarks)


def divided(task: str, corpus: SoundCorpus, key: str) -> Preparation:
    """The preparation of a task whose clips are divided into splits, and of which the corpus knows one thing more."""

    def prepare(root: Path, out: Path, workers: int | None) -> Prepared:
        return prepared(corpus.read(root, workers=workers), out, lambda row: {key: row.extra[key]})

    return Preparation(task, corpus.title, tuple(SPLITS.values()), prepare)


def write_folder(out: Path, task: str, corpus: str, content: Prepared) -> None:
    """Write the lists, then ``task.json``, so that a folder with one is whole. Lists of an earlier preparation are removed."""
    (out / TASK_FILE).unlink(missing_ok=True)
    for name in LISTS:
        if name in content.lists:
            write_text(out / f"{name}.jsonl", "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in content.lists[name]))
        else:
            (out / f"{name}.jsonl").unlink(missing_ok=True)
    if content.trials:
        write_text(out / TRIALS, "".join(f"{line}\n" for line in content.trials))
    else:
        (out / TRIALS).unlink(missing_ok=True)
    write_text(out / "left_out.tsv", "".join(f"{path}\t{reason}\n" for path, reason in content.left_out.items()))
    write_text(out / TASK_FILE, json.dumps({"task": task, "name": corpus, **content.about}, ensure_ascii=False, indent=1) + "\n")
