"""The reader of LibriSpeech, on a generated tree in the layout of the release."""

from pathlib import Path

import pytest

from avtlm.data.manifest import read_manifest
from preprocess.corpora.librispeech import main, read
from tests.preprocess.corpora.made_sound import sound, text


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "data" / "LibriSpeech"
    for part, speaker, chapter in (
        ("train-clean-100", 19, 198),
        ("train-clean-100", 26, 495),
        ("dev-other", 116, 288045),
        ("test-clean", 61, 70968),
    ):
        folder = root / part / str(speaker) / str(chapter)
        names = [f"{speaker}-{chapter}-{number:04d}" for number in range(2)]
        for name in names:
            sound(folder / f"{name}.flac")
        text(folder / f"{speaker}-{chapter}.trans.txt", *(f"{name} IT'S CHAPTER {chapter}" for name in names))
    return root


def test_parts_are_splits_and_transcripts_are_in_lower_case(tree: Path) -> None:
    reading = read(tree)
    assert [row.id for row in reading.rows][:2] == ["116-288045-0000", "116-288045-0001"]
    rows = {row.id: row for row in reading.rows}
    row = rows["19-198-0001"]
    assert (row.speaker, row.split, row.transcript) == ("19", "train", "it's chapter 198")
    assert (row.audio, row.audio_samples) == ("train-clean-100/19/198/19-198-0001.flac", 800)
    assert (rows["116-288045-0000"].split, rows["61-70968-0000"].split) == ("valid", "test")
    assert "train-clean-100 has 4 clips, the published corpus 28,539" in reading.remarks
    assert not any("train-other-500" in remark for remark in reading.remarks)  # it is not there, and nobody asked for it
    assert reading.left_out == {}


def test_every_part_has_a_manifest_and_a_folder_too_high_is_found(tree: Path, tmp_path: Path) -> None:
    arguments = ["--root", str(tree.parent), "--out", str(tmp_path / "out"), "--workers", "0"]
    assert main([*arguments, "--parts", "train-clean-100", "dev-other"]) == 0
    assert len(read_manifest(tmp_path / "out")) == 6
    assert {row.speaker for row in read_manifest(tmp_path / "out" / "dev-other.jsonl")} == {"116"}


def test_what_is_missing_on_either_side_is_listed(tree: Path) -> None:
    chapter = tree / "train-clean-100" / "19" / "198"
    (chapter / "19-198-0000.flac").unlink()
    sound(chapter / "19-198-0007.flac")
    text(tree / "test-clean" / "61" / "70968" / "61-70968.trans.txt", "61-70968-0000", "../61-70968-0001 UP")
    left_out = {Path(path).name: reason for path, reason in read(tree).left_out.items()}
    assert left_out["19-198-0000.flac"] == "is listed, and not there"
    assert left_out["19-198-0007.flac"] == "has no line in 19-198.trans.txt"
    assert left_out["61-70968-0000.flac"] == "its transcript in 61-70968.trans.txt is empty"
    assert "leads out of the folder" in left_out["61-70968-0001)"]


def test_small_labelled_sets_have_the_same_layout(tmp_path: Path) -> None:
    folder = tmp_path / "librispeech_finetuning" / "1h" / "0" / "clean" / "1" / "2"
    sound(folder / "1-2-0000.flac")
    text(folder / "1-2.trans.txt", "1-2-0000 TEN MINUTES")
    (row,) = read(tmp_path, parts=["1h"]).rows
    assert (row.split, row.extra["part"], row.transcript) == ("train", "1h", "ten minutes")


def test_another_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="give the folder of the unpacked corpus"):
        read(tmp_path)
