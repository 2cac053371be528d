"""SpeechT5 beside what a replay of the stored cases shows: its promises, its sizes, its switches."""

from dataclasses import replace
from typing import Literal

import pytest
import torch
import torch.nn.functional as F

from avtlm import config
from avtlm.convert.options import Options
from avtlm.convert.options.speecht5 import architecture, fairseq
from avtlm.frontends.mel import log_mel
from avtlm.frontends.multimodal import InputMask
from avtlm.nn.speaker_head import SpeakerHeadConfig
from avtlm.nn.spectrogram import shift_frames
from avtlm.objectives.infilling import InfillingConfig
from avtlm.objectives.loss import Loss
from avtlm.objectives.masking import SpanMaskConfig
from avtlm.objectives.reconstruction import ReconstructionConfig, spectrogram_loss
from avtlm.protocols import DropsHeads, FollowsSteps, PredictsUnits, SpeechEncoder, Trainable
from avtlm.systems.speecht5 import Drawn, LossConfig, SpeechT5, SpeechT5Config
from tests.systems.sequence_models import SPECTROGRAM, SPEECHT5, batch, speecht5

SPEECH, TEXT = ("wave", "units", "mel", "voice"), ("text",)
GUIDED = LossConfig(reconstruction=ReconstructionConfig(guided_weight=1.0))


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(3)


def total(losses: dict[str, Loss]) -> torch.Tensor:
    value = torch.stack([loss.value for loss in losses.values()]).sum()
    return value / torch.stack([loss.count for loss in losses.values()]).sum()


@pytest.mark.parametrize(("arch", "official"), [("t5_transformer_base", 154_388_957), ("t5_transformer_base_asr", 153_832_469)])
def test_base_has_the_official_number_of_parameters(arch: str, official: int) -> None:
    pretrains = arch == "t5_transformer_base"
    values = architecture(arch, {"relative_position_embedding": True, "use_codebook": pretrains})
    settings = fairseq(Options(values, "test"), 81, 504 if pretrains else 0)
    # Official post-norm models carry norms of distances in all layers, and distances in the decoder, that nothing uses.
    unused = (settings.encoder.layers + settings.decoder.layers) * 2 * 64 + 320 * 64
    assert count(settings) + unused == official


def test_large_has_the_official_number_of_parameters() -> None:
    values = architecture("t5_transformer_large", {"relative_position_embedding": True, "use_codebook": True})
    settings = fairseq(Options(values, "test"), 81, 504)
    assert count(settings) + settings.decoder.layers * 2 * 64 + 320 * 64 == 421_189_341


def test_the_default_is_the_base_model() -> None:
    values = architecture("t5_transformer_base", {"relative_position_embedding": True, "use_codebook": True})
    assert count(SpeechT5Config()) == count(fairseq(Options(values, "test"), 81, 504))


def count(settings: SpeechT5Config) -> int:
    with torch.device("meta"):
        model = SpeechT5(settings)
    return sum(parameter.numel() for parameter in model.parameters())


def test_it_meets_the_protocols() -> None:
    model = speecht5()
    for protocol in (Trainable, FollowsSteps, DropsHeads, PredictsUnits, SpeechEncoder):
        assert isinstance(model, protocol), protocol


def test_a_configuration_comes_back_from_yaml() -> None:
    assert config.load(SpeechT5Config, config.to_dict(SPEECHT5)) == SPEECHT5


@pytest.mark.parametrize("part", ["wave", "text"])
def test_what_the_encoder_says_does_not_depend_on_the_batch(part: str) -> None:
    model = speecht5()
    with torch.no_grad():
        together, lengths = model.encode(batch(part))
        for row in range(3):
            one, length = model.encode(batch(part, row=row))
            assert length == lengths[row]
            torch.testing.assert_close(together[row, :length], one[0, :length], atol=1e-5, rtol=1e-5)


def test_padding_changes_what_the_official_code_says() -> None:
    official = speecht5(compute_padding=True, waveform=replace(SPEECHT5.waveform, compute_padding=True))
    with torch.no_grad():
        together, _ = official.encode(batch("wave"))
        one, lengths = official.encode(batch("wave", row=1))
    assert (together[1, : lengths[0]] - one[0, : lengths[0]]).abs().max() > 1e-4


