"""`avtlm export` prints how far every graph is off, and `avtlm transcribe --int8` opens the model with 8-bit weights."""

import json
from pathlib import Path

import pytest

from avtlm import cli
from avtlm.data.media import write_wav
from avtlm.export import write
from avtlm.export.write import Exported, Graph
from avtlm.nn import int8
from tests import made_media
from tests.made_model import save_tiny_recognizer
from tests.test_cli import failure


def stand_in(monkeypatch: pytest.MonkeyPatch) -> list[tuple[object, ...]]:
    """What the verb asks of the library; exporting for real has tests of its own."""
    asked: list[tuple[object, ...]] = []

    def export(*given: object) -> Exported:
        asked.append(given)
        graphs = {"ctc": Graph("ctc.onnx", {}, ["logits"], 2e-7, 0.01 if given[3] else None)}
        return Exported(Path(str(given[1])), "onnx", "int8" if given[3] else "float32", 18, graphs, bytes=2_500_000)

    monkeypatch.setattr(write, "export", export)
    return asked


def test_differences_and_sizes_are_printed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    asked = stand_in(monkeypatch)
    assert cli.main(["export", "model", "-o", "out", "--int8"]) == 0
    assert asked == [("model", "out", "onnx", True, 18)]
    printed = capsys.readouterr().out
    assert "ctc.onnx             differs by 2.0e-07, with 8-bit weights 1.0e-02\n" in printed
    assert printed.endswith("largest difference 2.0e-07, 2.5 MB\nmodel: out\n")


def test_figures_as_json(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    stand_in(monkeypatch)
    assert cli.main(["export", "model", "-o", "out", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["format"], found["opset"], found["weights"], found["bytes"]) == ("onnx", 18, "float32", 2_500_000)
    assert found["graphs"] == {"ctc": {"difference": 2e-7, "int8": None}}


def test_an_export_that_cannot_be_is_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "is not a folder" in failure(capsys, "export", str(tmp_path / "none"), "-o", str(tmp_path / "out"))


def test_transcribing_with_eight_bit_weights(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    save_tiny_recognizer(tmp_path / "model")
    write_wav(tmp_path / "clip.wav", made_media.chirps(1.0))
    narrowed: list[bool] = []
    forward = int8.Int8Linear.forward

    def seen(layer: int8.Int8Linear, x: object) -> object:
        narrowed.append(True)
        return forward(layer, x)  # type: ignore[arg-type]

    monkeypatch.setattr(int8.Int8Linear, "forward", seen)
    given = ["transcribe", str(tmp_path / "clip.wav"), "--modality", "a", "--model", str(tmp_path / "model")]
    assert cli.main(given) == 0
    assert not narrowed
    wide = capsys.readouterr().out
    assert cli.main([*given, "--int8"]) == 0
    assert narrowed
    assert capsys.readouterr().out.strip()
    assert wide.strip()
    assert "is no export; make one" in failure(capsys, *given, "--backend", "onnx")
