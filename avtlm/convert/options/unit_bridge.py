"""Options of SpeechLM's and SpeechUT's official code as ours.

Both configurations are HuBERT's with more; ``text_transformer`` holds fairseq's options of a Transformer for the unit encoder, and for the
decoder of SpeechUT. Fine-tuned files name the model that they came from and not its options: those of the released sizes are read off the
shapes of the tensors then.
"""

from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from typing import Any, cast

from avtlm.convert.names.unit_bridge import Bridge
from avtlm.convert.options import OptionError, Options
from avtlm.convert.options.wav2vec2 import ACTIVATIONS, CONVOLUTIONS, WITHOUT_EFFECT, convolutions, fairseq, spans
from avtlm.nn.transformer import DecoderConfig
from avtlm.nn.unit_encoder import UnitEncoderConfig
from avtlm.objectives.masking import SpanMaskConfig
from avtlm.systems.hubert import HubertConfig
from avtlm.systems.speech_encoder import SpeechEncoderConfig
from avtlm.systems.speechlm import SpeechLMConfig
from avtlm.systems.speechut import SpeechUTConfig, SpeechUTLosses
from avtlm.systems.unit_bridge import BridgeConfig, BridgeLosses

DISTANCE, DECODER_DISTANCE = 160, 24  # hard-wired in the official code
# What HuBERT's options do not know: scaling_for_att cancels out, dictionary sizes are those of the dictionaries.
_SPARE = WITHOUT_EFFECT | {"scaling_for_att", "encoder_dict_size", "dropout_features", "latent_temp", "untie_final_proj"}
# Options of fairseq's Transformer that change no number here.
_TRANSFORMER_SPARE = frozenset(
    {
        *("quant_noise", "adaptive_softmax_cutoff", "adaptive_softmax_dropout", "adaptive_softmax_factor", "tie_adaptive_weights"),
        *("tie_adaptive_proj", "checkpoint_activations", "offload_activations", "min_params_to_wrap", "relu_dropout", "base_layers"),
        *("base_sublayers", "base_shuffle", "export", "share_all_embeddings"),
    }
)
# Options of the decoder that stand among those of both halves.
OF_DECODER = ("share_decoder_input_output_embed", "max_target_positions", "no_decoder_final_norm")
_HALF_SPARE = ("embed_path", "layers_to_keep", "input_dim", "output_dim")
# Options of fine-tuning that say where things were, or repeat the task's.
_FINE_TUNING_SPARE = frozenset(
    {
        *("w2v_path", "w2v_args", "no_pretrained_weights", "normalize", "data", "autoregressive", "input_feat_per_channel"),
        *("input_channels", "speaker_to_id", "encoder_embed_dim", "decoder_output_dim"),
    }
)


