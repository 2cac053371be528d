"""Official files of SpeechLM's text-to-unit model to models in our terms.

What is unusual here:
- Predictors of pitch and energy, which the official model never uses, are left out.
- Sizes are those of the tensors. The last four outputs belong to no unit (special symbols of a dictionary that is not used), and unit 1 was
  never learned, since targets are padded with 1.
- A file holds no dictionary of its phones; the 42 symbols of its recipe are taken if it has as many rows, others are named beside it.
"""

import re
from collections.abc import Mapping
from pathlib import Path

from avtlm import config, systems
from avtlm.convert.container import Container, group
from avtlm.convert.model import TITLES, Converted, Stored, build_empty, card, fill
from avtlm.convert.names.inverse import find_key
from avtlm.convert.names.text2unit import EMBEDDING, OUTPUT, RULES, UNUSED
from avtlm.convert.names.transformer import find_name
from avtlm.convert.options import OptionError, Options
from avtlm.systems.fast_text2unit import FastText2UnitConfig
from avtlm.text.vocabulary import PAD, SPECIALS, Vocabulary
from avtlm.units.phonemes import PronunciationConfig, mono_phones

SYSTEM = "fast_text2unit"
# Its architectures, and where their defaults differ (models/fasttext2unit.py).
MODELS: dict[str, dict[str, object]] = {
    "fasttext2unit": {},
    "fasttext2unit_s": {},
    "fasttext2unit_m": {},
    "fasttext2unit_l": {"encoder_attention_heads": 6, "decoder_attention_heads": 6, "attention_dropout": 0.1},
}
SILENCE = "<SIL>"
NOTE = (
    "As in the official code, padding changes what comes out: lines alone and in a batch differ a little. Set compute_padding to false in "
    "config.yaml to make every line independent of its batch."
)


def converted(file: Container, vocabulary: str | Path | None = None) -> Converted:
    """The model of an official file.

    Args:
        vocabulary: dict.txt of its phones, in place of the recipe's.

    Raises:
        ConversionError, OptionError, VocabularyError: tensors or options that are unknown, missing or cannot be honoured; a vocabulary that
            does not fit.
    """
    shapes = {key: tuple(tensor.shape) for key, tensor in file.weights.items()}
    values = {**group(file.cfg, "task", file.path), **group(file.cfg, "criterion", file.path), **MODELS[file.name], **file.model}
    options = Options(values, "cfg.model")
    with options.blamed():
        settings = official_settings(options, shapes)
    phones = _phones(vocabulary, settings.vocabulary)
    build = systems.find(SYSTEM).build
    model = build_empty(lambda: build(settings))
    stored: dict[str, Stored] = {}
    unknown = []
    for key, tensor in file.weights.items():
        if UNUSED.fullmatch(key):
            continue
        try:
            stored[find_name(RULES, key, "the text-to-unit model")] = tensor
        except ValueError:
            unknown.append(key)
    fill(model, stored, lambda name: find_key(RULES, name), f"{file.path} does not hold the tensors of {file.name}", unknown)
    form = {"system": SYSTEM, "task": "text_to_units", "model": config.to_dict(settings)}
    commands = ["avtlm info FOLDER", "avtlm units text2units TEXT --model FOLDER -o FILE.km"]
    text = card(f"{TITLES[SYSTEM]} ({file.name})", model, f"the official checkpoint `{file.path.name}`", commands, [NOTE])
    return Converted(model, form, phones, None, {}, text)


def official_settings(options: Options, shapes: Mapping[str, tuple[int, ...]]) -> FastText2UnitConfig:
    """Our configuration, from the options of a file and the sizes of its tensors.

    Raises:
        OptionError: an option that cannot be honoured, or tensors that are missing.
    """
    for key, *known in (("use_pitch", False), ("use_energe", False), ("add_postnet", False), ("n_frames_per_step", 1)):
        options.require(key, *known)
    options.require("speaker_to_id", None)
    heads, unit_heads = options.take("encoder_attention_heads", 2), options.take("decoder_attention_heads", 2)
    first, duration = "encoder.encoder_fft_layers.0.ffn.ffn.0.weight", "encoder.var_adaptor.duration_predictor.conv1.0.weight"
    absent = next((key for key in (EMBEDDING, OUTPUT, first, duration) if key not in shapes), None)
    if absent is not None:
        raise OptionError(f"it has no {absent}, which every text-to-unit model holds.")
    special = len(SPECIALS)
    return FastText2UnitConfig(
        vocabulary=shapes[EMBEDDING][0],
        units=shapes[OUTPUT][0] - special,
        dim=shapes[EMBEDDING][1],
        layers=_count(shapes, "encoder_fft_layers"),
        unit_layers=_count(shapes, "decoder_fft_layers"),
        heads=heads,
        unit_heads=unit_heads if unit_heads != heads else 0,
        feed_forward_dim=shapes[first][0],
        kernel=shapes[first][2],
        dropout=options.take("dropout", 0.2),
        attention_dropout=options.take("attention_dropout", 0.0),
        duration_dim=shapes[duration][0],
        duration_kernel=shapes[duration][2],
        duration_dropout=options.take("var_pred_dropout", 0.5),
        duration_weight=options.take("dur_loss_weight", 1.0),
        label_smoothing=options.take("label_smoothing", 0.0),
        spare_outputs=special,
        ignored_unit=PAD,
        compute_padding=True,
        pronunciation=PronunciationConfig(stress=False, silence=SILENCE),
    )


def _count(shapes: Mapping[str, tuple[int, ...]], stack: str) -> int:
    found = {match[1] for key in shapes if (match := re.match(rf"encoder\.{stack}\.(\d+)\.", key))}
    return len(found)


def _phones(given: str | Path | None, rows: int) -> Vocabulary:
    """The phones that a model with so many rows reads."""
    phones = Vocabulary([*SPECIALS, *mono_phones()], "tokens") if given is None else Vocabulary.load_dict(given, "tokens")
    if len(phones) != rows:
        where = f"the recipe's phones have {len(phones)} symbols" if given is None else f"{given} has {len(phones)} symbols"
        raise OptionError(f"{where} with the special ones, but the model reads {rows}; name its dict.txt with --vocabulary.")
    return phones
