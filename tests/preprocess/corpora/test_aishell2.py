"""The reader of AISHELL-2, on generated trees in the layout of the release."""

from pathlib import Path

import numpy as np
import pytest

from avtlm.data.media import write_wav
from preprocess.corpora import __main__ as corpora
from preprocess.corpora.aishell2 import CORPUS

TRAIN = {"IC0001W0001": "厨房用品", "IC0001W0002": "帮我放一首Let's go"}
DEV = {"ID0012W0030": "北京天气"}
TEST = {"IT0011W0001": "换一首歌"}


def part(folder: Path, texts: dict[str, str], script: bool = True) -> None:
    for name in texts:
        write_wav(folder / "wav" / name[1:6] / f"{name}.wav", np.zeros(1600, np.float32))
    (folder / "trans.txt").write_text("".join(f"{name}\t{text}\n" for name, text in texts.items()), encoding="utf-8")
    if script:
        (folder / "wav.scp").write_text("".join(f"{name}\twav/{name[1:6]}/{name}.wav\n" for name in texts), encoding="utf-8")


@pytest.fixture(params=["within", "beside"])
def tree(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """AISHELL-2, with the sets for evaluation in it or beside it."""
    root = tmp_path / "corpora" / "AISHELL-2"
    part(root / "iOS" / "data", TRAIN)
    tests = root if request.param == "within" else root.parent / "AISHELL-DEV-TEST-SET"
    for channel in ("iOS", "Android"):
        part(tests / channel / "dev", DEV)
        part(tests / channel / "test", TEST, script=False)
    return root


def test_texts_sounds_and_splits_come_from_the_folders_of_the_release(tree: Path) -> None:
    reading = CORPUS.read(tree)
    assert not reading.left_out
    assert [(row.id, row.split, row.speaker, row.transcript) for row in reading.rows] == [
        ("IC0001W0001", "train", "C0001", "厨房用品"),
        ("IC0001W0002", "train", "C0001", "帮我放一首LET'SGO"),
        ("ID0012W0030", "valid", "D0012", "北京天气"),
        ("IT0011W0001", "test", "T0011", "换一首歌"),
    ]
    assert reading.rows[1].extra == {"part": "train", "raw": "帮我放一首Let's go"}
    assert reading.rows[0].extra == {"part": "train"}
    assert reading.root is not None
    assert all((reading.root / (row.audio or "")).is_file() for row in reading.rows)
    assert "train has 2 clips, the published corpus 1,009,223" in reading.remarks


def test_another_channel_is_read_for_evaluation_alone(tree: Path) -> None:
    reading = CORPUS.read(tree, channel="Android")
    assert [(row.split, "iOS" in (row.audio or "")) for row in reading.rows] == [
        ("train", True),
        ("train", True),
        ("valid", False),
        ("test", False),
    ]
    with pytest.raises(ValueError, match="channel: 'Radio' is unknown; choose one of iOS, Android, Mic"):
        CORPUS.read(tree, channel="Radio")


def test_what_lacks_its_other_half_is_listed(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = tree / "iOS" / "data"
    with open(data / "trans.txt", "a", encoding="utf-8") as handle:
        handle.write("IC0001W0003\t没有声音\n")
    with open(data / "wav.scp", "a", encoding="utf-8") as handle:
        handle.write("IC0001W0004\twav/C0001/IC0001W0004.wav\nIC0001W0005\t/elsewhere/IC0001W0005.wav\n")
    (data / "wav" / "C0001" / "IC0001W0002.wav").unlink()
    assert corpora.main(["aishell2", "--root", str(tree), "--out", str(tree / "out"), "--workers", "0"]) == 0
    captured = capsys.readouterr()
    assert "3 clips (1 train, 1 valid, 1 test), 4 left out" in captured.out
    for reason in (
        "IC0001W0002.wav: is listed, and not there.",
        "IC0001W0003.wav: has a transcript, and is not in wav.scp.",
        "IC0001W0004.wav: has no line in trans.txt.",
        "IC0001W0005.wav: has no line in trans.txt.",
    ):
        assert reason in captured.err


def test_sounds_outside_the_corpus_are_left_out(tree: Path) -> None:
    script = tree / "iOS" / "data" / "wav.scp"
    script.write_text("IC0001W0001\t/elsewhere/IC0001W0001.wav\nIC0001W0002\twav/C0001/IC0001W0002.wav\n", encoding="utf-8")
    assert CORPUS.read(tree).left_out == {"/elsewhere/IC0001W0001.wav": "leads out of the folder of the corpus"}


def test_another_folder_is_refused_in_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="has no folder iOS or Android or Mic"):
        CORPUS.read(tmp_path)
    (tmp_path / "iOS").mkdir()
    with pytest.raises(ValueError, match=r"has none of iOS/data/trans.txt, iOS/dev/trans.txt, iOS/test/trans.txt"):
        CORPUS.read(tmp_path)
