"""Public checkpoints of MT2KD's teachers: Whisper's encoder, BEATs fine-tuned on AudioSet, SpeechBrain's ECAPA-TDNN, without their code.

What is unusual here:
- Whisper is read from a Hugging Face folder, or from OpenAI's ``.pt``; its decoder stays in the file.
- BEATs' ``.pt`` holds its configuration and the identifiers of its classes, in an order of its own.
- SpeechBrain's files say nothing of sizes: they are read off the shapes, and dilations off ``hyperparams.yaml`` beside them, else as
  published.
"""

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from avtlm.convert.model import ConversionError, Reshaped, Stored, build_empty, fill
from avtlm.convert.names.teachers import BEATS, BEATS_COPIES, WHISPER_HUGGING_FACE, WHISPER_OPENAI, ecapa_name
from avtlm.convert.names.transformer import Rules, find_name
from avtlm.convert.pickles import StoredTensor, TorchFile
from avtlm.convert.tensor_files import read_weights
from avtlm.convert.vocabulary import read_json
from avtlm.nn.beats import GATED, Beats, BeatsConfig
from avtlm.nn.ecapa import Ecapa, EcapaConfig
from avtlm.nn.whisper_encoder import WhisperConfig, WhisperEncoder

CONFIG, EMBEDDING, HYPERPARAMETERS = "config.json", "embedding_model.ckpt", "hyperparams.yaml"
# Options of BEATs that change nothing outside of training, or what other options say.
_WITHOUT_EFFECT = (
    *("dropout", "attention_dropout", "activation_dropout", "encoder_layerdrop", "dropout_input", "predictor_dropout"),
    *("layer_wise_gradient_decay_ratio", "finetuned_model"),
)
_BEATS_OPTIONS = {
    "encoder_embed_dim": "dim",
    "encoder_layers": "layers",
    "encoder_attention_heads": "heads",
    "encoder_ffn_embed_dim": "feed_forward_dim",
    "input_patch_size": "patch",
    "embed_dim": "embedding_dim",
    "conv_pos": "position_kernel",
    "conv_pos_groups": "position_groups",
    "num_buckets": "relative_buckets",
    "max_distance": "relative_distance",
    "predictor_class": "tags",
    "conv_bias": "patch_bias",
    "deep_norm": "deep_norm",
    "layer_norm_first": "norm_first",
    "relative_position_embedding": "relative",
    "gru_rel_pos": "gated",
}
# What these are where a file does not say, and is not what ours are; the published ones say.
_BEATS_DEFAULTS = {"deep_norm": False, "relative_position_embedding": False, "gru_rel_pos": False, "max_distance": 1280}
_BEATS_ACTIVATIONS = {
    "gelu": "gelu",
    "relu": "relu",
    "tanh": "tanh",
    "linear": "linear",
    "gelu_fast": "gelu_tanh",
    "gelu_accurate": "gelu_tanh",
    "glu": GATED,
}


# Whisper ----------------------------------------------------------------------------------------------------------------------------------


def read_whisper(place: str | Path) -> WhisperEncoder:
    """The encoder of a Hugging Face folder, or of OpenAI's ``.pt``, in evaluation mode.

    Raises:
        ConversionError, TorchFileError, WeightsError: something else, damaged, or tensors that do not fit.
    """
    place = Path(place)
    if place.is_dir():
        values = read_json(place / CONFIG)
        if values.get("model_type") != "whisper":
            raise ConversionError(f"{place} holds a model of the type {values.get('model_type')!r}, not whisper; name a Whisper folder.")
        named = {key.removeprefix("model."): tensor for key, tensor in read_weights(place).items()}
        stored = {key: tensor for key, tensor in named.items() if key.startswith("encoder.")}
        return whisper(whisper_config(values, _HUGGING_FACE, place), stored, WHISPER_HUGGING_FACE, str(place))
    content = TorchFile(place).content
    dims, weights = (content.get(key) if isinstance(content, dict) else None for key in ("dims", "model_state_dict"))
    if not isinstance(dims, dict) or not isinstance(weights, dict):
        raise ConversionError(
            f"{place} is no file of OpenAI's Whisper: it has no 'dims' and 'model_state_dict'; name such a file, or a folder."
        )
    stored = {key.removeprefix("encoder."): tensor for key, tensor in weights.items() if key.startswith("encoder.")}
    return whisper(whisper_config(dims, _OPENAI, place), stored, WHISPER_OPENAI, str(place))


