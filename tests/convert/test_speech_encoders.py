"""Official files of the five speech systems become model folders with their weights and settings, or one sentence and no folder."""

import argparse
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from avtlm import checkpoint, cli, systems
from avtlm.convert.fairseq import convert
from avtlm.convert.model import ConversionError
from avtlm.convert.options.wav2vec2_official import lost
from avtlm.convert.pickles import TorchFileError
from avtlm.convert.speech_encoders import NO_HEADS
from avtlm.data.media import write_wav
from avtlm.recognizer import Recognizer
from avtlm.systems.data2vec import Data2Vec
from avtlm.systems.hubert import Hubert
from avtlm.systems.speech_encoder import SpeechEncoder
from avtlm.text.vocabulary import Vocabulary
from tests.convert.made_checkpoints import units, write
from tests.convert.made_speech import CONFIGS, LETTERS, NAMES, SYSTEMS, fine_tuned, options, pretrained, same
from tests.golden_case import GoldenCase, error, read_case
from tests.systems.speech_models import batch

CTC_SYSTEMS = ("wav2vec2", "hubert", "data2vec", "mt4ssl")


def converted(tmp_path: Path, content: dict[str, Any], system: Any = None, **named: Any) -> Path:
    return convert(write(tmp_path / "official.pt", content), system, tmp_path / "model", **named)


# Pre-trained --------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("system", SYSTEMS)
def test_a_file_becomes_an_encoder_with_its_weights_and_settings(system: Any, tmp_path: Path) -> None:
    content, model = pretrained(system)
    folder = converted(tmp_path, content)
    found, _ = systems.load_encoder(folder)
    assert isinstance(found, SpeechEncoder)
    assert type(found) is type(model)
    assert same(found.state_dict(), model.state_dict())
    assert checkpoint.load_config(folder)["system"] == system
    assert found.config.feature_gradient_scale == 1.0
    least = 1 if system in ("data2vec", "mt4ssl") else 2  # fixed in the official code
    assert found.config.mask == replace(CONFIGS[system].mask, min_spans=least)
    assert not lost(CONFIGS[system], found.config)
    assert found.config.waveform.normalise == CONFIGS[system].waveform.normalise
    with torch.no_grad():
        for ours, theirs in zip(found.encode(batch()), model.encode(batch()), strict=True):
            assert torch.equal(ours, theirs)


def test_every_option_of_the_official_classes_is_known() -> None:
    """A class that avtlm knows but for one option would refuse every file of it."""
    from avtlm.convert.options import Options
    from avtlm.convert.options.wav2vec2 import WITHOUT_EFFECT, fairseq

    for system, name in NAMES.items():
        if name != "wavlm":  # see below: its list may hold anything
            given = {"label_rate": 50, "ema_anneal_end_step": 30000, "max_update": 400000}
            taken = Options({key: given.get(key, value) for key, value in options(name).items()}, name, WITHOUT_EFFECT)
            settings = fairseq(taken, system, (504,) if system in ("hubert", "mt4ssl") else ())
            taken.finish()
            assert (settings.encoder.dim, settings.encoder.layers, settings.waveform.hop) == (768, 12, 320)


def test_every_option_of_wavlm_is_used(tmp_path: Path) -> None:
    content, _ = pretrained("wavlm")
    content["cfg"] = {**options("wavlm"), **{key: value for key, value in content["cfg"].items() if key != "predict_layers"}}
    assert "say nothing about the model" not in (converted(tmp_path, content) / "README.md").read_text()


def test_wavlm_is_read_from_its_own_container(tmp_path: Path) -> None:
    content, _ = pretrained("wavlm")
    folder = converted(tmp_path, content, "wavlm")
    assert checkpoint.load_config(folder)["heads"] is False
    assert not [name for name in checkpoint.load_weights(folder) if name.startswith("predictor.")]
    card = (folder / "README.md").read_text()
    assert "WavLM (wavlm)" in card
    assert NO_HEADS in card
    assert "predict_layers" in card  # an option that its class does not read


def test_a_file_from_before_2021_has_its_options_in_one_list(tmp_path: Path) -> None:
    content, model = pretrained("wav2vec2")
    cfg = content.pop("cfg")
    old = {**cfg["model"], "arch": "wav2vec2", "task": "audio_pretraining", "criterion": "wav2vec", "lr": [0.005], "normalize": False}
    old |= {"latent_temp": str(tuple(cfg["model"]["latent_temp"])), "loss_weights": "[0.1, 10]"}
    del old["_name"]
    folder = converted(tmp_path, content | {"args": argparse.Namespace(**old)})
    found, _ = systems.load_encoder(folder)
    assert same(found.state_dict(), model.state_dict())
    settings = checkpoint.load_config(folder)["model"]
    assert (settings["diversity_weight"], settings["feature_penalty"], settings["quantizer"]["start"]) == (0.1, 10.0, 2.0)
    assert "lr" in (folder / "README.md").read_text()


