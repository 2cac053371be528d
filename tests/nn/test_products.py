"""Attention in matrix products is attention: values, gradients, masks, biases and dropout."""

import pytest
import torch
from torch import Tensor

from avtlm.nn.attention import attend, choose_backend
from avtlm.nn.products import attend_by_products


def draw(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype).requires_grad_()


@pytest.mark.parametrize("mask", ["none", "keys", "bias", "bias for each head"])
def test_gradients_are_those_of_finite_differences_with_the_same_weights_dropped(mask: str) -> None:
    query, key, value = draw(3, 2, 4, seed=1), draw(5, 2, 4, seed=2), draw(5, 2, 4, seed=3)
    masks = {
        "none": None,
        "keys": torch.tensor([True, True, True, False, False])[None, None],
        "bias": draw(1, 3, 5, seed=4),
        "bias for each head": draw(2, 3, 5, seed=5),
    }

    def compute(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
        torch.manual_seed(0)
        return attend_by_products(query, key, value, mask, 0.3)

    assert torch.autograd.gradcheck(compute, (query, key, value, masks[mask]))


def test_it_equals_pytorchs_kernel_and_the_reference_padded_and_packed() -> None:
    lengths = torch.tensor([7, 2, 5])
    query, key, value, bias = draw(3, 7, 2, 4, seed=1), draw(3, 7, 2, 4, seed=2), draw(3, 7, 2, 4, seed=3), draw(1, 2, 7, 7, seed=4)
    scale = draw(3, 7, 2, seed=5)
    valid = torch.arange(7) < lengths[:, None]
    for causal in (False, True):
        found = {}
        for backend in ("products", "sdpa"):
            out = attend(query, key, value, lengths=lengths, bias=bias, bias_scale=scale, causal=causal, backend=backend)
            found[backend] = [out[valid], *torch.autograd.grad(out[valid].square().sum(), (query, key, value, bias, scale))]
        rows = [each[valid] for each in (query, key, value)]
        packed = attend(*rows, lengths=lengths, bias=bias, bias_scale=scale[valid], causal=causal, backend="products")
        torch.testing.assert_close(packed, found["sdpa"][0], atol=1e-10, rtol=0)
        for ours, other in zip(found["products"], found["sdpa"], strict=True):
            torch.testing.assert_close(ours, other, atol=1e-10, rtol=1e-10)


def test_a_row_without_keys_is_finite_forwards_and_backwards() -> None:
    query, key, value = (draw(2, 4, 2, 4, seed=seed) for seed in (1, 2, 3))
    out = attend(query, key, value, lengths=torch.tensor([4, 0]), dropout=0.2, backend="products")
    out.sum().backward()
    assert all(each is not None and bool(each.isfinite().all()) for each in (out, query.grad, key.grad, value.grad))


def test_dropout_keeps_the_mean_and_drops_the_share_that_is_asked_for() -> None:
    torch.manual_seed(0)
    query, key = draw(6, 2, 4, seed=1).detach(), draw(8, 2, 4, seed=2).detach()
    value = torch.eye(8, dtype=torch.float64)[:, None].expand(-1, 2, -1)  # the output is the weights themselves
    exact = attend_by_products(query, key, value, None, 0.0)
    drawn = torch.stack([attend_by_products(query, key, value, None, 0.4) for _ in range(4000)])
    assert (drawn == 0).double().mean().item() == pytest.approx(0.4, abs=0.005)
    torch.testing.assert_close(drawn.mean(0), exact, atol=0.03, rtol=0)


def test_bfloat16_is_near_float32_and_gives_gradients_of_its_own_kind() -> None:
    inputs = [draw(40, 2, 16, seed=seed, dtype=torch.float32) for seed in (1, 2, 3)]
    found = {}
    for dtype in (torch.float32, torch.bfloat16):
        given = [each.detach().to(dtype).requires_grad_() for each in inputs]
        out = attend_by_products(*given, None, 0.0)
        gradients = torch.autograd.grad(out.float().square().sum(), given)
        assert {each.dtype for each in (out, *gradients)} == {dtype}
        found[dtype] = [each.float() for each in (out, *gradients)]
    for half, single in zip(found[torch.bfloat16], found[torch.float32], strict=True):
        assert (half - single).norm() < 0.02 * single.norm()


def test_under_autocast_single_precision_input_trains_too() -> None:
    query, key, value = (draw(40, 2, 16, seed=seed, dtype=torch.float32) for seed in (1, 2, 3))
    with torch.autocast("cpu", torch.bfloat16):
        out = attend_by_products(query, key, value, None, 0.1)
    out.float().sum().backward()
    assert out.dtype == torch.bfloat16
    assert query.grad is not None
    assert query.grad.dtype == torch.float32


def test_it_is_chosen_for_dropout_and_bfloat16_on_a_cpu_and_long_sequences() -> None:
    cpu = torch.device("cpu")
    assert choose_backend(False, cpu, None, products=True) == "products"
    assert choose_backend(False, cpu, None) == "sdpa"
    assert choose_backend(False, torch.device("cuda"), None, products=True) == "sdpa"
    long, short = ([draw(1, frames, 4, 8, seed=seed, dtype=torch.float32) for seed in (1, 2, 3)] for frames in (100, 10))
    half = [each.bfloat16() for each in long]
    for inputs, dropout, chosen in ((long, 0.1, True), (half, 0.0, True), (long, 0.0, False), (short, 0.1, False)):
        out = attend(*inputs, dropout=dropout)
        names, pending = set(), [out.grad_fn]
        while pending:
            node = pending.pop()
            if node is not None and node.name() not in names:
                names.add(node.name())
                pending += [other for other, _ in node.next_functions]
        assert ("AttentionProductsBackward" in names) == chosen


def test_sentences_without_padding_are_causal_too() -> None:
    query, key, value = (torch.randn(2, 5, 3, 4) for _ in range(3))
    expected = attend(query, key, value, causal=True, backend="reference")
    assert torch.allclose(attend(query, key, value, causal=True, backend="products"), expected, atol=1e-5)
    later = attend(query[:, 3:], key, value, causal=True, backend="products")  # the last two, as with a cache
    assert torch.allclose(later, expected[:, 3:], atol=1e-5)
