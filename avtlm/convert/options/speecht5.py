"""Options of SpeechT5 as ours: of its official code on fairseq, and of Hugging Face (Speech2C: speech2c.py).

An official SpeechT5 file holds every option of the command line, some 350, in one list, most of which say nothing about the model; those
that do, and that no released model or recipe sets, are refused by name.

Over 400 lines, because both tables of options make the same settings.
"""

import ast
from collections.abc import Mapping, Sequence
from typing import Any, Literal

from avtlm.convert.options import OptionError, Options
from avtlm.convert.options.wav2vec2 import ACTIVATIONS, CONVOLUTIONS, LENGTHS, convolutions, spans
from avtlm.frontends.waveform import WaveformConfig
from avtlm.nn.quantize import QuantizerConfig
from avtlm.nn.speaker_head import SpeakerHeadConfig
from avtlm.nn.spectrogram import SpectrogramConfig
from avtlm.nn.transformer import DecoderConfig, EncoderConfig
from avtlm.nn.vocoder import VocoderConfig
from avtlm.objectives.infilling import InfillingConfig
from avtlm.objectives.masking import SpanMaskConfig
from avtlm.objectives.reconstruction import ReconstructionConfig
from avtlm.systems.speecht5 import LossConfig, SpeechT5Config

# The official tasks: ours, what is read and what is written.
TASKS: dict[str, Any] = {"pretrain": "pretrain", "s2t": "recognition", "t2s": "generation", "s2s": "generation", "s2c": "speaker"}
POOLING = {"decoder": "decoder", "encoder": "encoder", "encoder-cls": "first"}
# The architectures that its code names (models/speecht5.py), where they differ from the defaults below.
_FINE_TUNED = {
    "activation_dropout": 0.1,
    "encoder_layerdrop": 0.1,
    "decoder_layerdrop": 0.1,
    "feature_grad_mult": 0.0,
    "mask_prob": 0.75,
    "mask_channel_prob": 0.5,
    "mask_channel_length": 64,
}
_LARGE = {
    **{"encoder_layers": 24, "encoder_embed_dim": 1024, "encoder_ffn_embed_dim": 4096, "encoder_attention_heads": 16},
    **{"decoder_embed_dim": 1024, "decoder_ffn_embed_dim": 4096, "decoder_attention_heads": 16},
    **{"layer_norm_first": True, "decoder_normalize_before": True, "extractor_mode": "layer_norm"},
    **{"dropout": 0.0, "attention_dropout": 0.0, "encoder_layerdrop": 0.0, "decoder_layerdrop": 0.0},
    **{"feature_grad_mult": 1.0, "final_dim": 768},
}
# How its enhancement relates what is written to the noisy spectrogram; a target is the spectrogram itself.
RELATIONS: dict[str, Any] = {"none": "frames", "target": "frames", "masking": "mask", "delta": "difference"}
NUMBERED = 600  # mask symbols with numbers, where it has them
# What a model reads and writes of which the nets for other tasks were removed.
FILTERED: dict[str, Any] = {
    "none": {},
    "s2s": {"inputs": ("speech",), "outputs": ("speech",)},
    "t2s": {"inputs": ("text",), "outputs": ("speech",)},
    "s2c": {"inputs": ("speech",), "outputs": ("text",)},
}
ARCHITECTURES: dict[str, dict[str, Any]] = {
    "t5_transformer": {},
    "t5_transformer_base": {},
    "t5_transformer_base_asr": _FINE_TUNED,
    "t5_transformer_large": _LARGE,
}


