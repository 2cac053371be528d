"""Corpora in tar shards: an index that lists every utterance with the place of its members, and a reader for single members.

A folder or address holds ``shards.jsonl`` and ``shard-000000.tar`` onwards, made by ``python -m preprocess.shards``. The shards are plain
tar files in the layout of webdataset; the index knows offset, size and CRC-32 of every member, so that any utterance is read in any order,
with one read, and damage is noticed when it is read. Other addresses than local folders are fetched through fsspec, whole shards at a time,
into a cache folder (shard_cache.py).
"""

import dataclasses
import io
import json
import os
import re
import zlib
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from avtlm.data.manifest import Manifest, ManifestError, Utterance, parse_utterance
from avtlm.data.shard_cache import ShardCache, ShardError, cache_folder, read_remote

INDEX = "shards.jsonl"
VERSION = 1
MEDIA = ("video", "audio")
NAME = re.compile(r"[\w-][\w.-]*\.tar")
OPEN_SHARDS = 32  # file handles of one reader


@dataclass(frozen=True)
class ShardConfig:
    """How a source reads shards.

    Attributes:
        window: only utterances of so many shards, drawn anew in every epoch, are mixed in batches, so that a cache need hold no more of
            them; null mixes all, which gives the same batches as the manifest that the shards were made of.
        cache: folder for shards that are fetched from elsewhere; null takes ``avtlm/shards`` in the user's cache folder. Several
            processes, and several sources, may share one.
        cache_gb: bound on that folder in gigabytes; the shards unused for longest are deleted.
    """

    window: int | None = None
    cache: str | None = None
    cache_gb: float = 50.0

    def __post_init__(self) -> None:
        if self.window is not None and self.window < 1:
            raise ValueError(f"window: {self.window} shards; give at least 1, or null for all.")
        if self.cache_gb <= 0:
            raise ValueError(f"cache_gb: {self.cache_gb}; give the gigabytes that fetched shards may take.")


@dataclass(frozen=True)
class Shard:
    """One tar file as the index knows it: its name, size, SHA-256, and what it holds."""

    name: str
    bytes: int
    sha256: str
    utterances: int
    frames: int


@dataclass(frozen=True)
class Member:
    """Where a file lies within a shard."""

    shard: int
    name: str
    offset: int
    size: int
    crc32: int


@dataclass(frozen=True)
class ShardIndex:
    """What ``shards.jsonl`` says.

    Attributes:
        address: folder or URL of the shards.
        key: of what they were made of; see preprocess.shards.
        members: by the name that an utterance's ``video`` or ``audio`` has: ``shard-000000.tar/00000012.audio.wav``.
        units: members with the unit labels, by utterance id.
        label_counts: number of those labels.
        records: members with the rows of the manifest, by id.
        homes: the shard of every utterance, by id.
    """

    address: str
    shards: tuple[Shard, ...]
    key: str
    members: Mapping[str, Member]
    units: Mapping[str, Member]
    label_counts: Mapping[str, int]
    records: Mapping[str, Member]
    homes: Mapping[str, int]

    @property
    def remote(self) -> bool:
        return "://" in self.address

    def location(self, shard: Shard) -> str:
        """Path or URL of a shard."""
        return f"{self.address.rstrip('/')}/{shard.name}"


def names_shards(path: str | Path) -> bool:
    """Whether a path or address means shards and not a manifest."""
    text = str(path)
    return "://" in text or Path(text).name == INDEX or (not (Path(text) / "manifest.jsonl").is_file() and (Path(text) / INDEX).is_file())


def read_shards(path: str | Path) -> Manifest:
    """The manifest of a corpus in shards, with its ``shards``: a folder, a ``shards.jsonl`` or an address of either.

    Raises:
        ManifestError: the index is missing, cannot be read, or is none.
    """
    text = str(path).rstrip("/")
    place = text if text.endswith(f"/{INDEX}") or text == INDEX else f"{text}/{INDEX}"
    content = _content(place)
    address = place.removesuffix(INDEX).rstrip("/") or ("." if not place.startswith("/") else "/")
    lines = content.splitlines()
    try:
        head = json.loads(lines[0])
        if head["version"] != VERSION:
            raise ManifestError(f"{place}: has the version {head['version']} of shards, and {VERSION} is known; make the shards again.")
        shards = tuple(_shard(shard) for shard in head["shards"])
        key = str(head["key"])
    except ManifestError:
        raise
    except (ValueError, KeyError, TypeError, IndexError, RecursionError):
        raise ManifestError(f"{place}, line 1, is not the head of an index of shards; make it with python -m preprocess.shards.") from None
    index = ShardIndex(address, shards, key, {}, {}, {}, {}, {})
    utterances = tuple(_row(index, line, place, number) for number, line in enumerate(lines[1:], 2))
    if not utterances:
        raise ManifestError(f"{place} lists no utterances.")
    return Manifest(Path(address), utterances, Path(place), tuple(range(2, len(utterances) + 2)), index)


def _shard(values: Mapping[str, Any]) -> Shard:
    """A shard of the index; a name that leads elsewhere is none."""
    shard = Shard(**values)
    numbers = (shard.bytes, shard.utterances, shard.frames)
    if not NAME.fullmatch(shard.name) or not isinstance(shard.sha256, str) or any(type(number) is not int for number in numbers):
        raise ValueError
    return shard