_HUGGING_FACE = ("d_model", "encoder_layers", "encoder_attention_heads", "num_mel_bins", "max_source_positions", "encoder_ffn_dim")
_OPENAI = ("n_audio_state", "n_audio_layer", "n_audio_head", "n_mels", "n_audio_ctx", None)


def whisper_config(values: Mapping[str, Any], keys: tuple[str | None, ...], place: Path) -> WhisperConfig:
    """Sizes under their names there: width, layers, heads, bands, positions, feed-forward width (four times the width without one).

    Raises:
        ConversionError: one is missing.
    """
    found = [value for value in (values.get(key) for key in keys if key is not None) if isinstance(value, int)]
    if len(found) < sum(key is not None for key in keys):
        raise ConversionError(f"{place}: one of {', '.join(key for key in keys if key)} is missing; copy its configuration again.")
    dim, layers, heads, bands, positions, *hidden = found
    return WhisperConfig(dim, layers, heads, hidden[0] if hidden else 4 * dim, bands, positions)


def whisper(config: WhisperConfig, stored: Mapping[str, Stored], rules: Rules, where: str) -> WhisperEncoder:
    """The encoder with a checkpoint's tensors, which have no biases of keys."""
    spare = {f"encoder.layers.{layer}.self_attention.key.bias" for layer in range(config.layers)}
    return _filled(lambda: WhisperEncoder(config), {find_name(rules, key, "Whisper"): each for key, each in stored.items()}, where, spare)


# BEATs ------------------------------------------------------------------------------------------------------------------------------------


def read_beats(path: str | Path) -> tuple[Beats, tuple[str, ...]]:
    """A fine-tuned model in evaluation mode, and the identifiers of its classes in their order (none if the file names none).

    Raises:
        ConversionError, TorchFileError: something else, damaged, options that our model has not got, or tensors that do not fit.
    """
    content = TorchFile(path).content
    cfg, weights = (content.get(key) if isinstance(content, dict) else None for key in ("cfg", "model"))
    if not isinstance(cfg, dict) or not isinstance(weights, dict) or "input_patch_size" not in cfg:
        raise ConversionError(f"{path} is no file of BEATs: it has no 'cfg' with patches and 'model'; name a fine-tuned BEATs .pt.")
    if not cfg.get("finetuned_model") or "predictor.weight" not in weights:
        raise ConversionError(f"{path} holds BEATs without classes; name one that was fine-tuned on AudioSet.")
    labels = content.get("label_dict")
    tags = tuple(str(labels[index]) for index in sorted(labels)) if isinstance(labels, dict) else ()
    config = beats_config(cfg, str(path))
    if tags and len(tags) != config.tags:
        raise ConversionError(f"{path}: names {len(tags)} classes, but predicts {config.tags}; copy it again.")
    return beats(config, weights, str(path)), tags


def beats_config(cfg: Mapping[str, Any], where: str) -> BeatsConfig:
    """Our configuration of BEATs' options.

    Raises:
        ConversionError: an option that our model has not got.
    """
    activation = cfg.get("activation_fn", "gelu")
    odd = [] if activation in _BEATS_ACTIVATIONS else [f"activation_fn {activation!r}"]
    odd += sorted(set(cfg) - {"activation_fn", *_BEATS_OPTIONS, *_WITHOUT_EFFECT})
    if odd:
        raise ConversionError(f"{where}: options of BEATs that avtlm does not know: {', '.join(odd)}.")
    given = {**_BEATS_DEFAULTS, **cfg}
    named = {ours: given[theirs] for theirs, ours in _BEATS_OPTIONS.items() if theirs in given}
    try:
        return BeatsConfig(**named, activation=_BEATS_ACTIVATIONS[activation])
    except ValueError as error:
        raise ConversionError(f"{where}: {error}") from error