def fairseq(options: Options, vocabulary: int, units: int | Sequence[int] = 0, speakers: int = 0, official: bool = True) -> SpeechT5Config:
    """A model of SpeechT5's code.

    Args:
        options: of the model, its task and its criterion in one list.
        vocabulary: symbols of text, ``<mask>`` and CTC's blank last.
        units: of the head over units, or of each of its inventories, special symbols among them; 0 without it.
        speakers: of the head over voices; 0 without it.
        official: take over what depends on padding in the official code.

    Raises:
        OptionError: an option that cannot be honoured.
    """
    take = options.take
    _refuse(options, bool(speakers))
    official_task = options.take("t5_task", "pretrain")
    if official_task not in TASKS:
        raise OptionError(f"{options.where}: t5_task is {official_task!r}; avtlm knows {', '.join(TASKS)}.")
    task, relates = TASKS[official_task], _relations(options, official_task)
    dim, width = take("encoder_embed_dim", 768), take("decoder_embed_dim", 768)
    widths, kernels, strides = zip(*convolutions(take("conv_feature_layers", CONVOLUTIONS)), strict=True)
    dropouts = {name: take(name, default) for name, default in (("dropout", 0.1), ("attention_dropout", 0.1), ("activation_dropout", 0.0))}
    activation = options.choose("activation_fn", "gelu", ACTIVATIONS)
    norm_first = take("layer_norm_first", False)
    own_layers = take("use_sent_enc_layer", True)
    if not own_layers:  # fairseq's, without distances; SpeechT5's heed layer_norm_first alone, and large models have false here
        options.require("encoder_normalize_before", norm_first)
    relative = take("relative_position_embedding", False) and own_layers
    first, *further = (units,) if isinstance(units, int) else units
    separate, layers, memory_layer = take("untie_final_proj", True), take("encoder_layers", 12), take("unb_enc_layer", -1)
    positions: Literal["learned", "sinusoidal"] = "learned" if take("decoder_learned_pos", False) else "sinusoidal"
    shared, tied_ctc = take("share_input_output_embed", True), take("share_ctc_embed", False)
    ctc_head: Literal["tied", "own", "none"] = "tied" if tied_ctc else "own"
    filtered = options.choose("modules_filter", "none", FILTERED)
    if filtered:  # of text there is one embedding at most, and no head
        shared, ctc_head = True, "none"
    if filtered and "text" in filtered["inputs"]:
        positions = "sinusoidal"
    return SpeechT5Config(
        waveform=WaveformConfig(
            widths,
            kernels,
            strides,
            norm=options.choose("extractor_mode", "default", {"default": "group", "layer_norm": "layer"}),
            bias=take("conv_bias", False),
            frame_padding="samples" if official else "convolution",
            compute_padding=official,
            project_always=False,
            dropout=dropouts["dropout"],
        ),
        encoder=EncoderConfig(
            dim=dim,
            layers=layers,
            heads=take("encoder_attention_heads", 12),
            feed_forward_dim=take("encoder_ffn_embed_dim", 3072),
            activation=activation,
            norm_first=norm_first,
            layer_drop=take("encoder_layerdrop", 0.05),
            position_kernel=0,
            key_distance=take("encoder_max_relative_position", 160) if relative else 0,
            **dropouts,
        ),
        mask=_time_mask(options),
        channel_mask=spans(options, "mask_channel", 0.0, 0),
        feature_gradient_scale=take("feature_grad_mult", 0.1),
        task=task,
        decoder=DecoderConfig(
            dim=width,
            layers=take("decoder_layers", 6),
            heads=take("decoder_attention_heads", 12),
            feed_forward_dim=take("decoder_ffn_embed_dim", 3072),
            activation=activation,
            norm_first=take("decoder_normalize_before", False),
            layer_drop=take("decoder_layerdrop", 0.05),
            scale_embedding=not take("no_scale_embedding", True),
            tie_embeddings=shared,
            embedding_norm=take("layernorm_embedding", False) and "speech" not in filtered.get("outputs", ()),
            positions="none" if take("no_token_positional_embeddings", False) else positions,
            max_positions=take("max_text_positions", 450),
            **dropouts,
        ),
        position_kernel=take("conv_pos", 128),
        position_groups=take("conv_pos_groups", 16),
        sinusoids=take("use_sinc_pos", True),
        position_dropout=take("transformer_enc_positional_dropout_rate", 0.1),
        scaled_positions=take("enc_use_scaled_pos_enc", True),
        vocabulary=vocabulary,
        shared_embedding=shared,
        ctc_head=ctc_head,
        units=first,
        further_units=tuple(further),
        separate_projections=bool(separate and further),
        # The official code takes the last layer where it finds none of that number.
        memory_layer=memory_layer + 1 if 0 <= memory_layer < layers else None,
        final_dim=take("final_dim", 256) or dim,
        temperature=take("logit_temp", 0.1),
        label_rate=_rate(options),
        codebook=_codebook(options) if take("use_codebook", False) else None,
        mixing=take("codebook_prob", 0.5),
        spectrogram=SpectrogramConfig(
            bands=take("speech_odim", 80),
            reduction=take("reduction_factor", 2),
            prenet_layers=take("dprenet_layers", 2),
            prenet_width=take("dprenet_units", 256),
            prenet_dropout=take("dprenet_dropout_rate", 0.5),
            voice_dim=take("spk_embed_dim", 512),
            voice_place=options.choose("spk_embed_integration_type", "pre", {"pre": "frames", "add": "add", "concat": "concat"}),
            postnet_layers=take("postnet_layers", 5),
            postnet_width=take("postnet_chans", 256),
            postnet_kernel=take("postnet_filts", 5),
            postnet_dropout=take("postnet_dropout_rate", 0.5),
            position_dropout=take("transformer_dec_positional_dropout_rate", 0.1),
            compute_padding=official,
            postnet_norm=take("use_batch_norm", True),
            scaled_positions=take("dec_use_scaled_pos_enc", True),
            **relates,
        ),
        infilling=_infilling(options),
        speakers=speakers,
        pooling=options.choose("sid_pooling_layer", "decoder", POOLING) if speakers else "decoder",
        speaker_head=_speaker_head(options) if speakers else SpeakerHeadConfig(),
        shuffle_frames=task == "speaker" and take("sid_shuffle_encoder_input", False),
        leading_symbol=task == "speaker" and options.choose("sid_encoder_cls", "none", {"none": False, "encoder": True}),
        speakers_in_text=task == "speaker" and take("sid_t5_postnet", False),
        losses=_losses(options, pretrains=task == "pretrain"),
        freeze_encoder_steps=take("freeze_encoder_updates", 0),
        compute_padding=official,
        **filtered,
    )


