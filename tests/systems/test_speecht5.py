"""SpeechT5 beside what a replay of the stored cases shows: its promises, its sizes, its switches."""

from dataclasses import replace

import pytest
import torch

from avtlm import config
from avtlm.convert.options import Options
from avtlm.convert.options.speecht5 import architecture, fairseq
from avtlm.frontends.multimodal import InputMask
from avtlm.objectives.loss import Loss
from avtlm.objectives.masking import SpanMaskConfig
from avtlm.objectives.reconstruction import ReconstructionConfig
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


def test_guided_attention_adds_to_the_loss_of_fine_tuning() -> None:
    keep = torch.ones(2, 3, 12, 8, dtype=torch.bool)
    plain, guided = (
        speecht5(task="generation", losses=weights).generation_losses(batch("wave", "mel", "voice"), keep=keep)["spectrogram"]
        for weights in (LossConfig(), GUIDED)
    )
    value, number = guided.logs["guided_attention"]
    assert float(guided.value) == pytest.approx(float(plain.value + value), rel=1e-5)
    assert 0 < float(value / number) < 1


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
