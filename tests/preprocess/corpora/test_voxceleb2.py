"""The reader of VoxCeleb2, on generated trees in the layout of the release."""

import gzip
from pathlib import Path

import pytest

from avtlm.data.manifest import read_manifest
from preprocess.corpora import __main__ as corpora
from preprocess.corpora.voxceleb2 import read

CLIPS = ["dev/mp4/id00012/21Uxsk56VDQ/00001", "dev/mp4/id00012/21Uxsk56VDQ/00002", "dev/mp4/id05668/XWKC1JUM_ow/00053",
         "test/mp4/id00017/01dfn2spqyE/00001"]  # fmt: skip


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name in CLIPS:
        path = tmp_path / "vox2" / f"{name}.mp4"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("video")
    (tmp_path / "vox2" / "dev" / "aac" / "id00012" / "x").mkdir(parents=True)
    (tmp_path / "vox2" / "dev" / "aac" / "id00012" / "x" / "00001.m4a").write_text("sound")
    return tmp_path / "vox2"


def test_all_clips_are_training_clips_without_transcripts(tree: Path) -> None:
    reading = read(tree)
    assert [row.id for row in reading.rows] == CLIPS
    assert {(row.split, row.transcript) for row in reading.rows} == {("train", None)}
    assert [row.speaker for row in reading.rows] == ["id00012", "id00012", "id05668", "id00017"]
    assert reading.rows[0].video == f"{CLIPS[0]}.mp4"
    assert "dev has 3 clips, the published corpus 1,092,009" in reading.remarks
    assert [row.id for row in read(tree, parts=["test"]).rows] == CLIPS[3:]


@pytest.mark.parametrize("name", ["vox-en.id", "vox-en.id.gz"])
def test_a_list_of_ids_chooses_clips_and_lists_those_that_are_not_there(
    tree: Path, tmp_path: Path, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (tree / f"{CLIPS[1]}.mp4").write_text("")
    content = "\n".join([CLIPS[0], CLIPS[1], CLIPS[3], "dev/mp4/id09999/gone/00001"]).encode()
    (tmp_path / name).write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    arguments = ["--root", str(tmp_path), "--out", str(tmp_path / "out"), "--ids", str(tmp_path / name)]
    assert corpora.main(["voxceleb2", *arguments]) == 0
    captured = capsys.readouterr()
    assert [row.id for row in read_manifest(tmp_path / "out")] == [CLIPS[0], CLIPS[3]]
    assert "2 clips (2 train), 2 left out" in captured.out
    assert "id09999/gone/00001.mp4: is in the list of ids, and not there." in captured.err
    assert "is an empty file" in captured.err


def test_lists_and_folders_that_do_not_fit_are_refused(tree: Path, tmp_path: Path) -> None:
    (tmp_path / "other.id").write_text("id00012/21Uxsk56VDQ/00001\n")
    with pytest.raises(ValueError, match="holds no clips of the list"):
        read(tree, ids=tmp_path / "other.id")
    (tmp_path / "broken.gz").write_text("words")
    with pytest.raises(ValueError, match="cannot be read"):
        read(tree, ids=tmp_path / "broken.gz")
    with pytest.raises(ValueError, match="has no folder dev or test"):
        read(tmp_path / "out")


def test_the_command_names_its_corpora(capsys: pytest.CaptureFixture[str]) -> None:
    assert corpora.main([]) == 2
    listed = capsys.readouterr().out
    assert all(name in listed for name in ("lrs3", "lrs2", "voxceleb2", "grid", "talking_heads"))
    assert corpora.main(["lrs4"]) == 2
    assert "'lrs4' is unknown; choose one of" in capsys.readouterr().err
    for name in corpora.CORPORA:
        with pytest.raises(SystemExit) as stop:
            corpora.main([name, "--help"])
        assert stop.value.code == 0
        assert "--out" in capsys.readouterr().out
