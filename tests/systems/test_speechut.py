"""SpeechUT beside what a replay of the stored cases shows: its sizes, its tasks, what is mixed, and how it is searched."""

from dataclasses import replace
from typing import Any

import pytest
import torch

from avtlm import config
from avtlm.data.batching import Batch
from avtlm.decoding.settings import DecodingConfig
from avtlm.frontends.multimodal import InputMask
from avtlm.nn.transformer import EncoderConfig
from avtlm.nn.unit_encoder import UnitEncoderConfig
from avtlm.objectives.loss import Loss
from avtlm.objectives.masking import SpanMaskConfig
from avtlm.protocols import CombinesLosses, DropsHeads, FollowsSteps, PredictsUnits, SpeechEncoder, Trainable
from avtlm.systems.speechut import SpeechUT, SpeechUTConfig, SpeechUTLosses
from avtlm.systems.unit_bridge import Drawn
from avtlm.text.vocabulary import PAD, SPECIALS, Vocabulary
from avtlm.whole_model import WholeModel
from tests.systems.bridge_models import DECODER, LETTERS, SAMPLES, UNIT_ENCODER, speech, text
from tests.systems.speech_models import ENCODER, SHARED

WIDE = {"dim": 1024, "layers": 12, "heads": 16, "feed_forward_dim": 4096}
SPEECHUT = SpeechUTConfig(
    **SHARED | {"encoder": replace(ENCODER, key_distance=3)},
    unit_encoder=UNIT_ENCODER,
    decoder=DECODER,
    units=11,
    final_dim=4,
    vocabulary=10,
    swap=SpanMaskConfig(0.4, 2),
)
SYMBOLS = (*SPECIALS, *"abcde", "<mask>")
NOTHING = SpanMaskConfig(prob=0.0)


def speechut(**changes: Any) -> SpeechUT:
    """In evaluation mode; parameters off their start values, so that leaving one out shows."""
    model = SpeechUT(replace(SPEECHUT, **changes))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(0.3 * torch.randn(parameter.shape, generator=generator))
    return model.eval()


def alone(row: int | None = None) -> Batch:
    """Units that stand for no text."""
    return replace(text(row), text=None, text_lengths=None)


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(3)


def count(settings: SpeechUTConfig) -> int:
    with torch.device("meta"):
        return sum(parameter.numel() for parameter in SpeechUT(settings).parameters())


