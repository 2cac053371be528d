"""Model folders back to official checkpoints, which fairseq with the systems' own code loads: to compare results with the old code.

The container and the key names are those of fairseq's trainer; the optimiser's state is left out. AV-HuBERT and VATLM are written here, the
speech systems in export_speech.py.
"""

import logging
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from avtlm import checkpoint, config, systems
from avtlm.convert import export_speech, speecht5
from avtlm.convert.fairseq import HEAD
from avtlm.convert.model import ConversionError
from avtlm.convert.names.vatlm import official_key
from avtlm.convert.official_file import SentencepieceBPE, SentencePieceProcessor, configuration, container, dictionary, flat, save
from avtlm.convert.options import OptionError, Options
from avtlm.convert.options.avhubert import WIDTHS, WITHOUT_EFFECT, encoder, official_criterion, official_decoder, official_encoder
from avtlm.convert.vocabulary import units_file
from avtlm.data.inputs import CROP
from avtlm.frontends.lips import GREY_MEAN, GREY_STD
from avtlm.recognizer import RecognizerConfig
from avtlm.systems.avhubert import AVHubertConfig
from avtlm.text.vocabulary import load_vocabulary
from avtlm.training.initial import PHONES

logger = logging.getLogger(__name__)

NAMES = {"avhubert": "av_hubert", "vatlm": "vat_hubert"}
OFFICIAL_PHONES = 46  # rows of VATLM's table, fixed in its code
# Settings that change training alone: losses, masks, batch statistics; and how an encoder leaves padding out.
TRAINING_ONLY = (
    "encoder.packing",
    *("frontends.compute_padding", "dropout_per_row", "same_mask_count", "penalty_running_total", "audio_mask.", "video_mask."),
    *("text_mask.", "masked_weight", "visible_weight"),
)


def to_fairseq(folder: str | Path, output: str | Path) -> Path:
    """Write the model of a folder as an official checkpoint.

    Args:
        folder: a model folder: pre-trained, or fine-tuned with CTC or (AV-HuBERT and VATLM) with an attention decoder over word pieces.
        output: the new ``.pt`` file; it is whole or not there at all.

    Raises:
        CheckpointError: the folder is damaged.
        ConversionError: the official code has no such model; the message names what is in the way.
        OSError: the file cannot be written.
    """
    settings = checkpoint.load_config(folder)
    system = settings["system"]
    if system not in (*NAMES, *export_speech.NAMES, "speecht5"):
        known = ", ".join((*NAMES, *export_speech.NAMES, "speecht5"))
        raise ConversionError(f"{folder}: {system} has no official checkpoints that avtlm writes; it writes those of {known}.")
    weights = checkpoint.load_weights(folder)
    try:
        if system == "speecht5":
            content = speecht5.official_checkpoint(config.load(systems.find(system).config_class(), settings["model"]), weights)
        elif system in export_speech.NAMES:
            content = export_speech.official_checkpoint(Path(folder), system, settings, weights)
        elif settings.get("task") == "recognition":
            content = _fine_tuned(Path(folder), system, settings["model"], weights)
        else:
            content = _pretrained(Path(folder), system, settings["model"], weights)
    except OptionError as error:
        raise ConversionError(f"{folder} cannot become an official checkpoint: {error}") from error
    return save(content, output)


# Configuration and weights ------------------------------------------------------------------------------------------------------------


def _pretrained(folder: Path, system: str, model: dict[str, Any], weights: dict[str, Tensor]) -> dict[str, Any]:
    settings = config.load(systems.find(system).config_class(), model)
    cfg = _pretraining_cfg(folder, system, settings)
    state = {official_key(name, fine_tuned=False): tensor for name, tensor in weights.items()}
    return container(cfg, state, _dictionaries(folder, system, settings))


def _fine_tuned(folder: Path, system: str, model: dict[str, Any], weights: dict[str, Tensor]) -> dict[str, Any]:
    heads = config.load(RecognizerConfig, model)
    settings = config.load(systems.find(system).config_class(), heads.encoder)
    vocabulary = load_vocabulary(folder)
    ctc = heads.decoder is None
    if heads.transducer is not None:
        raise OptionError("it has a transducer, which official models of its kind have not.")
    if not ctc and heads.ctc_weight > 0:
        raise OptionError("it has a CTC head and an attention decoder; official models have one of them.")
    if ctc and system == "vatlm":
        raise OptionError("the official VATLM code has no CTC model.")
    if heads.decoder is not None and heads.decoder.dim != settings.encoder.dim:
        raise OptionError(
            f"its decoder is {heads.decoder.dim} wide and its encoder {settings.encoder.dim}; in the official code both are equal."
        )
    from avtlm.text.subwords import Subwords  # sentencepiece is needed for this kind only

    if not ctc and not isinstance(vocabulary, Subwords):
        raise OptionError("its attention decoder writes letters; the official one needs word pieces of SentencePiece.")
    pretraining = _pretraining_cfg(folder, system, settings)
    # AV-HuBERT's fine-tuned files keep these two, VATLM's none of what only pre-training uses.
    kept = ("predictor.units", "frontends.audio_mask", "feature_mask") if system == "avhubert" else ()
    dropped = {f"encoder.{name}" for name in HEAD if name not in kept}
    state = {official_key(name, fine_tuned=True, ctc=ctc): tensor for name, tensor in weights.items() if name not in dropped}
    if heads.decoder is not None and heads.decoder.positions == "sinusoidal":
        state["decoder.embed_positions._float_tensor"] = torch.zeros(1)
    cfg = _fine_tuning_cfg(system, heads, settings, pretraining)
    task_state = {**_dictionaries(folder, system, settings), "target_dictionary": dictionary(vocabulary.symbols)}
    if isinstance(vocabulary, Subwords):
        task_state["s2s_tokenizer"] = SentencepieceBPE(
            {"sp": SentencePieceProcessor(vocabulary.serialised), "enable_sampling": False, "alpha": None}
        )
    return container(cfg, state, task_state)


