"""Official files of SpeechT5 and of pre-trained Speech2C to models in our terms, and SpeechT5's back.

What is unusual here:
- A model of SpeechT5 keeps all its nets, whatever it was fine-tuned for: its folder holds the whole model.
- Padding changes what the official code puts out, and its weights were trained so. A converted model does the same, by settings with names
  (``waveform.compute_padding``, ``compute_padding``, ``spectrogram.compute_padding``) that may be set to false; clips alone come out alike.
- Tensors that nothing uses are left out, and written again with the values that they begin with.
- A file has no vocabulary; dict.txt or a SentencePiece model of characters is named beside it. ``<mask>`` and CTC's blank follow its
  symbols.
"""

import argparse
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from avtlm import config, systems
from avtlm.convert.container import Container, group
from avtlm.convert.model import TITLES, Converted, Stored, build_empty, card, fill
from avtlm.convert.names.inverse import find_key
from avtlm.convert.names.speecht5 import (
    EMBEDDING,
    EMBEDDINGS,
    POST_NORM_UNUSED,
    READ_EMBEDDING,
    UNUSED,
    fairseq_rules,
    speech2c_rules,
    speech2c_unused,
)
from avtlm.convert.names.transformer import Rules, find_name
from avtlm.convert.official_file import container, flat
from avtlm.convert.options import OptionError, Options
from avtlm.convert.options.speech2c import speech2c
from avtlm.convert.options.speecht5 import ARCHITECTURES, NUMBERED, fairseq
from avtlm.convert.options.speecht5_official import official_options
from avtlm.convert.options.wav2vec2 import WITHOUT_EFFECT
from avtlm.convert.vocabulary import units_file
from avtlm.decoding.settings import DecodingConfig
from avtlm.decoding.synthesis import LONGEST_OF_SPEECH, LONGEST_OF_TEXT, SynthesisOptions
from avtlm.frontends.filterbank import SAMPLE_RATE
from avtlm.systems.speech2c import Speech2CConfig
from avtlm.systems.speecht5 import SpeechT5Config
from avtlm.text.vocabulary import SPACE, Tokenizer, Vocabulary
from avtlm.whole_model import official_decoding

SPEECH2C = "speech2c"
MODELS = {**dict.fromkeys(ARCHITECTURES, "speecht5"), SPEECH2C: "speech2c"}
# What a model folder calls the task of a model that is no recogniser on an encoder.
TASKS = {"pretrain": "pretrain", "recognition": "transcription", "generation": "generation", "speaker": "speaker"}
NO_VOCABULARY = (
    "Its file held no vocabulary; convert it again with --vocabulary dict.txt, or the SentencePiece model, to read and write text."
)
PADDING = (
    "As in the official code, padding changes what comes out: clips alone and in a batch differ a little. Set waveform.compute_padding, "
    "compute_padding and spectrogram.compute_padding to false in config.yaml to make every clip independent of its batch."
)


def converted(file: Container, vocabulary: str | Path | None = None) -> Converted:
    """The model of an official file.

    Args:
        vocabulary: dict.txt or SentencePiece model, for SpeechT5.

    Raises:
        ConversionError, OptionError, VocabularyError: tensors or options that are unknown, missing or cannot be honoured; a vocabulary that
            does not fit.
    """
    return _speech2c(file) if file.name == SPEECH2C else _speecht5(file, vocabulary)


def _speecht5(file: Container, vocabulary: str | Path | None) -> Converted:
    shapes = {key: tensor.shape for key, tensor in file.weights.items()}
    whole = file.model.get("modules_filter") in (None, "none")
    if EMBEDDINGS[-1] not in shapes and whole:
        raise OptionError(f"it has no {EMBEDDINGS[-1]}, which every whole file of SpeechT5 holds.")
    rows = next((shapes[key][0] for key in reversed(EMBEDDINGS) if key in shapes), SpeechT5Config.vocabulary)
    settings = official_settings(file, shapes, rows)
    build = systems.find("speecht5").build
    model = build_empty(lambda: build(settings))
    stored, unknown = ours(file.weights, settings)
    rules = rules_of(settings)
    fill(model, stored, lambda name: official_name(rules, name), f"{file.path} does not hold the tensors of {file.name}", unknown)
    tokens = None if vocabulary is None else text_vocabulary(vocabulary, rows)
    notes = [PADDING] if tokens is not None else [PADDING, NO_VOCABULARY]
    form = {"system": "speecht5", "task": TASKS[settings.task], "model": config.to_dict(settings)}
    commands = [*uses(settings, tokens), "avtlm info FOLDER", "avtlm convert FOLDER --to fairseq --out model.pt"]
    text = card(f"{TITLES['speecht5']} ({file.name})", model, f"the official checkpoint `{file.path.name}`", commands, notes)
    return Converted(model, form, tokens, decoding_of(settings, file.model.get("t5_task")), {}, text)


