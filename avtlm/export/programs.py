"""Programs of torch.export: one file .pt2 for each graph, which PyTorch opens without this library.

    run = torch.export.load("step.pt2").module(check_guards=False)

Guards are what the tracer has noticed about the sizes it saw, such as that there are more hypotheses than one; the program does without.

This library writes them and reads back what it has just written, but opens none that came from elsewhere: PyTorch's reader unpickles parts
of such a file where the file asks for it, and loading a model must not run what is in it. ONNX graphs hold no code.
"""

import warnings
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind


def write(program: ExportedProgram, path: Path) -> None:
    """Write a program with the weights that it reads, without those of other parts of the model, and without where its steps come from,
    which would name folders of whoever exported it."""
    _prune(program)
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)
    torch.export.save(program, path)


def opened(path: Path) -> Callable[..., tuple[Tensor, ...]]:
    """The function of a program that this process has written."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of PyTorch's reader, about memory of its own
        module = torch.export.load(path).module(check_guards=False)

    def run(*inputs: Tensor) -> tuple[Tensor, ...]:
        with torch.no_grad():
            return tuple(module(*inputs))

    return run


def _prune(program: ExportedProgram) -> None:
    """Leave out parameters and buffers that a program holds and never reads."""
    placeholders = {node.name: node for node in program.graph.nodes if node.op == "placeholder"}
    specifications = program.graph_signature.input_specs
    for each in list(specifications):
        node = placeholders[getattr(each.arg, "name", "")]
        if each.kind in (InputKind.PARAMETER, InputKind.BUFFER) and not node.users:
            program.graph.erase_node(node)
            specifications.remove(each)
            program.state_dict.pop(str(each.target), None)
            program.constants.pop(str(each.target), None)
    program.graph_module.recompile()
