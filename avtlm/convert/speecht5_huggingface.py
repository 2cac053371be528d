"""Hugging Face folders of SpeechT5 (recognition, synthesis, voice conversion) and of its vocoder to model folders, and back. Nothing of
transformers is needed.

What is unusual here:
- A class there keeps the nets of its task alone: no CTC head, no heads of pre-training. A folder becomes a model with those nets; a whole
  model leaves the others behind, and the card says so.
- There, speech ends when the probabilities of a step add up to the threshold, and so it does in a converted model (decoding.yaml: ``stop:
  sum``).
- Padding changes what the class puts out, and so it does in a converted model, see speecht5.py.
"""

import json
import logging
import re
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from avtlm import checkpoint, config, systems
from avtlm.convert.model import TITLES, Converted, Stored, build_empty, card, fill
from avtlm.convert.names.inverse import find_key
from avtlm.convert.names.speecht5 import VOCODER_RULES, hugging_face_rules
from avtlm.convert.names.transformer import Rules, find_name
from avtlm.convert.official_file import flat
from avtlm.convert.options import OptionError, Options
from avtlm.convert.options.huggingface import WITHOUT_EFFECT
from avtlm.convert.options.speecht5 import CLASSES, Kind, hugging_face, vocoder
from avtlm.convert.options.speecht5_official import hugging_face_config, vocoder_config
from avtlm.convert.speecht5 import PADDING, TASKS, official_name, text_vocabulary, uses
from avtlm.convert.tensor_files import SAFETENSORS
from avtlm.convert.vocabulary import ADDED, TOKENIZER, read_json
from avtlm.decoding.settings import DecodingConfig
from avtlm.decoding.synthesis import LONGEST_OF_SPEECH, LONGEST_OF_TEXT, SynthesisOptions
from avtlm.frontends.filterbank import SAMPLE_RATE
from avtlm.nn.vocoder import VocoderConfig
from avtlm.systems.speecht5 import SpeechT5, SpeechT5Config
from avtlm.text.vocabulary import BOS, EOS, FILE, PAD, Tokenizer, load_vocabulary
from avtlm.whole_model import official_decoding

logger = logging.getLogger(__name__)

CONFIG, PREPROCESSOR, PIECES = "config.json", "preprocessor_config.json", "spm_char.model"
GENERATION = "generation_config.json"
TYPE, VOCODER_TYPES, VOCODER = "speecht5", ("speecht5_hifigan", "hifigan"), "SpeechT5HifiGan"
# Options of a configuration that say nothing about the network as it is used.
SPARE = (WITHOUT_EFFECT - hugging_face_config(SpeechT5Config()).keys()) | {
    *("max_speech_positions", "initializer_range", "use_cache", "is_encoder_decoder", "decoder_start_token_id", "tie_word_embeddings"),
    *("num_feat_extract_layers", "pad_token_id", "bos_token_id", "eos_token_id", "max_length", "model_type", "architectures"),
}
# Tables of sinusoids, which older folders hold; they follow from their sizes.
SINUSOIDS = re.compile(r".+\.(?:pos_sinusoidal_embed|embed_positions)\.weights|.+\.encode_positions\.pe")
NO_CTC = "Its class has no CTC head, and none of what only pre-training uses."
# Settings that only say how a model is trained or computed; the class that is written has no words for them.
FREE = (
    *(
        "compute_padding",
        "frame_padding",
        "packing",
        "normalise",
        "same_mask_count",
        "max_positions",
        "feature_gradient_scale",
        "project_always",
    ),
    *("dropout", "infilling.", "losses.", "mask.", "codebook", "mixing", "units", "final_dim", "temperature", "label_rate", "ctc_head"),
    *("further_units", "separate_projections", "memory_layer", "speaker_head."),
    *("speakers", "pooling", "freeze_encoder_steps", "inputs", "outputs", "task"),
)


def reads(values: Mapping[str, Any]) -> bool:
    """Whether a config.json is of SpeechT5 or its vocoder."""
    return values.get("model_type") in (TYPE, *VOCODER_TYPES)


def converted(folder: Path, values: dict[str, Any], system: str | None, weights: Mapping[str, Stored]) -> Converted:
    """The model of a folder.

    Raises:
        ConversionError, OptionError, VocabularyError: another class, unknown or missing tensors or options, a vocabulary that does not fit.
    """
    vocoding = values["model_type"] in VOCODER_TYPES
    found = "hifigan" if vocoding else "speecht5"
    if system not in (None, found):
        raise OptionError(f"it holds {TITLES[found]}, not {TITLES.get(str(system), system)}; convert it with --system {found}.")
    options = Options(values, CONFIG, SPARE)
    return _vocoder(folder, options, weights) if vocoding else _model(folder, values, options, weights)


