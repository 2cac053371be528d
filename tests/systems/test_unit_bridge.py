"""What SpeechLM and SpeechUT share, beside what a replay of the stored cases shows."""

from dataclasses import replace

import pytest
import torch

from avtlm.decoding.greedy import ctc_greedy
from avtlm.decoding.settings import DecodingConfig
from avtlm.frontends.multimodal import InputMask
from avtlm.nn.adapters import LengthAdapterConfig
from avtlm.nn.unit_encoder import LetterHead
from avtlm.objectives.loss import Loss
from avtlm.systems.unit_bridge import BridgeConfig, Drawn, UnitBridge
from avtlm.text.vocabulary import PAD, SPECIALS, Vocabulary
from avtlm.whole_model import WholeModel
from tests.systems.bridge_models import DECODER, SPEECHLM, UNIT_ENCODER, speech, speechlm, text


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(3)


def drawn(frames: int, hidden: slice = slice(0, 4), swapped: slice = slice(2, 8), offset: int = 0) -> Drawn:
    mask, swap = torch.zeros(3, frames, dtype=torch.bool), torch.zeros(3, frames, dtype=torch.bool)
    mask[:, hidden] = True
    swap[:, swapped] = True
    return Drawn(InputMask(fused=mask), swap, offset)


# Speech through both encoders ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("norm_first", [False, True])
def test_what_a_clip_gives_does_not_depend_on_the_batch(norm_first: bool) -> None:
    model = speechlm(
        encoder=replace(SPEECHLM.encoder, norm_first=norm_first), unit_encoder=replace(UNIT_ENCODER, norm_first=not norm_first)
    )
    with torch.no_grad():
        for layer in (None, 1, 3):
            together, lengths = model.encode(speech(), layer)
            for row in range(3):
                one, length = model.encode(speech(row), layer)
                assert length == lengths[row]
                torch.testing.assert_close(together[row, :length], one[0, :length], atol=1e-5, rtol=1e-5)
                if layer is None:  # CTC also has a frame behind the last one
                    logits = model.ctc_logits(together)[row, : length + 1]
                    torch.testing.assert_close(logits, model.ctc_logits(one)[0], atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("norm_first", [False, True])
def test_layers_of_both_encoders_come_one_after_the_other(norm_first: bool) -> None:
    model = speechlm(encoder=replace(SPEECHLM.encoder, norm_first=norm_first), unit_encoder=replace(UNIT_ENCODER, norm_first=norm_first))
    with torch.no_grad():
        states, lengths = model.hidden_states(speech(0))
        assert len(states) == 4
        for layer, state in enumerate(states, 1):
            one, length = model.encode(speech(0), layer)
            assert torch.equal(length, lengths)
            torch.testing.assert_close(state, one)
        whole = model.encode(speech(0))[0]
        assert torch.allclose(whole, states[-1]) is not norm_first  # the final norm of pre-norm layers is left out
    with pytest.raises(ValueError, match="output_layer: 5 is not between 1 and 4"):
        model.encode(speech(0), 5)


def test_frames_that_are_not_hidden_may_enter_as_their_units() -> None:
    model = speechlm()
    batch = speech()
    with torch.no_grad():
        crossing = model.cross(batch, drawn(20))
        plain = model.cross(batch, replace(drawn(20), swap=None))
    frames = crossing.entered.shape[1]
    expected = torch.zeros(frames, dtype=torch.bool)
    expected[4:8] = True  # hidden frames never do
    assert torch.equal(crossing.swapped[0], expected)
    assert model.unit_embedding is not None
    assert torch.equal(crossing.entered[0, 4:8], model.unit_embedding(crossing.units[0][0, 4:8]))
    assert torch.equal(crossing.entered[:, :4], plain.entered[:, :4])
    assert torch.equal(crossing.spoken, plain.spoken)


def test_units_say_where_the_unit_encoder_sees_padding() -> None:
    model, batch = speechlm(), speech()
    units = batch.targets["units"].clone()
    units[0, 15:] = -1
    short = replace(batch, targets={**batch.targets, "units": units})
    with torch.no_grad():
        assert model.cross(batch, drawn(20)).entered_lengths[0] == model.cross(batch, drawn(20)).heard.lengths[0]
        crossing = model.cross(short, drawn(20))
        assert crossing.entered_lengths[0] == 15
        padded = replace(batch, targets={**batch.targets, "units": units.masked_fill(units < 0, PAD)})
        assert torch.equal(model.cross(padded, drawn(20)).entered_lengths, crossing.entered_lengths)


def test_labels_at_twice_the_rate_give_a_frame_its_first_or_its_second() -> None:
    model, batch = speechlm(label_rate=100.0), speech(rate=2)
    first, second = (model.units_of(batch, offset)[0] for offset in (0, 1))
    assert torch.equal(first, batch.targets["units"][:, 0 : 2 * first.shape[1] : 2])
    assert torch.equal(second, batch.targets["units"][:, 1 : 2 * first.shape[1] : 2])
    assert {model.draw(batch, torch.Generator().manual_seed(seed)).offset for seed in range(12)} == {0, 1}
    assert speechlm().draw(speech(), generator()).offset == 0


def test_features_are_cut_where_there_are_no_more_labels() -> None:
    model, batch = speechlm(), speech()
    short = replace(batch, targets={**batch.targets, "units": batch.targets["units"][:, :11]})
    crossing = model.cross(short, drawn(20))
    assert crossing.spoken.shape[1] == crossing.heard.convolved.shape[1] == 11


def test_what_is_drawn_repeats_from_a_seed_and_swaps_differ_from_masks() -> None:
    model, batch = speechlm(), speech()
    one, other = model.draw(batch, generator()), model.draw(batch, generator())
    assert one.mask.fused is not None
    assert one.swap is not None
    assert other.mask.fused is not None
    assert other.swap is not None
    assert torch.equal(one.mask.fused, other.mask.fused)
    assert torch.equal(one.swap, other.swap)
    assert not torch.equal(one.mask.fused, one.swap)
    assert speechlm(swap=replace(SPEECHLM.swap, prob=0.0)).draw(batch, generator()).swap is None


def test_predicted_units_may_take_the_place_of_true_ones() -> None:
    model, batch = speechlm(swap_predicted=True), speech()
    with torch.no_grad():
        crossing = model.cross(batch, drawn(20))
        assert model.predictor is not None
        assert model.unit_embedding is not None
        found = model.predictor(crossing.spoken[0, 4:8]).argmax(-1)
    assert torch.equal(crossing.entered[0, 4:8], model.unit_embedding(found))


def test_equal_widths_share_embeddings_and_project_frames() -> None:
    """As the official code does it; released models have other widths."""
    model, batch = speechlm(final_dim=16), speech()
    assert model.predictor is not None
    assert model.unit_embedding is not None
    assert model.entrance is not None
    assert model.predictor.units is model.unit_embedding.weight
    with torch.no_grad():
        crossing = model.cross(batch, replace(drawn(20), swap=None))
        torch.testing.assert_close(crossing.entered[0], model.entrance(crossing.spoken[0]))
        before = model.encode(batch)[0]
        model.drop_heads()
        assert torch.equal(model.encode(batch)[0], before)  # what features pass stays
    assert speechlm().entrance is None
    assert speechlm(final_dim=0).config.projects


def test_a_row_of_zeros_among_shared_embeddings_learns_as_in_the_official_code() -> None:
    """That of padding is one; it is divided by the floor of norms of torch, which the official code has."""
    model = speechlm(final_dim=16)
    assert model.predictor is not None
    units = model.predictor.units
    with torch.no_grad():
        units[PAD] = 0.0
    frames = torch.randn(3, 16, generator=generator())
    normed = torch.nn.functional.normalize(model.predictor.project(frames), dim=-1)
    logits = normed @ torch.nn.functional.normalize(units, dim=-1).t() / SPEECHLM.temperature
    expected = torch.autograd.grad(logits.square().sum() + logits.sum(), units)[0]
    found = model.predictor(frames)
    gradient = torch.autograd.grad(found.square().sum() + found.sum(), units)[0]
    assert gradient[PAD].abs().max() > 1e9
    torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=1e-4)


