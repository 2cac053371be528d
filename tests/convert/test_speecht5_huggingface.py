"""SpeechT5 and its vocoder in transformers: the same random weights say the same here and there, in both directions."""

import json
import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from avtlm import checkpoint, systems
from avtlm.convert.export_huggingface import to_huggingface
from avtlm.convert.fairseq import convert
from avtlm.convert.huggingface import convert_folder
from avtlm.convert.model import ConversionError
from avtlm.convert.speecht5 import official_checkpoint
from avtlm.data.batching import Batch
from avtlm.decoding.beam import BeamOptions, attention_beam
from avtlm.decoding.synthesis import SynthesisOptions, synthesize
from avtlm.systems.speecht5 import SpeechT5
from tests.systems.sequence_models import batch, speecht5

transformers = pytest.importorskip("transformers")
transformers.utils.logging.disable_progress_bar()

SIZES: dict[str, Any] = {
    "vocab_size": 12,
    "hidden_size": 16,
    **{"encoder_layers": 2, "encoder_attention_heads": 2, "encoder_ffn_dim": 24, "encoder_max_relative_position": 3},
    **{"decoder_layers": 2, "decoder_attention_heads": 2, "decoder_ffn_dim": 24},
    **{"conv_dim": [8] * 7, "num_conv_pos_embeddings": 6, "num_conv_pos_embedding_groups": 2},
    **{"num_mel_bins": 6, "speaker_embedding_dim": 5, "speech_decoder_prenet_units": 8, "speech_decoder_postnet_units": 8},
    **{"max_speech_positions": 200, "max_text_positions": 40},
}
SAMPLES = (6400, 4000)
CLASSES = {"s2t": "SpeechT5ForSpeechToText", "t2s": "SpeechT5ForTextToSpeech", "s2s": "SpeechT5ForSpeechToSpeech"}


