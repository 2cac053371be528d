"""Any common media file becomes a transcript, from sound, lips or both; what cannot be used says so in one sentence."""

from pathlib import Path

import numpy as np
import pytest
import torch

from avtlm.data.inputs import InputFormat
from avtlm.data.media import MediaError
from avtlm.lips.landmarks import FaceMesh
from avtlm.recognizer import Recognizer
from avtlm.training.progress import bar
from avtlm.transcribe import load_recognizer, read_item, to_int16, transcribe, transcribe_each
from tests import made_media
from tests.made_model import save_tiny_recognizer, tiny_recognizer


@pytest.fixture(scope="module")
def recognizer() -> Recognizer:
    return tiny_recognizer()


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("clips") / "talking.mp4"
    return made_media.write_media(path, made_media.talking(1.2), audio=made_media.chirps(1.2))


@pytest.mark.parametrize("modality", ["av", "a", "v"])
def test_a_talking_face_is_transcribed_from_every_modality(clip: Path, modality: str, recognizer: Recognizer) -> None:
    (found,) = transcribe([clip], recognizer, modality)
    assert found.text
    assert found.duration == pytest.approx(1.2, abs=0.05)


def test_a_folder_gives_what_the_model_gives(clip: Path, tmp_path: Path, recognizer: Recognizer) -> None:
    folder = save_tiny_recognizer(tmp_path / "model")
    assert transcribe([clip], folder)[0].text == transcribe([str(clip)], recognizer)[0].text


def test_the_transcript_does_not_depend_on_the_other_files(clip: Path, tmp_path: Path, recognizer: Recognizer) -> None:
    paths = [clip]
    for index in range(20):
        audio = made_media.chirps(0.5 + 0.1 * index)
        paths.append(made_media.write_media(tmp_path / f"{index}.mp4", None, audio=audio))
    together = [result.text for result in transcribe(paths, recognizer, "a")]
    assert together == [transcribe([path], recognizer, "a")[0].text for path in paths]


def test_sound_alone_needs_no_landmarks(clip: Path, recognizer: Recognizer, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*arguments: object) -> None:
        raise AssertionError("a face was looked for")

    monkeypatch.setattr("avtlm.transcribe.FaceMesh", fail)
    monkeypatch.setattr("avtlm.transcribe.extract_lips", fail)
    transcribe([clip], recognizer, "a")


@pytest.mark.parametrize(
    ("case", "modality", "reason"),
    [
        ("no audio", "av", "has no audio track; ask for modality v to read the lips alone."),
        ("no audio", "a", "has no audio track."),
        ("no face", "av", "no face was found"),
        ("sound only", "v", "has no video track."),
        ("sound only", "av", "has no video track; ask for modality a to hear the sound alone."),
        ("three frames", "av", "has only 3 frames"),
        ("text", "av", "is not a media file that can be read"),
    ],
)
def test_what_cannot_be_used_says_why(case: str, modality: str, reason: str, tmp_path: Path, recognizer: Recognizer) -> None:
    path = tmp_path / "clip.mp4"
    sound = made_media.chirps(0.6)
    if case == "no audio":
        made_media.write_media(path, made_media.talking(0.6))
    elif case == "no face":
        made_media.write_media(path, made_media.noise_frames(15, 160), audio=sound)
    elif case == "sound only":
        made_media.write_media(path, None, audio=sound)
    elif case == "three frames":
        made_media.write_media(path, made_media.talking(0.12), audio=made_media.chirps(0.12))
    else:
        path.write_text("text")
    with pytest.raises(MediaError, match=reason) as caught:
        transcribe([path], recognizer, modality)
    assert str(path) in str(caught.value)
    ((_, result),) = transcribe_each([path], recognizer, modality)
    assert isinstance(result, MediaError)


def test_two_faces_give_a_warning_and_a_transcript(tmp_path: Path, recognizer: Recognizer, caplog: pytest.LogCaptureFixture) -> None:
    path = made_media.write_media(tmp_path / "two.mp4", made_media.two_faces(0.8), audio=made_media.chirps(0.8))
    assert len(transcribe([path], recognizer)) == 1
    assert "2 faces" in caplog.text


def test_silence_in_a_video_is_a_warning_while_lips_can_be_read(
    tmp_path: Path, recognizer: Recognizer, caplog: pytest.LogCaptureFixture
) -> None:
    path = made_media.write_media(tmp_path / "silent.mp4", made_media.talking(0.8), audio=np.zeros(12800, np.float32))
    assert len(transcribe([path], recognizer)) == 1
    assert "the audio is silent" in caplog.text


def test_an_unknown_modality_is_refused(recognizer: Recognizer) -> None:
    with pytest.raises(ValueError, match="modality: 'b' is unknown; choose one of av, a, v"):
        transcribe([], recognizer, "b")


def test_features_are_those_of_training(clip: Path) -> None:
    item = read_item(clip, "av", InputFormat(), provider=FaceMesh())
    assert item.video is not None
    assert item.audio is not None
    assert item.video.shape == (30, 88, 88)
    assert item.video.dtype == torch.uint8
    assert item.audio.shape == (30, 104)


def test_sound_is_scaled_like_sixteen_bit_files() -> None:
    assert to_int16(np.array([-1.0, 0.0, 0.5, 1.0, 7.0])).tolist() == [-32768, 0, 16384, 32767, 32767]


def test_loading_twice_keeps_the_model_in_evaluation_mode(tmp_path: Path) -> None:
    model = load_recognizer(save_tiny_recognizer(tmp_path / "model"))
    assert not model.training
    with bar("outer"):  # a display that is open already does no harm
        assert load_recognizer(model) is model
