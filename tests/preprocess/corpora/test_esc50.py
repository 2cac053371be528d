"""The reader of ESC-50 and ESC-10, on generated trees in both layouts."""

from pathlib import Path

import pytest

from preprocess.corpora.esc50 import read
from tests.preprocess.corpora.made_sound import sound, text

ROWS = (
    "1-100032-A-0.wav,1,0,dog,True,100032,A",
    "2-100038-A-14.wav,2,14,chirping_birds,False,100038,A",
    "3-1-A-1.wav,x,1,rooster,True,1,A",
)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    text(tmp_path / "ESC-50-master" / "meta" / "esc50.csv", "filename,fold,target,category,esc10,src_file,take", *ROWS)
    for row in ROWS:
        sound(tmp_path / "ESC-50-master" / "audio" / row.split(",")[0], rate=44100)
    return tmp_path


def test_one_fold_is_the_test(tree: Path) -> None:
    reading = read(tree)
    assert [(row.id, row.split, row.extra["labels"]) for row in reading.rows] == [
        ("1-100032-A-0", "test", ["dog"]),
        ("2-100038-A-14", "train", ["chirping_birds"]),
    ]
    assert list(reading.left_out.values()) == ["is in the fold 'x'"]
    assert reading.remarks == ("ESC-50 has 2 clips, the published corpus 2,000",)
    assert [row.split for row in read(tree, test_fold=2).rows] == ["train", "test"]
    assert [row.id for row in read(tree, esc10=True).rows] == ["1-100032-A-0"]
    with pytest.raises(ValueError, match="choose 1 to 5"):
        read(tree, test_fold=6)


def test_folders_of_classes_are_the_older_esc_10(tmp_path: Path) -> None:
    sound(tmp_path / "001 - Dog bark" / "1-30226-A.ogg", 0.2, 44100)
    sound(tmp_path / "rain" / "3-157615-A.ogg", 0.2, 44100)
    reading = read(tmp_path)
    assert [(row.split, row.extra["labels"]) for row in reading.rows] == [("test", ["dog_bark"]), ("train", ["rain"])]
    assert reading.remarks == ("ESC-10 has 2 clips, the published corpus 400",)
