"""Speech that a model writes is compared with its recordings, and understood by a recogniser."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from avtlm import checkpoint, cli, config
from avtlm.data.manifest import read_manifest, write_manifest
from avtlm.decoding.synthesis import SynthesisOptions
from avtlm.evaluation.generation import evaluate_speech
from avtlm.speaking import synthesize
from avtlm.text.vocabulary import SPACE, SPECIALS, Vocabulary
from tests.made_model import save_corpus, save_tiny_recognizer
from tests.systems.sequence_models import SPECTROGRAM, speecht5

LETTERS = Vocabulary([*SPECIALS, SPACE, *"abcdeghilnorstuwy", "<mask>", "<ctc_blank>"])
WIDTH = 5


def save(folder: Path, **changes: Any) -> Path:
    """A model that says something short."""
    spectrogram = dataclasses.replace(SPECTROGRAM, bands=80)
    model = speecht5(task="generation", codebook=None, units=0, vocabulary=len(LETTERS), spectrogram=spectrogram, **changes)
    options = SynthesisOptions(threshold=1e9, longest=1.0)
    card = {"system": "speecht5", "task": "generation", "model": config.to_dict(model.config)}
    checkpoint.save_model(folder, model, card, LETTERS, decoding=options)
    return folder


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Some rows name another clip as their target; a file of voices lies beside it."""
    path = save_corpus(tmp_path_factory.mktemp("corpus"), 4)
    rows = read_manifest(path)
    targets = {"u0": {"target": "u1"}, "u1": {"target": "2.wav"}}
    changed = tuple(dataclasses.replace(row, extra=targets.get(row.id, {})) for row in rows)
    write_manifest(path.with_name("pairs.jsonl"), dataclasses.replace(rows, utterances=changed))
    rng = np.random.default_rng(0)
    np.savez(path.with_name("voices.npz"), **{name: rng.normal(size=WIDTH) for name in ("s0", "s1", "s2", "2.wav")})
    return path


def test_transcripts_are_said_and_compared_with_their_clips(corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, voices, listener = save(tmp_path / "model"), corpus.with_name("voices.npz"), save_tiny_recognizer(tmp_path / "listener")
    found = evaluate_speech(corpus, folder, voices, recognizer=listener)
    assert found.reading == "text"
    assert set(found.distortions) == {"u0", "u1", "u2"}
    assert found.distortion == pytest.approx(sum(found.distortions.values()) / 3)
    assert found.distortion > 1.0
    assert found.cut == 3
    assert found.rate is not None
    assert found.rate.words == 9
    arguments = ["evaluate", str(corpus), "--model", str(folder), "--voices", str(voices), "--recognizer", str(listener)]
    assert cli.main([*arguments, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == found.to_json()
    assert cli.main([*arguments, "--limit", "1"]) == 0
    out = capsys.readouterr().out
    assert "Speech written from text: 1 utterances" in out
    assert "word error rate" in out


def test_what_is_said_is_what_the_command_says(corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The waves that are compared are those of avtlm synthesize with the same voice."""
    heard: list[np.ndarray] = []
    original = __import__("avtlm.evaluation.generation", fromlist=["mel_cepstra"]).mel_cepstra

    def noted(wave: np.ndarray) -> np.ndarray:
        heard.append(wave)
        found: np.ndarray = original(wave)
        return found

    monkeypatch.setattr("avtlm.evaluation.generation.mel_cepstra", noted)
    folder, voices = save(tmp_path / "model"), corpus.with_name("voices.npz")
    evaluate_speech(corpus, folder, voices, limit=1)
    row = read_manifest(corpus)[0]
    assert row.transcript is not None
    [said] = synthesize([row.transcript], folder, voice=voices, speaker=row.speaker)
    assert np.abs(heard[0] - said.wave).max() < 1e-4


def test_clips_are_said_again_in_the_voice_of_their_targets(corpus: Path, tmp_path: Path) -> None:
    folder, voices = save(tmp_path / "model"), corpus.with_name("voices.npz")
    pairs = corpus.with_name("pairs.jsonl")
    found = evaluate_speech(pairs, folder, voices)
    assert found.reading == "speech"
    own = evaluate_speech(corpus, folder, voices, reading="speech")  # without targets
    assert found.distortions["u2"] == own.distortions["u2"]
    assert found.distortions["u0"] != own.distortions["u0"]
    assert found.distortions["u1"] != own.distortions["u1"]


def test_one_that_reads_speech_alone_needs_no_targets(corpus: Path, tmp_path: Path) -> None:
    folder = save(tmp_path / "model", inputs=("speech",), outputs=("speech",), ctc_head="none")
    assert evaluate_speech(corpus, folder, corpus.with_name("voices.npz"), limit=1).reading == "speech"


def test_what_cannot_be_compared_is_said_in_a_sentence(corpus: Path, tmp_path: Path) -> None:
    folder, voices = save(tmp_path / "model"), corpus.with_name("voices.npz")
    rows = read_manifest(corpus)
    silent = corpus.with_name("silent.jsonl")
    bare = tuple(dataclasses.replace(row, transcript=None) for row in rows)
    write_manifest(silent, dataclasses.replace(rows, utterances=bare))
    listener = save_tiny_recognizer(tmp_path / "listener")
    hears = save(tmp_path / "hears", inputs=("speech",), outputs=("speech",), ctc_head="none")
    cases: list[tuple[dict[str, Any], str]] = [
        ({"manifest": corpus, "model": folder}, "name their file under the source's key voices"),
        ({"manifest": silent, "model": folder, "voices": voices}, "utterance 'u0' has no transcript"),
        ({"manifest": silent, "model": hears, "voices": voices, "recognizer": listener}, "has no transcript to compare with what is"),
        ({"manifest": corpus, "model": hears, "voices": voices, "reading": "text"}, "reading: text, but .* reads speech"),
        ({"manifest": corpus, "model": listener}, "give the folder of a model for generation"),
    ]
    for arguments, message in cases:
        with pytest.raises(ValueError, match=message) as caught:
            evaluate_speech(**arguments)
        assert "\n" not in str(caught.value)


def test_the_seed_decides(corpus: Path, tmp_path: Path) -> None:
    folder, voices = save(tmp_path / "model"), corpus.with_name("voices.npz")
    first, again, other = (evaluate_speech(corpus, folder, voices, limit=1, seed=seed).distortions for seed in (0, 0, 1))
    assert first == again
    assert first != other
    assert torch.is_grad_enabled()
