"""The reader of VoxCeleb1, on generated trees in the layouts in use."""

from pathlib import Path

import pytest

from preprocess.corpora.voxceleb1 import read
from tests.preprocess.corpora.made_sound import sound, text

CLIPS = ("id10001/1zcIwhmdeo4/00001", "id10001/1zcIwhmdeo4/00002", "id10270/5r0dWxy17C8/00001", "id10309/0b1inHMAr6o/00001")


@pytest.fixture(params=["wav", "dev/wav and test/wav"])
def tree(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    for name in CLIPS:
        part = "" if request.param == "wav" else "dev" if name.startswith("id10001") else "test"
        sound(tmp_path / "vox1" / part / "wav" / f"{name}.wav")
    text(
        tmp_path / "vox1" / "iden_split.txt",
        f"1 {CLIPS[0]}.wav",
        f"2 {CLIPS[1]}.wav",
        f"3 {CLIPS[2]}.wav",
        "1 id10002/gone/00001.wav",
        "4 what",
    )
    text(tmp_path / "vox1" / "veri_test2.txt", f"1 {CLIPS[2]}.wav {CLIPS[2]}.wav", f"0 {CLIPS[2]}.wav id10271/gone/00001.wav")
    return tmp_path / "vox1"


def test_identification_follows_the_list(tree: Path) -> None:
    reading = read(tree)
    assert [(row.id, row.speaker, row.split) for row in reading.rows] == [
        (CLIPS[0], "id10001", "train"),
        (CLIPS[1], "id10001", "valid"),
        (CLIPS[2], "id10270", "test"),
    ]
    assert sorted(reading.left_out.values()) == ["is '4 what', not '1 <speaker>/<video>/<clip>.wav'", "is in iden_split.txt, and not there"]
    assert "1 clips are not in iden_split.txt and not used" in reading.remarks
    assert "train has 1 clips, the published corpus 138,361" in reading.remarks
    assert "2 speakers, the published corpus 1,251" in reading.remarks


def test_verification_tests_on_the_forty_speakers_and_counts_the_trials(tree: Path) -> None:
    reading = read(tree, protocol="verification")
    assert [row.split for row in reading.rows] == ["train", "train", "test", "test"]
    assert "veri_test2.txt has 2 clips, the published corpus 37,611" in reading.remarks
    assert list(reading.left_out.values()) == ["is in veri_test2.txt, and not there"]


def test_without_the_list_nobody_can_be_identified(tree: Path, tmp_path: Path) -> None:
    (tree / "iden_split.txt").unlink()
    with pytest.raises(ValueError, match=r"the list iden_split\.txt is neither there nor in the folder above"):
        read(tree)
    with pytest.raises(ValueError, match="'verifying' is unknown"):
        read(tree, protocol="verifying")
