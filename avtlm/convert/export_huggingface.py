"""Model folders of wav2vec 2.0, HuBERT, WavLM, data2vec and MT4SSL to folders that transformers loads.

What is unusual here:
- Every setting that changes what an encoder puts out is written and read again; one that does not come back is refused by name.
- Heads that transformers has no class for stay behind: those over units, and the teacher with what regresses it. The card and a warning say
  so. MT4SSL's encoder is data2vec's.
- Where frames of padded clips come out otherwise there, the card says that too.
"""

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from avtlm import checkpoint, config, systems
from avtlm.convert.huggingface import CONFIG, PREPROCESSOR, SUFFIXES, Kind
from avtlm.convert.model import TITLES, ConversionError
from avtlm.convert.names.wav2vec2 import GATE, System, hugging_face_key
from avtlm.convert.options import OptionError, Options
from avtlm.convert.options.huggingface import CLASSES, WITHOUT_EFFECT, hugging_face, official_config
from avtlm.convert.options.wav2vec2_official import ENCODER, lost
from avtlm.convert.speech_encoders import encoder_part
from avtlm.convert.speecht5_huggingface import write_folder
from avtlm.convert.tensor_files import SAFETENSORS
from avtlm.convert.vocabulary import write_hugging_face
from avtlm.frontends.filterbank import SAMPLE_RATE
from avtlm.recognizer import RecognizerConfig
from avtlm.systems.speech_encoder import SpeechEncoderConfig
from avtlm.systems.wav2vec2 import Wav2Vec2Config
from avtlm.text.vocabulary import BLANK, EOS, PAD, load_vocabulary

logger = logging.getLogger(__name__)

# What wav2vec 2.0's pre-training computes with besides the encoder; how codes are drawn in training is no part of it.
CONTRAST = (*ENCODER, "quantizer", "target_glu", "final_dim", "temperature")
DRAWN = ("quantizer.factor", "quantizer.start", "quantizer.end", "quantizer.decay", "quantizer.hard")
LEFT_OUT = {
    "wav2vec2": "The quantiser and the projections behind it are left out, since transformers has no counterpart of {lost}.",
    "hubert": "The head over units is left out, since transformers has no class that predicts them.",
    "wavlm": "The head over units is left out, since transformers has no class that predicts them.",
    "data2vec": "The teacher and the head that regresses it are left out, since transformers has no class that is taught.",
    "mt4ssl": "The teacher and both heads are left out, since transformers has no class with them; its encoder is that of data2vec.",
}
ONE_FRAME_MORE = (
    "Of a padded clip transformers counts one frame less than this model does in many lengths (waveform.frame_padding: samples); clips "
    "without padding come out alike."
)
SEES_PADDING = (
    "In transformers the {what} of this model see the padding of a batch, here they do not: frames of padded clips differ, clips "
    "without padding come out alike."
)


def to_huggingface(folder: str | Path, output: str | Path) -> Path:
    """Write the model of a folder as one of transformers: config.json, model.safetensors, preprocessor_config.json, and the files of a
    tokenizer where it transcribes.

    Args:
        folder: a model folder of a speech encoder, pre-trained or fine-tuned with CTC.
        output: the new folder; it is whole or not there at all.

    Raises:
        CheckpointError: the folder is damaged, or something else is at ``output``.
        ConversionError: transformers has no such model; the message names what is in the way.
    """
    settings = checkpoint.load_config(folder)
    system = settings["system"]
    if system in ("speecht5", "hifigan"):
        try:
            return write_folder(Path(folder), settings, checkpoint.load_weights(folder), output)
        except OptionError as error:
            raise ConversionError(f"{folder} cannot become a Hugging Face folder: {error}") from error
    if system not in CLASSES:
        known = ", ".join((*CLASSES, "speecht5", "hifigan"))
        raise ConversionError(f"{folder}: transformers has no class for {TITLES.get(system, system)}; avtlm writes folders of {known}.")
    weights = checkpoint.load_weights(folder)
    try:
        written = _written(Path(folder), system, settings, weights)
    except OptionError as error:
        raise ConversionError(f"{folder} cannot become a Hugging Face folder: {error}") from error
    texts, tensors, notes = written
    with checkpoint.replace_folder(output, marker=CONFIG) as temporary:
        for name, content in texts.items():
            (temporary / name).write_text(json.dumps(content, indent=2, ensure_ascii=False, sort_keys=True) + "\n", encoding="utf-8")
        card = _card(Path(output).resolve().name, texts[CONFIG]["architectures"][0], system, notes)
        (temporary / checkpoint.CARD).write_text(card, encoding="utf-8")
        save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, temporary / SAFETENSORS, {"format": "pt"})
    return Path(output)


