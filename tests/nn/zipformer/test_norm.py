"""BiasNorm equals its formula, with the gradients of the formula."""

import torch

from avtlm.nn.zipformer.norm import BiasNorm, _Norm


def test_values_and_gradients_are_those_of_the_formula() -> None:
    torch.manual_seed(0)
    x, bias = torch.randn(2, 3, 5, dtype=torch.float64, requires_grad=True), torch.randn(5, dtype=torch.float64, requires_grad=True)
    log_scale = torch.tensor(0.3, dtype=torch.float64, requires_grad=True)
    expected = x * log_scale.exp() / (x - bias).square().mean(-1, keepdim=True).sqrt()
    assert torch.allclose(_Norm.apply(x, bias, log_scale), expected)
    assert torch.autograd.gradcheck(_Norm.apply, (x, bias, log_scale))


def test_it_starts_with_a_scale_of_e_and_stays_in_float32() -> None:
    torch.manual_seed(0)
    norm = BiasNorm(400)
    out = norm(torch.randn(4, 400).bfloat16())
    assert out.dtype == torch.float32
    assert torch.allclose(out.square().mean(-1).sqrt(), torch.full((4,), 2.71828), atol=1e-2)
    assert 0 < float(norm.bias.abs().max()) < 1e-3


def test_in_training_a_scale_beyond_its_range_is_led_back() -> None:
    torch.manual_seed(0)
    norm, x = BiasNorm(4), torch.randn(8, 4)
    with torch.no_grad():
        norm.log_scale.fill_(2.0)
    signs = set()
    for _ in range(20):
        (found,) = torch.autograd.grad(norm(x, 0.0), norm.log_scale, -norm(x).detach())  # which asks for more
        signs.add(float(found) > 0)
    assert signs == {True, False}  # turned around in most batches, not in all
    (found,) = torch.autograd.grad(norm(x), norm.log_scale, -norm(x).detach())
    assert float(found) < 0
