"""Options of the four speech encoders of transformers (config.json) as ours, and back.

Names and defaults are those of Wav2Vec2Config, HubertConfig, WavLMConfig and Data2VecAudioConfig in transformers 5.23; files of older
versions have the same names. What unknown keys mean nobody can tell, so they are refused.
"""

from typing import Any

from avtlm.convert.names.wav2vec2 import System
from avtlm.convert.options import Options
from avtlm.frontends.waveform import WaveformConfig
from avtlm.nn.adapters import LengthAdapterConfig
from avtlm.nn.quantize import QuantizerConfig
from avtlm.nn.transformer import EncoderConfig
from avtlm.objectives.masking import SpanMaskConfig
from avtlm.objectives.regression import TargetConfig
from avtlm.systems.data2vec import Data2VecConfig
from avtlm.systems.hubert import HubertConfig
from avtlm.systems.mt4ssl import MT4SSLConfig
from avtlm.systems.speech_encoder import SpeechEncoderConfig
from avtlm.systems.wav2vec2 import Wav2Vec2Config
from avtlm.systems.wavlm import WavLMConfig

# Ours by the model_type of a config.json, and what the classes of transformers are called.
MODEL_TYPES: dict[str, System] = {"wav2vec2": "wav2vec2", "hubert": "hubert", "wavlm": "wavlm", "data2vec-audio": "data2vec"}
CLASSES: dict[System, str] = {
    "wav2vec2": "Wav2Vec2",
    "hubert": "Hubert",
    "wavlm": "WavLM",
    "data2vec": "Data2VecAudio",
    "mt4ssl": "Data2VecAudio",
}
ACTIVATIONS = {
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "gelu_accurate": "gelu_tanh",
    "gelu_python": "gelu",
    "gelu_10": "gelu_clipped",
    "quick_gelu": "gelu_sigmoid",
    "relu": "relu",
    "relu2": "relu_squared",
    "relu6": "relu6",
    "leaky_relu": "leaky_relu",
    "silu": "silu",
    "swish": "silu",
    "mish": "mish",
    "tanh": "tanh",
    "sigmoid": "sigmoid",
    "linear": "linear",
}
# Options of heads that avtlm does not have, of generation, of files and of memory; and what every configuration carries along.
_GENERAL = (
    *("_name_or_path", "attn_implementation", "_attn_implementation", "architectures", "model_type", "transformers_version"),
    *("torch_dtype", "dtype", "initializer_range", "gradient_checkpointing", "tokenizer_class", "processor_class", "auto_map"),
    *("return_dict", "output_hidden_states", "output_attentions", "torchscript", "use_bfloat16", "tf_legacy_loss", "pruned_heads"),
    *("chunk_size_feed_forward", "is_encoder_decoder", "is_decoder", "cross_attention_hidden_size", "add_cross_attention"),
    *("tie_encoder_decoder", "tie_word_embeddings", "finetuning_task", "id2label", "label2id", "task_specific_params", "problem_type"),
    *("prefix", "decoder_start_token_id", "sep_token_id", "max_length", "min_length", "do_sample", "early_stopping", "num_beams"),
    *("num_beam_groups", "diversity_penalty", "temperature", "top_k", "top_p", "typical_p", "repetition_penalty", "length_penalty"),
    *("no_repeat_ngram_size", "encoder_no_repeat_ngram_size", "bad_words_ids", "num_return_sequences", "output_scores"),
    *("return_dict_in_generate", "forced_bos_token_id", "forced_eos_token_id", "remove_invalid_values", "suppress_tokens"),
    *("exponential_decay_length_penalty", "begin_suppress_tokens", "bos_token_id", "eos_token_id", "pad_token_id", "vocab_size"),
)
_HEADS = (
    *("num_feat_extract_layers", "ctc_zero_infinity", "ctc_loss_reduction", "num_ctc_classes"),
    *("classifier_proj_size", "use_weighted_layer_sum", "tdnn_dim", "tdnn_kernel", "tdnn_dilation", "xvector_output_dim"),
    *("do_normalize", "final_dropout", "apply_spec_augment", "feat_extract_dropout", "freeze_feat_extract_train", "replace_prob"),
)
# Spans of which the classes read only probability, length and least number; and what belongs to wav2vec 2.0's quantiser.
_UNREAD = (
    *("mask_time_selection", "mask_time_other", "no_mask_time_overlap", "mask_time_min_space"),
    *("mask_channel_length", "mask_channel_prob", "mask_channel_selection", "mask_channel_other", "no_mask_channel_overlap"),
    *("mask_channel_min_space",),
)
_QUANTIZER = (
    *("num_codevector_groups", "num_codevectors_per_group", "codevector_dim", "proj_codevector_dim", "num_negatives"),
    *("contrastive_logits_temperature", "feat_quantizer_dropout", "diversity_loss_weight"),
)
WITHOUT_EFFECT = frozenset((*_GENERAL, *_HEADS, *_UNREAD))


