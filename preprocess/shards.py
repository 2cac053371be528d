"""A corpus into tar shards, and a check of them: ``python -m preprocess.shards MANIFEST --out PLACE``.

Lip crops and sound go into the shards as the files they are, with the row of the manifest as JSON and, if given, the unit labels: members
``00000012.json``, ``.video.npy``, ``.audio.wav``, ``.units.npy`` in the layout of webdataset, where 12 is the place in the manifest. Which
utterance goes into which shard is drawn by its id, so that any few shards are a fair sample. The place is a folder or an address (S3 and
whatever else fsspec knows; shard_store.py). Every shard appears whole or not at all, with its part of the index beside it; a run that was
killed goes on with the shards that are missing. Equal input gives equal bytes, on any number of workers and machines.
"""

import argparse
import dataclasses
import functools
import hashlib
import io
import json
import logging
import os
import re
import sys
import tarfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from avtlm.data.address import AddressError
from avtlm.data.manifest import Manifest, ManifestError, Utterance, read_manifest
from avtlm.data.seeds import seed_for
from avtlm.data.shards import INDEX, MEDIA, Shard, head_line, read_shards
from avtlm.errors import MissingExtra
from avtlm.training.progress import bar
from avtlm.units.labels import read_labels
from preprocess.cluster import RUNNING, workforce
from preprocess.pool import Crash, run_tasks
from preprocess.shard_check import check
from preprocess.shard_store import Folder, Store, open_store

log = logging.getLogger(__name__)

SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([KMG]?)B?", re.IGNORECASE)
UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9}


class ShardingError(ValueError):
    """A corpus that cannot be put into shards, in one sentence."""


@dataclass(frozen=True)
class Row:
    """One utterance to be written: its place in the manifest, its files by kind, its labels as text."""

    place: int
    utterance: Utterance
    files: Mapping[str, str]
    units: np.ndarray | None

    @property
    def state(self) -> str:
        """Changes with whatever is written."""
        files = {kind: (path, os.stat(path).st_size, os.stat(path).st_mtime_ns) for kind, path in self.files.items()}
        units = None if self.units is None else zlib.crc32(self.units.tobytes())
        return json.dumps((self.place, dataclasses.asdict(self.utterance), files, units), sort_keys=True)


@dataclass(frozen=True)
class Job:
    """One shard to be written."""

    number: int
    rows: Sequence[Row]
    key: str

    @property
    def name(self) -> str:
        return f"shard-{self.number:06d}.tar"

    @property
    def record(self) -> str:
        return f"shard-{self.number:06d}.jsonl"


