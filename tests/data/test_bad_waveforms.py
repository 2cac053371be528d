"""Waveform models and clips that they cannot use: of a lower rate, shorter than a window, hidden whole. One sentence each, everywhere."""

import logging
from pathlib import Path

import numpy as np
import pytest

from avtlm.cli import main
from avtlm.data.manifest import Manifest, Utterance, write_manifest
from avtlm.data.media import write_wav
from avtlm.evaluation.evaluate import evaluate
from avtlm.transcribe import transcribe
from tests import made_media
from tests.training.made_runs import run

NETWORK = {"dim": 16, "layers": 1, "heads": 2, "feed_forward_dim": 16, "norm_first": False, "position_kernel": 4, "position_groups": 2}
MODEL = {"waveform": {"widths": [8] * 7}, "encoder": NETWORK}


def corpus(folder: Path, seconds: float = 1.0, rate: int = 16000) -> Path:
    """Two clips of equal length."""
    rows = []
    for name, split in (("a", "train"), ("b", "test")):
        wave = made_media.chirps(seconds, rate)
        write_wav(folder / f"{name}.wav", wave, rate)
        rows.append(Utterance(name, audio=f"{name}.wav", audio_samples=len(wave), sample_rate=rate, transcript="ab", split=split))
    write_manifest(folder / "manifest.jsonl", Manifest(folder, tuple(rows)))
    return folder / "manifest.jsonl"


def settings(manifest: Path, output: Path, **heads: object) -> dict[str, object]:
    source = {"manifest": str(manifest), "task": "recognition", "modality": "a", "min_seconds": 0.0}
    model = {"encoder": MODEL, "dropout": 0.0} | heads
    return {"system": "hubert", "task": "recognition", "output": str(output), "sources": {"all": source}, "model": model, "steps": 1}


@pytest.fixture(scope="module")
def recogniser(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    return run(settings(corpus(folder / "corpus"), folder / "run"))


def test_eight_kilohertz_are_resampled_and_said_in_training(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    manifest = corpus(tmp_path, rate=8000)
    with caplog.at_level(logging.WARNING):
        assert run(settings(manifest, tmp_path / "run")).exists()
    said = [record.message for record in caplog.records if "8000 samples a second" in record.message]
    assert len(said) == 1
    assert "utterance 'a': the audio has 8000 samples a second; it was resampled to 16000" in said[0]


def test_eight_kilohertz_are_resampled_and_said_by_a_command(tmp_path: Path, recogniser: Path, capsys: pytest.CaptureFixture[str]) -> None:
    corpus(tmp_path, rate=8000)
    assert main(["transcribe", str(tmp_path / "a.wav"), "--model", str(recogniser)]) == 0
    assert "a.wav: the audio has 8000 samples a second; it was resampled to 16000" in capsys.readouterr().err
    assert transcribe([tmp_path / "a.wav"], recogniser)[0].duration == pytest.approx(1.0)


def test_a_clip_shorter_than_a_window_is_refused_in_training_evaluation_and_transcription(
    tmp_path: Path, recogniser: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = corpus(tmp_path, seconds=0.02)
    sentence = r"manifest.jsonl: utterance '[ab]' has 320 samples, fewer than the 400 of one frame; raise min_seconds or leave it out\."
    with pytest.raises(ValueError, match=sentence):
        run(settings(manifest, tmp_path / "run"))
    with pytest.raises(ValueError, match=sentence):
        evaluate(manifest, recogniser, ["a"])
    assert main(["transcribe", str(tmp_path / "a.wav"), "--model", str(recogniser)]) == 1
    assert "a.wav: has only 0.020 s of sound; at least 0.1 s are needed." in capsys.readouterr().err


def test_a_clip_that_fine_tuning_would_hide_whole_is_refused_by_name(tmp_path: Path) -> None:
    manifest = corpus(tmp_path, seconds=0.15)
    masks = {"audio_mask": {"prob": 0.9, "length": 10, "min_spans": 2}}
    with pytest.raises(ValueError, match=r"a: all 7 frames of this clip would be hidden by spans of 10; raise min_seconds of its source\."):
        run(settings(manifest, tmp_path / "run", **masks) | {"steps": 20, "seed": 3})


def test_silence_is_refused_by_the_command(tmp_path: Path, recogniser: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_wav(tmp_path / "silent.wav", np.zeros(16000, np.float32))
    assert main(["transcribe", str(tmp_path / "silent.wav"), "--model", str(recogniser)]) == 1
    assert "is silent; there is nothing to hear." in capsys.readouterr().err
