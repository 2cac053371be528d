"""What corpora that are read aloud share: rows of what was said, and the end when a worker dies."""

from pathlib import Path

import pytest

pytest.importorskip("espeakng_loader", reason="synthetic speech needs the extra 'synthetic'")

from avtlm.data.manifest import Utterance, read_manifest
from preprocess.corpora import voicing
from preprocess.corpora.voicing import Reading, say_all
from preprocess.pool import Crash
from preprocess.synthesis.espeak import Voice


def readings(folder: Path) -> list[Reading]:
    voice = Voice("en-us+m1", 150, 50, 50)
    return [
        Reading("said", "two", "anna", voice, "train", "two words", folder, 1, (("translation", "zwei worte"),)),
        Reading("said", "one", "anna", voice, "test", "one more", folder, 1),
        Reading("heard", "three", "anna", voice, "train", "not written", folder, 1, transcribed=False),
    ]


def test_rows_say_what_is_said_but_for_sound_alone(tmp_path: Path) -> None:
    say_all(tmp_path, readings(tmp_path), {"text": [Utterance("text", transcript="never said")]}, 0)
    said, [heard], [text] = (read_manifest(tmp_path / part) for part in ("said", "heard", "text"))
    assert [(row.id, row.transcript, row.split, row.extra) for row in said] == [
        ("one", "one more", "test", {}),
        ("two", "two words", "train", {"translation": "zwei worte"}),
    ]
    assert heard.transcript is None
    assert heard.audio == "audio/three.wav"
    assert heard.phones is not None
    assert text.transcript == "never said"


def test_sound_that_is_there_stays_as_it_is(tmp_path: Path) -> None:
    say_all(tmp_path, readings(tmp_path), {}, 0)
    kept = tmp_path / "said" / "audio" / "one.wav"
    kept.write_bytes(b"kept")
    say_all(tmp_path, readings(tmp_path), {}, 0)
    assert kept.read_bytes() == b"kept"


def test_a_worker_that_dies_ends_it_with_the_sentence_it_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(voicing, "run_tasks", lambda *arguments: iter([(0, Crash("its worker was killed"))]))
    with pytest.raises(RuntimeError, match="reading two and those after it failed: its worker was killed"):
        say_all(tmp_path, readings(tmp_path), {}, 2)