def write_shards(
    manifest: str | Path,
    out: str | Path,
    shard_size: int = 256 * 10**6,
    units: str | Path | None = None,
    split: str | None = None,
    workers: int | None = None,
    cluster: str | None = None,
) -> Path | str:
    """Put the utterances of a manifest into shards.

    Args:
        out: folder or address (``s3://bucket/corpus``) for the shards and ``shards.jsonl``.
        shard_size: bytes of media in a shard, about; at least one utterance goes into each.
        units: file of unit labels to go with them.
        split: only these utterances; None takes all.
        workers: processes; None takes one for each core, 0 works in this one.
        cluster: address of a Ray cluster whose machines do the work; "auto" for the one that runs. They have to see the media, and `out`
            if it is a folder; to an address each of them goes with its own credentials.

    Returns:
        ``shards.jsonl`` in ``out``: a path, or an address.

    Raises:
        ManifestError: the manifest cannot be read.
        ShardingError: files or labels are missing, the place holds other shards, or a shard cannot be written.
        AddressError: the address cannot be used: no bucket, no permission, no connection.
        WorkforceError: no such cluster, or no worker that can be used.
        MissingExtra: webdataset, or what the address or the cluster needs, is not installed.
    """
    tar_writer()
    if shard_size < 1:
        raise ShardingError(f"shard size {shard_size}; give the bytes of a shard, such as 256MB.")
    store = open_store(out)
    rows = _rows(read_manifest(manifest), split, units)
    jobs = _jobs(rows, shard_size)
    key = hashlib.sha256("".join(job.key for job in jobs).encode()).hexdigest()[:16]
    index = store.path / INDEX if isinstance(store, Folder) else f"{store.address}/{INDEX}"
    sizes = store.sizes()
    if INDEX in sizes and (held := read_shards(index).shards) is not None and held.key != key:
        raise ShardingError(
            f"{out} holds shards of another manifest, of other files or of another size; choose another folder or address, or empty it."
        )
    store.prepare()
    finished = finished_shards(store, sizes, jobs)
    open_jobs = [job for job in jobs if job.number not in finished]
    log.info("%d of %d shards are there already", len(finished), len(jobs))
    media = next(iter(path for row in rows for path in row.files.values()), None)
    seen = store.path if isinstance(store, Folder) else None
    with workforce(cluster, workers, seen, [media] if media else []) as force, bar("shards", len(open_jobs)) as progress:
        for number, result in run_tasks(write_shard, open_jobs, functools.partial(open_store, str(out)), force, attempts=2):
            if isinstance(result, Crash):
                raise ShardingError(f"{store.address}/{open_jobs[number].name}: {result.reason}; start again to go on.")
            if isinstance(result, str):
                raise ShardingError(result)
            progress.advance()
    write_index(store, jobs, key)
    return index


def _rows(manifest: Manifest, split: str | None, units: str | Path | None) -> list[Row]:
    """What is to be written, in the order of the manifest; everything that is missing is found here."""
    labels = None if units is None else read_labels(units)
    rows: list[Row] = []
    missing: list[str] = []
    for place, utterance in enumerate(manifest):
        if split is not None and utterance.split != split:
            continue
        files = {kind: str(manifest.path(name)) for kind in MEDIA if (name := getattr(utterance, kind)) is not None}
        missing += [f"{path} of utterance '{utterance.id}'" for path in files.values() if not Path(path).is_file()]
        if labels is not None and utterance.id not in labels:
            raise ShardingError(f"{units}: no labels for utterance '{utterance.id}'; run avtlm units over the manifest again.")
        rows.append(Row(place, utterance, files, None if labels is None else labels[utterance.id].astype(np.int32)))
    if missing:
        raise ShardingError(f"{manifest.source}: {len(missing)} files are missing, the first is {missing[0]}; avtlm info lists them all.")
    if not rows:
        raise ShardingError(f"{manifest.source}: no utterance of split {split!r}.")
    return rows


def _jobs(rows: Sequence[Row], shard_size: int) -> list[Job]:
    """Rows in the order of a hash of their ids, cut where a shard is full; within a shard in the order of the manifest."""
    groups: list[list[Row]] = [[]]
    filled = 0
    for row in sorted(rows, key=lambda row: seed_for("shard", row.utterance.id)):
        size = sum(os.path.getsize(path) for path in set(row.files.values())) + (0 if row.units is None else row.units.nbytes)
        if groups[-1] and filled + size > shard_size:
            groups.append([])
            filled = 0
        groups[-1].append(row)
        filled += size
    jobs = []
    for number, group in enumerate(groups):
        group.sort(key=lambda row: row.place)
        key = hashlib.sha256("\n".join(row.state for row in group).encode()).hexdigest()[:16]
        jobs.append(Job(number, tuple(group), key))
    return jobs


def tar_writer() -> Any:
    """The class that writes tar files; raises MissingExtra where it is not installed."""
    try:
        from webdataset.writer import TarWriter
    except ImportError as error:
        raise MissingExtra("shards", "webdataset", "writing shards") from error
    return TarWriter


