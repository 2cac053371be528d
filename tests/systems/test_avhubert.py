"""AV-HuBERT's sizes, masks and losses (equality with the official code: tests/test_golden.py)."""

from dataclasses import replace

import pytest
import torch

from avtlm import config, systems
from avtlm.data.batching import Batch
from avtlm.frontends.lips import LipEncoderConfig
from avtlm.frontends.multimodal import FrontEndConfig, InputMask
from avtlm.nn.transformer import EncoderConfig
from avtlm.objectives.masking import SpanMaskConfig
from avtlm.protocols import SpeechEncoder, Trainable
from avtlm.systems.avhubert import AVHubert, AVHubertConfig
from avtlm.systems.vatlm import VATLM, VATLMConfig

SPANS = SpanMaskConfig(0.5, 3)
LARGE = EncoderConfig(dim=1024, layers=24, heads=16, feed_forward_dim=4096)
TINY = AVHubertConfig(
    frontends=FrontEndConfig(
        lips=LipEncoderConfig(size=22, stem_channels=4, widths=(4,), blocks=(1,), strides=(2,)), phones=0, dropout=0.0
    ),
    encoder=EncoderConfig(
        dim=16, layers=2, heads=2, feed_forward_dim=16, position_kernel=4, position_groups=2, dropout=0, attention_dropout=0, layer_drop=0
    ),
    units=7,
    final_dim=4,
    audio_mask=SPANS,
    video_mask=SPANS,
)
OPTIONS = {
    "input": {},
    "feature": {"masking": "feature"},
    "dot": {"similarity": "dot"},
    "other clip": {"video_stand_in": "other_clip"},
    "add": {"frontends": replace(TINY.frontends, fusion="add")},
    "own layers": {"frontends": replace(TINY.frontends, layers=1)},
    "post-norm": {"encoder": replace(TINY.encoder, norm_first=False)},
    "experts": {"encoder": replace(TINY.encoder, experts=("audio", "video", "joint"), joint_layers=1)},
}


def tiny(**changes: object) -> AVHubert:
    torch.manual_seed(0)
    return AVHubert(replace(TINY, **changes)).eval()  # type: ignore[arg-type]


def batch(lengths: tuple[int, ...] = (12, 7, 9), rate: int = 1) -> Batch:
    generator = torch.Generator().manual_seed(1)
    rows, longest, counts = len(lengths), max(lengths), torch.tensor(lengths)
    units = torch.randint(0, 7, (rows, longest * rate), generator=generator)
    for row, n in enumerate(lengths):
        units[row, n * rate :] = -1
    video = torch.randint(0, 256, (rows, longest, 22, 22), generator=generator, dtype=torch.uint8)
    audio = torch.randn(rows, longest, 104, generator=generator)
    return Batch(tuple("abcdef"[:rows]), "audio_video", audio, counts, video, counts, targets={"units": units})


def parameters(settings: AVHubertConfig) -> int:
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in AVHubert(settings).parameters())


def test_base_and_large_have_the_official_numbers_of_parameters() -> None:
    assert parameters(AVHubertConfig()) == 103_330_280
    assert parameters(AVHubertConfig(encoder=LARGE)) == 325_398_504


def test_it_meets_the_protocols_and_stands_among_the_systems() -> None:
    assert isinstance(tiny(), Trainable)
    assert isinstance(tiny(), SpeechEncoder)
    system = systems.find("avhubert")
    assert type(system.build(config.load(system.config_class(), config.to_dict(TINY)))) is AVHubert


@pytest.mark.parametrize("changes", OPTIONS.values(), ids=OPTIONS)
def test_every_option_has_a_finite_loss_that_repeats_from_its_seed_and_trains_both_front_ends(changes: dict[str, object]) -> None:
    model = tiny(modality_dropout=0.0, **changes).train()
    losses, again, other = (model.losses(batch(), torch.Generator().manual_seed(seed)) for seed in (0, 0, 1))
    total = losses["masked_prediction"].value + losses["feature_penalty"].value
    total.backward()
    assert total.isfinite()
    for name in ("frontends.audio.weight", "frontends.lips.stem.weight"):
        gradient = dict(model.named_parameters())[name].grad
        assert gradient is not None
        assert gradient.abs().max() > 0
    assert losses["masked_prediction"].value.item() == pytest.approx(again["masked_prediction"].value.item(), rel=1e-4)
    assert losses["masked_prediction"].value != other["masked_prediction"].value


@pytest.mark.parametrize("changes", OPTIONS.values(), ids=OPTIONS)
def test_features_of_a_clip_do_not_depend_on_its_batch(changes: dict[str, object]) -> None:
    model, whole = tiny(**changes), batch()
    with torch.no_grad():
        together, lengths = model.encode(whole)
        for row, n in enumerate(lengths.tolist()):
            fields = {name: getattr(whole, name)[row : row + 1, :n] for name in ("audio", "video")}
            alone = Batch(("x",), "audio_video", fields["audio"], torch.tensor([n]), fields["video"], torch.tensor([n]))
            torch.testing.assert_close(model.encode(alone)[0][0], together[row, :n], atol=1e-5, rtol=1e-5)


def test_vatlm_without_phones_computes_what_avhubert_computes() -> None:
    model = tiny()
    twin = VATLM(config.load(VATLMConfig, config.to_dict(TINY)))
    twin.load_state_dict(model.state_dict())
    one, two = (each.losses(batch(), torch.Generator().manual_seed(3)) for each in (model, twin.eval()))
    assert one["masked_prediction"].value == two["masked_prediction"].value
    assert one["feature_penalty"].value == two["feature_penalty"].value