def _pretraining_cfg(folder: Path, system: str, settings: AVHubertConfig) -> dict[str, Any]:
    """The whole configuration of a pre-training run.

    Raises:
        OptionError: a setting that the official model has not got.
    """
    frontends, text = settings.frontends, system == "vatlm"
    model, criterion = official_encoder(settings), official_criterion(settings)
    if not text:
        model["input_modality"] = "image"  # the official default refers to an option that its task has not got
    normalise = frontends.audio_normalise == "frame"
    options = Options({**model, **criterion, "normalize": normalise}, "cfg.model", WITHOUT_EFFECT)
    understood = encoder(options, text, settings.inventories, frontends.phones)
    ours, theirs = flat(config.to_dict(settings)), flat(config.to_dict(understood))
    lost = [key for key in ours if ours[key] != theirs.get(key) and not key.startswith(TRAINING_ONLY)]
    if lost:
        raise OptionError(f"the official code has no counterpart of {', '.join(f'{key} = {ours[key]}' for key in lost)}.")
    if tuple(frontends.lips.widths) != WIDTHS or (text and frontends.phones != OFFICIAL_PHONES):
        logger.warning(
            "%s: the official code fixes the widths of the lip encoder and VATLM's 46 phones; edit it to load this model.", folder
        )
    labels = [f"km{number or ''}" for number in range(len(settings.inventories))]
    task = _task(system, normalise) | {"labels": labels, "label_rate": model["label_rate"], "sample_rate": 25}
    return configuration(task, {"_name": NAMES[system], **model}, {"_name": NAMES[system], **criterion})


def _fine_tuning_cfg(system: str, heads: RecognizerConfig, settings: AVHubertConfig, pretraining: dict[str, Any]) -> dict[str, Any]:
    task = pretraining["task"] | {
        **{"labels": ["wrd"], "label_rate": -1, "sample_rate": 16000, "single_target": True, "fine_tuning": True},
        **({} if heads.decoder is None else {"is_s2s": True, "tokenizer_bpe_name": "sentencepiece"}),
    }
    hides = settings.audio_mask.prob > 0 and (heads.audio_mask, heads.video_mask) == (settings.audio_mask, settings.video_mask)
    layers, head = settings.encoder, "ctc" if heads.decoder is None else "seq2seq"
    model = {
        "_name": f"{NAMES[system]}_{head}",
        "w2v_path": "",
        "no_pretrained_weights": False,
        "dropout_input": settings.frontends.dropout,
        "final_dropout": heads.dropout,
        "dropout": layers.dropout,
        "attention_dropout": layers.attention_dropout,
        "activation_dropout": layers.activation_dropout,
        "layerdrop": layers.layer_drop,
        "apply_mask": hides,
        "mask_selection": settings.audio_mask.lengths,
        "mask_other": settings.audio_mask.spread,
        "no_mask_overlap": not settings.audio_mask.overlap,
        "freeze_finetune_updates": heads.freeze_encoder_steps,
        "feature_grad_mult": 1.0,
        "normalize": task["normalize"],
        "data": task["data"],
        "w2v_args": pretraining,
        **({} if heads.decoder is None else official_decoder(heads.decoder)),
    }
    smoothed = {"_name": "label_smoothed_cross_entropy", "label_smoothing": heads.label_smoothing, "report_accuracy": True}
    return configuration(task, model, {"_name": "ctc"} if heads.decoder is None else smoothed)


def _task(system: str, normalise: bool) -> dict[str, Any]:
    """The task's options, but for those of the labels."""
    return {
        "_name": f"{NAMES[system]}_pretraining",
        "data": ".",
        "label_dir": None,
        "normalize": normalise,
        "max_sample_size": 500,
        "min_sample_size": 5,
        "max_trim_sample_size": 500,
        "single_target": False,
        "random_crop": False,
        "pad_audio": True,
        "stack_order_audio": 4,
        "image_aug": True,
        "image_crop_size": CROP,
        "image_mean": GREY_MEAN,
        "image_std": GREY_STD,
        "modalities": ["video", "audio"],
        "is_s2s": False,
        "tokenizer_bpe_name": None,
        "tokenizer_bpe_model": None,
        "noise_wav": None,
        "noise_prob": 0.0,
        "noise_snr": "0",
        "noise_num": 1,
        "fine_tuning": False,
    }


def _dictionaries(folder: Path, system: str, settings: AVHubertConfig) -> dict[str, Any]:
    """Dictionaries of the units, and of VATLM's phones where the folder lists them. A model that was not converted predicts unit i by class
    i, without special symbols."""
    found: dict[str, Any] = {"dictionaries": []}
    for number, size in enumerate(settings.inventories):
        units = folder / units_file(number)
        symbols = units.read_text(encoding="utf-8").split() if units.is_file() else [str(unit) for unit in range(size)]
        if len(symbols) != size:
            raise OptionError(f"{units.name} lists {len(symbols)} symbols, but the model predicts {size} units.")
        found["dictionaries"].append(dictionary(symbols))
    phones = folder / PHONES
    if system == "vatlm" and phones.is_file():
        found["phone_dictionary"] = [dictionary(phones.read_text(encoding="utf-8").split())]
    return found