@pytest.mark.parametrize(("task", "parts"), [("recognition", ("wave", "tokens")), ("speaker", ("wave", "speaker"))])
def test_losses_of_a_batch_are_those_of_its_rows(task: str, parts: tuple[str, ...]) -> None:
    nothing = SpanMaskConfig(prob=0.0)
    model = speecht5(task=task, mask=nothing, speakers=4)
    together = model.losses(batch(*parts), generator())
    rows = [model.losses(batch(*parts, row=row), generator()) for row in range(3)]
    for name, loss in together.items():
        torch.testing.assert_close(loss.value, torch.stack([row[name].value for row in rows]).sum(), atol=1e-4, rtol=1e-4)
        assert loss.count == sum(int(row[name].count) for row in rows)


def test_written_speech_of_a_row_is_the_same_in_any_batch() -> None:
    """Also of the convolutions behind the decoder, and of their batch norms in training."""
    model = speecht5(losses=GUIDED, task="generation")
    rows = batch("text", "mel", "voice")
    assert rows.text_lengths is not None
    keep = torch.rand(2, 3, 12, 8, generator=generator()) > 0.5
    with torch.no_grad():
        memory = model.decoder.project_memory(*model.encode(rows))
        steps = rows.target_lengths["mel"] // 2
        frames = rows.targets["mel"][:, 1::2]
        together = model.write_speech(frames, steps, rows.targets["voice"], memory, keep)
        for row in range(3):
            one = batch("text", "mel", "voice", row=row)
            own = model.decoder.project_memory(*model.encode(one))
            end = int(steps[row])
            alone = model.write_speech(
                one.targets["mel"][:, 1::2][:, :end], steps[row, None], one.targets["voice"], own, keep[:, row : row + 1, :end]
            )
            torch.testing.assert_close(together.after[row, : 2 * end], alone.after[0], atol=1e-5, rtol=1e-5)
            torch.testing.assert_close(together.stop[row, : 2 * end], alone.stop[0], atol=1e-5, rtol=1e-5)


def test_pretraining_learns_from_speech_and_from_text() -> None:
    model = speecht5().train()
    speech, text = model.losses(batch(*SPEECH), generator()), model.losses(batch(*TEXT), generator())
    assert set(speech) == {"masked_prediction", "feature_penalty", "diversity", "spectrogram"}
    assert set(text) == {"text", "diversity"}
    assert text["text"].count == sum((11, 6, 8))
    (total(speech) + total(text)).backward()
    unused = {name for name, parameter in model.named_parameters() if parameter.grad is None}
    assert unused == {"ctc.weight", "ctc.bias"}


@pytest.mark.parametrize(
    ("changes", "lost"),
    [
        ({"losses": LossConfig(units=0.0)}, "masked_prediction"),
        ({"losses": LossConfig(spectrogram=0.0)}, "spectrogram"),
        ({"codebook": None}, "diversity"),
        ({"units": 0}, "masked_prediction"),
    ],
)
def test_every_part_of_pretraining_can_be_left_out(changes: dict[str, object], lost: str) -> None:
    whole, part = (speecht5(**values).losses(batch(*SPEECH), generator()) for values in ({}, changes))
    assert float(total(part).detach()) != pytest.approx(float(total(whole).detach()))
    assert lost not in part or float(part[lost].value.detach()) == 0.0
    assert torch.isfinite(total(part))


def test_codes_replace_frames_for_the_decoder_alone() -> None:
    model = speecht5()
    frames = torch.randn(2, 6, 16, generator=generator())
    mixed = torch.zeros(2, 6, dtype=torch.bool)
    mixed[0, 2] = mixed[1, 5] = True
    seen, codes = model.quantise(frames, torch.tensor([6, 6]), Drawn(mixed=mixed))
    assert codes is not None
    assert torch.equal(seen[~mixed], frames[~mixed])
    assert torch.equal(seen[mixed], codes.vectors.view(2, 6, 16)[mixed])


def test_a_frozen_encoder_gets_no_gradients_until_its_time() -> None:
    model = speecht5(task="recognition", freeze_encoder_steps=2).train()
    for step, frozen in ((1, True), (2, False)):
        model.start_step(step, 9)
        model.zero_grad()
        total(model.losses(batch("wave", "tokens"), generator())).backward()
        assert (model.encoder.norm.weight.grad is None) is frozen
        assert model.decoder.layers[0].cross_attention.key.weight.grad is not None


