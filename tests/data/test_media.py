"""Pictures and sound arrive on one clock, and whatever is wrong with a file is said."""

import contextlib
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from avtlm.data.media import FrameStream, MediaError, read_audio, read_clip, read_lip_crops, read_track, write_clip, write_wav
from tests.made_media import chirps, noise_frames, rotate_by_metadata, tone, truncate, write_media

LOSSLESS = {"qp": "1", "preset": "ultrafast"}


def numbered(count: int, side: int = 32) -> np.ndarray:
    """Flat pictures whose grey level tells their number."""
    return np.repeat((16 + 4 * np.arange(count) % 224).astype(np.uint8), side * side * 3).reshape(count, side, side, 3)


def numbers(frames: np.ndarray) -> np.ndarray:
    return np.round((np.median(frames, axis=(1, 2)) - 16) / 4).astype(int)


def nearest(times: np.ndarray, count: int) -> np.ndarray:
    """Which source frame is nearest to each output time, the earlier one in a tie."""
    distance = np.abs(np.arange(count)[:, None] / 25 - (times - times[0])[None])
    return np.argmin(np.round(distance, 6), axis=1)


@pytest.mark.parametrize("fps", [24, 25, 30000 / 1001, 30, 50])
def test_any_frame_rate_becomes_25_without_drift(tmp_path: Path, fps: float) -> None:
    path = write_media(tmp_path / "a.mp4", numbered(50), fps=fps, quality=LOSSLESS)
    clip = read_clip(path, audio=False)
    assert clip.frames is not None
    assert len(clip.frames) == round(50 / fps * 25)
    assert (numbers(clip.frames) == nearest(np.arange(50) / fps, len(clip.frames))).all()
    assert bool(clip.info["warnings"]) == (fps != 25)


@settings(max_examples=15, deadline=None)
@given(fps=st.floats(8, 60), count=st.integers(2, 54), jitter=st.floats(0, 0.45), seed=st.integers(0, 99))
def test_variable_time_stamps_choose_the_nearest_frame(
    tmp_path_factory: pytest.TempPathFactory, fps: float, count: int, jitter: float, seed: int
) -> None:
    generator = np.random.default_rng(seed)
    times = np.round((np.arange(count) + jitter * generator.uniform(-1, 1, count)) / fps * 90000) / 90000
    times -= times.min()
    path = write_media(tmp_path_factory.mktemp("media") / "a.mkv", numbered(count), fps=fps, times=list(times), quality=LOSSLESS)
    clip = read_clip(path, audio=False, damaged="keep")
    assert clip.frames is not None
    shown = nearest(np.round(times, 3), len(clip.frames))
    source_times = times[numbers(clip.frames)] - times[0]
    # Matroska rounds to milliseconds, which may decide a near tie the other way, but never by more than that.
    assert np.abs(source_times - (times[shown] - times[0])).max() <= (1 + 2 * jitter) / fps + 0.002  # neighbours are no further apart
    late = np.abs(source_times - np.arange(len(clip.frames)) / 25) - np.abs((times[shown] - times[0]) - np.arange(len(clip.frames)) / 25)
    assert late.max() < 0.002
    assert abs(len(clip.frames) - (times[-1] + 1 / fps) * 25) <= 1.5 + 25 / fps


def test_audio_of_a_written_clip_comes_back_without_lag_and_at_full_length(tmp_path: Path) -> None:
    sound = chirps(2.0)
    write_clip(tmp_path / "a.mp4", noise_frames(50), sound)
    clip = read_clip(tmp_path / "a.mp4")
    assert clip.frames is not None
    assert clip.audio is not None
    assert len(clip.frames) == 50
    assert clip.audio.shape == (50 * 640,)
    assert clip.audio.dtype == np.float32
    correlation = np.fft.irfft(np.fft.rfft(clip.audio) * np.conj(np.fft.rfft(sound)))
    assert int(np.argmax(correlation)) == 0


