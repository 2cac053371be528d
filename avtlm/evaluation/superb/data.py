"""Corpora of SUPERB's tasks as folders: ``task.json``, and a list of clips for each split.

``task.json`` is ``{"task": "KS", "name": "Speech Commands v0.01", ...}``; further keys belong to the task (``metric``: ``cer`` scores an
OOD-ASR corpus by characters without spaces). ``train.jsonl``, ``dev.jsonl`` and ``test.jsonl``, as many of them as the task has, hold a
JSON object a line:

- of every clip ``id`` (unique in its file), ``audio`` (any sound file, relative to the folder or absolute), maybe ``start`` and ``end``
  in seconds, maybe ``speaker``;
- ``label`` (KS, ER; of SID and ASV it is the ``speaker`` where there is no label), ``labels`` (IC: three), ``text`` (ASR, OOD-ASR, and SF
  with ``B-type value E-type`` around each slot), ``phones`` (PR: a list), ``translation`` (ST), ``segments`` (SD: ``[[speaker, start,
  end], ...]`` in seconds of the clip), ``clean`` (SE: a sound file), ``sources`` (SS: sound files), ``fold`` (ER: a whole number; only
  one file, ``train.jsonl``, is needed then).

Besides: ``trials.txt`` of ASV holds lines ``1 FIRST SECOND`` (1: one speaker, 0: two), where FIRST and SECOND are ids or sound files of
``test.jsonl``; ``dev_trials.txt``, if there is one, names clips of ``dev.jsonl``. QbE has ``queries.jsonl`` (clips with a ``split``,
``dev`` or ``test``), ``documents.jsonl`` (clips) and ``relevance.jsonl`` (``{"query": ID, "document": ID, "split": "dev"|"test"}`` for
every document that holds a query; all others do not).
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

TASK_FILE = "task.json"
SPLITS = ("train", "dev", "test")


class CorpusError(ValueError):
    """A corpus of SUPERB cannot be read; the message names the file, the line and what is wrong."""


@dataclass(frozen=True)
class Clip:
    """One sound, or a piece of one, and what is known about it.

    Attributes:
        id: unique among the clips of its file.
        audio: any sound file.
        start, end: seconds of the file; None for its ends.
        fields: the whole row, as JSON has it.
        folder: that paths of the row are relative to.
        place: file and line of the row, for messages.
    """

    id: str
    audio: Path
    start: float | None = None
    end: float | None = None
    fields: Mapping[str, Any] = field(default_factory=dict, hash=False, compare=False)
    folder: Path = field(default_factory=Path, compare=False)
    place: str = field(default="", compare=False)

    def wave(self, other: str | Path | None = None) -> np.ndarray:
        """The sound, float32 (samples,) of -1 to 1 at 16 kHz.

        Args:
            other: another sound file of the row, such as its clean one, of which the same piece is taken.

        Raises:
            MediaError: the file cannot be read.
            CorpusError: there is no sound between start and end.
        """
        from avtlm.data.container import SAMPLE_RATE
        from avtlm.data.sound import read_audio

        sound = read_audio(self.audio if other is None else self.folder / other)
        if self.start is None and self.end is None:
            return sound
        first = round((self.start or 0.0) * SAMPLE_RATE)
        piece = sound[first : None if self.end is None else round(self.end * SAMPLE_RATE)]
        if len(piece) == 0:
            seconds = len(sound) / SAMPLE_RATE
            raise CorpusError(f"{self.place}: {self.id} starts at {self.start or 0:g} s of a file of {seconds:.2f} s; correct it.")
        return piece

    def text(self, key: str) -> str:
        """A field that holds text. Raises CorpusError if it does not."""
        value = self.fields.get(key)
        if not isinstance(value, str):
            raise self.wrong(key, "text")
        return value

    def names(self, key: str) -> list[str]:
        """A field that holds a list of texts. Raises CorpusError if it does not."""
        value = self.fields.get(key)
        if not isinstance(value, list) or not value or not all(isinstance(item, str) for item in value):
            raise self.wrong(key, "a list of texts")
        return list(value)

    def wrong(self, key: str, expected: str) -> CorpusError:
        """An error about a field of this row."""
        if key not in self.fields:
            return CorpusError(f"{self.place}: {self.id} has no '{key}'; give {expected}.")
        return CorpusError(f"{self.place}: {self.id} has {key} = {self.fields[key]!r:.60}; give {expected}.")


@dataclass(frozen=True)
class Trial:
    """Two clips, and whether one speaker is in both."""

    same: bool
    first: Clip
    second: Clip


@dataclass(frozen=True)
class Corpus:
    """The folder of one corpus for one task.

    Attributes:
        task: such as ``KS``.
        name: of the corpus.
        about: the whole of task.json.
        clips: those of the splits that were set by hand (folds); files are read when they are asked for.
    """

    folder: Path
    task: str
    name: str
    about: Mapping[str, Any] = field(default_factory=dict)
    clips: Mapping[str, tuple[Clip, ...]] = field(default_factory=dict)
    _read: dict[str, tuple[Clip, ...]] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def read(cls, folder: str | Path) -> "Corpus":
        """Raises CorpusError: there is no task.json, or it does not name a task."""
        folder = Path(folder)
        path = folder / TASK_FILE
        if not path.is_file():
            raise CorpusError(f"{path} does not exist; give a folder with a {TASK_FILE}, as python -m preprocess.superb writes them.")
        try:
            about = json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise CorpusError(f"{path} is not JSON ({error}).") from None
        if not isinstance(about, dict) or not isinstance(about.get("task"), str):
            raise CorpusError(f'{path} does not name its task; write {{"task": "KS", "name": "Speech Commands v0.01"}}.')
        return cls(folder, about["task"], str(about.get("name", folder.name)), about)

    def has(self, split: str) -> bool:
        """Whether there are clips of a split."""
        return split in self.clips or (self.folder / f"{split}.jsonl").is_file()

    def split(self, name: str) -> tuple[Clip, ...]:
        """The clips of ``train``, ``dev``, ``test``, or of another file such as ``queries``.

        Raises:
            CorpusError: there is no such file, or a line is wrong; it says which.
        """
        if name in self.clips:
            return self.clips[name]
        if name in self._read:
            return self._read[name]
        clips = []
        seen: set[str] = set()
        for place, row in self.rows(name):
            clip = _clip(row, self.folder, place)
            if clip.id in seen:
                raise CorpusError(f"{place}: the id {clip.id!r} is there more than once; give every clip its own.")
            seen.add(clip.id)
            clips.append(clip)
        if not clips:
            raise CorpusError(f"{self.folder / f'{name}.jsonl'} lists no clips.")
        self._read[name] = tuple(clips)
        return self._read[name]

    def rows(self, name: str) -> list[tuple[str, dict[str, Any]]]:
        """Place and content of every line of a file. Raises CorpusError: it is missing, or a line is no JSON object."""
        path = self.folder / f"{name}.jsonl"
        found = []
        for number, line in enumerate(_lines(path, self.task), 1):
            if not line.strip():
                continue
            place = f"{path}, line {number}"
            try:
                row = json.loads(line)
            except ValueError:
                row = None
            if not isinstance(row, dict):
                raise CorpusError(f"{place} is no JSON object.")
            found.append((place, row))
        return found

    def trials(self, split: str = "test") -> list[Trial]:
        """Pairs of clips to compare, of ``trials.txt`` or ``dev_trials.txt``.

        Raises:
            CorpusError: there is no such file, a line is wrong, or it names a clip that the split lacks.
        """
        path = self.folder / ("trials.txt" if split == "test" else f"{split}_trials.txt")
        known: dict[str, Clip] = {}
        for clip in self.split(split):
            known[str(clip.fields.get("audio"))] = clip
        known.update({clip.id: clip for clip in self.split(split)})
        trials = []
        for number, line in enumerate(_lines(path, self.task), 1):
            words = line.split()
            if not words:
                continue
            if len(words) != 3 or words[0] not in ("0", "1"):
                raise CorpusError(f"{path}, line {number}: {line!r:.60} is no trial; write 1 FIRST SECOND (one speaker) or 0 FIRST SECOND.")
            lacking = next((word for word in words[1:] if word not in known), None)
            if lacking is not None:
                raise CorpusError(f"{path}, line {number}: {lacking} is no clip of {split}.jsonl; add it there.")
            trials.append(Trial(words[0] == "1", known[words[1]], known[words[2]]))
        if not trials:
            raise CorpusError(f"{path} lists no trials.")
        return trials

    @cached_property
    def folds(self) -> tuple[int, ...]:
        """Numbers of the folds, in order; none where clips have no ``fold``."""
        if self.clips or not self.has("train"):
            return ()
        return tuple(sorted({int(clip.fields["fold"]) for clip in self.split("train") if "fold" in clip.fields}))

    def with_clips(self, clips: Mapping[str, tuple[Clip, ...]]) -> "Corpus":
        """The same corpus with other splits."""
        return Corpus(self.folder, self.task, self.name, self.about, clips)


def corpora(folder: str | Path) -> list[Corpus]:
    """The corpus of a folder, or, where it has no task.json of its own, those of its subfolders by name.

    Raises:
        CorpusError: there is none.
    """
    folder = Path(folder)
    if (folder / TASK_FILE).is_file() or not folder.is_dir():
        return [Corpus.read(folder)]
    found = [Corpus.read(path.parent) for path in sorted(folder.glob(f"*/{TASK_FILE}"))]
    if not found:
        raise CorpusError(f"{folder}: neither it nor a folder in it has a {TASK_FILE}; prepare corpora with python -m preprocess.superb.")
    return found


def _clip(row: dict[str, Any], folder: Path, place: str) -> Clip:
    for key in ("id", "audio"):
        if not isinstance(row.get(key), str) or not row[key]:
            raise CorpusError(f"{place} has no '{key}'; every clip has an id and a sound file.")
    for key in ("start", "end"):
        if row.get(key) is not None and (isinstance(row[key], bool) or not isinstance(row[key], int | float) or row[key] < 0):
            raise CorpusError(f"{place} has {key} = {row[key]!r:.40}; give seconds from 0.")
    return Clip(row["id"], folder / row["audio"], row.get("start"), row.get("end"), row, folder, place)


def _lines(path: Path, task: str) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        raise CorpusError(f"{path} does not exist, and {task} needs it; prepare the corpus again.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise CorpusError(f"{path} cannot be read ({getattr(error, 'strerror', None) or 'it is not UTF-8 text'}).") from None
