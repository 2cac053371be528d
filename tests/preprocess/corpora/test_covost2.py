"""The reader of CoVoST 2, on a generated tree in the layout of Common Voice."""

from pathlib import Path

import pytest

from preprocess.corpora.covost2 import read
from tests.preprocess.corpora.made_sound import sound, text

CLIPS = (
    ("common_voice_en_1.mp3", 'He said "go".', 'Er sagte "geh".', "train"),
    ("common_voice_en_2.mp3", "Only in CoVoST.", "Nur in CoVoST.", "train_covost"),
    ("common_voice_en_3.mp3", "A test.", "Ein Test.", "test"),
    ("common_voice_en_4.mp3", "Dev.", "Entwicklung.", "dev"),
    ("common_voice_en_5.mp3", "Spare.", "Übrig.", "other"),
    ("common_voice_en_6.mp3", "Silent.", "", "train"),
    ("common_voice_en_7.mp3", "Gone.", "Fort.", "train"),
)


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "cv" / "en"
    for name, *_ in CLIPS[:-1]:
        sound(root / "clips" / name, 0.2, 48000)
    header = "client_id\tpath\tsentence\tup_votes\tdown_votes\tage\tgender\taccent"
    text(
        root / "validated.tsv",
        header,
        *(f"speaker{number % 2}\t{name}\t{said}\t2\t0\t\t\t" for number, (name, said, *_) in enumerate(CLIPS)),
    )
    table = [f"{name}\t{written}\t{split}" for name, _, written, split in CLIPS]
    text(root.parent / "covost_v2.en_de.tsv", "path\ttranslation\tsplit", *table, "lost.mp3\tVerloren.\ttrain")
    return root


def test_tables_are_joined_by_the_name_of_the_clip(tree: Path) -> None:
    reading = read(tree)
    rows = {row.id: row for row in reading.rows}
    assert [row.split for row in reading.rows] == ["train", "train", "test", "valid"]
    first = rows["common_voice_en_1"]
    assert (first.transcript, first.extra["translation"]) == ('He said "go".', 'Er sagte "geh".')
    assert (first.speaker, first.audio, first.sample_rate) == ("speaker0", "clips/common_voice_en_1.mp3", 48000)
    assert {Path(path).name: reason for path, reason in reading.left_out.items()} == {
        "lost.mp3": "is in covost_v2.en_de.tsv, and not in validated.tsv",
        "common_voice_en_6.mp3": "its sentence or its translation is empty",
        "common_voice_en_7.mp3": "is listed, and not there",
    }
    assert "1 clips of covost_v2.en_de.tsv are in no split and not used" in reading.remarks
    assert "train has 2 clips, the published corpus 289,430" in reading.remarks


def test_a_missing_table_is_named(tree: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"covost_v2\.en_fa\.tsv: there is no such table of translations"):
        read(tree, target="fa")
    with pytest.raises(ValueError, match=r"has no validated\.tsv"):
        read(tmp_path)
    text(tree / "validated.tsv", "client_id\tpath")
    with pytest.raises(ValueError, match="has no column sentence"):
        read(tree.parent)
