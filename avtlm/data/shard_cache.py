"""Shards from elsewhere: fetched through fsspec into a folder of bounded size that any number of processes may share.

A shard is fetched once, under a lock of its own, into a temporary file, compared with its SHA-256 and put in place by a rename; a process
that dies leaves nothing that another would take for a shard. The shards that were not asked for the longest give way. One that is deleted
while a process reads it stays readable to that process.
"""

import contextlib
import hashlib
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from avtlm.data.address import AddressError, attempt, open_address

CHUNK = 1 << 22
STALE = 3600.0  # seconds after which an unfinished file of a dead process may go


class ShardError(ValueError):
    """A shard that cannot be used, in one sentence: which, which member, and why."""


def cache_folder(chosen: str | None) -> Path:
    """The folder of a configuration, or the user's."""
    return Path(chosen) if chosen else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "avtlm" / "shards"


def open_remote(url: str) -> Any:
    """A file system of fsspec and the path on it.

    Raises:
        MissingExtra: no fsspec, or for an address of S3 no s3fs.
        ShardError: an address that fsspec does not know, or needs a further package for.
    """
    try:
        return open_address(url)
    except AddressError as error:
        raise ShardError(str(error)) from error


def read_remote(url: str) -> bytes:
    """The content of a small file; what is lost on the way is tried again.

    Raises:
        OSError: FileNotFoundError, or whatever the file system says.
        ShardError: access is refused, or the connection failed too often.
    """
    files, path = open_remote(url)
    try:
        content: bytes = attempt(url, lambda: files.cat_file(path))
    except AddressError as error:
        raise ShardError(str(error)) from error
    return content


class ShardCache:
    """Local copies of shards.

    Args:
        folder: for the copies; made when it is needed.
        limit: bytes that they may take together.
    """

    def __init__(self, folder: Path, limit: int) -> None:
        self.folder = folder
        self.limit = limit

    def open(self, url: str, size: int, sha256: str) -> int:
        """File descriptor of a local copy of a shard, fetched if it is not there.

        Raises:
            ShardError: the shard is larger than the cache, cannot be fetched, or is another than the index says.
        """
        if size > self.limit:
            raise ShardError(f"{url}: {size} bytes are more than the cache may hold ({self.limit}); raise cache_gb.")
        # The name holds the checksum: shards of another index, or newer ones of the same address, are other files.
        target = self.folder / f"{sha256[:16]}-{url.rpartition('/')[2]}"
        handle = self._use(target)
        if handle is None:
            self.folder.mkdir(parents=True, exist_ok=True)
            with _locked(target.with_name(f".{target.name}.lock")):
                handle = self._use(target)
                while handle is None:  # once, unless another process needs the room at this very moment
                    self._fetch(url, size, sha256, target)
                    handle = self._use(target)
        return handle

    @staticmethod
    def _use(target: Path) -> int | None:
        """Open a copy and note that it is used now; None if there is none."""
        try:
            handle = os.open(target, os.O_RDONLY)
        except FileNotFoundError:
            return None
        os.utime(handle)
        return handle

    def _fetch(self, url: str, size: int, sha256: str, target: Path) -> None:
        temporary = target.with_name(f".{target.name}.partial")
        try:
            files, path = open_remote(url)
            self._make_room(size, target)
            try:
                arrived, digest = attempt(url, lambda: _copy(files, path, temporary))
            except FileNotFoundError:
                raise ShardError(f"{url}: the index names this shard, but there is no such file; copy it, or make it again.") from None
            except AddressError as error:
                raise ShardError(str(error)) from error
            except OSError as error:
                raise ShardError(f"{url}: cannot be fetched ({error}).") from error
            if arrived != size:
                state = "is cut off" if arrived < size else "is another shard than the index means"
                raise ShardError(f"{url}: {state} ({arrived} bytes instead of {size}); copy it again.")
            if digest != sha256:
                raise ShardError(f"{url}: is damaged, or the index belongs to other shards (its checksum differs); copy both again.")
            os.replace(temporary, target)
        finally:
            temporary.unlink(missing_ok=True)

    def _make_room(self, size: int, target: Path) -> None:
        """Delete the copies unused for longest until ``size`` more bytes fit; what others are fetching counts as well."""
        with _locked(self.folder / ".lock"):
            found = []
            for path in self.folder.iterdir():
                with contextlib.suppress(FileNotFoundError):  # another process deletes too
                    state = path.stat()
                    if path.name.endswith(".partial") and time.time() - state.st_mtime > STALE:
                        path.unlink()
                    elif not path.name.endswith(".lock"):
                        found.append((path.name.startswith("."), state.st_mtime, state.st_size, path))
            total = sum(part[2] for part in found)
            for hidden, _, bytes_, path in sorted(found):
                if total + size <= self.limit or hidden:
                    break
                if path != target:
                    path.unlink(missing_ok=True)
                    total -= bytes_
            # Claim the room at once, so that a process that comes next counts it.
            with open(target.with_name(f".{target.name}.partial"), "wb") as claim:
                claim.truncate(size)


def _copy(files: Any, path: str, copy: Path) -> tuple[int, str]:
    """Fetch a file over what stands in `copy`; its size and SHA-256."""
    digest, arrived = hashlib.sha256(), 0
    with files.open(path, "rb") as source, open(copy, "r+b") as target:
        while chunk := source.read(CHUNK):
            digest.update(chunk)
            arrived += len(chunk)
            target.write(chunk)
        target.truncate()
    return arrived, digest.hexdigest()


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """An exclusive lock that the system releases when its holder dies."""
    import fcntl  # not on Windows, where shards are read from local folders only

    with open(path, "w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield
