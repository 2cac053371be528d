"""Convolutions by Fourier transforms and by matrix products equal PyTorch's, forwards and backwards; where they are used."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from avtlm.nn import convolution
from avtlm.nn.convolution import StridedConvolution, convolve, convolve_by_fft


def draw(*shape: int, seed: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype).requires_grad_()


@settings(max_examples=40, deadline=None)
@given(batch=st.integers(1, 3), frames=st.integers(1, 70), taps=st.integers(1, 20), groups=st.sampled_from([1, 2]), biased=st.booleans())
def test_values_and_gradients_are_pytorchs(batch: int, frames: int, taps: int, groups: int, biased: bool) -> None:
    x, weight = draw(batch, 4, frames, seed=1), draw(6, 4 // groups, taps, seed=2)
    bias = draw(6, seed=3) if biased else None
    given = [each for each in (x, weight, bias) if each is not None]
    found = []
    for out in (convolve_by_fft(x, weight, bias, taps // 2, groups), F.conv1d(x, weight, bias, padding=taps // 2, groups=groups)):
        found.append([out, *torch.autograd.grad(out.square().sum(), given)])
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-8, rtol=1e-8)


def test_in_single_precision_it_is_no_less_exact_than_pytorchs() -> None:
    x, weight = draw(2, 64, 300, seed=1, dtype=torch.float32), draw(64, 16, 128, seed=2, dtype=torch.float32)
    exact = F.conv1d(x.double(), weight.double(), padding=64, groups=4)
    ours, theirs = (function(x, weight, None, 64, 4) for function in (convolve, lambda x, w, b, p, g: F.conv1d(x, w, b, 1, p, 1, g)))
    assert not torch.equal(ours, theirs), "this size is convolved by Fourier transforms"
    assert (ours - exact).abs().max() <= 1.2 * (theirs - exact).abs().max()
    assert (ours - exact).abs().max() <= 1e-6 * exact.abs().max()


def test_short_input_and_narrow_layers_are_left_to_pytorch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(convolution, "convolve_by_fft", None)
    for frames, width in ((100, 16), (1000, 8)):
        assert convolve(torch.randn(1, width, frames), torch.randn(width, width, 128), None, 64, 1).shape == (1, width, frames + 1)


def test_bfloat16_is_computed_in_single_precision() -> None:
    x, weight = draw(1, 16, 600, seed=1, dtype=torch.float32).detach(), draw(16, 16, 64, seed=2, dtype=torch.float32).detach()
    with torch.autocast("cpu", torch.bfloat16):
        out = convolve(x.bfloat16(), weight, None, 32, 1)
    assert out.dtype == torch.bfloat16
    exact = F.conv1d(x.bfloat16().float(), weight, padding=32)
    assert (out.float() - exact).abs().max() <= 2**-8 * exact.abs().max()


@settings(max_examples=60, deadline=None)
@given(
    batch=st.integers(1, 3),
    further=st.integers(0, 20),
    taps=st.integers(1, 7),
    stride=st.integers(1, 4),
    channels=st.integers(2, 3),
    biased=st.booleans(),
)
def test_strided_convolutions_are_pytorchs(batch: int, further: int, taps: int, stride: int, channels: int, biased: bool) -> None:
    module = StridedConvolution(channels, 5, taps, stride, bias=biased, dtype=torch.float64)
    x = draw(batch, taps + further, channels, seed=1)
    wanted = F.conv1d(x.transpose(1, 2), module.weight, module.bias, stride).transpose(1, 2)
    parameters = [x, *module.parameters()]
    weights = draw(*wanted.shape, seed=2).detach()
    found = []
    for out in (module(x), wanted):
        found.append([out, *torch.autograd.grad((out * weights).sum(), parameters)])
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, atol=1e-10, rtol=1e-10)


@pytest.mark.parametrize("frozen", ["input", "kernel"])
def test_gradients_that_nobody_wants_are_not_computed(frozen: str) -> None:
    module = StridedConvolution(4, 6, 3, 2, bias=False)
    module.weight.requires_grad_(frozen != "kernel")
    x = draw(1, 11, 4, seed=1, dtype=torch.float32).detach().requires_grad_(frozen != "input")
    module(x).square().sum().backward()
    assert (x.grad is None) == (frozen == "input")
    assert (module.weight.grad is None) == (frozen == "kernel")


@pytest.mark.parametrize("channels", [1, 8])
def test_strided_convolutions_take_bfloat16_under_autocast(channels: int) -> None:
    module = StridedConvolution(channels, 6, 3, 2, bias=True)
    x = draw(2, 31, channels, seed=1, dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        out = module(x)
    assert out.dtype == torch.bfloat16
    exact = F.conv1d(x.transpose(1, 2), module.weight, module.bias, 2).transpose(1, 2)
    assert (out.float() - exact).abs().max() <= 2**-6 * exact.abs().max()
    out.float().sum().backward()
    assert x.grad is not None
    assert x.grad.dtype == module.weight.grad.dtype == torch.float32
