"""Bytes that are gone from a video file are noticed by its structure; whole files have no faults."""

from pathlib import Path

import pytest

from avtlm.data.media import FrameStream
from avtlm.data.structure import faults
from tests.made_media import noise_frames, tone, write_media

MADE = {"mpegts": ("a.ts", "mpeg2video", "mp2"), "mpeg": ("a.mpg", "mpeg1video", "mp2"), "avi": ("a.avi", "mpeg4", "mp3")}


def made(folder: Path, form: str) -> Path:
    name, codec, audio = MADE[form]
    return write_media(folder / name, noise_frames(30, 64), audio=tone(1.2), codec=codec, audio_codec=audio)


def warnings(path: Path) -> str:
    stream = FrameStream(path)
    for _ in stream:
        pass
    return "; ".join(stream.info["warnings"])


@pytest.mark.parametrize("form", MADE)
def test_whole_files_have_no_faults(tmp_path: Path, form: str) -> None:
    path = made(tmp_path, form)
    assert faults(form, path) == faults(form, "nowhere", path.read_bytes()) == []
    assert "damaged" not in warnings(path)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda data: data[: 188 * 20] + data[188 * 23 :], "packets are missing or unreadable in"),
        (lambda data: data[: 188 * 20] + bytes(188 * 3) + data[188 * 23 :], "packets are missing or unreadable in"),
        (lambda data: data[: 188 * 30 + 50], "it ends in the middle of a packet"),
        (lambda data: data[: 188 * 20] + b"odd bytes" + data[188 * 20 :], "packets are missing or unreadable in"),
    ],
)
def test_packets_of_a_transport_stream_are_missed_by_their_numbers(tmp_path: Path, change: object, said: str) -> None:
    path = made(tmp_path, "mpegts")
    path.write_bytes(change(path.read_bytes()))  # type: ignore[operator]
    assert any(said in fault for fault in faults("mpegts", path))
    assert f"damaged: {said}" in warnings(path)


def test_a_transport_stream_with_times_in_front_of_its_packets_is_whole_too(tmp_path: Path) -> None:
    data = made(tmp_path, "mpegts").read_bytes()
    timed = b"".join(b"\1\2\3\4" + data[at : at + 188] for at in range(0, len(data), 188))
    assert faults("mpegts", "a.m2ts", timed) == []
    assert faults("mpegts", "a.m2ts", timed[: 192 * 20] + timed[192 * 27 :]) != []


def test_a_program_stream_that_loses_its_step_says_where(tmp_path: Path) -> None:
    path = made(tmp_path, "mpeg")
    data = path.read_bytes()
    assert faults("mpeg", "a.mpg", data + bytes(700)) == []  # filled up, as on a disc
    half = len(data) // 2
    path.write_bytes(data[:half] + data[half + 100 :])
    assert faults("mpeg", path)[0].startswith("its packets break off after ")
    assert "damaged: its packets break off" in warnings(path)


def test_chunks_of_pictures_are_counted_in_an_avi_file(tmp_path: Path) -> None:
    path = made(tmp_path, "avi")
    data = path.read_bytes()
    place = data.index(b"00dc", data.index(b"movi") + 400)
    path.write_bytes(data[:place] + b"\xff\xfe\xfd\xfc" + data[place + 4 :])
    assert faults("avi", path)[0].startswith("only ")
    stream = FrameStream(path, damaged="keep")
    for _ in stream:
        pass
    assert "pictures are where they belong" in "; ".join(stream.info["warnings"])


def test_formats_that_are_not_looked_at_have_no_faults(tmp_path: Path) -> None:
    path = write_media(tmp_path / "a.mp4", noise_frames(5, 64))
    assert faults("mov,mp4,m4a,3gp,3g2,mj2", path) == []
