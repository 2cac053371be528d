"""All attention backends and layouts compute the same thing."""

import math

import pytest
import torch
from torch import Tensor

from avtlm.nn.attention import Backend, attend, choose_backend, padding_mask, xformers_ready

HEADS, HEAD_DIM = 3, 8


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, HEADS, HEAD_DIM, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def written_out(query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None = None, causal: bool = False) -> Tensor:
    """One sequence, (queries, heads, head_dim), head by head."""
    out = torch.empty_like(query)
    for head in range(HEADS):
        scores = query[:, head] @ key[:, head].T / math.sqrt(HEAD_DIM)
        if bias is not None:
            scores = scores + bias[head]
        if causal:
            ahead = torch.ones(len(query), len(key)).triu(len(key) - len(query) + 1).bool()
            scores = scores.masked_fill(ahead, -math.inf)
        out[:, head] = scores.softmax(-1) @ value[:, head]
    return out


# The reference backend computes in float32, whatever comes in.
TOLERANCE = {"sdpa": 1e-10, "reference": 2e-6}
BACKENDS: list[Backend] = ["sdpa", "reference"]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("biased", [False, True])
def test_padded_equals_one_sequence_at_a_time(backend: Backend, causal: bool, biased: bool) -> None:
    lengths = [7, 3, 5]
    query, key, value = draw(3, 7, seed=1), draw(3, 7, seed=2), draw(3, 7, seed=3)
    bias = torch.randn(3, HEADS, 7, 7, dtype=torch.float64) if biased else None
    out = attend(query, key, value, lengths=torch.tensor(lengths), bias=bias, causal=causal, backend=backend)
    for row, n in enumerate(lengths):
        corner = None if bias is None else bias[row, :, :n, :n]
        expected = written_out(query[row, :n], key[row, :n], value[row, :n], corner, causal)
        torch.testing.assert_close(out[row, :n], expected, atol=TOLERANCE[backend], rtol=0)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("biased", [False, True])
def test_packed_equals_padded(backend: Backend, causal: bool, biased: bool) -> None:
    lengths = torch.tensor([7, 1, 5])
    valid = ~padding_mask(lengths, 7)
    query, key, value = draw(3, 7, seed=1), draw(3, 7, seed=2), draw(3, 7, seed=3)
    bias = torch.randn(3, HEADS, 7, 7, dtype=torch.float64) if biased else None
    padded = attend(query, key, value, lengths=lengths, bias=bias, causal=causal, backend="sdpa")
    packed = attend(query[valid], key[valid], value[valid], lengths=lengths, bias=bias, causal=causal, backend=backend)
    torch.testing.assert_close(packed, padded[valid], atol=TOLERANCE[backend], rtol=0)


@pytest.mark.parametrize("backend", BACKENDS)
def test_cross_attention_takes_lengths_of_its_own_for_queries(backend: Backend) -> None:
    keys, queries = torch.tensor([6, 2, 4]), torch.tensor([3, 5, 1])
    query, key, value = draw(3, 5, seed=1), draw(3, 6, seed=2), draw(3, 6, seed=3)
    padded = attend(query, key, value, lengths=keys, backend=backend)
    asked, there = ~padding_mask(queries, 5), ~padding_mask(keys, 6)
    packed = attend(query[asked], key[there], value[there], lengths=keys, query_lengths=queries, backend=backend)
    for row in range(3):
        expected = written_out(query[row, : queries[row]], key[row, : keys[row]], value[row, : keys[row]])
        torch.testing.assert_close(padded[row, : queries[row]], expected, atol=TOLERANCE[backend], rtol=0)
    torch.testing.assert_close(packed, padded[asked], atol=TOLERANCE[backend], rtol=0)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("lengths", [None, [9, 6]])
def test_causal_queries_behind_a_cache_see_all_cached_keys(backend: Backend, lengths: list[int] | None) -> None:
    query, key, value = draw(2, 3, seed=1), draw(2, 9, seed=2), draw(2, 9, seed=3)
    out = attend(query, key, value, lengths=None if lengths is None else torch.tensor(lengths), causal=True, backend=backend)
    row = 0
    torch.testing.assert_close(out[row], written_out(query[row], key[row], value[row], causal=True), atol=TOLERANCE[backend], rtol=0)


def test_backends_have_equal_gradients() -> None:
    lengths = torch.tensor([6, 2])
    results = {}
    for backend in BACKENDS:
        tensors = [draw(2, 6, seed=s).requires_grad_() for s in (1, 2, 3)]
        bias = torch.linspace(-1, 1, HEADS * 36, dtype=torch.float64).view(1, HEADS, 6, 6).requires_grad_()
        out = attend(tensors[0], tensors[1], tensors[2], lengths=lengths, bias=bias, backend=backend)
        (out * ~padding_mask(lengths, 6)[..., None, None]).square().sum().backward()
        results[backend] = [t.grad for t in (*tensors, bias)]
    for ours, reference in zip(results["sdpa"], results["reference"], strict=True):
        assert ours is not None
        assert reference is not None
        torch.testing.assert_close(ours, reference, atol=1e-5, rtol=1e-5)


