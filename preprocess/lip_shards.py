"""Lip crops straight into shards: clips are packed as they come, and their files are taken away when their shard has arrived.

So a run over a corpus needs room for the shards in work only, and its place may be an address. Clips go into shards in the order of a hash
of their ids, as `preprocess.shards` takes them, and a shard is closed where it is full: neither depends on which clip is done first, and
the tar files are, byte for byte, those of the manifest that the run would have written (as long as no clip fails: places count the clips
that were found). ``packed.jsonl`` in the working folder is the journal of it: what was packed is not done again, nor tried again if it
failed.
"""

import hashlib
from collections import deque
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from avtlm.data.manifest import Utterance
from avtlm.data.seeds import seed_for
from avtlm.data.shards import INDEX, read_shards
from preprocess.journal import Journal, journal, read_journal
from preprocess.lip_reports import crop_row
from preprocess.lip_tasks import Task
from preprocess.shard_store import open_store
from preprocess.shards import Job, Row, ShardingError, finished_shards, tar_writer, write_index, write_shard

PACKED = "packed.jsonl"
UNDER_WAY = 2  # shards that may wait for the one that is being sent
Record = Mapping[str, Any]


class LipShards:
    """Packs the clips of one run; to be used as a context, at whose end nothing is under way any more.

    Args:
        place: folder or address for the shards.
        out: working folder of the run, in which clips lie until they are packed.
        tasks: all clips of the run, in the order of its input.
        before: what the journal of the run says of earlier runs, by id.
        size: bytes of media in a shard, about.

    Raises:
        ShardingError: the place holds shards of something else.
        AddressError: the address cannot be used.
        MissingExtra: webdataset, or what the address needs, is not installed.
    """

    def __init__(self, place: str | Path, out: Path, tasks: Sequence[Task], before: Mapping[str, Record], size: int) -> None:
        tar_writer()
        if size < 1:
            raise ShardingError(f"shard size {size}; give the bytes of a shard, such as 256MB.")
        self.store, self.out, self.tasks, self.size = open_store(place), out, tasks, size
        self.index = f"{self.store.address}/{INDEX}"
        order = sorted(range(len(tasks)), key=lambda number: seed_for("shard", tasks[number].utterance.id))
        self._order = order
        self._turn = {tasks[number].utterance.id: turn for turn, number in enumerate(order)}
        self.key = hashlib.sha256("\n".join([str(size), *(f"{task.utterance.id} {task.key}" for task in tasks)]).encode()).hexdigest()[:16]
        self._known: dict[int, Record] = {}
        self._cursor = self._start = 0
        self._group: list[Row] = []
        self._filled = 0
        self._jobs: list[Job] = []
        sizes = self.store.sizes()
        if INDEX in sizes and (held := read_shards(self.index).shards) is not None and held.key != self.key:
            raise ShardingError(f"{place} holds shards of other clips or options; choose another folder or address, or empty it.")
        self.store.prepare()
        self._resume(before, sizes)

    def __enter__(self) -> "LipShards":
        self._thread = ThreadPoolExecutor(1)
        self._sent: deque[Future[None]] = deque()
        self._opened = journal(self.out / PACKED)
        self._book: Journal = self._opened.__enter__()
        return self

    def __exit__(self, *error: object) -> None:
        self._thread.shutdown(wait=True, cancel_futures=error[0] is not None)
        self._opened.__exit__(None, None, None)

    def _resume(self, before: Mapping[str, Record], sizes: Mapping[str, int]) -> None:
        """Go on behind the shards that were packed, are still there, and whose clips are known."""
        notes = read_journal(self.out / PACKED)
        while (note := notes.get(f"shard-{len(self._jobs):06d}.tar")) is not None and note.get("key") == self.key:
            end = int(note["end"])
            ids = [self.tasks[number].utterance.id for number in self._order[self._cursor : end]]
            if any(name not in before or before[name].get("key") != self.tasks[self._order[self._turn[name]]].key for name in ids):
                return
            rows = [self._row(self._turn[name], before[name]) for name in ids if before[name]["status"] == "done"]
            job = Job(len(self._jobs), tuple(sorted(rows, key=lambda row: row.place)), self.key)
            if not finished_shards(self.store, sizes, [job]):
                return
            self._jobs.append(job)
            self._cursor = self._start = end
            self._clear(job)  # a run that was killed may have left some of them

    def turn(self, name: str) -> int:
        """The place of a clip in the order in which clips are packed."""
        return self._turn[name]

    def settled(self, name: str) -> bool:
        """Whether a clip was packed by an earlier run, or failed and its turn is over."""
        return self._turn[name] < self._start

    def note(self, name: str, record: Record) -> None:
        """Take up what became of a clip, and send shards that are full.

        Raises:
            ShardingError: a shard could not be written; start again to go on.
        """
        if self.settled(name):
            return
        self._known[self._turn[name]] = record
        while (found := self._known.pop(self._cursor, None)) is not None:
            if found["status"] == "done":
                self._add(self._row(self._cursor, found))
            self._cursor += 1

    def _row(self, turn: int, record: Record) -> Row:
        number = self._order[turn]
        row: Utterance = crop_row(self.tasks[number], dict(record))
        files = {kind: str(self.out / name) for kind, name in (("video", row.video), ("audio", row.audio)) if name is not None}
        return Row(number, row, files, None)

    def _add(self, row: Row) -> None:
        size = sum(Path(path).stat().st_size for path in row.files.values())
        if self._group and self._filled + size > self.size:
            self._close(self._cursor)
        self._group.append(row)
        self._filled += size

    def _close(self, end: int) -> None:
        """Send the shard that is full; ``end`` is the turn behind its last clip."""
        job = Job(len(self._jobs), tuple(sorted(self._group, key=lambda row: row.place)), self.key)
        self._jobs.append(job)
        self._group, self._filled = [], 0
        self._sent.append(self._thread.submit(self._pack, job, end))
        while len(self._sent) > UNDER_WAY:
            self._sent.popleft().result()

    def _pack(self, job: Job, end: int) -> None:
        if problem := write_shard(self.store, job):
            raise ShardingError(problem)
        self._book.note({"id": job.name, "key": self.key, "end": end})
        self._clear(job)

    @staticmethod
    def _clear(job: Job) -> None:
        for row in job.rows:
            for path in row.files.values():
                Path(path).unlink(missing_ok=True)

    def finish(self) -> str:
        """Send what is left and the index, and return its place; to be called when all clips were noted.

        Raises:
            ShardingError: a shard could not be written; start again to go on.
        """
        assert self._cursor == len(self.tasks)
        if self._group:
            self._close(self._cursor)
        while self._sent:
            self._sent.popleft().result()
        write_index(self.store, self._jobs, self.key)
        return self.index
