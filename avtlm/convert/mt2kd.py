"""Checkpoints of icefall (MT2KD of both stages, Zipformer transducers, audio tagging on Zipformer) to models in our terms, and back.

What is unusual here:
- A checkpoint says nothing of its model: sizes are read off the shapes. What these do not tell is as published: position heads of 4 values,
  the stack in which speakers are heard (the first of that width; set ``speaker_stack`` in config.yaml if it was another), masked channels.
- The recipe's word pieces come from its ``bpe.model`` (--vocabulary). They have three special symbols before them, ours four: rows of
  embeddings and outputs move on by one, and the one that is put in is never written.
- Weights lie under ``model``, their running average, in double precision, under ``model_avg``; several processes put ``module.`` before
  names, and some modules stand there twice.
- Padding changes what the official code gives; a converted model does the same (``compute_padding``, ``relative_lengths``).
"""

import re
from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from avtlm import checkpoint, config, systems
from avtlm.convert.model import TITLES, ConversionError, Converted, Rows, Stored, build_empty, card, fill
from avtlm.convert.names.inverse import find_key
from avtlm.convert.names.mt2kd import COPIES, PREFIX, WITHOUT_USE, names, plain_key
from avtlm.convert.names.transformer import find_name
from avtlm.convert.names.zipformer import UNUSED, UNUSED_VALUE
from avtlm.convert.options import OptionError
from avtlm.convert.pickles import StoredTensor, TorchFile
from avtlm.convert.sentencepieces import with_own_specials
from avtlm.convert.vocabulary import NEVER
from avtlm.files import atomic_path
from avtlm.nn.zipformer import LARGE, MEDIUM, SMALL, ZipformerConfig
from avtlm.systems.mt2kd import JoinerConfig, MT2KDConfig, WeightConfig
from avtlm.text.vocabulary import PAD, Tokenizer

SYSTEM = "mt2kd"
MODEL, AVERAGE = "model", "model_avg"
PUBLISHED_BANDS = 19  # that two convolutions of stride 2 leave of 80
FIRST_CONV = "encoder_embed.conv.0.weight"
POSITION_HEAD = 4  # values of a position head, which shapes do not tell
# Tensors of ours that have a row for every symbol, and what the row that is put in holds.
SYMBOL_ROWS = {
    "transducer.embedding.weight": 0.0,
    **{
        f"{name}.{part}": value
        for name in ("transducer.output", "simple_heard", "simple_said", "ctc")
        for part, value in (("weight", 0.0), ("bias", NEVER))
    },
}
PADDING = (
    "As in the official code, padding changes what comes out: clips alone and in a batch differ a little. Set encoder.compute_padding and "
    "relative_lengths to false in config.yaml to make every clip independent of its batch."
)


def reads(path: str | Path) -> bool:
    """Whether a file is a checkpoint of icefall with a Zipformer. Raises TorchFileError, OSError if it cannot be read."""
    if Path(path).suffix not in (".pt", ".pth", ".bin"):
        return False
    content = TorchFile(path).content
    weights = content.get(MODEL, content.get(AVERAGE)) if isinstance(content, dict) else None
    return isinstance(weights, dict) and any(str(key).removeprefix(PREFIX) == FIRST_CONV for key in weights)


def converted(path: str | Path, system: str | None = None, vocabulary: str | Path | None = None, averaged: bool = False) -> Converted:
    """The model of a checkpoint.

    Args:
        system: to make sure of it.
        vocabulary: the recipe's ``bpe.model``, for a model with a transducer or CTC.
        averaged: take the running average (``model_avg``).

    Raises:
        ConversionError: another system, tensors that are unknown, missing or do not fit, word pieces that do not fit.
        TorchFileError: the file is damaged or asks for foreign code.
    """
    if system not in (None, SYSTEM):
        raise ConversionError(
            f"{path} holds a Zipformer of icefall, not {TITLES.get(str(system), system)}; convert it with --system {SYSTEM}."
        )
    content = TorchFile(path).content
    weights = content.get(AVERAGE if averaged or MODEL not in content else MODEL)
    if not isinstance(weights, dict) or not all(isinstance(tensor, StoredTensor) for tensor in weights.values()):
        raise ConversionError(f"{path}: has no weights under {AVERAGE if averaged else MODEL!r}; leave --averaged out, or copy it again.")
    stored: dict[str, Stored] = {}
    for key, tensor in weights.items():
        if not WITHOUT_USE.fullmatch(plain_key(key)) and not UNUSED.fullmatch(plain_key(key)):
            stored.setdefault(plain_key(key), tensor)
    try:
        settings = model_config({key: tuple(tensor.shape) for key, tensor in stored.items()})
        tokens = word_pieces(settings, vocabulary)
    except OptionError as error:
        raise ConversionError(f"{path}: {error}") from error
    rows = settings.vocabulary
    if tokens is not None:
        settings = replace(settings, vocabulary=len(tokens))
    rules = names(settings.encoder)
    named, unknown = {}, []
    for key, tensor in stored.items():
        try:
            name = find_name(rules, key, "icefall")
        except ValueError:
            unknown.append(key)
            continue
        named[name] = Rows(tensor, row_order(rows), SYMBOL_ROWS[name]) if name in SYMBOL_ROWS else tensor
    model = build_empty(lambda: systems.find(SYSTEM).build(settings))
    spare = {name for name in model.state_dict() if _optional(name, named)}
    where = f"{path} does not hold the tensors of {TITLES[SYSTEM]}"
    absent = fill(model, named, lambda name: _key(settings.encoder, name), where, unknown, spare)
    notes = [PADDING, *_notes(settings, absent)]
    text = tokens is not None
    form = {
        "system": SYSTEM,
        "task": "transcription" if settings.task == "transcription" else "pretrain",
        "model": config.to_dict(settings),
    }
    commands = ["avtlm info FOLDER", *(["avtlm transcribe FILE --model FOLDER"] if text else [])]
    commands += ["avtlm tag FILE --model FOLDER"] if settings.task == "transcription" else []
    return Converted(model, form, tokens, None, {}, card(TITLES[SYSTEM], model, f"`{Path(path).name}` of icefall", commands, notes))


