"""The reader of the Free Spoken Digit Dataset, on a generated tree in its layout."""

from pathlib import Path

import pytest

from preprocess.corpora.fsdd import read
from tests.preprocess.corpora.made_sound import sound


@pytest.mark.parametrize("folder", ["recordings", "free-spoken-digit-dataset/recordings", "."])
def test_the_first_five_takes_are_the_test(tmp_path: Path, folder: str) -> None:
    for name in ("0_jackson_4", "7_nicolas_5", "9_theo_49", "hello"):
        sound(tmp_path / folder / f"{name}.wav", rate=8000)
    reading = read(tmp_path)
    assert [(row.id, row.transcript, row.speaker, row.split) for row in reading.rows] == [
        ("0_jackson_4", "zero", "jackson", "test"),
        ("7_nicolas_5", "seven", "nicolas", "train"),
        ("9_theo_49", "nine", "theo", "train"),
    ]
    assert list(reading.left_out.values()) == ["its name is not <digit>_<speaker>_<take>.wav"]
    assert "train has 2 clips, the published corpus 2,700" in reading.remarks
