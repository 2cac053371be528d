"""The reader of LRS2, on generated trees in the layout of the release."""

from pathlib import Path

import pytest

from preprocess.corpora import __main__ as corpora
from preprocess.corpora.lrs2 import read
from tests.preprocess.corpora.made_lrs import clip, said

LISTS = {
    "train": "5535415699068794046/00001\n5535415699068794046/00002\n",
    "val": "5535496873950688380/00005\n",
    "test": "6330311066473698535/00011 NF\n6330311066473698535/00018 MV\n",
    "pretrain": "5535423430009926848/00001\n",
}


@pytest.fixture(params=["beside", "inside"])
def tree(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """The folder above mvlrs_v1, with the lists there or inside it."""
    root = tmp_path / "lrs2" / "mvlrs_v1"
    for name, content in LISTS.items():
        for line in content.splitlines():
            part = "pretrain" if name == "pretrain" else "main"
            words = [("good", 0.0, 1.0), ("evening", 8.0, 17.0)] if part == "pretrain" else said(f"one of {name}")
            clip(root / part / f"{line.split()[0]}.mp4", words, table=part == "pretrain")
        target = root if request.param == "inside" else root.parent
        (target / f"{name}.txt").write_text(content)
    return root.parent


def test_the_lists_say_which_clips_and_splits_there_are(tree: Path) -> None:
    reading = read(tree)
    assert not reading.left_out
    assert [(row.id, row.split) for row in reading.rows] == [
        ("main/5535415699068794046/00001", "train"),
        ("main/5535415699068794046/00002", "train"),
        ("main/5535496873950688380/00005", "valid"),
        ("main/6330311066473698535/00011", "test"),
        ("main/6330311066473698535/00018", "test"),
        ("pretrain/5535423430009926848/00001_0", "train"),
        ("pretrain/5535423430009926848/00001_1", "train"),
    ]
    assert reading.rows[3].transcript == "one of test"
    assert reading.rows[-1].extra == {"span": [4.5, None]}
    assert reading.root == tree / "mvlrs_v1"
    assert all((reading.root / (row.video or "")).is_file() for row in reading.rows)
    assert "test has 2 clips, the published corpus 1,243" in reading.remarks


def test_one_part_needs_only_its_lists(tree: Path) -> None:
    for path in tree.rglob("pretrain.txt"):
        path.unlink()
    assert {row.id.split("/")[0] for row in read(tree, parts=["main"]).rows} == {"main"}
    with pytest.raises(ValueError, match=r"the list pretrain.txt is neither there nor in the folder above"):
        read(tree)


def test_clips_that_are_listed_and_gone_or_there_and_not_listed_are_counted(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tree / "mvlrs_v1" / "main" / "5535496873950688380" / "00005.mp4").unlink()
    (tree / "mvlrs_v1" / "main" / "5535496873950688380" / "00005.txt").unlink()
    (tree / "mvlrs_v1" / "main" / "6330311066473698535" / "00011.txt").unlink()
    clip(tree / "mvlrs_v1" / "main" / "77" / "00001.mp4", said("not listed"))
    assert corpora.main(["lrs2", "--root", str(tree), "--out", str(tree / "out"), "--parts", "main"]) == 0
    captured = capsys.readouterr()
    assert "3 clips (2 train, 1 test), 2 left out" in captured.out
    assert "00005.mp4: is in val.txt, and not there." in captured.err
    assert "00011.mp4: has no transcript beside it." in captured.err
    assert "1 clips of main are in no list and not used." in captured.err