def _refuse(options: Options, speakers: bool) -> None:
    """What the official code itself fails at, and what no released model sets."""
    options.require("use_conv_pos", True)
    options.require("target_glu", False)
    options.require("layer_norm_eps", 1e-5)
    options.require("quant_noise_pq", 0)
    options.require("adaptive_softmax_cutoff", None)
    if speakers:
        for key in ("sid_decoder_speaker", "sid_pad_prenet"):
            options.require(key, False)


def _relations(options: Options, task: str) -> dict[str, Any]:
    """What enhancement makes of the noisy spectrogram; other tasks have none."""
    writes = options.choose("se_predict", "none", RELATIONS)
    reads = options.choose("se_decoder_input", "previous_target", {"previous_target": "written", "source": "source"})
    return {"writes": writes, "reads": reads} if task == "s2s" else {}


def _infilling(options: Options) -> InfillingConfig:
    """Holes in texts. ``mask_length`` is that of holes, not of spans of frames."""
    take = options.take
    spans = options.choose("mask_length", "span-poisson", {"span-poisson": True, "word": False, "subword": False})
    mean = take("poisson_lambda", 3.5)
    return InfillingConfig(
        share=take("mask", 0.3),
        mean_span=mean if spans else 0.0,
        random=take("mask_random", 0.1),
        trace=options.choose("replace_length", 1, {1: "span", 0: "nothing", -1: "tokens"}),
        inserted=take("insert", 0.0),
        permuted=take("permute_sentences", 0.0),
        rotated=take("rotate", 0.0),
        numbered=NUMBERED if take("iid_noise_target", False) else 0,
    )


def _speaker_head(options: Options) -> SpeakerHeadConfig:
    """What is in front of the classes. The margins of its kinds of softmax need targets that the official criterion never passes."""
    pooled_norm, plain = not options.take("sid_no_pooling_bn", False), options.take("sid_no_embed_postnet", False)
    dim = options.take("sid_embed_dim", 128)
    angular = options.choose("sid_softmax_type", "softmax", {"softmax": False, "amsoftmax": True, "aamsoftmax": True})
    return SpeakerHeadConfig(pooled_norm, 0 if plain else dim, angular or options.take("sid_normalize_postnet", False))


def _time_mask(options: Options) -> SpanMaskConfig:
    """Spans of hidden frames. Their length has a name of its own, since ``mask_length`` is that of holes in texts."""
    return SpanMaskConfig(
        prob=options.take("mask_prob", 0.8),
        length=options.take("hubert_mask_length", 10),
        lengths=options.choose("mask_selection", "static", LENGTHS),
        spread=float(options.take("mask_other", 0.0)),
        overlap=not options.take("no_mask_overlap", False),
        min_space=options.take("mask_min_space", 1),
    )


def _rate(options: Options) -> float:
    rate = options.take("label_rates", 50)
    rate = rate[0] if isinstance(rate, list | tuple) and rate else rate
    return float(rate) if isinstance(rate, int | float) and rate > 0 else 50.0


