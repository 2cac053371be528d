"""MMSpeech's official options, of fairseq and of ModelScope's port, in our words."""

from dataclasses import dataclass

from avtlm.convert.options import Options
from avtlm.convert.options.wav2vec2 import ACTIVATIONS
from avtlm.convert.options.wav2vec2 import spans as spans_of
from avtlm.frontends.subsampling import SubsamplingConfig
from avtlm.nn.biased_decoder import BiasedDecoderConfig
from avtlm.nn.transformer import EncoderConfig
from avtlm.objectives.masking import SpanMaskConfig
from avtlm.systems.mmspeech import MMSpeechConfig
from avtlm.text.vocabulary import SPECIALS, UNKNOWN

CONTEXT_LAYER = 6  # from which on phonemes are read; no option there
LEAST_KERNEL = 3  # of each of several positional convolutions, however small conv_pos is
# What belongs to wav2vec 2.0's convolutions, quantiser and losses, to pictures and prompts, to how a model is run, or is said twice.
WITHOUT_EFFECT = frozenset(
    (
        *("extractor_mode", "final_dim", "conv_feature_layers", "conv_bias", "logit_temp", "quantize_targets"),
        *("quantize_input", "same_quantizer", "target_glu", "feature_grad_mult", "quantizer_depth", "quantizer_factor", "latent_vars"),
        *("latent_groups", "latent_dim", "mask_length", "mask_prob", "num_negatives", "negatives_from_everywhere"),
        *("cross_sample_negatives", "codebook_negatives", "latent_temp", "max_positions", "checkpoint_activations"),
        *("offload_activations", "required_seq_len_multiple", "crop_seq_to_multiple", "depthwise_conv_kernel_size", "attn_type"),
        *("pos_enc_type", "fp16", "adp_num", "adp_dim", "adp_act_fn", "adp_trf_idx", "dropout_features", "no_emb_update_unsup"),
        *("decoder_learned_pos", "no_token_positional_embeddings", "decoder_dropout", "decoder_attention_dropout", "decoder_input_dim"),
        *("decoder_activation_dropout", "max_phone_positions", "decoder_prompt_type", "decoder_prompt_length"),
        *("decoder_prompt_projection", "decoder_prompt_dim", "quant_noise_pq_block_size", "quant_noise_scalar", "image_bucket_size"),
        *("adaptive_softmax_dropout", "share_all_embeddings", "tie_adaptive_weights", "max_source_positions", "pooler_activation_fn"),
        *("pooler_dropout", "pooler_classifier", "resnet_drop_path_rate", "encoder_drop_path_rate", "resnet_type"),
        *("freeze_encoder_embedding", "freeze_decoder_embedding", "add_type_embedding", "code_image_size", "patch_layernorm_embedding"),
        *("code_layernorm_embedding", "entangle_position_embedding", "sync_bn", "bitfit", "instance_norm_target_layer"),
        *("average_top_k_layers", "decoder_embed_path", "encoder_layers_to_keep", "decoder_layers_to_keep", "adaptive_input"),
        *("adaptive_softmax_cutoff", "adaptive_softmax_factor", "min_params_to_wrap"),
    )
)
# Of the port: what transformers notes, what concerns pictures, and how it was run.
PORT_WITHOUT_EFFECT = frozenset(
    (
        *("model_type", "architectures", "transformers_version", "torch_dtype", "dtype", "use_cache", "is_encoder_decoder", "init_std"),
        *("classifier_dropout", "pad_token_id", "bos_token_id", "eos_token_id", "decoder_start_token_id", "forced_eos_token_id"),
        *("forced_bos_token_id", "encoder_drop_path_rate", "patch_layernorm_embedding", "resnet_type", "resnet_model_path"),
        *("resnet_drop_path_rate", "image_bucket_size", "add_type_embedding", "code_layernorm_embedding", "code_image_size"),
        *("interpolate_position", "orig_patch_image_size", "share_attn_bias", "use_image_feature", "exclude_mlp", "mlp_dim", "gamma"),
        *("vit_type", "vit_drop_path_rate", "required_seq_len_multiple", "encoder_max_positions", "encoder_dropout_features"),
        *("temperature_init_value", "remove_decoder_type_embedding", "num_hidden_layers", "attention_heads", "vocab_size"),
    )
)


