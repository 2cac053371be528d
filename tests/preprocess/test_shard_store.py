"""Shards at addresses: whole or not at all, gone on with after a kill, the same bytes as in a folder, trouble in one sentence."""

import asyncio
import errno
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from avtlm.data import address
from avtlm.data.address import AddressError, attempt
from avtlm.data.shards import ShardConfig, ShardReader, read_shards
from preprocess import shards
from preprocess.shard_check import check
from preprocess.shard_store import Folder, Remote, open_store
from preprocess.shards import main, write_shards
from tests.made_corpus import MadeCorpus, make_corpus
from tests.made_store import s3_server

SIZE = 900_000


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> MadeCorpus:
    return make_corpus(tmp_path_factory.mktemp("corpus"), 12)


@pytest.fixture(scope="module")
def written(corpus: MadeCorpus, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same in a folder."""
    folder = tmp_path_factory.mktemp("written")
    write_shards(corpus.clips, folder, SIZE, corpus.units, workers=0)
    return folder


@pytest.fixture(scope="module")
def s3() -> Iterator[str]:
    with s3_server("bucket") as url:
        yield url


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """No pauses between attempts; the list has those that there would have been."""
    pauses: list[float] = []
    monkeypatch.setattr(address, "sleep", pauses.append)
    return pauses


def objects(prefix: str) -> dict[str, tuple[bytes, Any]]:
    """Content and time of everything below a prefix, by the way of another client."""
    import boto3

    client = boto3.client("s3")
    found = client.list_objects_v2(Bucket="bucket", Prefix=prefix + "/").get("Contents", [])
    return {
        row["Key"].rpartition("/")[2]: (client.get_object(Bucket="bucket", Key=row["Key"])["Body"].read(), row["LastModified"])
        for row in found
    }


# What is written --------------------------------------------------------------------------------------------------------------------------


def test_shards_at_an_address_are_those_of_a_folder_and_are_read_through_the_cache(
    corpus: MadeCorpus, written: Path, s3: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    place = "s3://bucket/whole/corpus"
    arguments = [str(corpus.clips), "--out", place, "--shard-size", str(SIZE), "--units", str(corpus.units), "--workers", "0"]
    assert main(arguments) == 0
    assert f"12 utterances in 4 shards (3 MB): {place}/shards.jsonl" in capsys.readouterr().out
    assert {name: content for name, (content, _) in objects("whole/corpus").items()} == {
        path.name: path.read_bytes() for path in written.iterdir()
    }
    near, far = read_shards(written), read_shards(place)
    assert near.shards is not None
    assert far.shards is not None
    reader = ShardReader(far.shards, ShardConfig(cache=str(tmp_path / "cache")))
    for row in far:
        assert reader.media(row.video or "")[1] == ShardReader(near.shards).media(row.video or "")[1]
        assert (reader.labels(row.id) == ShardReader(near.shards).labels(row.id)).all()
    assert len(list((tmp_path / "cache").glob("*.tar"))) == 4
    assert check(place, decode=True)[1] == []


def test_a_killed_run_leaves_whole_shards_and_goes_on(corpus: MadeCorpus, written: Path, s3: str) -> None:
    """A kill before the last bytes of the second shard are sent."""
    script = (
        "import os, signal, sys; from preprocess import shard_store, shards\n"
        "send, left = shard_store.Remote._send, [3]\n"  # a shard and its part of the index, then half of the next
        "def counted(*arguments):\n"
        "    left[0] -= 1\n"
        "    if not left[0]: os.kill(os.getpid(), signal.SIGKILL)\n"
        "    return send(*arguments)\n"
        "shard_store.Remote._send = counted\n"
        f"shards.write_shards(sys.argv[1], 's3://bucket/killed', {SIZE}, sys.argv[2], workers=0)\n"
    )
    command = [sys.executable, "-c", script, str(corpus.clips), str(corpus.units)]
    assert subprocess.run(command, check=False, stderr=subprocess.DEVNULL, env=dict(os.environ)).returncode == -signal.SIGKILL
    half = objects("killed")
    assert sorted(half) == ["shard-000000.jsonl", "shard-000000.tar"]
    write_shards(corpus.clips, "s3://bucket/killed", SIZE, corpus.units, workers=0)
    whole = objects("killed")
    assert {name: content for name, (content, _) in whole.items()} == {path.name: path.read_bytes() for path in written.iterdir()}
    assert {name: whole[name] for name in half} == half  # not written again


def test_a_large_file_goes_in_parts_and_is_whole_or_not_there(s3: str, monkeypatch: pytest.MonkeyPatch, hurried: list[float]) -> None:
    import boto3
    from s3fs import S3FileSystem

    content = os.urandom(12 << 20)
    put, call = S3FileSystem._put_file, S3FileSystem._call_s3
    parts: list[int] = []
    arrived: set[int] = set()

    async def in_parts(self: Any, here: str, there: str, **options: Any) -> None:
        await put(self, here, there, **{**options, "chunksize": 5 << 20})

    async def failing(self: Any, method: str, *arguments: Any, **options: Any) -> Any:
        if method == "upload_part":
            parts.append(options["PartNumber"])
            if broken and options["PartNumber"] == 2:
                while len(arrived) < 2:  # the server at hand is not to be told to drop an upload while parts of it arrive
                    await asyncio.sleep(0.01)
                arrived.clear()
                raise ConnectionResetError("reset by peer")
        answer = await call(self, method, *arguments, **options)
        if method == "upload_part":
            arrived.add(options["PartNumber"])
        return answer

    monkeypatch.setattr(S3FileSystem, "_put_file", in_parts)
    monkeypatch.setattr(S3FileSystem, "_call_s3", failing)
    S3FileSystem.clear_instance_cache()  # what was made before keeps the real methods
    store = open_store("s3://bucket/large")
    broken = True
    with pytest.raises(AddressError, match=r"large/a.tar: the store failed 4 times \(reset by peer\)"), store.writing("a.tar") as path:
        path.write_bytes(content)
    assert store.sizes() == {}
    assert begun(boto3.client("s3")) == []  # nothing is left to be paid for
    broken = False
    with store.writing("a.tar") as path:
        path.write_bytes(content)
    assert set(parts) >= {1, 2, 3}
    assert objects("large")["a.tar"][0] == content
    S3FileSystem.clear_instance_cache()


def begun(client: Any) -> list[str]:
    """Keys of the uploads in parts that were not completed."""
    return [upload["Key"] for upload in client.list_multipart_uploads(Bucket="bucket").get("Uploads", [])]


def test_parts_of_a_killed_run_and_those_that_the_store_would_not_drop_at_once_are_dropped(
    s3: str, monkeypatch: pytest.MonkeyPatch, hurried: list[float], caplog: pytest.LogCaptureFixture
) -> None:
    import boto3
    from s3fs import S3FileSystem

    client, call = boto3.client("s3"), S3FileSystem.call_s3
    for key in ("parts/a.tar", "parts/a.tar2"):
        client.create_multipart_upload(Bucket="bucket", Key=key)
    refusals = [OSError(errno.EIO, "We encountered an internal error"), ConnectionResetError("reset by peer")]

    def refusing(self: Any, method: str, **options: Any) -> Any:
        if method == "abort_multipart_upload" and refusals:
            raise refusals.pop()
        return call(self, method, **options)

    monkeypatch.setattr(S3FileSystem, "call_s3", refusing)
    store = open_store("s3://bucket/parts")
    with store.writing("a.tar") as path:
        path.write_bytes(bytes(6 << 20))
    assert begun(client) == ["parts/a.tar2"]  # another file's are not ours to drop
    assert store.sizes() == {"a.tar": 6 << 20}
    assert hurried == [1.0, 2.0]
    assert "may be left" not in caplog.text

    client.create_multipart_upload(Bucket="bucket", Key="parts/a.tar")
    refusals[:] = [PermissionError("Access Denied")]
    with store.writing("a.tar") as path:
        path.write_bytes(bytes(7 << 20))
    assert store.sizes() == {"a.tar": 7 << 20}  # what may be left of others does not undo it
    assert "may be left, and are paid for: s3://bucket/parts/a.tar: access is refused (Access Denied)" in caplog.text


def test_an_error_in_the_middle_of_a_file_leaves_nothing(s3: str, tmp_path: Path) -> None:
    for store in (open_store("s3://bucket/middle"), open_store(tmp_path)):
        with pytest.raises(OSError, match="Is a directory"), store.writing("a.tar") as path:
            path.write_bytes(os.urandom(1000) + Path("/").read_bytes())
        assert store.sizes() == {}
    assert list(tmp_path.iterdir()) == []


def test_a_store_keeps_small_files_and_forgets_removed_ones(s3: str, tmp_path: Path) -> None:
    places = ("s3://bucket/small/", "memory://small", tmp_path / "small", (tmp_path / "other").as_uri())
    for place in places:
        store = open_store(place)
        assert isinstance(store, Remote if str(place).startswith(("s3", "memory")) else Folder)
        assert store.sizes() == {}
        store.prepare()
        store.write("a.jsonl", "ä\n")
        store.write("b.jsonl", "b")
        assert store.sizes() == {"a.jsonl": 3, "b.jsonl": 1}
        assert store.read(["b.jsonl", "a.jsonl", "none"]) == {"a.jsonl": "ä\n", "b.jsonl": "b"}
        assert store.read([]) == {}
        store.remove("a.jsonl")
        store.remove("a.jsonl")
        assert "a.jsonl" not in store.sizes()
        assert store.read(["a.jsonl"]) == {}


# Trouble ----------------------------------------------------------------------------------------------------------------------------------


def told(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    """The one sentence of a command that fails."""
    capsys.readouterr()
    assert main([*arguments, "--workers", "0"]) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("preprocess.shards: s3://")
    return error


def test_a_missing_bucket_wrong_credentials_and_none_are_told_before_the_work(
    corpus: MadeCorpus, s3: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, hurried: list[float]
) -> None:
    monkeypatch.setattr(shards, "_members", lambda row: pytest.fail("work was begun"))
    nowhere = told([str(corpus.clips), "--out", "s3://nowhere/corpus"], capsys)
    assert "there is no bucket 'nowhere'; make it first, or look at the spelling." in nowhere
    s3fs = pytest.importorskip("s3fs")
    with monkeypatch.context() as patch:
        patch.setattr("moto.settings.INITIAL_NO_AUTH_ACTION_COUNT", 0.0)  # from now on the server looks at the credentials
        error = told([str(corpus.clips), "--out", "s3://bucket/refused"], capsys)
    assert "access is refused (The AWS Access Key Id you provided does not exist in our records)" in error
    assert hurried == []  # asking again would not help
    s3fs.S3FileSystem.clear_instance_cache()
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    error = told([str(corpus.clips), "--out", "s3://bucket/none"], capsys)
    assert "there are no credentials (Unable to locate credentials); set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY" in error
    s3fs.S3FileSystem.clear_instance_cache()


def test_a_store_that_cannot_be_reached_is_asked_a_few_times(
    corpus: MadeCorpus, capsys: pytest.CaptureFixture[str], hurried: list[float]
) -> None:
    with s3_server() as gone:
        pass
    with s3_server(), pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", gone)
        error = told([str(corpus.clips), "--out", "s3://bucket/corpus"], capsys)
    assert "the store failed 4 times (Could not connect to the endpoint URL" in error
    assert "start again to go on." in error
    assert hurried == [1.0, 2.0, 4.0]


def test_what_passes_is_waited_for_and_what_does_not_is_not(hurried: list[float]) -> None:
    answers: list[Any] = [ConnectionResetError("reset"), OSError(errno.EBUSY, "slow down"), 7]

    def call() -> int:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return int(answer)

    assert attempt("s3://a", call) == 7
    assert hurried == [1.0, 2.0]
    for final, message in ((PermissionError("no"), "access is refused"), (OSError(errno.EINVAL, "bad name"), "the store failed")):
        answers[:] = [final]
        with pytest.raises(AddressError, match=f"^s3://a: {message}"):
            attempt("s3://a", call)
    for other in (FileNotFoundError("gone"), OSError(errno.ENOSPC, "full"), TypeError("wrong")):
        answers[:] = [other]
        with pytest.raises(type(other)):
            attempt("s3://a", call)


def test_an_address_that_arrives_shortened_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("fsspec")
    from fsspec.implementations.memory import MemoryFileSystem

    store = Remote("memory://shortened")
    store.prepare()
    monkeypatch.setattr(MemoryFileSystem, "info", lambda self, path, **_: {"size": 3})
    with pytest.raises(AddressError, match=r"memory://shortened/a.tar: 3 of 5 bytes arrived"), store.writing("a.tar") as path:
        path.write_bytes(b"12345")
    monkeypatch.undo()
    assert store.sizes() == {}
