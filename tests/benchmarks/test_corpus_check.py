"""The benchmark of the check measures late sound and copies on clips of which it is known."""

import json
from pathlib import Path

import numpy as np
import pytest

from avtlm.data.manifest import Manifest, Utterance, write_manifest
from avtlm.data.media import write_wav
from benchmarks import corpus_check
from tests.preprocess.test_check_sync import clip


def test_late_sound_and_copies_are_measured(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = []
    for number in range(8):
        crops, wave = clip(2, number, 75)
        np.save(tmp_path / f"{number}.npy", crops)
        write_wav(tmp_path / f"{number}.wav", wave)
        rows.append(Utterance(str(number), video=f"{number}.npy", audio=f"{number}.wav", video_frames=75, audio_samples=48000))
    write_manifest(tmp_path / "manifest.jsonl", Manifest(tmp_path, tuple(rows)))
    assert corpus_check.main([str(tmp_path), "--copies", "3", "--json", str(tmp_path / "f.json")]) == 0
    report = json.loads((tmp_path / "f.json").read_text())
    assert report["late_sound"]["pooled_seconds"] == pytest.approx(0.08, abs=0.02)
    assert report["late_sound"]["moved"]["+0.20"] == pytest.approx(0.28, abs=0.03)
    assert report["copies"]["copies"] == 3
    assert "late_sound" in capsys.readouterr().out


def test_sound_is_moved_and_keeps_its_length() -> None:
    wave = np.arange(3200, dtype=np.float32)
    assert corpus_check.move(wave, 2)[1280] == 0
    assert corpus_check.move(wave, 2)[1281] == 1
    assert corpus_check.move(wave, -2)[0] == 1280
    assert len(corpus_check.move(wave, -2)) == 3200
