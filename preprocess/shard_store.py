"""Where shards are put: a folder, or an address of S3 or anything else that fsspec knows. A file appears there whole or not at all."""

import contextlib
import errno
import logging
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from avtlm.data.address import S3, AddressError, attempt, open_address
from avtlm.files import atomic_path, write_text

log = logging.getLogger(__name__)

# Stores in which a file appears when its upload is complete, and whose first folder is a bucket that their owner has made.
BUCKETS = ("s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "oss", "obs")
PART = 5 << 20  # bytes; S3 takes no smaller parts, so that what is smaller goes whole


class Store(Protocol):
    """A place for files."""

    @property
    def address(self) -> str:
        """A folder or a URL."""

    def sizes(self) -> dict[str, int]:
        """Names and sizes of the files in it, hidden ones left out; empty if there is no such place yet.

        Raises:
            AddressError: the place is out of reach, or there is no such bucket.
        """

    def prepare(self) -> None:
        """Make the place."""

    def writing(self, name: str) -> contextlib.AbstractContextManager[Path]:
        """A local path to write a file to, which comes to its place when the block ends without an error.

        Raises:
            AddressError: the file could not be brought there; nothing of it is.
            OSError: the file cannot be written on this machine.
        """

    def write(self, name: str, text: str) -> None:
        """A small file; raises as `writing`."""

    def read(self, names: Sequence[str]) -> dict[str, str]:
        """The content of those of the small files that there are and that are text."""

    def remove(self, name: str) -> None:
        """Delete a file, if there is one."""


def open_store(place: str | Path) -> Store:
    """The store at a folder or an address.

    Raises:
        AddressError: an address of an unknown kind.
        MissingExtra: a package for it is not installed.
    """
    text = str(place)
    if text.startswith("file://"):
        text = open_address(text)[1]
    if "://" not in text:
        return Folder(Path(text))
    open_address(text)
    return Remote(text.rstrip("/"))


@dataclass(frozen=True)
class Folder:
    """A folder of this machine."""

    path: Path

    @property
    def address(self) -> str:
        return str(self.path)

    def sizes(self) -> dict[str, int]:
        found = self.path.iterdir() if self.path.is_dir() else ()
        return {path.name: path.stat().st_size for path in found if path.is_file() and not path.name.startswith(".")}

    def prepare(self) -> None:
        self.path.mkdir(parents=True, exist_ok=True)

    def writing(self, name: str) -> contextlib.AbstractContextManager[Path]:
        return atomic_path(self.path / name)

    def write(self, name: str, text: str) -> None:
        write_text(self.path / name, text)

    def read(self, names: Sequence[str]) -> dict[str, str]:
        found = {}
        for name in names:
            with contextlib.suppress(FileNotFoundError, UnicodeDecodeError):
                found[name] = (self.path / name).read_text(encoding="utf-8")
        return found

    def remove(self, name: str) -> None:
        (self.path / name).unlink(missing_ok=True)


@dataclass(frozen=True)
class Remote:
    """An address. Nothing of a connection is kept in it, so that it may go to other processes and machines."""

    address: str

    def _open(self) -> tuple[Any, str]:
        files, path = open_address(self.address)
        return files, path.rstrip("/")

    def sizes(self) -> dict[str, int]:
        files, path = self._open()

        def look() -> list[dict[str, Any]]:
            files.invalidate_cache()
            entries: list[dict[str, Any]] = files.ls(path, detail=True)
            return entries

        try:
            entries = attempt(self.address, look)
        except FileNotFoundError:
            self._look_for_bucket(files, path)
            return {}
        named = ((str(entry["name"]).rpartition("/")[2], entry) for entry in entries if entry["type"] == "file")
        return {name: int(entry["size"]) for name, entry in named if not name.startswith(".")}

    def _look_for_bucket(self, files: Any, path: str) -> None:
        bucket = path.partition("/")[0]
        if self.address.partition("://")[0] not in BUCKETS:
            return
        try:
            attempt(self.address, lambda: files.info(bucket))
        except FileNotFoundError as error:
            raise AddressError(f"{self.address}: there is no bucket '{bucket}'; make it first, or look at the spelling.") from error

    def prepare(self) -> None:
        files, path = self._open()
        if self.address.partition("://")[0] not in BUCKETS:
            attempt(self.address, lambda: files.makedirs(path, exist_ok=True))

    @contextlib.contextmanager
    def writing(self, name: str) -> Iterator[Path]:
        with tempfile.TemporaryDirectory(prefix="avtlm-shard-") as folder:
            local = Path(folder) / name
            yield local
            self._send(local, name)

    def _send(self, local: Path, name: str) -> None:
        """Large files go in parts, which the store puts together when all are there; what is not completed is taken back."""
        files, path = self._open()
        target, size = f"{path}/{name}", local.stat().st_size
        whole = self.address.partition("://")[0] in BUCKETS
        # Other stores show a file as it grows: there it grows under another name.
        first = target if whole else f"{path}/.{name}.partial"

        def send() -> int:
            files.put_file(str(local), first)
            files.invalidate_cache()
            return int(files.info(first)["size"])

        try:
            arrived = attempt(f"{self.address}/{name}", send)
            if arrived != size:
                raise AddressError(f"{self.address}/{name}: {arrived} of {size} bytes arrived; start again to go on.")
            if first != target:
                attempt(f"{self.address}/{name}", lambda: files.mv(first, target))
        except FileNotFoundError as error:
            self._look_for_bucket(files, path)
            raise AddressError(f"{self.address}/{name}: was gone as soon as it was there; start again to go on.") from error
        finally:
            if size >= PART and self.address.partition("://")[0] in S3:
                self._drop_parts(files, target, name)

    def _drop_parts(self, files: Any, target: str, name: str) -> None:
        """Drop the parts of uploads of a file that were begun and not completed, by this run or one that was killed: they are paid for.

        s3fs asks for that once, when a part fails; but the store may refuse while other parts are still on their way.
        """
        bucket, key = target.split("/", 1)

        def begun() -> list[str]:
            uploads = files.call_s3("list_multipart_uploads", Bucket=bucket, Prefix=key).get("Uploads", [])
            return [upload["UploadId"] for upload in uploads if upload["Key"] == key]

        def drop() -> None:
            for upload in begun():
                with contextlib.suppress(FileNotFoundError):
                    files.call_s3("abort_multipart_upload", Bucket=bucket, Key=key, UploadId=upload)
            if begun():
                raise OSError(errno.EBUSY, "parts are still on their way")

        try:
            attempt(f"{self.address}/{name}", drop)
        except FileNotFoundError:
            pass  # there is no bucket, as the caller tells
        except AddressError as error:
            log.warning("Parts of uploads that were not completed may be left, and are paid for: %s", error)

    def write(self, name: str, text: str) -> None:
        with self.writing(name) as local:
            local.write_text(text, encoding="utf-8")

    def read(self, names: Sequence[str]) -> dict[str, str]:
        files, path = self._open()
        paths = [f"{path}/{name}" for name in names]

        def fetch() -> dict[str, bytes]:
            found = files.cat(paths, on_error="return") if paths else {}
            for content in found.values():
                if isinstance(content, Exception) and not isinstance(content, FileNotFoundError):
                    raise content
            return {str(key).rpartition("/")[2]: content for key, content in found.items() if isinstance(content, bytes)}

        texts = {}
        for name, content in attempt(self.address, fetch).items():
            with contextlib.suppress(UnicodeDecodeError):
                texts[name] = content.decode("utf-8")
        return texts

    def remove(self, name: str) -> None:
        files, path = self._open()
        with contextlib.suppress(FileNotFoundError):
            attempt(f"{self.address}/{name}", lambda: files.rm_file(f"{path}/{name}"))