def rules_of(settings: SpeechT5Config) -> Rules:
    """The table of official names for a model."""
    depth = 1 if settings.codebook is None else settings.codebook.depth
    return fairseq_rules(settings.waveform.norm, depth, settings.shared_embedding)


def official_settings(file: Container, shapes: Mapping[str, tuple[int, ...]], vocabulary: int) -> SpeechT5Config:
    """Our configuration, from the options of a file and the sizes of its tables.

    Raises:
        OptionError: an option that cannot be honoured.
    """
    values = {**group(file.cfg, "criterion", file.path), **group(file.cfg, "task", file.path), **file.model}
    if values.get("sample_rate") not in (None, SAMPLE_RATE):
        raise OptionError(f"cfg.task: sample_rate is {values['sample_rate']}; avtlm's models hear {SAMPLE_RATE} samples per second.")
    options = Options(values, "cfg.model")
    with options.blamed():
        units = shapes["hubert_layer.label_embs_concat"][0] if "hubert_layer.label_embs_concat" in shapes else 0
        speakers = "speaker_decoder_postnet.output_projection.weight"
        settings = fairseq(options, vocabulary, units, shapes[speakers][0] if speakers in shapes else 0)
    return settings if "quantizer.vars" in shapes else replace(settings, codebook=None)


def ours(weights: Mapping[str, Stored], settings: SpeechT5Config) -> tuple[dict[str, Stored], list[str]]:
    """Tensors by our names, and the keys that have none."""
    rules = rules_of(settings)
    stored: dict[str, Stored] = {}
    unknown = []
    for key, tensor in weights.items():
        dead = UNUSED.fullmatch(key) or (not settings.encoder.norm_first and POST_NORM_UNUSED.fullmatch(key))
        tied = settings.ctc_head == "tied" and key.startswith("encoder.proj.")
        distances = not settings.encoder.key_distance and key.startswith("encoder.pos_emb.")
        if dead or tied or distances:
            continue
        try:
            stored[find_name(rules, key, "SpeechT5")] = tensor
        except ValueError:
            unknown.append(key)
    return stored, unknown


def official_name(rules: Rules, name: str) -> str:
    """The official name of one of our tensors; what there is only here keeps our name."""
    try:
        return find_key(rules, name)
    except ValueError:
        return name


def uses(settings: SpeechT5Config, vocabulary: Tokenizer | None) -> list[str]:
    """What can be done with a converted model, as commands."""
    if settings.task == "recognition" and vocabulary is not None:
        return ["avtlm transcribe FILE --model FOLDER"]
    if settings.task != "generation":
        return []
    rest = f"--model FOLDER{' --voice FILE' if settings.spectrogram.voice_dim else ''} -o FILE"
    says = [f"avtlm synthesize TEXT {rest}"] if "text" in settings.inputs and vocabulary is not None else []
    return [*says, f"avtlm convert-voice SOUND {rest}"] if "speech" in settings.inputs else says


def decoding_of(settings: SpeechT5Config, task: Any = None) -> DecodingConfig | SynthesisOptions | None:
    """How a model of the official code searches for its texts, or ends its speech."""
    if settings.task == "recognition":
        return official_decoding()
    if settings.task != "generation":
        return None
    return SynthesisOptions(stop="any", longest=LONGEST_OF_SPEECH if task == "s2s" else LONGEST_OF_TEXT)


def text_vocabulary(given: str | Path, rows: int) -> Tokenizer:
    """Symbols of text: of a dict.txt with ``<mask>`` and CTC's blank behind them, or those of a SentencePiece model.

    Raises:
        VocabularyError: it cannot be read.
        OptionError: it does not fit the embedding.
    """
    if Path(given).suffix == ".model":
        from avtlm.text.subwords import Subwords  # sentencepiece is needed for this kind only

        pieces = Subwords.load_model(given)
        further = len(SpeechT5Config.further_symbols)
        if len(pieces) not in (rows, rows - further, rows - further - NUMBERED):
            raise OptionError(f"{given} has {len(pieces)} pieces, but the model {rows} symbols, the last two of them <mask> and a blank.")
        return pieces
    from avtlm.text.subwords import WORD_START

    symbols = [SPACE if symbol == WORD_START else symbol for symbol in Vocabulary.load_dict(given).symbols]
    symbols += [symbol for symbol in SpeechT5Config.further_symbols if len(symbols) < rows]
    symbols += [f"<mask{number}>" for number in range(NUMBERED)] if rows - len(symbols) == NUMBERED else []
    if len(symbols) != rows:
        raise OptionError(
            f"{given} has {len(symbols)} symbols with <mask> and the blank, but the model {rows}; they do not belong together."
        )
    return Vocabulary(symbols)


