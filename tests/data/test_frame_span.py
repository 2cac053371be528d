"""A part of a video read alone is that part of the whole, whatever the container."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from avtlm.data.container import MediaError
from avtlm.data.frame_span import FrameSpan
from avtlm.data.frames import FrameStream
from tests import made_media

CONTAINERS: dict[str, dict[str, Any]] = {
    "a.mp4": {},
    "b.mkv": {},
    "c.avi": {"codec": "mpeg4"},
    "d.mpg": {"codec": "mpeg1video"},
    "e.mp4": {"fps": 29.97},
    "f.ts": {},
    "g.mp4": {"quality": {"g": "12", "bf": "3"}},
}


@pytest.mark.parametrize("name", CONTAINERS)
def test_a_part_is_that_part_of_the_whole(name: str, tmp_path: Path) -> None:
    path = made_media.write_media(tmp_path / name, made_media.noise_frames(120, 64), **CONTAINERS[name])
    whole = list(FrameStream(path, damaged="keep"))
    for begin, end in ((0, 10), (3, 30), (60, None), (47, 48), (len(whole) - 3, len(whole) + 50)):
        part = list(FrameSpan(path, begin, end))
        assert len(part) == len(whole[begin:end])
        assert all(np.array_equal(one, other) for one, other in zip(part, whole[begin:end], strict=True))


def test_only_the_pictures_from_the_last_key_picture_on_are_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = made_media.write_media(tmp_path / "a.mp4", made_media.noise_frames(200, 64), quality={"g": "25"})
    seen = []
    original = FrameSpan._nearest

    def counted(self: FrameSpan, frames: Any, first: float) -> Any:
        return original(self, (seen.append(frame[0]) or frame for frame in frames), first)  # type: ignore[func-returns-value]

    monkeypatch.setattr(FrameSpan, "_nearest", counted)
    assert len(list(FrameSpan(path, 160, 170))) == 10
    assert len(seen) < 50


def test_behind_the_end_there_is_nothing(tmp_path: Path) -> None:
    path = made_media.write_media(tmp_path / "a.mp4", made_media.noise_frames(20, 64))
    assert list(FrameSpan(path, 100, 120)) == []


def test_a_file_without_pictures_says_so(tmp_path: Path) -> None:
    path = made_media.write_media(tmp_path / "a.mp4", None, audio=made_media.tone(1.0))
    with pytest.raises(MediaError, match="has no video track"):
        list(FrameSpan(path, 0, 5))
