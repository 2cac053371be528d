"""Options of wav2vec 2.0, HuBERT, WavLM, data2vec and MT4SSL as ours: of fairseq's model configurations.

Names and defaults are those of Wav2Vec2Config, HubertConfig, Data2VecAudioConfig and MT4SSL's Multi2VecConfig there.
"""

import ast
from collections.abc import Sequence
from typing import Any

from avtlm.convert.names.wav2vec2 import System
from avtlm.convert.options import OptionError, Options
from avtlm.frontends.waveform import WaveformConfig
from avtlm.nn.quantize import QuantizerConfig
from avtlm.nn.transformer import EncoderConfig
from avtlm.objectives.masking import SpanMaskConfig
from avtlm.objectives.regression import TargetConfig, TeacherConfig
from avtlm.systems.data2vec import Data2VecConfig
from avtlm.systems.hubert import HubertConfig
from avtlm.systems.mt4ssl import MT4SSLConfig
from avtlm.systems.speech_encoder import SpeechEncoderConfig
from avtlm.systems.wav2vec2 import Wav2Vec2Config
from avtlm.systems.wavlm import WavLMConfig

ACTIVATIONS = {"gelu": "gelu", "gelu_accurate": "gelu_tanh", "gelu_fast": "gelu_tanh", "relu": "relu", "tanh": "tanh", "linear": "linear"}
LENGTHS: dict[str, Any] = {name: name for name in ("static", "uniform", "normal", "poisson")}
CONVOLUTIONS = "[(512, 10, 5)] + [(512, 3, 2)] * 4 + [(512,2,2)] + [(512,2,2)]"
# Options that change no number: memory, batching, speed, and those of layers that these models do not have.
WITHOUT_EFFECT = frozenset(
    {
        *(
            "checkpoint_activations",
            "required_seq_len_multiple",
            "max_positions",
            "depthwise_conv_kernel_size",
            "attn_type",
            "pos_enc_type",
        ),
        *("fp16", "adp_num", "adp_dim", "adp_act_fn", "adp_trf_idx", "max_update", "min_params_to_wrap", "seed"),
        *("expand_attention_mask", "normalize", "data"),
    }
)
# Options of wav2vec 2.0's own objective, which data2vec and MT4SSL inherit and do not read.
CONTRASTIVE = (
    *("dropout_features", "final_dim", "untie_final_proj", "target_glu", "quantize_targets", "quantize_input", "same_quantizer"),
    *("quantizer_depth", "quantizer_factor", "latent_vars", "latent_groups", "latent_dim", "latent_temp", "num_negatives"),
    *("negatives_from_everywhere", "cross_sample_negatives", "codebook_negatives", "crop_seq_to_multiple"),
)


def convolutions(text: str) -> tuple[tuple[int, int, int], ...]:
    """Fairseq's ``conv_feature_layers``, an expression of lists of (width, kernel, stride), read without running it.

    Raises:
        OptionError: anything else.
    """

    def read(node: ast.expr) -> Any:
        if isinstance(node, ast.List | ast.Tuple):
            return [read(each) for each in node.elts]
        if isinstance(node, ast.Constant) and type(node.value) is int:
            return node.value
        if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add | ast.Mult):
            left, right = read(node.left), read(node.right)
            return left + right if isinstance(node.op, ast.Add) else left * right
        raise TypeError

    try:
        layers = tuple((width, kernel, stride) for width, kernel, stride in read(ast.parse(text, mode="eval").body))
    except (SyntaxError, TypeError, ValueError) as error:
        raise OptionError(f"conv_feature_layers: {text!r:.80} is no list of (width, kernel, stride).") from error
    return layers


