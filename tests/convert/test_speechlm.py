"""SpeechLM and SpeechUT from official files: pre-trained, fine-tuned and cleaned ones, with their dictionaries."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from avtlm import systems
from avtlm.checkpoint import load_config, load_decoding
from avtlm.convert.container import read_container
from avtlm.convert.fairseq import convert
from avtlm.convert.model import ConversionError
from avtlm.convert.official_file import container, dictionary, save
from avtlm.convert.speechlm import NO_HEADS, PADDING
from avtlm.systems.unit_bridge import UnitBridge
from avtlm.text.vocabulary import load_vocabulary
from tests.convert.made_bridge import (
    ENCODERS,
    LETTERS,
    UNITS,
    WRITER,
    cleaned_file,
    fine_tuned_file,
    made,
    official_state,
    pretrained_cfg,
    pretrained_file,
)
from tests.systems.bridge_models import speech, text

TUNED = {"task": "recognition"}


def same(back: torch.nn.Module, model: torch.nn.Module) -> None:
    """Equal weights by equal names."""
    ours, theirs = back.state_dict(), model.state_dict()
    assert set(ours) == set(theirs)
    assert all(torch.equal(ours[name], tensor) for name, tensor in theirs.items())


@pytest.mark.parametrize("system", ["speechlm", "speechut"])
def test_a_pre_trained_model_comes_back_with_its_dictionaries(tmp_path: Path, system: Any) -> None:
    model = made(system)
    folder = convert(pretrained_file(tmp_path, system, model), None, tmp_path / "model")
    back, _ = systems.load_encoder(folder)
    assert isinstance(back, UnitBridge)
    same(back, model)
    assert load_config(folder)["task"] == "pretrain"
    assert load_vocabulary(folder).symbols == LETTERS
    assert (folder / "units.txt").read_text().split() == UNITS
    assert (folder / "text_units.txt").read_text().split()[4] == "P0"  # texts call them by their names
    assert PADDING in (folder / "README.md").read_text()
    assert back.config.losses == model.config.losses
    assert back.config.swap == model.config.swap
    assert back.config.mask == model.config.mask
    with torch.no_grad():
        torch.testing.assert_close(back.encode(speech(0))[0], model.encode(speech(0))[0])
        generator = torch.Generator().manual_seed(3)
        losses = back.losses(text(), generator)  # type: ignore[operator]
    assert all(loss.value > 0 for loss in losses.values())


@pytest.mark.parametrize("system", ["speechlm", "speechut"])
def test_large_models_keep_their_norms_of_distances(tmp_path: Path, system: Any) -> None:
    model = made(
        system,
        encoder=replace(ENCODERS["encoder"], norm_first=True),
        unit_encoder=replace(ENCODERS["unit_encoder"], norm_first=system == "speechlm", positions="none"),
        waveform=replace(made(system).config.waveform, norm="layer"),
    )
    assert "encoder.layers.1.distance_norm.weight" in model.state_dict()
    texts = {"no_token_positional_embeddings": True, "encoder": {**HALF, "normalize_before": system == "speechlm"}}
    file = pretrained_file(
        tmp_path, system, model, extractor_mode="layer_norm", layer_norm_first=True, scaling_for_att=32.0, text_transformer=texts
    )
    same(systems.load_encoder(convert(file, system, tmp_path / "model"))[0], model)


HALF = {"embed_dim": 16, "ffn_embed_dim": 16, "layers": 2, "attention_heads": 2, "learned_pos": True}


@pytest.mark.parametrize("system", ["speechlm", "speechut"])
def test_equal_widths_share_the_embeddings(tmp_path: Path, system: Any) -> None:
    model = made(system, final_dim=16)
    state = official_state(model, system)
    state["label_embs_list.0" if system == "speechlm" else "label_embs_concat"] = state["unit_embed_tokens.weight"]
    file = save(container(pretrained_cfg(system, final_dim=16), state, {}), tmp_path / "official.pt")
    back, _ = systems.load_encoder(convert(file, None, tmp_path / "model"))
    assert isinstance(back, UnitBridge)
    assert back.predictor is not None
    assert back.unit_embedding is not None
    assert back.predictor.units is back.unit_embedding.weight
    same(back, model)


def test_a_cleaned_file_gives_features(tmp_path: Path) -> None:
    model = made("speechlm")
    folder = convert(cleaned_file(tmp_path, model), None, tmp_path / "model")
    back, _ = systems.load_encoder(folder)
    assert isinstance(back, UnitBridge)
    assert NO_HEADS in (folder / "README.md").read_text()
    assert load_config(folder)["heads"] is False
    with torch.no_grad():
        for one, other in zip(back.hidden_states(speech(0))[0], model.hidden_states(speech(0))[0], strict=True):
            torch.testing.assert_close(one, other)


# Fine-tuned ---------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("told", ["shapes", "options", "file"])
def test_a_model_for_ctc_transcribes(tmp_path: Path, told: str) -> None:
    """Its sizes are read off its tensors, its options, or the file that it came from."""
    pretraining = made("speechlm")
    model = made("speechlm", **TUNED)
    model.load_state_dict({name: tensor for name, tensor in pretraining.state_dict().items() if name in model.state_dict()})
    file = fine_tuned_file(tmp_path, "speechlm_ctc", pretraining, pretrained_cfg("speechlm") if told == "options" else None, target=LETTERS)
    origin = pretrained_file(tmp_path, "speechlm", pretraining) if told == "file" else None
    folder = convert(file, None, tmp_path / "model", pretrained=origin)
    back = systems.load(folder)
    same(back.model, model)
    settings = back.model.config
    assert (settings.mask.prob, settings.channel_mask.prob, settings.channel_mask.length) == (0.65, 0.5, 64)
    assert (settings.encoder.layer_drop, settings.encoder.activation_dropout, settings.unit_encoder.layer_drop) == (0.1, 0.1, 0.0)
    assert settings.feature_gradient_scale == 0.0
    assert settings.losses.divisor == "sentences"
    assert load_decoding(folder)["method"] == "ctc_greedy"
    assert "Left out, since only pre-training uses it: unit_embed_tokens.weight" in (folder / "README.md").read_text()
    found = back.search(speech())
    assert [row[0].text for row in found] == [row[0].text for row in back.search(speech())]


def test_a_translator_has_a_decoder_of_its_own(tmp_path: Path) -> None:
    model = made("speechlm", vocabulary=9, text_mask=False, decoder=replace(WRITER, max_positions=1024), ctc_head="none", **TUNED)
    (tmp_path / "dict.txt").write_text("".join(f"{symbol} 1\n" for symbol in ("\u2581", *"abcd")), encoding="utf-8")
    file = fine_tuned_file(tmp_path, "speechlm_st_legacy", model)
    with pytest.raises(ConversionError, match="it holds no dictionary of its texts; name the SentencePiece model or dict"):
        convert(file, None, tmp_path / "model")
    folder = convert(file, None, tmp_path / "model", vocabulary=tmp_path / "dict.txt")
    back = systems.load(folder)
    same(back.model, model)
    assert not back.model.config.text_mask
    assert back.model.config.losses.divisor == "tokens"
    assert back.model.config.losses.label_smoothing == 0.1
    assert load_decoding(folder)["max_length_extra"] == 512.0
    assert back.vocabulary.decode(back.vocabulary.encode("ab cd")) == "ab cd"
    assert len(back.search(speech(0))) == 1


def test_speechut_recognises_by_both_heads(tmp_path: Path) -> None:
    pretraining, model = made("speechut"), made("speechut", **TUNED)
    model.load_state_dict({name: tensor for name, tensor in pretraining.state_dict().items() if name in model.state_dict()})
    file = fine_tuned_file(tmp_path, "speechut_asr", pretraining, pretrained_cfg("speechut"), target=LETTERS)
    folder = convert(file, "speechut", tmp_path / "model")
    back = systems.load(folder)
    same(back.model, model)
    losses = back.model.config.losses
    assert (losses.ctc, losses.attention, losses.label_smoothing, losses.divisor) == (0.5, 0.5, 0.1, "sentences")
    assert load_decoding(folder)["convention"] == "speechut"
    assert len(back.search(speech(0))) == 1


def test_speechut_translates_with_the_symbols_of_its_pre_training(tmp_path: Path) -> None:
    pretraining = made("speechut", ctc_head="none")
    model = made("speechut", ctc_head="none", **TUNED)
    model.load_state_dict({name: tensor for name, tensor in pretraining.state_dict().items() if name in model.state_dict()})
    origin = pretrained_file(tmp_path, "speechut", pretraining, add_text_ctc=False)
    file = fine_tuned_file(tmp_path, "speechut_st_legacy", pretraining)
    back = systems.load(convert(file, None, tmp_path / "model", pretrained=origin))
    same(back.model, model)
    assert back.vocabulary.symbols == LETTERS
    assert back.model.config.losses.divisor == "tokens"


def test_a_decoder_may_keep_the_embedding_settings_of_the_unit_encoder(tmp_path: Path) -> None:
    """Without reset_decoder_embedding_config it norms its embeddings and does not scale them."""
    model = made("speechut", decoder=replace(WRITER, embedding_norm=True, scale_embedding=False))
    file = pretrained_file(tmp_path, "speechut", model, reset_decoder_embedding_config=False)
    back, _ = systems.load_encoder(convert(file, None, tmp_path / "model"))
    same(back, model)
    assert isinstance(back, UnitBridge)
    assert back.config.decoder == model.config.decoder
    tokens = torch.tensor([[2, 5, 4]])
    plain = model.decoder.embedding(tokens) + model.decoder.place(tokens)
    torch.testing.assert_close(model.decoder.embed(tokens), model.decoder.embedding_norm(plain))


def test_what_ctc_and_the_decoder_count_in_fine_tuning_comes_from_the_criterion(tmp_path: Path) -> None:
    pretraining = made("speechut")
    file = fine_tuned_file(tmp_path, "speechut_asr", pretraining, pretrained_cfg("speechut"), target=LETTERS, criterion={"dec_weight": 0.3})
    losses = systems.load(convert(file, None, tmp_path / "model")).model.config.losses
    assert (losses.ctc, losses.attention) == (0.7, 0.3)


def test_a_translator_has_no_ctc_whatever_it_was_pre_trained_with(tmp_path: Path) -> None:
    pretraining = made("speechut")
    model = made("speechut", ctc_head="none", **TUNED)
    model.load_state_dict({name: tensor for name, tensor in pretraining.state_dict().items() if name in model.state_dict()})
    origin = pretrained_file(tmp_path, "speechut", pretraining)
    back = systems.load(convert(fine_tuned_file(tmp_path, "speechut_st_legacy", pretraining), None, tmp_path / "model", pretrained=origin))
    same(back.model, model)
    assert list(back.model.recognition_losses(speech())) == ["attention"]


@pytest.mark.parametrize("told", ["shapes", "options"])
def test_a_model_without_the_head_of_pre_training_has_a_linear_layer(tmp_path: Path, told: str) -> None:
    model = made("speechlm", ctc_kernel=0, final_dropout=0.2, **TUNED)
    origin = pretrained_cfg("speechlm", add_text_ctc=False) if told == "options" else None
    file = fine_tuned_file(tmp_path, "speechlm_ctc", model, origin, target=LETTERS, final_dropout=0.2)
    assert "w2v_encoder.proj.weight" in read_container(file).weights
    back = systems.load(convert(file, None, tmp_path / "model"))
    same(back.model, model)
    assert (back.model.config.ctc_kernel, back.model.config.final_dropout) == (0, 0.2)


# What cannot be converted -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"encoder_layers": 3}, "1 missing"),
        ({"final_dim": 8}, r"of another shape (label_embs_list.0 [11, 4] instead of [11, 8]"),
        ({"add_unit_encoder": False}, "add_unit_encoder is False"),
        ({"compute_mum": True}, "compute_mum is True"),
        ({"add_decoder": True}, "add_decoder True"),
        ({"unheard_of": 1}, "options that avtlm does not know: unheard_of"),
        ({"text_transformer": {"adaptive_input": True}}, "cfg.model.text_transformer: adaptive_input is True"),
        ({"text_transformer": {"odd": 1}}, "cfg.model.text_transformer: options that avtlm does not know: odd"),
        ({"label_rate": 25}, "label_rate: 25 units per second for 50 frames per second"),
        ({"l2_embedding": True, "loss_weights": [1.0, 2.0, 3.0]}, "3 loss_weights for 2 extra losses"),
    ],
)
def test_what_cannot_be_honoured_is_named_and_nothing_is_written(tmp_path: Path, changes: dict[str, Any], reason: str) -> None:
    model = made("speechlm")
    weights = {"loss_weights": changes.pop("loss_weights")} if "loss_weights" in changes else {}
    cfg = pretrained_cfg("speechlm", **changes)
    cfg["criterion"] |= weights
    file = save(container(cfg, official_state(model, "speechlm"), {}), tmp_path / "official.pt")
    with pytest.raises(ConversionError) as caught:
        convert(file, None, tmp_path / "model")
    assert reason.removeprefix("1 ") in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "model").exists()


def test_tensors_of_the_other_system_are_unknown(tmp_path: Path) -> None:
    state = official_state(made("speechlm"), "speechlm") | {"code_encoder_proj.weight": torch.zeros(11, 16)}
    file = save(container(pretrained_cfg("speechlm"), state, {}), tmp_path / "official.pt")
    with pytest.raises(ConversionError, match=r"1 unknown \(code_encoder_proj\.weight\)"):
        convert(file, None, tmp_path / "model")


def test_dictionaries_have_to_fit(tmp_path: Path) -> None:
    state, cfg = official_state(made("speechlm"), "speechlm"), pretrained_cfg("speechlm")
    for states, reason in (
        ({"dictionaries": [dictionary(UNITS[:-2])]}, "the dictionary of the units of speech has 9 symbols, but the model has .* of 11"),
        ({"text_src_dictionary": dictionary([*UNITS, "x"])}, "the dictionary of the units of text has 12 symbols"),
        ({"text_dictionary": dictionary(LETTERS[:-4])}, "its dictionary of texts has 6 symbols, but the model 10"),
    ):
        with pytest.raises(ConversionError, match=reason):
            convert(save(container(cfg, state, states), tmp_path / "official.pt"), None, tmp_path / "model")


def test_another_system_or_origin_is_refused(tmp_path: Path) -> None:
    file = pretrained_file(tmp_path, "speechlm", made("speechlm"))
    with pytest.raises(ConversionError, match=r"holds SpeechLM \(speechlm\), not HuBERT; convert it with --system speechlm"):
        convert(file, "hubert", tmp_path / "model")
    with pytest.raises(ConversionError, match="this is a pre-trained model; --pretrained is for fine-tuned ones"):
        convert(file, None, tmp_path / "model", pretrained=file)
    tuned = fine_tuned_file(tmp_path, "speechut_asr", made("speechut"), target=LETTERS)
    with pytest.raises(ConversionError, match="no pre-trained model of SpeechUT"):
        convert(tuned, None, tmp_path / "model", pretrained=file)


def test_a_file_without_weights_tells_the_sizes_of_another(tmp_path: Path) -> None:
    """The official code keeps such files for its fine-tuned models."""
    pretraining = made("speechlm")
    bare = save(container(pretrained_cfg("speechlm"), {}, {}), tmp_path / "cfg.pt")
    tuned = fine_tuned_file(tmp_path, "speechlm_ctc", pretraining, target=LETTERS)
    assert systems.load(convert(tuned, None, tmp_path / "model", pretrained=bare)).model.config.units == 505
    with pytest.raises(ValueError, match="should hold tensors only, but it is empty"):
        convert(bare, None, tmp_path / "other")
