"""Fast dropout drops the share that is asked for, keeps the mean, repeats from a seed, and does nothing in evaluation."""

import pytest
import torch
import torch.nn.functional as F

from avtlm.nn.dropout import Dropout, draw_kept, drop, drop_rows


@pytest.mark.parametrize("probability", [0.0001, 0.1, 0.5, 0.99])
def test_the_share_that_is_dropped_and_the_mean_are_right(probability: float) -> None:
    torch.manual_seed(0)
    x = torch.ones(1000, 1001, requires_grad=True)
    out = drop(x, probability)
    out.sum().backward()
    deviation = (probability * (1 - probability) / x.numel()) ** 0.5
    assert (out == 0).float().mean().item() == pytest.approx(probability, abs=5 * deviation + 2**-16)
    assert out.mean().item() == pytest.approx(1.0, abs=5 * deviation / (1 - probability))
    assert x.grad is not None
    assert torch.equal(x.grad, out.detach())
    assert out.unique().numel() == 2


def test_neighbouring_values_are_dropped_independently() -> None:
    torch.manual_seed(0)
    kept, _ = draw_kept((400_000,), 0.3)
    for distance in (1, 2, 3, 4, 8):
        both = (~kept[:-distance] & ~kept[distance:]).float().mean().item()
        assert both == pytest.approx(0.09, abs=0.003)


def test_a_seed_repeats_it_and_evaluation_leaves_all_as_it_is() -> None:
    module, x = Dropout(0.5), torch.randn(7, 5)
    found = []
    for _ in range(2):
        torch.manual_seed(3)
        found.append(module(x))
    assert torch.equal(*found)
    assert not torch.equal(found[0], x)
    assert torch.equal(module.eval()(x), x)
    assert torch.equal(drop(x, 0.0), x)


def test_types_stay_and_empty_input_is_allowed() -> None:
    assert drop(torch.ones(5, dtype=torch.bfloat16), 0.5).dtype == torch.bfloat16
    assert drop(torch.ones(0, 4), 0.5).shape == (0, 4)
    assert drop(torch.ones(3), 1.0 - 1e-9).isfinite().all()
    assert F.dropout(torch.ones(3), 0.5).shape == drop(torch.ones(3), 0.5).shape


def test_whole_rows_are_dropped_and_the_mean_stays() -> None:
    torch.manual_seed(0)
    out = drop_rows(torch.ones(20_000, 2, 3), 0.25)
    assert out.unique().tolist() == pytest.approx([0.0, 4 / 3])
    assert torch.equal(out.flatten(1).amin(1), out.flatten(1).amax(1))
    assert out.mean().item() == pytest.approx(1.0, abs=0.03)
    x = torch.randn(3, 2)
    assert drop_rows(x, 0.25, training=False) is x
