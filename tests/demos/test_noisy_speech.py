"""The page's answers, without a browser: clips are opened once, noise is the same at every level, bad files give one sentence."""

import socket
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from avtlm.data.media import MediaError, read_clip
from avtlm.data.noise import measured_snr
from avtlm.files import DEFAULT_MODEL
from avtlm.transcribe import transcribe
from demos import noisy_clip
from demos.noisy_clip import CLEAN, Studio, gather_voices, length, pick_examples, read_noise
from demos.noisy_speech import Page, about_model, build, example_corpus, launch, main, remark
from tests import made_media
from tests.demos import made_demo
from tests.made_model import save_tiny_recognizer, tiny_recognizer


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_demo.save_videos(tmp_path_factory.mktemp("corpus"))


@pytest.fixture(scope="module")
def bad(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return made_demo.save_bad(tmp_path_factory.mktemp("bad"))


@pytest.fixture(scope="module")
def page(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Page:
    studio = Studio(tiny_recognizer(), gather_voices(corpus), tmp_path_factory.mktemp("lips"))
    return Page(studio, pick_examples(corpus, 3))


def test_examples_take_turns_among_the_speakers(corpus: Path) -> None:
    examples = pick_examples(corpus, 3)
    assert [example.id for example in examples] == ["u0", "u1", "u2"]
    assert [example.transcript for example in examples] == list(made_demo.SENTENCES[:3])
    assert examples[0].picture.shape == (160, 160, 3)


def test_a_clip_in_clean_sound_reads_as_the_command_line_writes_it(page: Page) -> None:
    path = page.examples[0].path
    clip = page.studio.open(path)
    outcome = page.studio.listen(clip)
    assert np.array_equal(outcome.wave, clip.wave)
    for modality in ("v", "av"):
        assert outcome.texts[modality] == transcribe([path], page.studio.recognizer, modality)[0].text
    assert set(outcome.texts) == {"a", "v", "av"}


def test_lips_are_found_once_and_kept_as_a_playable_video(page: Page, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clip = page.studio.open(page.examples[0].path)
    frames = read_clip(clip.lips, audio=False).frames
    assert frames is not None
    assert frames.shape == (len(clip.video), 288, 288)
    monkeypatch.setattr(noisy_clip, "extract_lips", lambda *_: pytest.fail("looked for the face again"))
    copy = tmp_path / "copied by the server.mp4"
    copy.write_bytes(page.examples[0].path.read_bytes())
    assert page.studio.open(copy) is clip


def test_the_oldest_clips_are_forgotten_with_their_files(corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(noisy_clip, "KEPT_CLIPS", 1)
    studio = Studio(tiny_recognizer(), gather_voices(corpus), tmp_path)
    first = studio.open(corpus.parent / "clip0.mp4")
    second = studio.open(corpus.parent / "clip1.mp4")
    assert not first.lips.exists()
    assert second.lips.exists()


@pytest.mark.parametrize("noise", ["babble", "white", "file"])
def test_noise_has_the_level_that_was_asked_for(noise: str, page: Page, tmp_path: Path) -> None:
    clip = page.studio.open(page.examples[1].path)
    file = made_demo.save_noise(tmp_path)
    quiet = page.studio.listen(clip, noise, 15, file).wave
    assert measured_snr(clip.wave, quiet) == pytest.approx(15, abs=0.2)
    louder = page.studio.listen(clip, noise, 12, file).wave
    difference = quiet.astype(float) - clip.wave, louder.astype(float) - clip.wave
    assert np.corrcoef(*difference)[0, 1] > 0.99  # the same noise, only louder


def test_an_example_does_not_babble_behind_itself(page: Page) -> None:
    clip = page.studio.open(page.examples[0].path)
    assert (clip.id, clip.speaker) == ("u0", "s0")
    voices = page.studio.voices
    assert {voices.speakers[index] for index in voices.choose(clip.id, clip.speaker)} == {"s1"}


@pytest.mark.parametrize(
    ("case", "reason"),
    [
        ("no face", "no face was found"),
        ("no audio", "has no audio track; choose or record a video with sound."),
        ("no video", "has no video track"),
        ("silent", "is silent"),
        ("too long", "is 26 s long; this page takes clips of at most 20 s."),
        ("text", "is not a media file that can be read"),
        ("cut off", "cut_off.mp4"),
    ],
)
def test_a_bad_upload_gives_one_sentence_and_the_next_one_works(case: str, reason: str, page: Page, bad: dict[str, Path]) -> None:
    reference, message, sound, lips, transcripts = page.upload(str(bad[case]), "babble", 0, None)
    assert (reference, sound, lips) == ("", None, None)
    assert 'role="alert"' in message
    assert reason in message
    assert bad[case].name in message
    assert str(bad[case].parent) not in message  # visitors need not know where the server keeps files
    assert "appear here" in transcripts
    assert page.upload(str(page.examples[0].path), "babble", 0, None)[2] is not None


def test_a_clip_that_is_gone_is_named(page: Page) -> None:
    assert "gone.mp4: is no longer there" in page.upload("/nowhere/gone.mp4", "babble", 0, None)[1]


def test_no_clip_is_no_error(page: Page) -> None:
    assert page.upload(None, "babble", 0, None)[:4] == ("", "", None, None)
    assert page.remix(None, "", "babble", 0, None)[:2] == ("", None)


def test_choosing_an_example_fills_everything(page: Page) -> None:
    video, reference, message, sound, lips, transcripts = page.choose(1, "white", -5, None)
    assert (video, reference, message) == (str(page.examples[1].path), "lay red soon", "")
    rate, wave = sound
    assert (rate, wave.dtype) == (16000, np.int16)
    assert Path(lips).exists()
    assert transcripts.count("WER") == 3
    assert "white noise at −5 dB" in transcripts


def test_an_uploaded_clip_has_no_error_rate_until_somebody_types_what_was_said(page: Page) -> None:
    path = str(page.examples[0].path)
    assert "WER" not in page.upload(path, "babble", 0, None)[4]
    assert page.rescore(path, "bin blue now", "babble", 0, None).count("WER") == 3


def test_without_a_sound_file_the_sound_is_clean_and_the_page_says_so(page: Page) -> None:
    path = str(page.examples[0].path)
    message, (_, wave), transcripts = page.remix(path, "", "file", -10, None)
    assert "Choose a sound file" in message
    assert np.array_equal(wave, page.studio.open(path).wave)
    assert "clean sound" in transcripts


def test_a_bad_noise_file_gives_one_sentence(page: Page, bad: dict[str, Path], tmp_path: Path) -> None:
    path = str(page.examples[0].path)
    assert "text.mp4: is not a media file" in page.remix(path, "", "file", 0, str(bad["text"]))[0]
    silent = made_demo.save_noise(tmp_path, loudness=0)
    assert "noise.wav: is silent" in page.remix(path, "", "file", 0, str(silent))[0]


def test_a_noise_file_of_hours_is_refused_before_it_is_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(noisy_clip, "MAX_NOISE_SECONDS", -1.0)
    with pytest.raises(MediaError, match="is 0 s long; choose a noise of at most"):
        read_noise(made_demo.save_noise(tmp_path))


def test_length_is_that_of_the_time_stamps(tmp_path: Path) -> None:
    path = made_media.write_media(tmp_path / "recorded.mkv", made_media.talking(1.2), codec="libvpx", audio=made_media.chirps(1.2))
    assert length(path) == pytest.approx(1.2, abs=0.1)


def test_warnings_of_a_clip_are_told(page: Page, tmp_path: Path) -> None:
    path = made_media.write_media(tmp_path / "two.mp4", made_media.two_faces(0.8), audio=made_media.chirps(0.8))
    assert "2 faces" in page.upload(str(path), "babble", CLEAN, None)[4]


def test_the_remark_escapes_what_it_tells(page: Page) -> None:
    outcome = page.studio.listen(page.studio.open(page.examples[0].path))
    assert "<b>" not in remark(outcome, ("<b>",), "babble", CLEAN)


def test_visitors_are_told_what_the_model_knows(tmp_path: Path) -> None:
    assert "only knows synthetic speakers and 51 words" in about_model(DEFAULT_MODEL)
    folder = save_tiny_recognizer(tmp_path / "model")
    (folder / "README.md").write_text("# A title\n\nIt knows <three>\nwords.\n\nMore.\n")
    assert about_model(folder).endswith("It knows &lt;three&gt; words.")


def test_babble_needs_two_speakers(tmp_path: Path) -> None:
    manifest = made_demo.save_videos(tmp_path)
    manifest.write_text(manifest.read_text().replace('"s1"', '"s0"'))
    with pytest.raises(ValueError, match="at least two speakers"):
        gather_voices(manifest)


def test_a_corpus_without_videos_is_refused(tmp_path: Path) -> None:
    manifest = made_demo.save_videos(tmp_path)
    manifest.write_text(manifest.read_text().replace('"test"', '"train"'))
    with pytest.raises(ValueError, match="no videos with transcripts"):
        pick_examples(manifest)


def test_a_small_corpus_is_drawn_when_there_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[Any] = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("preprocess.corpora.talking_heads.generate", lambda out, size: drawn.append((out, size)))
    assert example_corpus(None) == Path("runs/demo/corpus/manifest.jsonl")
    assert drawn == [(Path("runs/demo/corpus"), "smoke")]
    made_demo.save_videos(tmp_path / "runs" / "quickstart" / "corpus")
    assert example_corpus(None) == Path("runs/quickstart/corpus/manifest.jsonl")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--model", "nowhere"], "nowhere: there is no such model; name its folder with --model, or make one by `make quickstart`."),
        (
            ["--model", "model", "--corpus", "nowhere"],
            "nowhere: there is no manifest.jsonl; name the folder of a corpus of videos with --corpus.",
        ),
    ],
)
def test_the_command_says_what_is_missing(
    arguments: list[str], sentence: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("gradio")
    monkeypatch.chdir(tmp_path)
    save_tiny_recognizer(tmp_path / "model")
    assert main(arguments) == 1
    assert capsys.readouterr().err == f"noisy_speech: {sentence}\n"


def test_a_port_that_is_taken_is_named(page: Page) -> None:
    gradio = pytest.importorskip("gradio")
    with socket.socket() as other, gradio.Blocks(analytics_enabled=False) as blocks:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(OSError, match=f"port {port} of 127.0.0.1 is taken; choose another one with --port."):
            launch(blocks, "127.0.0.1", port, [])


def test_the_page_is_built_without_a_clip_being_opened(page: Page) -> None:
    pytest.importorskip("gradio")
    blocks = build(page, "a model")
    assert blocks.title == "Lips rescue noisy speech"
    assert not blocks.analytics_enabled


def test_pictures_that_are_too_large_are_refused_before_they_are_decoded(
    page: Page, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(noisy_clip, "MAX_PIXELS", 100)
    monkeypatch.setattr(noisy_clip, "extract_lips", lambda *_: pytest.fail("was decoded"))
    path = made_media.write_media(tmp_path / "large.mp4", made_media.talking(0.2), audio=made_media.tone(0.2))
    with pytest.raises(MediaError, match="has pictures of 160 x 160; this page takes at most"):
        page.studio.open(path)


def test_a_clip_that_fails_half_way_leaves_no_file(page: Page, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr(noisy_clip, "write_clip", full)
    before = sorted(page.studio.folder.iterdir())
    path = made_media.write_media(tmp_path / "new.mp4", made_media.talking(1.0), audio=made_media.tone(1.0))
    with pytest.raises(OSError, match="No space left"):
        page.studio.open(path)
    assert sorted(page.studio.folder.iterdir()) == before
