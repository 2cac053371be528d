"""The comparison of one encoder, distilled and from scratch: what is held out, what it reports, and that it runs."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from avtlm import config
from avtlm.data.manifest import read_manifest
from avtlm.data.media import write_wav
from avtlm.evaluation.sounds_and_voices import read_trials
from avtlm.training.loop import TrainConfig
from benchmarks.digits_and_sounds import Amounts, gather
from benchmarks.one_encoder import CONFIGS, MEASURES, PLANS, SOURCES, TITLES, draw, main, table
from tests.made_media import tone

SPEAKERS, CLASSES = ("anna", "ben", "carl"), ("rain", "siren")


@pytest.fixture(scope="module")
def recordings(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Tones of a pitch for each digit and speaker; noises and tones."""
    folder = tmp_path_factory.mktemp("recordings")
    rng = np.random.default_rng(0)
    for place, speaker in enumerate(SPEAKERS):
        for digit in range(4):
            for take in range(2):
                wave = 0.3 * tone(0.3, pitch=200 + 80 * digit + 500 * place) + rng.normal(0, 0.01, 4800).astype(np.float32)
                write_wav(folder / "digits" / f"{digit}_{speaker}_{take}.wav", wave)
    for fold in (1, 2):
        for take in range(2):
            write_wav(folder / "noise" / "rain" / f"{fold}-{take}-A.wav", 0.2 * rng.normal(0, 1, 16000).astype(np.float32).clip(-3, 3) / 3)
            write_wav(folder / "noise" / "siren" / f"{fold}-{take}-A.wav", 0.3 * tone(1.0, pitch=700 + 10 * take))
    return folder / "digits", folder / "noise"


def report() -> dict[str, Any]:
    cell = {"mean": 12.5, "seeds": [10.0, 15.0]}
    return {"results": {start: dict.fromkeys(MEASURES, cell) for start in TITLES}, "plan": {"seeds": 2}}


def test_what_is_tested_is_never_heard_in_training(recordings: tuple[Path, Path], tmp_path: Path) -> None:
    held = set()
    for seed in (1, 2):
        corpus = gather(*recordings, tmp_path, Amounts(2, 2, 3, 10), seed)
        held.add(corpus.held_out)
        training, tests = read_manifest(corpus.digits), read_manifest(corpus.digit_tests)
        assert corpus.held_out not in {row.speaker for row in training}
        assert {row.speaker for row in tests} == set(SPEAKERS)
        assert {row.extra["labels"][0] for row in read_manifest(corpus.sounds)} == set(CLASSES)
        cuts = [{row.id.rpartition("-")[0] for row in read_manifest(path)} for path in (corpus.sounds, corpus.sound_tests)]
        assert not cuts[0] & cuts[1]
        assert {row.id for row in read_manifest(corpus.unlabelled)} == {
            row.id for path in (corpus.digits, corpus.sounds) for row in read_manifest(path)
        }
        speakers = {row.id: row.speaker for row in tests}
        trials = read_trials(corpus.trials)
        assert {trial.same for trial in trials} == {True, False}
        assert all(trial.same == (speakers[trial.first] == speakers[trial.second]) for trial in trials)
    assert len(held) == 2


def test_too_few_speakers_or_classes_are_refused(recordings: tuple[Path, Path], tmp_path: Path) -> None:
    digits, noise = recordings
    with pytest.raises(ValueError, match="digits of 0 speakers"):
        gather(noise, noise, tmp_path, Amounts(), 1)
    with pytest.raises(ValueError, match="1 classes of at least 24 recordings"):
        gather(digits, digits, tmp_path, Amounts(2, 1, 1, 2), 1)
    with pytest.raises(ValueError, match="no such folder"):
        gather(tmp_path / "none", noise, tmp_path, Amounts(), 1)


def test_both_configurations_have_the_same_encoder() -> None:
    first, second = (config.load(TrainConfig, CONFIGS / f"tiny_{stage}.yaml") for stage in ("pretrain", "finetune"))
    assert first.model["encoder"] == second.model["encoder"]
    assert tuple(second.sources) == SOURCES
    assert first.optim == second.optim


def test_the_table_has_the_mean_and_the_range_of_every_start(tmp_path: Path) -> None:
    screen = io.StringIO()
    Console(file=screen, width=110).print(table(report()))
    assert all(words in screen.getvalue() for words in (*TITLES.values(), *MEASURES.values()))
    assert screen.getvalue().count("12.5 (10.0-15.0)") == len(TITLES) * len(MEASURES)
    draw(report(), tmp_path / "plot.png")
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.usefixtures("in_this_process")
def test_the_smallest_comparison_runs_and_is_kept(
    recordings: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    digits, noise = recordings
    asked = ["--digits", str(digits), "--noise", str(noise), "--out", str(tmp_path / "run"), "--size", "smoke", "--seeds", "1"]
    small = ["max_frames=120", "max_rows=4", "tensorboard=false", "threads=1"]
    assert main([*asked, "--json", str(tmp_path / "found.json"), *small]) == 0
    found = json.loads((tmp_path / "found.json").read_text())
    assert set(found["results"]) == set(TITLES)
    for row in found["results"].values():
        assert all(row[name]["mean"] >= 0 for name in MEASURES)
    assert found["clips"]["sound_tests"] == [2]
    assert found["held_out_speakers"] == ["anna"]
    assert set(found["plan"]) >= {"teacher_steps", "distillation_steps", "finetune_steps"}
    before = capsys.readouterr()
    assert main([*asked, *small]) == 0
    assert "done before" in capsys.readouterr().err
    assert "from scratch" in before.out
    assert main([*asked, "--out", str(tmp_path / "none"), "--json", str(tmp_path / "found.json"), *small]) == 0
    assert "seed 1" not in capsys.readouterr().err
    assert json.loads((tmp_path / "found.json").read_text()) == found
    assert PLANS["small"].seeds == 3
