"""AVI files may hold empty chunks, which repeat a frame, and list them as frames: a whole file was refused as damaged."""

from pathlib import Path

import pytest

from avtlm.data.media import MediaError, read_clip
from tests.made_media import noise_frames, tone, truncate, write_media


def test_an_avi_file_with_empty_chunks_is_whole_and_a_cut_one_is_not(tmp_path: Path) -> None:
    """FFmpeg writes two of them behind the first frame, to let MP3 begin early."""
    path = write_media(tmp_path / "a.avi", noise_frames(30), audio=tone(1.2), codec="mpeg4", audio_codec="mp3")
    clip = read_clip(path)
    assert clip.frames is not None
    assert len(clip.frames) == 32
    assert (clip.frames[0] == clip.frames[1]).all()
    with pytest.raises(MediaError, match="is damaged"):
        read_clip(truncate(path, 0.6))
