"""The benchmark of long recordings makes what it says it makes, and measures all of it."""

import json
from pathlib import Path

import pytest

from avtlm.data.manifest import read_manifest
from avtlm.data.sound import read_audio
from benchmarks.long_recordings import Setting, main, make, peak_memory, wer
from tests.made_model import save_corpus, save_tiny_recognizer


def test_the_recording_holds_every_utterance_after_a_pause(tmp_path: Path) -> None:
    corpus = read_manifest(save_corpus(tmp_path / "corpus"))
    made = make(corpus, "test", Setting("pauses", (0.5, 0.5)), 0.25, False, -90.0, tmp_path / "out", 1)
    assert len(made.single) == len(made.texts) == 10  # five rows of about a second, twice
    assert made.texts[0] == made.texts[5] == "bin blue now"
    assert 15.0 <= made.seconds <= 18.0
    alone = sum(len(read_audio(path)) for path in made.single)
    pauses = sum(0.48 for _ in made.single) + 1.0
    assert made.seconds == pytest.approx(alone / 16000 + pauses, abs=0.5)


def test_no_boundaries_count() -> None:
    assert wer(["a b", "c d"], "a b c d") == 0.0
    assert wer(["a b", "c d"], "a c d") == 25.0


def test_memory_is_that_of_a_process() -> None:
    assert 10 < peak_memory() < 100_000


def test_everything_is_measured_and_written(tmp_path: Path) -> None:
    model, corpus = save_tiny_recognizer(tmp_path / "model"), save_corpus(tmp_path / "corpus")
    out = tmp_path / "out.json"
    arguments = ["--model", str(model), "--manifest", str(corpus), "--minutes", "0.4", "--modality", "a", "--json", str(out)]
    assert main(arguments) == 0
    found = json.loads(out.read_text())
    assert [line["setting"] for line in found["recordings"]] == ["pauses", "no pauses", "no pauses, shorter gaps divide"]
    assert [line["minutes"] for line in found["memory"]] == [0.4]
    assert found["memory"][0]["peak_mb"] >= found["memory"][0]["loaded_mb"] > 0
    assert found["live"][0]["real_time_factor"] > 0
