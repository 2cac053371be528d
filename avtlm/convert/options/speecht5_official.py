"""SpeechT5's settings in the words of its official code and of Hugging Face: the way back of options/speecht5.py."""

from typing import Any

from avtlm.convert.options.wav2vec2 import ACTIVATIONS
from avtlm.nn.quantize import QuantizerConfig
from avtlm.nn.vocoder import VocoderConfig
from avtlm.objectives.infilling import InfillingConfig
from avtlm.objectives.masking import SpanMaskConfig
from avtlm.systems.speecht5 import SpeechT5Config


def official_options(settings: SpeechT5Config) -> dict[str, Any]:
    """The options of a model in the words of SpeechT5's code."""
    waveform, encoder, decoder, spectrogram = settings.waveform, settings.encoder, settings.decoder, settings.spectrogram
    weights, codebook = settings.losses, settings.codebook
    # Whether speech is written from text or from speech is no setting of ours, and changes nothing in the model.
    relation = spectrogram.needs_source
    tasks = {"pretrain": "pretrain", "recognition": "s2t", "generation": "s2s" if relation else "t2s", "speaker": "s2c"}
    average = weights.reconstruction.average
    back = {"gelu": "gelu", "gelu_tanh": "gelu_accurate", "relu": "relu", "tanh": "tanh", "linear": "linear"}
    return {
        "_name": "t5_transformer_large" if encoder.norm_first else "t5_transformer_base",
        "arch": "t5_transformer_large" if encoder.norm_first else "t5_transformer_base",
        "t5_task": tasks[settings.task],
        "conv_feature_layers": str(list(zip(waveform.widths, waveform.kernels, waveform.strides, strict=True))),
        "extractor_mode": {"group": "default", "layer": "layer_norm"}[waveform.norm],
        "conv_bias": waveform.bias,
        "sample_rate": 16000,
        "encoder_embed_dim": encoder.dim,
        "encoder_layers": encoder.layers,
        "encoder_attention_heads": encoder.heads,
        "encoder_ffn_embed_dim": encoder.feed_forward_dim,
        "activation_fn": back.get(encoder.activation, encoder.activation),
        "layer_norm_first": encoder.norm_first,
        "encoder_normalize_before": False,
        "encoder_layerdrop": encoder.layer_drop,
        "relative_position_embedding": encoder.key_distance > 0,
        "encoder_max_relative_position": encoder.key_distance or 160,
        "decoder_max_relative_position": encoder.key_distance or 160,
        "dropout": encoder.dropout,
        "attention_dropout": encoder.attention_dropout,
        "activation_dropout": encoder.activation_dropout,
        **_official_spans(settings),
        "feature_grad_mult": settings.feature_gradient_scale,
        "decoder_embed_dim": decoder.dim,
        "decoder_input_dim": decoder.dim,
        "decoder_output_dim": decoder.dim,
        "decoder_layers": decoder.layers,
        "decoder_attention_heads": decoder.heads,
        "decoder_ffn_embed_dim": decoder.feed_forward_dim,
        "decoder_normalize_before": decoder.norm_first,
        "decoder_layerdrop": decoder.layer_drop,
        "no_scale_embedding": not decoder.scale_embedding,
        "decoder_learned_pos": decoder.positions == "learned",
        "no_token_positional_embeddings": decoder.positions == "none",
        "max_text_positions": decoder.max_positions,
        "share_input_output_embed": settings.shared_embedding,
        "conv_pos": settings.position_kernel,
        "conv_pos_groups": settings.position_groups,
        "use_conv_pos": True,
        "use_sinc_pos": settings.sinusoids,
        "transformer_enc_positional_dropout_rate": settings.position_dropout,
        "share_ctc_embed": settings.ctc_head == "tied",
        "untie_final_proj": settings.separate_projections or not settings.further_units,
        "unb_enc_layer": (settings.memory_layer or 0) - 1,
        "final_dim": settings.final_dim,
        "logit_temp": settings.temperature,
        "label_rates": settings.label_rate,
        "use_codebook": codebook is not None,
        "codebook_prob": settings.mixing,
        **({} if codebook is None else _official_codebook(codebook)),
        "speech_odim": spectrogram.bands,
        "reduction_factor": spectrogram.reduction,
        "dprenet_layers": spectrogram.prenet_layers,
        "dprenet_units": spectrogram.prenet_width,
        "dprenet_dropout_rate": spectrogram.prenet_dropout,
        "spk_embed_dim": spectrogram.voice_dim,
        "spk_embed_integration_type": "pre" if spectrogram.voice_place == "frames" else spectrogram.voice_place,
        "postnet_layers": spectrogram.postnet_layers,
        "postnet_chans": spectrogram.postnet_width,
        "postnet_filts": spectrogram.postnet_kernel,
        "postnet_dropout_rate": spectrogram.postnet_dropout,
        "use_batch_norm": spectrogram.postnet_norm,
        "transformer_dec_positional_dropout_rate": spectrogram.position_dropout,
        "enc_use_scaled_pos_enc": settings.scaled_positions,
        "dec_use_scaled_pos_enc": spectrogram.scaled_positions,
        "layernorm_embedding": decoder.embedding_norm,
        "se_predict": {"frames": None, "mask": "masking", "difference": "delta"}[spectrogram.writes],
        "se_decoder_input": "source" if spectrogram.reads == "source" else "previous_target",
        **_official_infilling(settings.infilling),
        "sid_encoder_cls": "encoder" if settings.leading_symbol else None,
        "sid_t5_postnet": settings.speakers_in_text,
        "sid_shuffle_encoder_input": settings.shuffle_frames,
        "sid_pooling_layer": {"first": "encoder-cls"}.get(settings.pooling, settings.pooling),
        "sid_no_pooling_bn": not settings.speaker_head.pooled_norm,
        "sid_no_embed_postnet": not settings.speaker_head.dim,
        "sid_embed_dim": settings.speaker_head.dim or 128,
        "sid_normalize_postnet": settings.speaker_head.cosine,
        "sid_softmax_type": "softmax",
        "freeze_encoder_updates": settings.freeze_encoder_steps,
        "hubert_weight": weights.units,
        "pred_masked_weight": weights.hidden,
        "pred_nomask_weight": weights.visible,
        "loss_weights": [weights.feature_penalty, weights.diversity],
        "dec_weight": weights.spectrogram,
        "bart_weight": weights.text,
        "ce_weight": weights.attention,
        "ctc_weight": weights.ctc,
        "label_smoothing": weights.label_smoothing,
        "loss_type": "+".join(name for name, on in (("L1", weights.reconstruction.absolute), ("L2", weights.reconstruction.squared)) if on),
        "bce_loss_lambda": weights.reconstruction.stop_weight,
        "bce_pos_weight": weights.reconstruction.stop_positive,
        "use_masking": average == "frames",
        "use_weighted_masking": average == "rows",
        "use_guided_attn_loss": weights.reconstruction.guided_weight > 0,
        "num_heads_applied_guided_attn": weights.reconstruction.guided_heads,
    }