def _speech2c(file: Container) -> Converted:
    task, criterion = group(file.cfg, "task", file.path), group(file.cfg, "criterion", file.path)
    values = dict(file.model)
    rate = next((each for each in (values.get("label_rate"), task.get("label_rate")) if isinstance(each, int | float) and each > 0), 50)
    values["label_rate"] = rate
    for key in ("pred_masked_weight", "pred_nomask_weight", "loss_weights", "dec_weight"):
        if criterion.get(key) is not None:
            values[key] = criterion[key]
    options = Options(values, "cfg.model", WITHOUT_EFFECT | {"latent_temp", "dropout_features", "crop_seq_to_multiple"})
    units = [file.weights["label_embs_concat"].shape[0]] if "label_embs_concat" in file.weights else [len(file.units[0])]
    with options.blamed():
        settings: Speech2CConfig = speech2c(options, units, file.weights["decoder.embed_tokens.weight"].shape[0], official=True)
    options.finish()
    build = systems.find("speech2c").build
    model = build_empty(lambda: build(settings))
    rules = speech2c_rules(settings.waveform.norm, settings.decoder.tie_embeddings)
    unused = speech2c_unused(settings.encoder.norm_first, settings.decoder.norm_first)
    stored: dict[str, Stored] = {}
    unknown = []
    for key, tensor in file.weights.items():
        if unused.fullmatch(key):
            continue
        try:
            stored[find_name(rules, key, "Speech2C")] = tensor
        except ValueError:
            unknown.append(key)
    fill(model, stored, lambda name: official_name(rules, name), f"{file.path} does not hold the tensors of {file.name}", unknown)
    form = {"system": "speech2c", "task": "pretrain", "model": config.to_dict(settings)}
    files = {units_file(number): "".join(f"{symbol}\n" for symbol in each) for number, each in enumerate(file.units)}
    commands = ["avtlm info FOLDER", "avtlm units MANIFEST OUT --model FOLDER --layer 9"]
    text = card(f"{TITLES['speech2c']} ({file.name})", model, f"the official checkpoint `{file.path.name}`", commands, [PADDING])
    return Converted(model, form, None, None, files, text)


# Back ---------------------------------------------------------------------------------------------------------------------------------


def official_checkpoint(settings: SpeechT5Config, weights: Mapping[str, Tensor]) -> dict[str, Any]:
    """What SpeechT5's trainer would have saved for a model.

    Raises:
        OptionError: a part or a setting that the official model has not got.
    """
    if set(settings.inputs) != {"speech", "text"} or set(settings.outputs) != {"speech", "text"}:
        raise OptionError("official models have all their nets, and this one reads or writes one kind alone (a Hugging Face folder).")
    values = official_options(settings)
    inventories = (settings.units, *settings.further_units)
    understood = fairseq(Options(values, "cfg.model"), settings.vocabulary, inventories, settings.speakers)
    before, after = flat(asdict(settings)), flat(asdict(understood))
    # How padding is treated, and what a batch is computed with, is no option there.
    free = ["compute_padding", "frame_padding", "packing", "same_mask_count", "max_positions", "position_groups"]
    free += ["project_always"] if settings.waveform.widths[-1] != settings.encoder.dim else []
    other = [key for key, value in before.items() if after.get(key) != value and key.split(".")[-1] not in free]
    if other:
        raise OptionError(f"the official code has no counterpart of {', '.join(other)}.")
    state = official_state(settings, weights)
    cfg = {"_name": None, "common": {"seed": 1}, "model": argparse.Namespace(**values), "task": argparse.Namespace(**values)}
    return container({**cfg, "criterion": {"_name": "speecht5"}, "bpe": None, "tokenizer": None}, state, {})


def official_state(settings: SpeechT5Config, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights by official names, those that nothing uses among them."""
    rules = rules_of(settings)
    state = {official_name(rules, name): tensor for name, tensor in weights.items()}
    if settings.shared_embedding:
        state |= dict.fromkeys(EMBEDDINGS, weights[EMBEDDING])
    if settings.ctc_head == "tied":
        state["encoder.proj.weight"] = weights[EMBEDDING if settings.shared_embedding else READ_EMBEDDING]
    width = settings.decoder.dim // settings.decoder.heads
    state |= {f"{part}.version": torch.full((1,), 3.0) for part in ("encoder", "decoder")}
    if settings.encoder.key_distance:
        state["decoder.pos_emb.pe_k.weight"] = torch.zeros(2 * settings.encoder.key_distance, width)
        layers = [("decoder", index) for index in range(settings.decoder.layers)]
        if not settings.encoder.norm_first:
            layers += [("encoder", index) for index in range(settings.encoder.layers)]
        for part, index in layers:
            state |= {f"{part}.layers.{index}.norm_k.weight": torch.ones(width), f"{part}.layers.{index}.norm_k.bias": torch.zeros(width)}
    return state