@pytest.mark.parametrize("system", ["data2vec", "mt4ssl"])
def test_a_file_without_a_teacher_gets_a_copy_of_the_student(system: Any, tmp_path: Path) -> None:
    content, _ = pretrained(system)
    del content["model"]["_ema"]
    folder = converted(tmp_path, content)
    model, _ = systems.load_encoder(folder)
    assert isinstance(model, Data2Vec)
    assert model.teacher is not None
    assert same(model.teacher.encoder.state_dict(), model.encoder.state_dict())
    assert "Its teacher is a copy of the student" in (folder / "README.md").read_text()


def test_a_file_of_an_encoder_alone_becomes_a_model_without_heads(tmp_path: Path) -> None:
    content, _ = pretrained("wav2vec2")
    heads = [key for key in content["model"] if key.startswith(("quantizer.", "project_q.", "final_proj."))]
    for key in heads:
        del content["model"][key]
    folder = converted(tmp_path, content)
    assert checkpoint.load_config(folder)["heads"] is False
    model, _ = systems.load_encoder(folder)
    assert not set(model.state_dict()) - set(checkpoint.load_weights(folder))


def test_several_inventories_of_units_keep_their_sizes(tmp_path: Path) -> None:
    content, model = pretrained("hubert", further_units=(6,), separate_projections=True)
    content["task_state"]["dictionaries"] = [units(3), units(2)]
    found, _ = systems.load_encoder(converted(tmp_path, content))
    assert isinstance(found, Hubert)
    assert (found.config.units, found.config.further_units, found.config.separate_projections) == (7, (6,), True)
    assert same(found.state_dict(), model.state_dict())


def test_symbols_of_the_units_are_kept(tmp_path: Path) -> None:
    content, _ = pretrained("hubert")
    assert (converted(tmp_path, content) / "units.txt").read_text().split() == ["<s>", "<pad>", "</s>", "<unk>", "0", "1", "2"]


def test_stored_outputs_of_the_official_code_come_from_a_converted_file(tmp_path: Path) -> None:
    case = read_case("mt4ssl/w2v2_pretrain")
    cfg = {"model": {"_name": "wav2vec2", **case.config["model"]}, "task": {"normalize": False}, "criterion": {"loss_weights": [0.1, 10]}}
    model, _ = systems.load_encoder(converted(tmp_path, {"cfg": cfg, "model": case.state}))
    with torch.no_grad():
        assert error(model.encode(first_clip(case))[0], case.outputs["feat.x"][:1]) < 1e-5


def first_clip(case: GoldenCase) -> Any:
    whole = case.inputs["source"][:1]
    return replace(batch((16000,)), audio=whole, audio_lengths=torch.tensor([whole.shape[1]]))


# Fine-tuned ---------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("system", CTC_SYSTEMS)
def test_a_fine_tuned_file_becomes_a_recogniser_with_its_weights_and_settings(system: Any, tmp_path: Path) -> None:
    content, model = fine_tuned(system)
    folder = converted(tmp_path, content)
    found = systems.load(folder)
    assert isinstance(found, Recognizer)
    assert same(found.state_dict(), model.state_dict())
    assert found.vocabulary.symbols == LETTERS.symbols
    heads = found.config
    assert (heads.ctc_weight, heads.decoder, heads.freeze_encoder_steps, heads.dropout) == (1.0, None, 10000, 0.0)
    assert (heads.audio_mask.prob, heads.audio_mask.min_spans) == (0.65, 1 if system in ("data2vec", "mt4ssl") else 2)
    assert (heads.channel_mask.prob, heads.channel_mask.length, heads.channel_mask.min_spans) == (0.5, 64, 0)
    assert isinstance(found.encoder, SpeechEncoder)
    settings = found.encoder.config
    assert (settings.feature_gradient_scale, settings.encoder.layer_drop, settings.encoder.dropout) == (0.0, 0.1, 0.0)
    assert settings.waveform.normalise == CONFIGS[system].waveform.normalise
    if system == "hubert":
        assert "w2v_encoder.w2v_model.label_embs_concat" in (folder / "README.md").read_text()  # left out


def test_masks_that_were_not_applied_are_off(tmp_path: Path) -> None:
    content, _ = fine_tuned("wav2vec2")
    content["cfg"]["model"]["apply_mask"] = False
    heads = systems.load(converted(tmp_path, content)).config
    assert (heads.audio_mask.prob, heads.channel_mask.prob) == (0.0, 0.0)