@dataclass(frozen=True)
class Tables:
    """Sizes that follow from dictionaries: symbols of text, codes behind them, phones, and further rows of the table of phones."""

    text: int
    codes: int
    phones: int = 120
    spare_phones: int = 16


def official(options: Options, tables: Tables) -> MMSpeechConfig:
    """Our configuration of a model, from ``cfg.model`` of fairseq.

    Raises:
        OptionError: an option that cannot be honoured.
    """
    take = options.take
    dim = take("encoder_embed_dim", 768)
    for name in ("decoder_embed_dim", "decoder_output_dim"):
        options.require(name, dim)
    for name in ("decoder_prompt", "no_cross_attention", "cross_self_attention"):
        options.require(name, False)
    options.require("quant_noise_pq", 0)
    options.require("layer_type", "transformer")
    channels = spans_of(options, "mask_channel", 0.0, 0)
    if channels.prob:
        options.require("mask_channel_before", False)
    take("mask_channel_before", False)
    blocks = take("pos_conv_depth", 5)
    ends = take("phone_dict_size", tables.phones + len(SPECIALS))
    activation = options.choose("activation_fn", "gelu", ACTIVATIONS)
    dropout, attention, inner = take("dropout", 0.1), take("attention_dropout", 0.0), take("activation_dropout", 0.0)
    heads, adapts, adapter = take("encoder_attention_heads", 12), take("adapter", False), take("adapter_dim", 200)
    spans = {
        "length": take("audio_mask_length", 10),
        "min_spans": 1,
        "lengths": options.choose("mask_selection", "static", {name: name for name in ("static", "uniform", "normal", "poisson")}),
        "spread": float(take("mask_other", 0.0)),
        "overlap": not take("no_mask_overlap", False),
        "min_space": take("mask_min_space", 1),
        "dropout": float(take("mask_dropout", 0.0)),
    }
    with options.blamed():
        return MMSpeechConfig(
            subsampling=SubsamplingConfig(official_lengths=True),
            encoder=EncoderConfig(
                dim=dim,
                layers=take("encoder_layers", 12),
                heads=heads,
                feed_forward_dim=take("encoder_ffn_embed_dim", 3072),
                activation=activation,
                norm_first=take("layer_norm_first", False),
                dropout=dropout,
                attention_dropout=attention,
                activation_dropout=inner,
                layer_drop=take("encoder_layerdrop", 0.05),
                position_kernel=0,
            ),
            decoder=BiasedDecoderConfig(
                dim=dim,
                layers=take("decoder_layers", 6),
                heads=take("decoder_attention_heads", heads),
                feed_forward_dim=take("decoder_ffn_embed_dim", 3072),
                activation=activation,
                norm_first=take("decoder_normalize_before", False),
                dropout=dropout,
                attention_dropout=attention,
                activation_dropout=inner or take("relu_dropout", 0.0),  # its older name
                layer_drop=take("decoder_layerdrop", 0.0),
                tie_embeddings=take("share_decoder_input_output_embed", False),
                scale_embedding=not take("no_scale_embedding", False),
                max_positions=take("max_target_positions", 1024),
                distance_buckets=take("token_bucket_size", 256),
                scale_factor=float(take("attn_scale_factor", 2.0)),
                attention_norms=take("scale_attn", False),
                inner_norm=take("scale_fc", False),
                head_scales=take("scale_heads", False),
                residual_scales=take("scale_resids", False),
                adapter_dim=adapter if adapts else 0,
                embedding_norm=take("layernorm_embedding", False),
                add_positions=not take("disable_entangle", False),
                drop_path=take("decoder_drop_path_rate", 0.0),
            ),
            speech_layers=CONTEXT_LAYER,
            position_kernel=max(take("conv_pos", 95), LEAST_KERNEL * blocks if blocks > 1 else 0),
            position_groups=take("conv_pos_groups", 16),
            position_blocks=blocks,
            compute_padding=True,
            vocabulary=tables.text,
            codes=tables.codes,
            phones=tables.phones,
            spare_phones=tables.spare_phones,
            phone_classes=None if ends == tables.phones + len(SPECIALS) else ends - UNKNOWN,
            mask=SpanMaskConfig(prob=take("audio_mask_prob", 0.7), **spans),
            paired_mask=SpanMaskConfig(prob=0.3, **spans),
            channel_mask=channels,
            same_mask_count=take("require_same_masks", True),
            input_dropout=take("dropout_input", 0.0),
        )


