"""The reader of LJSpeech, on a generated tree in the layout of the release."""

from collections import Counter
from pathlib import Path

import pytest

from preprocess.corpora.ljspeech import read
from tests.preprocess.corpora.made_sound import sound, text


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data") / "LJSpeech-1.1"
    names = [f"LJ{book:03d}-{number:04d}" for book in (1, 2, 49, 50) for number in range(1, 41)]
    for name in names:
        sound(root / "wavs" / f"{name}.wav", rate=22050)
    rows = [f'{name}|in "1905|in "nineteen oh five' for name in names[:-1]]
    text(root / "metadata.csv", *rows, "LJ050-0099|gone|", "nonsense")
    return root


def test_the_text_with_numbers_written_out_is_the_transcript(tree: Path) -> None:
    reading = read(tree)
    row = reading.rows[0]
    assert (row.id, row.transcript, row.extra["text"]) == ("LJ001-0001", 'in "nineteen oh five', 'in "1905')
    assert (row.speaker, row.sample_rate) == ("LJ", 22050)
    assert {Path(path).name: reason for path, reason in reading.left_out.items()} == {
        "metadata.csv, line 161": "is 'nonsense', not 'id|text|text'",
        "LJ050-0040.wav": "has no line in metadata.csv",
        "LJ050-0099.wav": "is listed, and not there",
    }
    assert reading.remarks == ("LJSpeech has 159 clips, the published corpus 13,100",)


def test_the_last_books_are_the_test_or_clips_are_drawn(tree: Path) -> None:
    rows = read(tree).rows
    assert {row.id[:5] for row in rows if row.split == "test"} == {"LJ049", "LJ050"}
    assert Counter(row.split for row in rows) == {"test": 79, "valid": 1, "train": 79}
    assert Counter(row.split for row in read(tree, protocol="random").rows) == {"test": 6, "valid": 1, "train": 152}
    with pytest.raises(ValueError, match="'books' is unknown"):
        read(tree, protocol="books")
