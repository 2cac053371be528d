"""Recordings of any length: divided, decoded in flat memory, on one clock; what is wrong with a part is told and the rest goes on."""

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from avtlm.data.container import MediaError
from avtlm.data.dataset import Item
from avtlm.data.media import write_wav
from avtlm.decoding.result import Transcript, Word
from avtlm.lips.landmarks import FaceMesh
from avtlm.long_recordings import LongOptions, LongTranscript, Part, Recording, transcribe_recording
from avtlm.recognizer import Recognizer
from avtlm.transcribe import transcribe, transcribe_each
from tests import made_media
from tests.made_model import tiny_recognizer

RATE = 16000


@pytest.fixture(scope="module")
def recognizer() -> Recognizer:
    return tiny_recognizer()


def syllables(seconds: float) -> np.ndarray:
    """Chirps that swell and fade four times a second, as speech does: what never changes its level is no speech."""
    sound = made_media.chirps(seconds)
    time = np.arange(len(sound)) / RATE
    return (sound * (0.52 - 0.48 * np.cos(2 * np.pi * 4 * time))).astype(np.float32)


def spoken(*lengths: float, pause: float = 1.0) -> np.ndarray:
    """Sound of these lengths, each followed by a pause of very quiet noise."""
    generator = np.random.default_rng(0)
    parts = []
    for length in lengths:
        parts += [syllables(length), np.zeros(round(pause * RATE), np.float32)]
    wave = np.concatenate(parts)
    return (wave + 1e-4 * generator.standard_normal(len(wave))).astype(np.float32)


def long(path: Path, recognizer: Recognizer, modality: str = "a", window: float = 3.0) -> LongTranscript:
    provider = FaceMesh() if "v" in modality else None
    return transcribe_recording(path, recognizer, modality, recognizer.config.decoding, LongOptions(window=window), provider=provider)


def test_every_segment_is_what_its_sound_alone_would_be(tmp_path: Path, recognizer: Recognizer) -> None:
    wave = spoken(1.2, 0.8, 1.6, 1.0)
    write_wav(tmp_path / "long.wav", wave)
    found = long(tmp_path / "long.wav", recognizer)
    assert len(found.parts) == 4
    assert found.problems == []
    assert found.text == " ".join(part.text for part in found.parts)
    assert found.duration == pytest.approx(len(wave) / RATE)
    for part in found.parts:
        write_wav(tmp_path / "part.wav", wave[round(part.start * RATE) : round(part.end * RATE)])
        (alone,) = transcribe([tmp_path / "part.wav"], recognizer, "a")
        assert part.text == alone.text
        for word, one in zip(part.words, alone.words, strict=True):
            assert word.start == pytest.approx(one.start + part.start)  # type: ignore[operator]


def test_long_files_are_divided_by_themselves_and_short_ones_are_not(tmp_path: Path, recognizer: Recognizer) -> None:
    write_wav(tmp_path / "short.wav", made_media.chirps(1.0))
    write_wav(tmp_path / "long.wav", spoken(2.0, 2.0, 2.0))
    paths = [tmp_path / "short.wav", tmp_path / "long.wav", tmp_path / "short.wav"]
    found = transcribe(paths, recognizer, "a", window=4.0)
    assert [isinstance(each, LongTranscript) for each in found] == [False, True, False]
    assert not any(isinstance(each, LongTranscript) for each in transcribe(paths, recognizer, "a"))
    assert not any(isinstance(each, LongTranscript) for each in transcribe(paths, recognizer, "a", window=0))


@pytest.mark.parametrize("modality", ["av", "v"])
def test_lips_of_a_long_video_are_read_segment_by_segment(modality: str, tmp_path: Path, recognizer: Recognizer) -> None:
    wave = spoken(1.5, 1.5, 1.5)
    path = made_media.write_media(tmp_path / "a.mp4", made_media.talking(7.5), audio=wave)
    found = long(path, recognizer, modality)
    assert len(found.parts) == 3
    assert found.problems == []
    assert all(part.text for part in found.parts)