def theirs(kind: str, **changes: Any) -> Any:
    """A random model in evaluation mode, with weights off their start values."""
    torch.manual_seed(0)
    model = getattr(transformers, CLASSES[kind])(transformers.SpeechT5Config(**SIZES | changes)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return model


def ours(model: Any, folder: Path) -> SpeechT5:
    model.save_pretrained(folder / "there")
    found, _ = systems.load_encoder(convert_folder(folder / "there", None, folder / "here"))
    assert isinstance(found, SpeechT5)
    return found


def speech() -> tuple[dict[str, Tensor], Batch]:
    """Noise of two lengths, for them and for us."""
    wave = torch.randn(2, SAMPLES[0], generator=torch.Generator().manual_seed(1))
    lengths = torch.tensor(SAMPLES)
    mask = (torch.arange(SAMPLES[0]) < lengths[:, None]).long()
    return {"input_values": wave * mask, "attention_mask": mask}, Batch(("a", "b"), "audio", wave * mask, lengths)


def text() -> tuple[dict[str, Tensor], Batch]:
    ids = torch.tensor([[4, 5, 6, 7, 8, 2], [9, 4, 5, 2, 1, 1]])
    return {"input_ids": ids, "attention_mask": (ids != 1).long()}, Batch(("a", "b"), "text", text=ids, text_lengths=torch.tensor([6, 4]))


@torch.no_grad()
@pytest.mark.parametrize(
    "changes",
    [
        {},
        # The activation of the convolutions is that of the positions, too.
        {"scale_embedding": True, "feat_extract_activation": "relu", "hidden_act": "gelu_new", "feat_extract_norm": "layer"},
    ],
)
def test_recognition_says_the_same(tmp_path: Path, changes: dict[str, Any]) -> None:
    there = theirs("s2t", **changes)
    here = ours(there, tmp_path)
    given, rows = speech()
    tokens = torch.tensor([[2, 4, 5, 6], [2, 7, 8, 9]])
    expected = there(**given, decoder_input_ids=tokens)
    encoded, lengths = here.encode(rows)
    torch.testing.assert_close(encoded, expected.encoder_last_hidden_state, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(here.decoder(tokens, encoded, lengths), expected.logits, atol=1e-5, rtol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("beam", [1, 3])
def test_recognition_writes_the_same(tmp_path: Path, beam: int) -> None:
    there = theirs("s2t")
    here = ours(there, tmp_path)
    wave = speech()[0]["input_values"][:1]
    found = there.generate(input_values=wave, num_beams=beam, max_length=9, do_sample=False)[0].tolist()
    encoded, lengths = here.encode(Batch(("a",), "audio", wave, torch.tensor([wave.shape[1]])))
    best = attention_beam(here.decoder, encoded, lengths, BeamOptions(beam=beam, nbest=1, max_len_a=0, max_len_b=7, min_len=0))[0][0]
    # Where their limit cuts a text off, ours forces its end.
    assert list(best.tokens) == [token for token in found[1:8] if token != 2][: len(best.tokens)]


@torch.no_grad()
@pytest.mark.parametrize("kind", ["t2s", "s2s"])
def test_written_speech_is_the_same(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    there = theirs(kind)
    here = ours(there, tmp_path)
    given, rows = text() if kind == "t2s" else speech()
    generator = torch.Generator().manual_seed(2)
    mel, voice = torch.randn(2, 8, 6, generator=generator), torch.randn(2, 5, generator=generator)
    keep = torch.rand(2, 4, 8, generator=generator) > 0.5
    masks = iter([*keep, *keep])
    monkeypatch.setattr(
        type(there.speecht5.decoder.prenet), "_consistent_dropout", lambda _, x, p: torch.where(next(masks)[None], x, 0.0) / (1 - p)
    )
    steps = torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0]])
    expected = there(**given, decoder_input_values=mel[:, 1::2], decoder_attention_mask=steps, speaker_embeddings=voice)
    encoded, lengths = here.encode(rows)
    memory = here.decoder.project_memory(encoded, lengths)
    written = here.write_speech(mel[:, 1::2], steps.sum(1), voice, memory, keep[:, None])
    torch.testing.assert_close(written.after, expected.spectrogram, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_generated_speech_is_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    there = theirs("t2s")
    there.speech_decoder_postnet.prob_out.weight *= 0.1
    there.speech_decoder_postnet.prob_out.bias.fill_(-1.4)
    here = ours(there, tmp_path)
    ids, voice = torch.tensor([[4, 5, 6, 2]]), torch.ones(1, 5)
    keep = torch.rand(60, 2, 8, generator=torch.Generator().manual_seed(2)) > 0.5
    state = {"layer": 0}

    def dropout(_: Any, x: Tensor, p: float) -> Tensor:
        layer = state["layer"] % 2
        state["layer"] += 1
        return torch.where(keep[: x.shape[1], layer], x, 0.0) / (1 - p)

    monkeypatch.setattr(type(there.speecht5.decoder.prenet), "_consistent_dropout", dropout)
    expected = there.generate_speech(ids, voice)
    encoded, lengths = here.encode(Batch(("a",), "text", text=ids, text_lengths=torch.tensor([4])))
    options = SynthesisOptions(**checkpoint.load_decoding(tmp_path / "here"))
    assert options.stop == "sum"
    [found] = synthesize(here, encoded, lengths, voice, options=options, keep=keep[:, :, None])
    assert len(found.mel) > 4
    torch.testing.assert_close(found.mel, expected, atol=1e-4, rtol=1e-4)


@torch.no_grad()
@pytest.mark.parametrize("kind", ["s2t", "t2s", "s2s"])
def test_a_folder_written_back_holds_the_same_model(tmp_path: Path, kind: str) -> None:
    there = theirs(kind)
    ours(there, tmp_path)
    to_huggingface(tmp_path / "here", tmp_path / "back")
    again = getattr(transformers, CLASSES[kind]).from_pretrained(tmp_path / "back")
    state = again.state_dict()
    assert all(torch.equal(state[name], tensor) for name, tensor in there.state_dict().items())
    assert again.config.to_diff_dict().keys() - {"architectures", "transformers_version", "dtype"} <= {*SIZES, *again.config.to_dict()}
    for name in SIZES:
        if name not in ("max_speech_positions",):
            assert list(getattr(again.config, name)) == SIZES[name] if name == "conv_dim" else getattr(again.config, name) == SIZES[name]
    assert transformers.AutoFeatureExtractor.from_pretrained(tmp_path / "back").do_normalize is False


@torch.no_grad()
def test_an_official_model_loads_in_transformers(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Through a file of the official code; what its class has no place for stays behind, with a warning."""
    from avtlm.convert.official_file import save

    model = speecht5(task="recognition", codebook=None)
    folder = convert(save(official_checkpoint(model.config, model.state_dict()), tmp_path / "official.pt"), None, tmp_path / "model")
    with caplog.at_level(logging.WARNING):
        to_huggingface(folder, tmp_path / "there")
    assert "left out" in caplog.text
    there = transformers.SpeechT5ForSpeechToText.from_pretrained(tmp_path / "there").eval()
    one = batch("wave", row=0)
    tokens = torch.tensor([[2, 4, 5, 6]])
    expected = there(input_values=one.audio, decoder_input_ids=tokens).logits
    torch.testing.assert_close(model.decoder(tokens, *model.encode(one)), expected, atol=1e-5, rtol=1e-5)
    written = there.generate(input_values=one.audio, num_beams=1, max_length=5, do_sample=False, bad_words_ids=[[1]])[0].tolist()
    [[best]] = attention_beam(model.decoder, *model.encode(one), BeamOptions(1, max_len_a=0, max_len_b=4, min_len=0))
    assert written[0] == 2
    assert [token for token in written[1:] if token != 2] == list(best.tokens)
    assert there.generation_config.max_length == model.config.decoder.max_positions


@torch.no_grad()
def test_the_vocoder_says_the_same_and_goes_back(tmp_path: Path) -> None:
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"model_in_dim": 6, "upsample_initial_channel": 16, "upsample_rates": [4, 2], "upsample_kernel_sizes": [8, 4]}
    there = transformers.SpeechT5HifiGan(transformers.SpeechT5HifiGanConfig(**sizes)).eval()
    for parameter in there.parameters():
        parameter += 0.1 * torch.randn_like(parameter)
    there.mean += 0.5
    there.scale *= 2.0
    there.save_pretrained(tmp_path / "there")
    here = systems.load_vocoder(convert_folder(tmp_path / "there", None, tmp_path / "here"))
    mel = torch.randn(2, 7, 6)
    torch.testing.assert_close(here(mel), there(mel), atol=1e-5, rtol=1e-5)
    again = transformers.SpeechT5HifiGan.from_pretrained(to_huggingface(tmp_path / "here", tmp_path / "back"))
    assert all(torch.equal(again.state_dict()[name], tensor) for name, tensor in there.state_dict().items())
    with pytest.raises(ValueError, match="speecht5 is no vocoder; give the folder of one of hifigan"):
        systems.load_vocoder(ours_folder(tmp_path))


def ours_folder(folder: Path) -> Path:
    ours(theirs("s2t"), folder / "other")
    return folder / "other" / "here"


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"architectures": ["SpeechT5Model"]}, "it holds a SpeechT5Model; of SpeechT5 avtlm opens SpeechT5ForSpeechToText"),
        ({"layer_norm_eps": 1e-3}, "layer_norm_eps is 0.001"),
        ({"encoder_layers": 3}, "speecht5.encoder.wrapped_encoder.layers.2"),
        ({"wavelets": 4}, "options that avtlm does not know: wavelets"),
    ],
)
def test_what_cannot_be_honoured_is_named(tmp_path: Path, changes: dict[str, Any], reason: str) -> None:
    theirs("s2t").save_pretrained(tmp_path / "there")
    path = tmp_path / "there" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    with pytest.raises(ConversionError) as caught:
        convert_folder(tmp_path / "there", None, tmp_path / "here")
    assert reason in str(caught.value)
    assert not (tmp_path / "here").exists()


def test_base_classes_have_the_stated_numbers_of_parameters() -> None:
    from avtlm.convert.options import Options
    from avtlm.convert.options.speecht5 import hugging_face

    stated = {"s2t": 151_165_056, "t2s": 144_431_684, "s2s": 153_685_187}
    with torch.device("meta"):
        for kind, number in stated.items():
            model = SpeechT5(hugging_face(Options({}, "test"), kind))  # type: ignore[arg-type]
            assert sum(parameter.numel() for parameter in model.parameters()) == number, kind
