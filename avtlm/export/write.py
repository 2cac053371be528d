"""Models as graphs that run without this library: ONNX files, or programs of torch.export, in a folder with all that belongs to them.

Every graph is compared with the model as it is written down, at sizes other than those it was traced at; what differs by more than
``TOLERANCE`` is not left behind. A folder holds config.yaml, decoding.yaml and the vocabulary as the model's own does, the graphs, and
``export.json``, which names them, their inputs and how far they are off. ONNX graphs share one file of weights.
"""

import json
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from avtlm import __version__, checkpoint, systems
from avtlm.checkpoint import CARD, WEIGHTS
from avtlm.export.folder import DESCRIPTION
from avtlm.export.parts import CHECKED, TRACED, Part, for_export, parts_of
from avtlm.model_card import licence_of, read_card
from avtlm.transcriber import Transcriber

FORMATS = ("onnx", "torch_export")
OPSET = 18
TOLERANCE = 1e-4  # of the largest value, where that is above 1


class ExportError(ValueError):
    """A model cannot be exported, or its graphs do not agree with it; the message says which one and by how much."""


@dataclass(frozen=True)
class Graph:
    """One file.

    Attributes:
        file: its name.
        inputs: for each its type and its shape, in which names stand for sizes that vary.
        outputs: names.
        difference: the largest from the model at any of the sizes tried, relative to the largest value where that is above 1.
        int8_difference: the same of 8-bit weights; None where they are not.
    """

    file: str
    inputs: dict[str, dict[str, Any]]
    outputs: list[str]
    difference: float
    int8_difference: float | None = None


@dataclass(frozen=True)
class Exported:
    """What an export has written.

    Attributes:
        format: ``onnx`` or ``torch_export``.
        weights: ``float32`` or ``int8``.
        opset: of ONNX; None for programs.
        start: the labels that a transducer goes by before it has said any; empty without one.
        bytes: of the folder.
    """

    folder: Path
    format: str
    weights: str
    opset: int | None
    graphs: dict[str, Graph]
    start: list[int] = field(default_factory=list)
    bytes: int = 0

    @property
    def difference(self) -> float:
        """The largest of all graphs, before their weights are 8 bits wide."""
        return max(graph.difference for graph in self.graphs.values())


def export(model: str | Path, out: str | Path, format: str = "onnx", int8: bool = False, opset: int = OPSET) -> Exported:
    """Write a model that writes text as graphs.

    Args:
        model: its folder: a recogniser, or a whole model for transcription.
        out: the new folder, replaced atomically if it is an older export.
        format: ``onnx``, or ``torch_export`` for programs that PyTorch opens without this library.
        int8: 8-bit weights of linear layers (onnx only). What this costs is not bounded, but said.
        opset: of ONNX.

    Raises:
        CheckpointError: the model folder is incomplete, or ``out`` is something else than an export.
        ExportError: a graph cannot be traced, or differs from the model by more than TOLERANCE; nothing is written then.
        MissingExtra: ONNX without the extra ``export``.
        ValueError: an unknown format, 8 bits without ONNX, an older opset, or a model that writes no text.
    """
    if format not in FORMATS:
        raise ValueError(f"format: {format!r} is unknown; choose one of {', '.join(FORMATS)}.")
    if int8 and format != "onnx":
        raise ValueError("int8: only graphs of onnx have 8-bit weights; choose the format onnx, or avtlm.load(..., weights='int8').")
    if opset < OPSET:
        raise ValueError(f"opset: {opset}; what PyTorch writes is of opset {OPSET} or later, so give at least that.")
    folder = checkpoint.check(model)
    settings = checkpoint.load_config(folder)
    whole: Transcriber = systems.load(folder)
    with checkpoint.replace_folder(out, DESCRIPTION) as temporary:
        for path in sorted(folder.iterdir()):
            if path.is_file() and path.name not in (WEIGHTS, CARD):
                (temporary / path.name).write_bytes(path.read_bytes())
        graphs = write_graphs(whole, for_export(systems.load(folder)), temporary, format, int8, opset)
        start = [] if whole.heads.transducer is None else whole.heads.transducer.initial_state(1)[0].tolist()
        found = Exported(Path(out), format, "int8" if int8 else "float32", opset if format == "onnx" else None, graphs, start)
        about: dict[str, Any] = {"format": format, "opset": found.opset, "weights": found.weights, "start": start, "tolerance": TOLERANCE}
        about |= {"system": settings["system"], "avtlm": __version__, "torch": torch.__version__}
        about["graphs"] = {name: asdict(graph) for name, graph in graphs.items()}
        (temporary / DESCRIPTION).write_text(json.dumps(about, indent=2) + "\n", encoding="utf-8")
        card = _card(Path(out).resolve().name, folder, found, str(settings["system"]))
        (temporary / CARD).write_text(card, encoding="utf-8")
        size = sum(path.stat().st_size for path in temporary.iterdir())
    return Exported(found.folder, format, found.weights, found.opset, graphs, start, size)


