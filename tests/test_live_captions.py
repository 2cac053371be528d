"""Captions of a stream: final words stay, all words come, latency counts from the end of a word, devices are read or said to be missing."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest

from avtlm import cli
from avtlm.data.container import MediaError
from avtlm.data.live_input import Chunk, DeviceInput, FileInput, open_input
from avtlm.data.media import write_wav
from avtlm.decoding.result import Word
from avtlm.decoding.segments import Segment
from avtlm.live_captions import LiveCaptions, LiveOptions, LocalAgreement, continuation, unheard
from avtlm.recognizer import Recognizer
from tests import made_media
from tests.made_model import save_tiny_recognizer, tiny_recognizer
from tests.test_long_recordings import spoken

RATE = 16000


@pytest.fixture(scope="module")
def recognizer() -> Recognizer:
    return tiny_recognizer()


def words(text: str) -> list[Word]:
    return [Word(word) for word in text.split()]


def texts(found: Sequence[Word]) -> str:
    return " ".join(word.text for word in found)


def test_words_are_final_when_two_decodings_agree() -> None:
    agreement = LocalAgreement()
    steps = [("the cat", "", "the cat"), ("the cat sad on", "the cat", "sad on"), ("the cat sat on the", "", "sat on the")]
    steps.append(("the cat sat on the mat", "sat on the", "mat"))
    for heard, final, partial in steps:
        found = agreement.update(words(heard))
        assert (texts(found[0]), texts(found[1])) == (final, partial)
    assert texts(agreement.finish(words("the cat sat on the mat now"))) == "mat now"


def test_final_words_stay_when_a_later_decoding_says_otherwise() -> None:
    agreement = LocalAgreement()
    agreement.update(words("one two"))
    assert texts(agreement.update(words("one two three"))[0]) == "one two"
    assert texts(agreement.finish(words("one too three four"))) == "three four"


def test_words_of_the_window_before_are_not_told_again() -> None:
    told = [Word("five", 4.0, 4.5), Word("six", 4.6, 5.0)]
    heard = [Word("fife", 4.1, 4.5), Word("six", 4.9, 5.2), Word("seven", 5.3, 5.8)]
    assert texts(unheard(heard, told)) == "seven"
    assert texts(unheard(heard, [])) == "fife six seven"
    assert texts(unheard([Word("six", 5.6, 6.0)], told)) == "six"


@pytest.mark.parametrize(
    ("said", "heard", "rest"),
    [
        ("", "a b", "a b"),
        ("a b", "a b c", "c"),
        ("a b", "a x c", "c"),
        ("a b", "x a b c", "c"),
        ("a b c", "a b", ""),
        ("a a", "a a a a", "a a"),
    ],
)
def test_the_continuation_starts_behind_what_was_said(said: str, heard: str, rest: str) -> None:
    assert texts(continuation(words(said), words(heard))) == rest


class _Reader(LiveCaptions):
    """Hears the number of every second of the stream as a word that lasts from 0.1 to 0.9 of it, at a cost of 0.1 s."""

    cost = 0.1

    def _decode(self, segment: Segment) -> list[Word]:
        heard = self._segmenter.seconds
        self._busy, self._decoded = max(self._busy, heard) + self.cost, heard
        self._decodings += 1
        self._computing += self.cost
        numbers = [n for n in range(1000) if segment.start <= n + 0.1 and n + 0.9 <= segment.end]
        return unheard([Word(f"w{n}", n + 0.1, n + 0.9) for n in numbers], self._told)


def chunks(wave: np.ndarray, size: float = 0.2) -> list[Chunk]:
    step = round(size * RATE)
    return [Chunk(wave[at : at + step]) for at in range(0, len(wave), step)]


def run(captions: LiveCaptions, wave: np.ndarray, size: float = 0.2) -> tuple[str, list[str]]:
    """Final words, and everything shown as partial."""
    shown = [caption for chunk in chunks(wave, size) for caption in captions.feed(chunk)]
    shown += captions.finish()
    assert [caption.time for caption in shown] == sorted(caption.time for caption in shown)
    return " ".join(caption.text for caption in shown if caption.final), [caption.text for caption in shown if not caption.final]


@pytest.mark.parametrize("window", [20.0, 6.0])
def test_every_word_becomes_final_once_and_soon(window: float, recognizer: Recognizer) -> None:
    captions = _Reader(recognizer, options=LiveOptions(window=window, overlap=4.0, step=0.5))
    final, partial = run(captions, spoken(13.8, pause=1.2))
    assert final == " ".join(f"w{n}" for n in range(14))
    assert partial
    report = captions.report()
    assert report.words == 14
    assert report.latency_mean is not None
    assert report.latency_95 is not None
    assert 0.5 < report.latency_mean < 1.5
    assert report.latency_mean <= report.latency_95 < 2.5
    assert report.real_time_factor == pytest.approx(0.1 * report.decodings / 15, rel=0.01)
    assert "14 words" in str(report)


def test_a_slow_recogniser_decodes_less_often_and_its_latency_says_so(recognizer: Recognizer) -> None:
    fast, slow = _Reader(recognizer), _Reader(recognizer)
    slow.cost = 1.5
    wave = spoken(13.8, pause=1.2)
    assert run(fast, wave)[0] == run(slow, wave)[0]
    assert slow.report().decodings < fast.report().decodings / 2
    assert (slow.report().latency_mean or 0) > (fast.report().latency_mean or 0) + 1


def test_pauses_make_words_final_and_the_state_is_forgotten(recognizer: Recognizer) -> None:
    captions = LiveCaptions(recognizer)
    for _ in range(5):
        run_chunks = [caption for chunk in chunks(spoken(1.5, pause=1.0)) for caption in captions.feed(chunk)]
        assert run_chunks[-1].final
        assert captions._segmenter.open() is None
        assert len(captions._segmenter._sound) < 3 * RATE
    assert captions.report().problems == ()


@pytest.mark.parametrize("modality", ["av", "v"])
def test_lips_are_read_while_they_move(modality: str, tmp_path: Path, recognizer: Recognizer) -> None:
    path = made_media.write_media(tmp_path / "a.mp4", made_media.talking(5.0), audio=spoken(1.5, 1.5))
    captions = LiveCaptions(recognizer, modality)
    shown = list(captions.captions(FileInput(path, pictures=True)))
    assert any(caption.final for caption in shown)
    assert captions.report().problems == ()
    assert len(captions._pictures) < 125


def test_without_a_face_the_sound_goes_on_alone(tmp_path: Path, recognizer: Recognizer) -> None:
    path = made_media.write_media(tmp_path / "a.mp4", made_media.noise_frames(75, 160), audio=spoken(2.0))
    heard, both, seen = (LiveCaptions(recognizer, modality) for modality in ("a", "av", "v"))
    found = {}
    for captions in (heard, both, seen):
        found[captions.modality] = [caption.text for caption in captions.captions(FileInput(path, pictures=True)) if caption.final]
    assert " ".join(found["a"]) == " ".join(found["av"])
    assert found["v"] == []
    assert "no face was found" in seen.report().problems[0]


def test_a_file_is_played_in_real_time(tmp_path: Path, recognizer: Recognizer) -> None:
    write_wav(tmp_path / "a.wav", spoken(0.8, pause=0.7))
    captions = LiveCaptions(recognizer, live=True)
    shown = list(captions.captions(FileInput(tmp_path / "a.wav", real_time=True)))
    assert 1.0 < shown[-1].time < 4.0


@pytest.mark.parametrize(
    ("source", "pictures", "reason"),
    [
        ("none.mp4", False, "there is no such file"),
        ("camera", True, "name a microphone, and a camera behind a plus sign"),
        ("alsa:default", True, "the lips need a camera: alsa:default"),
        ("dshow:audio=none", False, "cannot be opened|this build of PyAV cannot read from dshow; the inputs it has:"),
        ("alsa:no such device", False, "the device cannot be opened|cannot read from alsa"),
    ],
)
def test_what_cannot_be_listened_to_is_one_sentence(source: str, pictures: bool, reason: str) -> None:
    with pytest.raises(ValueError, match=reason) as caught:
        open_input(source, pictures)
    assert "\n" not in str(caught.value)


def test_no_input_of_the_system_at_all_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("avtlm.data.live_input._has", lambda kind: False)
    with pytest.raises(ValueError, match="No microphone or camera can be read here"):
        open_input("mic", False)


def test_a_silent_file_and_one_without_sound_are_refused(tmp_path: Path, recognizer: Recognizer) -> None:
    write_wav(tmp_path / "a.wav", np.zeros(2 * RATE, np.float32))
    with pytest.raises(MediaError, match="is silent; there is nothing to hear"):
        list(LiveCaptions(recognizer).captions(FileInput(tmp_path / "a.wav")))
    path = made_media.write_media(tmp_path / "b.mp4", made_media.noise_frames(20, 64))
    with pytest.raises(MediaError, match="has no audio track"):
        open_input(str(path), True)


def test_devices_are_read_on_one_clock() -> None:
    """FFmpeg's made-up signals stand in for a microphone and a camera."""
    sound, picture = (
        "lavfi:sine=frequency=440:sample_rate=48000:duration=2,arealtime",
        "lavfi:testsrc=size=64x48:rate=30:duration=2,realtime",
    )
    try:
        source = DeviceInput(sound, picture)
    except ValueError as error:
        pytest.skip(str(error))
    found = list(source)
    assert 20000 <= sum(len(chunk.sound) for chunk in found) <= 32001
    pictures = [each for chunk in found for each in chunk.pictures]
    assert 30 <= len(pictures) <= 51
    assert pictures[0].shape == (48, 64)