def test_grey_crops_come_back_as_written(tmp_path: Path) -> None:
    y, x = np.mgrid[:96, :96]
    crops = np.stack([128 + 120 * np.sin(x / 9 + t / 3) * np.cos(y / 7) for t in range(20)]).astype(np.uint8)
    write_clip(tmp_path / "a.mp4", crops, crf=10)
    difference = np.abs(read_lip_crops(tmp_path / "a.mp4").astype(int) - crops)
    assert difference.mean() < 1
    assert difference.max() <= 8


def test_writing_twice_gives_equal_bytes(tmp_path: Path) -> None:
    for name in ("a.mp4", "b.mp4"):
        write_clip(tmp_path / name, noise_frames(10), tone(0.4))
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()


def test_luma_equals_a_real_colour_conversion(tmp_path: Path) -> None:
    path = write_media(tmp_path / "a.mp4", noise_frames(5), quality=LOSSLESS)
    grey, colour = read_clip(path, audio=False).frames, read_clip(path, audio=False, colour=True).frames
    assert grey is not None
    assert colour is not None
    assert np.abs(grey - colour @ [0.299, 0.587, 0.114]).mean() < 1.5


def test_44_khz_stereo_becomes_16_khz_mono(tmp_path: Path) -> None:
    path = write_media(tmp_path / "a.mp4", noise_frames(25), audio=tone(1.0, 44100, 500), rate=44100, channels=2)
    clip = read_clip(path)
    assert clip.audio is not None
    assert len(clip.audio) == 16000
    assert np.argmax(np.abs(np.fft.rfft(clip.audio))) == 500
    assert 0.25 < np.abs(clip.audio[2000:14000]).max() < 0.35


def test_eight_channels_do_not_bring_the_process_down(tmp_path: Path) -> None:
    """PyAV 18.1 reads past the planes of a planar frame with eight channels when it makes an array of it."""
    path = tmp_path / "a.mp4"
    with av.open(str(path), "w") as container:
        sound = container.add_stream("aac", rate=16000, layout="7.1")
        block = av.AudioFrame.from_ndarray(np.stack([tone(1.0, 16000, 500)] * 8).T.reshape(1, -1).copy(), format="flt", layout="7.1")
        block.sample_rate = 16000
        container.mux(sound.encode(block))
        container.mux(sound.encode(None))
    heard = read_audio(path)
    assert np.argmax(np.abs(np.fft.rfft(heard[:16000]))) == 500


def test_late_audio_is_padded_to_its_place(tmp_path: Path) -> None:
    path = write_media(tmp_path / "a.mkv", noise_frames(25), audio=tone(0.6), audio_codec="pcm_s16le", audio_start=0.4)
    clip = read_clip(path)
    assert clip.audio is not None
    assert np.abs(clip.audio[:6300]).max() == 0
    assert np.abs(clip.audio[6420:7000]).max() > 0.2


@pytest.mark.parametrize(("suffix", "rate"), [(".wav", 8000), (".flac", 48000), (".wav", 16000)])
def test_sound_files_of_any_rate(tmp_path: Path, suffix: str, rate: int) -> None:
    path = tmp_path / f"a{suffix}"
    soundfile.write(path, np.stack([tone(0.5, rate), tone(0.5, rate)], axis=1), rate)
    sound = read_audio(path)
    assert sound.shape == (8000,)
    assert sound.dtype == np.float32
    assert np.corrcoef(sound[500:7500], tone(0.5)[500:7500])[0, 1] > 0.999


def test_wav_is_clipped_and_kept_to_a_level(tmp_path: Path) -> None:
    write_wav(tmp_path / "a.wav", np.array([0.0, 0.5, 2.0, -2.0], np.float32))
    assert np.allclose(read_audio(tmp_path / "a.wav"), [0, 0.5, 1, -1], atol=1e-4)


def test_rotation_metadata_is_obeyed(tmp_path: Path) -> None:
    frames = np.zeros((5, 32, 64, 3), np.uint8)
    frames[:, :16, :16] = 255  # bright upper left corner
    for degrees, corner in (
        (90, (slice(-16, None), slice(0, 16))),
        (180, (slice(-16, None), slice(-16, None))),
        (270, (slice(0, 16), slice(-16, None))),
    ):
        path = rotate_by_metadata(write_media(tmp_path / f"{degrees}.mp4", frames), degrees)
        clip = read_clip(path, audio=False)
        assert clip.frames is not None
        assert clip.frames.shape[1:] == ((64, 32) if degrees != 180 else (32, 64))
        assert clip.frames[0][corner].mean() > 200 > 50 > clip.frames[0].mean() / 4
        assert any("rotation metadata" in warning for warning in clip.info["warnings"])


