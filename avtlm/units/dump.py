"""Features on disk, and the cut of a corpus into pieces of work that can be done anywhere, in any order, and again after a stop.

A plan depends on the manifest alone. Utterances of similar length are computed together in groups, since a model's figures depend in their
last bits on the batch; whole groups, in a fixed random order, make a piece. So one process or many, stopped or not, give the same bytes.

A dump is a folder: ``features-00000.safetensors`` and so on, one file a piece, with ``frames`` float16 (frames, dim) and ``lengths`` int32
(utterances,), the ids in the metadata; ``dump.json`` says of what. Any number of clusterings can be fitted from it.
"""

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from avtlm.files import atomic_path, write_text
from avtlm.training.progress import bar
from avtlm.units.features import Features, batches

PIECE_FRAMES = 100_000  # of 40 ms: 67 minutes; 150 MB of 768 float16 values each
GROUP_FRAMES = 2000


@dataclass(frozen=True)
class Shard:
    """One of several parts of the work: every ``count``-th piece, from the ``index``-th on, counted from 1."""

    index: int = 1
    count: int = 1

    def __post_init__(self) -> None:
        if not 1 <= self.index <= self.count:
            raise ValueError(f"shard: {self.index}/{self.count}; the first number goes from 1 to the second.")

    @staticmethod
    def parse(text: str) -> "Shard":
        """``2/8`` -> the second of eight. Raises ValueError for anything else."""
        index, slash, count = text.partition("/")
        if not (slash and index.isdecimal() and count.isdecimal()):
            raise ValueError(f"shard: {text!r}; write it as 2/8, the second of eight.")
        return Shard(int(index), int(count))

    def of(self, pieces: int) -> range:
        """Numbers of its pieces."""
        return range(self.index - 1, pieces, self.count)


@dataclass(frozen=True)
class Plan:
    """How a corpus is cut.

    Attributes:
        groups: rows that are computed together, all of one split.
        frames: length of each group in frames of 40 ms.
        pieces: groups of each piece.
        identity: of the features: the same clips, the same model or MFCC, the same cut.
    """

    groups: tuple[tuple[int, ...], ...]
    frames: tuple[int, ...]
    pieces: tuple[range, ...]
    identity: str


def make_plan(features: Features) -> Plan:
    """Cut the rows of ``features`` into groups of at most GROUP_FRAMES with their padding, and these into pieces of PIECE_FRAMES or a
    little more."""
    rows = features.rows
    lengths = [features.length(index) for index in range(len(rows))]
    groups: list[list[int]] = []
    for split in sorted({row.split or "" for row in rows}):
        mine = [index for index, row in enumerate(rows) if (row.split or "") == split]
        groups += batches(lengths, sorted(mine, key=lengths.__getitem__), GROUP_FRAMES)
    groups = [groups[place] for place in np.random.default_rng(0).permutation(len(groups)).tolist()]
    frames = [sum(lengths[index] for index in group) for group in groups]
    pieces, first, held = [], 0, 0
    for number, count in enumerate(frames):
        held += count
        if held >= PIECE_FRAMES or number == len(groups) - 1:
            pieces.append(range(first, number + 1))
            first, held = number + 1, 0
    clips = [[(rows[i].id, rows[i].audio, rows[i].video, lengths[i], rows[i].split) for i in group] for group in groups]
    told = json.dumps([features.config.describe(), clips, [piece.stop for piece in pieces]])
    identity = hashlib.blake2b(told.encode(), digest_size=16).hexdigest()
    return Plan(tuple(map(tuple, groups)), tuple(frames), tuple(pieces), identity)


class Computed:
    """Features of a group computed whenever they are asked for, at the precision of a dump."""

    def __init__(self, features: Features, plan: Plan) -> None:
        self.features, self.plan = features, plan

    @property
    def rate(self) -> float:
        return self.features.rate

    def read(self, group: int) -> list[tuple[str, np.ndarray]]:
        """Id and float16 (frames, dim) of every utterance of a group."""
        return [(name, half(name, value)) for name, value in self.features.compute(self.plan.groups[group])]


