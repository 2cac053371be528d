"""VATLM's sizes, masks, losses and its independence of batches (equality with the official code: test_vatlm_golden.py)."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from avtlm import systems
from avtlm.config import ConfigError
from avtlm.data.batching import Batch
from avtlm.frontends.lips import LipEncoderConfig
from avtlm.frontends.multimodal import FrontEndConfig, InputMask
from avtlm.nn.transformer import EncoderConfig
from avtlm.objectives.masking import SpanMaskConfig
from avtlm.protocols import SpeechEncoder, Trainable
from avtlm.systems.vatlm import VATLM, VATLMConfig

SPANS = SpanMaskConfig(0.5, 3)
TINY = VATLMConfig(
    frontends=FrontEndConfig(
        lips=LipEncoderConfig(size=22, stem_channels=4, widths=(4,), blocks=(1,), strides=(2,)), phones=9, dropout=0.0
    ),
    encoder=EncoderConfig(
        dim=16,
        layers=2,
        heads=2,
        feed_forward_dim=16,
        position_kernel=4,
        position_groups=2,
        dropout=0.0,
        attention_dropout=0.0,
        layer_drop=0.0,
    ),
    units=7,
    final_dim=4,
    audio_mask=SPANS,
    video_mask=SPANS,
    text_mask=SPANS,
    same_mask_count=False,
    dropout_per_row=True,
)
FEATURE = replace(TINY, masking="feature")
KINDS = {"audio_video": (True, True, False), "audio": (True, False, False), "audio_text": (True, False, True), "text": (False, False, True)}


def tiny(config: VATLMConfig = TINY) -> VATLM:
    torch.manual_seed(0)
    return VATLM(config).eval()


def batch(task: str, lengths: tuple[int, ...] = (12, 7, 9)) -> Batch:
    audio, video, text = KINDS[task]
    generator = torch.Generator().manual_seed(1)
    rows, longest, counts = len(lengths), max(lengths), torch.tensor(lengths)
    units = torch.randint(0, 7, (rows, longest), generator=generator)
    for row, n in enumerate(lengths):
        units[row, n:] = -1
    return Batch(
        tuple("abcdef"[:rows]),
        task,
        torch.randn(rows, longest, 104, generator=generator) if audio else None,
        counts if audio else None,
        torch.randint(0, 256, (rows, longest, 22, 22), generator=generator, dtype=torch.uint8) if video else None,
        counts if video else None,
        torch.randint(4, 9, (rows, 4 * longest), generator=generator) if text else None,
        4 * counts if text else None,
        {"units": units},
        {"units": counts},
    )


def row_of(whole: Batch, row: int) -> Batch:
    fields: dict[str, Tensor | None] = {}
    for name in ("audio", "video", "text"):
        value, lengths = getattr(whole, name), getattr(whole, f"{name}_lengths")
        n = 0 if lengths is None else int(lengths[row])
        fields |= {
            name: None if value is None else value[row : row + 1, :n],
            f"{name}_lengths": None if lengths is None else lengths[row : row + 1],
        }
    n = int(whole.target_lengths["units"][row])
    return replace(whole, ids=(whole.ids[row],), **fields, targets={"units": whole.targets["units"][row : row + 1, :n]}, target_lengths={})  # type: ignore[arg-type]


def parameters(config: VATLMConfig) -> int:
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in VATLM(config).parameters())


def test_base_and_large_have_the_official_numbers_of_parameters() -> None:
    assert parameters(VATLMConfig()) == 107_497_448
    assert parameters(VATLMConfig(encoder=EncoderConfig(dim=1024, layers=24, heads=16, feed_forward_dim=4096))) == 332_789_736


def test_without_phones_it_has_the_size_of_avhubert() -> None:
    assert parameters(VATLMConfig(frontends=FrontEndConfig(phones=0))) == 103_330_280


def test_it_meets_the_protocols() -> None:
    model = tiny()
    assert isinstance(model, Trainable)
    assert isinstance(model, SpeechEncoder)


@pytest.mark.parametrize("config", [TINY, FEATURE], ids=["input", "feature"])
@pytest.mark.parametrize("task", KINDS)
def test_every_kind_of_batch_has_a_finite_loss_and_trains_its_own_front_ends(config: VATLMConfig, task: str) -> None:
    model = tiny(replace(config, modality_dropout=0.0)).train()
    losses = model.losses(batch(task), torch.Generator().manual_seed(0))
    assert set(losses) == {"masked_prediction", "feature_penalty"}
    assert losses["masked_prediction"].count > 0
    assert losses["feature_penalty"].count == 0
    sum(loss.value for loss in losses.values()).backward()  # type: ignore[union-attr]
    audio, video, text = KINDS[task]
    for there, parameter in (
        (audio, model.frontends.audio.weight),
        (video, model.frontends.lips.stem.weight),
        (text, model.frontends.text.embedding.weight if model.frontends.text else None),
    ):
        assert parameter is not None
        assert (parameter.grad is not None and bool(parameter.grad.abs().max() > 0)) == there
    assert model.predictor.units.grad is not None
    assert all(p.grad is None or bool(p.grad.isfinite().all()) for p in model.parameters())


@pytest.mark.parametrize("config", [TINY, FEATURE], ids=["input", "feature"])
@pytest.mark.parametrize("task", KINDS)
def test_the_loss_of_a_clip_does_not_depend_on_its_batch(config: VATLMConfig, task: str) -> None:
    """With the masks given. (A batch of one is hidden with zeros by the official rule, so every clip is looked at beside two copies.)"""
    model, whole = tiny(replace(config, feature_penalty=0.0)), batch(task)
    mask = model.draw_masks(whole, torch.Generator().manual_seed(3))
    together = model.masked_losses(whole, mask)["masked_prediction"]
    total, count = 0.0, 0
    for row in range(3):
        alone = row_of(whole, row)
        n = alone.targets["units"].shape[1]
        cut = InputMask(
            *(None if m is None else m[row : row + 1, :n].expand(2, -1) for m in (mask.audio, mask.video, mask.video_source, mask.fused))
        )
        twice = replace(alone._map(lambda t: t.expand(2, *t.shape[1:])), ids=("x", "y"))
        loss = model.masked_losses(twice, cut)["masked_prediction"]
        total, count = total + loss.value.item() / 2, count + int(loss.count) // 2
    assert together.value.item() == pytest.approx(total, rel=1e-5)
    assert together.count == count


@pytest.mark.parametrize("task", KINDS)
@pytest.mark.parametrize("layer", [None, 1])
def test_features_of_a_clip_do_not_depend_on_its_batch(task: str, layer: int | None) -> None:
    model, whole = tiny(), batch(task)
    with torch.no_grad():
        together, lengths = model.encode(whole, layer)
        for row in range(3):
            alone, n = model.encode(row_of(whole, row), layer)
            assert n == lengths[row]
            torch.testing.assert_close(together[row, : int(n)], alone[0], atol=1e-5, rtol=1e-5)


def test_masks_follow_what_is_there() -> None:
    model, generator = tiny(), torch.Generator().manual_seed(0)
    both = model.draw_masks(batch("audio_video"), generator)
    assert both.audio is not None
    assert both.video is not None
    assert both.fused is None
    assert not torch.equal(both.audio, both.video)
    only = model.draw_masks(batch("audio"), generator)
    assert only.audio is not None
    assert only.video is None
    text = model.draw_masks(batch("text"), generator)
    assert text.fused is not None
    assert text.fused.shape == (3, 12)
    fused = tiny(FEATURE).draw_masks(batch("audio_video"), generator)
    assert fused.audio is None
    assert fused.fused is not None


def test_the_same_seed_gives_the_same_loss_and_another_seed_another() -> None:
    model, whole = tiny(), batch("audio_video")
    values = [model.losses(whole, torch.Generator().manual_seed(seed))["masked_prediction"].value.item() for seed in (1, 1, 2)]
    assert values[0] == values[1]
    assert values[0] != values[2]


def test_frames_without_a_unit_are_not_trained_on() -> None:
    model, whole = tiny(), batch("audio")
    everything = InputMask(audio=torch.ones(3, 12, dtype=torch.bool))
    units = torch.full((3, 12), -1)
    units[0, :2] = 3
    assert model.masked_losses(replace(whole, targets={"units": units}), everything)["masked_prediction"].count == 2


def test_units_shorter_or_longer_than_the_features_are_matched_at_the_end() -> None:
    model, whole = tiny(), batch("audio", (12, 12, 12))
    everything = InputMask(audio=torch.ones(3, 12, dtype=torch.bool))
    for width, count in ((10, 30), (12, 36), (14, 36)):
        loss = model.masked_losses(replace(whole, targets={"units": torch.zeros(3, width, dtype=torch.long)}), everything)
        assert loss["masked_prediction"].count == count


def test_the_feature_penalty_is_the_mean_square_of_true_frames_times_hidden_frames() -> None:
    model, whole = tiny(), batch("audio")
    mask = model.draw_masks(whole, torch.Generator().manual_seed(0))
    joined = model.frontends.join(whole, mask).joined
    frames = torch.cat([joined[row, :n] for row, n in enumerate((12, 7, 9))])
    losses = model.masked_losses(whole, mask)
    expected = 10 * frames.square().mean() * losses["masked_prediction"].count
    torch.testing.assert_close(losses["feature_penalty"].value, expected)


def test_impossible_settings_are_refused() -> None:
    with pytest.raises(ValueError, match="units: 1"):
        VATLMConfig(units=1)
    with pytest.raises(ValueError, match="both must be equal"):
        VATLMConfig(masking="feature")


def test_unknown_systems_are_named() -> None:
    with pytest.raises(ConfigError, match=r"'vatml' is unknown; choose one of .*vatlm"):
        systems.find("vatml")


def test_kinds_of_batches_are_weighed_and_the_official_penalty_counts_the_frames_of_all_kinds_so_far() -> None:
    plain, weighed = tiny(replace(TINY, penalty_running_total=True)), tiny(replace(TINY, text_weight=0.5, audio_weight=2.0))
    batches = [batch(task) for task in ("text", "audio", "audio_video", "audio_text")]
    losses = [plain.losses(each, torch.Generator().manual_seed(0)) for each in batches]
    factors = {"text": 0.5, "audio": 2.0}
    for each, before, after in zip(batches, losses, weighed.combine(batches, losses), strict=True):
        for name in ("masked_prediction", "feature_penalty"):
            assert after[name].value == before[name].value * factors.get(each.task, 1.0)
            assert after[name].count == before[name].count
    counted = plain.combine(batches, losses)
    total = 0
    for index in (2, 3, 0, 1):  # audio and video, audio and text, text, audio
        count = int(losses[index]["masked_prediction"].count)
        total += count
        expected = losses[index]["feature_penalty"].value / count * total
        torch.testing.assert_close(counted[index]["feature_penalty"].value, expected)
        assert counted[index]["masked_prediction"].value == losses[index]["masked_prediction"].value