class _Digest(io.RawIOBase):
    """A file that is written from front to back, and its checksum."""

    def __init__(self, file: Any) -> None:
        self.file, self.sha256 = file, hashlib.sha256()

    def writable(self) -> bool:
        return True

    def write(self, content: Any) -> int:
        self.sha256.update(content)
        return int(self.file.write(content))


def write_shard(store: Store, job: Job) -> str | None:
    """Write one shard and, after it, its part of the index. Returns what is wrong, if anything is."""
    try:
        with store.writing(job.name) as temporary:
            with open(temporary, "wb") as file:
                digest = _Digest(file)
                with tar_writer()(digest, user="avtlm", group="avtlm", encoder=False, mtime=0.0) as tar:
                    for row in job.rows:
                        tar.write({"__key__": f"{row.place:08d}", **_members(row)})
            lines = list(_index_lines(temporary, job))
            size = temporary.stat().st_size
        frames = sum(row.utterance.video_frames or round(row.utterance.duration * 25) for row in job.rows)
        shard = Shard(job.name, size, digest.sha256.hexdigest(), len(job.rows), frames)
        store.write(job.record, "\n".join([head_line([shard], job.key), *lines]) + "\n")
    except AddressError as error:
        return str(error)
    except OSError as error:
        return f"{store.address}/{job.name}: cannot be written ({error}); start again to go on."
    return None


def _members(row: Row) -> dict[str, bytes]:
    """Files of one utterance by the end of their names."""
    members = {"json": json.dumps(_plain(row), ensure_ascii=False).encode()}
    for kind, path in row.files.items():
        members[_ending(row, kind)] = Path(path).read_bytes()
    if row.units is not None:
        buffer = io.BytesIO()
        np.save(buffer, row.units)
        members["units.npy"] = buffer.getvalue()
    return members


def _ending(row: Row, kind: str) -> str:
    """A video file that holds the sound as well is written once."""
    path = row.files[kind]
    first = next(other for other in MEDIA if row.files.get(other) == path)
    return f"{first}{Path(path).suffix.lower()}"


def _plain(row: Row) -> dict[str, Any]:
    """The row of the manifest without its paths and without what is at its default."""
    defaults = dataclasses.asdict(Utterance(id=row.utterance.id))
    values = dataclasses.asdict(row.utterance)
    return {key: value for key, value in values.items() if key not in MEDIA and (key == "id" or value != defaults[key])}


def _index_lines(path: Path, job: Job) -> Iterator[str]:
    """Rows of the index from the tar file as it was written."""
    with tarfile.open(path) as tar, open(path, "rb") as file:
        found = {}
        for entry in tar:
            file.seek(entry.offset_data)
            found[entry.name] = (entry.name, entry.offset_data, entry.size, zlib.crc32(file.read(entry.size)))
    for row in job.rows:
        ends = {kind: _ending(row, kind) for kind in row.files} | ({} if row.units is None else {"units": "units.npy"})
        members = {kind: found[f"{row.place:08d}.{end}"] for kind, end in ends.items()}
        members["json"] = found[f"{row.place:08d}.json"]
        labels = {} if row.units is None else {"labels": len(row.units)}
        yield json.dumps({**_plain(row), "shard": job.number, "members": members, **labels}, ensure_ascii=False)


def finished_shards(store: Store, sizes: Mapping[str, int], jobs: Sequence[Job]) -> dict[int, tuple[Shard, list[str]]]:
    """Finished shards by number, with their rows of the index; the others must be (re)written. ``sizes`` is what the store holds."""
    texts = store.read([job.record for job in jobs if job.name in sizes and job.record in sizes])
    found = {}
    for job in jobs:
        try:
            head, *lines = texts[job.record].splitlines()
            values = json.loads(head)
            shard = Shard(**values["shards"][0])
            whole = values["key"] == job.key and sizes[job.name] == shard.bytes
        except (ValueError, KeyError, TypeError, IndexError):
            continue
        if whole and len(lines) == len(job.rows):
            found[job.number] = (shard, lines)
    return found