def hugging_face(options: Options, system: System, official: bool = False, normalise: bool = False) -> SpeechEncoderConfig:
    """A model of transformers, from its config.json.

    Args:
        options: of the configuration.
        system: ``mt4ssl`` takes data2vec's.
        official: also take over what depends on padding in the official code.
        normalise: ``do_normalize`` of its preprocessor_config.json.

    Raises:
        OptionError: an option that cannot be honoured.
    """
    with options.blamed():
        return _read(options, system, official, normalise)


def _read(options: Options, system: System, official: bool, normalise: bool) -> SpeechEncoderConfig:
    take = options.take
    stacked = system in ("data2vec", "mt4ssl")
    blocks = take("num_conv_pos_embeddings", 5 if stacked else 128)
    if system != "hubert":
        options.require("conv_pos_batch_norm", False)
    epsilon, batch_norm = float(take("layer_norm_eps", 1e-5)), take("conv_pos_batch_norm", False)
    norm_first = False if stacked else take("do_stable_layer_norm", False)
    adapter_dim = take("adapter_attn_dim", 0)
    activation = options.choose("feat_extract_activation", "gelu", ACTIVATIONS)
    kernel = take("conv_pos_kernel_size", 19) * blocks if stacked else blocks
    dim = take("hidden_size", 768)
    relative = {"relative_buckets": take("num_buckets", 320), "relative_distance": take("max_bucket_distance", 800)}
    if stacked:
        # Its class has no such options, and does what they say here.
        options.require("feat_extract_norm", "layer")
        options.require("do_stable_layer_norm", False)
    common: dict[str, Any] = {
        "waveform": WaveformConfig(
            tuple(take("conv_dim", (512,) * 7)),
            tuple(take("conv_kernel", (10, 3, 3, 3, 3, 2, 2))),
            tuple(take("conv_stride", (5, 2, 2, 2, 2, 2, 2))),
            norm="layer" if stacked else options.choose("feat_extract_norm", "group", {"group": "group", "layer": "layer"}),
            bias=take("conv_bias", False),
            activation=activation,
            normalise=normalise,
            compute_padding=official,
            norm_epsilon=epsilon,
            feature_norm=take("feat_proj_layer_norm", True) if system == "hubert" else True,
            dropout=take("feat_proj_dropout", 0.0),
        ),
        "encoder": EncoderConfig(
            dim=dim,
            layers=take("num_hidden_layers", 12),
            heads=take("num_attention_heads", 12),
            feed_forward_dim=take("intermediate_size", 3072),
            activation=options.choose("hidden_act", "gelu", ACTIVATIONS),
            norm_first=norm_first,
            dropout=take("hidden_dropout", 0.1),
            attention_dropout=take("attention_dropout", 0.1),
            activation_dropout=take("activation_dropout", 0.1),
            layer_drop=take("layerdrop", 0.1),
            position_kernel=kernel,
            position_groups=take("num_conv_pos_embedding_groups", 16),
            position_blocks=blocks if stacked else 1,
            position_norm="batch" if batch_norm else "layer" if stacked and blocks == 1 else "weight",
            position_activation=activation,
            norm_epsilon=epsilon,
            # Post-norm layers and the other classes do not read it.
            adapter_dim=adapter_dim if norm_first and system in ("wav2vec2", "hubert") else 0,
            compute_padding=official,
            **(relative if system == "wavlm" else {}),
        ),
        "mask": SpanMaskConfig(take("mask_time_prob", 0.05), take("mask_time_length", 10), take("mask_time_min_masks", 2)),
        "channel_mask": SpanMaskConfig(take("mask_feature_prob", 0.0), take("mask_feature_length", 10), take("mask_feature_min_masks", 0)),
        "adapter": _adapter(options, dim, system),
    }
    if official:
        common["feature_gradient_scale"] = 1.0  # transformers scales no gradients, whatever the models were pre-trained with
    if system == "wav2vec2":
        return _contrastive(options, common)
    for key in _QUANTIZER:
        take(key, 0)
    if stacked:
        targets = TargetConfig(layers=min(8, common["encoder"].layers))
        return (MT4SSLConfig if system == "mt4ssl" else Data2VecConfig)(**common, targets=targets)
    return (WavLMConfig if system == "wavlm" else HubertConfig)(**common)


