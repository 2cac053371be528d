"""An exported folder is a model: all searches give the texts, times and scores of the model that it was made from."""

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

import avtlm
from avtlm import cli, systems
from avtlm.checkpoint import CheckpointError
from avtlm.data.batching import Batch, pad
from avtlm.data.media import write_wav
from avtlm.decoding.settings import DecodingConfig
from avtlm.export.exported import ExportedModel, open_exported
from avtlm.export.write import Exported, export
from avtlm.transcriber import Transcriber
from tests import made_media
from tests.export.made_models import MODELS, save

SEARCHES = (
    DecodingConfig("ctc_greedy"),
    DecodingConfig("ctc_beam", beam=4),
    DecodingConfig("attention", beam=1),
    DecodingConfig("attention", beam=3, ctc_weight=0.3),
    DecodingConfig("joint", beam=3, ctc_weight=0.4, nbest=2),
)


@pytest.fixture
def folder(exported: Exported) -> Path:
    """A model folder ``model`` and its graphs, ``graphs``."""
    return exported.folder.parent


def frames(batch: int = 3) -> Batch:
    """Sound and lips of unlike lengths; the second clip has no lips."""
    draw = torch.Generator().manual_seed(3)
    heard, seen = [19, 26, 30][:batch], [19, 0, 28][:batch]
    audio, audio_lengths = pad([torch.randn(count, 104, generator=draw) for count in heard])
    video, video_lengths = pad([torch.randint(0, 256, (count, 88, 88), generator=draw, dtype=torch.uint8) for count in seen])
    return Batch(tuple("abc"[:batch]), "recognition", audio, audio_lengths, video, video_lengths)


def assert_same(model: Transcriber, other: Transcriber, batch: Batch, decoding: DecodingConfig | None = None) -> None:
    """Texts, times, scores and confidences."""
    wanted, found = model.search(batch, decoding), other.search(batch, decoding)
    for rows in zip(wanted, found, strict=True):
        assert [each.tokens for each in rows[0]] == [each.tokens for each in rows[1]]
        if model.heads.ctc is not None or model.heads.transducer is not None:
            assert [each.timesteps for each in rows[0]] == [each.timesteps for each in rows[1]]
        else:  # where a decoder of random weights looks is all but the same for all tokens; rounding decides
            assert [len(each.timesteps) for each in rows[0]] == [len(each.timesteps) for each in rows[1]]
        for first, second in zip(*rows, strict=True):
            assert second.score == pytest.approx(first.score, abs=1e-4)
            assert second.token_scores == pytest.approx(first.token_scores, abs=1e-4)
    assert any(each.tokens for row in wanted for each in row), "nothing is written, which proves little"


@pytest.mark.parametrize("decoding", SEARCHES, ids=lambda each: f"{each.method}-{each.beam}-{each.ctc_weight}")
def test_every_search_gives_the_same(folder: Path, decoding: DecodingConfig) -> None:
    eager, graphs = systems.load(folder / "model"), open_exported(folder / "graphs")
    assert_same(eager, graphs, frames(), decoding)


def test_modalities_and_single_clips_give_the_same_by_the_search_of_the_folder(folder: Path) -> None:
    eager, graphs = systems.load(folder / "model"), open_exported(folder / "graphs")
    assert graphs.decoding == eager.decoding
    for batch in (frames(1), frames(1).only("a"), frames(1).only("v"), frames().only("a")):
        assert_same(eager, graphs, batch)
    with pytest.raises(ValueError, match="a: there is nothing that this model takes in, which is sound or lips"):
        graphs.encode(dataclasses.replace(frames(1), audio=None, video=None))


def test_only_the_graphs_that_are_needed_are_opened(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "graphs", tmp_path / "graphs")
    (tmp_path / "graphs" / "encoder_av.onnx").write_bytes(b"no graph")
    model = open_exported(tmp_path / "graphs")
    model.transcribe_batch(frames(1).only("a"))
    with pytest.raises(CheckpointError, match=r"encoder_av.onnx is missing, damaged or no ONNX graph"):
        model.transcribe_batch(frames(1))