# ModelScope's words for the options that both have.
PORTED = {
    "d_model": "encoder_embed_dim",
    "encoder_ffn_dim": "encoder_ffn_embed_dim",
    "decoder_ffn_dim": "decoder_ffn_embed_dim",
    "encoder_normalize_before": "layer_norm_first",
    "activation_function": "activation_fn",
    "share_decoder_input_output_embed": "share_decoder_input_output_embed",
    "max_position_embeddings": "max_target_positions",
    "encoder_pos_conv_depth": "pos_conv_depth",
    "encoder_conv_pos": "conv_pos",
    "encoder_conv_pos_groups": "conv_pos_groups",
    "encoder_dropout_input": "dropout_input",
    "audio_mask_selection": "mask_selection",
    "audio_mask_other": "mask_other",
    "audio_no_mask_overlap": "no_mask_overlap",
    "audio_mask_min_space": "mask_min_space",
    "audio_mask_channel_prob": "mask_channel_prob",
    "audio_mask_channel_length": "mask_channel_length",
    "audio_mask_channel_selection": "mask_channel_selection",
    "audio_mask_channel_other": "mask_channel_other",
    "audio_no_mask_channel_overlap": "no_mask_channel_overlap",
    "audio_mask_channel_min_space": "mask_channel_min_space",
    "audio_mask_channel_before": "mask_channel_before",
}
# Its defaults, where they are others than those above.
PORT_DEFAULTS = {
    "d_model": 512,
    "encoder_layers": 4,
    "encoder_ffn_dim": 2048,
    "encoder_attention_heads": 8,
    "decoder_layers": 4,
    "decoder_ffn_dim": 2048,
    "decoder_attention_heads": 8,
    "encoder_layerdrop": 0.0,
    "scale_embedding": False,
    "normformer": True,
    "encoder_normalize_before": True,
    "decoder_normalize_before": True,
    "layernorm_embedding": True,
    "share_decoder_input_output_embed": True,
    "audio_mask_prob": 0.65,
    "phone_vocab_size": 141,
    "phone_dict_size": 124,
    "use_ofasys": False,
    "entangle_position_embedding": False,
    "disable_entangle": False,
}


def ported(values: dict[str, object], where: str, rows: int, text: int) -> MMSpeechConfig:
    """Our configuration of a model, from config.json of ModelScope.

    Args:
        rows: of the decoder's table.
        text: symbols of text, the first of them.

    Raises:
        OptionError: an option that cannot be honoured.
    """
    given = {**PORT_DEFAULTS, **{key: value for key, value in values.items() if value is not None}}
    normed, scaled = bool(given.pop("normformer")), bool(given.pop("scale_embedding"))
    entangled = given.pop("entangle_position_embedding")  # fairseq's code adds positions whatever this says
    given["disable_entangle"] = bool(given["disable_entangle"] or not entangled)
    table, ends = given.pop("phone_vocab_size"), given["phone_dict_size"]
    assert isinstance(table, int)
    assert isinstance(ends, int)
    translated = {PORTED.get(key, key): value for key, value in given.items()}
    translated |= {"decoder_embed_dim": translated["encoder_embed_dim"], "scale_attn": normed, "scale_fc": normed}
    translated |= {"scale_heads": True, "no_scale_embedding": not scaled}  # heads are always scaled there
    options = Options(translated, where, PORT_WITHOUT_EFFECT | WITHOUT_EFFECT)
    for name in ("use_ofasys", "use_gamma_feature"):
        options.require(name, False)
    phones = ends - len(SPECIALS)
    settings = official(options, Tables(text, rows - text, phones, table - ends - 1))
    options.finish()
    return settings