def bridge(
    options: Options,
    system: Bridge,
    units: Sequence[int],
    letters: int,
    normalise: bool = False,
    official: bool = False,
) -> BridgeConfig:
    """A pre-trained model of either system.

    Args:
        options: of the model, with what the criterion weighs.
        units: classes of each kind of units, one or two.
        letters: symbols of text; 0 where nothing is known of them, or there is no CTC.
        normalise: the task's ``normalize``.
        official: also take over what depends on padding in the official code.

    Raises:
        OptionError: an option that cannot be honoured.
    """
    take = options.take
    options.require("add_unit_encoder", True)
    options.require("compute_mum", False)
    options.require("no_ctc_blank", False)
    options.require("ignore_prefix_size", 0)
    weights = _penalties(options)
    relative = bool(take("use_rel_pos_enc", False))
    ctc = bool(take("add_text_ctc", False)) and letters > 0
    kernel, mixes, predicted = take("text_ctc_conv_kernel", 2), take("mix_with_unit", True), take("use_pred_unit", False)
    hides = take("mask_u2t", True)
    texts = Options(take("text_transformer", {}), f"{options.where}.text_transformer", _TRANSFORMER_SPARE)
    texts.require("adaptive_input", False)
    texts.require("char_inputs", False)
    texts.require("no_cross_attention", False)
    texts.require("cross_self_attention", False)
    halves = {half: Options(texts.take(half, {}), f"{texts.where}.{half}", _HALF_SPARE) for half in ("encoder", "decoder")}
    encoder = _unit_encoder(texts, halves["encoder"], relative, official)
    decodes = take("add_decoder", system == "speechut")
    limit = take("decoder_dict_size", -1)
    reset = take("reset_decoder_embedding_config", False)
    if system == "speechlm" and (decodes or not hides):
        raise OptionError(f"{options.where}: add_decoder {decodes}, mask_u2t {hides}; SpeechLM's own code knows only False and True.")
    if limit > 0 and limit != letters:
        raise OptionError(f"{options.where}: decoder_dict_size is {limit} for {letters} symbols of text; avtlm knows only -1.")
    heard = cast(HubertConfig, fairseq(options, "hubert", units[:1], normalise, official))
    shared: dict[str, Any] = {field.name: getattr(heard, field.name) for field in fields(SpeechEncoderConfig)}
    shared |= {
        "encoder": replace(heard.encoder, key_distance=DISTANCE if relative else 0),
        "unit_encoder": encoder,
        "units": units[0],
        "further_units": tuple(units[1:]),
        "final_dim": heard.final_dim,
        "temperature": heard.temperature,
        "unit_glu": heard.unit_glu,
        "label_rate": heard.label_rate,
        "swap": swapped(heard.mask, mixes),
        "swap_predicted": bool(predicted),
        "vocabulary": letters or BridgeConfig.vocabulary,
        "ctc_head": "own" if ctc else "none",
        "ctc_kernel": kernel,
    }
    weights |= {"masked": heard.masked_weight, "visible": heard.visible_weight}
    if system == "speechlm":
        weights["ctc"] = float(take("text_ctc_weight", 0.1)) * ctc
        options.require("text_mum_weight", 0.0, 0)
        for key in OF_DECODER:  # there is none
            texts.take(key, 0)
        texts.finish()
        return SpeechLMConfig(**shared, losses=BridgeLosses(**weights))
    weights |= {
        "ctc": float(take("u2t_ctc_weight", 0.0)) * ctc,
        "attention": float(take("u2t_ed_weight", 0.1)),
        "units": float(take("text_mum_weight", 0.0)),
        "label_smoothing": float(take("label_smoothing", 0.0)),
    }
    decoder = _text_decoder(texts, halves["decoder"], encoder, relative, bool(reset)) if decodes else None
    for key in OF_DECODER:
        texts.take(key, 0)
    texts.finish()
    return SpeechUTConfig(**shared, decoder=decoder, hide_units=bool(hides), losses=SpeechUTLosses(**weights))


