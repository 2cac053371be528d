"""Official files of wav2vec 2.0, HuBERT, WavLM, data2vec and MT4SSL, pre-trained or fine-tuned with CTC, to models in our terms.

What is unusual here:
- A file that holds an encoder alone (WavLM's all do) becomes a model without heads (``heads: false`` in config.yaml).
- data2vec's and MT4SSL's teacher begins as a copy of the student, there and here; a file without one gets that copy.
- Fine-tuned HuBERT keeps the vectors of its units, which nothing uses any more; they are left out, and the model card says so.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from torch import nn

from avtlm import config, systems
from avtlm.convert.container import WAVLM, Container, group, grouped, read_container
from avtlm.convert.model import TITLES, Converted, Reshaped, Stored, build_empty, card, fill
from avtlm.convert.names.wav2vec2 import FAIRSEQ_CTC, GATE, FairseqLayout, System, fairseq_key, fairseq_name, has_batch_norm, is_whole
from avtlm.convert.options import OptionError, Options
from avtlm.convert.options.wav2vec2 import WITHOUT_EFFECT, fairseq, spans
from avtlm.convert.vocabulary import check_rows, fairseq_vocabulary, units_file
from avtlm.frontends.filterbank import SAMPLE_RATE
from avtlm.protocols import DropsHeads
from avtlm.recognizer import DecodingConfig, Recognizer, RecognizerConfig
from avtlm.systems.data2vec import Data2VecConfig
from avtlm.systems.speech_encoder import SpeechEncoderConfig
from avtlm.systems.wav2vec2 import Wav2Vec2Config

# Our systems by their names in fairseq's registry; and the models with a head for CTC, whose encoder may be any of them.
MODELS: dict[str, System] = {
    "wav2vec2": "wav2vec2",
    "hubert": "hubert",
    WAVLM: "wavlm",
    "data2vec_audio": "data2vec",
    "multi2vec": "mt4ssl",
}
CTC = ("wav2vec_ctc", "hubert_ctc")
# The parts of an encoder that are no heads.
ENCODER = ("frontend", "feature_mask", "encoder", "adapter", "input_quantizer", "project_input")
GREEDY = DecodingConfig("ctc_greedy")
NO_HEADS = (
    "It has no heads: what its frames were learned by is not in the file. To train it further on units or a teacher, name those parts of "
    "the model in `fresh`."
)
# Options of fine-tuning that say where things were, how they were optimised, or belong to models that are not opened here.
_FINE_TUNING_WITHOUT_EFFECT = WITHOUT_EFFECT | {
    *("w2v_path", "w2v_args", "no_pretrained_weights", "normalize", "data", "drop_path", "update_alibi", "offload_activations"),
    *("ddp_backend", "zero_mask", "load_ema", "layer_decay", "freeze_regex", "blank_mode", "encoder_embed_dim", "require_same_masks"),
}


def origin_of(file: Container, pretrained_file: str | Path | None = None) -> tuple[System, dict[str, Any]]:
    """Which system a fine-tuned file holds, and the configuration that it was pre-trained with.

    Args:
        pretrained_file: the checkpoint that it came from, in place of what it says itself.

    Raises:
        OptionError: neither says what was fine-tuned.
    """
    if pretrained_file is not None:
        origin = read_container(pretrained_file)
        if origin.name not in MODELS:
            raise OptionError(f"{pretrained_file} holds {origin.name!r}, no pre-trained model of {', '.join(MODELS)}.")
        return MODELS[origin.name], origin.cfg
    arguments = file.model.get("w2v_args")
    if not isinstance(arguments, dict) or not arguments:
        raise OptionError(
            "cfg.model.w2v_args has no configuration of the encoder; name the file that it was fine-tuned from (--pretrained)."
        )
    cfg = arguments if isinstance(arguments.get("model"), dict) else grouped(arguments)
    name = str(cfg["model"].get("_name"))
    if name not in MODELS:
        raise OptionError(f"it was fine-tuned from a model of the kind {name!r}; avtlm converts {', '.join(MODELS)}.")
    return MODELS[name], cfg


def pretrained(file: Container, system: System) -> Converted:
    """A pre-trained model.

    Raises:
        ConversionError, OptionError: tensors or options that are unknown, missing or cannot be honoured.
    """
    shapes = {key: tensor.shape for key, tensor in file.weights.items()}
    settings, notes = encoder_config(file, file.cfg, system, shapes)
    build = systems.find(system).build
    model = build_empty(lambda: build(settings))
    stored, unknown = _ours(file, system)
    form: dict[str, Any] = {"system": system, "task": "pretrain"}
    if drop_missing_heads(model, stored):
        form["heads"] = False
        notes.append(NO_HEADS)
    elif copy_teacher(model, stored):
        notes.append("Its teacher is a copy of the student, since there was none in the file.")
    form["model"] = config.to_dict(settings)
    fill(model, stored, official_name(settings, system), f"{file.path} does not hold the tensors of {file.name}", unknown)
    commands = ["avtlm info FOLDER", "avtlm units MANIFEST OUT --model FOLDER --layer 9", "avtlm convert FOLDER --to huggingface --out DIR"]
    text = card(f"{TITLES[system]} ({file.name})", model, f"the official checkpoint `{file.path.name}`", commands, notes)
    symbols = [] if "heads" in form else file.units
    files = {units_file(number): "".join(f"{symbol}\n" for symbol in each) for number, each in enumerate(symbols)}
    return Converted(model, form, None, None, files, text)


def fine_tuned(file: Container, system: System, origin: Mapping[str, Any], vocabulary: str | Path | None) -> Converted:
    """A model fine-tuned with CTC.

    Args:
        system, origin: see `origin_of`.
        vocabulary: SentencePiece model or ``dict.txt`` of the transcripts, in place of what it holds.

    Raises:
        ConversionError, OptionError, VocabularyError: see `pretrained`; the vocabulary is missing or does not fit the head.
    """
    options = Options(file.model, "cfg.model", _FINE_TUNING_WITHOUT_EFFECT)
    options.require("layer_type", "transformer")
    options.require("blank_weight", 0, 0.0)
    applied = bool(options.take("apply_mask", False))
    overrides = {
        key: options.take(key, 0.0) for key in ("dropout", "attention_dropout", "activation_dropout", "dropout_input", "feature_grad_mult")
    }
    overrides["encoder_layerdrop"] = options.take("layerdrop", 0.0)
    least = 1 if system in ("data2vec", "mt4ssl") else 2
    frames, channels = spans(options, "mask", 0.5, least), spans(options, "mask_channel", 0.0, 0)
    if not applied:
        frames, channels = replace(frames, prob=0.0), replace(channels, prob=0.0)
    cfg = {
        **origin,
        "model": {**group(origin, "model", file.path), **overrides, "mask_channel_before": options.take("mask_channel_before", False)},
    }
    shapes = {key.removeprefix(FAIRSEQ_CTC): tensor.shape for key, tensor in file.weights.items() if key.startswith(FAIRSEQ_CTC)}
    settings, notes = encoder_config(file, cfg, system, shapes)
    tokens = fairseq_vocabulary(file, vocabulary)
    heads = RecognizerConfig(
        encoder=config.to_dict(settings),
        label_smoothing=0.0,
        dropout=options.take("final_dropout", 0.0),
        freeze_encoder_steps=options.take("freeze_finetune_updates", 0),
        modality_dropout=0.0,
        audio_mask=frames,
        channel_mask=channels,
        decoding=GREEDY,
    )
    if file.mixed:
        notes += _unused(options)
    else:
        options.finish()
    if "w2v_encoder.proj.weight" in file.weights:
        check_rows(tokens, file.weights["w2v_encoder.proj.weight"].shape[0])
    build = systems.find(system).build
    model = build_empty(lambda: Recognizer(heads, build(settings), tokens))
    stored, unknown = _ours(file, system)
    dropped = {f"encoder.{name}" for name in build_empty(lambda: build(settings)).state_dict()} - set(model.state_dict())
    left = [name for name in stored if name in dropped]
    for name in left:
        del stored[name]
    name_of = official_name(settings, system, fine_tuned=True)
    fill(model, stored, name_of, f"{file.path} does not hold the tensors of {file.name}", unknown)
    if left:
        notes.append(f"Left out, since only pre-training uses it: {', '.join(map(name_of, left))}.")
    form = {"system": system, "task": "recognition", "model": config.to_dict(heads)}
    commands = ["avtlm info FOLDER", "avtlm transcribe AUDIO --model FOLDER", "avtlm convert FOLDER --to huggingface --out DIR"]
    text = card(f"{TITLES[system]} ({file.name})", model, f"the official checkpoint `{file.path.name}`", commands, notes)
    return Converted(model, form, tokens, GREEDY, {}, text)


# Configuration ------------------------------------------------------------------------------------------------------------------------


def encoder_config(
    file: Container, cfg: Mapping[str, Any], system: System, shapes: Mapping[str, tuple[int, ...]]
) -> tuple[SpeechEncoderConfig, list[str]]:
    """Our configuration of the encoder from one of pre-training, and notes about it; sizes of tables from their tensors.

    Raises:
        OptionError: an option that cannot be honoured, or is unknown where all of them should be the model's.
    """
    task, criterion = group(cfg, "task", file.path), group(cfg, "criterion", file.path)
    if task.get("sample_rate") not in (None, SAMPLE_RATE):
        raise OptionError(f"cfg.task: sample_rate is {task['sample_rate']}; avtlm's models hear {SAMPLE_RATE} samples per second.")
    values = dict(group(cfg, "model", file.path))
    learns = {"wav2vec2": ("loss_weights",), "mt4ssl": ("loss_weights",), "data2vec": ()}
    for key in learns.get(system, ("loss_weights", "pred_masked_weight", "pred_nomask_weight")):
        values.pop(key, None)
        if criterion.get(key) is not None:
            values[key] = criterion[key]
    if system in ("hubert", "wavlm"):
        rate = values.pop("label_rate", None)
        rates = [each for each in (rate, task.get("label_rate")) if isinstance(each, int | float) and each > 0]
        values |= {"label_rate": rates[0]} if rates else {}
    options = Options(values, "cfg.model", WITHOUT_EFFECT)
    with options.blamed():
        settings = fairseq(options, system, _units(file, system, shapes), normalise=bool(task.get("normalize", False)))
    if file.mixed:
        return settings, _unused(options)
    options.finish()
    return settings, []


def _units(file: Container, system: System, shapes: Mapping[str, tuple[int, ...]]) -> tuple[int, ...]:
    """Sizes of the inventories of units; those of the defaults where a file tells nothing, since it has no head for them then."""
    key = {"hubert": "label_embs_concat", "wavlm": "label_embs_concat", "mt4ssl": "final_proj_hubert.weight"}.get(system)
    if key is None:
        return ()
    sizes = tuple(len(symbols) for symbols in file.units)
    rows = shapes[key][0] if key in shapes else sum(sizes)
    if sizes and sum(sizes) != rows:
        raise OptionError(
            f"the dictionary of the units has {sum(sizes)} symbols, but the head predicts {rows}; they do not belong together."
        )
    return sizes or ((rows,) if rows else (504,))


def _unused(options: Options) -> list[str]:
    left = options.left()
    return [f"Options of its file that say nothing about the model as avtlm knows it: {', '.join(left)}."] if left else []


# Tensors ------------------------------------------------------------------------------------------------------------------------------


def _ours(file: Container, system: System) -> tuple[dict[str, Stored], list[str]]:
    """Tensors by our names, and the keys that have none."""
    stored: dict[str, Stored] = {}
    unknown = []
    whole, batch_norm = is_whole(file.weights), has_batch_norm(file.weights)
    for key, tensor in file.weights.items():
        try:
            name = fairseq_name(key, system, whole, batch_norm)
        except ValueError:
            unknown.append(key)
            continue
        stored[name] = flat_gate(name, tensor)
    return stored, unknown


def flat_gate(name: str, tensor: Stored) -> Stored:
    """The factors of WavLM's gates have empty dimensions there."""
    return Reshaped(tensor, (max(tensor.shape, default=1),)) if GATE.fullmatch(name) and len(tensor.shape) == 4 else tensor


