"""Graphs agree with the model at sizes they were not made at, and a folder that does not agree is never left."""

import json
from pathlib import Path

import onnx
import pytest
import torch
from torch import nn

import avtlm
from avtlm import systems
from avtlm.checkpoint import CheckpointError
from avtlm.export import programs, write
from avtlm.export.onnx_files import Session, quantise
from avtlm.export.parts import CHECKED, TRACED, Part, Sizes, for_export, parts_of
from avtlm.export.write import Exported, ExportError, compare, export
from tests.export.made_models import MODELS, save, waveform


def test_every_part_of_an_audio_visual_recogniser_agrees_at_other_sizes(exported: Exported) -> None:
    names = {"encoder_a", "encoder_v", "encoder_av", "ctc", "memory", "step", "look"}
    assert set(exported.graphs) == names
    assert exported.difference < 1e-5
    assert {path.name for path in exported.folder.iterdir()} == {
        *(f"{name}.onnx" for name in names), "weights.bin", "config.yaml", "vocabulary.json", "export.json", "README.md"
    }  # fmt: skip


def test_the_folder_says_what_each_graph_takes(exported: Exported) -> None:
    about = json.loads((exported.folder / "export.json").read_text())
    assert (about["format"], about["opset"], about["weights"]) == ("onnx", 18, "float32")
    video = about["graphs"]["encoder_av"]["inputs"]["video"]
    assert video == {"type": "uint8", "shape": ["utterances", "frames", 88, 88]}
    graph = onnx.load(str(exported.folder / "encoder_av.onnx"), load_external_data=False)
    found = {each.name: [size.dim_param or size.dim_value for size in each.type.tensor_type.shape.dim] for each in graph.graph.input}
    assert found["video"] == video["shape"]
    assert [(each.domain, each.version) for each in graph.opset_import if not each.domain] == [("", 18)]
    assert "encoder_av.onnx" in (exported.folder / "README.md").read_text()


def test_graphs_share_their_weights_and_name_no_folders(exported: Exported, model: Path) -> None:
    weights = (exported.folder / "weights.bin").stat().st_size
    assert weights < 2.5 * (model / "weights.safetensors").stat().st_size  # three encoders, and a decoder three times
    for path in exported.folder.glob("*.onnx"):
        assert b".py" not in path.read_bytes(), path.name


def test_eight_bit_weights_are_smaller_and_close(model: Path, exported: Exported, tmp_path: Path) -> None:
    part = {each.name: each for each in parts_of(systems.load(model))}["step"]
    graph = onnx.load(str(exported.folder / "step.onnx"))
    onnx.save(graph, str(tmp_path / "step.onnx"))
    quantise(tmp_path / "step.onnx")
    assert 1e-4 < compare(part, Session(tmp_path / "step.onnx", part.outputs), bound=None) < 0.2
    narrow = onnx.load(str(tmp_path / "step.onnx"))
    assert "MatMulInteger" in {node.op_type for node in narrow.graph.node}
    weights = {each.name for each in narrow.graph.initializer}
    assert "MatMul" not in {node.op_type for node in narrow.graph.node if weights & set(node.input)}


@pytest.mark.slow
def test_an_export_with_eight_bits_says_how_far_it_is_off(model: Path, tmp_path: Path) -> None:
    found = export(model, tmp_path / "narrow", int8=True)
    narrow = [graph.int8_difference for graph in found.graphs.values()]
    assert all(each is not None and each < 0.2 for each in narrow)
    assert max(each or 0.0 for each in narrow) > 1e-4  # or nothing was rounded
    assert (found.difference < 1e-5, found.weights) == (True, "int8")
    assert avtlm.load(tmp_path / "narrow", weights="int8").graphs