def write_index(store: Store, jobs: Sequence[Job], key: str) -> None:
    """All rows in the order of the manifest; shards that belong to nothing any more are removed."""
    shards, lines = [], {}
    sizes = store.sizes()
    records = finished_shards(store, sizes, jobs)
    for job in jobs:
        if job.number not in records:
            raise ShardingError(f"{store.address}/{job.name}: was changed while the others were written; start again.")
        shards.append(records[job.number][0])
        lines.update({row.place: line for row, line in zip(job.rows, records[job.number][1], strict=True)})
    store.write(INDEX, "\n".join([head_line(shards, key), *(lines[place] for place in sorted(lines))]) + "\n")
    wanted = {name for job in jobs for name in (job.name, job.record)}
    for name in sizes:
        if name.startswith("shard-") and name not in wanted and name.endswith((".tar", ".jsonl")):
            store.remove(name)


def parse_size(text: str) -> int:
    """``256MB``, ``1.5G`` or plain bytes."""
    match = SIZE.fullmatch(text.strip())
    if match is None or float(match[1]) <= 0:
        raise argparse.ArgumentTypeError(f"{text!r} is no size; write it like 256MB or 1GB")
    return int(float(match[1]) * UNITS[match[2].upper()])


def main(arguments: Sequence[str] | None = None) -> int:
    """The command. Exit codes: 0 done, 1 the check found damage, 2 nothing could be done."""
    parser = argparse.ArgumentParser(
        prog="python -m preprocess.shards",
        description="Put lip crops, sound, transcripts and unit labels of a manifest into tar shards with an index, or check such shards. "
        "Start it again after an interruption: finished shards are kept.",
    )
    parser.add_argument("input", help="manifest (.jsonl, .tsv or folder); with --check the folder or address of the shards")
    parser.add_argument("--out", metavar="PLACE", help="folder or address (s3://bucket/corpus) for the shards and their index")
    parser.add_argument("--shard-size", type=parse_size, default="256MB", metavar="SIZE", help="media in a shard (default: %(default)s)")
    parser.add_argument("--units", metavar="FILE", help="unit labels to go with the utterances")
    parser.add_argument("--split", help="only the utterances of this split")
    parser.add_argument("--workers", type=int, default=None, metavar="N", help="worker processes (default: one for each core)")
    parser.add_argument(
        "--cluster", nargs="?", const=RUNNING, metavar="ADDRESS", help="work on a Ray cluster (default address: the one that runs here)"
    )
    parser.add_argument("--check", action="store_true", help="read all shards and name whatever is damaged")
    parser.add_argument("--decode", action="store_true", help="with --check: decode all media too, and compare their lengths")
    given = parser.parse_args(arguments)
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(message)s")
    if given.check == (given.out is not None) or (given.decode and not given.check):
        parser.error("give either --out PLACE, to write shards, or --check, with or without --decode")
    try:
        if given.check:
            index, faults = check(given.input, given.decode)
            for fault in faults:
                print(fault)
            print(f"{len(index.shards)} shards, {sum(shard.utterances for shard in index.shards)} utterances: {len(faults)} faults")
            return 1 if faults else 0
        place = write_shards(given.input, given.out, given.shard_size, given.units, given.split, given.workers, given.cluster)
        written = read_shards(place)
    except (ManifestError, ShardingError, MissingExtra, ValueError, OSError) as error:
        print(f"preprocess.shards: {error}", file=sys.stderr)
        return 2
    assert written.shards is not None
    size = sum(shard.bytes for shard in written.shards.shards)
    print(f"{len(written)} utterances in {len(written.shards.shards)} shards ({size / 1e6:.0f} MB): {place}")
    return 0


if __name__ == "__main__":
    from preprocess.shards import main as command  # under its own name, by which workers elsewhere know it

    sys.exit(command())