def _written(
    folder: Path, system: System, settings: Mapping[str, Any], weights: Mapping[str, Tensor]
) -> tuple[dict[str, dict[str, Any]], dict[str, Tensor], list[str]]:
    """Files by name, tensors by key, and what the card has to say."""
    cls = systems.find(system).config_class()
    notes: list[str] = []
    texts: dict[str, dict[str, Any]] = {}
    kind: Kind = "bare"
    if settings.get("task") == "recognition":
        heads = config.load(RecognizerConfig, settings["model"])
        if heads.decoder is not None or heads.transducer is not None:
            head = "an attention decoder" if heads.decoder is not None else "a transducer"
            raise OptionError(f"it has {head}; the classes of transformers for its encoder have a head for CTC alone.")
        encoder = config.load(cls, heads.encoder)
        official = _encoder(encoder, system) | _ctc(heads, len(load_vocabulary(folder)))
        texts |= write_hugging_face(load_vocabulary(folder))
        kind, kept = "ctc", dict(weights)
    else:
        encoder = config.load(cls, settings["model"])
        official = _encoder(encoder, system)
        behind = _refused(encoder, system, official, CONTRAST) if isinstance(encoder, Wav2Vec2Config) else []
        behind = [each for each in behind if not each.startswith(DRAWN)]
        has_heads = any(not encoder_part(name) for name in weights)
        if has_heads and system == "wav2vec2" and not behind:
            kind, kept = "pretraining", dict(weights)
        else:
            kept = {name: tensor for name, tensor in weights.items() if encoder_part(name)}
            if has_heads:
                notes.append(LEFT_OUT[system].format(lost=", ".join(behind)))
                logger.warning("%s: %s%s", folder, notes[-1][0].lower(), notes[-1][1:])
    notes += _padding(encoder)
    if encoder.waveform.frame_padding == "samples":
        logger.warning("%s: %s%s", folder, ONE_FRAME_MORE[0].lower(), ONE_FRAME_MORE[1:])
    if not official["mask_time_prob"] and not official["mask_feature_prob"]:
        kept.pop(("encoder." if kind == "ctc" else "") + "feature_mask")  # its class has no such vector then
    texts[CONFIG] = {**official, "architectures": [CLASSES[system] + SUFFIXES[kind]]}
    texts[PREPROCESSOR] = _preprocessor(encoder)
    return texts, {hugging_face_key(name, system, kind): _shaped(name, tensor) for name, tensor in kept.items()}, notes


def _encoder(encoder: SpeechEncoderConfig, system: System) -> dict[str, Any]:
    """config.json of an encoder.

    Raises:
        OptionError: a setting that changes what it puts out has no counterpart there.
    """
    official = official_config(encoder, system)
    refused = _refused(encoder, system, official, ENCODER)
    if refused:
        raise OptionError(f"{CLASSES[system]} of transformers has no counterpart of {', '.join(refused)}.")
    return official


def _refused(encoder: SpeechEncoderConfig, system: System, official: Mapping[str, Any], matters: tuple[str, ...]) -> list[str]:
    """Settings that transformers has no words for."""
    options = Options(official, CONFIG, WITHOUT_EFFECT)
    try:
        understood = hugging_face(options, system, normalise=encoder.waveform.normalise)
    except OptionError as error:
        return [str(error).removesuffix(".")]
    return lost(encoder, understood, matters)


def _ctc(heads: RecognizerConfig, symbols: int) -> dict[str, Any]:
    """What config.json says about a head for CTC and how it was fine-tuned. Without masks in fine-tuning those of pre-training stay,
    unused, since the vector of hidden frames is there only with them."""
    frames, channels = heads.audio_mask, heads.channel_mask
    applied = frames.prob > 0 or channels.prob > 0
    spans = {
        "mask_time_prob": frames.prob,
        "mask_time_length": frames.length,
        "mask_time_min_masks": frames.min_spans,
        "mask_feature_prob": channels.prob,
        "mask_feature_length": channels.length,
        "mask_feature_min_masks": channels.min_spans,
    }
    return {
        **(spans if applied else {}),
        "apply_spec_augment": applied,
        "vocab_size": symbols,
        "pad_token_id": BLANK,
        "bos_token_id": PAD,
        "eos_token_id": EOS,
        "final_dropout": heads.dropout,
        "ctc_loss_reduction": "sum",
        "ctc_zero_infinity": True,
    }


def _preprocessor(encoder: SpeechEncoderConfig) -> dict[str, Any]:
    return {
        "feature_extractor_type": "Wav2Vec2FeatureExtractor",
        "feature_size": 1,
        "sampling_rate": SAMPLE_RATE,
        "padding_side": "right",
        "padding_value": 0.0,
        "do_normalize": encoder.waveform.normalise,
        "return_attention_mask": True,
    }


def _padding(encoder: SpeechEncoderConfig) -> list[str]:
    """How padded clips differ there."""
    notes = []
    if encoder.waveform.norm == "group" and not encoder.waveform.compute_padding:
        notes.append(SEES_PADDING.format(what="statistics of the first norm"))
    if encoder.encoder.position_blocks > 1 and not encoder.encoder.compute_padding:
        notes.append(SEES_PADDING.format(what="stacked positional convolutions"))
    if encoder.waveform.frame_padding == "samples":
        notes.append(ONE_FRAME_MORE)
    return notes


def _shaped(name: str, tensor: Tensor) -> Tensor:
    return tensor[None, :, None, None] if GATE.fullmatch(name) else tensor


def _card(name: str, cls: str, system: System, notes: list[str]) -> str:
    return (
        f"# {name}\n\n{TITLES[system]}, written by avtlm for transformers. Its weights stay under the licence that they came with.\n\n"
        f"    from transformers import AutoFeatureExtractor, {cls}\n\n"
        f'    model = {cls}.from_pretrained("FOLDER")\n    extractor = AutoFeatureExtractor.from_pretrained("FOLDER")\n'
        + "".join(f"\n{note}\n" for note in notes)
    )