@pytest.mark.skipif("libx265" not in av.codecs_available, reason="this build of FFmpeg cannot write HEVC")
@pytest.mark.parametrize("pixels", ["yuv420p", "yuv420p10le"])
def test_hevc_at_30_frames(tmp_path: Path, pixels: str) -> None:
    path = write_media(
        tmp_path / "a.mp4",
        numbered(30, 64),
        fps=30,
        codec="libx265",
        quality={"x265-params": "log-level=none:pools=1", "crf": "4"},
        pixels=pixels,
    )
    clip = read_clip(path, audio=False)
    assert clip.frames is not None
    assert clip.info["codec"] == "hevc"
    assert np.abs(numbers(clip.frames) - nearest(np.arange(30) / 30, 25)).max() <= 1


def test_missing_and_silent_audio_are_warnings(tmp_path: Path) -> None:
    without = read_clip(write_media(tmp_path / "a.mp4", noise_frames(10)))
    assert without.audio is None
    assert "no audio track" in without.info["warnings"]
    silent = read_clip(write_media(tmp_path / "b.mp4", noise_frames(10), audio=np.zeros(6400, np.float32)))
    assert silent.audio is not None
    assert "the audio is silent" in silent.info["warnings"]


def test_short_audio_is_padded_and_named(tmp_path: Path) -> None:
    clip = read_clip(write_media(tmp_path / "a.mp4", noise_frames(25), audio=tone(0.5)))
    assert clip.audio is not None
    assert len(clip.audio) == 16000
    assert any("shorter than the video" in warning for warning in clip.info["warnings"])


def test_three_frames_are_three_frames(tmp_path: Path) -> None:
    clip = read_clip(write_media(tmp_path / "a.mp4", noise_frames(3)))
    assert clip.frames is not None
    assert len(clip.frames) == 3


def test_a_truncated_file_is_refused_or_kept_by_choice(tmp_path: Path) -> None:
    path = truncate(write_media(tmp_path / "a.mp4", noise_frames(50), fast_start=True), 0.6)
    with pytest.raises(MediaError, match=r"a\.mp4: is damaged: only \d+ of 50 frames can be decoded\."):
        read_clip(path)
    kept = read_clip(path, damaged="keep")
    assert kept.frames is not None
    assert 0 < len(kept.frames) < 50
    assert any("is damaged" in warning for warning in kept.info["warnings"])


@pytest.mark.parametrize("codecs", [("mpeg1video", "mp2", "mpg"), ("mpeg2video", "mp2", "vob")])
def test_a_program_stream_that_stops_inside_a_packet_is_damaged_though_it_promises_no_length(
    tmp_path: Path, codecs: tuple[str, str, str]
) -> None:
    video, sound, suffix = codecs
    whole = write_media(tmp_path / f"a.{suffix}", noise_frames(50), audio=tone(2.0), codec=video, audio_codec=sound)
    clip = read_clip(whole)
    assert clip.frames is not None
    assert len(clip.frames) == 50
    assert clip.info["warnings"] == []
    cut = truncate(whole, 0.61)
    with pytest.raises(MediaError, match=r"is cut off in the middle of a packet, after \d+ frames\."):
        read_clip(cut)
    kept = read_clip(cut, damaged="keep")
    assert kept.frames is not None
    assert 0 < len(kept.frames) < 50
    assert any("cut off" in warning for warning in kept.info["warnings"])