def test_a_graph_that_differs_is_refused_and_leaves_nothing(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def off(part: Part, *given: object) -> torch.export.ExportedProgram:
        with torch.no_grad():
            for parameter in part.module.parameters():
                parameter.mul_(1.01)
        return traced(part, *given)  # type: ignore[arg-type]

    traced = write._traced
    monkeypatch.setattr(write, "_traced", off)
    with pytest.raises(ExportError, match=r"encoder_a: encoded of the exported graph differs from the model by .* more than 1e-04"):
        export(model, tmp_path / "out", format="torch_export")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", MODELS)
def test_every_kind_of_model_has_parts_whose_inputs_and_outputs_have_names_of_their_own(name: str) -> None:
    for part in parts_of(MODELS[name]()):
        assert not set(part.inputs) & set(part.outputs), part.name
        inputs = part.make(TRACED, torch.Generator().manual_seed(0))
        with torch.inference_mode():
            assert len(part.module(*inputs)) == len(part.outputs)
        for (given, axes), value in zip(part.inputs.items(), inputs, strict=True):
            fixed = {axis: value.shape[axis] for axis in axes}
            other = part.make(CHECKED[1], torch.Generator().manual_seed(0))[list(part.inputs).index(given)]
            assert all(other.shape[axis] != size for axis, size in fixed.items()), f"{part.name}: {given} is tried at one size only"
            assert [size for axis, size in enumerate(other.shape) if axis not in axes] == [
                size for axis, size in enumerate(value.shape) if axis not in axes
            ]


class Doubled(nn.Module):
    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return 2 * x, torch.tensor(x.shape)


def doubled() -> Part:
    def make(sizes: Sizes, draw: torch.Generator) -> tuple[torch.Tensor, ...]:
        return (torch.randn(sizes["rows"], 2, generator=draw),)

    return Part("doubled", Doubled(), {"x": {0: "rows"}}, ("y", "size"), make)


def test_a_comparison_finds_wrong_values_shapes_numbers_and_sizes_that_do_not_run() -> None:
    part = doubled()
    assert compare(part, part.module) == 0.0
    assert compare(part, lambda x: (2 * x + 1e-3, torch.tensor(x.shape)), bound=None) == pytest.approx(1e-3, rel=0.7)
    with pytest.raises(ExportError, match="differs from the model by"):
        compare(part, lambda x: (2 * x + float("nan"), torch.tensor(x.shape)))
    with pytest.raises(ExportError, match="gives another y than the model with 1 utterances"):
        compare(part, lambda x: (x[:1].repeat(3, 1), torch.tensor(x.shape)))
    with pytest.raises(ExportError, match="gives another size"):
        compare(part, lambda x: (2 * x, torch.tensor(x.shape) + 1))
    with pytest.raises(ExportError, match=r"does not run with 1 utterances, .* RuntimeError: fixed"):
        compare(part, lambda x: (_ for _ in ()).throw(RuntimeError("fixed\nmore")))


def test_programs_of_torch_export_agree_too_and_hold_their_own_weights_alone(tmp_path: Path) -> None:
    part = {each.name: each for each in parts_of(for_export(waveform()))}["ctc"]
    program = write._traced(part, part.make(TRACED, torch.Generator().manual_seed(0)))
    assert "model.transducer.embedding.weight" in program.state_dict
    programs.write(program, tmp_path / "ctc.pt2")
    assert compare(part, programs.opened(tmp_path / "ctc.pt2")) < 1e-5
    assert set(torch.export.load(tmp_path / "ctc.pt2").state_dict) == {"model.ctc.weight", "model.ctc.bias"}
    assert b"recognizer.py" not in (tmp_path / "ctc.pt2").read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("name", MODELS)
def test_every_kind_of_model_exports(name: str, tmp_path: Path) -> None:
    folder = save(MODELS[name](), tmp_path / "model")
    assert export(folder, tmp_path / "graphs").difference < 1e-4
    assert export(folder, tmp_path / "programs", "torch_export").difference < 1e-4


def test_what_cannot_be_exported_is_said(model: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="format: 'tflite' is unknown; choose one of onnx, torch_export"):
        export(model, tmp_path / "out", format="tflite")
    with pytest.raises(ValueError, match="only graphs of onnx have 8-bit weights"):
        export(model, tmp_path / "out", format="torch_export", int8=True)
    with pytest.raises(ValueError, match="opset: 11; what PyTorch writes is of opset 18 or later"):
        export(model, tmp_path / "out", opset=11)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").write_text("all of it")
    with pytest.raises(CheckpointError, match="is not a model folder"):
        export(model, tmp_path / "full")
    with pytest.raises(CheckpointError, match="are missing"):
        export(tmp_path / "full", tmp_path / "out")
