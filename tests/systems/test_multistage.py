"""The audio-visual model of the first stage: what it removes and rebuilds, what it compares, what stays of it, and what it refuses."""

import dataclasses
import math
from typing import Any

import pytest
import torch

from avtlm.config import ConfigError, load
from avtlm.data.batching import Batch
from avtlm.frontends.lips import LipEncoderConfig
from avtlm.frontends.multimodal import InputMask
from avtlm.frontends.subsampling import SubsamplingConfig
from avtlm.frontends.video_tokens import PatchConfig
from avtlm.nn.transformer import EncoderConfig
from avtlm.objectives.masking import SpanMaskConfig
from avtlm.objectives.removal import RemovalConfig
from avtlm.systems.multistage import AudioVisualPretrain, MultistageConfig, Removed, own_frames

LIPS = LipEncoderConfig(22, 4, 2, False, (8,), (1,), (2,), "relu", "flatten")


def layers(dim: int, count: int) -> EncoderConfig:
    return EncoderConfig(dim, count, 2, 2 * dim, dropout=0.0, attention_dropout=0.0, layer_drop=0.0, position_kernel=0)


def model(**changes: Any) -> AudioVisualPretrain:
    torch.manual_seed(0)
    settings: dict[str, Any] = {
        "subsampling": SubsamplingConfig(bands=15),
        "encoder": layers(16, 2),
        "position_kernel": 5,
        "position_groups": 4,
        "lips": LIPS,
        "lip_cells": 11,
        "patches": PatchConfig(22, 11, 4),
        "video_layers": 1,
        "joint_layers": 1,
        "decoder": layers(8, 1),
        "decoder_kernel": 3,
        "contrast_dim": 8,
    }
    return AudioVisualPretrain(MultistageConfig(**settings | changes)).eval()


def batch(seconds: tuple[float, ...] = (1.2, 0.8, 1.0), seed: int = 0) -> Batch:
    generator = torch.Generator().manual_seed(seed)
    samples = torch.tensor([round(16000 * length) for length in seconds])
    frames = torch.tensor([round(25 * length) for length in seconds])
    audio = torch.randn(len(seconds), int(samples.max()), generator=generator) * 0.1
    video = torch.randint(256, (len(seconds), int(frames.max()), 22, 22), generator=generator, dtype=torch.uint8)
    for row, (sound, shown) in enumerate(zip(samples.tolist(), frames.tolist(), strict=True)):
        audio[row, sound:], video[row, shown:] = 0.0, 0
    return Batch(tuple(f"clip{row}" for row in range(len(seconds))), "audio_video", audio, samples, video, frames)


def test_what_every_frame_of_a_clip_has_in_common_is_not_heard() -> None:
    net, given = model(), batch()
    before, lengths = net.encode(given)
    removed = drawn(net, given).audio
    some = net.listen(net.hear(given), removed)
    with torch.no_grad():
        net.frontend.project.bias += torch.linspace(-30, 30, 16)
    after, _ = net.encode(given)
    for row, length in enumerate(lengths.tolist()):
        assert torch.allclose(after[row, :length], before[row, :length], atol=2e-4)
    assert torch.allclose(net.listen(net.hear(given), removed), some, atol=2e-4)


def drawn(net: AudioVisualPretrain, given: Batch) -> Removed:
    return net.draw_removed(net.hear(given), net.see(given), torch.Generator().manual_seed(1))


@pytest.mark.parametrize("video", ["lips", "patches"])
@pytest.mark.parametrize(
    ("objective", "names"),
    [
        ("mae", ["audio_reconstruction", "video_reconstruction"]),
        ("clr", ["contrast"]),
        ("both", ["audio_reconstruction", "video_reconstruction", "contrast"]),
    ],
)
def test_every_objective_has_its_losses_and_trains_all_that_it_has(objective: str, names: list[str], video: str) -> None:
    net = model(objective=objective, video=video)
    found = net.losses(batch(), torch.Generator().manual_seed(0))
    assert list(found) == names
    assert sum(int(loss.count) for loss in found.values()) == 3
    torch.stack([loss.value for loss in found.values()]).sum().backward()
    assert [name for name, parameter in net.named_parameters() if parameter.grad is None] == []


