"""The reader of LRS3, on generated trees in the layout of the release."""

from collections import Counter
from pathlib import Path

import pytest

from avtlm.data.manifest import read_manifest
from preprocess import lip_roi
from preprocess.corpora import __main__ as corpora
from preprocess.corpora import lrs, lrs3
from preprocess.corpora.lrs3 import read
from tests.made_media import talking, tone, write_media
from tests.preprocess.corpora.made_lrs import clip, said

LONG = [("thank", 0.2, 0.6), ("you", 0.7, 1.0), ("all", 9.0, 9.5), ("of", 9.6, 10.0), ("you", 12.0, 16.0)]


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """80 clips of trainval, two of test, two of pretrain, of which one is long."""
    root = tmp_path_factory.mktemp("data") / "lrs3"
    for number in range(80):
        clip(root / "trainval" / f"talk{number // 8}" / f"500{number % 8:02d}.mp4", said(f"sentence number {number}"))
    for number in range(2):
        clip(root / "test" / "other" / f"0000{number}.mp4", said("it's a test"))
    clip(root / "pretrain" / "talk0" / "00001.mp4", LONG, table=True)
    clip(root / "pretrain" / "talkx" / "00002.mp4", LONG[:2], table=True)
    return root


def test_433_hours_are_trainval_and_pretrain_in_parts(tree: Path) -> None:
    reading = read(tree)
    assert not reading.left_out
    assert Counter((row.split, row.id.split("/")[0]) for row in reading.rows) == {
        ("train", "trainval"): 77,
        ("valid", "trainval"): 3,  # 1,200 of 31,982
        ("train", "short-pretrain"): 4,
        ("test", "test"): 2,
    }
    rows = {row.id: row for row in reading.rows}
    assert rows["short-pretrain/talk0/00001_1"].transcript == "all of"
    assert rows["short-pretrain/talk0/00001_1"].extra == {"span": [5.0, 11.0]}
    assert rows["short-pretrain/talkx/00002"].transcript == "thank you"
    assert rows["test/other/00000"].transcript == "it's a test"
    assert rows["test/other/00000"].speaker == "other"
    assert all((tree / (row.video or "")).is_file() for row in reading.rows)
    assert [row.id for row in reading.rows] == sorted(rows)


def test_30_hours_are_trainval_with_the_same_validation(tree: Path) -> None:
    small, large = read(tree, hours=30), read(tree)
    assert {row.id.split("/")[0] for row in small.rows} == {"trainval", "test"}
    assert [row for row in large.rows if row.split != "train"] == [row for row in small.rows if row.split != "train"]
    assert small == read(tree, hours=30)


def test_official_validation_ids_are_taken_from_a_list(tree: Path, tmp_path: Path) -> None:
    chosen = ["trainval/talk0/50003", "trainval/talk9/50007"]
    (tmp_path / "valid.id").write_text("\n".join([*chosen, "trainval/gone/50000"]) + "\n")
    reading = read(tree, valid_ids=tmp_path / "valid.id")
    assert [row.id for row in reading.rows if row.split == "valid"] == chosen
    assert any("1 of the 3 ids of" in remark for remark in reading.remarks)
    (tmp_path / "wrong.id").write_text("talk0/50003\n")
    with pytest.raises(ValueError, match="none of its 1 ids is a clip of trainval"):
        read(tree, valid_ids=tmp_path / "wrong.id")
    with pytest.raises(ValueError, match="cannot be read"):
        read(tree, valid_ids=tmp_path / "none.id")


def test_counts_are_compared_with_the_published_ones(tree: Path) -> None:
    remarks = read(tree).remarks
    assert "trainval has 80 clips, the published corpus 31,982" in remarks
    assert "pretrain has 2 clips, the published corpus 118,516" in remarks
    assert any("for the official ones give --valid-ids" in remark for remark in remarks)


def test_what_cannot_be_used_is_listed_and_counted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = tmp_path / "lrs3"
    clip(root / "trainval" / "a" / "50000.mp4", said("fine"))
    clip(root / "trainval" / "a" / "50001.mp4", said("no words")).with_suffix(".txt").unlink()
    clip(root / "trainval" / "a" / "50002.mp4", said("empty"), content=b"")
    clip(root / "trainval" / "a" / "50003.mp4", said("alone")).unlink()
    clip(root / "pretrain" / "a" / "50004.mp4", said("no table"))
    clip(root / "trainval" / "a" / "50005.mp4", []).with_suffix(".txt")
    (root / "trainval" / "a" / "._50000.mp4").write_text("a shadow of macOS")
    assert corpora.main(["lrs3", "--root", str(tmp_path), "--out", str(tmp_path / "out")]) == 0  # a folder too high is found
    captured = capsys.readouterr()
    assert "1 clips (1 train), 5 left out" in captured.out
    for number, reason in (
        (1, "has no transcript beside it"),
        (2, "is an empty file"),
        (3, "has no clip beside it"),
        (4, "its transcript has no table of words"),
        (5, "its transcript is empty"),
    ):
        assert any(f"5000{number}" in line and reason in line for line in captured.err.splitlines()), reason
    assert len((tmp_path / "out" / "left_out.tsv").read_text().splitlines()) == 5


def test_a_folder_without_the_corpus_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert lrs3.main(["--root", str(tmp_path), "--out", str(tmp_path / "out")]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert "has no folder trainval or test" in lines[0]
    assert not (tmp_path / "out").exists()


def test_the_manifest_is_input_for_lip_crops_which_cut_the_parts_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lrs, "LONGEST", 0.5)
    root = tmp_path / "lrs3"
    words = [("one", 0.0, 0.2), ("two", 0.7, 0.9)]  # cut at 0.45 s, which is in frame 11
    path = clip(root / "pretrain" / "talk" / "00001.mp4", words, table=True)
    write_media(path, talking(1.2), audio=tone(1.2))
    path = clip(root / "test" / "talk" / "00002.mp4", said("three"))
    write_media(path, talking(0.4), audio=tone(0.4))
    assert corpora.main(["lrs3", "--root", str(root), "--out", str(tmp_path / "clips")]) == 0
    made = read_manifest(lip_roi.run(tmp_path / "clips" / "manifest.jsonl", tmp_path / "lips", workers=0))
    assert [(row.id, row.transcript, row.split, row.speaker) for row in made] == [
        ("short-pretrain/talk/00001_0", "one", "train", "talk"),
        ("short-pretrain/talk/00001_1", "two", "train", "talk"),
        ("test/talk/00002", "three", "test", "talk"),
    ]
    assert [(row.video_frames, row.audio_samples) for row in made] == [(11, 7040), (19, 12160), (10, 6400)]
    assert made[1].extra["source_span"] == [0.45, None]
    assert "span" not in made[1].extra
