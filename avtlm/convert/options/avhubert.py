"""Options of the official AV-HuBERT and VATLM models (their ``cfg.model`` and what the models take from other groups), as ours and back.

Names and defaults are those of AVHubertConfig, AVHubertSeq2SeqConfig and their VATLM twins in avhubert/hubert.py and hubert_asr.py.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from avtlm.convert.options import OptionError, Options
from avtlm.frontends.filterbank import BANDS, FRAME_RATE
from avtlm.frontends.lips import LipEncoderConfig
from avtlm.frontends.multimodal import FrontEndConfig
from avtlm.nn.transformer import DecoderConfig, EncoderConfig
from avtlm.objectives.masking import SpanMaskConfig
from avtlm.systems.avhubert import AVHubertConfig
from avtlm.systems.vatlm import VATLMConfig

# What the official models never read: leftovers of HuBERT.
WITHOUT_EFFECT = frozenset(
    {
        *("extractor_mode", "dropout_features", "target_glu", "skip_masked", "skip_nomask", "resnet_weights", "latent_temp", "conv_bias"),
        *("conv_feature_layers", "input_modality", "modalities", "wav_input"),
    }
)
# The pre-training model has the options of a decoder as well, and never builds one.
DECODER = (
    *("decoder_embed_dim", "decoder_ffn_embed_dim", "decoder_layers", "decoder_layerdrop", "decoder_attention_heads"),
    *("decoder_learned_pos", "decoder_normalize_before", "no_token_positional_embeddings", "decoder_dropout"),
    *("decoder_attention_dropout", "decoder_activation_dropout", "max_target_positions", "share_decoder_input_output_embed"),
    "no_scale_embedding",
)
ACTIVATIONS = {"gelu": "gelu", "gelu_accurate": "gelu_tanh", "gelu_fast": "gelu_tanh", "relu": "relu", "tanh": "tanh", "linear": "linear"}
STAND_INS = {"same_seq": "same_clip", "same_other_seq": "other_clip"}
WIDTHS = (64, 128, 256, 512)
HEADS = {768: 12, 1024: 16}  # of the released encoders, by width
# What all released pre-training configurations agree on, as far as a fine-tuned model depends on it.
RELEASED = {"layer_norm_first": True, "activation_fn": "gelu", "final_dim": 256, "selection_type": "same_seq", "masking_type": "input"}


def _same(*words: str) -> dict[str, str]:
    return {word: word for word in words}


def lip_encoder(options: Options) -> LipEncoderConfig:
    """``resnet_widths`` is fixed in the official code; models narrowed for tests state it."""
    widths = tuple(options.take("resnet_widths", WIDTHS))
    activation = options.choose("resnet_relu_type", "prelu", _same("prelu", "relu"))
    return LipEncoderConfig(stem_channels=widths[0], widths=widths, activation=activation)


def encoder(options: Options, text: bool, units: int | Sequence[int], phones: int = 0, official_losses: bool = False) -> AVHubertConfig:
    """The pre-training model.

    Args:
        options: of the model, with ``sample_rate``, ``normalize`` and ``stack_order_audio`` of its task and the weights of its criterion
            where they are known.
        text: VATLM instead of AV-HuBERT.
        units: classes of the prediction head, of each inventory if there are several.
        phones: rows of the text front-end (VATLM).
        official_losses: also take over what changes losses, batch statistics and padded frames alone: that all runs over padding, and
            VATLM's penalty by running totals.

    Raises:
        OptionError: an option that our model cannot honour.
    """
    with options.blamed():
        return _encoder(options, text, (units,) if isinstance(units, int) else tuple(units), phones, official_losses)


def _encoder(options: Options, text: bool, units: tuple[int, ...], phones: int, official_losses: bool) -> AVHubertConfig:
    take = options.take
    dim, final_dim = take("encoder_embed_dim", 768), take("final_dim", 0)
    options.require("apply_mask", False)
    penalties = list(take("loss_weights", [0.0]))
    if len(penalties) != 1:
        raise OptionError(f"{options.where}: loss_weights has {len(penalties)} entries; the models have one penalty.")
    masking = options.choose("masking_type", "input", _same("input", "feature"))
    audio_dim, stack = take("audio_feat_dim", 104), take("stack_order_audio", 4)
    if audio_dim != stack * BANDS or stack != 4:
        raise OptionError(
            f"{options.where}: audio_feat_dim is {audio_dim} and stack_order_audio {stack}; avtlm makes frames of 4 x {BANDS} values."
        )
    spans, channels = _spans(options, "mask", "no_mask_overlap"), _spans(options, "mask_channel", "no_mask_channel_overlap")
    channels |= {"prob": take("mask_channel_prob", 0.0), "length": take("mask_channel_length", 10), "min_spans": 0}
    common: dict[str, Any] = {
        "frontends": FrontEndConfig(
            audio_dim=audio_dim,
            audio_normalise="frame" if take("normalize", True) else "none",
            lips=lip_encoder(options),
            phones=phones,
            fusion=options.choose("modality_fuse", "concat", _same("concat", "add")),
            layers=take("sub_encoder_layers", 0),
            compute_padding=official_losses,
            dropout=take("dropout_input", 0.0),
        ),
        "encoder": EncoderConfig(
            dim=dim,
            layers=take("encoder_layers", 12),
            heads=take("encoder_attention_heads", 12),
            feed_forward_dim=take("encoder_ffn_embed_dim", 3072),
            activation=options.choose("activation_fn", "gelu", ACTIVATIONS),
            norm_first=take("layer_norm_first", False),
            dropout=take("dropout", 0.1),
            attention_dropout=take("attention_dropout", 0.1),
            activation_dropout=take("activation_dropout", 0.0),
            layer_drop=take("encoder_layerdrop", 0.0),
            position_kernel=take("conv_pos", 128),
            position_groups=take("conv_pos_groups", 16),
            compute_padding=official_losses,
        ),
        "units": units[0],
        "further_units": units[1:],
        # One set of units has one projection either way.
        "separate_projections": take("untie_final_proj", False) and len(units) > 1,
        "final_dim": final_dim if final_dim > 0 else dim,
        "temperature": take("logit_temp", 0.1),
        "similarity": options.choose("sim_type", "cosine", _same("cosine", "dot")),
        "label_rate": FRAME_RATE * take("label_rate", 25) / take("sample_rate", 25),
        "masking": masking,
        "audio_mask": SpanMaskConfig(take("mask_prob_audio", 0.65), take("mask_length_audio", 10), **spans),
        "video_mask": SpanMaskConfig(take("mask_prob_image", 0.65), take("mask_length_image", 10), **spans),
        "video_stand_in": options.choose("selection_type", "same_other_seq", STAND_INS),
        **({"channel_mask": SpanMaskConfig(**channels)} if masking == "feature" and channels["prob"] else {}),
        "modality_dropout": take("modality_dropout", 0.0),
        "audio_dropout": take("audio_dropout", 0.0),
        "masked_weight": take("pred_masked_weight", 1.0),
        "visible_weight": take("pred_nomask_weight", 0.0),
        "feature_penalty": penalties[0],
        "feature_gradient_scale": take("feature_grad_mult", 1.0),
    }
    if not text:
        return AVHubertConfig(**common)
    text_weight, audio_weight = take("banlance_loss_weights", [1.0, 1.0])
    return VATLMConfig(**common, text_weight=text_weight, audio_weight=audio_weight, penalty_running_total=official_losses)


def _spans(options: Options, name: str, apart: str) -> dict[str, Any]:
    """Lengths and places of spans, of those options that begin with ``name``."""
    return {
        "lengths": options.choose(f"{name}_selection", "static", _same("static", "uniform", "normal", "poisson")),
        "spread": float(options.take(f"{name}_other", 0.0)),
        "overlap": not options.take(apart, False),
        "min_space": options.take(f"{name}_min_space", 1),
    }


def decoder(options: Options) -> DecoderConfig:
    """The attention decoder of a fine-tuned model. Raises OptionError."""
    take = options.take
    learned, none = take("decoder_learned_pos", False), take("no_token_positional_embeddings", False)
    with options.blamed():
        return DecoderConfig(
            dim=take("decoder_embed_dim", 768),
            layers=take("decoder_layers", 6),
            heads=take("decoder_attention_heads", 4),
            feed_forward_dim=take("decoder_ffn_embed_dim", 3072),
            activation=options.choose("decoder_activation_fn", "relu", ACTIVATIONS),
            norm_first=take("decoder_normalize_before", False),
            dropout=take("decoder_dropout", 0.0),
            attention_dropout=take("decoder_attention_dropout", 0.0),
            activation_dropout=take("decoder_activation_dropout", 0.0),
            layer_drop=take("decoder_layerdrop", 0.0),
            tie_embeddings=take("share_decoder_input_output_embed", False),
            scale_embedding=not take("no_scale_embedding", True),
            positions="none" if none else "learned" if learned else "sinusoidal",
            max_positions=take("max_target_positions", 2048),
        )


def released_options(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Any]:
    """Official options of an encoder that is known by the shapes of its tensors alone: what shapes cannot tell is as in the released models
    (VATLM's fine-tuned files come without the configuration of their encoder).

    Args:
        shapes: by official key of the pre-trained model.

    Raises:
        OptionError: its width is that of no released model, or it is no such encoder.
    """
    try:
        dim = shapes["encoder.layer_norm.weight"][0]
        widths = [shapes[f"feature_extractor_video.resnet.trunk.layer{stage}.0.conv1.weight"][0] for stage in (1, 2, 3, 4)]
        options: dict[str, Any] = {
            **RELEASED,
            "encoder_embed_dim": dim,
            "encoder_layers": _count(shapes, "encoder.layers."),
            "encoder_ffn_embed_dim": shapes["encoder.layers.0.fc1.weight"][0],
            "conv_pos": shapes["encoder.pos_conv.0.weight_v"][2],
            "conv_pos_groups": dim // shapes["encoder.pos_conv.0.weight_v"][1],
            "audio_feat_dim": shapes["feature_extractor_audio.proj.weight"][1],
            "resnet_widths": widths,
            "resnet_relu_type": "prelu" if "feature_extractor_video.resnet.trunk.layer1.0.relu1.weight" in shapes else "relu",
            "sub_encoder_layers": _count(shapes, "feature_extractor_audio.encoder.layers."),
            "modality_fuse": "concat" if "post_extract_proj.weight" in shapes else "add",
        }
    except (KeyError, IndexError) as error:
        raise OptionError(f"the weights have no encoder of AV-HuBERT or VATLM: {error} is missing.") from error
    if dim not in HEADS:
        raise OptionError(
            f"the weights come without the configuration of their encoder, and its width {dim} is that of no released model; "
            "name the pre-trained checkpoint that they were fine-tuned from (--pretrained)."
        )
    return options | {"encoder_attention_heads": HEADS[dim]}


def _count(shapes: Mapping[str, tuple[int, ...]], prefix: str) -> int:
    """Layers whose names start with a prefix."""
    return len({key.removeprefix(prefix).split(".")[0] for key in shapes if key.startswith(prefix)})


# Back to the official words -----------------------------------------------------------------------------------------------------------


def _official(known: dict[str, str], value: str) -> str:
    """The official word for ours; where there is none, our own, which the official code does not know."""
    return next((theirs for theirs, ours in known.items() if ours == value), value)


def official_encoder(config: AVHubertConfig) -> dict[str, Any]:
    """``cfg.model`` of a pre-training model, without ``_name``; what it cannot express is left out (see avtlm.convert.export)."""
    frontends, layers, audio, video = config.frontends, config.encoder, config.audio_mask, config.video_mask
    official: dict[str, Any] = {
        "label_rate": _whole(config.label_rate),
        "encoder_layers": layers.layers,
        "encoder_embed_dim": layers.dim,
        "encoder_ffn_embed_dim": layers.feed_forward_dim,
        "encoder_attention_heads": layers.heads,
        "activation_fn": _official(ACTIVATIONS, layers.activation),
        "dropout": layers.dropout,
        "attention_dropout": layers.attention_dropout,
        "activation_dropout": layers.activation_dropout,
        "encoder_layerdrop": layers.layer_drop,
        "dropout_input": frontends.dropout,
        "dropout_features": frontends.dropout,
        "final_dim": config.final_dim,
        "untie_final_proj": config.separate_projections or not config.further_units,
        "layer_norm_first": layers.norm_first,
        "logit_temp": config.temperature,
        "feature_grad_mult": config.feature_gradient_scale,
        "mask_length_audio": audio.length,
        "mask_prob_audio": audio.prob,
        "mask_length_image": video.length,
        "mask_prob_image": video.prob,
        "mask_selection": audio.lengths,
        "mask_other": audio.spread,
        "no_mask_overlap": not audio.overlap,
        "mask_min_space": audio.min_space,
        "conv_pos": layers.position_kernel,
        "conv_pos_groups": layers.position_groups,
        "resnet_relu_type": frontends.lips.activation,
        "sim_type": config.similarity,
        "sub_encoder_layers": frontends.layers,
        "audio_feat_dim": frontends.audio_dim,
        "modality_dropout": config.modality_dropout,
        "audio_dropout": config.audio_dropout,
        "modality_fuse": frontends.fusion,
        "selection_type": _official(STAND_INS, config.video_stand_in),
        "masking_type": config.masking,
    }
    if config.channel_mask.prob:
        channels = config.channel_mask
        official |= {
            "mask_channel_length": channels.length,
            "mask_channel_prob": channels.prob,
            "mask_channel_selection": channels.lengths,
            "mask_channel_other": channels.spread,
            "no_mask_channel_overlap": not channels.overlap,
            "mask_channel_min_space": channels.min_space,
        }
    if tuple(frontends.lips.widths) != WIDTHS:
        official["resnet_widths"] = list(frontends.lips.widths)
    return official


def official_criterion(config: AVHubertConfig) -> dict[str, Any]:
    """``cfg.criterion`` of a pre-training model, without ``_name``."""
    weights: dict[str, Any] = {
        "pred_masked_weight": config.masked_weight,
        "pred_nomask_weight": config.visible_weight,
        "loss_weights": [config.feature_penalty],
    }
    if isinstance(config, VATLMConfig):
        weights["banlance_loss_weights"] = [config.text_weight, config.audio_weight]
    return weights


def official_decoder(config: DecoderConfig) -> dict[str, Any]:
    """The decoder's part of ``cfg.model`` of a fine-tuned model."""
    return {
        "decoder_embed_dim": config.dim,
        "decoder_ffn_embed_dim": config.feed_forward_dim,
        "decoder_layers": config.layers,
        "decoder_layerdrop": config.layer_drop,
        "decoder_attention_heads": config.heads,
        "decoder_learned_pos": config.positions == "learned",
        "decoder_normalize_before": config.norm_first,
        "no_token_positional_embeddings": config.positions == "none",
        "decoder_dropout": config.dropout,
        "decoder_attention_dropout": config.attention_dropout,
        "decoder_activation_dropout": config.activation_dropout,
        "max_target_positions": config.max_positions,
        "share_decoder_input_output_embed": config.tie_embeddings,
        "no_scale_embedding": not config.scale_embedding,
    }


def _whole(value: float) -> int | float:
    return int(value) if value == int(value) else value