def test_both_is_the_sum_of_the_two_with_a_weight() -> None:
    net, given = model(objective="both", contrast_weight=0.25), batch()
    heard, seen = net.hear(given), net.see(given)
    assert seen is not None
    found = net.removed_losses(heard, seen, drawn(net, given))
    contrast = net.contrast(heard, seen)
    assert found["contrast"].value.item() == pytest.approx(0.25 * contrast.value.item(), rel=1e-5)


def test_sound_alone_is_rebuilt_without_looking() -> None:
    net = model(objective="mae", video="none")
    assert net.input_format.video_size is None
    assert list(net.losses(batch(), torch.Generator().manual_seed(0))) == ["audio_reconstruction"]
    without = dataclasses.replace(batch(), video=None, video_lengths=None)
    one, other = (net.losses(each, torch.Generator().manual_seed(0))["audio_reconstruction"].value for each in (batch(), without))
    assert torch.equal(one, other)


def test_nothing_of_a_removed_token_is_seen() -> None:
    net, given = model(objective="mae", removal=RemovalConfig(video_span=5)), batch((1.2,))
    removed = drawn(net, given)
    assert removed.video is not None
    heard, seen = net.hear(given), net.see(given)
    assert seen is not None
    hidden = own_frames(removed.audio, heard.features.shape[1])
    other = dataclasses.replace(heard, features=torch.where(hidden[..., None], heard.features + 3.0, heard.features))
    assert torch.equal(net.listen(heard, removed.audio), net.listen(other, removed.audio))
    assert not torch.equal(net.listen(heard), net.listen(other))
    dark = seen.video.clone()
    dark[removed.video] = 0
    assert net.pretraining is not None
    changed = dataclasses.replace(seen, video=dark)
    assert torch.equal(net.pretraining.watch(seen, removed.video), net.pretraining.watch(changed, removed.video))


def test_a_token_owns_the_four_frames_in_the_middle_of_what_it_sees() -> None:
    net = model()
    heard = net.hear(batch((0.5,)))
    assert heard.targets.shape == (1, heard.tokens, 60)
    assert torch.equal(heard.targets[0, 3], heard.features[0, 14:18].flatten())
    assert own_frames(torch.tensor([[False, True]]), 12).int().tolist() == [[0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 0, 0]]


@pytest.mark.parametrize("video", ["lips", "patches"])
def test_what_a_clip_gives_does_not_depend_on_its_batch(video: str) -> None:
    net, together = model(objective="mae", video=video), batch()
    removed = drawn(net, together)
    assert removed.video is not None
    heard, seen = net.hear(together), net.see(together)
    assert seen is not None
    alone = batch()
    for row in range(3):
        samples, frames = int(alone.audio_lengths[row]), int(alone.video_lengths[row])  # type: ignore[index]
        one = Batch(
            (f"clip{row}",),
            "audio_video",
            alone.audio[row : row + 1, :samples],  # type: ignore[index]
            torch.tensor([samples]),
            alone.video[row : row + 1, :frames],  # type: ignore[index]
            torch.tensor([frames]),
        )
        own, own_video = net.hear(one), net.see(one)
        assert own_video is not None
        tokens, pictures = own.tokens, int(own_video.counts[0])
        gone = Removed(removed.audio[row : row + 1, :tokens], removed.video[row : row + 1, :pictures])
        assert gone.video is not None
        assert net.pretraining is not None
        assert torch.allclose(net.listen(own), net.listen(heard)[row : row + 1, :tokens], atol=1e-5)
        assert torch.allclose(net.listen(own, gone.audio), net.listen(heard, removed.audio)[row : row + 1, :tokens], atol=1e-5)
        whole = net.pretraining.watch(seen, removed.video)[row : row + 1, :pictures]
        assert torch.allclose(net.pretraining.watch(own_video, gone.video), whole, atol=1e-5)


def test_a_mean_of_single_clips_is_the_loss_of_a_batch_of_equal_lengths() -> None:
    net, given = model(objective="mae"), batch((1.0, 1.0))
    heard, seen = net.hear(given), net.see(given)
    assert seen is not None
    removed = Removed(torch.zeros(2, heard.tokens, dtype=torch.bool), torch.zeros(2, 25, dtype=torch.bool))
    assert removed.video is not None
    removed.audio[:, 3:12] = removed.video[:, 5:20] = True
    both = net.removed_losses(heard, seen, removed)
    each = []
    for row in range(2):
        part = slice(row, row + 1)
        one = dataclasses.replace(
            heard, features=heard.features[part], feature_lengths=heard.feature_lengths[part], lengths=heard.lengths[part]
        )
        shown = dataclasses.replace(seen, video=seen.video[part], lengths=seen.lengths[part], counts=seen.counts[part])
        each.append(net.removed_losses(one, shown, Removed(removed.audio[part], removed.video[part])))
    for name, loss in both.items():
        assert loss.value.item() == pytest.approx(sum(one[name].value.item() for one in each), rel=1e-4)