def _optional(name: str, named: Mapping[str, Any]) -> bool:
    """Whether a tensor of ours may be missing: a whole head is."""
    head = name.split(".")[0]
    return head in ("tagging", "voice") and not any(each.startswith(f"{head}.") for each in named)


def _notes(settings: MT2KDConfig, absent: list[str]) -> list[str]:
    notes = []
    if absent:
        heads = {"tagging": "tags sounds", "voice": "knows voices"}
        lost = [what for head, what in heads.items() if any(name.startswith(f"{head}.") for name in absent)]
        notes.append(f"It never {' nor '.join(lost)}: it has no such heads, and what stands in their place are zeros.")
    if settings.speaker_stack is not None and not any(name.startswith("voice.") for name in absent):
        notes.append(f"Speakers are heard in stack {settings.speaker_stack} (counted from 0), the first one of that width.")
    return notes


def _key(encoder: ZipformerConfig, name: str) -> str:
    try:
        return find_key(names(encoder), name)
    except ValueError:
        return name


def row_order(rows: int) -> tuple[int | None, ...]:
    """Which official row each of our symbols has: the blank, none for padding, end, unknown, and the pieces."""
    return (0, None, *range(1, rows))


def word_pieces(settings: MT2KDConfig, given: str | Path | None) -> Tokenizer | None:
    """The vocabulary of a model, None for one without texts.

    Raises:
        OptionError: it is missing, damaged, or of another size.
    """
    if not settings.vocabulary:
        return None
    if given is None:
        raise OptionError("it holds no word pieces of its texts; name the recipe's bpe.model with --vocabulary.")
    from avtlm.text.subwords import Subwords

    try:
        tokens = Subwords(with_own_specials(Path(given).read_bytes()))
    except OSError as error:
        raise OptionError(f"the vocabulary {given} cannot be read ({error.strerror}); name the recipe's bpe.model.") from error
    if len(tokens) != settings.vocabulary + 1:
        raise OptionError(f"{given} has {len(tokens) - 1} word pieces, but the model {settings.vocabulary}; they do not belong together.")
    return tokens


# Sizes ------------------------------------------------------------------------------------------------------------------------------------


def model_config(shapes: Mapping[str, tuple[int, ...]]) -> MT2KDConfig:
    """Sizes of a model by the shapes of its tensors, under plain official names.

    Raises:
        OptionError: a tensor is missing that tells them.
    """
    try:
        encoder = encoder_config(shapes)
        voice = shapes.get("ecapa_linear.weight")
        width = voice[1] // 2 if voice else 0
        tags = next((shapes[key][0] for key in ("beats_decoder.1.weight", "classifier.1.weight") if key in shapes), 1)
        speech = shapes.get("whisper_projection.weight", (0,))[0]
        rows = shapes.get("decoder.embedding.weight", shapes.get("ctc_output.1.weight", (0,)))[0]
        second = rows > 0 or "speaker_classifier.weight" in shapes or "classifier.1.weight" in shapes
        joiner = JoinerConfig()
        if "decoder.embedding.weight" in shapes:
            read = shapes["joiner.encoder_proj.weight"][1]
            joiner = JoinerConfig(
                dim=shapes["decoder.embedding.weight"][1],
                context=shapes["decoder.conv.weight"][2],
                joint_dim=shapes["joiner.encoder_proj.weight"][0],
                loss="pruned" if "simple_am_proj.weight" in shapes else "full",
            )
        else:
            read = encoder.dim
        projected = 0 < speech != encoder.dim and read == speech
        # The output, as it is or as the transducer reads it, or the first stack of that width.
        output = width == (speech if projected else encoder.dim)
        stack = None if output else next((place for place, dim in enumerate(encoder.dims) if dim == width), None)
    except KeyError as error:
        raise OptionError(f"it lacks {error}, which every model of its kind has.") from error
    return MT2KDConfig(
        encoder=encoder,
        task="transcription" if second else "pretrain",
        vocabulary=rows,
        tags=tags,
        speakers=shapes.get("speaker_classifier.weight", (0,))[0],
        voice_dim=voice[0] if voice else 192,
        speech_width=speech,
        project_speech=projected,
        speaker_stack=stack if width else (2 if len(encoder.dims) > 2 else None),
        transducer=joiner,
        weights=WeightConfig(ctc=0.2 if "ctc_output.1.weight" in shapes else 0.0),
        relative_lengths=True,
    )