def swapped(mask: SpanMaskConfig, mixes: bool = True) -> SpanMaskConfig:
    """The spans of frames that units replace: half as many as are hidden, half as long."""
    return replace(mask, prob=mask.prob / 2 if mixes else 0.0, length=max(1, mask.length // 2))


def _penalties(options: Options) -> dict[str, Any]:
    """Weights of the extra losses: one for each, or one for all."""
    distance = bool(options.take("l2_embedding", False))
    found = list(options.take("loss_weights", [0.0]) or [0.0])
    if len(found) == 1:
        found *= 1 + distance
    if len(found) != 1 + distance:
        raise OptionError(f"{options.where}: {len(found)} loss_weights for {1 + distance} extra losses; give one for each, or one for all.")
    return {"feature_penalty": float(found[0]), "distance": float(found[1]) if distance else 0.0}


def _common(texts: Options) -> dict[str, Any]:
    """What encoder and decoder share."""
    return {
        "activation": texts.choose("activation_fn", "relu", ACTIVATIONS),
        "dropout": texts.take("dropout", 0.1),
        "attention_dropout": texts.take("attention_dropout", 0.0),
        "activation_dropout": texts.take("activation_dropout", 0.0),
    }


def _half(half: Options) -> dict[str, Any]:
    """Sizes of one of them."""
    return {
        "dim": half.take("embed_dim", 512),
        "layers": half.take("layers", 6),
        "heads": half.take("attention_heads", 8),
        "feed_forward_dim": half.take("ffn_embed_dim", 2048),
        "norm_first": half.take("normalize_before", False),
        "layer_drop": half.take("layerdrop", 0.0),
    }


def _positions(half: Options, none: bool) -> str:
    learned = half.take("learned_pos", False)
    return "none" if none else "learned" if learned else "sinusoidal"


def _unit_encoder(texts: Options, half: Options, relative: bool, official: bool) -> UnitEncoderConfig:
    none = bool(texts.take("no_token_positional_embeddings", False))
    made = UnitEncoderConfig(
        **_half(half),
        **_common(texts),
        key_distance=DISTANCE if relative else 0,
        compute_padding=official,
        positions=cast(Any, _positions(half, none)),
        max_positions=texts.take("max_source_positions", 1024),
        embedding_norm=texts.take("layernorm_embedding", False),
        scale_embedding=not texts.take("no_scale_embedding", False),
    )
    half.finish()
    return made


def _text_decoder(texts: Options, half: Options, encoder: UnitEncoderConfig, relative: bool, reset: bool) -> DecoderConfig:
    """SpeechUT's: with the activation and dropout of the unit encoder, and its embedding's settings unless they are reset."""
    made = DecoderConfig(
        **_half(half),
        activation=encoder.activation,
        dropout=encoder.dropout,
        attention_dropout=encoder.attention_dropout,
        activation_dropout=encoder.activation_dropout,
        tie_embeddings=texts.take("share_decoder_input_output_embed", False),
        scale_embedding=reset or encoder.scale_embedding,
        positions=cast(Any, _positions(half, encoder.positions == "none" and not reset)),
        max_positions=texts.take("max_target_positions", 1024),
        key_distance=DECODER_DISTANCE if relative else 0,
        embedding_norm=encoder.embedding_norm and not reset,
    )
    if made.norm_first:
        texts.require("no_decoder_final_norm", False)
    half.finish()
    return made


# Fine-tuning --------------------------------------------------------------------------------------------------------------------------


def fine_tuning(options: Options, settings: BridgeConfig, kind: str, smoothing: float = 0.0, written: float = 0.5) -> BridgeConfig:
    """What fine-tuning changes of a pre-trained model's settings.

    Args:
        options: of the fine-tuned model.
        kind: ``ctc`` (SpeechLM), ``joint`` (SpeechUT) or ``translation`` (both).
        smoothing: of the criterion.
        written: the share of the decoder's loss in that of ``joint``, CTC's being the rest (``dec_weight``).

    Raises:
        OptionError: an option that cannot be honoured.
    """
    take = options.take
    applied = bool(take("apply_mask", False))
    frames, channels = spans(options, "mask", 0.5, 2), spans(options, "mask_channel", 0.0, 0)
    hidden = (frames, channels) if applied else (replace(frames, prob=0.0), replace(channels, prob=0.0))
    dropout = {key: take(key, 0.0) for key in ("dropout", "attention_dropout", "activation_dropout")}
    encoder = replace(settings.encoder, layer_drop=take("layerdrop", 0.0), **dropout)
    weights = {"ctc": 1.0, "attention": 1.0} if kind != "joint" else {"ctc": 1.0 - written, "attention": written}
    # A model without a head for CTC is given a linear layer.
    kernel = settings.ctc_kernel if settings.ctc_head == "own" else 0
    decoder, head = settings.decoder, "own" if kind != "translation" else "none"
    if kind == "translation" and isinstance(settings, SpeechLMConfig):
        decoder = translator(options, dropout)
    if kind == "joint" and not take("add_decoder", True):
        decoder = None
    common: dict[str, Any] = {
        "task": "recognition",
        "waveform": replace(settings.waveform, dropout=take("dropout_input", 0.0)),
        "encoder": encoder,
        "mask": hidden[0],
        "channel_mask": hidden[1],
        "feature_gradient_scale": take("feature_grad_mult", 0.0),
        "freeze_encoder_steps": take("freeze_finetune_updates", 0),
        "decoder": decoder,
        "ctc_head": head,
        "ctc_kernel": settings.ctc_kernel if kind == "translation" else kernel,
        "final_dropout": take("final_dropout", 0.0),
        "losses": replace(
            settings.losses, **weights, label_smoothing=smoothing, divisor="tokens" if kind == "translation" else "sentences"
        ),
    }
    if kind != "ctc":  # these repeat what the pre-trained model says
        for key in ("decoder_layerdrop", "activation_fn", "use_rel_pos_enc", "add_decoder"):
            take(key, False)
    return replace(settings, **common)


def translator(options: Options, dropout: Mapping[str, float]) -> DecoderConfig:
    """The new decoder of SpeechLM's translation. Its own options of dropout are not read; those of the encoder are."""
    take = options.take
    for key in ("decoder_dropout", "decoder_attention_dropout", "decoder_activation_dropout"):
        take(key, 0.0)
    learned = take("decoder_learned_pos", False)
    relative = take("use_rel_pos_enc", True)
    return DecoderConfig(
        dim=take("decoder_embed_dim", 768),
        layers=take("decoder_layers", 6),
        heads=take("decoder_attention_heads", 12),
        feed_forward_dim=take("decoder_ffn_embed_dim", 3072),
        activation=options.choose("activation_fn", "gelu", ACTIVATIONS),
        norm_first=take("decoder_normalize_before", False),
        layer_drop=take("decoder_layerdrop", 0.0),
        tie_embeddings=take("share_decoder_input_output_embed", False),
        scale_embedding=not take("no_scale_embedding", False),
        positions="none" if take("no_token_positional_embeddings", False) else "learned" if learned else "sinusoidal",
        max_positions=1024,
        key_distance=DECODER_DISTANCE if relative else 0,
        dropout=dropout["dropout"],
        attention_dropout=dropout["attention_dropout"],
        activation_dropout=dropout["activation_dropout"],
    )


def fine_tuning_spare() -> frozenset[str]:
    """Keys of fine-tuned models that change no number."""
    return WITHOUT_EFFECT | _FINE_TUNING_SPARE


def pretraining_spare() -> frozenset[str]:
    """The same of pre-trained ones, the criterion's among them."""
    return _SPARE | {"log_keys", "report_accuracy"}


# Sizes without options ----------------------------------------------------------------------------------------------------------------


def released_options(system: Bridge, shapes: Mapping[str, Sequence[int]]) -> dict[str, Any]:
    """Options of a pre-trained model of the released kind from the shapes of its tensors, by the names of a pre-trained file.

    Speech encoders with layer norm between their convolutions are pre-norm; the unit encoder is if it ends in a norm.

    Raises:
        OptionError: they are of no such model.
    """
    lacking = [key for key in ("mask_emb", "encoder.pos_emb.pe_k.weight", "encoder.pos_conv.0.weight_v") if key not in shapes]
    if lacking:
        raise OptionError(f"it does not say how its model was pre-trained and lacks {', '.join(lacking)}; name that file (--pretrained).")

    def count(stem: str) -> int:
        return len({key.split(".")[2] for key in shapes if key.startswith(f"{stem}.layers.")})

    layers = convolutions(CONVOLUTIONS)
    found = [tuple(shapes.get(f"feature_extractor.conv_layers.{index}.0.weight", ())) for index in range(len(layers))]
    if [shape[2:] for shape in found] != [(kernel,) for _, kernel, _ in layers]:
        raise OptionError("its convolutions are not those of released models; name the file that it was fine-tuned from (--pretrained).")
    dim, wide = shapes["mask_emb"][0], "feature_extractor.conv_layers.0.2.1.weight" in shapes
    kernel = shapes["encoder.pos_conv.0.weight_v"]
    positions = shapes.get("unit_encoder.embed_positions.weight")
    projection = shapes.get("final_proj_list.0.weight") or shapes.get("final_proj.weight") or (256, dim)
    halves = {
        half: {
            "embed_dim": shapes[f"{half}.layers.0.fc2.weight"][0],
            "ffn_embed_dim": shapes[f"{half}.layers.0.fc1.weight"][0],
            "layers": count(half),
            "attention_heads": shapes[f"{half}.layers.0.fc2.weight"][0] // shapes[f"{half}.pos_emb.pe_k.weight"][1],
            "normalize_before": f"{half}.layer_norm.weight" in shapes,
        }
        for half in ("encoder", "unit_encoder", *(["decoder"] if system == "speechut" else []))
        if f"{half}.layers.0.fc1.weight" in shapes
    }
    texts: dict[str, Any] = {
        "activation_fn": "gelu",
        "no_scale_embedding": True,
        "layernorm_embedding": "unit_encoder.layernorm_embedding.weight" in shapes,
        "no_token_positional_embeddings": positions is None,
        "max_source_positions": 3000 if positions is None else positions[0] - 2,
        "encoder": {**halves["unit_encoder"], "learned_pos": True},
    }
    values: dict[str, Any] = {
        "extractor_mode": "layer_norm" if wide else "default",
        "conv_feature_layers": str([(shape[0], *layer[1:]) for shape, layer in zip(found, layers, strict=True)]),
        "encoder_embed_dim": dim,
        "encoder_ffn_embed_dim": halves["encoder"]["ffn_embed_dim"],
        "encoder_layers": halves["encoder"]["layers"],
        "encoder_attention_heads": halves["encoder"]["attention_heads"],
        "layer_norm_first": wide,
        "conv_pos": kernel[2],
        "conv_pos_groups": dim // kernel[1],
        "final_dim": projection[0],
        "use_rel_pos_enc": True,
        "add_unit_encoder": True,
        "add_text_ctc": "unit_encoder_ctc_head.1.weight" in shapes,
        "text_ctc_conv_kernel": shapes.get("unit_encoder_ctc_head.1.weight", (0, 0, 2))[2],
        "mask_prob": 0.8,
        "add_decoder": False,
        "text_transformer": texts,
    }
    if "decoder" in halves:
        texts["decoder"] = halves["decoder"]
        reset = "decoder.layernorm_embedding.weight" not in shapes
        values |= {"add_decoder": True, "reset_decoder_embedding_config": reset, "mask_u2t": False}
    return values
