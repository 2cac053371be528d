"""ONNX files: written from traced programs, given 8-bit weights, joined to one file of weights, and run by ONNX Runtime on the CPU.

What is unusual here:
- Graphs of one model hold the same weights (three encoders, three parts of a decoder). They lie in ``weights.bin`` once; equal bytes are
  found by their hash. The graphs themselves are small.
- 8-bit weights are those of matrix products alone, one scale for each output; what they are multiplied with is rounded to 8 bits as it
  comes (dynamic quantisation). Weights use 7 of the bits, since 16-bit sums of processors without VNNI instructions would overflow with 8:
  results are the same everywhere. Convolutions stay as they are: ONNX Runtime has no fast ones for 8 bits on a CPU.
"""

import contextlib
import hashlib
import logging
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.export import ExportedProgram

from avtlm.checkpoint import CheckpointError
from avtlm.errors import needs
from avtlm.export.parts import Part

WEIGHTS = "weights.bin"
LEAST = 1024  # bytes; smaller tensors stay in the graph
ALIGNMENT = 64
EXTRA = "export"


def write(program: ExportedProgram, part: Part, path: Path, opset: int) -> None:
    """Translate a traced program, with the part's names for inputs, outputs and sizes that vary.

    Raises:
        MissingExtra: onnx or onnxscript is not installed.
    """
    with needs(EXTRA, "onnx", "writing ONNX"):
        import onnx
    with needs(EXTRA, "onnxscript", "writing ONNX"):
        import onnxscript  # noqa: F401
    with _quiet():
        made: Any = torch.onnx.export(
            program,
            input_names=list(part.inputs),
            output_names=list(part.outputs),
            opset_version=opset,
            dynamo=True,
            verbose=False,
        )
    made.save(str(path), external_data=True)
    graph = onnx.load(str(path), load_external_data=False)
    _name_sizes(graph, part)
    _strip(graph)
    onnx.save(graph, str(path))


def quantise(path: Path) -> None:
    """Give the matrix products of a graph 8-bit weights, in place.

    Raises:
        MissingExtra: onnx or onnxruntime is not installed.
    """
    with needs(EXTRA, "onnx", "8-bit weights"):
        import onnx
    with needs(EXTRA, "onnxruntime", "8-bit weights"):
        from onnxruntime.quantization import QuantType, quantize_dynamic
    target = path.with_name(f"int8-{path.name}")
    with _quiet():
        quantize_dynamic(
            str(path),
            str(target),
            op_types_to_quantize=["MatMul"],
            per_channel=True,
            reduce_range=True,
            weight_type=QuantType.QInt8,
            use_external_data_format=True,
            extra_options={"MatMulConstBOnly": True, "DefaultTensorType": onnx.TensorProto.FLOAT},
        )
    graph = onnx.load(str(target))
    path.unlink()
    path.with_name(f"{path.name}.data").unlink(missing_ok=True)
    onnx.save(graph, str(path), save_as_external_data=True, location=f"{path.name}.data")


def gather(paths: Sequence[Path], folder: Path) -> None:
    """Copy graphs into a folder, with all their weights in one file, equal ones once."""
    with needs(EXTRA, "onnx", "writing ONNX"):
        import onnx

    places: dict[bytes, tuple[int, int]] = {}
    with open(folder / WEIGHTS, "wb") as weights:
        for path in paths:
            graph = onnx.load(str(path))
            for tensor in graph.graph.initializer:
                content = tensor.raw_data
                if len(content) < LEAST:
                    continue
                key = hashlib.sha256(content).digest()
                if key not in places:
                    weights.write(b"\0" * (-weights.tell() % ALIGNMENT))
                    places[key] = (weights.tell(), len(content))
                    weights.write(content)
                offset, length = places[key]
                tensor.ClearField("raw_data")
                tensor.data_location = onnx.TensorProto.EXTERNAL
                for name, value in (("location", WEIGHTS), ("offset", offset), ("length", length)):
                    entry = tensor.external_data.add()
                    entry.key, entry.value = name, str(value)
            onnx.save(graph, str(folder / path.name))


class Session:
    """A graph that runs: tensors on the CPU in, in the order of its inputs, tensors out.

    Args:
        path: of the file.
        outputs: their names, in the order that is wanted.

    Raises:
        CheckpointError: the file is missing or damaged.
        MissingExtra: onnxruntime is not installed.
    """

    def __init__(self, path: Path, outputs: Sequence[str]) -> None:
        with needs(EXTRA, "onnxruntime", "running ONNX graphs"):
            import onnxruntime
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3  # errors
        options.intra_op_num_threads = torch.get_num_threads()
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # PyTorch's threads want the cores between two calls
        try:
            self.session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # the classes of the runtime's errors are no part of its interface
            told = str(error).splitlines()[0] if str(error) else type(error).__name__
            raise CheckpointError(f"{path} is missing, damaged or no ONNX graph ({told}); export the model again.") from error
        self.inputs = [each.name for each in self.session.get_inputs()]
        self.outputs = list(outputs)

    def __call__(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        feeds = {name: value.detach().contiguous().numpy() for name, value in zip(self.inputs, inputs, strict=True)}
        return tuple(torch.from_numpy(value) for value in self.session.run(self.outputs, feeds))


def opened(path: Path, outputs: Sequence[str]) -> Session:
    """See Session."""
    return Session(path, outputs)


def _name_sizes(graph: Any, part: Part) -> None:
    """Call sizes that vary by the part's names in place of the tracer's."""
    names: dict[str, str] = {}
    for value in graph.graph.input:
        for axis, name in part.inputs[value.name].items():
            names[value.type.tensor_type.shape.dim[axis].dim_param] = name
    for value in (*graph.graph.input, *graph.graph.output, *graph.graph.value_info):
        for size in value.type.tensor_type.shape.dim:
            if size.dim_param in names:
                size.dim_param = names[size.dim_param]


def _strip(graph: Any) -> None:
    """Leave out where each node comes from: it takes more room than the graph, and names folders of whoever exported it."""
    parts = [graph.graph, *graph.graph.node, *graph.graph.initializer, *graph.graph.value_info, *graph.graph.input, *graph.graph.output]
    for part in (graph, *parts, *graph.functions, *(node for function in graph.functions for node in function.node)):
        part.ClearField("doc_string")
        part.ClearField("metadata_props")


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without what exporters say about their own insides."""
    names = ("torch.onnx", "onnxscript", "onnx_ir")
    before = [logging.getLogger(name).level for name in names]
    disabled = logging.root.manager.disable
    for name in names:
        logging.getLogger(name).setLevel(logging.ERROR)
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(disabled)
        for name, level in zip(names, before, strict=True):
            logging.getLogger(name).setLevel(level)