def test_unremarkable_clips_cost_the_logarithm_of_their_number() -> None:
    net = model(objective="clr")
    assert net.pretraining is not None
    assert net.pretraining.projections is not None
    for projection in net.pretraining.projections:
        torch.nn.init.zeros_(projection.weight)  # type: ignore[arg-type]
        torch.nn.init.ones_(projection.bias)  # type: ignore[arg-type]
    loss = net.losses(batch(), torch.Generator())["contrast"]
    assert float((loss.value / loss.count).detach()) == pytest.approx(math.log(3), abs=1e-5)


def test_the_temperature_is_learned_within_bounds() -> None:
    net = model(objective="clr")
    assert net.pretraining is not None
    assert net.pretraining.temperature.item() == pytest.approx(0.07)
    with torch.no_grad():
        net.pretraining.log_temperature.fill_(-9.0)
    assert net.pretraining.temperature.item() == pytest.approx(0.01)


def test_what_stays_is_the_audio_encoder_and_gives_the_same() -> None:
    net, given = model(), batch()
    before, lengths = net.encode(given)
    assert net.input_format.video_size == 22
    net.drop_heads()
    after, _ = net.encode(given)
    assert torch.equal(before, after)
    assert lengths.tolist() == [28, 18, 23]
    assert net.input_format.video_size is None
    assert {name.split(".")[0] for name, _ in net.named_parameters()} == {"frontend", "norm", "positions", "encoder"}


def test_fine_tuning_silences_frames_and_bands() -> None:
    net, given = model(), batch()
    spans = SpanMaskConfig(prob=0.5, length=3, min_spans=1)
    mask = net.draw_masks(given, torch.Generator().manual_seed(0), spans, spans)
    assert mask.fused is not None
    assert mask.channels is not None
    assert mask.fused.shape == (3, 28)
    assert mask.channels.shape == (3, 15)
    assert mask.fused.any()
    assert mask.channels.any()
    heard = net.hear(given)
    loud = own_frames(mask.fused, heard.features.shape[1])[..., None] | mask.channels[:, None]
    other = dataclasses.replace(heard, features=torch.where(loud, heard.features + 2.0, heard.features))
    assert torch.equal(net.listen(heard, mask=mask), net.listen(other, mask=mask))
    assert torch.equal(net.listen(heard), net.listen(heard, mask=InputMask()))


def test_clips_without_video_or_sound_are_refused_in_one_sentence() -> None:
    net, given = model(), batch()
    generator = torch.Generator()
    with pytest.raises(ValueError, match=r"^clip0: no video, which audio-visual pre-training needs of every clip; .*model.video none.*\.$"):
        net.losses(dataclasses.replace(given, video=None, video_lengths=None), generator)
    with pytest.raises(ValueError, match=r"^clip1: no video"):
        net.losses(dataclasses.replace(given, video_lengths=torch.tensor([30, 0, 25])), generator)
    with pytest.raises(ValueError, match=r"^clip2: no sound, or less than one frame of it; leave the clip out"):
        net.losses(dataclasses.replace(given, audio_lengths=torch.tensor([19200, 12800, 300])), generator)
    with pytest.raises(ValueError, match=r"^clip0: features where this model takes a waveform"):
        net.encode(dataclasses.replace(given, audio=torch.zeros(3, 5, 4)))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"video": "none"}, "objective both compares sound with video"),
        ({"encoder": {"dim": 16, "heads": 2}}, "encoder: set position_kernel"),
        ({"position_kernel": 0}, "give at least 1 of each"),
        ({"temperature": 2.0}, "give a temperature from 0.01 to 1"),
        ({"objective": "jepa"}, "expected one of 'mae', 'clr', 'both'"),
    ],
)
def test_wrong_settings_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        load(MultistageConfig, changes)
