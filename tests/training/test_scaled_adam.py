"""ScaledAdam makes the steps of its definition, clips by what is usual, survives a folder, and learns in a run that stops and goes on."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from avtlm.training.optim import OptimConfig, make_optimizer, schedule
from avtlm.training.scaled_adam import ScaledAdam
from avtlm.training.state import TrainState, load_state, moments, save_state
from tests.made_corpus import make_corpus
from tests.training.made_jobs import run_job
from tests.training.made_runs import broken_and_resumed, journal, pretraining, run, same, weights

SETTINGS: dict[str, Any] = {"optimizer": "scaled_adam", "lr": 0.03, "eps": 1e-8, "weight_decay": 0.0, "clip_norm": None, "schedule": "eden"}
LR, EPS = 0.03, 1e-8


class Model(nn.Module):
    """A matrix, a vector, a single number, and a matrix of zeros."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.matrix = nn.Parameter(0.3 * torch.randn(4, 5, generator=generator))
        self.vector = nn.Parameter(torch.randn(6, generator=generator))
        self.number = nn.Parameter(torch.tensor(1.0))
        self.zeros = nn.Parameter(torch.zeros(3, 2))


def feed(model: nn.Module, seed: int, scale: float = 1.0) -> None:
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        parameter.grad = scale * torch.randn(parameter.shape, generator=generator)


def written_out(p: Tensor, gradients: list[Tensor]) -> Tensor:
    """One tensor through the definition, without clipping, in float64."""
    p, single = p.double(), p.numel() == 1
    square, momentum, scale_square = torch.zeros_like(p), torch.zeros_like(p), 0.0
    rms = float(p.square().mean().sqrt())
    products: list[float] = []
    for step, g in enumerate(gradients):
        g = g.double()
        square = 0.98 * square + 0.02 * g * g
        correction = 1 - 0.98 ** (step + 1)
        move = -LR * g / ((square / correction if correction < 0.99 else square).sqrt() + EPS)
        if single:
            move = 0.1 * move
        else:
            products.append(float((p * g).sum()))
            if step % 4 == 3:
                rms = float(p.square().mean().sqrt())
            move = move * max(rms, 1e-5)
            if step % 4 == 3:
                last, kept = products[-4:], 0.98**4
                scale_square = kept * scale_square + (1 - kept) * sum(value**2 for value in last) / 4
                change = -0.1 * LR * (1 - kept ** ((step + 1) // 4)) ** 0.5 * sum(last) / (scale_square**0.5 + EPS)
                change = 0.0 if rms < 1e-5 else max(-0.1, min(0.1, change))
                move = move + p * min(change, (3.0 - rms) / rms if rms else float("inf"))
        momentum = 0.9 * momentum + 0.1 * move
        p = p + momentum
        p = p.clamp(-10, 10) if single else p
    return p


def test_steps_are_those_of_the_definition() -> None:
    model = Model()
    before, gradients = copy.deepcopy(model), []
    optimizer = ScaledAdam(model.parameters(), LR, clipping_scale=None)
    for seed in range(14):
        feed(model, seed)
        gradients.append([parameter.grad.clone() for parameter in model.parameters() if parameter.grad is not None])
        optimizer.step()
    for place, (start, now) in enumerate(zip(before.parameters(), model.parameters(), strict=True)):
        assert torch.allclose(now.double(), written_out(start.detach(), [group[place] for group in gradients]), rtol=1e-5, atol=1e-7)


def test_a_gradient_far_above_the_usual_norm_moves_no_further_than_twice_it() -> None:
    def after(last: float, clipping_scale: float | None) -> tuple[Model, Tensor]:
        model = Model()
        optimizer = ScaledAdam(model.parameters(), LR, clipping_scale=clipping_scale, clipping_period=8)
        for seed in range(9):
            feed(model, seed)
            optimizer.step()
        feed(model, 20, last)
        optimizer.step()
        return model, optimizer.state[model.matrix]["exp_avg_sq"]

    usual, huge = after(1.0, 2.0), after(1000.0, 2.0)
    assert torch.equal(usual[0].matrix, after(1.0, None)[0].matrix)  # within the bound
    assert float(huge[1].max()) < 20 * float(usual[1].max())
    assert float(after(1000.0, None)[1].max()) > 1e4 * float(usual[1].max())


def test_early_bounds_are_twice_as_high_and_the_median_is_of_the_norms_so_far() -> None:
    model = nn.Linear(1, 1, bias=False)  # a single number, whose gradients count a tenth
    optimizer = ScaledAdam(model.parameters(), LR, clipping_period=100)
    bounds = []
    for step in range(21):
        model.weight.grad = torch.full((1, 1), float(step))
        optimizer.step()
        bounds.append(float(optimizer.state[model.weight].get("bound", torch.tensor(0.0))))
    assert bounds[:10] == [0.0] * 10
    assert bounds[10:20] == pytest.approx([0.1 * 5 * 4] * 10)  # norms 0.1 to 1.0, of which the fifth
    assert bounds[20] == pytest.approx(0.1 * 11 * 4)


def test_what_has_no_gradient_goes_on_by_its_momentum_and_what_never_had_one_stays() -> None:
    model = Model()
    start = copy.deepcopy(model)
    optimizer = ScaledAdam(model.parameters(), LR)
    for seed in range(3):
        feed(model, seed)
        model.vector.grad = None
        if seed == 2:
            model.matrix.grad = None
            before = model.matrix.detach().clone()
        optimizer.step()
    assert torch.equal(model.vector, start.vector)
    assert not optimizer.state[model.vector]
    assert not torch.equal(model.matrix, before)


def names_of(model: nn.Module) -> dict[nn.Parameter, str]:
    return {parameter: name for name, parameter in model.named_parameters()}


@pytest.mark.parametrize("steps", [1, 6, 12])
def test_it_goes_on_from_a_folder_as_if_never_stopped(tmp_path: Path, steps: int) -> None:
    config = OptimConfig(**SETTINGS, clipping_period=8)
    model, twin = Model(), Model()
    optimizer = make_optimizer(config, model.named_parameters())
    for seed in range(steps):
        feed(model, seed)
        optimizer.step()
    save_state(tmp_path, TrainState(steps), moments(optimizer, names_of(model)))
    twin.load_state_dict(model.state_dict())
    other = make_optimizer(config, twin.named_parameters())
    load_state(tmp_path, other, names_of(twin))
    for seed in range(100, 111):
        for each, its in ((model, optimizer), (twin, other)):
            feed(each, seed, 30.0 if seed == 107 else 1.0)
            its.step()
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), twin.parameters(), strict=True))


