"""Linear layers with 8-bit weights are close to those they were made of, and everything else stays as it is."""

import copy

import pytest
import torch
from torch import nn

from avtlm.nn.int8 import Int8Linear, is_quantised, quantise
from avtlm.nn.linear import lay_out
from avtlm.nn.zipformer.activations import SWOOSH_L, SwooshLinear


def test_products_are_close_to_those_in_float32() -> None:
    torch.manual_seed(0)
    layer, x = nn.Linear(64, 48), torch.randn(2, 7, 64)
    wanted = layer(x)
    narrow = quantise(copy.deepcopy(layer))
    assert isinstance(narrow, Int8Linear)
    with torch.inference_mode():
        found = narrow(x)
        assert found.shape == wanted.shape
        assert 0 < float((found - wanted).norm() / wanted.norm()) < 0.03  # 7 bits of what comes in, 8 of the weights
        assert narrow(x[:0]).shape == (0, 7, 48)
        turned = narrow(torch.randn(64, 5).T)  # not contiguous
    assert turned.shape == (5, 48)


def test_outputs_of_unlike_size_have_scales_of_their_own() -> None:
    layer = nn.Linear(16, 2, bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.randn(2, 16, generator=torch.Generator().manual_seed(0)) * torch.tensor([[100.0], [0.01]]))
    x = torch.randn(5, 16, generator=torch.Generator().manual_seed(1))
    wanted = layer(x)
    with torch.inference_mode():
        found = quantise(layer)(x)
    for output in range(2):
        assert float((found - wanted)[:, output].norm() / wanted[:, output].norm()) < 0.03


def test_only_linear_layers_of_their_own_are_narrowed() -> None:
    tied = nn.Linear(8, 8)
    model = nn.ModuleDict(
        {"own": nn.Linear(8, 8), "first": tied, "second": nn.Linear(8, 8), "conv": nn.Conv1d(8, 8, 3), "norm": nn.LayerNorm(8)}
    )
    model["second"].weight = tied.weight
    model["swoosh"] = SwooshLinear(8, 8, SWOOSH_L, 1.0)
    x = torch.randn(1, 3, 8)
    with torch.inference_mode():
        before = model["swoosh"](x)
        quantise(model)
        assert torch.allclose(model["swoosh"](x), before, atol=0.05)
    assert {name for name, part in model.items() if isinstance(part, Int8Linear)} == {"own", "swoosh"}
    assert is_quantised(model)
    assert "own.weight" not in model.state_dict()
    assert lay_out(model)["own"] is model["own"]


def test_a_narrow_model_cannot_be_copied() -> None:
    assert not is_quantised(nn.Linear(4, 4))
    with pytest.raises(ValueError, match="can be neither copied nor pickled; open its folder again"):
        copy.deepcopy(quantise(nn.Linear(4, 4)))


def test_a_model_on_another_device_is_refused() -> None:
    with pytest.raises(ValueError, match="int8 is for a CPU; open the model with device='cpu'"):
        quantise(nn.Linear(4, 4, device="meta"))