def _codebook(options: Options) -> QuantizerConfig:
    temperature = options.take("latent_temp", (2, 0.5, 0.999995))
    try:
        start, end, decay = ast.literal_eval(temperature) if isinstance(temperature, str) else temperature
    except (SyntaxError, TypeError, ValueError) as error:
        raise OptionError(f"{options.where}: latent_temp is {temperature!r}; give three numbers.") from error
    return QuantizerConfig(
        groups=options.take("latent_groups", 2),
        entries=options.take("latent_vars", 100),
        dim=options.take("latent_dim", 0) or None,
        depth=options.take("quantizer_depth", 1),
        factor=options.take("quantizer_factor", 3),
        start=start,
        end=end,
        decay=decay,
    )


def _losses(options: Options, pretrains: bool) -> LossConfig:
    """Weights of losses. Those of attention and CTC count only where there are both, and pre-training reads no weight of the end."""
    take = options.take
    extra = take("loss_weights", [10.0, 0.1]) or [0.0]
    extra = ast.literal_eval(extra) if isinstance(extra, str) else extra
    kind = options.choose("loss_type", "L1", {name: name for name in ("L1", "L2", "L1+L2")})
    visible = 0.0 if take("skip_nomask", False) else take("pred_nomask_weight", 0.0)
    masked = 0.0 if take("skip_masked", False) else take("pred_masked_weight", 1.0)
    spectrogram, whole, stop = take("dec_weight", 1.0), take("hubert_weight", 1.0), take("bce_loss_lambda", 1.0)
    attention, ctc = take("ce_weight", 1.0), take("ctc_weight", 0.0)
    units = whole if spectrogram else 1.0  # a loss that stands alone is not weighed
    weighted = take("use_weighted_masking", False)
    average: Literal["frames", "rows", "padding"] = "frames" if take("use_masking", True) else "rows" if weighted else "padding"
    return LossConfig(
        units=units if masked or visible else 0.0,
        hidden=masked if masked or visible else 1.0,
        visible=visible,
        # The list serves speech from its head and text from behind that; a single weight serves all.
        feature_penalty=float(extra[0]),
        diversity=float(extra[1] if len(extra) > 1 else extra[0]),
        spectrogram=spectrogram,
        reconstruction=ReconstructionConfig(
            absolute=1.0 if "L1" in kind else 0.0,
            squared=1.0 if "L2" in kind else 0.0,
            stop_weight=1.0 if pretrains else stop,
            stop_positive=take("bce_pos_weight", 5.0),
            guided_weight=1.0 if take("use_guided_attn_loss", False) else 0.0,  # its weight and width are read and not used there
            guided_heads=take("num_heads_applied_guided_attn", 2),
            average=average,
        ),
        text=take("bart_weight", 1.0),
        attention=attention if ctc > 0 else float(attention > 0),
        ctc=ctc if attention > 0 else float(ctc > 0),
        label_smoothing=take("label_smoothing", 0.0),
    )


# Hugging Face -------------------------------------------------------------------------------------------------------------------------

Kind = Literal["s2t", "t2s", "s2s"]
CLASSES: dict[Kind, str] = {
    "s2t": "SpeechT5ForSpeechToText",
    "t2s": "SpeechT5ForTextToSpeech",
    "s2s": "SpeechT5ForSpeechToSpeech",
}
_HF_ACTIVATIONS = {**ACTIVATIONS, "gelu_new": "gelu_tanh", "gelu_pytorch_tanh": "gelu_tanh"}
_READS: dict[str, Any] = {"s": "speech", "t": "text"}


