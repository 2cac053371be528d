"""The recipe for GRID: what it needs, what it reports, and that it runs from clips to figures."""

import io
import json
import shutil
from pathlib import Path

import pytest
from rich.console import Console

from avtlm import systems
from avtlm.data.manifest import read_manifest
from avtlm.transcribe import transcribe
from demos.grid import NEEDED, Grid, main
from demos.quickstart import PLANS, Quickstart
from preprocess.corpora.grid import WORDS


def quiet() -> Console:
    return Console(file=io.StringIO(), width=200)


def test_it_says_when_the_quickstart_has_not_been_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("demos.grid.restart_tuned", lambda module, arguments: None)
    assert main(["--root", str(tmp_path), "--quickstart", str(tmp_path / "none"), "--out", str(tmp_path / "out")]) == 1
    assert "run the quickstart first (make quickstart)" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_the_report_tells_talkers_apart(tmp_path: Path) -> None:
    for name in NEEDED:
        path = tmp_path / "quickstart" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    run = Grid(tmp_path, tmp_path / "quickstart", tmp_path / "out", quiet())
    cells = {
        "utterances": 100,
        "wer": {"a": {"clean": 4.0, "0": 50.0}, "v": {"clean": 20.0, "0": 20.0}, "av": {"clean": 3.0, "0": 12.0}},
        "interval_95": {m: {"clean": [1.0, 9.0], "0": [8.0, 60.0]} for m in ("a", "v", "av")},
    }
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "evaluation.json").write_text(json.dumps({"talker": cells, "others": {**cells, "utterances": 21}}))
    report = json.loads(run.report().read_text())
    assert report["wer"] == cells["wer"]
    assert report["groups"]["others"]["utterances"] == 21
    assert (tmp_path / "out" / "wer_against_snr.png").exists()
    assert isinstance(run.console.file, io.StringIO)
    shown = " ".join(run.console.file.getvalue().split())  # titles are wrapped
    assert "100 held-out sentences of s1" in shown
    assert "21 clips of other talkers" in shown


def code(sentence: str) -> str:
    """The name that GRID would give a sentence."""
    letters = []
    for word, table in zip(sentence.split(), WORDS, strict=True):
        letters.append(next(letter for letter, full in table.items() if full == word))
    return "".join(letters)


@pytest.mark.slow
def test_from_clips_to_figures(tmp_path: Path) -> None:
    """The synthetic talking heads speak GRID's grammar, so they can play its talkers."""
    quickstart = tmp_path / "quickstart"
    Quickstart(quickstart, PLANS["smoke"], 1, quiet()).run()
    corpus = read_manifest(quickstart / "corpus" / "manifest.jsonl")
    talkers = {name: f"s{number}" for number, name in enumerate(sorted({row.speaker or "" for row in corpus}), 3)}
    for row in corpus:
        target = tmp_path / "grid" / talkers[row.speaker or ""] / f"{code(row.transcript or '')}.mp4"
        target.parent.mkdir(parents=True, exist_ok=True)
        source = corpus.path(row.video)
        assert source is not None
        shutil.copy(source, target)
    # One talker with enough clips to train on: those of all training voices.
    for talker in ("s6", "s7", "s8"):
        for clip in sorted((tmp_path / "grid" / talker).glob("*.mp4")) if (tmp_path / "grid" / talker).exists() else []:
            shutil.move(clip, tmp_path / "grid" / "s3" / clip.name)
    run = Grid(tmp_path / "grid", quickstart, tmp_path / "out", quiet(), talker="s3", steps=6)
    # So few clips would all be held out; keep some for training.
    run.read()
    rows = [json.loads(line) for line in (tmp_path / "out" / "clips" / "manifest.jsonl").read_text().splitlines()]
    own = [row for row in rows if row.get("speaker") == "s3"]
    for number, row in enumerate(own):
        row["split"] = ("test", "valid", "train", "train")[number % 4]
    (tmp_path / "out" / "clips" / "manifest.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    run.read = lambda: None  # type: ignore[method-assign]
    report = json.loads(run.run().read_text())
    assert list(report["wer"]) == ["a", "v", "av"]
    assert list(report["wer"]["av"]) == ["clean", "10", "5", "0", "-5", "-10"]
    assert set(report["groups"]) == {"talker", "others"}
    assert list(report["seconds"]) == ["clips", "lips", "units", "pretrain", "finetune", "evaluation", "total"]
    assert systems.load(run.model).geometry == "avhubert"
    clip = next((tmp_path / "grid" / "s3").glob("*.mp4"))
    assert transcribe([clip], run.model)[0].text is not None