def test_what_belongs_to_masked_prediction_is_weighed_with_it() -> None:
    rows, hidden = batch("wave", "units", "mel", "voice"), torch.zeros(3, 19, dtype=torch.bool)
    hidden[:, 2:9] = True
    drawn = Drawn(InputMask(fused=hidden), keep=torch.ones(2, 3, 12, 8, dtype=torch.bool))
    weights = LossConfig(feature_penalty=0.1, units=0.5, hidden=0.7)
    plain, weighed = (speecht5(losses=each).speech_losses(rows, drawn) for each in (SPEECHT5.losses, weights))
    for name, share in (("masked_prediction", 0.35), ("feature_penalty", 0.5), ("diversity", 0.5), ("spectrogram", 1.0)):
        torch.testing.assert_close(weighed[name].value, share * plain[name].value)
    frames = speecht5().hear(rows).lengths.sum()
    others = speecht5(losses=replace(weights, hidden=0.0, visible=1.0)).speech_losses(rows, drawn)
    assert int(others["masked_prediction"].count) == int(frames) - int(plain["masked_prediction"].count)


def test_every_inventory_of_units_is_predicted() -> None:
    rows = batch("wave", "units", "mel", "voice")
    drawn = Drawn(InputMask(fused=torch.ones(3, 19, dtype=torch.bool)), keep=torch.ones(2, 3, 12, 8, dtype=torch.bool))
    both = speecht5(further_units=(9,), separate_projections=True)
    assert both.inventory == {"units": 7, "units_1": 9, "phones": 0}
    with pytest.raises(ValueError, match="a: no labels 'units_1'"):
        both.speech_losses(rows, drawn)
    two = replace(rows, targets={**rows.targets, "units_1": (rows.targets["units"] + 2).clamp(min=-1)})
    units = both.units_of(two)
    assert units is not None
    heard, padding = both.hear(two, units[0].shape[1]), both.hear(two, units[0].shape[1]).padding
    assert both.predictor is not None
    encoded = both.encoder(both.read_speech(heard, drawn.mask), heard.lengths)[~padding]
    parts = [F.cross_entropy(both.predictor(encoded, index), each[~padding], reduction="sum") for index, each in enumerate(units)]
    torch.testing.assert_close(both.speech_losses(two, drawn)["masked_prediction"].value, parts[0] + parts[1])


def test_the_decoder_may_learn_from_an_inner_layer() -> None:
    rows, model = batch("wave", "tokens"), speecht5(task="recognition", memory_layer=1)
    before = model.recognition_losses(rows)
    last, usual = (speecht5(task="recognition", memory_layer=layer).recognition_losses(rows) for layer in (2, None))
    torch.testing.assert_close(last["attention"].value, usual["attention"].value)
    with torch.no_grad():
        model.encoder.layers[1].feed_forward_norm.weight.mul_(2.0)
    after = model.recognition_losses(rows)
    assert torch.equal(before["attention"].value, after["attention"].value)
    assert not torch.equal(before["ctc"].value, after["ctc"].value)


@pytest.mark.parametrize("place", ["add", "concat"])
def test_a_voice_may_be_told_to_what_the_decoder_attends_to(place: str) -> None:
    rows, keep = batch("wave", "mel", "voice"), torch.ones(2, 3, 12, 8, dtype=torch.bool)
    model = speecht5(task="generation", spectrogram=replace(SPECTROGRAM, voice_place=place))
    other = replace(rows, targets={**rows.targets, "voice": rows.targets["voice"].flip(0)})
    louder = replace(rows, targets={**rows.targets, "voice": 3.0 * rows.targets["voice"]})
    mine, theirs, same = (float(model.generation_losses(each, keep=keep)["spectrogram"].value.detach()) for each in (rows, other, louder))
    assert mine != pytest.approx(theirs)
    assert mine == pytest.approx(same)