def _adapter(options: Options, dim: int, system: System) -> LengthAdapterConfig | None:
    """What makes the output shorter; HuBERT's class has none."""
    if system == "hubert":
        options.require("add_adapter", False)
    width, there = options.take("output_hidden_size", dim), options.take("add_adapter", False)
    layers, kernel, stride = (
        options.take(*each) for each in (("num_adapter_layers", 3), ("adapter_kernel_size", 3), ("adapter_stride", 2))
    )
    return LengthAdapterConfig(None if width == dim else width, layers, kernel, stride) if there else None


def _contrastive(options: Options, common: dict[str, Any]) -> Wav2Vec2Config:
    take = options.take
    return Wav2Vec2Config(
        **common,
        quantizer=QuantizerConfig(take("num_codevector_groups", 2), take("num_codevectors_per_group", 320), take("codevector_dim", 256)),
        final_dim=take("proj_codevector_dim", 256),
        temperature=take("contrastive_logits_temperature", 0.1),
        negatives=take("num_negatives", 100),
        target_dropout=take("feat_quantizer_dropout", 0.0),
        diversity_weight=take("diversity_loss_weight", 0.1),
        feature_penalty=0.0,
    )


# Back to the official words -----------------------------------------------------------------------------------------------------------


def official_config(config: SpeechEncoderConfig, system: System) -> dict[str, Any]:
    """config.json of an encoder, without what belongs to a head for CTC. What it cannot express is left out, or stated in our words (see
    avtlm.convert.export_huggingface, which compares)."""
    waveform, layers, frames, channels = config.waveform, config.encoder, config.mask, config.channel_mask
    theirs = {ours: name for name, ours in reversed(ACTIVATIONS.items())}
    stacked, adapter = CLASSES[system] == "Data2VecAudio", config.adapter
    official: dict[str, Any] = {
        "model_type": next(name for name, ours in MODEL_TYPES.items() if CLASSES[ours] == CLASSES[system]),
        "hidden_size": layers.dim,
        "num_hidden_layers": layers.layers,
        "num_attention_heads": layers.heads,
        "intermediate_size": layers.feed_forward_dim,
        "hidden_act": theirs.get(layers.activation, layers.activation),
        "hidden_dropout": layers.dropout,
        "attention_dropout": layers.attention_dropout,
        "activation_dropout": layers.activation_dropout,
        "layerdrop": layers.layer_drop,
        "layer_norm_eps": layers.norm_epsilon,
        "feat_extract_activation": theirs.get(waveform.activation, waveform.activation),
        "feat_proj_dropout": waveform.dropout,
        "conv_dim": list(waveform.widths),
        "conv_kernel": list(waveform.kernels),
        "conv_stride": list(waveform.strides),
        "conv_bias": waveform.bias,
        "num_conv_pos_embedding_groups": layers.position_groups,
        "apply_spec_augment": True,
        "mask_time_prob": frames.prob,
        "mask_time_length": frames.length,
        "mask_time_min_masks": frames.min_spans,
        "mask_feature_prob": channels.prob,
        "mask_feature_length": channels.length,
        "mask_feature_min_masks": channels.min_spans,
        "torch_dtype": "float32",
    }
    if adapter is not None:
        official |= {
            "add_adapter": True,
            "output_hidden_size": adapter.dim or layers.dim,
            "num_adapter_layers": adapter.layers,
            "adapter_kernel_size": adapter.kernel,
            "adapter_stride": adapter.stride,
        }
    if stacked:
        kernel = layers.position_kernel // layers.position_blocks
        return official | {"num_conv_pos_embeddings": layers.position_blocks, "conv_pos_kernel_size": kernel}
    official |= {
        "num_conv_pos_embeddings": layers.position_kernel,
        "feat_extract_norm": waveform.norm,
        "do_stable_layer_norm": layers.norm_first,
    }
    if system == "hubert":
        official |= {"feat_proj_layer_norm": waveform.feature_norm, "conv_pos_batch_norm": layers.position_norm == "batch"}
    if layers.adapter_dim:
        official["adapter_attn_dim"] = layers.adapter_dim
    if system == "wavlm":
        official |= {"num_buckets": layers.relative_buckets, "max_bucket_distance": layers.relative_distance}
    if isinstance(config, Wav2Vec2Config):
        sizes = config.quantizer or QuantizerConfig()
        official |= {
            "num_codevector_groups": sizes.groups,
            "num_codevectors_per_group": sizes.entries,
            "codevector_dim": sizes.dim or config.final_dim,
            "proj_codevector_dim": config.final_dim,
            "contrastive_logits_temperature": config.temperature,
            "num_negatives": config.negatives,
            "feat_quantizer_dropout": config.target_dropout,
            "diversity_loss_weight": config.diversity_weight,
        }
    return official