def test_stored_logits_of_the_official_code_come_from_a_converted_file(tmp_path: Path) -> None:
    case = read_case("mt4ssl/w2v2_ctc")
    letters = Vocabulary(["<s>", "<pad>", "</s>", "<unk>", *case.description["letters"]])
    content, _ = fine_tuned("wav2vec2")
    content["model"] = case.state
    content["cfg"]["model"]["w2v_args"]["model"] = {"_name": "wav2vec2", **case.config["w2v_model"]}
    content["cfg"]["model"]["w2v_args"]["task"]["normalize"] = True
    content["task_state"]["target_dictionary"].state["symbols"] = letters.symbols
    model = systems.load(converted(tmp_path, content))
    whole = replace(first_clip(case), audio=case.inputs["source"], ids=("a", "b"), audio_lengths=(~case.inputs["padding_mask"]).sum(1))
    with torch.no_grad():
        encoded, lengths = model.encoder.encode(whole)
        valid = torch.arange(encoded.shape[1])[:, None] < lengths
        assert error(model.ctc(encoded).transpose(0, 1)[valid], case.outputs["encoder_out"][valid]) < 1e-5
    best = [case.outputs[f"greedy_ids_{row}"].tolist() for row in range(2)]
    assert [list(found[0].tokens) for found in model.search(whole)] == best


def test_a_converted_file_transcribes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content, model = fine_tuned("wav2vec2")
    folder = converted(tmp_path, content)
    wave = 0.3 * np.random.default_rng(0).standard_normal(12000)
    write_wav(tmp_path / "x.wav", wave)
    assert cli.main(["transcribe", str(tmp_path / "x.wav"), "--model", str(folder)]) == 0
    told = capsys.readouterr().out.strip()
    from avtlm.transcribe import transcribe

    assert len(told) > 3
    assert told == transcribe([tmp_path / "x.wav"], model)[0].text


def test_a_dictionary_that_the_file_lacks_can_be_given(tmp_path: Path) -> None:
    content, _ = fine_tuned("wav2vec2", dictionary_inside=False)
    with pytest.raises(ConversionError, match=r"holds no dictionary of the transcripts; name .* dict\.txt with --vocabulary"):
        converted(tmp_path, content)
    LETTERS.save_dict(tmp_path / "dict.ltr.txt")
    model = systems.load(converted(tmp_path, content, vocabulary=tmp_path / "dict.ltr.txt"))
    assert model.vocabulary == LETTERS


def test_the_configuration_of_the_encoder_can_come_from_its_own_file(tmp_path: Path) -> None:
    content, model = fine_tuned("data2vec")
    content["cfg"]["model"]["w2v_args"] = None
    with pytest.raises(ConversionError, match=r"w2v_args has no configuration of the encoder; .*--pretrained"):
        converted(tmp_path, content)
    origin = write(tmp_path / "origin.pt", pretrained("data2vec")[0])
    assert same(systems.load(converted(tmp_path, content, pretrained=origin)).state_dict(), model.state_dict())


def test_old_fine_tuned_files_hold_two_lists_of_options(tmp_path: Path) -> None:
    content, model = fine_tuned("wav2vec2")
    cfg = content.pop("cfg")
    origin = cfg["model"]["w2v_args"]
    inner = {**origin["model"], "arch": "wav2vec2", "task": "audio_pretraining", "criterion": "wav2vec", "normalize": False, "lr": [1]}
    outer = {**cfg["model"], "arch": "wav2vec_ctc", "w2v_args": argparse.Namespace(**inner), "normalize": False, "data": "/data"}
    folder = converted(tmp_path, content | {"args": argparse.Namespace(**outer), "cfg": None})
    assert same(systems.load(folder).state_dict(), model.state_dict())


# Refusals -----------------------------------------------------------------------------------------------------------------------------

Change = Callable[[dict[str, Any]], Any]


def _model(**values: Any) -> Change:
    return lambda content: content["cfg"]["model"].update(values)


