"""The names of fairseq and of Hugging Face lead to the same tensors of ours."""

import json
from typing import Any

import pytest
import torch

from avtlm.convert.names.wav2vec2 import (
    HUGGING_FACE,
    FairseqLayout,
    System,
    fairseq_key,
    fairseq_name,
    hugging_face_key,
    hugging_face_name,
    rename,
)
from avtlm.nn.transformer import EncoderConfig
from avtlm.systems.wavlm import WavLM, WavLMConfig
from tests.golden_case import ROOT

SYSTEMS: dict[str, System] = {"w2v2_pretrain": "wav2vec2", "hubert_pretrain": "hubert", "mt4ssl_pretrain": "mt4ssl"}


@pytest.mark.parametrize(("case", "system"), SYSTEMS.items())
def test_both_layouts_name_the_same_tensors(case: str, system: System) -> None:
    pairs = json.loads((ROOT / "mt4ssl" / case / "hf_keymap.json").read_text())
    assert len(pairs) > 60
    for theirs, twin in pairs.items():
        assert fairseq_name(theirs, system) == hugging_face_name(twin), theirs


@pytest.mark.parametrize(
    ("key", "ours"),
    [
        ("encoder.pos_conv_embed.conv.weight_g", "encoder.positions.conv.parametrizations.weight.original0"),
        ("wav2vec2.encoder.pos_conv_embed.conv.weight_v", "encoder.positions.conv.parametrizations.weight.original1"),
        ("data2vec_audio.encoder.pos_conv_embed.layers.3.conv.bias", "encoder.positions.convs.3.bias"),
        ("quantizer.codevectors", "quantizer.entries"),
        ("lm_head.weight", "ctc.weight"),
        ("hubert.encoder.pos_conv_embed.batch_norm.running_var", "encoder.positions.norm.running_var"),
        ("hubert.encoder.pos_conv_embed.conv.weight", "encoder.positions.conv.weight"),
        ("wav2vec2.encoder.layers.2.adapter_layer.linear_1.weight", "encoder.layers.2.adapter.expand.weight"),
        ("wav2vec2.encoder.layers.2.adapter_layer.norm.bias", "encoder.layers.2.adapter.norm.bias"),
        ("wavlm.adapter.layers.1.conv.bias", "adapter.convs.1.bias"),
        ("wavlm.adapter.proj_layer_norm.weight", "adapter.norm.weight"),
    ],
)
def test_names_of_hugging_face(key: str, ours: str) -> None:
    assert hugging_face_name(key) == ours


def test_a_fine_tuned_model_has_its_encoder_behind_a_prefix() -> None:
    assert fairseq_name("w2v_encoder.w2v_model.mask_emb", "wav2vec2") == "encoder.feature_mask"
    assert fairseq_name("w2v_encoder.proj.bias", "wav2vec2") == "ctc.bias"
    assert hugging_face_name("hubert.masked_spec_embed", ctc=True) == "encoder.feature_mask"


def test_the_released_wavlm_fills_every_tensor_of_ours() -> None:
    layer = EncoderConfig(dim=16, layers=2, heads=4, feed_forward_dim=8, norm_first=False, relative_buckets=8, position_groups=4)
    model = WavLM(WavLMConfig(encoder=layer))
    model.drop_heads()
    own = model.state_dict()
    official = {
        "encoder.layers.0.self_attn.relative_attention_bias.weight": own["encoder.relative.table.weight"],
        "encoder.layers.1.self_attn.grep_linear.bias": own["encoder.layers.1.self_attention.gate.project.bias"],
        "encoder.layers.1.self_attn.grep_a": own["encoder.layers.1.self_attention.gate.scale"].view(1, 4, 1, 1),
    }
    for key, tensor in rename(official, "wavlm", "fairseq").items():
        assert torch.equal(own[key], tensor)


def test_a_batch_norm_stands_where_the_positional_convolution_stands_without_it() -> None:
    norm, conv = torch.zeros(4), torch.ones(4)
    found = rename(
        {"encoder.pos_conv.0.running_mean": norm, "encoder.pos_conv.0.bias": norm, "encoder.pos_conv.1.bias": conv}, "hubert", "fairseq"
    )
    assert set(found) == {"encoder.positions.norm.running_mean", "encoder.positions.norm.bias", "encoder.positions.conv.bias"}
    assert torch.equal(found["encoder.positions.conv.bias"], conv)
    assert fairseq_name("encoder.pos_conv.0.bias", "hubert") == "encoder.positions.conv.bias"


def test_a_key_of_another_model_is_refused() -> None:
    with pytest.raises(ValueError, match=r"'decoder.embed': no tensor of hubert is called so"):
        fairseq_name("decoder.embed", "hubert")
    with pytest.raises(ValueError, match="no tensor of a Hugging Face speech encoder"):
        hugging_face_name("quantizer.vars.0")


@pytest.mark.parametrize(("case", "system"), SYSTEMS.items())
def test_names_there_and_back_are_the_same(case: str, system: System) -> None:
    layout = FairseqLayout(group_norm=system != "mt4ssl")
    for theirs, twin in json.loads((ROOT / "mt4ssl" / case / "hf_keymap.json").read_text()).items():
        assert fairseq_key(fairseq_name(theirs, system), system, layout) == theirs
        kind: Any = "pretraining" if system == "wav2vec2" else "bare"
        assert hugging_face_key(hugging_face_name(twin), system, kind) == twin
    assert fairseq_key("encoder.feature_mask", system, layout, fine_tuned=True) == "w2v_encoder.w2v_model.mask_emb"
    assert hugging_face_key("encoder.feature_mask", system, "ctc") == f"{HUGGING_FACE[system]}masked_spec_embed"
    assert hugging_face_key("ctc.bias", system, "ctc") == "lm_head.bias"


@pytest.mark.parametrize(
    ("layout", "name", "key"),
    [
        (FairseqLayout(score_layers=3), "quantizer.score.0.weight", "quantizer.weight_proj.0.0.weight"),
        (FairseqLayout(score_layers=3), "quantizer.score.2.weight", "quantizer.weight_proj.2.weight"),
        (FairseqLayout(), "quantizer.score.0.bias", "quantizer.weight_proj.bias"),
        (FairseqLayout(), "input_quantizer.entries", "input_quantizer.vars"),
        (FairseqLayout(batch_norm=True), "encoder.positions.conv.bias", "encoder.pos_conv.1.bias"),
        (FairseqLayout(batch_norm=True), "encoder.positions.norm.running_var", "encoder.pos_conv.0.running_var"),
    ],
)
def test_keys_of_fairseq_depend_on_how_a_model_is_laid_out(layout: FairseqLayout, name: str, key: str) -> None:
    assert fairseq_key(name, "wav2vec2", layout) == key
    assert fairseq_name(key, "wav2vec2", batch_norm=layout.batch_norm) == name


def test_what_the_other_code_has_not_got_has_no_key() -> None:
    with pytest.raises(ValueError, match=r"'adapter\.norm\.bias': the official model has no such tensor"):
        fairseq_key("adapter.norm.bias", "wav2vec2", FairseqLayout())
    with pytest.raises(ValueError, match=r"'predictor\.units': the official model has no such tensor"):
        hugging_face_key("predictor.units", "hubert")
