"""Schedules, parameter groups, and a trainer state that survives a folder."""

import dataclasses
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from avtlm.training.optim import OptimConfig, make_optimizer, schedule, set_lr
from avtlm.training.state import TrainState, load_state, moments, save_state


def factors(name: str, steps: int = 100, **changes: float) -> list[float]:
    settings = dataclasses.replace(OptimConfig(warmup=0.1, schedule=name), **changes)  # type: ignore[arg-type]
    return [schedule(settings, step, steps) for step in range(steps)]


def test_every_schedule_warms_up_to_one_and_then_never_rises() -> None:
    for name in ("linear", "cosine", "tri_stage", "constant"):
        values = factors(name)
        assert values[9] == pytest.approx(1.0)
        assert values[:10] == sorted(values[:10])
        assert values[10:] == sorted(values[10:], reverse=True)
        assert min(values) > 0


def test_schedules_end_where_they_should() -> None:
    end = OptimConfig(warmup=0.1, final_ratio=0.05)
    assert schedule(dataclasses.replace(end, schedule="linear"), 100, 100) == pytest.approx(0.0)
    assert schedule(dataclasses.replace(end, schedule="linear", floor=0.3), 100, 100) == pytest.approx(0.3)
    assert schedule(dataclasses.replace(end, schedule="linear", floor=0.3), 55, 100) == pytest.approx(0.65)
    assert schedule(dataclasses.replace(end, schedule="cosine"), 100, 100) == pytest.approx(0.05)
    assert schedule(dataclasses.replace(end, schedule="tri_stage"), 100, 100) == pytest.approx(0.05)
    assert set(factors("constant")[10:]) == {1.0}


def test_tri_stage_starts_at_a_hundredth_holds_and_decays_exponentially() -> None:
    values = factors("tri_stage", hold=0.3, final_ratio=0.01)
    assert values[0] == pytest.approx(0.01 + 0.99 / 10)
    assert set(values[10:40]) == {1.0}
    ratios = [b / a for a, b in pairwise(values[41:])]
    assert max(ratios) == pytest.approx(min(ratios))


def test_a_decay_shorter_than_the_rest_stays_at_its_end_and_a_longer_one_is_cut_off() -> None:
    short = factors("tri_stage", decay=0.4, final_ratio=0.05)
    assert short[30] == pytest.approx(0.05**0.5)
    assert short[50:] == pytest.approx([0.05] * 50)
    long = factors("tri_stage", decay=1.8, final_ratio=0.05)
    assert long[99] == pytest.approx(0.05 ** (89 / 180))
    with pytest.raises(ValueError, match="schedule tri_stage"):
        OptimConfig(schedule="cosine", decay=0.5)


def test_polynomial_decay_is_linear_to_a_power() -> None:
    linear, same, square = factors("linear"), factors("polynomial"), factors("polynomial", power=2.0)
    assert same == linear
    assert square[:10] == linear[:10]
    assert square[10:] == pytest.approx([value**2 for value in linear[10:]])


def test_inverse_square_root_falls_from_the_end_of_the_warm_up() -> None:
    values = factors("inverse_sqrt")
    assert values[:10] == pytest.approx([(step + 1) / 10 for step in range(10)])
    assert values[39] == pytest.approx(0.5)
    assert values[89] == pytest.approx(1 / 3)
    with pytest.raises(ValueError, match="warmup: 0 with schedule inverse_sqrt"):
        OptimConfig(schedule="inverse_sqrt", warmup=0.0)


def test_triangles_rise_and_fall_and_shrink_as_fairseq_has_them() -> None:
    settings = OptimConfig(schedule="triangular", warmup=0.0, final_ratio=0.1, triangles=2.0, shrink=0.5)
    values = [schedule(settings, step, 100) for step in range(100)]
    assert values[24] == pytest.approx(1.0)
    assert values[12] == pytest.approx(0.1 + 0.9 * 13 / 25)
    assert values[74] == pytest.approx(0.5)
    assert values[99] == pytest.approx(0.1)
    for step, value in enumerate(values):  # its formula, with a stepsize of 25
        cycle = (step + 1) // 50
        assert value == pytest.approx(0.1 + (0.5**cycle - 0.1) * max(0, 1 - abs((step + 1) / 25 - 2 * (cycle + 1) + 1)))
    assert schedule(OptimConfig(schedule="triangular", warmup=0.0), 49, 100) == pytest.approx(1.0)
    with pytest.raises(ValueError, match="with schedule triangular, which rises by itself; set 0"):
        OptimConfig(schedule="triangular")


@pytest.mark.parametrize(("name", "value"), [("power", 2.0), ("triangles", 2.0), ("shrink", 0.5), ("power", 0.0)])
def test_settings_of_other_schedules_are_refused(name: str, value: float) -> None:
    with pytest.raises(ValueError, match=f"{name}: {value} with schedule linear"):
        OptimConfig(**{name: value})  # type: ignore[arg-type]


def test_a_floor_is_a_share_of_a_schedule_that_falls_in_a_line() -> None:
    for changes in ({"floor": 1.0}, {"floor": 0.3, "schedule": "cosine"}):
        with pytest.raises(ValueError, match="give a share below 1, with linear or polynomial only"):
            OptimConfig(**changes)  # type: ignore[arg-type]


def test_a_bound_on_the_gradient_is_positive_or_none() -> None:
    assert OptimConfig(clip_norm=None).clip_norm is None
    with pytest.raises(ValueError, match="clip_norm: 0"):
        OptimConfig(clip_norm=0.0)


def test_no_warm_up_starts_at_full_rate() -> None:
    assert factors("linear", warmup=0.0)[0] == 1.0