def test_gradient_is_that_of_finite_differences() -> None:
    lengths = torch.tensor([3, 2])
    valid = ~padding_mask(lengths, 3)
    tensors = [draw(2, 3, seed=s).requires_grad_() for s in (1, 2, 3)]
    assert torch.autograd.gradcheck(lambda q, k, v: attend(q, k, v, lengths=lengths, causal=True, backend="sdpa")[valid], tensors)


def test_padding_gets_no_gradient() -> None:
    key = draw(2, 5, seed=2).requires_grad_()
    value = draw(2, 5, seed=3).requires_grad_()
    attend(draw(2, 5, seed=1), key, value, lengths=torch.tensor([5, 2])).sum().backward()
    assert key.grad is not None
    assert value.grad is not None
    assert key.grad[1, 2:].abs().max() == 0
    assert value.grad[1, 2:].abs().max() == 0


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("causal", [False, True])
def test_a_row_without_keys_is_finite_forwards_and_backwards(backend: Backend, causal: bool) -> None:
    query, key, value = (draw(2, 4, seed=s).requires_grad_() for s in (1, 2, 3))
    out = attend(query, key, value, lengths=torch.tensor([4, 0]), causal=causal, backend=backend)
    out.sum().backward()
    assert out.isfinite().all()
    assert all(t.grad is not None and bool(t.grad.isfinite().all()) for t in (query, key, value))


def test_packed_sequences_of_length_zero_take_no_place() -> None:
    lengths = torch.tensor([0, 3, 0, 2])
    query, key, value = draw(5, seed=1), draw(5, seed=2), draw(5, seed=3)
    out = attend(query, key, value, lengths=lengths)
    torch.testing.assert_close(out[:3], written_out(query[:3], key[:3], value[:3]))
    assert attend(query[:0], key[:0], value[:0], lengths=torch.tensor([0, 0])).shape == (0, HEADS, HEAD_DIM)


def test_packed_input_without_lengths_is_refused() -> None:
    with pytest.raises(ValueError, match="needs lengths"):
        attend(draw(5), draw(5), draw(5))


def test_half_precision_input_gives_half_precision_output_near_the_exact_one() -> None:
    query, key, value = (draw(2, 6, seed=s) for s in (1, 2, 3))
    exact = attend(query, key, value, lengths=torch.tensor([6, 4]))
    for backend in BACKENDS:
        out = attend(query.bfloat16(), key.bfloat16(), value.bfloat16(), lengths=torch.tensor([6, 4]), backend=backend)
        assert out.dtype == torch.bfloat16
        assert (out.double() - exact).abs().max() < 0.03


def test_dropout_one_half_keeps_the_mean() -> None:
    torch.manual_seed(0)
    query, key, value = (draw(1, 8, seed=s) for s in (1, 2, 3))
    exact = attend(query, key, value)
    for backend in BACKENDS:
        mean = torch.stack([attend(query, key, value, dropout=0.5, backend=backend) for _ in range(3000)]).mean(0)
        assert (mean - exact).abs().max() < 0.15


def test_auto_is_sdpa_on_a_cpu() -> None:
    assert choose_backend(True, torch.device("cpu"), None) == "sdpa"
    assert choose_backend(False, torch.device("cpu"), None) == "sdpa"


@pytest.mark.skipif(not torch.cuda.is_available(), reason="xformers runs on CUDA only, and this machine has no CUDA device")
@pytest.mark.parametrize("causal", [False, True])
def test_xformers_equals_sdpa_on_a_gpu(causal: bool) -> None:
    assert xformers_ready(), "CUDA is there, but xformers' memory-efficient attention does not run"
    lengths = torch.tensor([7, 1, 5], device="cuda")
    valid = ~padding_mask(lengths, 7)
    query, key, value = (draw(3, 7, seed=s).float().cuda() for s in (1, 2, 3))
    bias = torch.randn(3, HEADS, 7, 7, device="cuda")
    plain = attend(query, key, value, lengths=lengths, causal=causal, backend="sdpa")
    biased = attend(query, key, value, lengths=lengths, bias=bias, causal=causal, backend="sdpa")
    packed = attend(query[valid], key[valid], value[valid], lengths=lengths, causal=causal, backend="xformers")
    torch.testing.assert_close(packed, plain[valid], atol=1e-4, rtol=1e-4)
    for given, expected in ((None, plain), (bias, biased)):
        padded = attend(query, key, value, lengths=lengths, bias=given, causal=causal, backend="xformers")
        torch.testing.assert_close(padded[valid], expected[valid], atol=1e-4, rtol=1e-4)