def test_what_is_no_media_is_named_in_one_sentence(tmp_path: Path) -> None:
    text = tmp_path / "text.mp4"
    text.write_text("not a video\n" * 100)
    empty = tmp_path / "empty.mp4"
    empty.touch()
    cut = truncate(write_media(tmp_path / "cut.mp4", noise_frames(50)), 0.6)  # its index stood at the end
    sound = tmp_path / "sound.m4a"
    write_media(sound, None, audio=tone(0.5))
    cases = {
        text: "is not a media file",
        empty: "is empty",
        cut: "is not a media file",
        sound: "has no video track",
        tmp_path: "is a folder",
    }
    for path, words in {**cases, tmp_path / "none.mp4": "there is no such file"}.items():
        with pytest.raises(MediaError, match=words) as caught:
            read_clip(path)
        assert str(caught.value).startswith(f"{path}: ")
        assert str(caught.value).endswith(".")
        assert "\n" not in str(caught.value)
    with pytest.raises(MediaError, match="no audio track"):
        read_audio(write_media(tmp_path / "mute.mp4", noise_frames(5)))


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), share=st.floats(0.02, 1.0), flips=st.integers(0, 40))
def test_random_damage_raises_a_media_error_or_is_reported(
    tmp_path_factory: pytest.TempPathFactory, seed: int, share: float, flips: int
) -> None:
    folder = tmp_path_factory.getbasetemp()
    whole = folder / "whole.mp4"
    if not whole.exists():
        write_media(whole, noise_frames(30), audio=tone(1.2), fast_start=True)
    generator = np.random.default_rng(seed)
    data = bytearray(whole.read_bytes())
    data = data[: max(1, int(len(data) * share))]
    for place in generator.integers(0, len(data), flips):
        data[place] = generator.integers(256)
    path = folder / "damaged.mp4"
    path.write_bytes(bytes(data))
    with contextlib.suppress(MediaError):  # anything else that is raised fails the test
        clip = read_clip(path)
        assert clip.frames is not None
        assert len(clip.frames) >= 28 or clip.info["warnings"]


def test_a_stream_can_be_read_twice(tmp_path: Path) -> None:
    stream = FrameStream(write_media(tmp_path / "a.mp4", noise_frames(10), fps=30))
    first, second = np.stack(list(stream)), np.stack(list(stream))
    assert (first == second).all()
    assert len(stream.info["warnings"]) == 1


def test_crops_of_another_shape_are_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "a.npy", np.zeros((5, 88, 88), np.uint8))
    with pytest.raises(MediaError, match="not lip crops"):
        read_lip_crops(tmp_path / "a.npy")
    np.save(tmp_path / "b.npy", np.ones((5, 96, 96), np.uint8))
    assert read_lip_crops(tmp_path / "b.npy").shape == (5, 96, 96)


def test_odd_sizes_and_wrong_types_cannot_be_written(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="even width"):
        write_clip(tmp_path / "a.mp4", np.zeros((2, 95, 96), np.uint8))
    with pytest.raises(ValueError, match="float32"):
        write_clip(tmp_path / "a.mp4", np.zeros((2, 96, 96), np.float32))
    assert not list(tmp_path.iterdir())


def test_a_track_from_a_sound_file_can_be_cut(tmp_path: Path) -> None:
    write_wav(tmp_path / "a.wav", tone(1.0))
    sound, notes = read_track(tmp_path / "a.wav", samples=640)
    assert sound is not None
    assert len(sound) == 640
    assert notes == ["the audio is 0.96 s longer than the video"]


def test_sound_of_a_lower_rate_is_resampled_and_said(tmp_path: Path) -> None:
    slow, same = tmp_path / "slow.wav", tmp_path / "same.wav"
    write_wav(slow, tone(1.0, 8000), 8000)
    write_wav(same, tone(1.0))
    sound, notes = read_track(slow)
    assert notes == ["the audio has 8000 samples a second; it was resampled to 16000, with nothing above 4000 Hz in it"]
    assert sound is not None
    assert len(sound) == 16000
    np.testing.assert_allclose(sound[1000:-1000], tone(1.0)[1000:-1000], atol=0.01)
    assert read_track(same)[1] == []
    fast = write_media(tmp_path / "fast.mp4", None, audio=tone(1.0, 44100), rate=44100)
    assert read_track(fast)[1] == []
    low = write_media(tmp_path / "low.mp4", None, audio=tone(1.0, 8000), rate=8000)
    assert "8000 samples a second" in read_track(low)[1][0]