class Recogniser(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.Linear(3, 3)
        self.head = nn.Linear(3, 2)


def test_the_encoder_may_have_a_rate_of_its_own() -> None:
    model = Recogniser()
    optimizer = make_optimizer(OptimConfig(lr=0.01, encoder_lr_ratio=0.1), model.named_parameters())
    assert set_lr(optimizer, 0.5) == pytest.approx(0.005)
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.0005, 0.005])
    assert sum(len(group["params"]) for group in optimizer.param_groups) == 4


def test_other_parts_may_share_the_rate_of_the_encoder() -> None:
    model = nn.ModuleDict({name: nn.Linear(2, 2) for name in ("encoder", "tagging", "tagging_again", "head")})
    model["tagging"].weight.requires_grad_(False)
    config = OptimConfig(lr=0.01, encoder_lr_ratio=0.2, encoder_lr_parts=("encoder", "tagging"))
    slow, fast = make_optimizer(config, model.named_parameters()).param_groups
    assert (slow["lr"], fast["lr"]) == pytest.approx((0.002, 0.01))
    found = [{id(parameter) for parameter in group["params"]} for group in (slow, fast)]
    assert found[0] == {id(each) for each in (*model["encoder"].parameters(), model["tagging"].bias)}
    assert found[1] == {id(each) for name in ("tagging_again", "head") for each in model[name].parameters()}


def test_a_part_with_a_rate_of_its_own_has_to_be_there() -> None:
    """Also the encoder itself, which a language model has not."""
    config = OptimConfig(encoder_lr_ratio=0.5, encoder_lr_parts=("encoder", "tagginh"))
    with pytest.raises(ValueError, match="'tagginh' is no part of this model; it has encoder, head"):
        make_optimizer(config, Recogniser().named_parameters())
    with pytest.raises(ValueError, match="'encoder' is no part of this model; it has 0"):
        make_optimizer(OptimConfig(encoder_lr_ratio=0.5), nn.Sequential(nn.Linear(2, 2)).named_parameters())
    make_optimizer(OptimConfig(), nn.Sequential(nn.Linear(2, 2)).named_parameters())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"encoder_lr_parts": ("encoder", "head")}, "encoder, head with encoder_lr_ratio 1.0"),
        ({"encoder_lr_parts": (), "encoder_lr_ratio": 0.5}, "none with encoder_lr_ratio 0.5"),
        ({"encoder_lr_ratio": -0.5}, "encoder_lr_ratio: -0.5"),
    ],
)
def test_rates_of_parts_that_say_nothing_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        OptimConfig(**settings)


def test_one_kernel_updates_all_parameters_where_there_is_one_and_gives_what_loops_give() -> None:
    models = {}
    for kind in ("auto", "always", "never"):
        torch.manual_seed(0)
        models[kind] = Recogniser()
        optimizer = make_optimizer(OptimConfig(lr=0.1, fused=kind), models[kind].named_parameters())  # type: ignore[arg-type]
        assert optimizer.defaults["fused"] == (kind != "never")
        for seed in range(3):
            step(models[kind], optimizer, seed)
    for name, value in models["never"].named_parameters():
        assert torch.allclose(value, models["auto"].get_parameter(name), rtol=1e-5)
        assert torch.equal(models["always"].get_parameter(name), models["auto"].get_parameter(name))
    with torch.device("meta"):
        elsewhere = Recogniser()
    assert not make_optimizer(OptimConfig(), elsewhere.named_parameters()).defaults["fused"]


def test_parameters_without_gradients_are_left_out() -> None:
    model = Recogniser()
    model.encoder.requires_grad_(False)
    optimizer = make_optimizer(OptimConfig(), model.named_parameters())
    assert sum(len(group["params"]) for group in optimizer.param_groups) == 2


def step(model: nn.Module, optimizer: torch.optim.Optimizer, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=generator)
    optimizer.step()


def test_an_optimiser_goes_on_from_a_folder_as_if_never_stopped(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, twin = Recogniser(), Recogniser()
    optimizer = make_optimizer(OptimConfig(lr=0.1), model.named_parameters())
    for seed in range(3):
        step(model, optimizer, seed)
    state = TrainState(3, {"a": (1, 4)}, best=0.5, bad_steps=1)
    save_state(tmp_path, state, moments(optimizer, {p: n for n, p in model.named_parameters()}))
    twin.load_state_dict(model.state_dict())
    other = make_optimizer(OptimConfig(lr=0.1), twin.named_parameters())
    assert load_state(tmp_path, other, {p: n for n, p in twin.named_parameters()}) == state
    step(model, optimizer, 9)
    step(twin, other, 9)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), twin.parameters(), strict=True))


def test_a_folder_without_state_or_with_that_of_another_model_is_refused(tmp_path: Path) -> None:
    model = Recogniser()
    optimizer = make_optimizer(OptimConfig(), model.named_parameters())
    with pytest.raises(ValueError, match="no trainer state to resume from"):
        load_state(tmp_path, optimizer, {})
    step(model, optimizer, 0)
    save_state(tmp_path, TrainState(), moments(optimizer, {p: f"other.{n}" for n, p in model.named_parameters()}))
    with pytest.raises(ValueError, match=r"optimiser state of another model \(other\."):
        load_state(tmp_path, optimizer, {p: n for n, p in model.named_parameters()})


@pytest.mark.parametrize("wrong", [{"lr": 0.0}, {"warmup": 1.0}, {"hold": 0.95, "warmup": 0.1}])
def test_impossible_schedules_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="give lr > 0"):
        OptimConfig(**wrong)  # type: ignore[arg-type]
