"""The reader of AISHELL-1, on generated trees in the layout of the release."""

from pathlib import Path

import numpy as np
import pytest

from avtlm.data.manifest import read_manifest
from avtlm.data.media import write_wav
from preprocess.corpora import __main__ as corpora
from preprocess.corpora.aishell1 import CORPUS

SAID = {
    "BAC009S0002W0122": ("train", "而 对 楼市 成交 抑制 作用 最 大 的 限 购"),
    "BAC009S0002W0123": ("train", "也 成为 地方 政府 的 眼中钉"),
    "BAC009S0724W0121": ("dev", "广州市 房地产 中介 协会 分析"),
    "BAC009S0764W0121": ("test", "甚至 出现 交易 几乎 停滞 的 情况"),
}


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """The folder above data_aishell."""
    root = tmp_path / "aishell" / "data_aishell"
    for name, (part, _) in SAID.items():
        write_wav(root / "wav" / part / name[6:11] / f"{name}.wav", np.zeros(1600, np.float32))
    (root / "transcript").mkdir()
    lines = "".join(f"{name} {text}\n" for name, (_, text) in SAID.items())
    (root / "transcript" / "aishell_transcript_v0.8.txt").write_text(lines, encoding="utf-8")
    return root.parent


def test_sounds_have_the_characters_of_their_transcripts_and_the_splits_of_their_folders(tree: Path) -> None:
    reading = CORPUS.read(tree)
    assert not reading.left_out
    assert [(row.id, row.split, row.speaker) for row in reading.rows] == [
        ("BAC009S0002W0122", "train", "S0002"),
        ("BAC009S0002W0123", "train", "S0002"),
        ("BAC009S0724W0121", "valid", "S0724"),
        ("BAC009S0764W0121", "test", "S0764"),
    ]
    assert reading.rows[0].transcript == "而对楼市成交抑制作用最大的限购"
    assert reading.rows[0].extra == {"part": "train", "raw": SAID["BAC009S0002W0122"][1]}
    assert reading.rows[0].audio_samples == 1600
    assert reading.root == tree / "data_aishell"
    assert "train has 2 clips, the published corpus 120,098" in reading.remarks
    assert "test has 1 speakers, the published corpus 20" in reading.remarks


def test_what_lacks_its_other_half_is_listed(tree: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = tree / "data_aishell"
    write_wav(root / "wav" / "test" / "S0764" / "BAC009S0764W0999.wav", np.zeros(1600, np.float32))
    (root / "wav" / "train" / "S0002" / "BAC009S0002W0123.wav").unlink()
    assert corpora.main(["aishell1", "--root", str(tree), "--out", str(tree / "out"), "--workers", "0"]) == 0
    captured = capsys.readouterr()
    assert "3 clips (1 train, 1 valid, 1 test), 2 left out" in captured.out
    assert "BAC009S0764W0999.wav: has no line in transcript/aishell_transcript_v0.8.txt." in captured.err
    assert "wav/*/S0002/BAC009S0002W0123.wav: has a transcript, and is not there." in captured.err
    assert len((tree / "out" / "left_out.tsv").read_text().splitlines()) == 2
    manifest = read_manifest(tree / "out")
    assert all(manifest.path(row.audio).is_file() for row in manifest if row.audio)


def test_archives_of_speakers_that_are_still_packed_are_named(tree: Path) -> None:
    wav = tree / "data_aishell" / "wav"
    for name in ("S0002", "S0003"):
        (wav / f"{name}.tar.gz").touch()
    assert "1 archives of speakers such as S0003.tar.gz are not unpacked" in CORPUS.read(tree).remarks
    for path in wav.rglob("*.wav"):
        path.unlink()
    with pytest.raises(ValueError, match=r"its 2 archives such as S0002.tar.gz are not unpacked; unpack each there"):
        CORPUS.read(tree)


def test_another_folder_is_refused_in_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="has no folder transcript; give the folder of the unpacked corpus"):
        CORPUS.read(tmp_path)
    (tmp_path / "transcript").mkdir()
    with pytest.raises(ValueError, match=r"aishell_transcript_v0.8.txt: cannot be read"):
        CORPUS.read(tmp_path)
