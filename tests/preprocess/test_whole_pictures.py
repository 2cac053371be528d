"""Whole pictures of any video: their size and sound, what is left out, and that what is there is kept."""

from pathlib import Path

import numpy as np
import pytest

from avtlm.data.dataset import ClipDataset, Source
from avtlm.data.inputs import InputFormat
from avtlm.data.manifest import read_manifest
from avtlm.data.media import read_lip_crops, write_clip
from preprocess.whole_pictures import main, whole_pictures


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    """A wide video whose left half is dark, one without sound, and a file that is none."""
    folder = tmp_path / "videos"
    folder.mkdir()
    frames = np.zeros((12, 64, 128), np.uint8)
    frames[:, :, 64:] = 200
    write_clip(folder / "wide.mp4", frames, np.zeros(7680, np.float32))
    write_clip(folder / "mute.mp4", frames)
    (folder / "broken.mp4").write_bytes(b"no video")
    return folder


def test_pictures_are_whole_and_have_their_sound(videos: Path, tmp_path: Path) -> None:
    manifest, failed = whole_pictures(videos, tmp_path / "out", workers=0)
    [row] = read_manifest(manifest)
    assert (row.id, row.video_frames, row.audio_samples) == ("wide", 12, 7680)
    pictures = np.asarray(read_lip_crops(tmp_path / "out" / str(row.video)))
    assert pictures.shape == (12, 96, 96)
    assert pictures[:, :, :44].mean() < 10
    assert pictures[:, :, 52:].mean() > 190
    assert set(failed) == {"mute", "broken"}
    assert "has no audio track" in failed["mute"]
    batch = ClipDataset(Source(str(manifest), "audio_video", split=None), inputs=InputFormat("none", 88, waveform=True)).batch([0])
    assert batch.video is not None
    assert batch.video.shape == (1, 12, 88, 88)


def test_what_is_there_is_not_made_again(videos: Path, tmp_path: Path) -> None:
    manifest, _ = whole_pictures(videos, tmp_path / "out", workers=0)
    (videos / "wide.mp4").write_bytes(b"gone")
    again, _ = whole_pictures(videos, tmp_path / "out", workers=0)
    assert read_manifest(again).utterances == read_manifest(manifest).utterances


def test_the_command_tells_what_is_left_out(videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([str(videos), "--out", str(tmp_path / "out"), "--workers", "0"]) == 0
    captured = capsys.readouterr()
    assert captured.out.strip() == str(tmp_path / "out" / "manifest.jsonl")
    assert "whole_pictures: mute: " in captured.err
    (videos / "wide.mp4").unlink()
    assert main([str(videos), "--out", str(tmp_path / "other"), "--workers", "0"]) == 1
    assert "not one clip could be used" in capsys.readouterr().err
