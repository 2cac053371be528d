"""The reader of MUSAN, on a generated tree in the layout of the release."""

from pathlib import Path

import pytest

from preprocess.corpora.musan import main, read
from tests.preprocess.corpora.made_sound import sound, text


def test_every_file_has_its_kind_and_no_split(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("music/fma/music-fma-0000", "noise/free-sound/noise-free-sound-0000", "speech/librivox/speech-librivox-0000"):
        sound(tmp_path / "musan" / f"{name}.wav")
    text(tmp_path / "musan" / "music" / "fma" / "ANNOTATIONS", "music-fma-0000 classical Y nobody")
    reading = read(tmp_path)
    assert [(row.id, row.split, row.extra["labels"]) for row in reading.rows] == [
        ("music/fma/music-fma-0000", None, ["music"]),
        ("noise/free-sound/noise-free-sound-0000", None, ["noise"]),
        ("speech/librivox/speech-librivox-0000", None, ["speech"]),
    ]
    assert reading.remarks == tuple(
        f"{kind} has 1 clips, the published corpus {count}" for kind, count in (("music", 660), ("noise", 930), ("speech", 426))
    )
    assert main(["--root", str(tmp_path), "--out", str(tmp_path / "out"), "--workers", "0"]) == 0
    assert "3 clips (of no split), 0 left out" in capsys.readouterr().out
