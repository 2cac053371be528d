"""Swoosh activations equal their formulas, and the parts around them what autograd makes of the formulas."""

import math

import pytest
import torch
from torch import Tensor, nn

from avtlm.nn.linear import lay_out
from avtlm.nn.zipformer.activations import (
    SWOOSH_L,
    SWOOSH_R,
    LaidOutSwooshLinear,
    Pointwise,
    Swoosh,
    SwooshLinear,
    SwooshPointwise,
    activate_and_map,
    scaled_linear,
    shared_dropout,
)

each = pytest.mark.parametrize(("swoosh", "shift", "drop"), [(SWOOSH_L, 4.0, 0.035), (SWOOSH_R, 1.0, 0.313261687)])


def formula(x: Tensor, shift: float, drop: float) -> Tensor:
    return torch.logaddexp(torch.zeros_like(x), x - shift) - 0.08 * x - drop


@each
def test_values_are_those_of_the_formula_also_far_out(swoosh: Swoosh, shift: float, drop: float) -> None:
    x = torch.linspace(-60, 60, 1001, dtype=torch.float64)
    assert torch.allclose(swoosh(x), formula(x, shift, drop), atol=3e-9)
    assert float(SWOOSH_R(torch.zeros(()))) == pytest.approx(0.0, abs=1e-7)


@each
def test_derivatives_are_exact(swoosh: Swoosh, shift: float, drop: float) -> None:
    x = torch.linspace(-8, 12, 40, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(swoosh, (x,))


def test_a_map_behind_an_activation_has_the_gradients_of_both() -> None:
    torch.manual_seed(0)
    x, weight, bias = (torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in ((2, 3, 4), (5, 4), (5,)))
    factors = torch.tensor([[[0.0, 2.0, 2.0, 1.0]], [[2.0, 0.0, 1.0, 2.0]]], dtype=torch.float64)
    for given in (None, factors):
        assert torch.autograd.gradcheck(lambda *inputs, f=given: activate_and_map(*inputs, SWOOSH_L, f), (x, weight, bias))
    out = activate_and_map(x, weight, bias, SWOOSH_L, factors)
    assert torch.allclose(out, nn.functional.linear(formula(x, 4.0, 0.035) * factors, weight, bias))


def test_only_what_goes_in_is_kept_for_the_backward_pass() -> None:
    kept: list[tuple[int, ...]] = []
    x, layer = torch.randn(2, 3, 64, requires_grad=True), SwooshLinear(64, 4, SWOOSH_L, 1.0)
    with torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(tuple(t.shape)) or t, lambda t: t):
        layer(x)
    assert sorted(kept) == [(2, 3, 64), (4, 64)]


def test_dropout_takes_a_channel_from_all_frames_of_a_row() -> None:
    torch.manual_seed(0)
    x = torch.ones(50, 3, 40)
    factors = shared_dropout(x, 0.25)
    assert factors.shape == (50, 1, 40)
    assert factors.unique().tolist() == pytest.approx([0.0, 4 / 3])
    assert float(factors.mean()) == pytest.approx(1.0, abs=0.05)
    layer = SwooshLinear(40, 4, SWOOSH_R, 1.0)
    out = layer(x, 0.5)
    assert torch.allclose(out[:, 0], out[:, 2], atol=1e-6)
    assert not torch.allclose(out[0], out[1])


def test_pointwise_maps_are_convolutions_of_one_tap() -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 5, 7, 6)
    plain, active = Pointwise(6, 4), SwooshPointwise(6, 4, SWOOSH_L, 0.01)
    assert plain.weight.shape == (4, 6, 1, 1)
    expected = nn.functional.conv2d(x.permute(0, 3, 1, 2), plain.weight, plain.bias).permute(0, 2, 3, 1)
    assert torch.allclose(plain(x), expected, atol=1e-6)
    expected = nn.functional.conv2d(SWOOSH_L(x).permute(0, 3, 1, 2), active.weight, active.bias).permute(0, 2, 3, 1)
    assert torch.allclose(active(x), expected, atol=1e-6)


def test_in_bfloat16_gradients_find_one_type_and_come_back_wide() -> None:
    torch.manual_seed(0)
    x, layer = torch.randn(2, 3, 16, requires_grad=True), SwooshLinear(16, 8, SWOOSH_L, 1.0)
    exact = layer(x)
    with torch.autocast("cpu", torch.bfloat16):
        out = layer(x)
    assert out.dtype == torch.bfloat16
    out.float().sum().backward()
    assert x.grad is not None
    assert x.grad.dtype == layer.weight.grad.dtype == torch.float32  # type: ignore[union-attr]
    assert torch.allclose(out.float(), exact, atol=0.05)


def test_small_layers_start_small() -> None:
    torch.manual_seed(0)
    layer = scaled_linear(50, 60, 0.1)
    assert layer.bias is not None
    assert layer.weight.abs().max().item() <= 0.1 / math.sqrt(50)
    assert layer.bias.abs().max().item() <= 0.01
    assert scaled_linear(3, 4, 0.1, bias=False).bias is None


def test_in_a_model_that_is_only_used_weights_are_laid_out() -> None:
    torch.manual_seed(0)
    model, x = nn.Sequential(SwooshLinear(16, 8, SWOOSH_L, 1.0)), torch.randn(2, 3, 16)
    expected = model(x)
    assert lay_out(model) is model
    with torch.no_grad():
        assert torch.allclose(model(x), expected, atol=1e-6)
        model[0].weight.mul_(2.0)
        assert not torch.allclose(model(x), expected, atol=1e-3)
    assert isinstance(model[0], LaidOutSwooshLinear)
    assert model(x).requires_grad