def test_experts_are_chosen_by_what_is_seen_and_modality_dropout_counts() -> None:
    model, whole = tiny(encoder=replace(TINY.encoder, experts=("audio", "video", "joint"))), batch((12, 12))
    silenced = {"audio": torch.tensor([True, False]), "video": torch.tensor([True, True])}
    with torch.no_grad():
        for module in model.encoder.layers[0].feed_forward.experts["video"].parameters():  # type: ignore[union-attr, index]
            module.mul_(3.0)
        dropped = model.encode(whole, keep=silenced)[0]
        torch.testing.assert_close(dropped[0], model.encode(whole)[0][0], atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(dropped[1], model.encode(whole.only("v"))[0][1], atol=1e-5, rtol=1e-5)


def test_of_units_at_100_hz_every_fourth_is_predicted() -> None:
    fine = batch(rate=4)
    assert fine.targets["units"].shape == (3, 48)
    coarse = replace(fine, targets={"units": fine.targets["units"][:, ::4]})
    mask = InputMask(audio=torch.ones(3, 12, dtype=torch.bool))
    quick, slow = tiny(label_rate=100.0).masked_losses(fine, mask), tiny().masked_losses(coarse, mask)
    assert quick["masked_prediction"].value == slow["masked_prediction"].value


def test_frames_without_units_are_left_out_also_at_100_hz() -> None:
    short = replace(batch((12, 12)), targets={"units": torch.zeros(2, 41, dtype=torch.long)})
    mask = InputMask(audio=torch.ones(2, 12, dtype=torch.bool))
    assert tiny(label_rate=100.0).masked_losses(short, mask)["masked_prediction"].count == 20


def test_stand_ins_of_another_clip_come_from_its_true_frames() -> None:
    mask = tiny(video_stand_in="other_clip").draw_masks(batch(), torch.Generator().manual_seed(0))
    assert mask.video is not None
    assert mask.video_source is not None
    assert mask.video_row is not None
    lengths = torch.tensor([12, 7, 9])
    own = torch.arange(3)
    assert bool((mask.video_row != own).all())
    assert bool((mask.video_source < lengths[mask.video_row][:, None])[mask.video].all())
    assert torch.equal(mask.video_source[~mask.video], torch.arange(12).expand(3, -1)[~mask.video])


def test_losses_of_several_inventories_are_added() -> None:
    one = batch()
    two = replace(one, targets={"units": one.targets["units"], "units_1": one.targets["units"].clamp(max=2)})
    mask = tiny().draw_masks(one, torch.Generator().manual_seed(0))
    for separate in (False, True):
        model = tiny(further_units=(3,), separate_projections=separate)
        head = model.predictor
        frames = torch.randn(5, 16)
        projections = head.project(frames).chunk(2 if separate else 1, -1)
        expected = torch.cosine_similarity(projections[-1][:, None], head.units[None, 7:], dim=-1) / 0.1
        torch.testing.assert_close(head(frames, 1), expected)
        found, view = model.masked_losses(two, mask)["masked_prediction"], model.predict(two, mask)
        hidden = view.hidden & ~view.padding
        parts = [
            torch.nn.functional.cross_entropy(head(view.encoded[hidden], index), units[hidden], reduction="sum")
            for index, units in enumerate(view.units)
        ]
        torch.testing.assert_close(found.value, parts[0] + parts[1])
        assert found.count == hidden.sum()
    with pytest.raises(ValueError, match="a: no labels 'units_1'; a model of 2 inventories learns from units, units_1"):
        tiny(further_units=(3,)).masked_losses(one, mask)


def test_hidden_channels_are_zero_behind_the_fusion_of_models_that_mask_there() -> None:
    model = tiny(masking="feature", channel_mask=SpanMaskConfig(0.4, 3, 0))
    mask = model.draw_masks(batch(), torch.Generator().manual_seed(0))
    assert mask.channels is not None
    assert 0 < int(mask.channels.sum()) < mask.channels.numel()
    seen: list[torch.Tensor] = []
    model.encoder.register_forward_hook(lambda _, given, __: seen.append(given[0]))
    view = model.predict(batch(), mask)
    assert torch.equal(seen[0] == 0, mask.channels[:, None].expand_as(seen[0]))
    assert (view.fused != 0).all()
    assert tiny(masking="feature").draw_masks(batch(), torch.Generator().manual_seed(0)).channels is None
    with pytest.raises(ValueError, match="input masking hides no channels"):
        tiny(channel_mask=SpanMaskConfig(0.4, 3, 0))


def test_weights_choose_the_frames_in_the_loss() -> None:
    mask = tiny().draw_masks(batch(), torch.Generator().manual_seed(0))
    hidden, visible, both = (
        tiny(masked_weight=m, visible_weight=v).masked_losses(batch(), mask)["masked_prediction"] for m, v in ((1, 0), (0, 1), (1, 1))
    )
    assert hidden.count + visible.count == both.count == 28
    torch.testing.assert_close(hidden.value + visible.value, both.value)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"units": 1}, "units: 1"),
        ({"masking": "feature", "video_mask": SpanMaskConfig()}, "both must be equal"),
        ({"frontends": FrontEndConfig()}, "AV-HuBERT takes no text"),
        ({"label_rate": 0.0}, "give a positive number"),
    ],
)
def test_impossible_settings_are_refused(wrong: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(TINY, **wrong)  # type: ignore[arg-type]