def beats(config: BeatsConfig, stored: Mapping[str, Stored], where: str) -> Beats:
    """The model with a checkpoint's tensors."""
    named: dict[str, Stored] = {}
    for key, tensor in stored.items():
        if not BEATS_COPIES.fullmatch(key):
            name = find_name(BEATS, key, "BEATs")
            named[name] = Reshaped(tensor, (config.heads,)) if name.endswith("gate.scale") else tensor
    return _filled(lambda: Beats(config), named, where)


# ECAPA-TDNN -------------------------------------------------------------------------------------------------------------------------------


def read_ecapa(place: str | Path) -> Ecapa:
    """SpeechBrain's model in evaluation mode, from its folder or its ``embedding_model.ckpt``.

    Raises:
        ConversionError, TorchFileError: something else, damaged, or tensors that do not fit.
    """
    path = Path(place) / EMBEDDING if Path(place).is_dir() else Path(place)
    content = TorchFile(path).content
    if not isinstance(content, dict) or not content or not all(isinstance(tensor, StoredTensor) for tensor in content.values()):
        raise ConversionError(f"{path} should hold tensors by name only; name SpeechBrain's {EMBEDDING} of an ECAPA-TDNN.")
    return ecapa(ecapa_config(content, _dilations(path.with_name(HYPERPARAMETERS)), str(path)), content, str(path))


def _dilations(path: Path) -> tuple[int, ...]:
    """As the recipe beside a checkpoint says."""
    if path.is_file():
        found = re.search(r"^\s*dilations:\s*\[([\d,\s]+)\]", path.read_text(encoding="utf-8"), re.MULTILINE)
        if found:
            return tuple(int(number) for number in found[1].split(","))
    return EcapaConfig().dilations


def ecapa_config(stored: Mapping[str, Stored], dilations: tuple[int, ...], where: str) -> EcapaConfig:
    """Sizes by the shapes of SpeechBrain's tensors.

    Raises:
        ConversionError: tensors of something else.
    """
    last = 1 + max((int(match[1]) for key in stored if (match := re.match(r"blocks\.(\d+)\.tdnn1\.", key))), default=0)
    convs = ["blocks.0.conv.conv", *(f"blocks.{number}.tdnn1.conv.conv" for number in range(1, last)), "mfa.conv.conv"]
    kernels = ["blocks.0.conv.conv", *(f"blocks.{number}.res2net_block.blocks.0.conv.conv" for number in range(1, last)), "mfa.conv.conv"]
    try:
        shapes = {name: tuple(stored[f"{name}.weight"].shape) for name in {*convs, *kernels, "asp.tdnn.conv.conv", "fc.conv"}}
        squeezed = stored["blocks.1.se_block.conv1.conv.weight"].shape[0]
        scale = 1 + max(int(match[1]) for key in stored if (match := re.match(r"blocks\.1\.res2net_block\.blocks\.(\d+)\.", key)))
    except (KeyError, ValueError) as error:
        raise ConversionError(f"{where} does not hold the tensors of SpeechBrain's ECAPA-TDNN: {error} is missing.") from error
    channels = tuple(shapes[name][0] for name in convs)
    read = [*channels[:-2], sum(channels[1:-1])]  # by all convolutions but the first, whose groups no shape tells
    groups = (1, *(width // shapes[name][1] for width, name in zip(read, convs[1:], strict=True)))
    return EcapaConfig(
        bands=shapes["blocks.0.conv.conv"][1],
        channels=channels,
        groups=groups if max(groups) > 1 else (),
        kernels=tuple(shapes[name][2] for name in kernels),
        dilations=dilations,
        attention_dim=shapes["asp.tdnn.conv.conv"][0],
        squeezed=squeezed,
        scale=scale + 1,
        dim=shapes["fc.conv"][0],
        global_context=shapes["asp.tdnn.conv.conv"][1] != shapes["mfa.conv.conv"][0],
    )


def ecapa(config: EcapaConfig, stored: Mapping[str, Stored], where: str) -> Ecapa:
    """The model with a checkpoint's tensors."""
    return _filled(lambda: Ecapa(config), {ecapa_name(key): tensor for key, tensor in stored.items()}, where)


def _filled(make: Callable[[], Any], stored: Mapping[str, Stored], where: str, spare: set[str] | None = None) -> Any:
    model = build_empty(make)
    fill(model, stored, lambda name: name, f"{where} does not hold the tensors of its model", (), spare or set())
    return model.eval()
