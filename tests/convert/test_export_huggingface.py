"""Model folders become folders that transformers loads without a missing or unexpected tensor, and that put out the same."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from avtlm import checkpoint, cli, systems
from avtlm.convert.export_huggingface import to_huggingface
from avtlm.convert.fairseq import convert
from avtlm.convert.huggingface import convert_folder
from avtlm.convert.model import ConversionError
from avtlm.nn.quantize import QuantizerConfig
from avtlm.nn.transformer import DecoderConfig
from avtlm.recognizer import Recognizer
from avtlm.systems.speech_encoder import SpeechEncoder
from avtlm.systems.wav2vec2 import Wav2Vec2
from tests.convert import made_transformers as made
from tests.convert.made_checkpoints import pieces, write
from tests.convert.made_speech import CONFIGS, LETTERS, SYSTEMS, fine_tuned, pretrained, save_pretrained, save_recogniser
from tests.convert.test_export import save_encoder
from tests.made_model import save_tiny_recognizer

TOLERANCE = 1e-5
CTC_SYSTEMS = ("wav2vec2", "hubert", "wavlm", "data2vec", "mt4ssl")
LARGE: dict[str, Any] = {  # by system, what the large models have in place of the base ones
    system: {
        "waveform": replace(CONFIGS[system].waveform, norm="layer", bias=True, normalise=True),
        "encoder": replace(CONFIGS[system].encoder, norm_first=True),
    }
    for system in ("wav2vec2", "hubert", "wavlm")
}


def loaded(cls: str, folder: Path) -> Any:
    """A model of transformers, which found every tensor in the folder and none besides."""
    model, report = getattr(made.transformers, cls).from_pretrained(folder, output_loading_info=True)
    assert not any(report[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys")), report
    return model.eval()


def encoder_of(folder: Path) -> SpeechEncoder:
    encoder, _ = systems.load_encoder(folder)
    assert isinstance(encoder, SpeechEncoder)
    return encoder


# What transformers makes of it --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("system", "large"), [*((system, False) for system in SYSTEMS), *((system, True) for system in LARGE)])
def test_transformers_loads_an_encoder_and_gives_the_same_frames(system: Any, large: bool, tmp_path: Path) -> None:
    folder = save_pretrained(tmp_path / "ours", system, **(LARGE[system] if large else {}))
    written = to_huggingface(folder, tmp_path / "theirs")
    if system == "wav2vec2":
        model = loaded("Wav2Vec2ForPreTraining", written).wav2vec2
    else:
        model = loaded("AutoModel", written)
    ours, one = encoder_of(folder), made.clips((5000,))
    with torch.no_grad():
        encoded, lengths = ours.encode(one)
        assert made.error(encoded, model(one.audio).last_hidden_state, lengths) < TOLERANCE
        if large:
            batch = made.clips()
            encoded, lengths = ours.encode(batch)
            theirs = model(batch.audio, attention_mask=made.attention_mask(batch)).last_hidden_state
            assert made.error(encoded, theirs, lengths) < TOLERANCE


@pytest.mark.parametrize("system", CTC_SYSTEMS)
def test_transformers_loads_a_recogniser_and_gives_the_same_logits_and_letters(system: Any, tmp_path: Path) -> None:
    folder = save_recogniser(tmp_path / "ours", system)
    written = to_huggingface(folder, tmp_path / "theirs")
    model, ours = loaded("AutoModelForCTC", written), systems.load(folder)
    assert isinstance(ours, Recognizer)
    assert ours.ctc is not None
    one = made.clips((9000,))
    with torch.no_grad():
        logits = model(one.audio).logits
        encoded, lengths = ours.encoder.encode(one)
        assert made.error(ours.ctc(encoded), logits, lengths) < TOLERANCE
    tokenizer = made.transformers.AutoTokenizer.from_pretrained(written)
    text = tokenizer.decode(logits[0].argmax(-1))
    for special in ("<s>", "</s>", "<unk>"):
        text = text.replace(special, "")
    assert ours.transcribe_batch(one)[0].text == " ".join(text.split())
    assert tokenizer("TEA NOT")["input_ids"] == ours.vocabulary.encode("TEA NOT")


@pytest.mark.parametrize("system", ["hubert", "data2vec"])
def test_the_feature_extractor_prepares_waveforms_as_our_model_hears_them(system: Any, tmp_path: Path) -> None:
    written = to_huggingface(save_pretrained(tmp_path / "ours", system), tmp_path / "theirs")
    extractor = made.transformers.AutoFeatureExtractor.from_pretrained(written)
    wave = 0.2 * torch.randn(4000, generator=torch.Generator().manual_seed(0)) + 0.05
    theirs = extractor(wave.numpy(), sampling_rate=16000, return_tensors="pt")
    ours = torch.nn.functional.layer_norm(wave, wave.shape) if system == "data2vec" else wave
    # The variance of 0.04 gets 1e-5 more here and 1e-7 there.
    assert torch.allclose(theirs.input_values[0], ours, rtol=2e-4, atol=1e-5)
    assert "attention_mask" in theirs


def test_what_wav2vec2_is_pretrained_with_comes_along(tmp_path: Path) -> None:
    folder = save_pretrained(tmp_path / "ours", "wav2vec2")
    model = loaded("Wav2Vec2ForPreTraining", to_huggingface(folder, tmp_path / "theirs"))
    ours, one = encoder_of(folder), made.clips((5000,))
    assert isinstance(ours, Wav2Vec2)
    assert ours.quantizer is not None
    assert ours.project_target is not None
    assert ours.project_context is not None
    with torch.no_grad():
        theirs = model(one.audio)
        encoded, lengths = ours.encode(one)
        targets = ours.project_target(ours.quantizer(ours.hear(one).normed.flatten(0, 1)).vectors)[None]
        assert made.error(ours.project_context(encoded), theirs.projected_states, lengths) < TOLERANCE
        assert made.error(targets, theirs.projected_quantized_states, lengths) < TOLERANCE
    assert (model.config.num_negatives, model.config.contrastive_logits_temperature) == (6, 0.1)


def test_settings_of_training_are_written(tmp_path: Path) -> None:
    changes = {"mask": replace(CONFIGS["hubert"].mask, prob=0.7, length=5, min_spans=1)}
    encoder = replace(CONFIGS["hubert"].encoder, dropout=0.15, attention_dropout=0.05, activation_dropout=0.02, layer_drop=0.03)
    written = to_huggingface(save_pretrained(tmp_path / "ours", "hubert", encoder=encoder, **changes), tmp_path / "theirs")
    found = loaded("AutoModel", written).config
    assert (found.hidden_dropout, found.attention_dropout, found.activation_dropout, found.layerdrop) == (0.15, 0.05, 0.02, 0.03)
    assert (found.mask_time_prob, found.mask_time_length, found.mask_time_min_masks) == (0.7, 5, 1)


def test_a_model_without_masks_is_written_without_their_vector(tmp_path: Path) -> None:
    mask = replace(CONFIGS["hubert"].mask, prob=0.0)
    loaded("AutoModel", to_huggingface(save_pretrained(tmp_path / "ours", "hubert", mask=mask), tmp_path / "theirs"))


# There and back -----------------------------------------------------------------------------------------------------------------------


def encoders(folder: Path) -> dict[str, torch.Tensor]:
    """Tensors of a model folder but those of heads that transformers has not got."""
    heads = ("predictor.", "teacher.", "regress.", "classify.")
    return {name: tensor for name, tensor in checkpoint.load_weights(folder).items() if not name.startswith(heads)}


def assert_same(first: dict[str, torch.Tensor], second: dict[str, torch.Tensor]) -> None:
    assert set(first) == set(second)
    assert all(torch.equal(tensor, second[name]) for name, tensor in first.items())


@pytest.mark.parametrize("system", SYSTEMS)
def test_from_fairseq_to_transformers_and_back_no_bit_changes(system: Any, tmp_path: Path) -> None:
    first = convert(write(tmp_path / "official.pt", pretrained(system)[0]), None, tmp_path / "first")
    second = convert_folder(to_huggingface(first, tmp_path / "theirs"), system, tmp_path / "second")
    assert_same(encoders(first), encoders(second))
    one = made.clips((5000,))
    with torch.no_grad():
        assert torch.equal(encoder_of(first).encode(one)[0], encoder_of(second).encode(one)[0])


@pytest.mark.parametrize("system", ["wav2vec2", "hubert", "data2vec", "mt4ssl"])
def test_recognisers_from_fairseq_to_transformers_and_back_no_bit_changes(system: Any, tmp_path: Path) -> None:
    first = convert(write(tmp_path / "official.pt", fine_tuned(system)[0]), None, tmp_path / "first")
    second = convert_folder(to_huggingface(first, tmp_path / "theirs"), system, tmp_path / "second")
    assert_same(checkpoint.load_weights(first), checkpoint.load_weights(second))
    ours, back = systems.load(first), systems.load(second)
    assert ours.vocabulary == back.vocabulary == LETTERS
    assert (ours.config.audio_mask, ours.config.channel_mask) == (back.config.audio_mask, back.config.channel_mask)


@pytest.mark.parametrize(
    ("kind", "suffix"),
    [
        *((kind, suffix) for kind in made.KINDS for suffix in ("Model", "ForCTC")),
        *((kind, "ForPreTraining") for kind in made.KINDS if kind.startswith("wav2vec2")),
    ],
)
def test_from_transformers_to_avtlm_and_back_no_bit_changes(kind: str, suffix: str, tmp_path: Path) -> None:
    first = made.save(made.make(kind, suffix), tmp_path / "first", made.LETTERS if suffix == "ForCTC" else None)
    second = to_huggingface(convert_folder(first, None, tmp_path / "ours"), tmp_path / "second")
    assert_same(load_file(first / "model.safetensors"), load_file(second / "model.safetensors"))
    loaded(made.KINDS[kind][0] + suffix, second)
    before, after = (json.loads((folder / "config.json").read_text()) for folder in (first, second))
    assert before["architectures"] == after["architectures"]
    known = set(before) & set(after) - {"transformers_version", "dtype", "ctc_zero_infinity", "ctc_loss_reduction"}
    assert {key: before[key] for key in known} == {key: after[key] for key in known}
    if suffix == "ForCTC":
        assert json.loads((second / "vocab.json").read_text()) == made.LETTERS


# What transformers has not got ----------------------------------------------------------------------------------------------------------

LEFT: dict[str, tuple[str, dict[str, Any], str]] = {
    "units": ("hubert", {}, "the head over units is left out, since transformers has no class that predicts them"),
    "WavLM's units": ("wavlm", {}, "the head over units is left out"),
    "a teacher": ("data2vec", {}, "the teacher and the head that regresses it are left out"),
    "both heads": ("mt4ssl", {}, "the teacher and both heads are left out, since transformers has no class with them"),
    "a gated layer": (
        "wav2vec2",
        {"target_glu": True},
        r"behind it are left out, since transformers has no counterpart of target_glu = True",
    ),
    "a deep quantiser": ("wav2vec2", {"quantizer": QuantizerConfig(2, 5, depth=2)}, r"no counterpart of quantizer\.depth = 2"),
    "no quantiser": ("wav2vec2", {"quantizer": None}, r"are left out, since transformers has no counterpart of quantizer"),
    "HuBERT's padding": (
        "hubert",
        {"waveform": replace(CONFIGS["hubert"].waveform, frame_padding="samples")},
        "of a padded clip transformers counts one frame less",
    ),
}


@pytest.mark.parametrize("name", LEFT)
def test_what_is_left_out_is_named_once_and_stands_on_the_card(name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    import re

    system, changes, message = LEFT[name]
    written = to_huggingface(save_pretrained(tmp_path / "ours", system, **changes), tmp_path / "theirs")  # type: ignore[arg-type]
    assert len([record for record in caplog.records if re.search(message, record.getMessage())]) == 1
    card = (written / "README.md").read_text()
    assert re.search(message[1:].split("|")[0], card)
    loaded("AutoModel", written)


REFUSED: dict[str, tuple[Callable[[Path], Path], str]] = {
    "data2vec that norms first": (
        lambda folder: save_pretrained(folder, "data2vec", encoder=replace(CONFIGS["data2vec"].encoder, norm_first=True)),
        r"Data2VecAudio of transformers has no counterpart of encoder\.norm_first = True",
    ),
    "data2vec with a group norm": (
        lambda folder: save_pretrained(folder, "data2vec", waveform=replace(CONFIGS["data2vec"].waveform, norm="group")),
        r"no counterpart of waveform\.norm = group",
    ),
    "a single positional convolution in data2vec": (
        lambda folder: save_pretrained(folder, "mt4ssl", encoder=replace(CONFIGS["mt4ssl"].encoder, position_blocks=1)),
        r"no counterpart of encoder\.position_norm = weight",
    ),
    "relative positions in HuBERT": (
        lambda folder: save_pretrained(folder, "hubert", encoder=CONFIGS["wavlm"].encoder),
        r"no counterpart of encoder\.relative_buckets = 8",
    ),
    "frames without a norm": (
        lambda folder: save_pretrained(folder, "wav2vec2", waveform=replace(CONFIGS["wav2vec2"].waveform, feature_norm=False)),
        r"no counterpart of waveform\.feature_norm = False",
    ),
    "no projection": (
        lambda folder: save_pretrained(
            folder, "hubert", waveform=replace(CONFIGS["hubert"].waveform, widths=(8,) * 6 + (16,), project_always=False)
        ),
        r"no counterpart of waveform\.project_always = False",
    ),
    "quantised inputs": (
        lambda folder: save_pretrained(folder, "wav2vec2", input_quantizer=QuantizerConfig(2, 5)),
        r"no counterpart of input_quantizer",
    ),
    "experts": (
        lambda folder: save_pretrained(folder, "hubert", encoder=replace(CONFIGS["hubert"].encoder, experts=("audio", "joint"))),
        r"no counterpart of encoder\.experts",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_transformers_cannot_express_is_refused_and_nothing_is_written(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    build, message = REFUSED[name]
    folder = build(tmp_path / "ours")
    with pytest.raises(ConversionError, match=message):
        to_huggingface(folder, tmp_path / "out/theirs")
    assert not (tmp_path / "out").exists()
    assert cli.main(["convert", str(folder), "--to", "huggingface", "-o", str(tmp_path / "out/theirs")]) == 1
    told = capsys.readouterr().err.strip().splitlines()
    assert len(told) == 1
    assert "cannot become a Hugging Face folder" in told[0]


def test_recognisers_of_other_kinds_are_refused(tmp_path: Path) -> None:
    folder = save_recogniser(tmp_path / "ours", "hubert")
    settings = checkpoint.load_config(folder)
    decoder = DecoderConfig(dim=16, layers=1, heads=2, feed_forward_dim=16)
    from avtlm import config

    settings["model"]["decoder"] = config.to_dict(decoder)
    (folder / checkpoint.CONFIG).write_text(config.to_yaml(settings))
    with pytest.raises(ConversionError, match="it has an attention decoder"):
        to_huggingface(folder, tmp_path / "theirs")
    model = systems.load(save_recogniser(tmp_path / "spelled", "hubert"))
    words = pieces(len(LETTERS) + 28)
    wide = Recognizer(model.config, model.encoder, words)
    card = {"system": "hubert", "task": "recognition", "model": config.to_dict(model.config)}
    checkpoint.save_model(tmp_path / "pieces", wide, card, words)
    with pytest.raises(ConversionError, match="word pieces of SentencePiece"):
        to_huggingface(tmp_path / "pieces", tmp_path / "theirs")


@pytest.mark.parametrize("build", [save_tiny_recognizer, save_encoder])
def test_models_with_lips_are_refused(build: Any, tmp_path: Path) -> None:
    from tests.convert.test_export import AVHUBERT

    folder = build(tmp_path / "ours", AVHUBERT) if build is save_encoder else build(tmp_path / "ours")
    with pytest.raises(ConversionError, match=r"transformers has no class for (VATLM|AV-HuBERT)"):
        to_huggingface(folder, tmp_path / "theirs")


def test_the_command_writes_a_folder_and_keeps_other_folders_safe(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder, out = save_recogniser(tmp_path / "ours", "wav2vec2"), tmp_path / "theirs"
    for _ in range(2):  # the second time it takes the place of the first
        assert cli.main(["convert", str(folder), "--to", "huggingface", "-o", str(out)]) == 0
        assert capsys.readouterr().out == f"folder: {out}\n"
    assert cli.main(["convert", str(folder), "--to", "huggingface", "-o", str(folder)]) == 1
    assert "choose another place" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["ours", "theirs"]
