"""Official checkpoints, pre-trained or fine-tuned, to model folders; those of AV-HuBERT and VATLM here, the speech systems' in
speech_encoders.py. Neither fairseq nor omegaconf is needed.

What is unusual here:
- Every tensor and every option of a file is used, or known to be without effect, or named in an error; nothing is written then.
- A fine-tuned file lacks the prediction head (VATLM's also the units and the vector for hidden audio). Our encoder has them, for further
  pre-training; they are filled with zeros, and the model card says so.
- An encoder's configuration is in the fine-tuned file of AV-HuBERT (``w2v_args``). VATLM's have none: it is read off the shapes, or taken
  from the pre-trained file where one is named.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from avtlm import config, systems
from avtlm.convert import mmspeech, mt2kd, speech_encoders, speechlm, speecht5, text2unit
from avtlm.convert.container import MISSING, Container, group, read_container
from avtlm.convert.model import TITLES, ConversionError, Converted, Stored, build_empty, card, fill, write
from avtlm.convert.names.vatlm import FINE_TUNED, official_key, rename_key
from avtlm.convert.options import OptionError, Options
from avtlm.convert.options.avhubert import DECODER, WITHOUT_EFFECT, decoder, encoder, released_options
from avtlm.convert.vocabulary import check_rows, fairseq_vocabulary, units_file
from avtlm.data.inputs import CROP
from avtlm.frontends.lips import GREY_MEAN, GREY_STD
from avtlm.recognizer import DecodingConfig, Recognizer, RecognizerConfig
from avtlm.systems.avhubert import AVHubertConfig
from avtlm.text.vocabulary import SPECIALS, VocabularyError
from avtlm.training.initial import PHONES

# The official models by their names in fairseq: system here, and what they are fine-tuned with.
MODELS = {
    "av_hubert": ("avhubert", None),
    "av_hubert_seq2seq": ("avhubert", "attention"),
    "av_hubert_ctc": ("avhubert", "ctc"),
    "vat_hubert": ("vatlm", None),
    "vat_hubert_seq2seq": ("vatlm", "attention"),
}
# Parts of an encoder that only pre-training uses; fine-tuned files lack some of them.
HEAD = ("predictor.project.weight", "predictor.project.bias", "predictor.units", "frontends.audio_mask", "feature_mask")
NO_UNITS = len(SPECIALS)  # where a file does not tell: a dictionary's special symbols alone
# Options of fine-tuning that say where things were, repeat the task's, or mask nothing unless apply_mask is set.
_FINE_TUNING_WITHOUT_EFFECT = (
    *("w2v_path", "w2v_args", "no_pretrained_weights", "normalize", "data", "mask_length", "mask_prob", "mask_channel_length"),
    *("mask_channel_prob", "mask_channel_selection", "mask_channel_other", "no_mask_channel_overlap"),
)
# What the official decoding configuration (conf/s2s_decode.yaml) and generator search with.
ATTENTION = DecodingConfig("attention", beam=50, length_penalty=1.0, official_length_limit=True)


def convert(
    path: str | Path,
    system: str | None,
    output: str | Path,
    pretrained: str | Path | None = None,
    vocabulary: str | Path | None = None,
    averaged: bool = False,
) -> Path:
    """Turn an official checkpoint into a model folder.

    Args:
        path: a ``.pt`` file of fairseq's trainer, of WavLM, or of icefall (MT2KD).
        system: to make sure of it; None takes what the file says.
        output: the new folder; it is whole or not there at all.
        pretrained: the checkpoint that a fine-tuned one came from, where that one lacks its encoder's configuration.
        vocabulary: SentencePiece model or ``dict.txt`` of the transcripts, where a fine-tuned checkpoint holds none.
        averaged: of icefall's, take the running average of the weights.

    Raises:
        TorchFileError: the file is damaged, is no checkpoint of fairseq, or its pickle asks for foreign code.
        ConversionError: another system, unknown or missing tensors or options, a dictionary that does not fit.
        OSError: a file cannot be opened.
    """
    return write(converted(path, system, pretrained, vocabulary, averaged), output)


def converted(
    path: str | Path,
    system: str | None = None,
    pretrained: str | Path | None = None,
    vocabulary: str | Path | None = None,
    averaged: bool = False,
) -> Converted:
    """The same in memory; arguments and errors are those of `convert`."""
    if mt2kd.reads(path):
        if pretrained is not None:
            raise ConversionError(f"{path}: its weights say all about the model; --pretrained is for others.")
        return mt2kd.converted(path, system, vocabulary, averaged)
    if averaged:
        raise ConversionError(f"{path}: only checkpoints of icefall have a running average; leave --averaged out.")
    file = read_container(path)
    known = (
        *MODELS,
        *speech_encoders.MODELS,
        *speech_encoders.CTC,
        *speecht5.MODELS,
        *speechlm.MODELS,
        *text2unit.MODELS,
        *mmspeech.MODELS,
    )
    if file.name not in known and speechlm.system_of(file) not in known:
        raise ConversionError(f"{path} holds a model of the kind {file.name!r}; avtlm converts {', '.join(known)}.")
    if system is not None and system not in TITLES:
        raise ConversionError(f"system: {system!r} has no official checkpoints that avtlm converts; choose {', '.join(TITLES)}.")
    try:
        return _converted(file, system, pretrained, vocabulary)
    except (OptionError, VocabularyError) as error:
        raise ConversionError(f"{path}: {error}") from error


def _converted(file: Container, system: str | None, pretrained: str | Path | None, vocabulary: str | Path | None) -> Converted:
    if file.name in mmspeech.MODELS:
        if system not in (None, mmspeech.SYSTEM):
            raise ConversionError(
                f"{file.path} holds {TITLES[mmspeech.SYSTEM]} ({file.name}), not {TITLES[str(system)]}; convert it with --system "
                f"{mmspeech.SYSTEM}."
            )
        if pretrained is not None:
            raise OptionError("its file says all about the model; --pretrained is for others.")
        return mmspeech.converted(file, vocabulary)
    if file.name in text2unit.MODELS:
        if system not in (None, text2unit.SYSTEM):
            raise ConversionError(
                f"{file.path} holds {TITLES[text2unit.SYSTEM]} ({file.name}), not {TITLES[str(system)]}; convert it with --system "
                f"{text2unit.SYSTEM}."
            )
        if pretrained is not None:
            raise OptionError("its file says all about the model; --pretrained is for others.")
        return text2unit.converted(file, vocabulary)
    if speechlm.system_of(file) in speechlm.MODELS:
        bridge, _ = speechlm.MODELS[speechlm.system_of(file)]
        if system not in (None, bridge):
            raise ConversionError(
                f"{file.path} holds {TITLES[bridge]} ({speechlm.system_of(file)}), not {TITLES[str(system)]}; "
                f"convert it with --system {bridge}."
            )
        return speechlm.converted(file, pretrained, vocabulary)
    if file.name in speecht5.MODELS:
        found = speecht5.MODELS[file.name]
        if system not in (None, found):
            raise ConversionError(
                f"{file.path} holds {TITLES[found]} ({file.name}), not {TITLES[str(system)]}; convert it with --system {found}."
            )
        if pretrained is not None or (vocabulary is not None and found != "speecht5"):
            raise OptionError("its file says all about the model; --pretrained is for others, and --vocabulary for SpeechT5.")
        return speecht5.converted(file, vocabulary)
    ctc = file.name in speech_encoders.CTC
    heard, origin = speech_encoders.origin_of(file, pretrained) if ctc else (speech_encoders.MODELS.get(file.name), {})
    seen, head = MODELS.get(file.name, ("", None))
    found = heard or seen
    if system not in (None, found):
        raise ConversionError(
            f"{file.path} holds {TITLES[found]} ({file.name}), not {TITLES[system or found]}; convert it with --system {found}."
        )
    if head is None and not ctc and (pretrained is not None or vocabulary is not None):
        raise OptionError("this is a pre-trained model; --pretrained and --vocabulary are for fine-tuned ones.")
    if heard is not None:
        return speech_encoders.fine_tuned(file, heard, origin, vocabulary) if ctc else speech_encoders.pretrained(file, heard)
    return _pretrained(file, found) if head is None else _fine_tuned(file, found, head, pretrained, vocabulary)


# Configuration ------------------------------------------------------------------------------------------------------------------------


def _pretrained(file: Container, system: str) -> Converted:
    shapes = {key: tensor.shape for key, tensor in file.weights.items()}
    settings = _encoder_config(file, file.cfg, system, shapes)
    model = build_empty(lambda: systems.find(system).build(settings))
    _load(file, model, settings.masking == "input", fine_tuned=False, ctc=False)
    card = {"system": system, "task": "pretrain", "geometry": "avhubert", "model": config.to_dict(settings)}
    return Converted(model, card, None, None, _symbol_files(file), _card(file, system, model, []))


def _fine_tuned(file: Container, system: str, head: str, pretrained: str | Path | None, vocabulary: str | Path | None) -> Converted:
    prefix = FINE_TUNED[head == "ctc"]
    shapes = {key.removeprefix(prefix): tensor.shape for key, tensor in file.weights.items() if key.startswith(prefix)}
    options = Options(file.model, "cfg.model", _FINE_TUNING_WITHOUT_EFFECT)
    applied = bool(options.take("apply_mask", False))
    overrides = {
        "dropout": options.take("dropout", 0.0),
        "attention_dropout": options.take("attention_dropout", 0.0),
        "activation_dropout": options.take("activation_dropout", 0.0),
        "dropout_input": options.take("dropout_input", 0.0),
        "encoder_layerdrop": options.take("layerdrop", 0.0),
    }
    spans = {
        key: options.take(key, default) for key, default in (("mask_selection", "static"), ("mask_other", 0), ("no_mask_overlap", False))
    }
    gradients = options.take("feature_grad_mult", 0.0)
    cfg = _encoder_cfg(file, system, shapes, pretrained)
    cfg = {**cfg, "model": {**group(cfg, "model", file.path), **overrides, **(spans if applied else {})}}
    settings = _encoder_config(file, cfg, system, shapes)
    tokens = fairseq_vocabulary(file, vocabulary)
    criterion, hides = group(file.cfg, "criterion", file.path), applied and settings.masking == "input"
    heads = RecognizerConfig(
        encoder=config.to_dict(settings),
        ctc_weight=1.0 if head == "ctc" else 0.0,
        decoder=None if head == "ctc" else decoder(options),
        label_smoothing=0.0 if head == "ctc" else float(criterion.get("label_smoothing") or 0.0),
        dropout=options.take("final_dropout", 0.0),
        freeze_encoder_steps=options.take("freeze_finetune_updates", 0),
        modality_dropout=0.0,
        audio_mask=replace(settings.audio_mask, prob=settings.audio_mask.prob if hides else 0.0),
        video_mask=replace(settings.video_mask, prob=settings.video_mask.prob if hides else 0.0),
        decoding=DecodingConfig("ctc_greedy") if head == "ctc" else ATTENTION,
    )
    options.finish()
    rows = file.weights.get("w2v_encoder.proj.weight" if head == "ctc" else "decoder.embed_tokens.weight")
    if rows is not None:
        check_rows(tokens, rows.shape[0])
    model = build_empty(lambda: Recognizer(heads, systems.find(system).build(settings), tokens))
    filled = _load(file, model, settings.masking == "input", fine_tuned=True, ctc=head == "ctc")
    notes = [f"Filled with zeros, since fine-tuned files lack them and only pre-training uses them: {', '.join(filled)}."] if filled else []
    if gradients != 1.0:
        notes.append(f"It was fine-tuned with gradients into the front-ends times {gradients:g}; `avtlm train` takes them as they are.")
    seen = group(file.cfg, "task", file.path).get("modalities")
    if isinstance(seen, list) and seen:
        notes.append(f"It was fine-tuned on {' and '.join(sorted(map(str, seen)))}.")
    card = {"system": system, "task": "recognition", "geometry": "avhubert", "model": config.to_dict(heads)}
    return Converted(model, card, tokens, heads.decoding, _symbol_files(file), _card(file, system, model, notes))


def _encoder_cfg(file: Container, system: str, shapes: Mapping[str, tuple[int, ...]], pretrained: str | Path | None) -> dict[str, Any]:
    """The configuration that the encoder of a fine-tuned model was pre-trained with."""
    if pretrained is not None:
        origin = read_container(pretrained)
        if MODELS.get(origin.name) != (system, None):
            raise OptionError(f"{pretrained} holds {origin.name!r}, no pre-trained model of {TITLES[system]}.")
        return origin.cfg
    cfg = file.model.get("w2v_args")
    if isinstance(cfg, dict) and cfg:
        if not isinstance(cfg.get("model"), dict):
            raise OptionError("cfg.model.w2v_args has no group 'model', as the configuration of a pre-trained model has.")
        return cfg
    if cfg not in (None, MISSING, {}):
        raise OptionError(f"cfg.model.w2v_args is {cfg!r:.60}, no configuration.")
    return {"model": released_options(shapes)}


def _encoder_config(file: Container, cfg: Mapping[str, Any], system: str, shapes: Mapping[str, tuple[int, ...]]) -> AVHubertConfig:
    """Our configuration of the encoder, from a configuration of pre-training; sizes of tables from their tensors."""
    task, criterion = group(cfg, "task", file.path), group(cfg, "criterion", file.path)
    for key, ours in (("image_crop_size", CROP), ("image_mean", GREY_MEAN), ("image_std", GREY_STD)):
        if task.get(key, ours) != ours:
            raise OptionError(f"cfg.task: {key} is {task[key]}; avtlm cuts and normalises lip crops with {ours}.")
    sizes = tuple(len(symbols) for symbols in file.units)
    units = shapes["label_embs_concat"][0] if "label_embs_concat" in shapes else sum(sizes) or NO_UNITS
    if sizes and sum(sizes) != units:
        raise OptionError(
            f"the dictionary of the units has {' + '.join(map(str, sizes))} symbols, but the head predicts {units}; "
            "they do not belong together."
        )
    phones = 0
    if system == "vatlm":
        phones = shapes["phone_embed.weight"][0] if "phone_embed.weight" in shapes else 46
        if file.phones is not None and len(file.phones) > phones:
            raise OptionError(f"the dictionary of the phones has {len(file.phones)} symbols, but the model knows {phones}.")
    values = {key: value for key, value in group(cfg, "model", file.path).items() if key not in DECODER}
    values |= {key: task[key] for key in ("sample_rate", "normalize", "stack_order_audio") if key in task}
    for key in ("pred_masked_weight", "pred_nomask_weight", "loss_weights", "banlance_loss_weights"):
        if criterion.get(key) is not None and (key != "banlance_loss_weights" or system == "vatlm"):
            values[key] = criterion[key]
    options = Options(values, "cfg.model", WITHOUT_EFFECT)
    settings = encoder(options, system == "vatlm", sizes or units, phones)
    options.finish()
    return settings


# Weights ------------------------------------------------------------------------------------------------------------------------------


def _load(file: Container, model: nn.Module, mask_audio: bool, fine_tuned: bool, ctc: bool) -> list[str]:
    """Give a model without values those of a checkpoint, strictly; returns the names of what had to be filled with zeros.

    Raises:
        ConversionError: tensors that are unknown, missing or of another shape, all in one message, by their official names.
    """
    stored: dict[str, Stored] = {}
    unknown = []
    for key, tensor in file.weights.items():
        try:
            name = rename_key(key, mask_audio)
        except ValueError:
            unknown.append(key)
            continue
        if name is not None:
            stored[name] = tensor
    prefix = "encoder." if fine_tuned else ""
    spare = {prefix + name for name in HEAD} if fine_tuned else set()

    def theirs(name: str) -> str:
        return official_key(name, fine_tuned, ctc)

    return fill(model, stored, theirs, f"{file.path} does not hold the tensors of {file.name}", unknown, spare)


# Text files ---------------------------------------------------------------------------------------------------------------------------


def _symbol_files(file: Container) -> dict[str, str]:
    tables = {units_file(number): symbols for number, symbols in enumerate(file.units)} | {PHONES: file.phones}
    return {name: "".join(f"{symbol}\n" for symbol in symbols) for name, symbols in tables.items() if symbols}


def _card(file: Container, system: str, model: nn.Module, notes: list[str]) -> str:
    ignored = [key for key in file.weights if rename_key(key) is None]
    if ignored:
        notes = [*notes, f"Left out, since the official code never uses them: {', '.join(ignored)}."]
    use = (
        "avtlm transcribe VIDEO --model FOLDER" if isinstance(model, Recognizer) else "avtlm units MANIFEST FOLDER --model FOLDER --layer 9"
    )
    commands = ["avtlm info FOLDER", use, "avtlm convert FOLDER --to fairseq --out FILE.pt"]
    return card(f"{TITLES[system]} ({file.name})", model, f"the official checkpoint `{file.path.name}`", commands, notes)