REFUSED: dict[str, tuple[str, Change, str]] = {
    "missing tensors": (
        "hubert",
        lambda content: [content["model"].pop(key) for key in ("layer_norm.bias", "encoder.layers.1.fc1.weight")],
        r"2 missing \(layer_norm\.bias, encoder\.layers\.1\.fc1\.weight\)",
    ),
    "half a head": ("hubert", lambda content: content["model"].pop("label_embs_concat"), r"1 missing \(label_embs_concat\)"),
    "half a teacher": (
        "data2vec",
        lambda content: content["model"]["_ema"].pop("layers.0.fc1.bias"),
        r"1 missing \(_ema\.layers\.0\.fc1\.bias\)",
    ),
    "unknown tensors": (
        "wav2vec2",
        lambda content: content["model"].update({"encoder.moe.weight": torch.ones(1), "zebra": torch.ones(2)}),
        r"2 unknown \(encoder\.moe\.weight, zebra\)",
    ),
    "tensors of another shape": (
        "mt4ssl",
        lambda content: content["model"].update({"mask_emb": torch.ones(3)}),
        r"1 of another shape \(mask_emb \[3\] instead of \[16\]\)",
    ),
    "unknown options": ("wav2vec2", _model(zebra=1), r"cfg\.model: options that avtlm does not know: zebra"),
    "a conformer": ("hubert", _model(layer_type="conformer"), "layer_type is 'conformer'"),
    "another rate": ("wav2vec2", lambda content: content["cfg"]["task"].update(sample_rate=8000), "sample_rate is 8000"),
    "another dictionary": (
        "hubert",
        lambda content: content["task_state"].update(dictionaries=[units(9)]),
        "dictionary of the units has 13 symbols, but the head predicts 7",
    ),
    "an impossible size": ("wav2vec2", _model(encoder_attention_heads=3), r"cfg\.model: heads: 3 does not divide dim 16"),
    "data2vec 2.0": ("data2vec", _model(_name="data2vec_multi"), "a model of the kind 'data2vec_multi'; avtlm converts"),
    "no options": ("wav2vec2", lambda content: content.update(cfg=None), "has no configuration"),
    "a teacher of something else": ("data2vec", lambda content: content["model"].update(_ema=3), "should hold tensors only, but _ema"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_does_not_fit_is_refused_in_one_sentence_and_nothing_is_written(name: str, tmp_path: Path) -> None:
    system, change, message = REFUSED[name]
    content, _ = pretrained(system)  # type: ignore[arg-type]
    change(content)
    path = write(tmp_path / "official.pt", content)
    with pytest.raises((ConversionError, TorchFileError), match=message) as caught:
        convert(path, None, tmp_path / "out/model")
    assert "official.pt" in str(caught.value)
    assert not (tmp_path / "out").exists()


FINE_TUNED_REFUSED: dict[str, tuple[Change, str]] = {
    "another head than the dictionary": (
        lambda content: content["model"].update({"w2v_encoder.proj.weight": torch.ones(9, 16)}),
        "dictionary of the transcripts has 12 symbols, but the head writes 9",
    ),
    "a shifted blank": (_model(blank_weight=2.0), r"blank_weight is 2\.0"),
    "an unknown option": (_model(zebra=1), "does not know: zebra"),
    "an unknown option of the encoder": (
        lambda content: content["cfg"]["model"]["w2v_args"]["model"].update(zebra=1),
        "does not know: zebra",
    ),
    "another encoder": (
        lambda content: content["cfg"]["model"]["w2v_args"]["model"].update(_name="wav2vec"),
        "fine-tuned from a model of the kind 'wav2vec'",
    ),
    "a missing layer": (
        lambda content: content["model"].pop("w2v_encoder.w2v_model.encoder.layers.0.fc2.bias"),
        r"1 missing \(w2v_encoder\.w2v_model\.encoder\.layers\.0\.fc2\.bias\)",
    ),
}


@pytest.mark.parametrize("name", FINE_TUNED_REFUSED)
def test_fine_tuned_files_are_refused_in_one_sentence_and_nothing_is_written(name: str, tmp_path: Path) -> None:
    change, message = FINE_TUNED_REFUSED[name]
    content, _ = fine_tuned("wav2vec2")
    change(content)
    with pytest.raises(ConversionError, match=message):
        convert(write(tmp_path / "official.pt", content), "wav2vec2", tmp_path / "out/model")
    assert not (tmp_path / "out").exists()


def test_another_system_than_was_asked_for_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path / "official.pt", fine_tuned("hubert")[0])
    assert cli.main(["convert", str(path), "--system", "data2vec", "-o", str(tmp_path / "out")]) == 1
    told = capsys.readouterr().err
    assert "holds HuBERT (hubert_ctc), not data2vec; convert it with --system hubert." in told
    assert not (tmp_path / "out").exists()


def test_a_truncated_file_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path / "official.pt", pretrained("wav2vec2")[0])
    path.write_bytes(path.read_bytes()[:-2000])
    assert cli.main(["convert", str(path), "-o", str(tmp_path / "out")]) == 1
    assert "truncated, damaged or no checkpoint of torch" in capsys.readouterr().err
