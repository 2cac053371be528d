"""Model folders of wav2vec 2.0, HuBERT, WavLM, data2vec and MT4SSL back to official checkpoints.

What is unusual here:
- WavLM's own container holds an encoder and its options, nothing else, so the head over units stays behind.
- Fine-tuned HuBERT keeps vectors of units that nothing uses; its class wants them, so they are written as zeros.
"""

import logging
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from avtlm import config, systems
from avtlm.convert.names.wav2vec2 import FAIRSEQ_CTC, GATE, System
from avtlm.convert.official_file import SentencepieceBPE, SentencePieceProcessor, configuration, container, dictionary
from avtlm.convert.options import OptionError, Options
from avtlm.convert.options.wav2vec2 import WITHOUT_EFFECT, fairseq
from avtlm.convert.options.wav2vec2_official import lost, official_criterion, official_model, official_spans
from avtlm.convert.speech_encoders import MODELS, encoder_part, official_key
from avtlm.convert.vocabulary import units_file
from avtlm.frontends.filterbank import SAMPLE_RATE
from avtlm.recognizer import RecognizerConfig
from avtlm.systems.hubert import HubertConfig
from avtlm.systems.mt4ssl import MT4SSLConfig
from avtlm.systems.speech_encoder import SpeechEncoderConfig
from avtlm.text.vocabulary import load_vocabulary

logger = logging.getLogger(__name__)

NAMES: dict[System, str] = {system: name for name, system in MODELS.items()}
# Settings of training that the official options don't have, or that say how a batch is computed.
TRAINING_ONLY = ("targets.over_padding", "targets.official_axes", "same_mask_count", "mask.", "channel_mask.", "quantizer.hard")


def official_checkpoint(folder: Path, system: System, settings: Mapping[str, Any], weights: Mapping[str, Tensor]) -> dict[str, Any]:
    """What the official code's trainer would have saved for the model of a folder.

    Raises:
        OptionError: a setting or a part that the official model has not got.
    """
    cls = systems.find(system).config_class()
    if settings.get("task") == "recognition":
        heads = config.load(RecognizerConfig, settings["model"])
        return _fine_tuned(folder, system, heads, config.load(cls, heads.encoder), weights)
    return _pretrained(folder, system, config.load(cls, settings["model"]), weights)


def _pretrained(folder: Path, system: System, settings: SpeechEncoderConfig, weights: Mapping[str, Tensor]) -> dict[str, Any]:
    heads = any(not encoder_part(name) for name in weights)
    _check(system, settings, heads and system != "wavlm")
    state = _state(weights, settings, system, fine_tuned=False)
    if system == "wavlm":
        if heads:
            logger.warning("%s: the head over units is left out; WavLM's official files hold the encoder alone.", folder)
        kept = {key: tensor for key, tensor in state.items() if not key.startswith(("final_proj.", "label_embs_concat", "target_glu."))}
        options = {key: value for key, value in official_model(settings, system).items() if key not in UNITS_ONLY}
        return {"cfg": {**options, "normalize": settings.waveform.normalise}, "model": OrderedDict(kept)}
    if not heads:
        logger.warning("%s: the model has no heads; the official code takes such a file for fine-tuning and for features only.", folder)
    teacher = {key.removeprefix("_ema."): state.pop(key) for key in list(state) if key.startswith("_ema.")}
    whole: dict[str, Any] = {**state, "_ema": OrderedDict(teacher)} if teacher else state
    return container(_pretraining_cfg(system, settings), whole, _dictionaries(folder, settings) if heads else {})


def _fine_tuned(
    folder: Path, system: System, heads: RecognizerConfig, settings: SpeechEncoderConfig, weights: Mapping[str, Tensor]
) -> dict[str, Any]:
    if system == "wavlm":
        raise OptionError("the official WavLM code has no model that transcribes; write a Hugging Face folder (--to huggingface).")
    if heads.decoder is not None or heads.transducer is not None:
        head = "an attention decoder" if heads.decoder is not None else "a transducer"
        raise OptionError(f"it has {head}; the official models of its kind have a head for CTC alone.")
    _check(system, settings, heads=False)
    state = _state(weights, settings, system, fine_tuned=True)
    if isinstance(settings, HubertConfig):
        count = settings.units + sum(settings.further_units)
        state[f"{FAIRSEQ_CTC}label_embs_concat"] = torch.zeros(count, settings.final_dim)
    from avtlm.text.subwords import Subwords  # sentencepiece is needed for this kind only

    vocabulary = load_vocabulary(folder)
    units = _dictionaries(folder, settings) if isinstance(settings, HubertConfig) else {}
    task_state = {**units, "target_dictionary": dictionary(vocabulary.symbols)}
    if isinstance(vocabulary, Subwords):
        processor = SentencePieceProcessor(vocabulary.serialised)
        task_state["s2s_tokenizer"] = SentencepieceBPE({"sp": processor, "enable_sampling": False, "alpha": None})
    return container(_fine_tuning_cfg(system, heads, settings), state, task_state)


# WavLM's class has no options of the head over units.
UNITS_ONLY = ("label_rate", "final_dim", "untie_final_proj", "logit_temp", "target_glu", "skip_masked", "skip_nomask")