def test_eden_falls_with_steps_and_with_passes_over_the_data() -> None:
    config = OptimConfig(**SETTINGS, warmup=0.05, lr_batches=50.0, lr_epochs=2.0)
    values = [schedule(config, step, 100) for step in range(100)]
    assert values[0] == 0.5
    assert values[4] == pytest.approx(0.9 * (0.08**2 + 1) ** -0.25)
    assert values[50] == pytest.approx(2**-0.25)
    assert schedule(config, 50, 100, 2) == pytest.approx(2**-0.5)
    assert schedule(config, 50, 1000, 2) == pytest.approx(2**-0.5)  # whatever the number of steps, behind the warm-up


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"weight_decay": 0.01}, "scaled_adam has none of them"),
        ({"clip_norm": 10.0}, "clip_norm 10.0.*scaled_adam has none of them"),
        ({"fused": "never"}, "leave fused out"),
        ({"clipping_scale": 0.0}, "give a factor above 0, or null for no clipping"),
        ({"optimizer": "adamw", "clipping_scale": 3.0}, "only scaled_adam has them"),
        ({"schedule": "linear", "lr_epochs": 5.0}, "lr_epochs: 5.0 with schedule linear"),
    ],
)
def test_settings_that_do_nothing_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        OptimConfig(**SETTINGS | changes)


def test_a_run_stops_and_goes_on_bit_for_bit_and_two_processes_with_shards_are_like_one(tmp_path: Path) -> None:
    corpus = make_corpus(tmp_path / "corpus", 24)
    optim = SETTINGS | {"warmup": 0.3, "lr_batches": 6.0, "clipping_period": 4}
    changes = {"optim": optim, "steps": 6, "save_every": 3, "log_every": 1, "accumulate": 2}
    one = run(pretraining(corpus, tmp_path / "one", **changes))
    assert same(one, broken_and_resumed(pretraining(corpus, tmp_path / "broken", **changes), 4))
    assert journal(one) == journal(tmp_path / "broken" / "model")
    (two,) = run_job(2, pretraining(corpus, tmp_path / "shared", parallel="fsdp", **changes))
    # Of weights whose size the loss does not depend on, such as those before a norm, the steps of the scale are made of rounding.
    for name, value in weights(one).items():
        assert torch.allclose(value.float(), weights(two)[name].float(), rtol=1e-3, atol=1e-3), name
    for ours, theirs in zip(journal(one), journal(two), strict=True):
        assert theirs == pytest.approx(ours, rel=1e-3, abs=1e-4)