def _model(folder: Path, values: Mapping[str, Any], options: Options, weights: Mapping[str, Stored]) -> Converted:
    kind = _kind(values, weights)
    with options.blamed():
        settings = hugging_face(options, kind)
    options.finish()
    preprocessor = read_json(folder / PREPROCESSOR) if (folder / PREPROCESSOR).is_file() else {}
    if preprocessor.get("sampling_rate", SAMPLE_RATE) != SAMPLE_RATE:
        raise OptionError(
            f"{PREPROCESSOR}: sampling_rate is {preprocessor['sampling_rate']}; avtlm's models hear {SAMPLE_RATE} samples a second."
        )
    settings = replace(settings, waveform=replace(settings.waveform, normalise=bool(preprocessor.get("do_normalize", False))))
    build = systems.find("speecht5").build
    model = build_empty(lambda: build(settings))
    where = f"{folder} does not hold the tensors of {CLASSES[kind]}"
    filled = _fill(model, weights, hugging_face_rules(kind == "s2t"), where, {"feature_mask"})
    notes = [PADDING, NO_CTC]
    if filled:
        notes.append(f"Filled with zeros, since it was not there and only training uses it: {', '.join(filled)}.")
    pieces = folder / PIECES
    tokens = text_vocabulary(pieces, settings.vocabulary) if pieces.is_file() and settings.has_text else None
    decoding: DecodingConfig | SynthesisOptions = SynthesisOptions(stop="sum", longest=LONGEST_OF_TEXT, end_symbol=True)
    if kind == "s2t":
        decoding = official_decoding()
    form = {"system": "speecht5", "task": TASKS[settings.task], "model": config.to_dict(settings)}
    commands = [*uses(settings, tokens), "avtlm info FOLDER", "avtlm convert FOLDER --to huggingface --out DIR"]
    text = card(f"{TITLES['speecht5']} ({CLASSES[kind]})", model, f"the Hugging Face folder `{folder.resolve().name}`", commands, notes)
    return Converted(model, form, tokens, decoding, {}, text)


def _kind(values: Mapping[str, Any], weights: Mapping[str, Stored]) -> Kind:
    """What the class of a folder reads and writes: by its name, or else by its tensors."""
    classes = values.get("architectures") or []
    if isinstance(classes, list) and classes:
        found = next((kind for kind, name in CLASSES.items() if name == classes[0]), None)
        if found is None:
            raise OptionError(f"it holds a {classes[0]}; of SpeechT5 avtlm opens {', '.join(CLASSES.values())}.")
        return found
    if any(key.startswith("text_decoder_postnet.") for key in weights):
        return "s2t"
    return "t2s" if "speecht5.encoder.prenet.embed_tokens.weight" in weights else "s2s"


def _vocoder(folder: Path, options: Options, weights: Mapping[str, Stored]) -> Converted:
    settings = vocoder(options)
    options.finish()
    build = systems.VOCODERS["hifigan"].build
    model = build_empty(lambda: build(settings))
    _fill(model, weights, VOCODER_RULES, f"{folder} does not hold the tensors of {VOCODER}", set())
    form = {"system": "hifigan", "task": "vocoder", "model": config.to_dict(settings)}
    commands = ["avtlm info FOLDER", "avtlm convert FOLDER --to huggingface --out DIR"]
    text = card(f"{TITLES['hifigan']} ({VOCODER})", model, f"the Hugging Face folder `{folder.resolve().name}`", commands, [])
    return Converted(model, form, None, None, {}, text)


def _fill(model: Any, weights: Mapping[str, Stored], rules: Rules, where: str, spare: set[str]) -> list[str]:
    stored: dict[str, Stored] = {}
    unknown = []
    for key, tensor in weights.items():
        if SINUSOIDS.fullmatch(key):
            continue
        try:
            stored[find_name(rules, key, "SpeechT5")] = tensor
        except ValueError:
            unknown.append(key)
    return fill(model, stored, lambda name: official_name(rules, name), where, unknown, spare)


# Back ---------------------------------------------------------------------------------------------------------------------------------


