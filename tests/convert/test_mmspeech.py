"""MMSpeech from official files of fairseq and of ModelScope: weights, symbols, options, and what does not fit."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from avtlm import systems
from avtlm.checkpoint import load_config
from avtlm.convert.fairseq import convert
from avtlm.convert.huggingface import convert_folder
from avtlm.convert.model import ConversionError
from avtlm.convert.names.inverse import find_key
from avtlm.convert.names.mmspeech import ported_key, rules
from avtlm.frontends.subsampling import SubsamplingConfig
from avtlm.nn.biased_decoder import BiasedDecoderConfig
from avtlm.nn.transformer import EncoderConfig
from avtlm.objectives.masking import SpanMaskConfig
from avtlm.systems.mmspeech import MMSpeech, MMSpeechConfig
from avtlm.text.mandarin import PHONEMES
from avtlm.text.wordpieces import WordPieces
from tests.systems.mandarin_models import pairs

PIECES = ["[PAD]", "[UNK]", "一", "二", "三", "ab", "##c"]
LAYERS = {"dim": 16, "heads": 2, "feed_forward_dim": 24}
SPANS = SpanMaskConfig(prob=0.65, min_spans=1)
OURS = MMSpeechConfig(
    subsampling=SubsamplingConfig(official_lengths=True),
    encoder=EncoderConfig(layers=7, attention_dropout=0.0, position_kernel=0, **LAYERS),  # type: ignore[arg-type]
    decoder=BiasedDecoderConfig(layers=2, max_positions=30, distance_buckets=8, **LAYERS),  # type: ignore[arg-type]
    position_kernel=9,
    position_groups=4,
    position_blocks=3,
    compute_padding=True,
    vocabulary=13,
    codes=5,
    task="recognition",
    mask=SPANS,
    paired_mask=replace(SPANS, prob=0.3),
)
OPTIONS = {
    "_name": "ofa_speech",
    "encoder_layers": 7,
    "encoder_embed_dim": 16,
    "encoder_ffn_embed_dim": 24,
    "encoder_attention_heads": 2,
    "layer_norm_first": True,
    "conv_pos": 9,
    "conv_pos_groups": 4,
    "pos_conv_depth": 3,
    "encoder_layerdrop": 0.05,
    "dropout_input": 0.0,
    "decoder_layers": 2,
    "decoder_embed_dim": 16,
    "decoder_output_dim": 16,
    "decoder_input_dim": 16,
    "decoder_ffn_embed_dim": 24,
    "decoder_attention_heads": 2,
    "decoder_normalize_before": True,
    "share_decoder_input_output_embed": True,
    "layernorm_embedding": True,
    "scale_attn": True,
    "scale_fc": True,
    "scale_heads": True,
    "decoder_drop_path_rate": 0.1,
    "encoder_drop_path_rate": 0.1,
    "token_bucket_size": 8,
    "image_bucket_size": 2,
    "max_target_positions": 30,
    "audio_mask_prob": 0.65,
    "phone_dict_size": None,
    "extractor_mode": "layer_norm",
}
PORTED = {
    "model_type": "ofa",
    "architectures": ["MMSpeechModel"],
    "d_model": 16,
    "encoder_layers": 7,
    "encoder_ffn_dim": 24,
    "encoder_attention_heads": 2,
    "decoder_layers": 2,
    "decoder_ffn_dim": 24,
    "decoder_attention_heads": 2,
    "encoder_pos_conv_depth": 3,
    "encoder_conv_pos": 9,
    "encoder_conv_pos_groups": 4,
    "encoder_layerdrop": 0.05,
    "scale_embedding": True,
    "entangle_position_embedding": True,
    "token_bucket_size": 8,
    "max_position_embeddings": 30,
    "decoder_drop_path_rate": 0.1,
    "phone_vocab_size": 141,
    "phone_dict_size": 124,
    "vocab_size": 18,
    "pad_token_id": 1,
}


def model() -> MMSpeech:
    torch.manual_seed(0)
    made = MMSpeech(OURS)
    for parameter in made.parameters():
        parameter.data.add_(0.1 * torch.randn_like(parameter))
    return made.eval()


def official(made: MMSpeech) -> dict[str, Tensor]:
    """Its weights under official names, among those that speech does not use."""
    state = {find_key(rules(), name): tensor for name, tensor in made.state_dict().items()}
    unused = {
        "decoder.version": torch.tensor([3.0]),
        "decoder.image_pos_ln.weight": torch.ones(16),
        "encoder.final_proj.bias": torch.ones(16),
    }
    return {**state, **unused, "decoder.output_projection.weight": state["decoder.embed_tokens.weight"]}


def file(folder: Path, options: dict[str, Any] | None = None, state: dict[str, Tensor] | None = None, **task: Any) -> Path:
    cfg = {"model": options or OPTIONS, "task": {"_name": "unify_speech_text_task", **task}, "criterion": {"_name": "speech_pretrain_loss"}}
    torch.save({"cfg": cfg, "model": state or official(model())}, folder / "checkpoint.pt")
    (folder / "dict.txt").write_text("".join(f"{piece} 1\n" for piece in PIECES), encoding="utf-8")
    return folder / "checkpoint.pt"


def port(folder: Path, **changes: Any) -> Path:
    there = folder / "port"
    there.mkdir()
    torch.save({ported_key(key): tensor for key, tensor in official(model()).items()}, there / "pytorch_model.bin")
    (there / "config.json").write_text(json.dumps({**PORTED, **changes}))
    (there / "vocab.txt").write_text("\n".join(PIECES) + "\n", encoding="utf-8")
    return there


def same(folder: Path) -> MMSpeech:
    """The model of a folder, which has to be the one that was written."""
    assert load_config(folder)["task"] == "transcription"
    found = systems.load(folder)
    back, made = found.model, model()
    assert isinstance(back, MMSpeech)
    assert back.config == OURS
    assert all(torch.equal(back.state_dict()[name], tensor) for name, tensor in made.state_dict().items())
    torch.testing.assert_close(back.remember(pairs())[0], made.remember(pairs())[0])
    assert isinstance(found.vocabulary, WordPieces)
    assert found.vocabulary.symbols[4:] == [*PIECES, "<mask>", "<blank>"]
    assert (folder / "phones.txt").read_text().split() == list(PHONEMES)
    assert found.decoding.no_repeat_ngram == 5
    return back


def test_an_official_file_becomes_a_recogniser(tmp_path: Path) -> None:
    folder = convert(file(tmp_path), None, tmp_path / "model", vocabulary=tmp_path / "dict.txt")
    same(folder)
    card = (folder / "README.md").read_text()
    assert "padding changes what comes out" in card
    assert "fbank_config.yaml was not there" in card


def test_a_folder_of_modelscope_becomes_the_same(tmp_path: Path) -> None:
    same(convert_folder(port(tmp_path), "mmspeech", tmp_path / "model"))


@pytest.mark.parametrize(("entangled", "disabled"), [(None, False), (False, False), (True, True)])
def test_the_port_adds_positions_to_embeddings_only_where_it_is_told_to(tmp_path: Path, entangled: bool | None, disabled: bool) -> None:
    there = port(tmp_path, entangle_position_embedding=entangled, disable_entangle=disabled)
    config = systems.load(convert_folder(there, "mmspeech", tmp_path / "model")).model.config
    assert config == replace(OURS, decoder=replace(OURS.decoder, add_positions=False))


def test_a_config_that_the_port_writes_today_is_read(tmp_path: Path) -> None:
    """It names options of other models of its family, too."""
    others = {"gamma": 1.0, "exclude_mlp": True, "mlp_dim": 512, "temperature_init_value": None, "remove_decoder_type_embedding": False}
    same(convert_folder(port(tmp_path, use_gamma_feature=False, share_attn_bias=False, **others), "mmspeech", tmp_path / "model"))
    (tmp_path / "other").mkdir()
    with pytest.raises(ConversionError, match="use_gamma_feature is True"):
        convert_folder(port(tmp_path / "other", use_gamma_feature=True), "mmspeech", tmp_path / "refused")


def test_words_of_the_port_differ_in_the_layers_of_the_decoder() -> None:
    keys = {ported_key(key) for key in official(model())}
    assert "decoder.layers.0.cross_attn_mid_layer_norm.weight" in keys
    assert "decoder.layers.1.cross_attn.c_attn" in keys
    assert "decoder.layers.1.ffn_layer_norm.bias" in keys
    assert "encoder.encoder.layers.6.self_attn_layer_norm.bias" in keys
    assert not [key for key in keys if re.search(r"encoder_attn|ffn_layernorm", key)]


def test_a_file_of_the_first_stage_is_only_pre_trained(tmp_path: Path) -> None:
    folder = convert(file(tmp_path, train_stage=1), "mmspeech", tmp_path / "model", vocabulary=tmp_path / "dict.txt")
    assert load_config(folder)["task"] == "pretrain"
    assert "has read texts alone" in (folder / "README.md").read_text()


def test_how_features_are_normed_is_read_where_it_stands(tmp_path: Path) -> None:
    path = file(tmp_path)
    (tmp_path / "fbank_config.yaml").write_text("input_channels: 1\ntransforms:\n  _train: [utterance_cmvn, specaugment]\n  '*': []\n")
    folder = convert(path, None, tmp_path / "model", vocabulary=tmp_path / "dict.txt")
    assert load_config(folder)["model"]["subsampling"]["normalise"] is False
    (tmp_path / "fbank_config.yaml").write_text("transforms:\n  '*': [global_cmvn]\n")
    with pytest.raises(ConversionError, match=r"fbank_config.yaml asks for global_cmvn"):
        convert(path, None, tmp_path / "other", vocabulary=tmp_path / "dict.txt")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"decoder_prompt": True}, "decoder_prompt is True"),
        ({"mask_channel_prob": 0.2, "mask_channel_before": True}, "mask_channel_before is True"),
        ({"decoder_output_dim": 8}, "decoder_output_dim is 8"),
        ({"novelty": 1}, "options that avtlm does not know: novelty"),
        ({"encoder_layers": 6}, "speech_layers: 6 of 6 layers"),
        ({"token_bucket_size": 4}, "of another shape"),
    ],
)
def test_options_that_cannot_be_honoured_are_refused(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConversionError, match=re.escape(message)) as caught:
        convert(file(tmp_path, {**OPTIONS, **options}), None, tmp_path / "model", vocabulary=tmp_path / "dict.txt")
    assert "checkpoint.pt" in str(caught.value)
    assert not (tmp_path / "model").exists()


def test_what_only_training_uses_is_read(tmp_path: Path) -> None:
    options = {"mask_channel_prob": 0.2, "mask_channel_length": 4, "dropout_input": 0.1, "relu_dropout": 0.3, "adaptive_input": True}
    path = file(tmp_path, {**OPTIONS, **options})
    found = load_config(convert(path, None, tmp_path / "model", vocabulary=tmp_path / "dict.txt"))["model"]
    assert (found["channel_mask"]["prob"], found["channel_mask"]["length"], found["input_dropout"]) == (0.2, 4, 0.1)
    assert (found["decoder"]["activation_dropout"], found["encoder"]["activation_dropout"]) == (0.3, 0.0)


def test_what_does_not_fit_is_named(tmp_path: Path) -> None:
    state = official(model())
    state["decoder.layers.0.novel.weight"] = state.pop("encoder.mask_emb")
    path = file(tmp_path, state=state)
    with pytest.raises(ConversionError, match=r"1 unknown \(decoder.layers.0.novel.weight\); 1 missing \(encoder.mask_emb\)"):
        convert(path, None, tmp_path / "model", vocabulary=tmp_path / "dict.txt")
    path = file(tmp_path)
    with pytest.raises(ConversionError, match=r"name BERT's dict\.txt or vocab\.txt with --vocabulary"):
        convert(path, None, tmp_path / "model")
    (tmp_path / "dict.txt").write_text("".join(f"p{number} 1\n" for number in range(40)))
    with pytest.raises(ConversionError, match="has 46 symbols with <mask> and <blank>, but the decoder 18"):
        convert(path, None, tmp_path / "model", vocabulary=tmp_path / "dict.txt")
    with pytest.raises(ConversionError, match="holds MMSpeech"):
        convert(path, "hubert", tmp_path / "model", vocabulary=tmp_path / "dict.txt")
    with pytest.raises(ConversionError, match="--pretrained is for others"):
        convert(path, None, tmp_path / "model", pretrained=path)


def test_faults_of_a_ported_folder_are_named(tmp_path: Path) -> None:
    folder = port(tmp_path, use_ofasys=True)
    with pytest.raises(ConversionError, match="use_ofasys is True"):
        convert_folder(folder, None, tmp_path / "model")
    with pytest.raises(ConversionError, match="holds MMSpeech, not"):
        convert_folder(folder, "hubert", tmp_path / "model")
    (folder / "vocab.txt").unlink()
    with pytest.raises(ConversionError, match=r"vocab.txt is missing"):
        convert_folder(folder, None, tmp_path / "model")
