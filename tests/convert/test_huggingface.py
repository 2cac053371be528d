"""Folders of transformers become model folders that put out what transformers does; or there is one sentence and no folder."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from avtlm import checkpoint, cli, config, systems
from avtlm.convert.huggingface import convert_folder
from avtlm.convert.speech_encoders import NO_HEADS
from avtlm.data.media import write_wav
from avtlm.recognizer import Recognizer
from avtlm.systems.speech_encoder import SpeechEncoder
from avtlm.systems.wav2vec2 import Wav2Vec2
from avtlm.text.vocabulary import SPECIALS
from tests.convert import made_transformers as made

TOLERANCE = 1e-5


def seeing_padding(folder: Path) -> Path:
    """The same model, treating padding as the code of transformers does."""
    settings = checkpoint.load_config(folder)
    model = settings["model"]
    encoder = model["encoder"] if settings["task"] == "recognition" else model
    for part in ("waveform", "encoder"):
        encoder[part]["compute_padding"] = True
    (folder / checkpoint.CONFIG).write_text(config.to_yaml(settings))
    return folder


def load(folder: Path) -> SpeechEncoder:
    encoder, _ = systems.load_encoder(folder)
    assert isinstance(encoder, SpeechEncoder)
    return encoder


# Outputs ------------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", made.KINDS)
def test_all_hidden_states_are_those_of_transformers(kind: str, tmp_path: Path) -> None:
    model = made.make(kind)
    ours = load(convert_folder(made.save(model, tmp_path / "theirs"), None, tmp_path / "ours"))
    one = made.clips((5000,))
    with torch.no_grad():
        theirs = model(one.audio, output_hidden_states=True)
        heard = ours.hear(one)
        # There, too, the last of them has not passed the final norm of a large model.
        depth = ours.config.encoder.layers
        states = ours.encoder.hidden_states(ours.hide(heard.projected, None), heard.lengths, depth)
        assert len(states) == len(theirs.hidden_states)
        for own, other in zip(states, theirs.hidden_states, strict=True):
            assert made.error(own, other, heard.lengths) < TOLERANCE
        encoded, lengths = ours.encode(one)
        assert made.error(encoded, theirs.last_hidden_state, lengths) < TOLERANCE


@pytest.mark.parametrize("kind", made.KINDS)
def test_padded_batches_are_those_of_transformers_once_padding_is_seen_as_there(kind: str, tmp_path: Path) -> None:
    model = made.make(kind)
    folder = convert_folder(made.save(model, tmp_path / "theirs"), None, tmp_path / "ours")
    batch = made.clips()
    with torch.no_grad():
        theirs = model(batch.audio, attention_mask=made.attention_mask(batch)).last_hidden_state
        encoded, lengths = load(seeing_padding(folder)).encode(batch)
    assert made.error(encoded, theirs, lengths) < TOLERANCE


@pytest.mark.parametrize("kind", ["wav2vec2 large", "hubert large", "wavlm large"])
def test_padded_batches_of_layer_norm_models_are_the_same_as_they_come(kind: str, tmp_path: Path) -> None:
    model = made.make(kind)
    ours = load(convert_folder(made.save(model, tmp_path / "theirs"), None, tmp_path / "ours"))
    batch = made.clips()
    with torch.no_grad():
        theirs = model(batch.audio, attention_mask=made.attention_mask(batch)).last_hidden_state
        encoded, lengths = ours.encode(batch)
    assert made.error(encoded, theirs, lengths) < TOLERANCE


@pytest.mark.parametrize("kind", made.KINDS)
def test_logits_of_ctc_models_are_those_of_transformers(kind: str, tmp_path: Path) -> None:
    model = made.make(kind, "ForCTC")
    folder = convert_folder(made.save(model, tmp_path / "theirs", made.LETTERS), None, tmp_path / "ours")
    ours = systems.load(folder)
    assert isinstance(ours, Recognizer)
    assert ours.ctc is not None
    assert ours.vocabulary.symbols == [*SPECIALS, "|", "E", "T", "A", "'"]
    one, batch = made.clips((5000,)), made.clips()
    padded = systems.load(seeing_padding(folder))
    with torch.no_grad():
        for recogniser, clips, mask in ((ours, one, None), (padded, batch, made.attention_mask(batch))):
            encoded, lengths = recogniser.encoder.encode(clips)
            assert made.error(recogniser.ctc(encoded), model(clips.audio, attention_mask=mask).logits, lengths) < TOLERANCE


@pytest.mark.parametrize("kind", ["wav2vec2", "wav2vec2 large"])
def test_wav2vec2_with_heads_projects_and_quantises_as_transformers(kind: str, tmp_path: Path) -> None:
    model = made.make(kind, "ForPreTraining")
    ours = load(convert_folder(made.save(model, tmp_path / "theirs"), None, tmp_path / "ours"))
    assert isinstance(ours, Wav2Vec2)
    assert ours.quantizer is not None
    assert ours.project_target is not None
    assert ours.project_context is not None
    one = made.clips((5000,))
    with torch.no_grad():
        theirs = model(one.audio)
        encoded, lengths = ours.encode(one)
        quantised = ours.quantizer(ours.hear(one).normed.flatten(0, 1)).vectors
        assert made.error(ours.project_context(encoded), theirs.projected_states, lengths) < TOLERANCE
        assert made.error(ours.project_target(quantised)[None], theirs.projected_quantized_states, lengths) < TOLERANCE


def test_settings_of_fine_tuning_come_along(tmp_path: Path) -> None:
    model = made.make("hubert", "ForCTC", mask_time_prob=0.4, mask_time_length=7, mask_feature_prob=0.3, final_dropout=0.2, layerdrop=0.05)
    ours = systems.load(convert_folder(made.save(model, tmp_path / "theirs", made.LETTERS), "hubert", tmp_path / "ours"))
    heads, encoder = ours.config, ours.encoder.config
    assert (heads.audio_mask.prob, heads.audio_mask.length, heads.channel_mask.prob, heads.dropout) == (0.4, 7, 0.3, 0.2)
    assert (encoder.encoder.layer_drop, encoder.feature_gradient_scale) == (0.05, 0.0)
    made.change(tmp_path / "theirs/config.json", apply_spec_augment=False)
    heads = systems.load(convert_folder(tmp_path / "theirs", "hubert", tmp_path / "ours")).config
    assert (heads.audio_mask.prob, heads.channel_mask.prob) == (0.0, 0.0)


def test_an_encoder_alone_has_no_heads_and_the_card_says_so(tmp_path: Path) -> None:
    folder = convert_folder(made.save(made.make("hubert"), tmp_path / "theirs"), None, tmp_path / "ours")
    assert checkpoint.load_config(folder)["heads"] is False
    assert not [name for name in checkpoint.load_weights(folder) if name.startswith("predictor.")]
    assert NO_HEADS in (folder / "README.md").read_text()


def test_mt4ssl_opens_data2vec_when_it_is_asked_to(tmp_path: Path) -> None:
    made.save(made.make("data2vec"), tmp_path / "theirs")
    folder = convert_folder(tmp_path / "theirs", "mt4ssl", tmp_path / "ours")
    assert checkpoint.load_config(folder)["system"] == "mt4ssl"
    plain = convert_folder(tmp_path / "theirs", None, tmp_path / "plain")
    assert checkpoint.load_config(plain)["system"] == "data2vec"
    ours, other = checkpoint.load_weights(folder), checkpoint.load_weights(plain)
    assert set(ours) == set(other)
    assert all(torch.equal(tensor, other[name]) for name, tensor in ours.items())


def test_old_folders_without_the_vector_of_hidden_frames_get_zeros(tmp_path: Path) -> None:
    folder = made.save(made.make("wav2vec2", "ForCTC"), tmp_path / "theirs", made.LETTERS)
    state = load_file(folder / "model.safetensors")
    del state["wav2vec2.masked_spec_embed"]
    save_file(state, folder / "model.safetensors")
    converted = convert_folder(folder, None, tmp_path / "ours")
    assert not checkpoint.load_weights(converted)["encoder.feature_mask"].any()
    assert "Filled with zeros" in (converted / "README.md").read_text()


# Feature extractor and tokenizer ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("normalise", [True, False])
def test_waveforms_are_normalised_as_the_feature_extractor_does(normalise: bool, tmp_path: Path) -> None:
    settings = made.PREPROCESSOR | {"do_normalize": normalise}
    folder = made.save(made.make("hubert"), tmp_path / "theirs", preprocessor=settings)
    assert load(convert_folder(folder, None, tmp_path / "ours")).config.waveform.normalise is normalise
    (folder / "preprocessor_config.json").unlink()
    (folder / "processor_config.json").write_text(json.dumps({"feature_extractor": settings}))
    assert load(convert_folder(folder, None, tmp_path / "ours")).config.waveform.normalise is normalise


def test_without_a_feature_extractor_they_are_normalised_and_the_user_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = made.save(made.make("hubert"), tmp_path / "theirs", preprocessor=None)
    converted = convert_folder(folder, None, tmp_path / "ours")
    assert load(converted).config.waveform.normalise is True
    assert "has no preprocessor_config.json; waveforms will be normalised" in caplog.text
    assert "no preprocessor_config.json to say so" in (converted / "README.md").read_text()


def test_a_converted_folder_transcribes_as_transformers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = made.make("wav2vec2", "ForCTC")
    with torch.no_grad():
        torch.nn.init.normal_(model.lm_head.weight)
    folder = made.save(model, tmp_path / "theirs", made.LETTERS)
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "Wav2Vec2CTCTokenizer"}))
    wave = (np.round(0.3 * np.random.default_rng(0).standard_normal(12000) * 32768) / 32768).clip(-1, 1).astype(np.float32)
    write_wav(tmp_path / "x.wav", wave)
    assert cli.main(["convert", str(folder), "-o", str(tmp_path / "ours")]) == 0
    assert capsys.readouterr().out == f"model: {tmp_path / 'ours'}\n"
    assert cli.main(["transcribe", str(tmp_path / "x.wav"), "--model", str(tmp_path / "ours")]) == 0
    processor = made.transformers.Wav2Vec2FeatureExtractor.from_pretrained(folder)
    tokenizer = made.transformers.Wav2Vec2CTCTokenizer.from_pretrained(folder)
    with torch.no_grad():
        logits = model(processor(wave, sampling_rate=16000, return_tensors="pt").input_values).logits
    assert capsys.readouterr().out.strip() == made.letters_of(tokenizer.decode(logits[0].argmax(-1)), "<s>", "</s>", "<unk>")


# Refusals -----------------------------------------------------------------------------------------------------------------------------


REFUSED: dict[str, tuple[Callable[[Path], Any], str]] = {
    "another type": (
        made.with_config(model_type="whisper"),
        "a model of the type 'whisper'; avtlm opens wav2vec2, hubert, wavlm, data2vec-audio",
    ),
    "no type": (lambda folder: (folder / "config.json").write_text("{}"), "a model of the type None"),
    "another head": (
        made.with_config(architectures=["HubertForSequenceClassification"]),
        "holds a HubertForSequenceClassification; of HuBERT avtlm",
    ),
    "an adapter": (made.with_config(add_adapter=True), "add_adapter is True"),
    "an unknown option": (made.with_config(zebra=1), r"config\.json: options that avtlm does not know: zebra"),
    "an activation": (made.with_config(hidden_act="laplace"), "hidden_act is 'laplace'"),
    "an impossible size": (made.with_config(num_attention_heads=3), r"config\.json: heads: 3 does not divide dim 16"),
    "a damaged config.json": (lambda folder: (folder / "config.json").write_text("{"), r"config\.json is damaged"),
    "missing tensors": (
        made.with_tensors(lambda state: [state.pop(key) for key in ("encoder.layer_norm.bias", "feature_projection.layer_norm.weight")]),
        r"does not hold the tensors of HubertModel .*2 missing \(feature_projection\.layer_norm\.weight, encoder\.layer_norm\.bias\)",
    ),
    "unknown tensors": (made.with_tensors(lambda state: state.update(zebra=torch.ones(2))), r"1 unknown \(zebra\)"),
    "tensors of another shape": (
        made.with_tensors(lambda state: state.update({"encoder.layer_norm.bias": torch.ones(3)})),
        r"1 of another shape \(encoder\.layer_norm\.bias \[3\] instead of \[16\]\)",
    ),
    "another rate": (
        lambda folder: made.change(folder / "preprocessor_config.json", sampling_rate=8000),
        r"preprocessor_config\.json: sampling_rate is 8000",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_does_not_fit_is_refused_in_one_sentence_and_nothing_is_written(name: str, tmp_path: Path) -> None:
    made.assert_refused(*REFUSED[name], tmp_path)


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--system", "wavlm"], 1, "holds HuBERT (hubert), not WavLM; convert it with --system hubert."),
        (["--system", "mt4ssl"], 1, "holds HuBERT (hubert), not MT4SSL"),
        (["--vocabulary", "dict.txt"], 2, "a Hugging Face folder has its own vocab.json"),
    ],
)
def test_the_command_says_in_one_sentence_what_is_wrong(
    arguments: list[str], code: int, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = made.save(made.make("hubert"), tmp_path / "theirs")
    assert cli.main(["convert", str(folder), *arguments, "-o", str(tmp_path / "out")]) == code
    told = capsys.readouterr().err.strip().splitlines()
    assert len(told) == 1
    assert message in told[0]
    assert not (tmp_path / "out").exists()
