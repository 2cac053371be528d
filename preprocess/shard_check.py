"""Validation of tar shards: every shard is read once, and every fault names the shard, the member and the reason."""

import hashlib
import io
import tarfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from avtlm.data.container import FPS, SAMPLE_RATE, MediaError
from avtlm.data.manifest import Manifest, Utterance
from avtlm.data.media import read_audio, read_lip_crops
from avtlm.data.shard_cache import ShardError, read_remote
from avtlm.data.shards import Member, Shard, ShardIndex, read_shards


@dataclass(frozen=True)
class Fault:
    """Something wrong in a shard; without a member the shard as a whole is meant."""

    shard: str
    member: str | None
    reason: str

    def __str__(self) -> str:
        return f"{self.shard}: {f'{self.member} ' if self.member else ''}{self.reason}"


def check(address: str | Path, decode: bool = False) -> tuple[ShardIndex, list[Fault]]:
    """Read all shards of an index and compare them with it.

    Args:
        address: folder, ``shards.jsonl`` or URL.
        decode: also decode sound and crops, and compare their lengths with the index.

    Raises:
        ManifestError: there is no index.
    """
    manifest = read_shards(address)
    index = manifest.shards
    assert index is not None
    homes: list[list[Utterance]] = [[] for _ in index.shards]
    for row in manifest:
        homes[index.homes[row.id]].append(row)
    faults: list[Fault] = []
    for number, shard in enumerate(index.shards):
        faults += _shard_faults(manifest, index, number, shard, homes[number], decode)
    return index, faults


def _members(index: ShardIndex, rows: list[Utterance]) -> dict[str, Member]:
    """Of these utterances, by name."""
    members = [index.members[name] for row in rows for name in (row.video, row.audio) if name is not None]
    members += [table[row.id] for row in rows for table in (index.units, index.records) if row.id in table]
    return {member.name: member for member in members}


def _shard_faults(manifest: Manifest, index: ShardIndex, number: int, shard: Shard, rows: list[Utterance], decode: bool) -> Iterator[Fault]:
    location = index.location(shard)
    try:
        content = read_remote(location) if index.remote else Path(location).read_bytes()
    except FileNotFoundError:
        yield Fault(location, None, "there is no such file; copy the shard, or make it again.")
        return
    except (OSError, ShardError) as error:
        yield Fault(location, None, f"cannot be read ({error}).")
        return
    if shard.utterances != len(rows):
        yield Fault(location, None, f"the index lists {len(rows)} of its {shard.utterances} utterances; copy the index again.")
    if len(content) != shard.bytes:
        state = "is cut off" if len(content) < shard.bytes else "is longer than it was"
        yield Fault(location, None, f"{state}: {len(content)} bytes instead of {shard.bytes}.")
    damaged = set()
    for member in sorted(_members(index, rows).values(), key=lambda member: member.offset):
        part = content[member.offset : member.offset + member.size]
        if len(part) < member.size:
            damaged.add(member.name)
            yield Fault(location, member.name, f"is cut off after {len(part)} of {member.size} bytes.")
        elif zlib.crc32(part) != member.crc32:
            damaged.add(member.name)
            yield Fault(location, member.name, "is damaged: its checksum differs from the index.")
    if not damaged and len(content) == shard.bytes and hashlib.sha256(content).hexdigest() != shard.sha256:
        yield Fault(location, None, f"differs outside the media from what was written ({_structure(content)}).")
    if decode:
        for row in rows:
            yield from _media_faults(index, location, content, row, damaged)


def _structure(content: bytes) -> str:
    """What a reader of tar files makes of a shard."""
    try:
        with tarfile.open(fileobj=io.BytesIO(content)) as tar:
            return f"a tar file of {len(tar.getmembers())} members"
    except tarfile.TarError as error:
        return f"no tar file: {error}"


def _media_faults(index: ShardIndex, location: str, content: bytes, row: Utterance, damaged: set[str]) -> Iterator[Fault]:
    for kind, name in (("video", row.video), ("audio", row.audio)):
        member = index.members[name] if name is not None else None
        if member is None or member.name in damaged:
            continue
        part = content[member.offset : member.offset + member.size]
        try:
            if kind == "video":
                found, expected, what = len(read_lip_crops(member.name, part)), row.video_frames, f"frames at {FPS:g} Hz"
            else:
                expected, what = round(row.audio_samples * SAMPLE_RATE / row.sample_rate), f"samples at {SAMPLE_RATE} Hz"
                found = len(read_audio(member.name, content=part))
        except MediaError as error:
            yield Fault(location, member.name, f"cannot be decoded: {error.reason}")
            continue
        if found != expected:
            yield Fault(location, member.name, f"has {found} {what}, and the index says {expected}.")
