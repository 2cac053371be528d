"""`avtlm evaluate`: tables and JSON over inputs, noises and corruptions, and one sentence for wrong use."""

import json
from pathlib import Path

import pytest

from avtlm import __version__, cli
from tests.test_cli import failure


def test_evaluate_prints_a_table_and_writes_json(model: str, corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = str(tmp_path / "wer.json")
    arguments = ["evaluate", str(corpus), "--model", model, "--modality", "a", "v", "av", "--snr", "0", "-5", "--out", out]
    assert cli.main(arguments) == 0
    table = capsys.readouterr().out
    assert "audio-visual" in table
    assert "-5 dB" in table
    found = json.loads(Path(out).read_text())
    assert set(found["wer"]) == {"a", "v", "av"}
    assert set(found["wer"]["a"]) == {"clean", "0", "-5"}
    assert found["wer"]["v"]["0"] == found["wer"]["v"]["clean"]
    assert (found["utterances"], found["words"]) == (5, 15)


def test_evaluate_takes_kinds_of_noise_and_ratios_as_lists(
    model: str, corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, plot = str(tmp_path / "wer.json"), tmp_path / "wer.png"
    arguments = ["evaluate", str(corpus), "--model", model, "--modality", "a", "av", "--noise", "babble,white", "--snr", "-10,0,5"]
    assert cli.main([*arguments, "--out", out, "--plot", str(plot)]) == 0
    report = json.loads(Path(out).read_text())
    assert report["noise"] == ["babble", "white"]
    assert list(report["by_noise"]["white"]["wer"]["a"]) == ["clean", "-10", "0", "5"]
    assert plot.read_bytes().startswith(b"\x89PNG")
    table = capsys.readouterr().out
    assert all(word in table for word in ("babble", "white", "mean", "-10 dB"))
    assert cli.main([*arguments[:3], model, "--snr=-5,0", "--plot", str(plot), "--json"]) == 0
    assert list(json.loads(capsys.readouterr().out)["wer"]["av"]) == ["clean", "-5", "0"]


def test_evaluate_corrupts_pictures_and_keeps_its_cells(
    model: str, corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, cells = str(tmp_path / "wer.json"), tmp_path / "cells"
    arguments = ["evaluate", str(corpus), "--model", model, "--modality", "a", "v", "--visual", "blur=2", "offset", "--cells", str(cells)]
    assert cli.main([*arguments, "--snr", "0", "--out", out, "--plot", str(tmp_path / "wer.png")]) == 0
    table = capsys.readouterr().out
    assert "blur: standard deviation of the blur (sound: clean)" in table
    report = json.loads(Path(out).read_text())
    assert list(report["visual"]["offset"]["wer"]["v"]) == ["-400", "-200", "-80", "0", "80", "200", "400"]
    assert report["origin"]["versions"]["avtlm"] == __version__
    assert sorted(path.name for path in tmp_path.glob("*.png")) == ["wer.png", "wer_visual.png"]
    assert len(list(cells.iterdir())) == 2 + 1 + 1 + 6  # clean sound and lips; noise; blur; offsets
    assert cli.main([*arguments, "--json", "--visual-snr", "0", "--plot", str(tmp_path / "lips.png")]) == 0
    assert json.loads(capsys.readouterr().out)["visual_sound"] == "babble, 0 dB"
    assert (tmp_path / "lips.png").read_bytes().startswith(b"\x89PNG")
    assert "'fog' is unknown" in failure(capsys, *arguments[:4], "--visual", "fog")


def test_noise_without_ratios_and_ratios_that_are_none_are_wrong_use(model: str, corpus: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["evaluate", str(corpus), "--model", model]
    assert "--noise and --noise-dir need signal-to-noise ratios" in failure(capsys, *arguments, "--noise", "white", code=2)
    with pytest.raises(SystemExit) as stop:
        cli.main([*arguments, "--snr", "loud"])
    assert stop.value.code == 2
    assert "'loud' is not a list of ratios in dB" in capsys.readouterr().err
    assert "give the folder that has music/test.tsv" in failure(capsys, *arguments, "--snr", "0", "--noise", "babble,music")


def test_evaluate_of_a_split_that_is_not_there_is_one_sentence(model: str, corpus: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "no utterance of split valid" in failure(capsys, "evaluate", str(corpus), "--model", model, "--split", "valid")