def encoder_config(shapes: Mapping[str, tuple[int, ...]]) -> ZipformerConfig:
    """Of the Zipformer. Raises KeyError: a tensor that tells its sizes is missing."""
    stacks = 1 + max(int(match[1]) for key in shapes if (match := re.match(r"encoder\.encoders\.(\d+)\.", key)))
    found: dict[str, list[int]] = {name: [] for name in ("layers", "downsampling", "dims", "feed_forward", "heads", "kernels")}
    queries, values, position = list[int](), list[int](), 0
    causal = any("chunkwise_conv_scale" in key for key in shapes)
    for number in range(stacks):
        plain = f"encoder.encoders.{number}"
        stack = plain if f"{plain}.layers.0.self_attn_weights.in_proj.weight" in shapes else f"{plain}.encoder"
        layers = {int(match[1]) for key in shapes if (match := re.match(rf"{re.escape(stack)}\.layers\.(\d+)\.", key))}
        layer = f"{stack}.layers.0"
        projected, width = shapes[f"{layer}.self_attn_weights.in_proj.weight"]
        heads = shapes[f"{layer}.self_attn_weights.linear_pos.weight"][0] // POSITION_HEAD
        conv = f"{layer}.conv_module1.depthwise_conv" + (".chunkwise_conv" if causal else "")
        position = shapes[f"{layer}.self_attn_weights.linear_pos.weight"][1]
        queries.append((projected // heads - POSITION_HEAD) // 2)
        values.append(shapes[f"{layer}.self_attn1.in_proj.weight"][0] // heads)
        found["layers"].append(1 + max(layers))
        found["downsampling"].append(shapes.get(f"{plain}.downsample.bias", (1,))[0])
        found["dims"].append(width)
        found["feed_forward"].append(shapes[f"{layer}.feed_forward2.in_proj.weight"][0])
        found["heads"].append(heads)
        found["kernels"].append(shapes[f"{conv}.weight"][2])
    dims: tuple[int, ...] = tuple(found["dims"])
    sizes: dict[str, Any] = {name: tuple(values) for name, values in found.items()}
    known = next((size.unmasked_dims for size in (SMALL, MEDIUM, LARGE) if size.dims == dims), dims)
    bands = shapes["encoder_embed.out.weight"][1] // shapes["encoder_embed.conv.7.weight"][0]
    return ZipformerConfig(
        # Bands behind two convolutions of stride 2: as published where that fits.
        features=80 if bands == PUBLISHED_BANDS else 4 * bands + 3,
        **sizes,
        unmasked_dims=known,
        query_head_dim=one_or_each(queries),
        value_head_dim=one_or_each(values),
        position_head_dim=POSITION_HEAD,
        position_dim=position,
        output_downsampling=shapes["encoder.downsample_output.bias"][0],
        causal=causal,
        compute_padding=True,
    )


def one_or_each(values: Sequence[int]) -> int | tuple[int, ...]:
    """What all stacks have, or what each has."""
    return values[0] if len(set(values)) == 1 else tuple(values)


# The way back -----------------------------------------------------------------------------------------------------------------------------


def to_icefall(folder: str | Path, output: str | Path) -> Path:
    """Write a model folder as a checkpoint that icefall's code opens: ``model`` with the official names.

    Raises:
        ConversionError: the folder holds another system.
        CheckpointError: it is incomplete or damaged.
    """
    card_of = checkpoint.load_config(folder)
    if card_of["system"] != SYSTEM:
        raise ConversionError(f"{folder}: holds a {card_of['system']} model; only those of {SYSTEM} are written for icefall.")
    settings = config.load(MT2KDConfig, card_of["model"])
    rules = names(settings.encoder)
    state: OrderedDict[str, Tensor] = OrderedDict()
    for name, tensor in checkpoint.load_weights(folder).items():
        if name in SYMBOL_ROWS:
            tensor = torch.cat([tensor[:PAD], tensor[PAD + 1 :]])
        state[find_key(rules, name)] = tensor.clone()
    for key in list(state):
        for copy, first in COPIES.items():
            if key.startswith(first) and settings.task == "transcription" and (copy != "encoder_projection." or settings.project_speech):
                state[copy + key.removeprefix(first)] = state[key]
    for number, (layers, dim, factor) in enumerate(
        zip(settings.encoder.layers, settings.encoder.dims, settings.encoder.downsampling, strict=True)
    ):
        stack = f"encoder.encoders.{number}" + (".encoder" if factor > 1 else "")
        for layer in range(layers):
            state[f"{stack}.layers.{layer}.bypass_scale"] = torch.full((dim,), UNUSED_VALUE)
    with atomic_path(output) as temporary:
        torch.save({MODEL: state}, temporary)
    return Path(output)