def test_the_distance_between_frames_and_units_is_a_loss_of_its_own() -> None:
    model, batch = speechlm(losses=replace(SPEECHLM.losses, distance=2.0)), speech()
    crossing = model.cross(batch, drawn(20))
    assert model.unit_embedding is not None
    unit = model.unit_embedding(crossing.units[0].clamp(min=0))[crossing.hidden]
    apart = (crossing.spoken[crossing.hidden] - unit).square().mean(-1) / unit.square().sum(-1)
    torch.testing.assert_close(crossing.distance, apart.mean())
    found = model.extra_losses(crossing, torch.tensor(7))["unit_distance"]
    torch.testing.assert_close(found.value, 2.0 * apart.mean() * 7)
    assert "unit_distance" not in speechlm().extra_losses(crossing, torch.tensor(7))


# Units of texts ------------------------------------------------------------------------------------------------------------------------


def test_what_a_text_gives_does_not_depend_on_the_batch() -> None:
    model, together = speechlm(), text()
    assert together.text_units is not None
    with torch.no_grad():
        encoded, lengths = model.read_units(together.text_units)
        for row in range(3):
            alone = text(row).text_units
            assert alone is not None
            one, length = model.read_units(alone)
            assert length == lengths[row]
            torch.testing.assert_close(encoded[row, :length], one[0], atol=1e-5, rtol=1e-5)