def unused(settings: SpeechUTConfig) -> int:
    """Norms of distances that the official code keeps in post-norm layers, where nothing uses them."""
    assert settings.decoder is not None
    stacks = (settings.encoder, settings.unit_encoder, settings.decoder)
    return sum(2 * stack.layers * stack.dim // stack.heads for stack in stacks if not stack.norm_first)


# Sizes ----------------------------------------------------------------------------------------------------------------------------------


def test_base_has_the_official_number_of_parameters() -> None:
    assert count(SpeechUTConfig()) + unused(SpeechUTConfig()) == 155_816_602


def test_large_has_the_official_number_of_parameters() -> None:
    large = SpeechUTConfig(
        waveform=replace(SpeechUTConfig().waveform, norm="layer"),
        encoder=EncoderConfig(**WIDE, key_distance=160),
        unit_encoder=UnitEncoderConfig(**WIDE, positions="none"),
        final_dim=768,
    )
    assert count(large) + unused(large) == 378_948_506


def test_base_for_translation_has_the_official_number_of_parameters() -> None:
    base = SpeechUTConfig()
    assert base.decoder is not None
    settings = replace(base, decoder=replace(base.decoder, tie_embeddings=True), ctc_head="none", vocabulary=10_001)
    assert count(settings) + unused(settings) == 162_240_121


def test_it_meets_the_protocols() -> None:
    model = speechut()
    for protocol in (Trainable, CombinesLosses, FollowsSteps, DropsHeads, PredictsUnits, SpeechEncoder):
        assert isinstance(model, protocol), protocol


def test_a_configuration_comes_back_from_yaml() -> None:
    assert config.load(SpeechUTConfig, config.to_dict(SPEECHUT)) == SPEECHUT


# Pre-training ---------------------------------------------------------------------------------------------------------------------------


def test_every_kind_of_batch_has_its_losses_and_together_they_reach_every_parameter() -> None:
    model = speechut().train()
    batches = [speech(), text(), alone()]
    losses = [model.losses(each, generator()) for each in batches]
    assert [set(group) for group in losses] == [
        {"masked_prediction", "shared_masked_prediction", "feature_penalty"},
        {"attention", "ctc"},
        {"masked_units"},
    ]
    total = torch.stack([loss.value for group in model.combine(batches, losses) for loss in group.values()]).sum()
    total.backward()
    assert {name for name, parameter in model.named_parameters() if parameter.grad is None} == set()


def test_text_counts_by_its_mean_times_the_hidden_frames_of_speech() -> None:
    model = speechut()
    batches = [speech(), text(), alone()]
    losses = [model.losses(each, generator()) for each in batches]
    frames = losses[0]["masked_prediction"].count
    combined = model.combine(batches, losses)
    assert combined[0] == losses[0]
    assert int(torch.stack([loss.count for group in combined for loss in group.values()]).sum()) == int(frames)
    assert losses[1]["attention"].count == losses[1]["ctc"].count == sum(LETTERS) + 3
    for group, place in ((1, "attention"), (1, "ctc"), (2, "masked_units")):
        own = losses[group][place]
        torch.testing.assert_close(combined[group][place].value, own.value * frames / own.count)


def test_a_step_without_speech_is_a_sum_of_means() -> None:
    model = speechut()
    batches = [text(), alone()]
    losses = [model.losses(each, generator()) for each in batches]
    combined = model.combine(batches, losses)
    assert int(torch.stack([loss.count for group in combined for loss in group.values()]).sum()) == 1
    means = [loss.value / loss.count for group in losses for loss in group.values()]
    found = torch.stack([loss.value for group in combined for loss in group.values()]).sum()
    torch.testing.assert_close(found, torch.stack(means).sum())


def test_units_replace_frames_that_are_not_hidden_and_no_others() -> None:
    model, spoken = speechut(), speech()
    frames = int(model.config.waveform.frames(torch.tensor(max(SAMPLES))))
    hidden = torch.zeros(3, frames, dtype=torch.bool)
    hidden[:, 2:5] = True
    everything = torch.ones_like(hidden)
    mixed, plain = (model.cross(spoken, Drawn(InputMask(fused=hidden), swap)) for swap in (everything, None))
    width = mixed.hidden.shape[1]
    assert torch.equal(mixed.swapped, ~hidden[:, :width])
    assert not plain.swapped.any()
    assert model.unit_embedding is not None
    valid = ~mixed.heard.padding
    assert torch.equal(mixed.entered[mixed.swapped & valid], model.unit_embedding(mixed.units[0][mixed.swapped & valid]))
    assert torch.equal(mixed.entered[hidden[:, :width]], plain.entered[hidden[:, :width]])
    assert torch.equal(mixed.spoken, plain.spoken)  # what the first head sees
    assert not mixed.entered[~valid].any()


def test_text_is_written_from_all_its_units_unless_some_are_to_be_hidden() -> None:
    texts = text()
    for hides in (False, True):
        model = speechut(hide_units=hides)
        first, second = (model.losses(texts, torch.Generator().manual_seed(seed))["attention"].value for seed in (1, 2))
        assert torch.equal(first, second) is not hides


def test_masked_units_are_learned_where_they_are_hidden_alone() -> None:
    model = speechut()
    units = alone().text_units
    assert units is not None
    hidden = torch.zeros_like(units, dtype=torch.bool)
    hidden[0, 1] = hidden[2, 11] = hidden[1, 12] = True  # an end symbol among them, and padding
    loss = model.unit_losses(units, hidden)["masked_units"]
    assert loss.count == 2
    changed = units.clone()
    changed[0, 1] = 4 if units[0, 1] != 4 else 5
    assert model.unit_losses(changed, hidden)["masked_units"].value != loss.value


def test_the_second_head_is_plain_and_shared_by_speech_and_masked_units() -> None:
    model = speechut()
    assert model.unit_output is not None
    with torch.no_grad():
        model.unit_output.bias += 5.0 * torch.arange(11.0)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    spoken, units = speech(), alone()
    found = [model.losses(spoken, generator())["shared_masked_prediction"].value, model.losses(units, generator())["masked_units"].value]
    with torch.no_grad():
        model.unit_output.weight.mul_(2.0)  # a cosine would not change
    again = [model.losses(spoken, generator())["shared_masked_prediction"].value, model.losses(units, generator())["masked_units"].value]
    assert all(not torch.equal(one, other) for one, other in zip(found, again, strict=True))
    assert model.predictor is not None
    assert torch.equal(model.predictor.units, before["predictor.units"])


def test_losses_of_texts_are_those_of_their_rows() -> None:
    model = speechut()
    together = model.losses(text(), generator())
    rows = [model.losses(text(row), generator()) for row in range(3)]
    for name, loss in together.items():
        torch.testing.assert_close(loss.value, torch.stack([row[name].value for row in rows]).sum(), atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("losses", "batch", "message"),
    [
        (SpeechUTLosses(ctc=0.0, attention=0.0), text(), "neither losses.ctc nor losses.attention counts"),
        (SpeechUTLosses(), replace(alone(), text_units=None), "neither speech nor units to learn from"),
        (SpeechUTLosses(), replace(speech(), targets={}), "no labels 'units'"),
    ],
)
def test_batches_that_teach_nothing_are_refused(losses: SpeechUTLosses, batch: Batch, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        speechut(losses=losses).losses(batch, generator())


# Fine-tuning ----------------------------------------------------------------------------------------------------------------------------

TUNED: dict[str, Any] = {"task": "recognition", "losses": SpeechUTLosses(ctc=0.5, attention=0.5)}


def total(losses: dict[str, Loss]) -> torch.Tensor:
    value = torch.stack([loss.value for loss in losses.values()]).sum()
    return value / torch.stack([loss.count for loss in losses.values()]).sum()


def test_recognition_is_divided_by_sentences_and_translation_by_tokens() -> None:
    spoken = speech()
    for divisor, expected in (("sentences", 3), ("tokens", sum(LETTERS) + 3)):
        losses = speechut(**TUNED | {"losses": SpeechUTLosses(divisor=divisor)}).losses(spoken, generator())  # type: ignore[arg-type]
        assert int(torch.stack([loss.count for loss in losses.values()]).sum()) == expected


def test_a_finetuned_model_has_no_units_and_takes_the_rest_of_a_pretrained_one() -> None:
    model = speechut()
    model.drop_heads()
    tuned = speechut(**TUNED)
    assert model.state_dict().keys() == tuned.state_dict().keys()
    assert not any(name.startswith(("predictor", "unit_output", "unit_embedding")) for name in tuned.state_dict())


def test_fine_tuning_hides_frames_in_training_alone() -> None:
    spoken = speech()
    model = speechut(**TUNED)
    assert torch.equal(total(model.losses(spoken, generator())), total(model.recognition_losses(spoken)))
    model.train()
    assert not torch.equal(total(model.losses(spoken, generator())), total(model.recognition_losses(spoken)))


def test_what_the_encoders_say_does_not_depend_on_the_batch() -> None:
    model = speechut()
    with torch.no_grad():
        together, lengths = model.encode(speech())
        for row in range(3):
            one, length = model.encode(speech(row))
            assert length == lengths[row]
            torch.testing.assert_close(together[row, :length], one[0, :length], atol=1e-5, rtol=1e-5)
            frames = int(length) + 1
            torch.testing.assert_close(model.ctc_logits(together)[row, :frames], model.ctc_logits(one)[0], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    "decoding",
    [
        DecodingConfig("joint", convention="speechut", beam=3, nbest=3, ctc_weight=0.3, max_length_ratio=0.0, max_length_extra=6.0),
        DecodingConfig("joint", beam=3, nbest=3, ctc_weight=0.3, max_length_ratio=0.0, max_length_extra=6.0),
        DecodingConfig("attention", beam=3, nbest=3, ctc_weight=0.3, max_length_ratio=0.0, max_length_extra=6.0),
        DecodingConfig("ctc_beam", beam=3, nbest=3),
        DecodingConfig("ctc_greedy"),
    ],
    ids=["speechut", "espnet", "rescored", "ctc_beam", "ctc_greedy"],
)
def test_searches_use_the_last_frame_of_ctc_and_find_the_same_in_any_batch(decoding: DecodingConfig) -> None:
    whole = WholeModel(speechut(**TUNED), Vocabulary(SYMBOLS)).eval()
    found = whole.search(speech(), decoding)
    for row in range(3):
        [single] = whole.search(speech(row), decoding)
        assert [each.tokens for each in single] == [each.tokens for each in found[row]]
        assert [each.score for each in single] == pytest.approx([each.score for each in found[row]], abs=1e-4)


def test_the_last_frame_of_ctc_has_a_say() -> None:
    model = speechut(**TUNED)
    whole = WholeModel(model, Vocabulary(SYMBOLS)).eval()
    [[greedy]] = whole.search(speech(0), DecodingConfig("ctc_greedy", words=False))
    encoded, lengths = model.encode(speech(0))
    logits = model.ctc_logits(encoded)[0]
    assert len(logits) == int(lengths[0]) + 1
    logits[:, 9] = -torch.inf  # no text holds <mask>
    best = torch.unique_consecutive(logits.argmax(-1))
    assert list(greedy.tokens) == best[best != 0].tolist()


def test_the_usual_search_is_the_official_one() -> None:
    spoken = WholeModel(speechut(**TUNED), Vocabulary(SYMBOLS))
    assert spoken.decoding == DecodingConfig(
        "joint", convention="speechut", beam=10, ctc_weight=0.2, max_length_ratio=0.25, max_length_extra=200.0
    )
    translated = WholeModel(speechut(task="recognition", ctc_head="none"), Vocabulary(SYMBOLS))
    assert translated.decoding == DecodingConfig("attention", beam=10, max_length_ratio=0.0, max_length_extra=512.0)
    heard = WholeModel(speechut(**TUNED, decoder=None), Vocabulary(SYMBOLS))
    assert heard.decoding == DecodingConfig("ctc_greedy")


def test_no_search_writes_the_mask_symbol_or_the_blank() -> None:
    model = speechut(**TUNED)
    assert model.decoder is not None
    assert model.decoder.output is not None
    with torch.no_grad():
        model.decoder.output.weight[[0, PAD, 9]] = 0.0
        for layer in model.decoder.layers:
            layer.feed_forward_norm.bias.zero_()  # type: ignore[union-attr, operator]
    whole = WholeModel(model, Vocabulary(SYMBOLS)).eval()
    settings = replace(whole.decoding, max_length_ratio=0.0, max_length_extra=5.0, words=False, nbest=10)
    tokens = {token for row in whole.search(speech(), settings) for each in row for token in each.tokens}
    assert tokens
    assert not tokens & {0, PAD, 9}


def test_tasks_that_write_no_text_are_refused() -> None:
    with pytest.raises(ValueError, match="task: generation for speechut, which writes text alone"):
        SpeechUTConfig.of_task("generation")


def test_hidden_channels_are_silent_while_fine_tuning() -> None:
    model = speechut(**TUNED, mask=NOTHING, channel_mask=SpanMaskConfig(prob=0.5, length=4, min_spans=1)).train()
    spoken = speech()
    first, second = (total(model.losses(spoken, torch.Generator().manual_seed(seed))) for seed in (1, 2))
    assert not torch.equal(first, second)
