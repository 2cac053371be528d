"""Sound read block by block is the sound of the whole file, in little memory, and what is wrong with a file is noted."""

from pathlib import Path

import numpy as np
import pytest
import soundfile

from avtlm.data.container import MediaError
from avtlm.data.media import write_wav
from avtlm.data.sound import read_track
from avtlm.data.sound_stream import SoundStream, media_seconds
from tests import made_media


@pytest.mark.parametrize(("name", "rate", "channels"), [("a.wav", 16000, 1), ("b.wav", 8000, 2), ("c.flac", 44100, 2), ("d.mp4", 48000, 2)])
def test_blocks_are_the_whole_track(name: str, rate: int, channels: int, tmp_path: Path) -> None:
    sound = made_media.chirps(3.3, rate)
    if name.endswith("mp4"):
        path = made_media.write_media(tmp_path / name, made_media.noise_frames(82, 64), audio=sound, rate=rate, channels=channels)
    else:
        path = tmp_path / name
        soundfile.write(str(path), np.stack([sound] * channels, 1), rate)
    whole, notes = read_track(path)
    assert whole is not None
    stream = SoundStream(path)
    blocks = list(stream)
    assert max(len(block) for block in blocks) <= 40000
    joined = np.concatenate(blocks)
    assert abs(len(joined) - len(whole)) <= 1
    size = min(len(joined), len(whole))
    assert np.abs(joined[:size] - whole[:size]).max() < 2e-3
    assert stream.notes == notes
    assert stream.audible


def test_a_cut_off_wav_is_read_as_far_as_it_goes_and_noted(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    write_wav(path, made_media.chirps(4.0))
    made_media.truncate(path, 0.5)
    stream = SoundStream(path)
    assert sum(map(len, stream)) == pytest.approx(32000, abs=50)
    assert len(stream.notes) == 1
    assert "cut off after 2.00 s" in stream.notes[0]


def test_a_damaged_flac_is_read_as_far_as_it_goes_and_noted(tmp_path: Path) -> None:
    path = tmp_path / "a.flac"
    soundfile.write(str(path), made_media.chirps(6.0), 16000)
    made_media.truncate(path, 0.5)
    stream = SoundStream(path)
    assert 16000 < sum(map(len, stream)) < 96000
    assert "the audio breaks off after" in stream.notes[0]


def test_a_whole_file_has_no_notes(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    write_wav(path, made_media.chirps(1.00003))
    stream = SoundStream(path)
    list(stream)
    assert stream.notes == []


@pytest.mark.parametrize(("case", "reason"), [("no sound", "has no audio track"), ("empty", "is empty"), ("text", "is not a media file")])
def test_what_cannot_be_used_says_why(case: str, reason: str, tmp_path: Path) -> None:
    path = tmp_path / "a.mp4"
    if case == "no sound":
        made_media.write_media(path, made_media.noise_frames(20, 64))
    else:
        path.write_text("text" if case == "text" else "")
    with pytest.raises(MediaError, match=reason):
        list(SoundStream(path))


def test_lengths_are_those_of_the_files(tmp_path: Path) -> None:
    write_wav(tmp_path / "a.wav", made_media.tone(2.5))
    made_media.write_media(tmp_path / "b.mp4", None, audio=made_media.tone(1.5))
    assert media_seconds(tmp_path / "a.wav") == pytest.approx(2.5)
    assert media_seconds(tmp_path / "b.mp4") == pytest.approx(1.5, abs=0.1)
    assert media_seconds(tmp_path / "none.mp4") == 0.0