def encoder_part(name: str) -> bool:
    """Whether a tensor of a system belongs to its encoder and not to a head."""
    return name.split(".")[0] in ENCODER


def drop_missing_heads(model: nn.Module, stored: Mapping[str, Stored]) -> bool:
    """Remove the heads of a model if there is nothing of them in the file; says whether it did."""
    heads = [name for name in model.state_dict() if not encoder_part(name)]
    if not heads or any(name in stored for name in heads):
        return False
    cast(DropsHeads, model).drop_heads()
    return True


def copy_teacher(model: nn.Module, stored: dict[str, Stored]) -> bool:
    """Let a teacher that is not in the file be the student; says whether it was so."""
    names = [name for name in model.state_dict() if name.startswith("teacher.")]
    if not names or any(name.startswith("teacher.") for name in stored):
        return False
    stored |= {name: stored[student] for name in names if (student := name.removeprefix("teacher.")) in stored}
    return True


def official_key(settings: SpeechEncoderConfig, system: System, fine_tuned: bool = False) -> Callable[[str], str]:
    """What tensors are called in fairseq; the function raises ValueError for those that there are only here."""
    quantizer = (settings.quantizer or settings.input_quantizer) if isinstance(settings, Wav2Vec2Config) else None
    depth = quantizer.depth if quantizer else 1
    whole = isinstance(settings, Data2VecConfig) and settings.teacher.whole
    layout = FairseqLayout(settings.waveform.norm == "group", settings.encoder.position_norm == "batch", depth, whole)
    return lambda name: fairseq_key(name, system, layout, fine_tuned)


def official_name(settings: SpeechEncoderConfig, system: System, fine_tuned: bool = False) -> Callable[[str], str]:
    """The same for messages: what there is only here keeps our name."""
    key_of = official_key(settings, system, fine_tuned)

    def name_of(name: str) -> str:
        try:
            return key_of(name)
        except ValueError:
            return name

    return name_of