def fairseq(
    options: Options, system: System, units: Sequence[int] = (), normalise: bool = False, official: bool = False
) -> SpeechEncoderConfig:
    """A pre-trained model of fairseq.

    Args:
        options: of the model; of HuBERT also ``pred_masked_weight``, ``pred_nomask_weight`` and ``loss_weights`` of its criterion.
        units: sizes of the inventories (clusters + 4) of HuBERT, WavLM and MT4SSL.
        normalise: the task's ``normalize``.
        official: also take over what depends on padding in the official code.

    Raises:
        OptionError: an option that cannot be honoured.
    """
    take, teaches = options.take, system in ("data2vec", "mt4ssl")
    options.require("layer_type", "transformer")
    options.require("use_adp", False)
    layers = convolutions(take("conv_feature_layers", CONVOLUTIONS))
    widths, kernels, strides = zip(*layers, strict=True)
    dim, blocks = take("encoder_embed_dim", 768), take("pos_conv_depth", 1)
    kernel = take("conv_pos", 128)
    kernel = kernel if blocks == 1 else max(3, kernel // blocks) * blocks
    common: dict[str, Any] = {
        "waveform": WaveformConfig(
            widths,
            kernels,
            strides,
            norm=options.choose("extractor_mode", "default", {"default": "group", "layer_norm": "layer"}),
            bias=take("conv_bias", False),
            normalise=normalise,
            frame_padding="samples" if official and system in ("hubert", "wavlm") else "convolution",
            compute_padding=official,
            project_always=teaches,
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
            position_kernel=kernel,
            position_groups=take("conv_pos_groups", 16),
            position_blocks=blocks,
            # A stack has norms of its own, and does not read this.
            position_norm="batch" if take("conv_pos_batch_norm", False) and blocks == 1 else "weight",
            compute_padding=official,
            **_relative(options),
        ),
        "mask": spans(options, "mask", 0.65, 1 if teaches else 2),
        "channel_mask": spans(options, "mask_channel", 0.0, 0),
        "channels_first": take("mask_channel_before", False),
        "same_mask_count": take("require_same_masks", True),
        "feature_gradient_scale": take("feature_grad_mult", 1.0),
    }
    final_dim, temperature = take("final_dim", 0) or dim, take("logit_temp", 0.1)
    if teaches:
        return _teaching(options, common, system, units, official)
    target_dropout = take("dropout_features", 0.0)
    if system == "wav2vec2":
        return _contrastive(options, common, final_dim, temperature, target_dropout)
    take("latent_temp", [])  # a leftover there
    visible, masked = take("pred_nomask_weight", 0.0), take("pred_masked_weight", 1.0)
    penalty = take("loss_weights", [0.0])
    if not units or len(penalty) > 1:
        raise OptionError(f"{options.where}: {len(units)} inventories of units and {len(penalty)} loss_weights; give units, one weight.")
    cls = WavLMConfig if system == "wavlm" else HubertConfig
    return cls(
        **common,
        units=units[0],
        further_units=tuple(units[1:]),
        separate_projections=take("untie_final_proj", False) and len(units) > 1,
        unit_glu=take("target_glu", False),
        final_dim=final_dim,
        temperature=temperature,
        label_rate=float(take("label_rate", 50)),
        masked_weight=0.0 if take("skip_masked", False) else masked,
        visible_weight=0.0 if take("skip_nomask", False) else visible,
        feature_penalty=float(penalty[0]) if penalty else 0.0,
    )


def _relative(options: Options) -> dict[str, Any]:
    """WavLM's own code: relative positions, which these models have with gates."""
    if not options.take("relative_position_embedding", False):
        return {}
    options.require("gru_rel_pos", True)
    return {"relative_buckets": options.take("num_buckets", 320), "relative_distance": options.take("max_distance", 1280)}


def spans(options: Options, name: str, prob: float, least: int) -> SpanMaskConfig:
    overlap = "no_mask_channel_overlap" if name == "mask_channel" else "no_mask_overlap"
    return SpanMaskConfig(
        prob=options.take(f"{name}_prob", prob),
        length=options.take(f"{name}_length", 10),
        min_spans=least,
        lengths=options.choose(f"{name}_selection", "static", LENGTHS),
        spread=float(options.take(f"{name}_other", 0.0)),
        overlap=not options.take(overlap, False),
        min_space=options.take(f"{name}_min_space", 1),
        dropout=options.take("mask_dropout", 0.0) if name == "mask" else 0.0,
    )


def _contrastive(options: Options, common: dict[str, Any], final_dim: int, temperature: float, dropout: float) -> Wav2Vec2Config:
    take = options.take
    start, end, decay = take("latent_temp", [2, 0.5, 0.999995])
    quantizer = QuantizerConfig(
        groups=take("latent_groups", 2),
        entries=take("latent_vars", 320),
        dim=take("latent_dim", 0) or None,
        depth=take("quantizer_depth", 1),
        factor=take("quantizer_factor", 3),
        start=start,
        end=end,
        decay=decay,
    )
    quantised, inputs, same = take("quantize_targets", False), take("quantize_input", False), take("same_quantizer", False)
    weights = take("loss_weights", [0.0])
    # One weight counts for all extra losses; without codes there is no diversity.
    diversity, penalty = (float(weights[0]) if quantised or inputs else 0.0, float(weights[-1])) if weights else (0.0, 0.0)
    return Wav2Vec2Config(
        **common,
        quantizer=quantizer if quantised else None,
        final_dim=final_dim,
        temperature=temperature,
        negatives=take("num_negatives", 100),
        batch_negatives=take("cross_sample_negatives", 0),
        code_negatives=take("codebook_negatives", 0),
        negatives_from="all" if take("negatives_from_everywhere", False) else "hidden",
        target_glu=take("target_glu", False),
        target_dropout=dropout,
        diversity_weight=diversity,
        feature_penalty=penalty,
        input_quantizer=quantizer if inputs and not (same and quantised) else None,
        shared_quantizer=inputs and same and quantised,
        frame_multiple=take("crop_seq_to_multiple", 1),
    )


def _teaching(options: Options, common: dict[str, Any], system: System, units: Sequence[int], official: bool) -> Data2VecConfig:
    take = options.take
    # These heads are as wide as the encoder, and nothing is quantised or compared; the class inherits the options all the same.
    for key in CONTRASTIVE:
        options.take(key, False)
    anneal = take("ema_anneal_end_step", -1)
    first, last, layers_only = take("ema_decay", 0.999), take("ema_end_decay", 0.9999), take("ema_layers_only", True)
    # Averaging layers only implies the encoder only. A whole teacher's layers all become targets there, whatever is asked for.
    whole = not take("ema_transformer_only", True) and not layers_only
    layers, depth = take("average_top_k_layers", 8), common["encoder"].layers
    common |= {
        "teacher": TeacherConfig(last if anneal == 0 else first, last, int(anneal) if anneal > 0 else None, layers_only, whole),
        "targets": TargetConfig(
            layers=depth if whole else min(layers, depth),
            batch_norm=take("batch_norm_target_layer", False),
            instance_norm=take("instance_norm_target_layer", False),
            group_norm=take("group_norm_target_layer", False),
            layer_norm=take("layer_norm_target_layer", False),
            average_layer_norm=take("layer_norm_targets", False),
            average_instance_norm=take("instance_norm_targets", False),
            over_padding=official,
            official_axes=official,
        ),
        "beta": float(take("loss_beta", 0.0)),
        "loss_scale": None if (scale := take("loss_scale", -1.0)) == -1.0 else float(scale),
        "min_target_spread": take("min_target_var", 0.1),
        "min_prediction_spread": take("min_pred_var", 0.01),
    }
    if system == "data2vec":
        return Data2VecConfig(**common)
    weights = take("loss_weights", {})
    if len(units) != 1:
        raise OptionError(f"{options.where}: {len(units)} inventories of units; MT4SSL classifies one.")
    return MT4SSLConfig(
        **common,
        units=units[0],
        label_rate=common["waveform"].frame_rate,  # one label is taken for one frame, whatever rate it was made at
        regression_weight=float(weights.get("regression", 1.0)) if take("mse_loss", True) else 0.0,
        classification_weight=float(weights.get("classification", 1.0)) if take("ce_loss", True) else 0.0,
    )
