"""Sound and pictures in memory are transcribed as files are, at any rate, alone or in lists, without a word printed."""

import logging
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr
import torch

import avtlm
from avtlm import arrays
from avtlm.data.media import MediaError, read_clip, write_wav
from avtlm.recognizer import Recognizer
from tests import made_media
from tests.made_model import save_corpus, save_tiny_recognizer, tiny_recognizer


@pytest.fixture(scope="module")
def model() -> Recognizer:
    return tiny_recognizer()


@pytest.fixture(scope="module")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("clips") / "talking.mp4"
    return made_media.write_media(path, made_media.talking(0.8), audio=made_media.chirps(0.8))


def test_words_have_start_end_and_confidence_and_nothing_is_printed(model: Recognizer, capfd: pytest.CaptureFixture[str]) -> None:
    found = avtlm.transcribe(made_media.chirps(1.0), model=model, rate=16000)
    assert isinstance(found, avtlm.Transcript)
    assert found.text
    assert found.duration == pytest.approx(1.0, abs=0.04)
    for word in found.words:
        assert 0 <= word.start < word.end <= 1.04
        assert 0 < word.confidence <= 1
    assert capfd.readouterr() == ("", "")


def test_an_array_gives_what_its_file_gives(model: Recognizer, tmp_path: Path) -> None:
    sound = made_media.chirps(1.0)
    write_wav(tmp_path / "a.wav", sound)
    expected = avtlm.transcribe(str(tmp_path / "a.wav"), model=model)
    stored, _ = soundfile.read(tmp_path / "a.wav", dtype="int16")
    for given in (sound, torch.from_numpy(sound), stored, np.stack([sound, sound], 1), (sound + 1) * 0.5 * 65535):
        array = given.astype(np.uint16) if isinstance(given, np.ndarray) and given.dtype == np.float32 and given.max() > 2 else given
        assert avtlm.transcribe(array, model=model, rate=16000).text == expected.text


def test_any_rate_is_brought_to_that_of_the_model(model: Recognizer, caplog: pytest.LogCaptureFixture) -> None:
    sound = made_media.tone(1.0, rate=44100)
    expected = avtlm.transcribe(soxr.resample(sound, 44100, 16000), model=model, rate=16000)
    assert avtlm.transcribe(sound, model=model, rate=44100).text == expected.text
    with caplog.at_level(logging.WARNING):
        avtlm.transcribe(made_media.tone(1.0, rate=8000), model=model, rate=8000)
        avtlm.transcribe(4 * made_media.tone(1.0), model=model, rate=16000)
    assert "8000 samples a second" in caplog.text
    assert "clip 0: samples beyond -1 and 1 (up to 1.2) are cut there" in caplog.text


def test_pictures_and_sound_of_a_video_give_what_the_video_gives(model: Recognizer, video: Path) -> None:
    clip = read_clip(video)
    for modality in (None, "v"):
        assert avtlm.transcribe(clip, model=model, modality=modality).text == avtlm.transcribe(video, model=model, modality=modality).text


def test_pictures_at_another_rate_are_taken_at_the_nearest_time(model: Recognizer, tmp_path: Path) -> None:
    crops = np.load(save_corpus(tmp_path, 1).parent / "0.npy")
    doubled = crops.repeat(2, axis=0)
    assert avtlm.transcribe(doubled, model=model, fps=50).text == avtlm.transcribe(crops, model=model).text
    assert avtlm.transcribe(crops, model=model).duration == 1.0


def test_colour_becomes_the_grey_of_a_luma_plane() -> None:
    colours = np.array([[[[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 255]]]], np.uint8)
    assert next(iter(arrays._Grey(colours, np.array([0])))).tolist() == [[76, 150, 29, 255]]


def test_a_list_gives_a_list_in_its_order_whatever_its_clips_are(model: Recognizer, tmp_path: Path) -> None:
    manifest = save_corpus(tmp_path, 3)
    crops = np.load(manifest.parent / "1.npy")
    waves = [soundfile.read(tmp_path / f"{index}.wav", dtype="float32")[0] for index in range(3)]
    clips = [waves[2], tmp_path / "0.wav", avtlm.Clip(crops, waves[1]), waves[0], crops]
    together = avtlm.transcribe(clips, model=model, rate=16000)
    assert [each.text for each in together] == [avtlm.transcribe(clip, model=model, rate=16000).text for clip in clips]
    assert together[1].text == together[3].text
    assert avtlm.transcribe([], model=model) == []


