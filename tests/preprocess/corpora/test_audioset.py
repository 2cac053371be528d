"""The reader of AudioSet, on generated tables and sound files of several names."""

from pathlib import Path

import pytest

from preprocess.corpora.audioset import read
from tests.preprocess.corpora.made_sound import sound, text


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    text(tmp_path / "class_labels_indices.csv", "index,mid,display_name", "0,/m/09x0r,Speech", '1,/m/05zppz,"Male speech, man speaking"')
    head = ("# Segments csv created Sun Mar  5 10:54:31 2017", "# num_ytids=2", "# YTID, start_seconds, end_seconds, positive_labels")
    clips = ('--4gqARaEJE, 0.000, 10.000, "/m/09x0r,/m/05zppz"', 'gone_567890, 30.000, 40.000, "/m/09x0r"', "broken")
    text(tmp_path / "balanced_train_segments.csv", *head, *clips)
    text(tmp_path / "eval_segments.csv", *head, 'abcdefghijk, 20.000, 30.000, "/m/05zppz"', 'k0987654321, 1.000, 11.000, "/m/none"')
    sound(tmp_path / "sound" / "balanced" / "Y--4gqARaEJE.flac")
    sound(tmp_path / "sound" / "eval" / "abcdefghijk_20.000.wav")
    return tmp_path


def test_sound_is_found_by_the_id_of_its_video(tree: Path) -> None:
    reading = read(tree, sound=tree / "sound")
    train, test = reading.rows
    assert (train.id, train.split, train.audio) == ("--4gqARaEJE_0.000", "train", "balanced/Y--4gqARaEJE.flac")
    assert train.extra["labels"] == ["Speech", "Male speech, man speaking"]
    assert (test.id, test.split, test.extra["labels"]) == ("abcdefghijk_20.000", "test", ["Male speech, man speaking"])
    assert read(tree).rows[0].audio == "sound/balanced/Y--4gqARaEJE.flac"


def test_clips_that_are_gone_and_lines_that_are_broken_are_listed(tree: Path) -> None:
    reading = read(tree)
    left_out = {Path(path).name: reason for path, reason in reading.left_out.items()}
    assert left_out["gone_567890"] == "is in balanced_train_segments.csv, and no sound file bears its name"
    assert "is 'broken', not a clip with labels" in left_out["balanced_train_segments.csv, line 6"]
    assert "not a clip with labels" in left_out["eval_segments.csv, line 5"]
    assert len(left_out) == 3
    assert "class_labels_indices.csv has 2 classes, the published one 527" in reading.remarks
    assert "eval has 1 clips, the published corpus 20,371" in reading.remarks


def test_a_folder_without_tables_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="give the folder of the tables"):
        read(tmp_path)
