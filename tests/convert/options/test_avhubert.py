"""Official options become ours without loss, and ours become theirs."""

from dataclasses import replace
from typing import Any

import pytest

from avtlm.convert.options import OptionError, Options
from avtlm.convert.options.avhubert import (
    DECODER,
    WITHOUT_EFFECT,
    decoder,
    encoder,
    official_criterion,
    official_decoder,
    official_encoder,
)
from avtlm.frontends.lips import LipEncoderConfig
from avtlm.frontends.multimodal import FrontEndConfig
from avtlm.nn.transformer import DecoderConfig, EncoderConfig
from avtlm.objectives.masking import SpanMaskConfig
from avtlm.systems.avhubert import AVHubertConfig
from avtlm.systems.vatlm import VATLMConfig

# conf/pretrain/base_vox_iter5.yaml of VATLM, groups model and criterion
VATLM_BASE = {
    "_name": "vat_hubert",
    "label_rate": 25,
    "skip_masked": False,
    "skip_nomask": False,
    "modality_dropout": 0.5,
    "audio_dropout": 0.5,
    "modality_fuse": "concat",
    "selection_type": "same_seq",
    "masking_type": "input",
    "mask_prob_image": 0.3,
    "mask_length_image": 10,
    "mask_prob_audio": 0.8,
    "mask_length_audio": 10,
    "extractor_mode": "default",
    "final_dim": 256,
    "encoder_layerdrop": 0.05,
    "dropout_input": 0.1,
    "dropout_features": 0.1,
    "dropout": 0.1,
    "attention_dropout": 0.1,
    "feature_grad_mult": 0.1,
    "untie_final_proj": True,
    "activation_dropout": 0.0,
    "wav_input": False,
    "layer_norm_first": True,
    "audio_feat_dim": 104,
    "pred_masked_weight": 1.0,
    "pred_nomask_weight": 0.0,
    "loss_weights": [10],
}


def options(values: dict[str, Any], spare: frozenset[str] = WITHOUT_EFFECT) -> Options:
    return Options(values, "cfg.model", spare)


def test_the_released_vatlm_base_configuration_is_our_default() -> None:
    given = options(VATLM_BASE)
    config = encoder(given, text=True, units=2004, phones=46)
    given.finish()
    assert config == replace(VATLMConfig(), video_mask=SpanMaskConfig(prob=0.3, length=10))


OTHER = AVHubertConfig(
    frontends=FrontEndConfig(
        phones=0,
        fusion="add",
        layers=2,
        dropout=0.2,
        lips=LipEncoderConfig(activation="relu", stem_channels=8, widths=(8, 12, 16, 24)),
    ),
    encoder=EncoderConfig(32, 3, 4, 48, "gelu_tanh", False, 0.2, 0.3, 0.4, 0.5, 16, 4),
    units=50,
    final_dim=8,
    temperature=0.2,
    similarity="dot",
    label_rate=100,
    masking="feature",
    audio_mask=SpanMaskConfig(0.5, 4, lengths="uniform", spread=2.0, overlap=False, min_space=2),
    video_mask=SpanMaskConfig(0.5, 4, lengths="uniform", spread=2.0, overlap=False, min_space=2),
    video_stand_in="other_clip",
    modality_dropout=0.1,
    audio_dropout=0.2,
    masked_weight=0.5,
    visible_weight=0.25,
    feature_penalty=3.0,
    feature_gradient_scale=0.7,
)
SEVERAL = replace(
    OTHER, further_units=(9, 11), separate_projections=True, channel_mask=SpanMaskConfig(0.2, 5, 0, lengths="normal", spread=1.0)
)


@pytest.mark.parametrize("config", [AVHubertConfig(), OTHER, SEVERAL, VATLMConfig(text_weight=0.5, audio_weight=0.25)])
def test_our_configuration_survives_the_way_to_the_official_options_and_back(config: AVHubertConfig) -> None:
    given = options({**official_encoder(config), **official_criterion(config)})
    text = isinstance(config, VATLMConfig)
    assert encoder(given, text, config.inventories, config.frontends.phones) == config
    given.finish()


@pytest.mark.parametrize(
    "config", [DecoderConfig(), DecoderConfig(8, 2, 2, 16, "relu", False, 0.2, 0.3, 0.4, 0.5, False, True, "learned", 77)]
)
def test_our_decoder_survives_the_way_to_the_official_options_and_back(config: DecoderConfig) -> None:
    official = official_decoder(config)
    assert set(official) == set(DECODER)
    given = options(official)
    assert decoder(given) == config
    given.finish()


def test_defaults_are_those_of_the_official_dataclasses() -> None:
    """They differ from every released configuration: post-norm, span masks at 0.65, frames of another clip."""
    config = encoder(options({}), text=False, units=4)
    assert not config.encoder.norm_first
    assert config.audio_mask.prob == config.video_mask.prob == 0.65
    assert config.video_stand_in == "other_clip"
    assert config.final_dim == config.encoder.dim


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("modality_fuse", "gate", r"cfg\.model: modality_fuse is 'gate'; avtlm knows concat, add"),
        ("activation_fn", "swish", "activation_fn is 'swish'"),
        ("audio_feat_dim", 26, "audio_feat_dim is 26"),
        ("loss_weights", [1.0, 2.0], "loss_weights has 2 entries"),
        ("encoder_attention_heads", 7, "heads: 7 does not divide"),
        ("mask_prob_audio", 2.0, r"cfg\.model: mask: prob 2\.0"),
    ],
)
def test_an_option_that_we_cannot_honour_is_refused_by_name(key: str, value: Any, message: str) -> None:
    with pytest.raises(OptionError, match=message):
        encoder(options({**VATLM_BASE, key: value}), text=True, units=4, phones=46)


def test_masks_over_channels_are_honoured_where_they_have_an_effect() -> None:
    assert encoder(options({"mask_channel_prob": 0.5}), text=False, units=4).channel_mask.prob == 0.0
    config = encoder(options({"mask_channel_prob": 0.5, "masking_type": "feature"}), text=False, units=4)
    assert config.channel_mask == SpanMaskConfig(0.5, 10, 0)


def test_one_set_of_units_has_one_projection_and_several_share_it_unless_untied() -> None:
    one, shared, own = (
        encoder(options({"untie_final_proj": untie}), text=False, units=units)
        for untie, units in ((True, 4), (False, (4, 5)), (True, (4, 5)))
    )
    assert [one.separate_projections, shared.separate_projections, own.separate_projections] == [False, False, True]
    assert shared.inventories == own.inventories == (4, 5)


def test_unknown_options_are_listed() -> None:
    given = options({"encoder_layers": 2, "zebra": 1, "apple": 2})
    encoder(given, text=False, units=4)
    with pytest.raises(OptionError, match=r"cfg\.model: options that avtlm does not know: apple, zebra"):
        given.finish()


def test_a_missing_option_without_a_default_is_named() -> None:
    with pytest.raises(OptionError, match=r"cfg\.model: vocab is missing"):
        options({"vocab": "???"}).take("vocab")
