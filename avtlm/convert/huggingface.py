"""Hugging Face folders of wav2vec 2.0, HuBERT, WavLM and data2vec to model folders. Nothing of transformers is needed.

What is unusual here:
- What a folder holds is read off its tensors: an encoder alone, wav2vec 2.0 with what it was pre-trained with, or a head for CTC.
- An encoder alone becomes a model without heads (``heads: false`` in config.yaml), since nothing should stand in for weights that are not
  there.
- Older folders lack the vector of hidden frames, with which only training works; it is filled with zeros, and the model card says so.
- Special symbols change places (vocabulary.py).
"""

import logging
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from avtlm import config, systems
from avtlm.convert import mmspeech, speecht5_huggingface
from avtlm.convert.model import TITLES, ConversionError, Converted, Rows, Stored, build_empty, card, fill, write
from avtlm.convert.names.wav2vec2 import System, hugging_face_key, hugging_face_name
from avtlm.convert.options import OptionError, Options
from avtlm.convert.options.huggingface import CLASSES, MODEL_TYPES, WITHOUT_EFFECT, hugging_face
from avtlm.convert.speech_encoders import GREEDY, NO_HEADS, drop_missing_heads, flat_gate
from avtlm.convert.tensor_files import read_weights
from avtlm.convert.vocabulary import NEVER, HeadVocabulary, read_hugging_face, read_json
from avtlm.frontends.filterbank import SAMPLE_RATE
from avtlm.recognizer import Recognizer, RecognizerConfig
from avtlm.systems.speech_encoder import SpeechEncoderConfig
from avtlm.text.vocabulary import VocabularyError

logger = logging.getLogger(__name__)

CONFIG = "config.json"
PREPROCESSOR, PROCESSOR = "preprocessor_config.json", "processor_config.json"
Kind = Literal["bare", "pretraining", "ctc"]
SUFFIXES: dict[Kind, str] = {"bare": "Model", "ctc": "ForCTC", "pretraining": "ForPreTraining"}


def is_hugging_face(folder: str | Path) -> bool:
    """Whether a folder looks like one of transformers."""
    return (Path(folder) / CONFIG).is_file()


def convert_folder(folder: str | Path, system: str | None, output: str | Path) -> Path:
    """Turn a folder of transformers into a model folder.

    Args:
        folder: with config.json, weights, and, where it transcribes, vocab.json.
        system: to make sure of it; ``mt4ssl`` takes a data2vec one, which is what MT4SSL's encoder is there. None takes what config.json
            says.
        output: the new folder; it is whole or not there at all.

    Raises:
        ConversionError: another or an unknown type, unknown or missing tensors or options, a vocabulary that does not fit.
        WeightsError, TorchFileError: the weights are missing or damaged, or a pickle asks for foreign code.
    """
    return write(converted_folder(folder, system), output)


def converted_folder(folder: str | Path, system: str | None = None) -> Converted:
    """The same in memory; arguments and errors are those of `convert_folder`."""
    folder = Path(folder)
    try:
        values = read_json(folder / CONFIG)
        if speecht5_huggingface.reads(values):
            return speecht5_huggingface.converted(folder, values, system, read_weights(folder))
        if mmspeech.reads(values):
            return mmspeech.converted_port(folder, values, system, read_weights(folder))
        found = _system(values, system)
        weights = read_weights(folder)
        return _converted(folder, values, found, weights)
    except (OptionError, VocabularyError) as error:
        raise ConversionError(f"{folder}: {error}") from error


def _system(values: Mapping[str, Any], asked: str | None) -> System:
    """Ours, by config.json.

    Raises:
        OptionError: a type of model that avtlm does not open, or another than was asked for.
    """
    kind, classes = values.get("model_type"), values.get("architectures") or []
    system = MODEL_TYPES.get(kind) if isinstance(kind, str) else None
    if system is None:
        raise OptionError(f"it holds a model of the type {kind!r}; avtlm opens {', '.join(MODEL_TYPES)}.")
    known = [CLASSES[system] + suffix for suffix in SUFFIXES.values() if suffix != "ForPreTraining" or system == "wav2vec2"]
    if isinstance(classes, list) and classes and classes[0] not in known:
        raise OptionError(f"it holds a {classes[0]}; of {TITLES[system]} avtlm opens {', '.join(known)}.")
    if asked == "mt4ssl" and system == "data2vec":
        return "mt4ssl"
    if asked not in (None, system):
        raise OptionError(f"it holds {TITLES[system]} ({kind}), not {TITLES.get(str(asked), asked)}; convert it with --system {system}.")
    return system