def test_hidden_units_become_the_vector_of_hidden_frames() -> None:
    model, units = speechlm(), text().text_units
    assert units is not None
    hidden = model.draw_hidden_units(units, generator())
    assert hidden.any()
    assert not hidden[units == PAD].any()
    embedded = model.embed_units(units, hidden)
    assert torch.equal(embedded[hidden], model.feature_mask.expand(int(hidden.sum()), -1))


def test_a_unit_outside_the_dictionary_is_named() -> None:
    model, batch = speechlm(), speech()
    wrong = torch.tensor([[4, 11, 5]])
    with pytest.raises(ValueError, match=r"there is a unit 11, but the model knows 11, counted from 0; see model\.units"):
        model.read_units(wrong)
    units = batch.targets["units"].clone()
    units[1, 2] = 40
    with pytest.raises(ValueError, match="there is a unit 40, but the model knows 11"):
        model.cross(replace(batch, targets={"units": units}), drawn(20))


def test_a_batch_without_units_is_refused() -> None:
    with pytest.raises(ValueError, match="a: no labels 'units'"):
        speechlm().cross(replace(speech(), targets={}), drawn(20))


# Losses of a step ----------------------------------------------------------------------------------------------------------------------


def loss(value: float, count: int) -> Loss:
    return Loss(torch.tensor(value), torch.tensor(count))


def test_text_counts_by_its_mean_times_the_frames_of_speech() -> None:
    model = speechlm()
    groups = [{"units": loss(8.0, 4), "penalty": loss(1.0, 0)}, {"letters": loss(6.0, 3)}, {"letters": loss(4.0, 2)}]
    found = model.combine([speech(), text(), text()], groups)
    assert found[0] == groups[0]
    assert [float(each["letters"].value) for each in found[1:]] == pytest.approx([6.0 * 4 / 5, 4.0 * 4 / 5])
    assert [int(each["letters"].count) for each in found[1:]] == [0, 0]


def test_a_step_of_text_alone_is_a_mean() -> None:
    found = speechlm().combine([text(), text()], [{"letters": loss(6.0, 3), "other": loss(1.0, 2)}, {"letters": loss(4.0, 2)}])
    total = sum(float(each.value) for group in found for each in group.values())
    count = sum(int(each.count) for group in found for each in group.values())
    assert total / count == pytest.approx(10 / 5 + 1 / 2)


def test_fine_tuning_is_not_weighed_again() -> None:
    groups = [{"ctc": loss(6.0, 3)}, {"ctc": loss(4.0, 2)}]
    assert speechlm(task="recognition").combine([speech(), speech()], groups) == groups


def test_fine_tuning_divides_by_sentences_or_by_tokens() -> None:
    batch = speech()
    for divisor, count in (("sentences", 3), ("tokens", 5 + 3 + 4 + 3)):
        model = speechlm(task="recognition", decoder=DECODER, losses=replace(SPEECHLM.losses, divisor=divisor))
        found = model.recognition_losses(batch)
        assert set(found) == {"attention", "ctc"}
        assert sum(int(each.count) for each in found.values()) == count


def test_ctc_leaves_out_the_frame_that_is_one_too_many() -> None:
    model = speechlm(task="recognition")
    batch = speech(0)
    with torch.no_grad():
        encoded, lengths = model.encode(batch)
        logits = model.ctc_logits(encoded)
        assert logits.shape[1] == int(lengths[0]) + 1
        tokens, counts = batch.targets["tokens"], batch.target_lengths["tokens"]
        log_probs = logits[:, :-1].log_softmax(-1).transpose(0, 1)
        expected = torch.nn.functional.ctc_loss(log_probs, tokens, lengths, counts, reduction="sum")
        torch.testing.assert_close(model.letter_loss(encoded, lengths, tokens, counts).value, expected)