def write_folder(folder: Path, settings: Mapping[str, Any], weights: Mapping[str, Tensor], output: str | Path) -> Path:
    """Write SpeechT5 or its vocoder as a folder of transformers; it is whole or not there at all.

    Args:
        folder: the model folder, for its vocabulary and its decoding settings.
        settings, weights: what it holds.

    Raises:
        OptionError: there is no class for this task, or a setting has no counterpart there.
        CheckpointError: something else is at ``output``.
    """
    tokens: Tokenizer | None = None
    if settings["system"] == "hifigan":
        name, left = VOCODER, False
        official = {**vocoder_config(config.load(VocoderConfig, settings["model"])), "model_type": VOCODER_TYPES[0]}
        tensors = {find_key(VOCODER_RULES, ours): tensor for ours, tensor in weights.items()}
        texts: dict[str, dict[str, Any]] = {}
    else:
        model = config.load(SpeechT5Config, settings["model"])
        kind = _kind_of(folder, model)
        name, official = CLASSES[kind], {**hugging_face_config(model), "model_type": TYPE}
        tensors = _tensors(model, kind, official, weights)
        left = len(tensors) < len(weights)
        texts = {PREPROCESSOR: _preprocessor(model)}
        tokens = load_vocabulary(folder) if (folder / FILE).is_file() else None
        texts |= _tokenizer(tokens, model)
        if kind == "s2t":  # without this it does not know what a text begins and ends with
            special = {"bos_token_id": BOS, "pad_token_id": PAD, "eos_token_id": EOS, "decoder_start_token_id": EOS}
            texts[GENERATION] = {**special, "max_length": model.decoder.max_positions}
    texts[CONFIG] = {**official, "architectures": [name]}
    if left:
        logger.warning("%s: %s has no place for all nets of this model (CTC, heads of pre-training); they are left out.", folder, name)
    with checkpoint.replace_folder(output, marker=CONFIG) as temporary:
        for file, content in texts.items():
            (temporary / file).write_text(json.dumps(content, indent=2, ensure_ascii=False, sort_keys=True) + "\n", encoding="utf-8")
        pieces = getattr(tokens, "serialised", None)
        if pieces is not None:
            (temporary / PIECES).write_bytes(pieces)
        (temporary / checkpoint.CARD).write_text(_card(Path(output).resolve().name, name, left), encoding="utf-8")
        save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, temporary / SAFETENSORS, {"format": "pt"})
    return Path(output)


def _kind_of(folder: Path, settings: SpeechT5Config) -> Kind:
    """Which class a model is written for. Of a whole model that writes speech, what it reads shows in how long that may get."""
    if settings.task == "recognition":
        return "s2t"
    if settings.task != "generation":
        raise OptionError(f"transformers has no class for its task {settings.task}; it has some for {', '.join(CLASSES.values())}.")
    if len(settings.inputs) == 1:
        return "s2s" if settings.inputs[0] == "speech" else "t2s"
    return "s2s" if checkpoint.load_decoding(folder).get("longest") == LONGEST_OF_SPEECH else "t2s"


def _tensors(settings: SpeechT5Config, kind: Kind, official: Mapping[str, Any], weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights by the names of a class.

    Raises:
        OptionError: a setting of a net that it has means nothing to it.
    """
    understood = hugging_face(Options(official, CONFIG, SPARE), kind)
    before, after = flat(asdict(settings)), flat(asdict(understood))
    other = [key for key, value in after.items() if before.get(key) != value and not key.startswith(FREE) and not key.endswith(FREE)]
    if other:
        raise OptionError(f"{CLASSES[kind]} of transformers has no counterpart of {', '.join(other)}.")
    names = build_empty(lambda: SpeechT5(understood)).state_dict()
    masked = official["mask_time_prob"] or official["mask_feature_prob"]
    rules = hugging_face_rules(kind == "s2t")
    return {find_key(rules, name): weights[name] for name in names if name != "feature_mask" or masked}


def _preprocessor(settings: SpeechT5Config) -> dict[str, Any]:
    return {
        "feature_extractor_type": "SpeechT5FeatureExtractor",
        "processor_class": "SpeechT5Processor",
        "feature_size": 1,
        "sampling_rate": SAMPLE_RATE,
        "padding_side": "right",
        "padding_value": 0.0,
        "do_normalize": settings.waveform.normalise,
        "num_mel_bins": settings.spectrogram.bands,
        "hop_length": 16,
        "win_length": 64,
        "win_function": "hann_window",
        "fmin": 80,
        "fmax": 7600,
        "mel_floor": 1e-10,
        "reduction_factor": settings.spectrogram.reduction,
        "return_attention_mask": True,
    }


def _tokenizer(tokens: Tokenizer | None, settings: SpeechT5Config) -> dict[str, dict[str, Any]]:
    """Files that go with a SentencePiece model; a model with letters of its own has none there."""
    if tokens is None or getattr(tokens, "serialised", None) is None:
        return {}
    further = settings.further_symbols
    added = {symbol: settings.vocabulary - len(further) + place for place, symbol in enumerate(further)}
    return {TOKENIZER: {"tokenizer_class": "SpeechT5Tokenizer", "processor_class": "SpeechT5Processor"}, ADDED: added}


def _card(name: str, cls: str, left: bool) -> str:
    note = f"\n{NO_CTC} They stayed behind.\n" if left else ""
    return (
        f"# {name}\n\n{TITLES['speecht5']}, written by avtlm for transformers. Its weights stay under the licence that they came with.\n\n"
        f'    from transformers import {cls}\n\n    model = {cls}.from_pretrained("FOLDER")\n{note}'
    )
