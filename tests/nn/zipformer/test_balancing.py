"""What changes gradients does what autograd makes of its definition, at times, and only in training."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from avtlm.nn.zipformer.balancing import Balancer, Whitener, bound, bound_at_times, level, limits, score_penalty, whiteness
from avtlm.nn.zipformer.schedules import Schedule


def by_autograd(x: Tensor, incoming: Tensor, loss: Callable[[Tensor], Tensor]) -> Tensor:
    """The gradient of a loss, (rows, channels)."""
    del incoming
    inner = x.detach().clone().requires_grad_()
    (found,) = torch.autograd.grad(loss(inner), inner)
    return found


def gradient(function: Callable[[Tensor], Tensor], x: Tensor, incoming: Tensor) -> Tensor:
    x = x.clone().requires_grad_()
    out = function(x)
    assert torch.equal(out, x)
    (found,) = torch.autograd.grad(out, x, incoming)
    return found


@pytest.mark.parametrize("seed", range(4))
def test_a_balancer_adds_the_gradient_of_its_loss_scaled_in_each_channel(seed: int) -> None:
    torch.manual_seed(seed)
    x = torch.randn(40, 6) * torch.tensor([0.01, 0.3, 1.0, 4.0, 1.0, 1.0]) + torch.tensor([0.0, 0.0, 0.0, 0.0, 2.0, -2.0])
    incoming = torch.randn(40, 6)

    def mean_of(share: float) -> float:
        return 0.8139535143 * math.atanh(2 * share - 1)

    def loss(values: Tensor) -> Tensor:
        square, mean = values.square().mean(0), values.mean(0)
        m, rms = mean / (square - mean.square()).sqrt(), square.sqrt()
        off = (m - m.clamp(mean_of(0.3), mean_of(0.7))).abs()
        return (off + (rms.clamp(0.2 * 1.25331413732, 1.0 * 1.25331413732) / rms).log().abs()).sum()

    extra = by_autograd(x, incoming, loss)
    scaled = 0.04 * extra / extra.square().mean(0).sqrt().clamp(min=1e-20)
    found = gradient(Balancer(0.3, 0.7, 0.2, 1.0).applied, x, incoming)
    assert torch.allclose(found, incoming + incoming.abs() * scaled, atol=1e-5)
    assert torch.equal(found[:, 2], incoming[:, 2])  # a channel within its bounds


@pytest.mark.parametrize("groups", [1, 2])
def test_whitening_adds_the_gradient_of_whiteness_where_it_is_too_high(groups: int) -> None:
    torch.manual_seed(0)
    x = torch.randn(5, 8, 6) @ torch.randn(6, 6)
    incoming = torch.randn(5, 8, 6)
    extra = by_autograd(x, incoming, lambda values: whiteness(values, groups))
    expected = incoming + 0.01 * extra * incoming.norm() / extra.norm()
    metric = float(whiteness(x, groups))
    assert torch.allclose(gradient(Whitener(metric - 0.1, groups).applied, x, incoming), expected, atol=1e-5)
    assert torch.equal(gradient(Whitener(metric + 0.1, groups).applied, x, incoming), incoming)


def test_white_values_have_a_whiteness_of_one() -> None:
    x = torch.eye(4).repeat(2, 1) * 3.0
    x = torch.cat([x, -x])
    assert float(whiteness(x)) == pytest.approx(1.0)
    assert float(whiteness(x * torch.tensor([1.0, 1.0, 1.0, 5.0]))) > 2.0


def test_gradients_that_lead_further_out_are_turned_around() -> None:
    values, incoming = torch.tensor([-0.5, -0.5, 0.0, 0.5, 0.5]), torch.tensor([1.0, -1.0, 1.0, 1.0, -1.0])
    found = gradient(lambda x: bound(x, -0.1, 0.1), values, incoming)
    assert found.tolist() == [-1.0, -1.0, 1.0, 1.0, 1.0]


def test_outside_of_training_nothing_is_changed_and_nothing_drawn() -> None:
    x = torch.randn(6, 4, requires_grad=True)
    before = torch.get_rng_state()
    for part in (Balancer(0.9, 1.0, 5.0), Whitener(1.0)):
        assert part(x, None) is x
    assert bound_at_times(x, 0.0, 0.1, None) is x
    assert torch.equal(torch.get_rng_state(), before)


def test_they_act_as_often_as_their_chances_say() -> None:
    torch.manual_seed(0)
    x = torch.randn(6, 4, requires_grad=True)
    acts = {
        0.5: lambda: Balancer(0.4, 0.6, 0.1)(x, 0.0) is not x,
        0.125: lambda: Balancer(0.4, 0.6, 0.1)(x, 9000.0) is not x,
        0.025: lambda: Balancer(0.4, 0.6, 0.1, chance=0.025)(x, 0.0) is not x,
        0.25: lambda: Whitener(2.0)(x, 0.0) is not x,
        0.6: lambda: bound_at_times(x, 0.0, 1.0, 0.0) is not x,
    }
    for chance, act in acts.items():
        assert sum(act() for _ in range(1500)) / 1500 == pytest.approx(chance, abs=0.05)
    with torch.no_grad():
        assert Balancer(0.4, 0.6, 0.1, chance=1.0)(x.detach(), 0.0).data_ptr() == x.data_ptr()


def test_levels_and_limits_follow_the_count() -> None:
    assert level(0.3, 5.0) == 0.3
    assert level(Schedule.line(0.0, 1.0, 10.0, 7.0), 5.0) == 0.5
    assert level(Schedule.line(0.0, 1.0, 10.0, 7.0), None) == 7.0
    assert [limits(4.0, 3.0)(count) for count in (0.0, 20000.0, None)] == [4.0, 12.0, 4.0]


def test_scores_are_charged_beyond_25() -> None:
    scores = torch.tensor([24.0, -26.0, 30.0, -1.0], requires_grad=True)
    penalty = score_penalty(scores)
    assert float(penalty) == pytest.approx(1e-4 * 6.0)
    (found,) = torch.autograd.grad(penalty, scores)
    assert found.tolist() == pytest.approx([0.0, -1e-4, 1e-4, 0.0])