def write_graphs(
    model: Transcriber, traced: Transcriber, folder: Path, format: str, int8: bool = False, opset: int = OPSET
) -> dict[str, Graph]:
    """Trace, write and compare every graph of a model; see `export`. ``traced`` is the same model again, see `for_export`."""
    from avtlm.export import onnx_files, programs

    copied = {part.name: part for part in parts_of(traced)}
    graphs: dict[str, Graph] = {}
    with tempfile.TemporaryDirectory(dir=folder) as work:
        for part in parts_of(model):
            inputs = part.make(TRACED, torch.Generator().manual_seed(0))
            program = _traced(copied[part.name], inputs)
            file = f"{part.name}.{'onnx' if format == 'onnx' else 'pt2'}"
            eight = None
            if format == "onnx":
                onnx_files.write(program, part, Path(work) / file, opset)
                difference = compare(part, onnx_files.opened(Path(work) / file, part.outputs))
                if int8:
                    onnx_files.quantise(Path(work) / file)
                    eight = compare(part, onnx_files.opened(Path(work) / file, part.outputs), bound=None)
            else:
                programs.write(program, folder / file)
                difference = compare(part, programs.opened(folder / file))
            graphs[part.name] = Graph(file, _described(part, inputs), list(part.outputs), difference, eight)
        if format == "onnx":
            onnx_files.gather([Path(work) / graph.file for graph in graphs.values()], folder)
    if format == "onnx":  # once more, with the weights that they share
        for part in parts_of(model):
            compare(part, onnx_files.opened(folder / graphs[part.name].file, part.outputs), None if int8 else TOLERANCE)
    return graphs


def compare(part: Part, run: Callable[..., tuple[Tensor, ...]], bound: float | None = TOLERANCE) -> float:
    """The largest difference between a graph and the model over all sizes of CHECKED, relative to the largest value where that is above 1.

    Args:
        run: the graph, tensors in and tensors out.
        bound: the most that is allowed; None allows anything that is a number.

    Raises:
        ExportError: a graph that does not run at some size, gives other shapes or whole numbers, or is further off.
    """
    worst = 0.0
    for number, sizes in enumerate(CHECKED):
        inputs = part.make(sizes, torch.Generator().manual_seed(number + 1))
        with torch.inference_mode():
            wanted = part.valid(part.module(*inputs))
        try:
            found = part.valid(run(*inputs))
        except Exception as error:  # whatever a runtime throws: a size that the graph was not made for
            raise ExportError(f"{part.name}: the exported graph does not run with {_told(sizes)}: {_first_line(error)}") from error
        for name, expected, value in zip(part.outputs, wanted, found, strict=True):
            if value.shape != expected.shape or (not expected.is_floating_point() and not torch.equal(value.long(), expected.long())):
                raise ExportError(f"{part.name}: the exported graph gives another {name} than the model with {_told(sizes)}.")
            if expected.is_floating_point():
                scale = max(1.0, float(expected.abs().max())) if expected.numel() else 1.0
                difference = float((value - expected).abs().max()) / scale if expected.numel() else 0.0
                if not difference <= (bound if bound is not None else float("inf")):
                    raise ExportError(
                        f"{part.name}: {name} of the exported graph differs from the model by {difference:.1e} with {_told(sizes)}, more "
                        f"than {bound or 0:.0e}; nothing was written."
                    )
                worst = max(worst, difference)
    return worst


def _traced(part: Part, inputs: tuple[Tensor, ...]) -> torch.export.ExportedProgram:
    shapes = tuple({axis: torch.export.Dim.DYNAMIC for axis in axes} for axes in part.inputs.values())
    try:
        with torch.no_grad():
            return torch.export.export(part.module, inputs, dynamic_shapes=shapes, strict=False)
    except Exception as error:  # whatever the tracer throws
        raise ExportError(f"{part.name}: this part of the model cannot be traced by torch.export: {_first_line(error)}") from error


def _described(part: Part, inputs: tuple[Tensor, ...]) -> dict[str, dict[str, Any]]:
    """Types and shapes of the inputs."""
    found = {}
    for (name, axes), value in zip(part.inputs.items(), inputs, strict=True):
        shape: list[str | int] = [axes.get(axis, size) for axis, size in enumerate(value.shape)]
        found[name] = {"type": str(value.dtype).removeprefix("torch."), "shape": shape}
    return found


def _card(name: str, source: Path, found: Exported, system: str) -> str:
    """README.md: what the graphs take and give."""
    kind = "ONNX graphs" if found.format == "onnx" else "programs of torch.export"
    lines = [
        "---",
        f"license: {licence_of(read_card(source))}",
        "---",
        f"# {name}",
        "",
        f"A {system} model of avtlm, as {kind} ({found.weights} weights{f', opset {found.opset}' if found.opset else ''}).",
        "",
    ]
    if found.format == "onnx":
        lines += ["    avtlm transcribe VIDEO --model FOLDER", ""]
    lines += ["| file | takes | gives |", "|---|---|---|"]
    for graph in found.graphs.values():
        takes = "; ".join(f"{each} {about['type']} ({', '.join(map(str, about['shape']))})" for each, about in graph.inputs.items())
        lines.append(f"| `{graph.file}` | {takes} | {', '.join(graph.outputs)} |")
    lines += ["", "Names in brackets are sizes that vary. Keep all files together.", ""]
    return "\n".join(lines)


def _told(sizes: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in sizes.items())


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0] if lines else ''}"