def test_lips_without_sound_are_read_in_windows(tmp_path: Path, recognizer: Recognizer) -> None:
    path = made_media.write_media(tmp_path / "a.mp4", made_media.talking(7.0))
    found = long(path, recognizer, "v")
    assert [(part.start, part.end) for part in found.parts] == [(0.0, 3.0), (2.25, 5.25), (4.5, pytest.approx(7.0))]
    starts = [word.start for word in found.words]
    assert starts == sorted(starts, key=lambda start: start or 0.0)


def test_where_no_face_is_seen_the_sound_alone_is_used(tmp_path: Path, recognizer: Recognizer, caplog: pytest.LogCaptureFixture) -> None:
    side = 160
    hidden = np.concatenate([made_media.talking(2.0), np.full((75, side, side, 3), 90, np.uint8)])
    path = made_media.write_media(tmp_path / "a.mp4", hidden, audio=spoken(1.5, 1.5))
    found = long(path, recognizer, "av")
    assert len(found.parts) == 2
    assert found.problems == []
    assert "only the sound is used: no face was found" in caplog.text
    read = long(path, recognizer, "v")
    assert len(read.problems) == 1
    assert "no face was found" in read.problems[0]
    assert read.parts[0].text


def test_a_segment_that_fails_is_told_and_the_rest_goes_on(
    tmp_path: Path, recognizer: Recognizer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    write_wav(tmp_path / "a.wav", spoken(1.0, 1.4, 1.0))
    whole = long(tmp_path / "a.wav", recognizer)
    original = Recognizer.search

    def fail(self: Recognizer, batch: object, decoding: object = None) -> object:
        if any("2.0" not in name and " 1.8" in name for name in batch.ids):  # type: ignore[attr-defined]
            raise RuntimeError("no memory\nleft")
        return original(self, batch, decoding)  # type: ignore[arg-type]

    monkeypatch.setattr(Recognizer, "search", fail)
    found = long(tmp_path / "a.wav", recognizer)
    assert [part.problem for part in found.parts] == [None, "no memory left", None]
    assert [found.parts[i].text for i in (0, 2)] == [whole.parts[i].text for i in (0, 2)]
    assert "no memory left" in caplog.text
    assert json.loads(found.to_json())["problems"] == found.problems


def test_a_fault_of_every_segment_is_raised(tmp_path: Path, recognizer: Recognizer, monkeypatch: pytest.MonkeyPatch) -> None:
    write_wav(tmp_path / "a.wav", spoken(1.0, 1.4))

    def fail(self: Recognizer, batch: object, decoding: object = None) -> object:
        raise ValueError("wrong settings")

    monkeypatch.setattr(Recognizer, "search", fail)
    with pytest.raises(ValueError, match="wrong settings"):
        long(tmp_path / "a.wav", recognizer)


def test_overlapping_windows_lose_and_double_no_word(tmp_path: Path, recognizer: Recognizer) -> None:
    """Against a recogniser that hears the number of every second."""
    write_wav(tmp_path / "a.wav", syllables(14.0))

    class Counter(Recording):
        def _item(self, segment):  # type: ignore[no-untyped-def]
            return Item(f"{segment.start} {segment.end}")

        def _search(self, items):  # type: ignore[no-untyped-def]
            found = []
            for item in items:
                start, end = map(float, item.id.split())
                heard = [n for n in range(14) if start <= n + 0.1 and n + 0.9 <= end]
                words = tuple(Word(f"w{n}", n + 0.1 - start, n + 0.9 - start) for n in heard)
                found.append(Transcript(" ".join(word.text for word in words), words))
            return found

    run = Counter(tmp_path / "a.wav", recognizer, "a", recognizer.config.decoding, LongOptions(window=5.0, overlap=4.0), "avhubert", None)
    found = run.transcribe()
    assert len(found.parts) > 3
    assert found.text == " ".join(f"w{n}" for n in range(14))
    assert [word.start for word in found.words] == [pytest.approx(n + 0.1) for n in range(14)]


def test_memory_does_not_grow_with_the_recording(tmp_path: Path, recognizer: Recognizer, monkeypatch: pytest.MonkeyPatch) -> None:
    """The longest stretch of sound that is ever held, and the largest batch, over ten minutes."""
    path = tmp_path / "a.wav"
    with soundfile.SoundFile(str(path), "w", RATE, 1) as file:
        for _ in range(60):
            file.write(spoken(3.0, 3.0, 2.5, pause=0.5))
    held, rows = [0], [0]

    def search(self: Recording, items: list[Item]) -> list[Transcript]:
        held.append(sum(len(item.audio) for item in items if item.audio is not None))
        rows.append(len(items))
        return [Transcript("word", (Word("word"),))] * len(items)

    monkeypatch.setattr(Recording, "_search", search)
    found = long(path, recognizer, window=20.0)
    assert len(found.parts) == 180
    assert max(held) <= 60 * 25 + 25
    assert max(rows) <= 16


def test_subtitles_of_words_without_times_stay_in_their_segments() -> None:
    parts = (Part(1.0, 3.0, "one two", (Word("one"), Word("two"))), Part(10.0, 12.0, "three", (Word("three"),)))
    found = LongTranscript("one two three", tuple(word for part in parts for word in part.words), duration=20.0, parts=parts)
    assert found.cues() == [(1.0, 3.0, "one two"), (10.0, 12.0, "three")]
    assert found.to_dict()["segments"][1] == {"start": 10.0, "end": 12.0, "text": "three"}


@pytest.mark.parametrize(
    ("case", "reason"),
    [
        ("silence", "is silent; there is nothing to hear"),
        ("silent video", "is silent; there is nothing to hear"),
        ("no sound", "has no audio track"),
        ("empty", "is empty"),
        ("no samples", "is silent; there is nothing to hear"),
        ("text", "is not a media file"),
    ],
)
def test_what_cannot_be_used_is_one_sentence(case: str, reason: str, tmp_path: Path, recognizer: Recognizer) -> None:
    path = tmp_path / ("a.mp4" if case in ("no sound", "silent video") else "a.wav")
    if case == "silence":
        write_wav(path, np.zeros(6 * RATE, np.float32))
    elif case == "silent video":
        made_media.write_media(path, made_media.noise_frames(150, 64), audio=np.zeros(6 * RATE, np.float32))
    elif case == "no sound":
        made_media.write_media(path, made_media.noise_frames(150, 64))
    elif case == "no samples":
        write_wav(path, np.zeros(0, np.float32))
    else:
        path.write_text("text" if case == "text" else "")
    ((_, result),) = transcribe_each([path], recognizer, "a", window=3.0)
    assert isinstance(result, MediaError)
    assert str(path) in str(result)
    with pytest.raises(MediaError, match=reason):
        raise result


def test_noise_without_speech_has_an_empty_transcript(tmp_path: Path, recognizer: Recognizer) -> None:
    write_wav(tmp_path / "a.wav", (0.01 * np.random.default_rng(0).standard_normal(8 * RATE)).astype(np.float32))
    found = long(tmp_path / "a.wav", recognizer)
    assert (found.text, found.words) == ("", ())


def test_eight_kilohertz_stereo_is_resampled_and_said(tmp_path: Path, recognizer: Recognizer, caplog: pytest.LogCaptureFixture) -> None:
    sound = spoken(1.5, 1.5, 1.5)[::2]
    soundfile.write(str(tmp_path / "a.wav"), np.stack([sound, sound], 1), 8000)
    found = long(tmp_path / "a.wav", recognizer)
    assert len(found.parts) == 3
    assert found.duration == pytest.approx(7.5, abs=0.01)
    assert "8000 samples a second" in caplog.text


def test_a_cut_off_file_is_transcribed_as_far_as_it_goes_and_said(
    tmp_path: Path, recognizer: Recognizer, caplog: pytest.LogCaptureFixture
) -> None:
    write_wav(tmp_path / "a.wav", spoken(1.5, 1.5, 1.5, 1.5))
    made_media.truncate(tmp_path / "a.wav", 0.5)
    found = long(tmp_path / "a.wav", recognizer)
    assert len(found.parts) == 2
    assert "is cut off after 5.00 s" in caplog.text
