"""Linear layers of a model that is only used, on a CPU: weights that lie as oneDNN multiplies them.

PyTorch's product of few rows and a weight (40 hypotheses, 768 to 3072 channels) spends a good part of its time laying the weight out anew,
in every call. A model that is opened to be used has the same weights in all of them, so they are laid out once: products of 5 to 40 rows
take half to two thirds of the time, those of hundreds of rows four fifths (docs/speed.md). It costs the memory of the weights once more.
"""

from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Model = TypeVar("Model", bound=nn.Module)


class LaidOutLinear(nn.Linear):
    """A linear layer that keeps its weight in a second layout while nothing is learned.

    Gradients, other devices and types, autocast and tracing go the plain way. A weight that was changed (in place, by loading, by ``.to``)
    is laid out anew; changes by way of ``weight.data`` cannot be seen, so what is changed like that must not be laid out.
    """

    _laid_out: tuple[int, int, Tensor] | None = None  # the weight's version and place when it was laid out, and the layout

    def forward(self, x: Tensor) -> Tensor:
        if not self._plain(x):
            weight = self.weight
            found = self._laid_out
            if found is None or found[:2] != (weight._version, weight.data_ptr()):
                layout = torch.ops.mkldnn._reorder_linear_weight(weight.detach())
                self._laid_out = found = (weight._version, weight.data_ptr(), layout)
            result: Tensor = torch.ops.mkldnn._linear_pointwise(x, found[2], self.bias, "none", [], "")
            return result
        self._laid_out = None
        return F.linear(x, self.weight, self.bias)

    def _plain(self, x: Tensor) -> bool:
        there = x.device.type == "cpu" and self.weight.device.type == "cpu"
        single = x.dtype == torch.float32 and self.weight.dtype == torch.float32
        free = there and single and x.dim() > 1 and x.numel() > 0 and not torch.is_grad_enabled()
        return not free or torch.is_autocast_enabled("cpu") or torch.compiler.is_compiling() or torch.jit.is_tracing()

    def __getstate__(self) -> dict[str, Any]:
        """Copies and pickles go without the layout, which can be neither copied nor pickled."""
        return {name: value for name, value in self.__dict__.items() if name != "_laid_out"}


def lay_out(model: Model) -> Model:
    """Let the linear layers of a model that is only used keep their weights as oneDNN wants them; returns the model.

    Names and values of parameters stay as they are, and results differ by rounding alone. Layers are laid out when they are first used on
    a CPU, in float32 and without gradients; elsewhere, and where PyTorch is built without oneDNN, nothing changes.
    """
    if torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        for module in model.modules():
            # Layers that are more than linear name a class of their own.
            kind = LaidOutLinear if type(module) is nn.Linear else type(module).__dict__.get("laid_out")
            if kind is not None:
                module.__class__ = kind
    return model
