"""What all readers of sound share: lengths, copies, what is left out and why, splits that are drawn, and the command line."""

import errno
import os
import signal
from pathlib import Path

import numpy as np
import pytest

from avtlm.data.manifest import Utterance, read_manifest, validate
from avtlm.data.media import read_audio
from preprocess.corpora import sound_files
from preprocess.corpora.sound_corpus import Listing, SoundCorpus, draw, lines, table
from tests.preprocess.corpora.made_sound import sound, text

FILES = ("a.wav", "b.flac", "c.mp3", "d.ogg")


def lists(root: Path) -> Listing:
    """Two files that are not there, one of no bytes, one that is no sound, names that lead elsewhere, and an id that comes twice."""
    names = (*FILES, "gone.wav", "empty.wav", "words.wav", "../outside.wav", "a.wav")
    rows = [Utterance(Path(name).name.replace(".", "_"), audio=name, split="train", extra={"part": "all"}) for name in names]
    rows += [Utterance("../up", audio="a.wav"), Utterance("/up", audio="a.wav")]
    return Listing(root, rows, {"all": 5}, {"note.txt": "is no sound"}, ["a remark"])


CORPUS = SoundCorpus("made", "a made corpus", lists)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "corpus"
    sound(folder / "a.wav", 0.5, 8000)
    sound(folder / "b.flac", 0.25, 44100)
    sound(folder / "c.mp3", 0.5, 48000)
    sound(folder / "d.ogg", 0.3, 22050)
    sound(folder.parent / "outside.wav")
    (folder / "empty.wav").touch()
    (folder / "words.wav").write_text("words" * 100)
    return folder


def test_rows_get_their_true_length_and_the_rest_is_left_out_with_the_reason(root: Path) -> None:
    reading = CORPUS.read(root)
    assert [row.id for row in reading.rows] == ["a_wav", "b_flac", "c_mp3", "d_ogg"]
    assert [row.sample_rate for row in reading.rows] == [8000, 44100, 48000, 22050]
    for row in reading.rows:
        assert row.audio_samples == len(read_audio(root / (row.audio or ""), row.sample_rate))
    reasons = {Path(path).name: reason for path, reason in reading.left_out.items()}
    assert reasons["gone.wav"] == "is listed, and not there"
    assert reasons["empty.wav"] == "is an empty file"
    assert "is not a media file that can be read" in reasons["words.wav"]
    assert reasons["note.txt"] == "is no sound"
    assert reasons["a.wav (a_wav)"] == "its id stands in the lists twice"
    for name in ("outside.wav (outside_wav)", "up)"):
        assert next(reason for path, reason in reading.left_out.items() if path.endswith(name)) == (
            "its name leads out of the folder of the corpus"
        )
    assert len(reading.rows) + len(reading.left_out) == len(lists(root).rows) + 1  # nothing is lost
    assert reading.remarks == ("a remark", "all has 4 clips, the published corpus 5")


def test_any_number_of_workers_reads_the_same(root: Path) -> None:
    assert CORPUS.read(root, workers=2) == CORPUS.read(root)


def deadly(state: None, share: list[sound_files.Sounding]) -> list[sound_files.Sized]:
    if any(sounding.path.name == "b.flac" for sounding in share):
        os.kill(os.getpid(), signal.SIGKILL)
    return sound_files._open_share(state, share)