def _check(system: System, settings: SpeechEncoderConfig, heads: bool) -> None:
    """Raises OptionError naming the settings that the official code has no counterpart of."""
    values = {**official_model(settings, system), **{key: value for key, value in official_criterion(settings).items() if key != "_name"}}
    if system == "data2vec":
        del values["loss_weights"]
    options = Options(values, "cfg.model", WITHOUT_EFFECT)
    understood = fairseq(options, system, _units(settings), normalise=settings.waveform.normalise)
    missing = lost(settings, understood) if not heads else lost(settings, understood, ("",))
    missing = [each for each in missing if not each.startswith(TRAINING_ONLY)]
    if missing:
        raise OptionError(f"the official code has no counterpart of {', '.join(missing)}.")


def _units(settings: SpeechEncoderConfig) -> tuple[int, ...]:
    if isinstance(settings, HubertConfig):
        return (settings.units, *settings.further_units)
    return (settings.units,) if isinstance(settings, MT4SSLConfig) else ()


def _state(weights: Mapping[str, Tensor], settings: SpeechEncoderConfig, system: System, fine_tuned: bool) -> dict[str, Tensor]:
    """Weights by official names. Raises OptionError for one that has none."""
    key_of = official_key(settings, system, fine_tuned)
    try:
        return {key_of(name): tensor[None, :, None, None] if GATE.fullmatch(name) else tensor for name, tensor in weights.items()}
    except ValueError as error:
        raise OptionError(str(error)) from error


# Configuration ------------------------------------------------------------------------------------------------------------------------


def _pretraining_cfg(system: System, settings: SpeechEncoderConfig) -> dict[str, Any]:
    task: dict[str, Any] = {"data": ".", "sample_rate": SAMPLE_RATE, "normalize": settings.waveform.normalise, "enable_padding": False}
    if isinstance(settings, HubertConfig):
        labels = ["km", *(f"km{number + 1}" for number in range(len(settings.further_units)))]
        task |= {"_name": "hubert_pretraining", "labels": labels, "label_rate": settings.label_rate, "single_target": False}
        task |= {"fine_tuning": False, "label_dir": None, "random_crop": True, "pad_audio": False}
    elif isinstance(settings, MT4SSLConfig):
        task |= {"_name": "multi2vec_pretraining", "labels": None, "label_dir": None, "label_type": "km"}
    else:
        task |= {"_name": "audio_pretraining", "labels": None}
    task |= {"max_sample_size": None, "min_sample_size": None}
    return configuration(task, {"_name": NAMES[system], **official_model(settings, system)}, official_criterion(settings))


def _fine_tuning_cfg(system: System, heads: RecognizerConfig, settings: SpeechEncoderConfig) -> dict[str, Any]:
    pretraining, layers = _pretraining_cfg(system, settings), settings.encoder
    if isinstance(settings, MT4SSLConfig):
        # With its classifier, MT4SSL's class asks for a dictionary of units on the disk, to build what fine-tuning drops at once.
        pretraining["model"] |= {"ce_loss": False, "mse_loss": True}
        pretraining["criterion"]["loss_weights"] = {}
    hubert = system == "hubert"
    task = {key: pretraining["task"][key] for key in ("data", "sample_rate", "normalize", "enable_padding")}
    if hubert:
        task |= {"_name": "hubert_pretraining", "labels": ["ltr"], "label_rate": -1, "single_target": True, "fine_tuning": True}
        task |= {"label_dir": None, "random_crop": False, "pad_audio": True}
    else:
        task |= {"_name": "audio_finetuning", "labels": "ltr", "autoregressive": False}
    model: dict[str, Any] = {
        "_name": "hubert_ctc" if hubert else "wav2vec_ctc",
        "w2v_path": "",
        "no_pretrained_weights": False,
        "dropout_input": settings.waveform.dropout,
        "final_dropout": heads.dropout,
        "dropout": layers.dropout,
        "attention_dropout": layers.attention_dropout,
        "activation_dropout": layers.activation_dropout,
        "layerdrop": layers.layer_drop,
        "apply_mask": heads.audio_mask.prob > 0 or heads.channel_mask.prob > 0,
        **official_spans("mask", heads.audio_mask),
        **official_spans("mask_channel", heads.channel_mask),
        "freeze_finetune_updates": heads.freeze_encoder_steps,
        "feature_grad_mult": settings.feature_gradient_scale,
        "normalize": settings.waveform.normalise,
        "data": ".",
        "w2v_args": pretraining,
    }
    if hubert:
        del model["mask_min_space"], model["mask_channel_min_space"]
    else:
        model |= {
            "blank_weight": 0,
            "blank_mode": "add",
            "mask_dropout": heads.audio_mask.dropout,
            "mask_channel_before": settings.channels_first,
        }
    return configuration(task, model, {"_name": "ctc", "zero_infinity": True})


def _dictionaries(folder: Path, settings: SpeechEncoderConfig) -> dict[str, Any]:
    """Dictionaries of the units. A model that was not converted predicts unit i by class i, without special symbols."""
    found = []
    for number, size in enumerate(_units(settings)):
        file = folder / units_file(number)
        symbols = file.read_text(encoding="utf-8").split() if file.is_file() else [str(unit) for unit in range(size)]
        if len(symbols) != size:
            raise OptionError(f"{file.name} lists {len(symbols)} symbols, but the model predicts {size} units.")
        found.append(dictionary(symbols))
    if isinstance(settings, MT4SSLConfig):
        return {"discrete_dictionary": found[0]}
    return {"dictionaries": found} if found else {}