def _official_infilling(holes: InfillingConfig) -> dict[str, Any]:
    return {
        "mask": holes.share,
        "mask_length": "span-poisson" if holes.mean_span else "word",
        "poisson_lambda": holes.mean_span,
        "mask_random": holes.random,
        "replace_length": {"span": 1, "nothing": 0, "tokens": -1}[holes.trace],
        "insert": holes.inserted,
        "permute_sentences": holes.permuted,
        "rotate": holes.rotated,
        "iid_noise_target": holes.numbered > 0,
    }


def _official_spans(settings: SpeechT5Config) -> dict[str, Any]:
    frames, channels = settings.mask, settings.channel_mask
    return {
        "mask_prob": frames.prob,
        "hubert_mask_length": frames.length,
        "mask_selection": frames.lengths,
        "mask_other": frames.spread,
        "no_mask_overlap": not frames.overlap,
        "mask_min_space": frames.min_space,
        "mask_channel_prob": channels.prob,
        "mask_channel_length": channels.length,
        "mask_channel_selection": channels.lengths,
        "mask_channel_other": channels.spread,
        "no_mask_channel_overlap": not channels.overlap,
        "mask_channel_min_space": channels.min_space,
    }


def _official_codebook(codebook: QuantizerConfig) -> dict[str, Any]:
    return {
        "latent_groups": codebook.groups,
        "latent_vars": codebook.entries,
        "latent_dim": codebook.dim or 0,
        "quantizer_depth": codebook.depth,
        "quantizer_factor": codebook.factor,
        "latent_temp": str((codebook.start, codebook.end, codebook.decay)),
    }


