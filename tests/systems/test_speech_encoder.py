"""What all systems over waveforms have in common (equality with official code: tests/test_golden.py)."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from avtlm import config, systems
from avtlm.data.batching import Batch
from avtlm.frontends.multimodal import InputMask
from avtlm.nn.transformer import EncoderConfig
from avtlm.objectives.loss import Loss
from avtlm.objectives.masking import SpanMaskConfig
from avtlm.protocols import DropsHeads, PredictsUnits, SpeechEncoder, Trainable
from avtlm.systems.hubert import Hubert, HubertConfig
from avtlm.systems.wav2vec2 import Wav2Vec2, Wav2Vec2Config
from tests.systems.speech_models import CLASSES, CONFIGS, alone, batch, tiny

each_system = pytest.mark.parametrize("system", CLASSES)
LARGE = EncoderConfig(dim=1024, layers=24, heads=16, feed_forward_dim=4096, layer_drop=0.0)


def parameters(model: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


def total(losses: dict[str, Loss]) -> torch.Tensor:
    return torch.stack([loss.value for loss in losses.values()]).sum()


@pytest.mark.parametrize(
    ("system", "whole", "encoder"),
    [
        ("wav2vec2", 95_044_608, 94_371_712),
        ("hubert", 94_697_600, 94_371_712),
        ("wavlm", 94_707_824, 94_381_936),
        ("data2vec", 93_754_880, 93_164_288),
        ("mt4ssl", 94_142_456, 93_164_288),
    ],
)
def test_defaults_have_the_published_numbers_of_parameters(system: str, whole: int, encoder: int) -> None:
    with torch.device("meta"):
        model = CLASSES[system](systems.find(system).config_class()())
        assert parameters(model) == whole
        model.drop_heads()
        assert sum(parameter.numel() for parameter in model.parameters()) == encoder


def test_large_models_have_the_published_numbers_of_parameters() -> None:
    waveform = replace(HubertConfig().waveform, norm="layer")
    with torch.device("meta"):
        assert parameters(Hubert(HubertConfig(waveform=waveform, encoder=LARGE, final_dim=768))) == 316_609_408
        wav2vec2 = Wav2Vec2(Wav2Vec2Config(waveform=replace(waveform, bias=True), encoder=LARGE, final_dim=768))
        assert parameters(wav2vec2) == 317_390_592
        wav2vec2.drop_heads()
        assert parameters(wav2vec2) == 315_438_720


@each_system
def test_it_meets_the_protocols_and_stands_among_the_systems(system: str) -> None:
    model = tiny(system)
    assert isinstance(model, Trainable)
    assert isinstance(model, SpeechEncoder)
    assert isinstance(model, DropsHeads)
    found = systems.find(system)
    assert isinstance(model, PredictsUnits) is found.units
    assert type(found.build(config.load(found.config_class(), config.to_dict(CONFIGS[system])))) is CLASSES[system]
    assert (model.input_format.waveform, model.input_format.frame_rate, model.input_format.video_size) == (True, 50.0, None)


@each_system
def test_the_loss_is_finite_repeats_from_its_seed_and_trains_everything(system: str) -> None:
    model = tiny(system)
    model.train()
    seeded = []
    for seed in (0, 0, 1):
        torch.manual_seed(7)
        seeded.append(total(model.losses(batch(), torch.Generator().manual_seed(seed))))
    assert torch.equal(seeded[0], seeded[1])
    assert seeded[0] != seeded[2]
    seeded[0].backward()
    silent = {name for name, parameter in model.named_parameters() if parameter.requires_grad and not _moved(parameter)}
    assert silent == set()


def _moved(parameter: torch.nn.Parameter) -> bool:
    return parameter.grad is not None and bool(parameter.grad.isfinite().all()) and bool(parameter.grad.abs().max() > 0)


@each_system
def test_features_of_a_clip_do_not_depend_on_its_batch(system: str) -> None:
    model, whole = tiny(system), batch()
    with torch.no_grad():
        for layer in (None, 1):
            together, lengths = model.encode(whole, layer)
            assert lengths.tolist() == [24, 14, 18]
            for row, n in enumerate(lengths.tolist()):
                found, counted = model.encode(alone(whole, row), layer)
                assert counted.tolist() == [n]
                torch.testing.assert_close(found[0], together[row, :n], atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("system", ["hubert", "data2vec", "mt4ssl"])
def test_the_loss_of_a_batch_is_the_sum_of_its_clips(system: str) -> None:
    model, whole = tiny(system), batch()
    if system == "hubert":  # its penalty is a mean over the batch
        model = tiny(system, feature_penalty=0.0)
    mask = model.draw_masks(whole, torch.Generator().manual_seed(0))
    together = model.masked_losses(whole, mask)
    frames = model.encode(whole)[1].tolist()
    apart = [model.masked_losses(alone(whole, row), InputMask(fused=mask.fused[row : row + 1, :n])) for row, n in enumerate(frames)]
    for name, loss in together.items():
        torch.testing.assert_close(loss.value, torch.stack([each[name].value for each in apart]).sum(), rtol=1e-4, atol=1e-3)
        assert loss.count == sum(each[name].count for each in apart)


@each_system
def test_frozen_convolutions_get_no_gradient_and_the_rest_does(system: str) -> None:
    model = tiny(system, feature_gradient_scale=0.0)
    total(model.losses(batch(), torch.Generator().manual_seed(0))).backward()
    assert all(parameter.grad is None for parameter in model.frontend.layers.parameters())
    assert model.frontend.project.weight.grad is not None


def test_hidden_frames_and_channels_are_replaced() -> None:
    frames, channels = torch.zeros(1, 24, dtype=torch.bool), torch.zeros(1, 16, dtype=torch.bool)
    frames[0, 3], channels[0, 5] = True, True
    mask, x = InputMask(fused=frames, channels=channels), torch.ones(1, 24, 16)
    for first in (False, True):
        model = tiny("hubert", channels_first=first)
        seen = model.hide(x, mask)[0]
        assert (seen[:, 5] == 0).sum() == (23 if first else 24)
        assert torch.equal(seen[3, :5], model.feature_mask[:5])
        assert torch.equal(seen[4, :5], torch.ones(5))


def test_masks_of_channels_are_drawn_in_whole_spans() -> None:
    spans = SpanMaskConfig(prob=0.5, length=4, min_spans=1)
    mask = tiny("hubert").draw_masks(batch(), torch.Generator().manual_seed(0), channels=spans)
    assert mask.channels.shape == (3, 16)
    assert bool((mask.channels.sum(1) >= 4).all())
    assert tiny("hubert").draw_masks(batch(), torch.Generator().manual_seed(0)).channels is None


def test_a_clip_that_would_be_hidden_whole_is_refused_by_name() -> None:
    model = tiny("hubert", mask=SpanMaskConfig(prob=0.9, length=10, min_spans=2))
    short = batch((8000, 900))
    with pytest.raises(ValueError, match=r"b: all 2 frames of this clip would be hidden by spans of 10; raise min_seconds"):
        _ = [model.draw_masks(short, torch.Generator().manual_seed(seed)) for seed in range(20)]


@pytest.mark.parametrize(("audio", "found"), [(None, "no sound"), (torch.zeros(1, 5, 104), "features")])
def test_what_is_no_waveform_is_refused(audio: Any, found: str) -> None:
    with pytest.raises(ValueError, match=f"clip: {found} where this model takes a waveform"):
        tiny("hubert").encode(Batch(("clip",), "audio", audio, torch.tensor([5])))


def test_a_negative_scale_is_refused() -> None:
    with pytest.raises(ValueError, match="feature_gradient_scale: -1"):
        HubertConfig(feature_gradient_scale=-1.0)
