"""The reader of Speech Commands, on a generated tree in the layout of the release."""

from collections import Counter
from pathlib import Path

import pytest

from preprocess.corpora.speech_commands import read
from tests.preprocess.corpora.made_sound import sound, text


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "speech_commands"
    for word in ("yes", "no", "marvin"):
        for speaker in ("a1", "b2", "c3"):
            sound(root / word / f"{speaker}_nohash_0.wav")
    sound(root / "_background_noise_" / "pink_noise.wav", 11.5)
    text(root / "validation_list.txt", "yes/b2_nohash_0.wav", "marvin/b2_nohash_0.wav")
    text(root / "testing_list.txt", "yes/c3_nohash_0.wav", "no/gone_nohash_0.wav")
    return root


def test_35_words_are_labels_and_the_lists_split_them(tree: Path) -> None:
    reading = read(tree)
    rows = {row.id: row for row in reading.rows}
    assert len(rows) == 9
    assert (rows["yes/a1_nohash_0"].split, rows["yes/b2_nohash_0"].split, rows["yes/c3_nohash_0"].split) == ("train", "valid", "test")
    assert (rows["marvin/a1_nohash_0"].extra["labels"], rows["marvin/a1_nohash_0"].speaker) == (["marvin"], "a1")
    assert list(reading.left_out.values()) == ["is in a list, and not there"]
    assert "test has 1 clips, the published corpus 11,005" in reading.remarks


def test_12_classes_know_unknown_words_and_the_seconds_of_silence(tree: Path, tmp_path: Path) -> None:
    reading = read(tree, out=tmp_path / "out", classes=12)
    labels = Counter((row.extra["labels"][0], row.split) for row in reading.rows)
    assert labels["_unknown_", "train"] == 2
    assert labels["_unknown_", "valid"] == 1
    assert (labels["_silence_", "train"], labels["_silence_", "valid"]) == (10, 1)
    assert {row.audio_samples for row in reading.rows if row.extra["labels"] == ["_silence_"]} == {16000}
    assert all((tmp_path / "out" / (row.audio or "")).is_file() for row in reading.rows)


def test_the_test_set_of_12_classes_takes_the_place_of_the_list(tree: Path, tmp_path: Path) -> None:
    for label in ("yes", "_unknown_", "_silence_"):
        sound(tmp_path / "test_set" / label / "1.wav")
    reading = read(tree, out=tmp_path / "out", classes=12, test_set=tmp_path / "test_set")
    tested = [row for row in reading.rows if row.split == "test"]
    assert [row.extra["labels"][0] for row in tested] == ["_silence_", "_unknown_", "yes"]
    assert [row.transcript for row in tested] == [None, None, "yes"]
    with pytest.raises(ValueError, match="choose 35, or 12"):
        read(tree, test_set=tmp_path / "test_set")
