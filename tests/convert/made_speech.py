"""Official files of speech encoders for tests: tiny models in the container of fairseq's trainer, with every option that the classes have.

``official_options.json`` has the options of fairseq's and MT4SSL's classes with their defaults; data2vec's and MT4SSL's inherit those of
wav2vec 2.0.
"""

import json
from collections import OrderedDict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from avtlm import config
from avtlm.checkpoint import save_model
from avtlm.convert.export_speech import UNITS_ONLY
from avtlm.convert.names.wav2vec2 import GATE, System
from avtlm.convert.official_file import dictionary
from avtlm.convert.options.wav2vec2_official import official_criterion, official_model
from avtlm.convert.speech_encoders import MODELS, official_key
from avtlm.recognizer import Recognizer, RecognizerConfig
from avtlm.systems.hubert import Hubert
from avtlm.systems.mt4ssl import MT4SSL
from avtlm.systems.speech_encoder import SpeechEncoder, SpeechEncoderConfig
from avtlm.text.vocabulary import SPECIALS, Vocabulary
from tests.convert.made_checkpoints import units
from tests.systems.speech_models import CONFIGS, tiny

OPTIONS: dict[str, dict[str, Any]] = json.loads(Path(__file__).with_name("official_options.json").read_text())
NAMES: dict[System, str] = {system: name for name, system in MODELS.items()}
LETTERS = Vocabulary([*SPECIALS, "|", *"ETAONI'"])
SYSTEMS: tuple[System, ...] = ("wav2vec2", "hubert", "wavlm", "data2vec", "mt4ssl")


def options(name: str) -> dict[str, Any]:
    """Every option of a class with its default."""
    inherited = OPTIONS["wav2vec2"] if name in ("data2vec_audio", "multi2vec") else {}
    return inherited | OPTIONS[name]


def state(model: SpeechEncoder, system: System) -> dict[str, Any]:
    """Weights by official names; a teacher's in a dictionary of their own."""
    key_of = official_key(model.config, system)
    named: dict[str, Any] = {}
    for name, tensor in model.state_dict().items():
        named[key_of(name)] = tensor.view(1, -1, 1, 1) if GATE.fullmatch(name) else tensor
    teacher = {key.removeprefix("_ema."): named.pop(key) for key in list(named) if key.startswith("_ema.")}
    return named | ({"_ema": OrderedDict(teacher)} if teacher else {})


def pretraining_cfg(settings: SpeechEncoderConfig, system: System) -> dict[str, Any]:
    """The configuration of a pre-training run, with references as fairseq writes them."""
    name = NAMES[system]
    normalise = settings.waveform.normalise
    task: dict[str, Any] = {"_name": "audio_pretraining", "data": "/data", "sample_rate": 16000, "normalize": normalise}
    model = {**options(name), **official_model(settings, system), "_name": name}
    if system == "hubert":
        task |= {"_name": "hubert_pretraining", "label_rate": model["label_rate"], "labels": ["km"]}
        model["label_rate"] = "${task.label_rate}"
    return {
        "_name": None,
        "common": {"seed": 1, "fp16": True},
        "optimization": {"max_update": 400000},
        "task": task,
        "model": model,
        "criterion": {"log_keys": [], **official_criterion(settings)},
    }


def pretrained(system: System, **changes: Any) -> tuple[dict[str, Any], SpeechEncoder]:
    """The content of a pre-training checkpoint, and the model that is in it."""
    model = tiny(system, **changes)
    if system == "wavlm":
        model.drop_heads()
        model_options = {key: value for key, value in official_model(model.config, system).items() if key not in UNITS_ONLY}
        cfg = model_options | {"normalize": model.config.waveform.normalise, "predict_layers": "[12]"}
        return {"cfg": cfg, "model": OrderedDict(state(model, system))}, model
    content = {
        "args": None,
        "cfg": pretraining_cfg(model.config, system),
        "model": OrderedDict(state(model, system)),
        "task_state": _dictionaries(model),
        "extra_state": {"epoch": 3},
    }
    return content, model


def _dictionaries(model: SpeechEncoder) -> dict[str, Any]:
    if isinstance(model, Hubert):
        return {"dictionaries": [units(model.config.units - len(SPECIALS))]}
    return {"discrete_dictionary": units(model.config.units - len(SPECIALS))} if isinstance(model, MT4SSL) else {}


def recogniser(system: System, **changes: Any) -> Recognizer:
    """A random recogniser of letters whose best symbol changes from frame to frame, in evaluation mode."""
    encoder = tiny(system, **changes)
    heads = RecognizerConfig(encoder=config.to_dict(encoder.config), label_smoothing=0.0, dropout=0.0, modality_dropout=0.0)
    model = Recognizer(heads, encoder, LETTERS)
    assert model.ctc is not None
    torch.nn.init.normal_(model.ctc.weight)
    return model.eval()


def fine_tuned(system: System, dictionary_inside: bool = True, **changes: Any) -> tuple[dict[str, Any], Recognizer]:
    """The content of a checkpoint fine-tuned with CTC, and the model that is in it."""
    model = recogniser(system, feature_gradient_scale=0.0, **changes)
    assert isinstance(model.encoder, SpeechEncoder)
    key_of = official_key(model.encoder.config, system, fine_tuned=True)
    named = {key_of(name): tensor for name, tensor in model.state_dict().items()}
    name = "hubert_ctc" if system == "hubert" else "wav2vec_ctc"
    origin = pretraining_cfg(CONFIGS[system], system)
    state_of_task: dict[str, Any] = {"target_dictionary": dictionary(LETTERS.symbols) if dictionary_inside else None}
    if system == "hubert":
        settings = CONFIGS[system]
        named["w2v_encoder.w2v_model.label_embs_concat"] = torch.zeros(settings.units, settings.final_dim)
        state_of_task["dictionaries"] = [units(settings.units - len(SPECIALS))]
    cfg = {
        "task": {"_name": "audio_finetuning", "data": "/data", "labels": "ltr", "normalize": origin["task"]["normalize"]},
        "model": {**options(name), "apply_mask": True, "mask_prob": 0.65, "mask_channel_prob": 0.5, "mask_channel_length": 64}
        | {"_name": name, "layerdrop": 0.1, "freeze_finetune_updates": 10000, "w2v_args": origin},
        "criterion": {"_name": "ctc", "zero_infinity": True},
    }
    return {"cfg": cfg, "model": OrderedDict(named), "task_state": state_of_task}, model


def save_pretrained(folder: Path, system: System, **changes: Any) -> Path:
    """A model folder."""
    model = tiny(system, **changes)
    save_model(folder, model, {"system": system, "task": "pretrain", "model": config.to_dict(model.config)})
    return folder


def save_recogniser(folder: Path, system: System, **changes: Any) -> Path:
    """A model folder of `recogniser`."""
    model = recogniser(system, **changes)
    save_model(folder, model, {"system": system, "task": "recognition", "model": config.to_dict(model.config)}, model.vocabulary)
    return folder


def same(ours: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    """The same names and bits."""
    return set(ours) == set(other) and all(torch.equal(tensor, other[name]) for name, tensor in ours.items())
