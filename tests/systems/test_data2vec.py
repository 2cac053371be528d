"""data2vec's teacher, and MT4SSL's two heads."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from avtlm.objectives.regression import TargetConfig, TeacherConfig
from avtlm.systems import data2vec
from avtlm.systems.data2vec import Data2VecConfig
from avtlm.systems.mt4ssl import MT4SSLConfig
from tests.systems.speech_models import batch, tiny


def test_the_teacher_hears_the_unmasked_clip_and_gets_no_gradient() -> None:
    model, whole = tiny("data2vec"), batch()
    mask = model.draw_masks(whole, torch.Generator().manual_seed(0))
    heard = model.hear(whole)
    targets = model.teacher.targets(heard.projected, heard.lengths, model.config.targets)
    clean = model.teacher.targets(model.frontend(heard.convolved)[1], heard.lengths, model.config.targets)
    assert torch.equal(targets, clean)
    assert not targets.requires_grad
    model.masked_losses(whole, mask)["regression"].value.backward()
    assert all(parameter.grad is None for parameter in model.teacher.parameters())


def test_the_teacher_stays_in_evaluation_mode() -> None:
    model = tiny("data2vec").train()
    assert model.training
    assert not model.teacher.training
    assert not any(module.training for module in model.teacher.modules())


def test_the_teacher_moves_by_its_schedule_and_copies_positions() -> None:
    model = tiny("data2vec", teacher=TeacherConfig(0.5, 0.9, 10))
    name, place = "layers.0.feed_forward.expand.weight", "positions.convs.0.weight"
    before, student = (dict(part.named_parameters())[name].clone() for part in (model.teacher.encoder, model.encoder))
    model.start_step(5, 1000)
    after = dict(model.teacher.encoder.named_parameters())
    torch.testing.assert_close(after[name], 0.7 * before + 0.3 * student)
    assert torch.equal(after[place], dict(model.encoder.named_parameters())[place])


@pytest.mark.parametrize("system", ["data2vec", "mt4ssl"])
def test_a_whole_teacher_hears_the_waveform_and_all_of_it_moves(system: str) -> None:
    model, whole = tiny(system, teacher=TeacherConfig(0.5, 0.5, 1, copy_positions=False, whole=True)), batch()
    expected = {name for name in model.state_dict() if not name.startswith("teacher.")}
    assert {name.removeprefix("teacher.") for name in model.state_dict()} == expected
    heard = model.hear(whole)
    before = model.targets(whole, heard)
    with torch.no_grad():
        model.frontend.layers[0].conv.weight += 0.3
    changed = replace(heard, projected=heard.projected + 1.0)
    assert torch.equal(model.targets(whole, changed), before)
    name = "frontend.layers.0.conv.weight"
    own, student = model.teacher.state_dict()[name].clone(), model.state_dict()[name]
    model.start_step(1, 10)
    torch.testing.assert_close(model.teacher.state_dict()[name], 0.5 * own + 0.5 * student)
    assert not torch.equal(model.targets(whole, heard), before)


@pytest.mark.parametrize(("updates", "decay"), [(0, 0.5), (5, 0.7), (10, 0.9), (99, 0.9)])
def test_decay_rises_to_its_end(updates: int, decay: float) -> None:
    assert TeacherConfig(0.5, 0.9, 10).decay_at(updates, 1000) == pytest.approx(decay)
    assert TeacherConfig(0.5, 0.9, None).decay_at(updates, 10) == pytest.approx(decay)


def test_training_stops_when_targets_collapse(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(data2vec, "GUARDED_FROM", 10)
    model = tiny("data2vec", min_target_spread=1e6)
    model.losses(batch(), torch.Generator().manual_seed(0))
    model.start_step(10, 1000)
    model.start_step(150, 1000)
    with pytest.raises(FloatingPointError, match=r"step 200: target_spread is .+, below 1e\+06: training has collapsed"):
        model.start_step(200, 1000)


def test_mt4ssl_adds_both_losses_and_counts_frames_once() -> None:
    whole = batch()
    model = tiny("mt4ssl", regression_weight=2.0, classification_weight=3.0)
    mask = model.draw_masks(whole, torch.Generator().manual_seed(0))
    losses = model.masked_losses(whole, mask)
    online, offline = (model.masked_losses(whole, mask)[name] for name in ("regression", "classification"))
    hidden = int(model.hidden_frames(model.hear(whole), mask).sum())
    assert losses["regression"].count + losses["classification"].count == hidden
    masked, count = losses["regression"].logs["masked_loss"]
    torch.testing.assert_close(masked, online.value + offline.value)
    assert count == hidden
    single = tiny("mt4ssl", regression_weight=0.0)
    assert single.teacher is None
    assert single.regress is None
    only = single.masked_losses(whole, mask)
    assert list(only) == ["classification"]
    assert only["classification"].count == hidden
    other = tiny("mt4ssl", classification_weight=0.0)
    assert other.classify is None
    assert list(other.masked_losses(replace(whole, targets={}), mask)) == ["regression"]


def test_mt4ssl_classifies_only_frames_that_have_units() -> None:
    whole, model = batch((8000, 8000)), tiny("mt4ssl")
    short = replace(whole, targets={"units": whole.targets["units"][:, :10]})
    mask = model.draw_masks(whole, torch.Generator().manual_seed(0))
    _, hidden, encoded = model.see(short, mask)
    logits, units = model.classified(encoded, hidden, short.targets["units"])
    assert len(units) == len(logits) == hidden.sum()
    assert (units >= 0).sum() == hidden[:, :10].sum()
    assert model.masked_losses(short, mask)["classification"].value < model.masked_losses(whole, mask)["classification"].value


@pytest.mark.parametrize(
    ("cls", "wrong", "message"),
    [
        (Data2VecConfig, {"targets": TargetConfig(layers=13)}, "targets.layers: 13 of 12 layers"),
        (MT4SSLConfig, {"units": 1}, "units: 1"),
        (MT4SSLConfig, {"label_rate": 0.0}, "give a positive number"),
        (MT4SSLConfig, {"regression_weight": 0.0, "classification_weight": 0.0}, "at least one above 0"),
    ],
)
def test_impossible_settings_are_refused(cls: Any, wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        cls(**wrong)