def test_a_wider_kernel_of_ctc_sees_the_padding_that_official_training_saw() -> None:
    """Two frames are the end of a clip whatever lies behind it; a third one is what the unit encoder makes of padding there."""
    official = replace(SPEECHLM.unit_encoder, compute_padding=True)
    for kernel, unit_encoder, seen in ((3, official, True), (2, official, False), (3, SPEECHLM.unit_encoder, False)):
        model, batch = speechlm(ctc_kernel=kernel, unit_encoder=unit_encoder), speech()
        with torch.no_grad():
            encoded, lengths = model.encode(batch)
            heard = model.hear(batch)
            entered = model.enter(model.encoder(heard.projected, heard.lengths), heard.padding)
            behind = model.unit_encoder(entered, lengths)[1, lengths[1] :]
        assert encoded[1, lengths[1] :].any() == seen
        if seen:
            torch.testing.assert_close(encoded[1, lengths[1] :], behind)


def test_a_wider_kernel_of_ctc_leaves_out_frames_and_a_linear_layer_none() -> None:
    for kernel, frames, counted in ((0, 12, 12), (2, 13, 12), (3, 12, 12), (4, 7, 6), (5, 6, 6)):
        head = LetterHead(4, 9, kernel)
        logits = head(torch.randn(1, 12, 4))
        length = torch.tensor([12])
        assert logits.shape == (1, frames, 9)
        assert (int(head.all_frames(length)), int(head.frames(length))) == (frames, counted)
    assert head.all_frames(torch.tensor([0])).tolist() == [0]
    assert set(LetterHead(4, 9, 0).state_dict()) == {"output.weight", "output.bias"}


def test_ctc_that_leaves_out_frames_writes_and_tells_times() -> None:
    model, batch = speechlm(task="recognition", ctc_kernel=4), speech()
    vocabulary = Vocabulary([*SPECIALS, *"|abcdefg"[: model.config.vocabulary - 5], "<mask>"])
    whole = WholeModel(model, vocabulary, DecodingConfig("ctc_greedy", words=True))
    with torch.no_grad():
        encoded, lengths = model.encode(batch)
        found = whole.search(batch)
        for row, length in enumerate(lengths.tolist()):
            best = ctc_greedy(model.ctc_logits(encoded[row : row + 1, :length]).log_softmax(-1), model.ctc_frames(lengths[row : row + 1]))
            assert found[row][0].tokens == best[0].tokens
            spans = found[row][0].timesteps
            assert all(first % 2 == end % 2 == 0 for first, end in spans)
            assert all(end <= length + 2 for _, end in spans)


def test_encoders_may_wait_until_the_head_has_learned_something() -> None:
    model = speechlm(task="recognition", freeze_encoder_steps=2)
    for step, learns in ((1, False), (2, True)):
        model.start_step(step, 10)
        model.zero_grad()
        model.recognition_losses(speech())["ctc"].value.backward()
        assert model.ctc is not None
        assert model.ctc.output.weight.grad is not None
        assert (model.encoder.layers[0].feed_forward.expand.weight.grad is not None) is learns


# Settings ------------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"label_rate": 25.0}, "label_rate: 25 units per second for 50 frames per second of the model; every frame needs a unit"),
        ({"unit_encoder": replace(UNIT_ENCODER, dim=32)}, r"unit_encoder\.dim: 32, but encoder\.dim is 16"),
        ({"units": 5}, "units: 5"),
        ({"further_units": (9, 9)}, "at most one further kind"),
        ({"vocabulary": 5}, "vocabulary: 5"),
        ({"ctc_kernel": 1}, "ctc_kernel: 1"),
        ({"ctc_head": "none", "task": "recognition"}, "ctc_head: none in a model without decoder"),
        ({"adapter": LengthAdapterConfig()}, "adapter: "),
    ],
)
def test_settings_that_do_not_fit_are_named(changes: dict[str, object], fault: str) -> None:
    with pytest.raises(ValueError, match=fault) as caught:
        replace(SPEECHLM, **changes)  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


def test_units_come_behind_the_special_symbols() -> None:
    assert speechlm().input_format.first_unit == 4
    assert speechlm().inventory == {"units": 11, "phones": 0}
    assert isinstance(speechlm(), UnitBridge)
    assert isinstance(SPEECHLM, BridgeConfig)
    assert SPEECHLM.mask_id == 9
    assert replace(SPEECHLM, text_mask=False).mask_id is None
