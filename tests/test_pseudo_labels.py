"""Pseudo-labels: the transcripts of a model become a manifest that trains the next one."""

import json
from pathlib import Path

import pytest

from avtlm import pseudo_labels as module
from avtlm.cli import main
from avtlm.data.manifest import read_manifest
from avtlm.decoding.result import Hypothesis, Transcript
from avtlm.pseudo_labels import confidence, pseudo_labels
from avtlm.transcribe import load_recognizer
from tests.made_model import save_corpus, save_tiny_recognizer


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("made")
    return save_corpus(folder / "corpus"), save_tiny_recognizer(folder / "model")


@pytest.mark.parametrize("modality", ["av", "a", "v"])
def test_the_new_manifest_holds_what_the_model_says(made: tuple[Path, Path], tmp_path: Path, modality: str) -> None:
    manifest, model = made
    report = pseudo_labels(manifest, model, tmp_path / "labels.jsonl", modality, split="test")
    rows = read_manifest(tmp_path / "labels.jsonl")
    wanted = {row.id: row for row in read_manifest(manifest).split("test")}
    assert report.kept == len(rows) == len(wanted) - report.unsure
    assert report.kept > 0
    for row in rows:
        assert row.transcript
        assert 0 < row.extra["confidence"] <= 1
        assert rows.path(row.video).exists()
        assert rows.path(row.audio).exists()
        assert (row.speaker, row.split, row.video_frames) == (wanted[row.id].speaker, "test", wanted[row.id].video_frames)


def test_unsure_clips_are_left_out_and_counted(made: tuple[Path, Path], tmp_path: Path) -> None:
    manifest, model = made
    everything = pseudo_labels(manifest, model, tmp_path / "all.jsonl", split=None)
    values = sorted(row.extra["confidence"] for row in read_manifest(tmp_path / "all.jsonl"))
    middle = values[len(values) // 2]
    some = pseudo_labels(manifest, model, tmp_path / "some.jsonl", split=None, min_confidence=middle)
    assert some.kept == sum(value >= middle for value in values)
    assert some.kept + some.unsure == everything.kept + everything.unsure


def test_an_interrupted_call_goes_on_where_it_stopped(made: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    manifest, model = made
    monkeypatch.setattr(module, "BATCH_ROWS", 2)
    whole = pseudo_labels(manifest, model, tmp_path / "whole.jsonl", split=None)
    real, calls = module._recognise, []

    def third_time_unlucky(*args: object) -> object:
        calls.append(args)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return real(*args)  # type: ignore[arg-type]

    monkeypatch.setattr(module, "_recognise", third_time_unlucky)
    with pytest.raises(KeyboardInterrupt):
        pseudo_labels(manifest, model, tmp_path / "broken.jsonl", split=None)
    assert not (tmp_path / "broken.jsonl").exists()
    with open(tmp_path / "broken.jsonl.partial", "a") as handle:
        handle.write('{"id": "half a li')
    report = pseudo_labels(manifest, model, tmp_path / "broken.jsonl", split=None)
    assert len(calls) == 4  # two batches were kept
    assert report.kept == whole.kept
    assert (tmp_path / "broken.jsonl").read_text() == (tmp_path / "whole.jsonl").read_text()
    assert not (tmp_path / "broken.jsonl.partial").exists()


def test_what_another_model_left_behind_is_not_taken_up(made: tuple[Path, Path], tmp_path: Path) -> None:
    manifest, model = made
    stale = {"manifest": str(manifest), "model": "elsewhere", "modality": "av"}
    lines = [stale, {"id": read_manifest(manifest)[0].id, "text": "stale", "confidence": 1.0}]
    (tmp_path / "out.jsonl.partial").write_text("".join(json.dumps(line) + "\n" for line in lines))
    pseudo_labels(manifest, model, tmp_path / "out.jsonl", split=None)
    assert "stale" not in {row.transcript for row in read_manifest(tmp_path / "out.jsonl")}


def test_a_clip_that_cannot_be_read_is_reported_and_the_others_go_on(
    made: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, model = made
    manifest = save_corpus(tmp_path / "corpus")
    broken = read_manifest(manifest)[1]
    assert broken.audio is not None
    (tmp_path / "corpus" / broken.audio).write_bytes(b"no sound")
    code = main(["label", str(manifest), "--model", str(model), "--out", str(tmp_path / "labels.jsonl"), "--split", "all"])
    shown = capsys.readouterr()
    assert code == 1
    assert broken.id in shown.err
    assert "1 not readable" in shown.out
    assert broken.id not in {row.id for row in read_manifest(tmp_path / "labels.jsonl")}


def test_confidence_is_a_mean_per_token() -> None:
    def of(*hypothesis: object) -> float:
        return confidence(Transcript("", hypotheses=(Hypothesis(*hypothesis),)))  # type: ignore[arg-type]

    assert of((), 0.0) == 0.0
    assert of((1, 2), -9.0, {}, (), (-0.5, -1.5)) == pytest.approx(0.3679, abs=1e-4)
    assert of((1, 2), -2.0) == pytest.approx(0.3679, abs=1e-4)


def test_impossible_settings_are_refused(made: tuple[Path, Path], tmp_path: Path) -> None:
    manifest, model = made
    recognizer = load_recognizer(model)
    with pytest.raises(ValueError, match="modality"):
        pseudo_labels(manifest, recognizer, tmp_path / "x.jsonl", "lips")
    with pytest.raises(ValueError, match="min_confidence"):
        pseudo_labels(manifest, recognizer, tmp_path / "x.jsonl", min_confidence=2.0)
    assert not list(tmp_path.iterdir())
