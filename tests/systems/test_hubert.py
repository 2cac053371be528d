"""HuBERT's units."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from avtlm.data.dataset import Source
from avtlm.data.inputs import InputFormat
from avtlm.frontends.multimodal import InputMask
from avtlm.objectives.masked_prediction import units_of_frames
from avtlm.systems.hubert import HubertConfig
from avtlm.training.initial import check_inventory
from tests.systems.speech_models import batch, tiny

HIDDEN = InputMask(fused=torch.ones(3, 24, dtype=torch.bool))


def test_of_units_at_100_hz_every_second_is_predicted() -> None:
    fine = batch(rate=100)
    coarse = replace(fine, targets={"units": fine.targets["units"][:, ::2]})
    quick, slow = tiny("hubert", label_rate=100.0).masked_losses(fine, HIDDEN), tiny("hubert").masked_losses(coarse, HIDDEN)
    assert quick["masked_prediction"].value == slow["masked_prediction"].value
    assert units_of_frames(fine.targets["units"], 24, 2.0).shape == (3, 24)


def test_frames_without_units_are_left_out() -> None:
    whole = batch((8000, 8000))
    short = replace(whole, targets={"units": whole.targets["units"][:, :20]})
    mask = InputMask(fused=torch.ones(2, 24, dtype=torch.bool))
    assert tiny("hubert").masked_losses(short, mask)["masked_prediction"].count == 40
    padded = replace(whole, targets={"units": torch.cat([short.targets["units"], torch.full((2, 5), -1)], 1)})
    assert tiny("hubert").masked_losses(padded, mask)["masked_prediction"].count == 40


@pytest.mark.parametrize("separate", [False, True])
@pytest.mark.parametrize("glu", [False, True])
def test_losses_of_several_inventories_are_added(separate: bool, glu: bool) -> None:
    whole = batch()
    both = replace(whole, targets={"units": whole.targets["units"], "units_1": whole.targets["units"].clamp(max=2)})
    model = tiny("hubert", further_units=(3,), separate_projections=separate, unit_glu=glu)
    assert model.predictor.project.out_features == (8 if separate else 4)
    loss = model.masked_losses(both, HIDDEN)["masked_prediction"]
    heard = model.hear(both)
    encoded = model.encoder(model.hide(heard.projected, HIDDEN), heard.lengths)[~heard.padding]
    parts = [
        torch.nn.functional.cross_entropy(model.predictor(encoded, index), labels[~heard.padding], reduction="sum")
        for index, labels in enumerate(model.units_of(both))
    ]
    torch.testing.assert_close(loss.value, parts[0] + parts[1])
    assert loss.count == 24 + 14 + 18


def test_missing_labels_of_an_inventory_are_named() -> None:
    with pytest.raises(ValueError, match="a: no labels 'units_1'; a model of 2 inventories learns from units, units_1"):
        tiny("hubert", further_units=(3,)).masked_losses(batch(), HIDDEN)


def test_official_padding_counts_one_frame_more() -> None:
    official = replace(tiny("hubert").config.waveform, frame_padding="samples")
    assert tiny("hubert", waveform=official).encode(batch())[1].tolist() == [24, 15, 19]


@pytest.mark.parametrize(("wrong", "message"), [({"units": 1}, "units: 1"), ({"label_rate": 0.0}, "give a positive number")])
def test_impossible_settings_are_refused(wrong: dict[str, float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        HubertConfig(**wrong)  # type: ignore[arg-type]


def test_units_of_a_source_have_to_be_those_that_the_model_predicts() -> None:
    def of(**labels: list[int]) -> SimpleNamespace:
        first, *further = ({"a": np.array(row, dtype=np.int32)} for row in labels.values())
        source = Source("manifest.jsonl", "audio")
        return SimpleNamespace(labels=first, further_labels=further, inputs=InputFormat(), source=source, phonemes=None)

    model = tiny("hubert", further_units=(3,))
    check_inventory(model, {"sources.fits": of(units=[6], more=[2])}, None)  # type: ignore[dict-item]
    with pytest.raises(ValueError, match=r"sources\.x\.further_units: has unit 3, but the model predicts 3 units"):
        check_inventory(model, {"sources.x": of(units=[6], more=[3])}, None)  # type: ignore[dict-item]
    with pytest.raises(ValueError, match=r"sources\.x\.further_units: 3 inventories, but the model predicts fewer"):
        check_inventory(model, {"sources.x": of(units=[6], more=[2], most=[1])}, None)  # type: ignore[dict-item]