@pytest.mark.parametrize("pooling", ["decoder", "encoder", "first"])
def test_voices_are_told_by_an_embedding(pooling: str) -> None:
    rows = batch("wave", "speaker")
    model = speecht5(task="speaker", speakers=4, pooling=pooling, speaker_head=SpeakerHeadConfig(True, 6, True))
    names = {name for name in model.state_dict() if name.startswith("speaker_head.") and name.endswith("weight")}
    assert names == {"speaker_head.pooled_norm.weight", "speaker_head.project.weight", "speaker_head.norm.weight"}
    with torch.no_grad():
        logits = model.name_speaker(*model.encode(rows))
    assert float(logits.abs().max()) <= 1.0
    smooth = replace(model.config, losses=replace(model.config.losses, label_smoothing=0.2))
    plain = model.speaker_losses(rows)["speaker"]
    torch.testing.assert_close(plain.value, F.cross_entropy(logits, rows.targets["speaker"], reduction="sum"))
    model.config = smooth
    expected = (1 - 0.2 - 0.2 / 3) * plain.value + 0.2 / 3 * -logits.log_softmax(-1).sum()
    torch.testing.assert_close(model.speaker_losses(rows)["speaker"].value, expected)


def test_guided_attention_adds_to_the_loss_of_fine_tuning() -> None:
    keep = torch.ones(2, 3, 12, 8, dtype=torch.bool)
    plain, guided = (
        speecht5(task="generation", losses=weights).generation_losses(batch("wave", "mel", "voice"), keep=keep)["spectrogram"]
        for weights in (LossConfig(), GUIDED)
    )
    value, number = guided.logs["guided_attention"]
    assert float(guided.value) == pytest.approx(float(plain.value + value), rel=1e-5)
    assert 0 < float(value / number) < 1


@pytest.mark.parametrize("reads", ["written", "source"])
def test_noisy_speech_may_be_read_and_masked(reads: Literal["written", "source"]) -> None:
    spectrogram = replace(SPECTROGRAM, reduction=1, reads=reads, writes="mask", prenet_dropout=0.0)
    model, rows = speecht5(task="generation", spectrogram=spectrogram), batch("wave", "mel", "voice")
    noisy = rows.targets["mel"] + 0.1
    rows.targets["source"], rows.target_lengths["source"] = noisy, rows.target_lengths["mel"]
    with torch.no_grad():
        memory = model.decoder.project_memory(*model.encode(rows))
        frames = noisy if reads == "source" else shift_frames(rows.targets["mel"], 1)
        voice = None if reads == "source" else rows.targets["voice"]
        written = model.write_speech(frames, rows.target_lengths["mel"], voice, memory, source=noisy)
        assert bool((written.after.abs() <= noisy.abs()).all())
        expected = spectrogram_loss(written, rows.targets["mel"], rows.target_lengths["mel"], ReconstructionConfig())
        torch.testing.assert_close(model.generation_losses(rows)["spectrogram"].value, expected.value)
    rows.targets["source"] = noisy[:, :-1]
    with pytest.raises(ValueError, match=r"a: a spectrogram \(3, 25, 6\) of noisy speech \(3, 24, 6\); give pairs"):
        model.generation_losses(rows)


def test_the_noisy_spectrogram_is_that_of_the_waveform() -> None:
    spectrogram = replace(SPECTROGRAM, bands=80, reduction=1, writes="difference")
    model, rows = speecht5(task="generation", spectrogram=spectrogram), batch("wave")
    frames, lengths = model.source(rows)
    assert lengths.tolist() == [26, 16, 21]
    assert rows.audio is not None
    torch.testing.assert_close(frames[1, :16], log_mel(rows.audio[1, :4000]))


@pytest.mark.parametrize("pooling", ["decoder", "first"])
def test_a_symbol_may_stand_before_the_frames_of_a_voice(pooling: Literal["decoder", "first"]) -> None:
    settings = {"task": "speaker", "leading_symbol": True, "pooling": pooling, "speakers": 9}
    model, rows = speecht5(**settings), batch("wave", "speaker")
    with torch.no_grad():
        heard = model.hear(rows)
        encoded, lengths = model.encode(rows)
        assert encoded.shape[1] == heard.projected.shape[1] + 1
        assert torch.equal(lengths, heard.lengths + 1)
        start = model.decoder.embed(torch.zeros(3, 1, dtype=torch.long))  # type: ignore[operator]
        together = model.encoder(torch.cat([start, model.read_speech(heard)], 1), heard.lengths + 1)
        torch.testing.assert_close(encoded, together)
        alone = model.name_speaker(*model.encode(batch("wave", "speaker", row=1)))
        torch.testing.assert_close(model.name_speaker(encoded, lengths)[1], alone[0], atol=1e-5, rtol=1e-5)
        padded = speecht5(**settings, compute_padding=True)
        assert padded.encode(rows)[1].tolist() == [encoded.shape[1]] * 3