class FeatureDump:
    """A folder of features that is filled piece by piece, by one process or several, and read group by group.

    Raises:
        ValueError: the folder holds features of something else.
    """

    def __init__(self, folder: str | Path, features: Features, plan: Plan) -> None:
        self.folder, self.plan, self._computed = Path(folder), plan, Computed(features, plan)
        self._offsets: dict[int, dict[int, tuple[int, list[int]]]] = {}
        self._about = self.folder / "dump.json"
        if self._about.exists() and json.loads(self._about.read_text(encoding="utf-8")).get("identity") != plan.identity:
            raise ValueError(f"{self.folder}: holds features of other clips, of another model or layer; name another folder, or delete it.")

    def path(self, piece: int) -> Path:
        return self.folder / f"features-{piece:05d}.safetensors"

    def missing(self, shard: Shard | None = None) -> list[int]:
        """Pieces that are not there yet."""
        return [piece for piece in (shard or Shard()).of(len(self.plan.pieces)) if not self.path(piece).exists()]

    @cached_property
    def rate(self) -> float:
        """Frames per second."""
        return float(json.loads(self._about.read_text(encoding="utf-8"))["rate"])

    def fill(self, shard: Shard | None = None) -> None:
        """Compute the missing pieces of a shard."""
        missing, features = self.missing(shard), self._computed.features
        if missing and not self._about.exists():
            about = {"identity": self.plan.identity, "rate": features.rate, "pieces": len(self.plan.pieces)}
            about |= {"manifest": str(features.rows.source), "model": features.config.model} | features.config.describe()
            write_text(self._about, json.dumps(about, indent=1) + "\n")
        groups = [group for piece in missing for group in self.plan.pieces[piece]]
        with bar("features", sum(len(self.plan.groups[group]) for group in groups)) as shown:
            for piece in missing:
                rows: list[tuple[str, np.ndarray]] = []
                for group in self.plan.pieces[piece]:
                    rows += self._computed.read(group)
                    shown.advance(len(self.plan.groups[group]))
                tensors = {"frames": np.concatenate([value for _, value in rows]), "lengths": np.array([len(v) for _, v in rows], np.int32)}
                with atomic_path(self.path(piece)) as temporary:
                    save_file(tensors, temporary, metadata={"ids": json.dumps([name for name, _ in rows])})

    def read(self, group: int) -> list[tuple[str, np.ndarray]]:
        """Id and float16 (frames, dim) of every utterance of a group, read from its place in the file alone.

        Raises:
            ValueError: a file is damaged.
        """
        piece = self._piece_of[group]
        try:
            with safe_open(self.path(piece), framework="np") as file:
                if piece not in self._offsets:
                    self._offsets[piece] = self._places(piece, file.get_tensor("lengths").tolist())
                first, lengths = self._offsets[piece][group]
                frames = file.get_slice("frames")[first : first + sum(lengths)]
        except SafetensorError as error:
            raise ValueError(f"{self.path(piece)}: damaged ({error}); delete it and run again.") from error
        names = [self._computed.features.rows[index].id for index in self.plan.groups[group]]
        return list(zip(names, np.split(frames, np.cumsum(lengths)[:-1]), strict=True))

    def _places(self, piece: int, lengths: list[int]) -> dict[int, tuple[int, list[int]]]:
        """First frame, and lengths of the utterances, of every group of a piece."""
        found, at, row = {}, 0, 0
        for group in self.plan.pieces[piece]:
            mine = lengths[row : row + len(self.plan.groups[group])]
            found[group] = (at, mine)
            at, row = at + sum(mine), row + len(mine)
        return found

    @cached_property
    def _piece_of(self) -> dict[int, int]:
        return {group: piece for piece, groups in enumerate(self.plan.pieces) for group in groups}


def half(name: str, features: np.ndarray) -> np.ndarray:
    """float16.

    Raises:
        ValueError: NaN, infinity, or a number that float16 has not got.
    """
    with np.errstate(over="ignore"):
        smaller = features.astype(np.float16)
    if not np.isfinite(smaller).all():
        raise ValueError(f"utterance {name!r}: features with NaN, infinity or numbers above 65504; check the model or the audio.")
    return smaller