def _converted(folder: Path, values: dict[str, Any], system: System, weights: Mapping[str, Stored]) -> Converted:
    ctc = any(key.startswith("lm_head.") for key in weights)
    normalise, notes = _normalise(folder)
    options = Options(values, CONFIG, WITHOUT_EFFECT)
    settings = hugging_face(options, system, normalise=normalise)
    options.finish()
    stored, unknown = _ours(weights, ctc)
    build = systems.find(system).build
    if ctc:
        settings = replace(settings, feature_gradient_scale=0.0)  # as all fine-tuning does
        head = _vocabulary(folder, values, stored)
        heads = recognizer_config(settings, values)
        model = build_empty(lambda: Recognizer(heads, build(settings), head.vocabulary))
        form: dict[str, Any] = {"system": system, "task": "recognition", "model": config.to_dict(heads)}
        notes += head.notes()
    else:
        model = build_empty(lambda: build(settings))
        whole = not drop_missing_heads(model, stored)
        form = {"system": system, "task": "pretrain", **({} if whole else {"heads": False}), "model": config.to_dict(settings)}
    kind: Kind = "ctc" if ctc else "pretraining" if system == "wav2vec2" and "heads" not in form else "bare"
    spare = {("encoder." if ctc else "") + "feature_mask"}
    where = f"{folder} does not hold the tensors of {CLASSES[system]}{SUFFIXES[kind]}"
    filled = fill(model, stored, lambda name: official_name(name, system, kind), where, unknown, spare)
    if filled:
        notes.append(f"Filled with zeros, since it was not there and only training uses it: {', '.join(filled)}.")
    if "heads" in form:
        notes.append(NO_HEADS)
    first = "avtlm transcribe AUDIO --model FOLDER" if ctc else "avtlm units MANIFEST OUT --model FOLDER --layer 9"
    text = card(
        f"{TITLES[system]} ({values['model_type']})",
        model,
        f"the Hugging Face folder `{folder.resolve().name}`",
        ["avtlm info FOLDER", first, "avtlm convert FOLDER --to huggingface --out DIR"],
        notes,
    )
    return Converted(model, form, head.vocabulary if ctc else None, GREEDY if ctc else None, {}, text)


def recognizer_config(settings: SpeechEncoderConfig, values: Mapping[str, Any]) -> RecognizerConfig:
    """A recogniser with a head for CTC; ``values`` of its config.json say how it was fine-tuned."""
    masks = values.get("apply_spec_augment", True)
    return RecognizerConfig(
        encoder=config.to_dict(settings),
        label_smoothing=0.0,
        dropout=float(values.get("final_dropout", 0.1)),
        modality_dropout=0.0,
        audio_mask=settings.mask if masks else replace(settings.mask, prob=0.0),
        channel_mask=settings.channel_mask if masks else replace(settings.channel_mask, prob=0.0),
        decoding=GREEDY,
    )


def _vocabulary(folder: Path, values: Mapping[str, Any], stored: dict[str, Stored]) -> HeadVocabulary:
    """The symbols of the transcripts; the head's rows are put into their order."""
    rows = stored["ctc.weight"].shape[0] if "ctc.weight" in stored else 0
    blank = values.get("pad_token_id", 0)
    head = read_hugging_face(folder, rows, blank if isinstance(blank, int) else 0)
    for name, value in (("ctc.weight", 0.0), ("ctc.bias", NEVER)):
        if name in stored:
            stored[name] = Rows(stored[name], head.rows, value)
    return head


def _normalise(folder: Path) -> tuple[bool, list[str]]:
    """Whether waveforms are normalised, from the configuration of the feature extractor, and a note where there is none.

    Raises:
        OptionError: another sampling rate than ours.
    """
    settings: dict[str, Any] | None = None
    if (folder / PREPROCESSOR).is_file():
        settings = read_json(folder / PREPROCESSOR)
    elif (folder / PROCESSOR).is_file():
        settings = read_json(folder / PROCESSOR).get("feature_extractor")
    if not isinstance(settings, dict):
        note = f"Waveforms are normalised, as transformers does by default: the folder had no {PREPROCESSOR} to say so."
        logger.warning("%s has no %s; waveforms will be normalised (waveform.normalise).", folder, PREPROCESSOR)
        return True, [note]
    rate = settings.get("sampling_rate", SAMPLE_RATE)
    if rate != SAMPLE_RATE:
        raise OptionError(f"{PREPROCESSOR}: sampling_rate is {rate}; avtlm's models hear {SAMPLE_RATE} samples per second.")
    return bool(settings.get("do_normalize", True)), []


def _ours(weights: Mapping[str, Stored], ctc: bool) -> tuple[dict[str, Stored], list[str]]:
    """Tensors by our names, and the keys that have none."""
    stored: dict[str, Stored] = {}
    unknown = []
    for key, tensor in weights.items():
        try:
            name = hugging_face_name(key, ctc)
        except ValueError:
            unknown.append(key)
            continue
        stored[name] = flat_gate(name, tensor)
    return stored, unknown


def official_name(name: str, system: System, kind: Kind) -> str:
    """What a tensor is called in transformers; what there is only here keeps our name."""
    try:
        return hugging_face_key(name, system, kind)
    except ValueError:
        return name
