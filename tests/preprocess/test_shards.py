"""Writing shards: nothing lost, whole or not at all, resumable, equal bytes; and the check that names what is damaged."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from avtlm.data.manifest import read_manifest
from avtlm.data.shards import read_shards
from avtlm.errors import MissingExtra
from avtlm.units.labels import read_labels
from preprocess import shards as module
from preprocess.shard_check import check
from preprocess.shards import ShardingError, main, parse_size, write_shards
from tests.made_corpus import MadeCorpus, make_corpus


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> MadeCorpus:
    return make_corpus(tmp_path_factory.mktemp("corpus"), 18)


def write(corpus: MadeCorpus, out: Path, size: int = 900_000, workers: int = 0) -> Path:
    return write_shards(corpus.clips, out, size, corpus.units, workers=workers).parent


@pytest.fixture(scope="module")
def written(corpus: MadeCorpus, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(corpus, tmp_path_factory.mktemp("written"))


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_webdataset_reads_what_was_written(corpus: MadeCorpus, written: Path) -> None:
    from webdataset.tariterators import tarfile_samples

    manifest, labels = read_manifest(corpus.clips), read_labels(corpus.units)
    rows = {row.id: row for row in manifest}
    found = {}
    for sample in tarfile_samples([{"url": str(path)} for path in sorted(written.glob("*.tar"))]):
        record = json.loads(sample["json"])
        row = rows[record["id"]]
        assert int(sample["__key__"]) == [other.id for other in manifest].index(row.id)
        assert sample["video.npy"] == manifest.path(row.video or "").read_bytes()
        assert sample["audio.wav"] == manifest.path(row.audio or "").read_bytes()
        assert record["transcript"] == row.transcript
        found[row.id] = np.frombuffer(sample["units.npy"][-4 * len(labels[row.id]) :], np.int32)
    assert set(found) == set(rows)
    assert all(np.array_equal(found[name], labels[name]) for name in rows)


def test_the_index_counts_everything_once(corpus: MadeCorpus, written: Path) -> None:
    manifest, packed = read_manifest(corpus.clips), read_shards(written)
    index = packed.shards
    assert index is not None
    assert len(index.shards) > 3
    assert [row.id for row in packed] == [row.id for row in manifest]
    assert sum(shard.utterances for shard in index.shards) == len(manifest)
    assert sum(shard.frames for shard in index.shards) == sum(row.video_frames for row in manifest)
    for row, plain in zip(packed, manifest, strict=True):
        assert (row.transcript, row.phones, row.split, row.speaker) == (plain.transcript, plain.phones, plain.split, plain.speaker)
    assert all(shard.bytes < 1.2 * 900_000 for shard in index.shards)


def test_equal_input_gives_equal_bytes_on_any_number_of_workers(corpus: MadeCorpus, written: Path, tmp_path: Path) -> None:
    assert contents(write(corpus, tmp_path / "again", workers=1)) == contents(written)


def test_a_finished_folder_is_left_as_it_is_and_a_lost_shard_is_made_again(corpus: MadeCorpus, written: Path, tmp_path: Path) -> None:
    folder = write(corpus, tmp_path)
    before = {path: path.stat().st_mtime_ns for path in folder.glob("*.tar")}
    lost, cut = sorted(folder.glob("*.tar"))[:2]
    lost.unlink()
    cut.write_bytes(cut.read_bytes()[:-600])
    write(corpus, tmp_path)
    assert contents(folder) == contents(written)
    assert {path: path.stat().st_mtime_ns for path in before if path not in (lost, cut)} == {
        path: time_ for path, time_ in before.items() if path not in (lost, cut)
    }


def test_a_killed_run_leaves_whole_shards_and_goes_on(corpus: MadeCorpus, written: Path, tmp_path: Path) -> None:
    """A kill in the middle of the third shard: its bytes are there, the shard is not."""
    script = (
        "import os, signal, sys; from preprocess import shards\n"
        "members, left = shards._members, [10]\n"
        "def counted(row):\n"
        "    left[0] -= 1\n"
        "    if not left[0]: os.kill(os.getpid(), signal.SIGKILL)\n"
        "    return members(row)\n"
        "shards._members = counted\n"
        "shards.write_shards(sys.argv[1], sys.argv[2], 900_000, sys.argv[3], workers=0)\n"
    )
    command = [sys.executable, "-c", script, str(corpus.clips), str(tmp_path), str(corpus.units)]
    assert subprocess.run(command, check=False, stderr=subprocess.DEVNULL).returncode == -signal.SIGKILL
    whole = contents(written)
    half = {name: content for name, content in contents(tmp_path).items() if not name.startswith(".")}
    assert 0 < len(half) < len(whole)
    assert all(whole[name] == content for name, content in half.items())
    assert "shards.jsonl" not in half
    times = {name: os.stat(tmp_path / name).st_mtime_ns for name in half}
    time.sleep(0.01)
    write(corpus, tmp_path)
    assert {name: content for name, content in contents(tmp_path).items() if not name.startswith(".")} == whole
    assert {name: os.stat(tmp_path / name).st_mtime_ns for name in half} == times


def test_a_folder_with_other_shards_is_refused(corpus: MadeCorpus, tmp_path: Path) -> None:
    folder = write(corpus, tmp_path)
    before = contents(folder)
    with pytest.raises(ShardingError, match="holds shards of another manifest, of other files or of another size; choose another folder"):
        write(corpus, tmp_path, size=500_000)
    assert contents(folder) == before


def test_what_is_missing_is_named_before_anything_is_written(tmp_path: Path) -> None:
    corpus = make_corpus(tmp_path / "corpus", 4)
    lost = corpus.clips.parent / "clips02.wav"
    lost.unlink()
    with pytest.raises(ShardingError, match=r"1 files are missing, the first is .*clips02.wav of utterance 'clips02'"):
        write(corpus, tmp_path / "out")
    with pytest.raises(ShardingError, match=r"no labels for utterance 'clips00'"):
        write_shards(corpus.clips, tmp_path / "out", units=_no_labels(tmp_path), workers=0)
    with pytest.raises(ShardingError, match="no utterance of split 'test'"):
        write_shards(corpus.clips, tmp_path / "out", split="test", workers=0)
    assert not (tmp_path / "out").exists()


def _no_labels(folder: Path) -> Path:
    (folder / "other.units").write_text("someone\t1 2 3\n")
    return folder / "other.units"


def test_without_webdataset_the_extra_is_named(corpus: MadeCorpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "webdataset.writer", None)
    with pytest.raises(MissingExtra, match=r"webdataset is needed for writing shards; install it with: pip install 'avtlm\[shards\]'"):
        write(corpus, tmp_path)


def test_a_full_disk_is_one_sentence(corpus: MadeCorpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(row: object) -> dict[str, bytes]:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module, "_members", full)
    with pytest.raises(ShardingError, match=r"shard-000000.tar: cannot be written .*No space left on device.*; start again to go on"):
        write(corpus, tmp_path)
    assert list(tmp_path.iterdir()) == []


# The check ------------------------------------------------------------------------------------------------------------------------------


def damaged(written: Path, folder: Path) -> Path:
    """Copies of shards, each with a fault of its own."""
    folder.mkdir()
    for name, content in contents(written).items():
        if name == "shard-000000.tar":
            continue
        if name == "shard-000001.tar":
            content = content[: len(content) // 2]
        elif name == "shard-000002.tar":
            at = content.index(b"\x93NUMPY") + 5000
            content = content[:at] + bytes([content[at] ^ 255]) + content[at + 1 :]
        elif name == "shard-000003.tar":
            at = content.index(b"ustar") - 100
            content = content[:at] + b"7777777" + content[at + 7 :]
        (folder / name).write_bytes(content)
    return folder


@pytest.mark.parametrize("remote", [False, True])
def test_the_check_names_shard_member_and_reason(written: Path, tmp_path: Path, remote: bool) -> None:
    folder = damaged(written, tmp_path / "damaged")
    _, faults = check(folder.as_uri() if remote else folder)
    told = {number: [fault for fault in faults if f"shard-00000{number}.tar" in fault.shard] for number in range(5)}
    assert [fault.reason for fault in told[0]] == ["there is no such file; copy the shard, or make it again."]
    assert told[1][0].reason.startswith("is cut off: ")
    assert told[1][1].member is not None
    assert "is cut off after" in told[1][1].reason
    assert [(fault.member is not None and fault.member.endswith("npy"), fault.reason) for fault in told[2]] == [
        (True, "is damaged: its checksum differs from the index.")
    ]
    assert [fault.member for fault in told[3]] == [None]
    assert "differs outside the media" in told[3][0].reason
    assert told[4] == []


def test_whole_shards_have_no_faults_and_are_decoded_on_demand(written: Path) -> None:
    assert check(written, decode=True)[1] == []


def test_decoding_finds_media_that_never_were_what_the_manifest_says(tmp_path: Path) -> None:
    corpus = make_corpus(tmp_path / "corpus", 3)
    np.save(corpus.clips.parent / "clips00.npy", np.zeros((3, 96, 96), np.uint8))
    (corpus.clips.parent / "clips01.wav").write_bytes(b"nothing to hear")
    folder = write(corpus, tmp_path / "out")
    assert check(folder)[1] == []
    told = [str(fault) for fault in check(folder, decode=True)[1]]
    assert len(told) == 2
    assert any("00000000.video.npy has 3 frames at 25 Hz, and the index says" in line for line in told)
    assert any("00000001.audio.wav cannot be decoded" in line for line in told)


def test_the_command_writes_and_checks(corpus: MadeCorpus, written: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    arguments = [str(corpus.clips), "--out", str(out), "--shard-size", "900KB", "--units", str(corpus.units), "--workers", "0"]
    assert main(arguments) == 0
    assert "18 utterances in" in capsys.readouterr().out
    assert contents(out) == contents(written)
    assert main([str(out), "--check", "--decode"]) == 0
    assert capsys.readouterr().out.endswith("18 utterances: 0 faults\n")
    assert main([str(damaged(written, tmp_path / "damaged")), "--check"]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].endswith("shard-000000.tar: there is no such file; copy the shard, or make it again.")
    assert main([str(tmp_path / "nothing"), "--out", str(out)]) == 2
    error = capsys.readouterr().err
    assert error.startswith("preprocess.shards: ")
    assert error.count("\n") == 1
    with pytest.raises(SystemExit):
        main([str(out)])


def test_sizes_are_read_with_their_units() -> None:
    assert [parse_size(text) for text in ("7", "900KB", "1.5g", "256 MB")] == [7, 900_000, 1_500_000_000, 256_000_000]
    for text in ("", "0", "-1MB", "big", "3 TB"):
        with pytest.raises(Exception, match="is no size"):
            parse_size(text)