def test_voices_may_be_symbols_of_text() -> None:
    model, rows = speecht5(task="speaker", speakers_in_text=True), batch("wave", "speaker")
    assert model.speaker is None
    loss = model.losses(rows, generator())["speaker"]
    logits = model.name_speaker(*model.encode(rows))
    assert logits.shape == (3, model.config.vocabulary)
    torch.testing.assert_close(loss.value, F.cross_entropy(logits, rows.targets["speaker"], reduction="sum"))


def test_frames_of_a_voice_may_be_shuffled_in_training() -> None:
    model, rows = speecht5(task="speaker", speakers=9, shuffle_frames=True), batch("wave", "speaker")
    plain, lengths = model.see(rows)
    torch.testing.assert_close(model.see(rows)[0], plain)
    mixed, same = model.train().see(rows)
    assert torch.equal(same, lengths)
    assert not torch.equal(mixed, plain)
    for row, length in enumerate(lengths.tolist()):
        torch.testing.assert_close(mixed[row, :length].sort(0)[0], plain[row, :length].sort(0)[0])


def test_with_numbered_mask_symbols_the_decoder_writes_what_they_hide() -> None:
    model = speecht5(vocabulary=17, infilling=InfillingConfig(share=0.5, numbered=5), units=0, codebook=None)
    assert (model.config.mask_id, model.config.blank) == (10, 11)
    rows = batch("text")
    whole, holed, lengths = model.draw_holes(rows, generator())
    assert whole.text is not None
    assert rows.text is not None
    numbers = set(range(12, 17))
    assert numbers & set(holed.flatten().tolist())
    assert numbers & set(whole.text.flatten().tolist())
    assert whole.text.shape != rows.text.shape
    assert torch.equal(lengths, (holed != 1).sum(1))
    model.losses(rows, generator())["text"].value.backward()


def test_models_have_the_nets_of_their_inputs_and_outputs_alone() -> None:
    writes = speecht5(inputs=("text",), outputs=("speech",), ctc_head="none", units=0, codebook=None, task="generation")
    names = {name.split(".")[0] for name in writes.state_dict()}
    assert names == {"encoder", "text_prenet", "decoder", "speech_prenet", "spectrogram"}
    hears = speecht5(inputs=("speech",), outputs=("speech",), ctc_head="none", codebook=None)
    assert not any("embedding" in name for name in hears.state_dict())


def test_hidden_frames_are_replaced_and_channels_silenced() -> None:
    model = speecht5()
    heard = model.hear(batch("wave"))
    mask = InputMask(fused=torch.zeros(3, 19, dtype=torch.bool), channels=torch.zeros(3, 16, dtype=torch.bool))
    assert mask.fused is not None
    assert mask.channels is not None
    mask.fused[0, 3] = mask.channels[1, 2] = True
    hidden = model.hide(heard.projected, mask)
    assert torch.equal(hidden[0, 3], model.feature_mask)
    assert not hidden[1, :, 2].any()


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"inputs": ()}, "inputs: none; give speech, text or both."),
        ({"inputs": ("speech",), "outputs": ("speech",)}, "ctc_head: own in a model without text"),
        ({"vocabulary": 3}, "vocabulary: 3; a model of text has 4 special symbols"),
        ({"encoder": replace(SPEECHT5.encoder, position_kernel=4)}, "encoder.position_kernel: set 0"),
        ({"task": "generation", "outputs": ("text",)}, "task: generation writes speech, but outputs is text; add it there"),
        ({"task": "recognition", "ctc_head": "none"}, "losses.ctc: 0.5, but ctc_head is none; set ctc_head own"),
        ({"memory_layer": 3}, "memory_layer: 3; give null, or one of the encoder's 2 layers"),
        ({"task": "speaker"}, "speakers: 0 in a model that names them"),
    ],
)
def test_impossible_settings_are_refused(changes: dict[str, object], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        replace(SPEECHT5, **changes)


@pytest.mark.parametrize(
    ("parts", "sentence"),
    [
        (("wave", "mel", "voice"), "a: no labels 'units'"),
        (("wave", "units", "voice"), "a: no log mel spectrogram 'mel'"),
        (("wave", "units", "mel"), f"voice: none, but the model takes a speaker embedding of {SPECTROGRAM.voice_dim} values"),
    ],
)
def test_what_a_batch_lacks_is_named(parts: tuple[str, ...], sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        speecht5().losses(batch(*parts), generator())