def test_a_file_that_takes_its_worker_down_is_left_out_and_costs_no_other(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = sound_files.run_tasks
    monkeypatch.setattr(sound_files, "run_tasks", lambda function, *rest: real(deadly, *rest))
    reading = CORPUS.read(root, workers=1)
    assert [row.id for row in reading.rows] == ["a_wav", "c_mp3", "d_ogg"]
    assert reading.left_out[str(root / "b.flac")] == "took its worker process down (signal 9)"


def test_copies_are_16_khz_and_are_made_once(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reading = CORPUS.read(root, out=tmp_path, copy=True)
    assert reading.root == tmp_path
    assert {(row.sample_rate, Path(row.audio or "").suffix) for row in reading.rows} == {(16000, ".flac")}
    heard = read_audio(tmp_path / "audio" / "b_flac.flac")
    assert np.abs(heard - read_audio(root / "b.flac")).max() < 1e-4
    assert [row.audio_samples for row in reading.rows][1] == len(heard)
    made: list[Path] = []
    real = sound_files.write_flac
    monkeypatch.setattr(sound_files, "write_flac", lambda path, wave: made.append(path) or real(path, wave))
    assert CORPUS.read(root, out=tmp_path, copy=True) == reading
    assert made == []
    (tmp_path / "audio" / "d_ogg.flac").unlink()
    assert CORPUS.read(root, out=tmp_path, copy=True) == reading
    assert [path.name for path in made] == ["d_ogg.flac"]


def test_a_recording_that_changed_is_copied_again(tmp_path: Path) -> None:
    def one(root: Path) -> Listing:
        return Listing(root, [Utterance("a", audio="a.wav")])

    corpus = SoundCorpus("one", "one", one)
    sound(tmp_path / "in" / "a.wav", 0.5)
    assert corpus.read(tmp_path / "in", out=tmp_path / "out", copy=True).rows[0].audio_samples == 8000
    sound(tmp_path / "in" / "a.wav", 0.25)
    os.utime(tmp_path / "in" / "a.wav", (0, 0))  # a clock that went back
    assert corpus.read(tmp_path / "in", out=tmp_path / "out", copy=True).rows[0].audio_samples == 4000


@pytest.mark.parametrize("suffix", [".wav", ".mp3"])
def test_spans_are_cut_out_and_must_lie_within_the_recording(tmp_path: Path, suffix: str) -> None:
    spans = {"begin": [0.0, 0.25], "middle": [0.5, 0.75], "end": [0.9, 1.05], "beyond": [0.9, 1.5], "after": [3.0, 3.1]}

    def cut(root: Path) -> Listing:
        return Listing(root, [Utterance(name, audio=f"talk{suffix}", extra={"span": span}) for name, span in spans.items()])

    path = sound(tmp_path / f"talk{suffix}", 1.0, 22050)
    corpus = SoundCorpus("cut", "cut", cut)
    with pytest.raises(ValueError, match="give a folder for them"):
        corpus.read(tmp_path)
    reading = corpus.read(tmp_path, out=tmp_path / "out")
    rows = {row.id: row for row in reading.rows}
    assert set(rows) == {"begin", "middle", "end"}
    assert rows["middle"].audio_samples == 4000
    whole, part = read_audio(path), read_audio(tmp_path / "out" / (rows["middle"].audio or ""))
    assert np.abs(part[200:-200] - whole[8200:11800]).max() < 0.02
    assert all("is listed up to" in reason for reason in reading.left_out.values())


def test_a_full_disk_ends_the_run_in_one_sentence_and_leaves_no_half_file(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(handle: int, *rest: object, **more: object) -> None:
        os.write(handle, b"half")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(sound_files.soundfile, "write", full)
    assert CORPUS.main(["--root", str(root), "--out", str(tmp_path / "out"), "--copy", "--workers", "0"]) == 1
    assert "No space left on device" in capsys.readouterr().err
    assert [path for path in (tmp_path / "out").rglob("*") if path.is_file() and path.name != "copied.jsonl"] == []


def test_the_command_writes_a_manifest_of_the_whole_and_of_every_part(
    root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert CORPUS.main(["--root", str(root), "--out", str(tmp_path), "--workers", "0"]) == 0
    captured = capsys.readouterr()
    assert "4 clips (4 train), 8 left out" in captured.out
    assert "made: all has 4 clips, the published corpus 5." in captured.err
    manifest = read_manifest(tmp_path)
    assert read_manifest(tmp_path / "all.jsonl").utterances == manifest.utterances
    assert validate(manifest, read_files=True) == []
    assert len((tmp_path / "left_out.tsv").read_text().splitlines()) == 8


def test_a_corpus_without_usable_sound_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert CORPUS.main(["--root", str(tmp_path), "--out", str(tmp_path / "out"), "--workers", "0"]) == 1
    assert "holds no usable sound of a made corpus" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_drawn_splits_are_shares_or_numbers_and_the_same_for_everybody() -> None:
    names = [f"name{number}" for number in range(200)]
    splits = draw(names, 0.1, 30, "seed")
    assert [list(splits.values()).count(split) for split in ("train", "valid", "test")] == [150, 20, 30]
    assert draw(reversed(names), 0.1, 30, "seed") == splits
    assert draw(names, 0.1, 30, "other") != splits


@pytest.mark.parametrize(
    ("content", "reason"),
    [(b"a,b\n1,2\n", "has no column c"), (b"\xff\xfe,c\n", "is not UTF-8 text"), (b"c\n" + b"x" * 200_000, "field larger than")],
)
def test_tables_that_cannot_be_read_are_named(tmp_path: Path, content: bytes, reason: str) -> None:
    (tmp_path / "t.csv").write_bytes(content)
    with pytest.raises(ValueError, match=rf"t\.csv: .*{reason}"):
        list(table(tmp_path / "t.csv", ["c"]))
    with pytest.raises(ValueError, match=r"gone\.txt: cannot be read \(No such file"):
        lines(tmp_path / "gone.txt")


def test_a_table_may_have_a_mark_of_its_encoding(tmp_path: Path) -> None:
    text(tmp_path / "t.csv", "\ufeffc,d", "1,2")
    assert list(table(tmp_path / "t.csv", ["c"])) == [{"c": "1"}]