def test_a_device_that_gives_nothing_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    try:
        source = DeviceInput("lavfi:sine=frequency=440:duration=30,arealtime", "lavfi:testsrc=size=64x48:rate=1:duration=9,realtime")
    except ValueError as error:
        pytest.skip(str(error))

    def nothing(self: DeviceInput) -> Iterator[np.ndarray]:
        self._stop.wait(5)
        yield from ()

    monkeypatch.setattr("avtlm.data.live_input.PATIENCE", 0.5)
    monkeypatch.setattr(DeviceInput, "_pictures", nothing)
    with pytest.raises(MediaError, match="no pictures came from the device"):
        list(source)


def test_the_command_prints_captions_and_a_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = str(save_tiny_recognizer(tmp_path / "model"))
    path = tmp_path / "a.wav"
    write_wav(path, spoken(1.5, 1.5))
    arguments = ["transcribe", str(path), "--stream", "--model", model, "--modality", "a"]
    assert cli.main(arguments) == 0
    printed = capsys.readouterr()
    assert "real-time factor" in printed.err
    assert cli.main([*arguments, "--json"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert lines[-1]["type"] == "report"
    assert lines[-1]["latency_95"] >= lines[-1]["latency_mean"] > 0
    final = " ".join(line["text"] for line in lines if line["type"] == "final")
    assert final.split() == [word for line in printed.out.splitlines() for word in line.split()[1:]]
    assert {line["type"] for line in lines} == {"partial", "final", "report"}


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        (["b.wav", "--stream"], "takes one file"),
        (["--stream", "--srt"], "prints captions as they come"),
        (["--stream", "--window", "0"], "needs a window"),
        (["--real-time"], "--real-time is for --stream"),
        (["--resume"], "--resume needs --out"),
    ],
)
def test_wrong_use_of_the_command_is_one_sentence(more: list[str], reason: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["transcribe", "a.wav", *more]) == 2
    assert reason in capsys.readouterr().err


def test_a_run_over_many_files_goes_on_where_it_was(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model, out = str(save_tiny_recognizer(tmp_path / "model")), tmp_path / "out"
    for name in ("a", "b"):
        write_wav(tmp_path / f"{name}.wav", spoken(1.0, 1.0, 1.0))
    arguments = ["transcribe", str(tmp_path / "a.wav"), str(tmp_path / "b.wav"), "--model", model, "--modality", "a", "--out", str(out)]
    out.mkdir()
    (out / "a.txt").write_text("was there\n")
    assert cli.main([*arguments, "--resume", "--window", "3"]) == 0
    printed = capsys.readouterr()
    assert "1 of 2 files are transcribed already" in printed.err
    assert printed.out.splitlines() == [str(out / "b.txt")]
    assert (out / "a.txt").read_text() == "was there\n"
    assert (out / "b.txt").read_text().strip()
