"""The verb `avtlm export`: a model as graphs that run without this library."""

import argparse
import json

from avtlm.verbs import AddVerb
from avtlm.verbs.options import add_json

FORMATS = ("onnx", "torch_export")  # of avtlm.export, which the help does not load


def add_verb(verb: AddVerb) -> None:
    """Add ``export``."""
    added = verb(
        "export",
        _export,
        "write a model as graphs that run without this library: ONNX, or programs of torch.export",
        "Every graph is compared with the model at sizes that it was not made at; if one differs, nothing is written. "
        "`avtlm transcribe --model DIR` takes ONNX. Needs the extra export.",
    )
    added.add_argument("model", metavar="MODEL", help="a model folder: a recogniser, or a whole model for transcription")
    added.add_argument("--out", "-o", metavar="DIR", required=True, help="the new folder")
    added.add_argument("--format", choices=FORMATS, default="onnx", help="what to write (default: onnx)")
    added.add_argument("--int8", action="store_true", help="8-bit weights of linear layers (onnx)")
    added.add_argument("--opset", type=int, default=18, metavar="N", help="of ONNX, from 18 on (default: 18)")
    add_json(added)


def _export(options: argparse.Namespace) -> int:
    from avtlm.export.write import export

    found = export(options.model, options.out, options.format, options.int8, options.opset)
    if options.json:
        graphs = {name: {"difference": graph.difference, "int8": graph.int8_difference} for name, graph in found.graphs.items()}
        about = {"folder": str(found.folder), "format": found.format, "weights": found.weights, "opset": found.opset}
        print(json.dumps({**about, "bytes": found.bytes, "difference": found.difference, "graphs": graphs}, indent=2))
        return 0
    for graph in found.graphs.values():
        narrow = "" if graph.int8_difference is None else f", with 8-bit weights {graph.int8_difference:.1e}"
        print(f"{graph.file:20} differs by {graph.difference:.1e}{narrow}")
    print(f"largest difference {found.difference:.1e}, {found.bytes / 1e6:.1f} MB\nmodel: {found.folder}")
    return 0