def hugging_face_config(settings: SpeechT5Config) -> dict[str, Any]:
    """config.json of a model, for any class of transformers that has its nets."""
    waveform, encoder, decoder, spectrogram = settings.waveform, settings.encoder, settings.decoder, settings.spectrogram
    guided, back = settings.losses.reconstruction, {ours: theirs for theirs, ours in ACTIVATIONS.items() if theirs != "gelu_accurate"}
    return {
        "vocab_size": settings.vocabulary,
        "hidden_size": encoder.dim,
        "encoder_layers": encoder.layers,
        "encoder_attention_heads": encoder.heads,
        "encoder_ffn_dim": encoder.feed_forward_dim,
        "encoder_layerdrop": encoder.layer_drop,
        "encoder_max_relative_position": encoder.key_distance,
        "decoder_layers": decoder.layers,
        "decoder_attention_heads": decoder.heads,
        "decoder_ffn_dim": decoder.feed_forward_dim,
        "decoder_layerdrop": decoder.layer_drop,
        "max_text_positions": decoder.max_positions,
        "hidden_act": back[encoder.activation],
        "hidden_dropout": encoder.dropout,
        "attention_dropout": encoder.attention_dropout,
        "activation_dropout": encoder.activation_dropout,
        "positional_dropout": settings.position_dropout,
        "scale_embedding": decoder.scale_embedding,
        "feat_extract_norm": waveform.norm,
        "feat_extract_activation": back[waveform.activation],
        "feat_proj_dropout": waveform.dropout,
        "conv_dim": list(waveform.widths),
        "conv_kernel": list(waveform.kernels),
        "conv_stride": list(waveform.strides),
        "conv_bias": waveform.bias,
        "num_conv_pos_embeddings": settings.position_kernel,
        "num_conv_pos_embedding_groups": settings.position_groups,
        "apply_spec_augment": settings.mask.prob > 0 or settings.channel_mask.prob > 0,
        **{f"mask_time_{key}": value for key, value in _hf_spans(settings.mask).items()},
        **{f"mask_feature_{key}": value for key, value in _hf_spans(settings.channel_mask).items()},
        "num_mel_bins": spectrogram.bands,
        "reduction_factor": spectrogram.reduction,
        "speech_decoder_prenet_layers": spectrogram.prenet_layers,
        "speech_decoder_prenet_units": spectrogram.prenet_width,
        "speech_decoder_prenet_dropout": spectrogram.prenet_dropout,
        "speaker_embedding_dim": spectrogram.voice_dim,
        "speech_decoder_postnet_layers": spectrogram.postnet_layers,
        "speech_decoder_postnet_units": spectrogram.postnet_width,
        "speech_decoder_postnet_kernel": spectrogram.postnet_kernel,
        "speech_decoder_postnet_dropout": spectrogram.postnet_dropout,
        "use_guided_attention_loss": guided.guided_weight > 0,
        "guided_attention_loss_num_heads": guided.guided_heads,
        "guided_attention_loss_sigma": guided.guided_width,
        "guided_attention_loss_scale": guided.guided_weight or 10.0,
    }


def _hf_spans(mask: SpanMaskConfig) -> dict[str, Any]:
    return {"prob": mask.prob, "length": mask.length, "min_masks": mask.min_spans}


def vocoder_config(settings: VocoderConfig) -> dict[str, Any]:
    """config.json of a HiFi-GAN."""
    return {
        "sampling_rate": 16000,
        "model_in_dim": settings.bands,
        "upsample_initial_channel": settings.width,
        "upsample_rates": list(settings.rates),
        "upsample_kernel_sizes": list(settings.kernels),
        "resblock_kernel_sizes": list(settings.block_kernels),
        "resblock_dilation_sizes": [list(each) for each in settings.block_dilations],
        "leaky_relu_slope": settings.leak,
        "normalize_before": settings.normalise,
    }
