"""wav2vec 2.0's targets and negatives."""

from typing import Any

import pytest
import torch

from avtlm.frontends.multimodal import InputMask
from avtlm.nn.quantize import QuantizerConfig
from avtlm.systems.wav2vec2 import Wav2Vec2Config
from tests.systems.speech_models import alone, batch, tiny

OPTIONS: dict[str, dict[str, Any]] = {
    "of the clip": {},
    "of all frames": {"negatives_from": "all", "batch_negatives": 2},
    "of the batch": {"negatives": 0, "batch_negatives": 4},
    "of codes": {"negatives": 2, "code_negatives": 3},
    "codes alone": {"negatives": 0, "code_negatives": 3},
    "not quantised": {"quantizer": None},
    "deep": {"quantizer": QuantizerConfig(2, 5, dim=6, depth=2, shared=True), "target_glu": True},
    "quantised inputs": {"input_quantizer": QuantizerConfig(2, 3)},
    "quantised inputs alone": {"quantizer": None, "input_quantizer": QuantizerConfig(2, 3)},
    "one quantiser": {"shared_quantizer": True},
    "frames by fours": {"frame_multiple": 4},
}


@pytest.mark.parametrize("changes", OPTIONS.values(), ids=OPTIONS)
def test_every_kind_of_negative_gives_a_loss_with_gradients(changes: dict[str, Any]) -> None:
    model, whole = tiny("wav2vec2", **changes).train(), batch()
    losses = model.losses(whole, torch.Generator().manual_seed(0))
    torch.stack([loss.value for loss in losses.values()]).sum().backward()
    assert losses["contrastive"].value.isfinite()
    assert losses["contrastive"].count > 0
    for parameter in (model.project_context.weight, model.project_target.weight, model.feature_mask):
        assert parameter.grad.abs().max() > 0
    assert ("diversity" in losses) is (model.quantizer is not None or model.input_quantizer is not None)
    if model.input_quantizer is not None:
        assert model.input_quantizer.entries.grad.abs().max() > 0


def test_negatives_are_other_hidden_frames_of_the_same_clip() -> None:
    model, whole = tiny("wav2vec2", same_mask_count=False), batch()
    heard = model.hear(whole)
    mask = model.draw_masks(whole, torch.Generator().manual_seed(0))
    hidden = model.hidden_frames(heard, mask)
    drawn = model.draw_negatives(heard, hidden, torch.Generator().manual_seed(1)).frames
    row = torch.nonzero(hidden)[:, 0]
    assert drawn.shape == (len(row), 6)
    assert torch.equal(row[drawn], row[:, None].expand_as(drawn))
    assert bool((drawn != torch.arange(len(row))[:, None]).all())


def test_negatives_from_all_frames_are_true_frames_of_the_clip_and_not_the_frame_itself() -> None:
    model, whole = tiny("wav2vec2", negatives_from="all", negatives=400), batch()
    heard = model.hear(whole)
    hidden = ~heard.padding
    drawn = model.draw_negatives(heard, hidden, torch.Generator().manual_seed(1)).frames
    row, own = torch.nonzero(hidden, as_tuple=True)
    assert torch.equal(drawn // 24, row[:, None].expand_as(drawn))
    assert bool((drawn % 24 < heard.lengths[row][:, None]).all())
    assert bool((drawn % 24 != own[:, None]).all())
    assert set((drawn[0] % 24).tolist()) == set(range(1, 24))


def test_a_clip_with_one_hidden_frame_has_nothing_to_lose() -> None:
    model, whole = tiny("wav2vec2"), batch((8000,))
    mask = InputMask(fused=torch.zeros(1, 24, dtype=torch.bool))
    mask.fused[0, 5] = True  # type: ignore[index]
    heard = model.hear(whole)
    negatives = model.draw_negatives(heard, model.hidden_frames(heard, mask), torch.Generator().manual_seed(0))
    assert model.masked_losses(heard, mask, negatives)["contrastive"].value == 0


def test_the_quantiser_cools_with_the_steps() -> None:
    model = tiny("wav2vec2", quantizer=QuantizerConfig(2, 5, start=2.0, end=0.5, decay=0.9))
    found = []
    for step in (0, 5, 100):
        model.start_step(step, 1000)
        found.append(model.quantizer.temperature)
    assert found == [2.0, pytest.approx(2 * 0.9**5), 0.5]


def test_quantised_inputs_stay_in_fine_tuning_and_features_do_not_depend_on_the_batch() -> None:
    for changes in ({"input_quantizer": QuantizerConfig(2, 3)}, {"shared_quantizer": True}):
        model = tiny("wav2vec2", **changes)
        model.drop_heads()
        assert model.quantizer is None
        model.start_step(5, 10)
        together, lengths = model.encode(batch())
        found, _ = model.encode(alone(batch(), 1))
        torch.testing.assert_close(found[0], together[1, : lengths[1]], atol=1e-4, rtol=1e-4)


def test_a_batch_may_lose_its_last_frames() -> None:
    model = tiny("wav2vec2", frame_multiple=5)
    encoded, lengths = model.encode(batch())
    assert encoded.shape[1] == 20
    assert lengths.tolist() == [20, 14, 18]


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"negatives": 0}, "there are none of any kind"),
        ({"quantizer": None, "code_negatives": 1}, "there are no codes without a quantizer"),
        ({"quantizer": None, "shared_quantizer": True}, "give a quantizer and no input_quantizer"),
        ({"frame_multiple": 0}, "frame_multiple: 0"),
    ],
)
def test_impossible_settings_are_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Wav2Vec2Config(**wrong)