def test_transcribe_takes_an_exported_folder(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_wav(tmp_path / "clip.wav", made_media.chirps(1.0))
    words = []
    for name, choice in (("model", []), ("graphs", []), ("graphs", ["--backend", "onnx"])):
        given = ["transcribe", str(tmp_path / "clip.wav"), "--modality", "a", "--model", str(folder / name), *choice, "--json"]
        assert cli.main(given) == 0
        words.append(json.loads(capsys.readouterr().out)["words"])
    confidences = [[word.pop("confidence") for word in found] for found in words]
    assert cli.main(["info", str(folder / "graphs")]) == 0
    assert "onnx" in capsys.readouterr().out
    assert words[0] == words[1] == words[2] != []
    assert confidences[1] == confidences[2] == pytest.approx(confidences[0], abs=2e-3)
    sound = np.random.default_rng(0).normal(0, 0.1, 16000)
    found = [avtlm.transcribe(sound, model=folder / name, rate=16000, backend=backend).text for name, backend in
             (("model", "torch"), ("graphs", "onnx"))]  # fmt: skip
    assert found[0] == found[1]
    model = avtlm.load(folder / "graphs")
    assert isinstance(model, ExportedModel)
    with pytest.raises(ValueError, match="save: this model has 8-bit weights, or was exported"):
        avtlm.save(model, tmp_path / "again")


@pytest.mark.parametrize(
    ("name", "choice", "message"),
    [
        ("model", {"backend": "onnx"}, "is no export; make one: avtlm export"),
        ("graphs", {"backend": "torch"}, "holds graphs alone"),
        ("graphs", {"weights": "int8"}, r"has others; export again: avtlm export MODEL -o DIR --int8"),
        ("model", {"backend": "tensorrt"}, "choose one of torch, onnx"),
        ("model", {"weights": "int4"}, "choose one of float32, int8"),
    ],
)
def test_another_backend_or_other_weights_than_there_are_are_refused(folder: Path, name: str, choice: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        avtlm.load(folder / name, **choice)
    with pytest.raises(ValueError, match=message):
        avtlm.transcribe(np.zeros(16000), model=folder / name, rate=16000, **choice)


def test_a_damaged_export_is_said(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "graphs", tmp_path / "graphs")
    (tmp_path / "graphs" / "ctc.onnx").unlink()
    with pytest.raises(CheckpointError, match=r"ctc.onnx is missing; copy the whole folder again"):
        open_exported(tmp_path / "graphs")
    about = json.loads((folder / "graphs" / "export.json").read_text())
    about["graphs"]["ctc"]["file"] = "../ctc.onnx"
    (tmp_path / "graphs" / "export.json").write_text(json.dumps(about))
    with pytest.raises(CheckpointError, match=r"export.json is missing or damaged"):
        open_exported(tmp_path / "graphs")
    (tmp_path / "graphs" / "export.json").write_text(json.dumps({"format": "torch_export", "start": [], "graphs": {}}))
    with pytest.raises(CheckpointError, match=r"programs of torch\.export, which only PyTorch itself opens"):
        open_exported(tmp_path / "graphs")


def sound() -> Batch:
    """Waveforms of unlike lengths."""
    draw = torch.Generator().manual_seed(4)
    audio, lengths = pad([0.3 * torch.randn(samples, generator=draw) for samples in (9000, 14000, 11000)])
    return Batch(tuple("abc"), "recognition", audio=audio, audio_lengths=lengths)


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in MODELS if name != "audio_visual"])
def test_every_kind_of_model_writes_the_same(name: str, tmp_path: Path) -> None:
    folder = save(MODELS[name](), tmp_path / "model")
    export(folder, tmp_path / "graphs")
    model = systems.load(folder)
    assert_same(model, open_exported(tmp_path / "graphs"), frames() if name == "experts" else sound())