def _content(place: str) -> str:
    try:
        if "://" in place:
            return read_remote(place).decode("utf-8")
        return Path(place).read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ManifestError(f"{place} does not exist; make shards with python -m preprocess.shards.") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ManifestError(f"{place} cannot be read ({getattr(error, 'strerror', None) or 'it is not UTF-8 text'}).") from None


def _row(index: ShardIndex, line: str, place: str, number: int) -> Utterance:
    """One line of the index; its members go into the index."""
    try:
        row = json.loads(line)
        shard, members, labels = row.pop("shard"), row.pop("members"), row.pop("labels", 0)
        found = {kind: Member(shard, str(name), int(offset), int(size), int(crc)) for kind, (name, offset, size, crc) in members.items()}
        home = index.shards[shard]
        if shard < 0 or any(member.offset < 0 or not 0 <= member.size <= home.bytes - member.offset for member in found.values()):
            raise ValueError
    except (ValueError, KeyError, TypeError, IndexError, AttributeError, RecursionError):
        raise ManifestError(f"{place}, line {number}, is not a row of an index of shards; copy the index again.") from None
    for kind in MEDIA:
        if kind in found:
            row[kind] = f"{home.name}/{found[kind].name}"
            index.members[row[kind]] = found[kind]  # type: ignore[index]
    utterance = parse_utterance(row, place, number)
    if utterance.id in index.homes:
        raise ManifestError(f"{place}, line {number}, repeats the id '{utterance.id}'.")
    index.homes[utterance.id] = shard  # type: ignore[index]
    if "json" in found:
        index.records[utterance.id] = found["json"]  # type: ignore[index]
    if "units" in found:
        index.units[utterance.id] = found["units"]  # type: ignore[index]
        index.label_counts[utterance.id] = labels  # type: ignore[index]
    return utterance


class ShardReader:
    """Reads members of shards; safe in forked workers, which share nothing but the file system.

    Raises:
        ShardError: from every method: a shard that is missing, cut off or another, or a damaged member; it names the shard, the member
            and the reason.
    """

    def __init__(self, index: ShardIndex, config: ShardConfig | None = None) -> None:
        self._open: OrderedDict[int, int] = OrderedDict()
        self.index = index
        config = config or ShardConfig()
        self._cache = ShardCache(cache_folder(config.cache), int(config.cache_gb * 1e9)) if index.remote else None

    def read(self, member: Member) -> bytes:
        """The content of a member, compared with its checksum. ``os.pread`` moves no position that another process might share."""
        content = os.pread(self._handle(member.shard), member.size, member.offset)
        shard = self.index.shards[member.shard]
        if len(content) < member.size:
            raise ShardError(
                f"{self.index.location(shard)}: {member.name} is cut off after {len(content)} of {member.size} bytes; copy it."
            )
        if zlib.crc32(content) != member.crc32:
            raise ShardError(
                f"{self.index.location(shard)}: {member.name} is damaged, or the index belongs to other shards (its checksum differs); "
                "copy the shard and the index again."
            )
        return content

    def media(self, name: str) -> tuple[str, bytes]:
        """Name and content of an utterance's ``video`` or ``audio``."""
        return f"{self.index.address}/{name}", self.read(self.index.members[name])

    def labels(self, name: str) -> np.ndarray:
        """Units of an utterance, int32 (frames,)."""
        return np.load(io.BytesIO(self.read(self.index.units[name])), allow_pickle=False)

    def _handle(self, number: int) -> int:
        if number in self._open:
            self._open.move_to_end(number)
            return self._open[number]
        shard = self.index.shards[number]
        location = self.index.location(shard)
        try:
            if self._cache is None:
                handle = os.open(location, os.O_RDONLY)
            else:
                handle = self._cache.open(location, shard.bytes, shard.sha256)
        except FileNotFoundError:
            raise ShardError(f"{location}: the index names this shard, but there is no such file; copy it, or make it again.") from None
        size = os.fstat(handle).st_size
        if size != shard.bytes:
            os.close(handle)
            state = "is cut off" if size < shard.bytes else "is another shard than the index means"
            raise ShardError(f"{location}: {state} ({size} bytes instead of {shard.bytes}); copy it again.")
        self._open[number] = handle
        while len(self._open) > OPEN_SHARDS:
            os.close(self._open.popitem(last=False)[1])
        return handle

    def close(self) -> None:
        """Close the files."""
        while self._open:
            os.close(self._open.popitem()[1])

    def __del__(self) -> None:
        self.close()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_open": OrderedDict()}  # a spawned worker opens its own


class ShardLabels(Mapping[str, np.ndarray]):
    """Units that lie in the shards, read as they are needed."""

    def __init__(self, reader: ShardReader) -> None:
        self.reader = reader

    def __getitem__(self, key: str) -> np.ndarray:
        return self.reader.labels(key)

    def __iter__(self) -> Iterator[str]:
        return iter(self.reader.index.units)

    def __len__(self) -> int:
        return len(self.reader.index.units)

    def __contains__(self, key: object) -> bool:
        return key in self.reader.index.units


def head_line(shards: list[Shard], key: str) -> str:
    """First line of an index."""
    return json.dumps({"version": VERSION, "key": key, "shards": [dataclasses.asdict(shard) for shard in shards]})