def test_a_clip_that_lacks_a_modality_is_taken_as_it_is_unless_one_is_asked_for(model: Recognizer) -> None:
    assert avtlm.transcribe(made_media.chirps(0.5), model=model, rate=16000).text
    with pytest.raises(MediaError, match="clip 0: has no pictures; ask for modality a"):
        avtlm.transcribe(made_media.chirps(0.5), model=model, rate=16000, modality="av")
    with pytest.raises(MediaError, match=r"clip 1: has no sound\."):
        avtlm.transcribe([made_media.chirps(0.5), np.zeros((25, 96, 96), np.uint8)], model=model, rate=16000, modality="a")


def test_long_sound_is_divided_like_a_long_file(model: Recognizer, tmp_path: Path) -> None:
    pause = np.zeros(16000, np.float32)
    sound = np.concatenate([pause, made_media.chirps(1.0), pause, made_media.chirps(1.0), pause])
    soundfile.write(tmp_path / "long.wav", sound, 16000, subtype="FLOAT")
    expected = avtlm.transcribe(tmp_path / "long.wav", model=model, window=1.5)
    found = avtlm.transcribe(sound, model=model, rate=16000, window=1.5)
    assert found.text == expected.text
    assert len(found.parts) > 1
    with pytest.raises(MediaError, match=r"more than the window of 0\.5 s"):
        avtlm.transcribe(np.zeros((25, 96, 96), np.uint8), model=model, window=0.5)


def test_a_model_that_is_named_is_opened_once_until_it_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = save_tiny_recognizer(tmp_path / "model")
    opened: list[Path] = []
    original = arrays.load_recognizer

    def count(path: Path, *choice: str | None) -> object:
        opened.append(path)
        return original(path, *choice)

    monkeypatch.setattr(arrays, "load_recognizer", count)
    for _ in range(2):
        avtlm.transcribe(made_media.chirps(0.5), model=folder, rate=16000)
    assert len(opened) == 1
    save_tiny_recognizer(folder)
    avtlm.transcribe(made_media.chirps(0.5), model=str(folder), rate=16000)
    assert len(opened) == 2


def test_decoding_settings_are_changed_for_one_call(model: Recognizer) -> None:
    found = avtlm.transcribe(made_media.chirps(0.5), model=model, rate=16000, decoding=["method=ctc_beam", "beam=4", "nbest=3"])
    assert 1 < len(found.hypotheses) <= 3
    assert len(avtlm.transcribe(made_media.chirps(0.5), model=model, rate=16000).hypotheses) == 1


@pytest.mark.parametrize(
    ("given", "options", "sentence"),
    [
        (np.zeros(16000, np.float32), {}, "rate: missing; say how many samples a second clip 0 has"),
        (np.zeros(16000, np.float32), {"rate": 0}, "rate: 0 samples a second"),
        (np.zeros(16000, np.float32), {"rate": 16000}, "clip 0: is silent"),
        (np.ones(1000, np.float32), {"rate": 16000}, "clip 0: has only 0.062 s of sound"),
        (np.full(16000, 20000.0), {"rate": 16000}, "divide by 32768"),
        (np.full(16000, np.nan), {"rate": 16000}, "not finite"),
        (np.ones((2, 16000), np.float32), {"rate": 16000}, "array.T"),
        (np.ones(16000, complex), {"rate": 16000}, "of numbers"),
        (np.zeros((25, 3, 96, 96), np.uint8), {}, "has pictures"),
        (np.zeros((25, 96, 96), np.float32), {}, "of uint8"),
        (np.zeros((0, 96, 96), np.uint8), {}, "has no pictures"),
        (np.zeros((25, 96, 96), np.uint8), {"fps": 0.0}, "fps: 0"),
        ([3], {}, "clip 0 is a int; give a path"),
        (np.ones(16000, np.float32), {"rate": 16000, "modality": "x"}, "modality: 'x' is unknown"),
    ],
)
def test_what_cannot_be_used_says_why(model: Recognizer, given: object, options: dict[str, object], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        avtlm.transcribe(given, model=model, **options)
