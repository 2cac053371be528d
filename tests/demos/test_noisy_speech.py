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
from demos.demo_answers import Page, remark
from demos.demo_examples import example_corpus, gather_voices, pick_examples
from demos.demo_page import build
from demos.demo_reading import Reader
from demos.noisy_clip import CLEAN, OpenedClip, OvertakenError, Studio, length, read_noise
from demos.noisy_speech import about_model, launch, main
from tests import made_media
from tests.demos import made_demo
from tests.made_model import save_tiny_recognizer, tiny_recognizer

BABBLE = ("babble", 0.0, None)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_demo.save_videos(tmp_path_factory.mktemp("corpus"))


@pytest.fixture(scope="module")
def bad(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return made_demo.save_bad(tmp_path_factory.mktemp("bad"))


@pytest.fixture(scope="module")
def page(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Page:
    studio = Studio([Reader("tiny", tiny_recognizer())], gather_voices(corpus), tmp_path_factory.mktemp("lips"))
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
    (readings,) = outcome.readings.values()
    assert list(readings) == ["a", "v", "av"]
    for modality in ("v", "av"):
        expected = transcribe([path], page.studio.readers[0].model, modality)[0]
        assert readings[modality].transcript.text == expected.text
        assert readings[modality].transcript.words == expected.words
        assert readings[modality].transcript.duration == expected.duration


def test_lips_are_found_once_and_kept_as_a_playable_video(page: Page, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clip = page.studio.open(page.examples[0].path)
    frames = read_clip(clip.lips, audio=False).frames
    assert frames is not None
    assert frames.shape == (len(clip.pictures), 288, 288)
    monkeypatch.setattr(noisy_clip, "extract_lips", lambda *_: pytest.fail("looked for the face again"))
    copy = tmp_path / "copied by the server.mp4"
    copy.write_bytes(page.examples[0].path.read_bytes())
    assert page.studio.open(copy) is clip


def test_the_oldest_clips_are_forgotten_with_their_files(corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(noisy_clip, "KEPT_CLIPS", 1)
    studio = Studio([Reader("tiny", tiny_recognizer())], gather_voices(corpus), tmp_path)
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
    answer, lips = page.show(str(bad[case]), "", BABBLE)
    assert (answer.sound, answer.timeline, lips) == (None, "", None)
    assert answer.message is not None
    assert 'role="alert"' in answer.message
    assert reason in answer.message
    assert bad[case].name in answer.message
    assert str(bad[case].parent) not in answer.message  # visitors need not know where the server keeps files
    assert "appear here" in str(answer.transcripts)
    assert page.show(str(page.examples[0].path), "", BABBLE)[0].sound is not None


def test_a_clip_that_is_gone_is_named(page: Page) -> None:
    assert "gone.mp4: is no longer there" in str(page.show("/nowhere/gone.mp4", "", BABBLE)[0].message)


def test_no_clip_is_no_error(page: Page) -> None:
    answer, lips = page.show(None, "", BABBLE)
    assert (answer.message, answer.sound, lips) == ("", None, None)
    assert page.remix(None, "", BABBLE).message == ""


def test_choosing_an_example_fills_everything(page: Page) -> None:
    video, reference = page.pick(1)
    assert (video, reference) == (str(page.examples[1].path), "lay red soon")
    answer, lips = page.show(video, reference, ("white", -5, None))
    assert answer.message == ""
    assert answer.sound is not None
    rate, wave = answer.sound
    assert (rate, wave.dtype) == (16000, np.int16)
    assert Path(str(lips)).exists()
    assert str(answer.transcripts).count("WER") == 3
    assert "white noise at −5 dB" in str(answer.transcripts)
    assert str(answer.timeline).count('class="lane"') == 6  # lips, sound, three readings, the ruler


def test_an_uploaded_clip_has_no_error_rate_until_somebody_types_what_was_said(page: Page) -> None:
    path = str(page.examples[0].path)
    assert "WER" not in str(page.show(path, "", BABBLE)[0].transcripts)
    assert str(page.remix(path, "bin blue now", BABBLE).transcripts).count("WER") == 3


def test_what_was_read_before_is_not_read_again(page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    reader = page.studio.readers[0]
    path, read = str(page.examples[2].path), reader._read
    counted: list[str] = []
    monkeypatch.setattr(reader, "_read", lambda item, seconds: counted.append(item.id) or read(item, seconds))
    first = page.show(path, "", BABBLE)[0]
    assert len(counted) == 3
    page.remix(path, "", ("babble", -5, None))
    assert len(counted) == 5  # what the lips say is known
    again = page.remix(path, "set green again", BABBLE)
    assert len(counted) == 5
    assert again.timeline == first.timeline


def test_an_answer_that_nobody_waits_for_is_given_up_between_two_readings(page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    path, reader = str(page.examples[0].path), page.studio.readers[0]
    page.studio.open(path)
    counted: list[str] = []

    def read(clip: str, modality: str, wave: np.ndarray, crops: np.ndarray) -> Any:
        counted.append(modality)
        page.wishes.note("someone", ("babble", 3, None))  # the slider moves on
        return Reader.read(reader, clip, modality, wave, crops)

    monkeypatch.setattr(reader, "read", read)
    page.wishes.note("someone", ("babble", 2, None))
    answer = page.remix(path, "", ("babble", 2, None), "someone")
    assert answer.kept
    assert counted == ["a"]
    assert not page.remix(path, "", ("babble", 3, None), "someone").kept
    assert not page.remix(path, "", ("babble", 2, None), "another").kept  # visitors do not stop each other


def test_a_new_clip_is_answered_in_the_noise_that_was_chosen_last(page: Page) -> None:
    path = str(page.examples[0].path)
    page.wishes.note("mover", BABBLE)
    page.pick(0, "mover")
    assert page.remix(path, "", BABBLE, "mover").kept  # asked for before the clip was changed
    answer, lips = page.show(path, "", BABBLE, "mover")
    assert not answer.kept
    page.pick(0, "mover")
    page.wishes.note("mover", ("white", 5, None))  # while the clip waits in the queue
    answer, lips = page.show(path, "", BABBLE, "mover")
    assert answer.kept
    assert lips is not None
    assert not page.remix(path, "", ("white", 5, None), "mover").kept


def test_visitors_who_left_are_forgotten(page: Page, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("demos.demo_answers.MOST_VISITORS", 2)
    for visitor in ("one", "two", "three"):
        page.wishes.note(visitor, BABBLE)
    assert page.wishes.wanted("one", ("white", 0, None))  # nothing is known of this visitor
    assert not page.wishes.wanted("three", ("white", 0, None))
    page.wishes.forget("three")
    assert page.wishes.wanted("three", ("white", 0, None))


def test_an_unwanted_answer_is_an_error_of_its_own(page: Page) -> None:
    clip = page.studio.open(page.examples[0].path)
    with pytest.raises(OvertakenError):
        page.studio.listen(clip, wanted=lambda: False)


def test_several_models_read_the_same_clip(corpus: Path, tmp_path: Path) -> None:
    readers = [Reader("first", tiny_recognizer()), Reader("second", tiny_recognizer())]
    pair = Page(Studio(readers, gather_voices(corpus), tmp_path), pick_examples(corpus, 1))
    answer, _ = pair.show(*pair.pick(0), BABBLE)
    markup = str(answer.transcripts)
    assert markup.index(">first</h3>") < markup.index(">second</h3>")
    assert markup.count("data-modality=") == 6
    assert markup.count('class="remark"') == 1
    assert str(answer.timeline).count('class="lane"') == 9


def test_a_model_that_wants_its_lips_cut_otherwise_gets_them_so(corpus: Path, tmp_path: Path) -> None:
    other = tiny_recognizer()
    other.geometry = "auto_avsr"
    studio = Studio([Reader("first", tiny_recognizer()), Reader("second", other)], gather_voices(corpus), tmp_path)
    clip: OpenedClip = studio.open(corpus.parent / "clip0.mp4")
    assert list(clip.crops) == ["avhubert", "auto_avsr"]
    assert not np.array_equal(clip.crops["avhubert"], clip.crops["auto_avsr"])
    texts = {name: each["v"].transcript.text for name, each in studio.listen(clip).readings.items()}
    assert texts["second"] == transcribe([corpus.parent / "clip0.mp4"], other, "v")[0].text


def test_without_a_sound_file_the_sound_is_clean_and_the_page_says_so(page: Page) -> None:
    path = str(page.examples[0].path)
    answer = page.remix(path, "", ("file", -10, None))
    assert "Choose a sound file" in str(answer.message)
    assert answer.sound is not None
    assert np.array_equal(answer.sound[1], page.studio.open(path).wave)
    assert "clean sound" in str(answer.transcripts)


def test_a_bad_noise_file_gives_one_sentence(page: Page, bad: dict[str, Path], tmp_path: Path) -> None:
    path = str(page.examples[0].path)
    assert "text.mp4: is not a media file" in str(page.remix(path, "", ("file", 0, str(bad["text"]))).message)
    silent = made_demo.save_noise(tmp_path, loudness=0)
    assert "noise.wav: is silent" in str(page.remix(path, "", ("file", 0, str(silent))).message)


def test_a_noise_file_of_hours_is_refused_before_it_is_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(noisy_clip, "MAX_NOISE_SECONDS", -1.0)
    with pytest.raises(MediaError, match="is 0 s long; choose a noise of at most"):
        read_noise(made_demo.save_noise(tmp_path))


def test_length_is_that_of_the_time_stamps(tmp_path: Path) -> None:
    path = made_media.write_media(tmp_path / "recorded.mkv", made_media.talking(1.2), codec="libvpx", audio=made_media.chirps(1.2))
    assert length(path) == pytest.approx(1.2, abs=0.1)


def test_warnings_of_a_clip_are_told(page: Page, tmp_path: Path) -> None:
    path = made_media.write_media(tmp_path / "two.mp4", made_media.two_faces(0.8), audio=made_media.chirps(0.8))
    assert "2 faces" in str(page.show(str(path), "", ("babble", CLEAN, None))[0].transcripts)


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
        (["--models", "model", "model"], "--models names one folder twice; name different ones to compare."),
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