def hugging_face(options: Options, kind: Kind, official: bool = True) -> SpeechT5Config:
    """A model of transformers.

    Args:
        options: of config.json.
        kind: what its class reads and writes.
        official: see `fairseq`.

    Raises:
        OptionError: an option that cannot be honoured.
    """
    take = options.take
    dim = take("hidden_size", 768)
    dropouts = {
        "dropout": take("hidden_dropout", 0.1),
        "attention_dropout": take("attention_dropout", 0.1),
        "activation_dropout": take("activation_dropout", 0.1),
    }
    activation = options.choose("hidden_act", "gelu", _HF_ACTIVATIONS)
    heard = options.choose("feat_extract_activation", "gelu", _HF_ACTIVATIONS)
    positional = take("positional_dropout", 0.1)
    options.require("layer_norm_eps", 1e-5)
    guided, scale = take("use_guided_attention_loss", True), float(take("guided_attention_loss_scale", 10.0))
    writes_text = kind.endswith("t")
    masks = take("apply_spec_augment", True)
    return SpeechT5Config(
        waveform=WaveformConfig(
            tuple(take("conv_dim", (512,) * 7)),
            tuple(take("conv_kernel", (10, 3, 3, 3, 3, 2, 2))),
            tuple(take("conv_stride", (5, 2, 2, 2, 2, 2, 2))),
            norm=options.choose("feat_extract_norm", "group", {"group": "group", "layer": "layer"}),
            bias=take("conv_bias", False),
            activation=heard,
            compute_padding=official,
            dropout=take("feat_proj_dropout", 0.0),
        ),
        encoder=EncoderConfig(
            dim=dim,
            layers=take("encoder_layers", 12),
            heads=take("encoder_attention_heads", 12),
            feed_forward_dim=take("encoder_ffn_dim", 3072),
            activation=activation,
            norm_first=False,
            layer_drop=take("encoder_layerdrop", 0.1),
            position_kernel=0,
            position_activation=heard,
            key_distance=take("encoder_max_relative_position", 160),
            **dropouts,
        ),
        mask=_hf_mask(options, "time", 0.05, 10, 2, masks),
        channel_mask=_hf_mask(options, "feature", 0.0, 10, 0, masks),
        feature_gradient_scale=1.0,
        task=TASKS[kind],
        inputs=(_READS[kind[0]],),
        outputs=(_READS[kind[2]],),
        decoder=DecoderConfig(
            dim=dim,
            layers=take("decoder_layers", 6),
            heads=take("decoder_attention_heads", 12),
            feed_forward_dim=take("decoder_ffn_dim", 3072),
            activation=activation,
            norm_first=False,
            layer_drop=take("decoder_layerdrop", 0.1),
            scale_embedding=take("scale_embedding", False),
            max_positions=take("max_text_positions", 450),
            **dropouts,
        ),
        position_kernel=take("num_conv_pos_embeddings", 128),
        position_groups=take("num_conv_pos_embedding_groups", 16),
        position_dropout=positional,
        vocabulary=take("vocab_size", 81),
        ctc_head="none",
        units=0,
        codebook=None,
        spectrogram=SpectrogramConfig(
            bands=take("num_mel_bins", 80),
            reduction=take("reduction_factor", 2),
            prenet_layers=take("speech_decoder_prenet_layers", 2),
            prenet_width=take("speech_decoder_prenet_units", 256),
            prenet_dropout=take("speech_decoder_prenet_dropout", 0.5),
            voice_dim=take("speaker_embedding_dim", 512),
            postnet_layers=take("speech_decoder_postnet_layers", 5),
            postnet_width=take("speech_decoder_postnet_units", 256),
            postnet_kernel=take("speech_decoder_postnet_kernel", 5),
            postnet_dropout=take("speech_decoder_postnet_dropout", 0.5),
            position_dropout=positional,
            compute_padding=official,
        ),
        losses=LossConfig(
            attention=1.0,
            ctc=0.0,
            reconstruction=ReconstructionConfig(
                guided_weight=scale if guided and not writes_text else 0.0,
                guided_width=take("guided_attention_loss_sigma", 0.4),
                guided_heads=take("guided_attention_loss_num_heads", 2),
            ),
        ),
        compute_padding=official,
    )


def _hf_mask(options: Options, name: str, prob: float, length: int, least: int, applied: bool) -> SpanMaskConfig:
    found = options.take(f"mask_{name}_prob", prob)
    return SpanMaskConfig(
        prob=found if applied else 0.0,
        length=options.take(f"mask_{name}_length", length),
        min_spans=options.take(f"mask_{name}_min_masks", least),
    )


def vocoder(options: Options) -> VocoderConfig:
    """A HiFi-GAN of transformers (SpeechT5HifiGan).

    Raises:
        OptionError: another rate, or an option of a wrong kind.
    """
    options.require("sampling_rate", 16000)
    with options.blamed():
        return VocoderConfig(
            bands=options.take("model_in_dim", 80),
            width=options.take("upsample_initial_channel", 512),
            rates=tuple(options.take("upsample_rates", (4, 4, 4, 4))),
            kernels=tuple(options.take("upsample_kernel_sizes", (8, 8, 8, 8))),
            block_kernels=tuple(options.take("resblock_kernel_sizes", (3, 7, 11))),
            block_dilations=tuple(map(tuple, options.take("resblock_dilation_sizes", ((1, 3, 5),) * 3))),
            leak=options.take("leaky_relu_slope", 0.1),
            normalise=options.take("normalize_before", True),
        )


def architecture(name: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """Options of a run on top of those of its architecture.

    Raises:
        OptionError: an architecture that SpeechT5's code does not name.
    """
    if name not in ARCHITECTURES:
        raise OptionError(f"arch is {name!r}; avtlm knows {', '.join(ARCHITECTURES)}.")
    return {**ARCHITECTURES[name], **values}
