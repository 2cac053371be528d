"""Our configurations of wav2vec 2.0, HuBERT, WavLM, data2vec and MT4SSL in the words of fairseq: the way back of options/wav2vec2.py.

Options are those that the classes there have. What they cannot express is left out, and found by reading the options again (`lost`).
"""

from dataclasses import replace
from typing import Any

from avtlm import config as configs
from avtlm.convert.names.wav2vec2 import System
from avtlm.convert.official_file import flat
from avtlm.convert.options.wav2vec2 import ACTIVATIONS
from avtlm.nn.quantize import QuantizerConfig
from avtlm.objectives.masking import SpanMaskConfig
from avtlm.systems.data2vec import Data2VecConfig
from avtlm.systems.hubert import HubertConfig
from avtlm.systems.mt4ssl import MT4SSLConfig
from avtlm.systems.speech_encoder import SpeechEncoderConfig
from avtlm.systems.wav2vec2 import Wav2Vec2Config

# What an encoder puts out depends on these, and not on what follows: dropout, how padding is treated, how frames are stored.
ENCODER = ("waveform.", "encoder.", "adapter", "input_quantizer", "shared_quantizer", "frame_multiple")
NOT_IN_EVALUATION = (
    *("waveform.dropout", "waveform.compute_padding", "waveform.frame_padding", "encoder.dropout", "encoder.attention_dropout"),
    *("encoder.activation_dropout", "encoder.layer_drop", "encoder.compute_padding", "encoder.packing"),
)


def lost(ours: SpeechEncoderConfig, understood: SpeechEncoderConfig, matters: tuple[str, ...] = ENCODER) -> list[str]:
    """Settings, as ``name = value``, that official options did not express.

    Args:
        understood: what reading those options again gives.
        matters: beginnings of the names that are compared.
    """
    own, other = (flat(configs.to_dict(_plain(settings))) for settings in (ours, understood))
    names = sorted({*own, *other}, key=list({**own, **other}).index)
    return [
        f"{name} = {own.get(name)}"
        for name in names
        if name.startswith(matters) and not name.startswith(NOT_IN_EVALUATION) and own.get(name) != other.get(name)
    ]


