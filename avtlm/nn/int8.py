"""Linear layers with 8-bit weights, for a model that is only used, on a CPU.

What is unusual here:
- Each output has a scale of its own, and weights lie between -127 and 127 of it. What comes in is rounded to 8 bits in every call, by its
  smallest and largest value (dynamic quantisation): nothing has to be calibrated, and no clip depends on data that was seen before. It does
  depend, in its last digits, on what it is batched with, since all rows of a call share one scale.
- These are PyTorch's own kernels (``quantized::linear_dynamic``), called without its modules in ``torch.ao``, which it gives up in favour
  of a package of its own. They take 7 of the 8 bits of what comes in, since 16-bit sums of processors without VNNI instructions would
  overflow: results are the same everywhere.
- Weights in float32 are let go: the model takes a quarter of the memory for these layers, and can be neither trained nor saved.
- Convolutions, norms and embeddings stay as they are.
"""

from typing import Any, TypeVar

import torch
from torch import Tensor, nn

Model = TypeVar("Model", bound=nn.Module)
LARGEST = 127


class Int8Linear(nn.Linear):
    """A linear layer whose weight is 8 bits wide; see the module's docstring. Made of another one by `quantise`."""

    packed: Any  # the kernel's own layout of weight and bias

    def forward(self, x: Tensor) -> Tensor:
        """(..., inputs) float32 on the CPU -> (..., outputs)."""
        if x.numel() == 0:
            return x.new_zeros(*x.shape[:-1], self.out_features)
        result: Tensor = torch.ops.quantized.linear_dynamic(x.contiguous(), self.packed, reduce_range=True)
        return result

    def __getstate__(self) -> dict[str, Any]:
        raise ValueError("A model with 8-bit weights can be neither copied nor pickled; open its folder again.")


def quantise(model: Model) -> Model:
    """Let the linear layers of a model that is only used have 8-bit weights; returns the model.

    Layers whose weights another one shares stay as they are; those that are more than linear name a class of their own (``narrow``).

    Raises:
        ValueError: the model is not on the CPU, or this PyTorch has no kernels for 8 bits on this processor.
    """
    if any(parameter.device.type != "cpu" for parameter in model.parameters()):
        raise ValueError("weights: int8 is for a CPU; open the model with device='cpu'.")
    if not set(torch.backends.quantized.supported_engines) & {"x86", "fbgemm", "onednn", "qnnpack"}:
        raise ValueError("weights: int8 is not supported by PyTorch on this processor; use float32.")
    shared = _shared(model)
    for module in model.modules():
        # A layer that another one takes the weight of would leave it without.
        kind = Int8Linear if type(module) is nn.Linear else type(module).__dict__.get("narrow")
        if kind is not None and id(module.weight) not in shared:
            _narrow(module, kind)
    return model


def is_quantised(model: nn.Module) -> bool:
    """Whether any layer of a model has 8-bit weights."""
    return any(isinstance(module, Int8Linear) for module in model.modules())


def _narrow(module: Any, kind: type[nn.Module]) -> None:
    weight = module.weight.detach()
    scales = (weight.abs().amax(1) / LARGEST).clamp(min=torch.finfo(torch.float32).tiny).double()
    zeros = torch.zeros(len(weight), dtype=torch.long)
    narrow = torch.quantize_per_channel(weight, scales, zeros, 0, torch.qint8)
    bias = None if module.bias is None else module.bias.detach()
    packed = torch.ops.quantized.linear_prepack(narrow, bias)
    del module.weight, module.bias
    module.__class__ = kind
    module.packed = packed


def _shared(model: nn.Module) -> set[int]:
    """Weights that more than one module holds."""
    seen: set[int] = set()
    found: set[int] = set()
    for module in model.modules():
        for parameter in module.parameters(recurse=False):
            (found if id(parameter) in seen else seen).add(id(parameter))
    return found
