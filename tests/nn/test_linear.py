"""Laid-out linear layers compute what plain ones do, notice changed weights, and are left wherever something is learned."""

import copy
import pickle

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from avtlm.nn.linear import LaidOutLinear, lay_out

pytestmark = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="this PyTorch has no oneDNN")


def laid_out(layer: nn.Linear) -> LaidOutLinear:
    layout = lay_out(copy.deepcopy(layer))
    assert isinstance(layout, LaidOutLinear)
    return layout


@settings(max_examples=30, deadline=None)
@given(
    rows=st.lists(st.integers(1, 9), min_size=1, max_size=3),
    sizes=st.tuples(st.integers(1, 70), st.integers(1, 70)),
    bias=st.booleans(),
    seed=st.integers(0, 99),
)
def test_results_are_those_of_a_plain_layer(rows: list[int], sizes: tuple[int, int], bias: bool, seed: int) -> None:
    torch.manual_seed(seed)
    plain = nn.Linear(*sizes, bias=bias)
    layout = laid_out(plain)
    x = torch.randn(*rows, sizes[0])
    with torch.no_grad():
        torch.testing.assert_close(layout(x), plain(x), rtol=1e-5, atol=1e-5)
        if x.dim() > 2:  # as the heads of attention lie
            turned = x.transpose(0, 1)
            torch.testing.assert_close(layout(turned), plain(turned), rtol=1e-5, atol=1e-5)
    assert (layout._laid_out is not None) == (x.dim() > 1)


def test_changed_weights_are_laid_out_anew() -> None:
    torch.manual_seed(0)
    layout, x = laid_out(nn.Linear(8, 4)), torch.randn(3, 8)
    other = nn.Linear(8, 4)
    with torch.no_grad():
        layout(x)
        layout.weight.mul_(2)
        torch.testing.assert_close(layout(x), nn.functional.linear(x, layout.weight, layout.bias))
        layout.load_state_dict(other.state_dict())
        torch.testing.assert_close(layout(x), other(x))
        layout.double().float()
        torch.testing.assert_close(layout(x), other(x))


def test_an_optimiser_step_is_noticed() -> None:
    torch.manual_seed(0)
    layout, x = laid_out(nn.Linear(8, 4)), torch.randn(3, 8)
    optimiser = torch.optim.AdamW(layout.parameters(), lr=0.1, fused=True)
    with torch.no_grad():
        layout(x)
    layout(x).sum().backward()
    assert layout.weight.grad is not None
    assert layout._laid_out is None
    optimiser.step()
    with torch.no_grad():
        torch.testing.assert_close(layout(x), nn.functional.linear(x, layout.weight, layout.bias))


def test_other_types_autocast_and_empty_input_go_the_plain_way() -> None:
    layout = laid_out(nn.Linear(8, 4))
    with torch.no_grad():
        assert layout(torch.zeros(0, 8)).shape == (0, 4)
        assert layout(torch.zeros(8)).shape == (4,)
        with torch.autocast("cpu", torch.bfloat16):
            assert layout(torch.zeros(2, 8)).dtype == torch.bfloat16
        assert layout.double()(torch.zeros(2, 8).double()).dtype == torch.double
    assert layout._laid_out is None


def test_copies_and_state_dictionaries_know_nothing_of_the_layout() -> None:
    layout, x = laid_out(nn.Linear(8, 4)), torch.randn(3, 8)
    with torch.no_grad():
        expected = layout(x)
        assert set(layout.state_dict()) == {"weight", "bias"}
        for twin in (copy.deepcopy(layout), pickle.loads(pickle.dumps(layout))):
            assert twin._laid_out is None
            torch.testing.assert_close(twin(x), expected)


def test_only_plain_linear_layers_are_changed() -> None:
    class Own(nn.Linear):
        pass

    model = lay_out(nn.Sequential(nn.Linear(2, 2), Own(2, 2), nn.Conv1d(2, 2, 1)))
    assert [type(part) for part in model] == [LaidOutLinear, Own, nn.Conv1d]