def _plain(settings: SpeechEncoderConfig) -> SpeechEncoderConfig:
    """The same model with settings that have several spellings in one of them."""
    layers, waveform = settings.encoder, settings.waveform
    if layers.position_blocks > 1:
        layers = replace(layers, position_kernel=layers.position_kernel // layers.position_blocks * layers.position_blocks)
    if not layers.relative_buckets:
        layers = replace(layers, relative_distance=0)
    waveform = replace(waveform, project_always=waveform.project_always or waveform.widths[-1] != layers.dim)
    settings = replace(settings, encoder=layers, waveform=waveform)
    if isinstance(settings, Wav2Vec2Config) and settings.quantizer is not None and settings.quantizer.dim is None:
        settings = replace(settings, quantizer=replace(settings.quantizer, dim=settings.final_dim))
    return settings


# Words of fairseq ---------------------------------------------------------------------------------------------------------------------


def official_model(config: SpeechEncoderConfig, system: System) -> dict[str, Any]:
    """``cfg.model`` of a pre-training model, without ``_name``."""
    waveform, layers = config.waveform, config.encoder
    official: dict[str, Any] = {
        "extractor_mode": "default" if waveform.norm == "group" else "layer_norm",
        "encoder_layers": layers.layers,
        "encoder_embed_dim": layers.dim,
        "encoder_ffn_embed_dim": layers.feed_forward_dim,
        "encoder_attention_heads": layers.heads,
        "activation_fn": next((theirs for theirs, ours in ACTIVATIONS.items() if ours == layers.activation), layers.activation),
        "dropout": layers.dropout,
        "attention_dropout": layers.attention_dropout,
        "activation_dropout": layers.activation_dropout,
        "encoder_layerdrop": layers.layer_drop,
        "dropout_input": waveform.dropout,
        "layer_norm_first": layers.norm_first,
        "conv_feature_layers": str(list(zip(waveform.widths, waveform.kernels, waveform.strides, strict=True))),
        "conv_bias": waveform.bias,
        "feature_grad_mult": config.feature_gradient_scale,
        "conv_pos": layers.position_kernel,
        "conv_pos_groups": layers.position_groups,
        **official_spans("mask", config.mask),
        **official_spans("mask_channel", config.channel_mask),
    }
    if system not in ("hubert", "wavlm"):
        official |= {
            "require_same_masks": config.same_mask_count,
            "mask_dropout": config.mask.dropout,
            "mask_channel_before": config.channels_first,
            "pos_conv_depth": layers.position_blocks,
        }
    if isinstance(config, Wav2Vec2Config):
        official |= _contrastive(config)
    elif isinstance(config, HubertConfig):
        official |= {
            "label_rate": _whole(config.label_rate),
            "final_dim": config.final_dim,
            "untie_final_proj": config.separate_projections or not config.further_units,
            "logit_temp": config.temperature,
            "target_glu": config.unit_glu,
            "skip_masked": False,
            "skip_nomask": False,
        }
        if system == "hubert":
            official["conv_pos_batch_norm"] = layers.position_norm == "batch"
    elif isinstance(config, Data2VecConfig):
        official |= _teaching(config)
    if layers.relative_buckets:
        official |= {
            "relative_position_embedding": True,
            "gru_rel_pos": True,
            "num_buckets": layers.relative_buckets,
            "max_distance": layers.relative_distance,
        }
    return official


def official_criterion(config: SpeechEncoderConfig) -> dict[str, Any]:
    """``cfg.criterion`` of a pre-training model."""
    if isinstance(config, Wav2Vec2Config):
        return {"_name": "wav2vec", "infonce": True, "loss_weights": [config.diversity_weight, config.feature_penalty]}
    if isinstance(config, HubertConfig):
        return {
            "_name": "hubert",
            "pred_masked_weight": config.masked_weight,
            "pred_nomask_weight": config.visible_weight,
            "loss_weights": [config.feature_penalty],
        }
    if isinstance(config, MT4SSLConfig):
        weights = {"regression": config.regression_weight, "classification": config.classification_weight}
        used = {name: weight for name, weight in weights.items() if weight}
        return {"_name": "multi2vec", "loss_weights": {} if set(used.values()) == {1.0} else used}
    return {"_name": "model", "loss_weights": {}}


def official_spans(name: str, mask: SpanMaskConfig) -> dict[str, Any]:
    """Options of the spans called ``mask`` or ``mask_channel``, without those that one of them lacks."""
    overlap = "no_mask_channel_overlap" if name == "mask_channel" else "no_mask_overlap"
    return {
        f"{name}_prob": mask.prob,
        f"{name}_length": mask.length,
        f"{name}_selection": mask.lengths,
        f"{name}_other": mask.spread,
        f"{name}_min_space": mask.min_space,
        overlap: not mask.overlap,
    }


def _contrastive(config: Wav2Vec2Config) -> dict[str, Any]:
    sizes = config.quantizer or config.input_quantizer or QuantizerConfig()
    return {
        "dropout_features": config.target_dropout,
        "final_dim": config.final_dim,
        "logit_temp": config.temperature,
        "target_glu": config.target_glu,
        "quantize_targets": config.quantizer is not None,
        "quantize_input": config.shared_quantizer or config.input_quantizer is not None,
        "same_quantizer": config.shared_quantizer,
        "crop_seq_to_multiple": config.frame_multiple,
        "latent_vars": sizes.entries,
        "latent_groups": sizes.groups,
        "latent_dim": sizes.dim or 0,
        "latent_temp": [sizes.start, sizes.end, sizes.decay],
        "quantizer_depth": sizes.depth,
        "quantizer_factor": sizes.factor,
        "num_negatives": config.negatives,
        "cross_sample_negatives": config.batch_negatives,
        "codebook_negatives": config.code_negatives,
        "negatives_from_everywhere": config.negatives_from == "all",
    }


def _teaching(config: Data2VecConfig) -> dict[str, Any]:
    teacher, targets = config.teacher, config.targets
    official: dict[str, Any] = {
        "average_top_k_layers": targets.layers,
        "batch_norm_target_layer": targets.batch_norm,
        "instance_norm_target_layer": targets.instance_norm,
        "group_norm_target_layer": targets.group_norm,
        "layer_norm_target_layer": targets.layer_norm,
        "layer_norm_targets": targets.average_layer_norm,
        "instance_norm_targets": targets.average_instance_norm,
        "loss_beta": config.beta,
        "loss_scale": config.loss_scale,
        "min_target_var": config.min_target_spread,
        "min_pred_var": config.min_prediction_spread,
        "ema_decay": teacher.decay,
        "ema_end_decay": teacher.end_decay,
        "ema_anneal_end_step": teacher.anneal_steps,
        "ema_transformer_only": not teacher.whole,
        "ema_layers_only": teacher.copy_positions,
        "max_update": 0,
    }
    if isinstance(config, MT4SSLConfig):
        official |= {"mse_loss": config.regression_weight > 0, "ce_loss": config.classification_weight > 0}
    return official


def _whole(value: float) -> int | float:
    return int(value) if value == int(value) else value
