"""WAV and Matroska files that end early were read without a word, as if they were short."""

from pathlib import Path

import pytest

from avtlm.data.media import MediaError, read_clip, write_wav
from avtlm.data.sound import read_track
from tests.made_media import noise_frames, tone, truncate, write_media


def test_a_wav_file_that_ends_early_says_so_and_a_whole_one_does_not(tmp_path: Path) -> None:
    write_wav(tmp_path / "a.wav", tone(2.0))
    assert read_track(tmp_path / "a.wav")[1] == []
    wave, notes = read_track(truncate(tmp_path / "a.wav", 0.5))
    assert wave is not None
    assert len(wave) < 16100
    assert notes == ["the file ends early: 50% of the sound that it promises are there"]


def test_a_wav_file_from_a_pipe_promises_nothing(tmp_path: Path) -> None:
    write_wav(tmp_path / "a.wav", tone(2.0))
    content = bytearray((tmp_path / "a.wav").read_bytes())
    place = content.index(b"data") + 4
    content[place : place + 4] = b"\xff\xff\xff\xff"
    (tmp_path / "a.wav").write_bytes(content)
    assert read_track(tmp_path / "a.wav")[1] == []


@pytest.mark.parametrize("name", ["a.mkv", "a.webm"])
def test_a_matroska_file_that_ends_early_is_damaged(name: str, tmp_path: Path) -> None:
    codec, audio = ("libx264", "aac") if name == "a.mkv" else ("libvpx", "libopus")
    path = write_media(tmp_path / name, noise_frames(40, 64), audio=tone(1.6, 48000), rate=48000, codec=codec, audio_codec=audio)
    assert read_clip(path).frames is not None
    truncate(path, 0.6)
    with pytest.raises(MediaError, match="is cut off"):
        read_clip(path)
    assert "the file ends early, before the end that it promises" in read_track(path)[1]
