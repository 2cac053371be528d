"""Official files of SpeechLM and SpeechUT to models in our terms: pre-trained, fine-tuned to recognise or to translate, and cleaned ones
that give features alone.

What is unusual here:
- A pre-trained file holds dictionaries of units (of speech, and by other names of text) and of letters. The latter become the vocabulary.
- A fine-tuned file may only name the one that it came from. Its sizes are read off its tensors then, or from that file (``--pretrained``).
  What only pre-training uses is left out of such models.
- A cleaned file (SUPERB's) lacks embeddings of units and the head for CTC; it becomes a model without heads (``heads: false``).
- Padding changes what the official code puts out, and its weights were trained so. A converted model does the same.
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import nn

from avtlm import config, systems
from avtlm.convert.container import MISSING, Container, group, read_container
from avtlm.convert.model import TITLES, Converted, Stored, build_empty, card, fill
from avtlm.convert.names.inverse import find_key
from avtlm.convert.names.transformer import find_name
from avtlm.convert.names.unit_bridge import DISTANCE_NORM, PREFIXES, UNITS, UNUSED, Bridge, bridge_rules, plain_key
from avtlm.convert.options import OptionError, Options
from avtlm.convert.options.unit_bridge import bridge, fine_tuning, fine_tuning_spare, pretraining_spare, released_options
from avtlm.convert.vocabulary import units_file
from avtlm.decoding.settings import DecodingConfig
from avtlm.frontends.filterbank import SAMPLE_RATE
from avtlm.systems.unit_bridge import BridgeConfig, UnitBridge
from avtlm.text.vocabulary import SPACE, Tokenizer, Vocabulary

# The official models by their names in fairseq: our system, and what they were fine-tuned with.
MODELS: dict[str, tuple[Bridge, str | None]] = {
    "speechlm": ("speechlm", None),
    "speechlm_ctc": ("speechlm", "ctc"),
    "speechlm_st_legacy": ("speechlm", "translation"),
    "speechut": ("speechut", None),
    "speechut_asr": ("speechut", "joint"),
    "speechut_st_legacy": ("speechut", "translation"),
}
TEXT_UNITS = "text_units.txt"  # how texts call the units of a model folder, where speech has other names for them
PRETRAINING = ("predictor.", "shared_predictor.", "unit_output.", "unit_embedding.")
MASK = "<mask>"
LETTERS_ROWS, DECODER_ROWS = "unit_encoder_ctc_head.5.weight", "decoder.embed_tokens.weight"
LINEAR_ROWS = "unit_encoder_ctc_head.weight"  # of a model that was fine-tuned without the head of pre-training
PADDING = (
    "As in the official code, padding changes what comes out: clips alone and in a batch differ a little. Set waveform.compute_padding to "
    "false in config.yaml to make every clip independent of its batch."
)
NO_HEADS = (
    "It has no heads, embeddings of units or CTC: what pre-training learned units and letters by is not in the file, which is for features."
)


def system_of(file: Container) -> str:
    """The model's name in fairseq; that of a cleaned file, which may have lost it, by its tensors."""
    if file.name in MODELS or "text_transformer" not in file.model or not file.weights.keys() & {"final_proj_list.0.weight", "mask_emb"}:
        return file.name
    return "speechlm" if "final_proj_list.0.weight" in file.weights else "speechut"


def converted(file: Container, pretrained: str | Path | None = None, vocabulary: str | Path | None = None) -> Converted:
    """The model of an official file.

    Args:
        pretrained: the file that a fine-tuned one came from, where it does not tell its sizes.
        vocabulary: SentencePiece model or ``dict.txt`` of the texts, in place of what the file holds.

    Raises:
        ConversionError, OptionError, VocabularyError: tensors or options that are unknown, missing or cannot be honoured; dictionaries that
            do not fit.
    """
    name = system_of(file)
    system, kind = MODELS[name]
    if kind is None:
        if pretrained is not None:
            raise OptionError("this is a pre-trained model; --pretrained is for fine-tuned ones.")
        return _pretrained(file, name, system, vocabulary)
    return _fine_tuned(file, name, system, kind, pretrained, vocabulary)


# Pre-trained --------------------------------------------------------------------------------------------------------------------------


def _pretrained(file: Container, name: str, system: Bridge, vocabulary: str | Path | None) -> Converted:
    shapes = {key: tensor.shape for key, tensor in file.weights.items()}
    cleaned = "unit_embed_tokens.weight" not in shapes and "unit_encoder.embed_tokens.weight" not in shapes
    rows = _rows(shapes, LETTERS_ROWS) or _rows(shapes, DECODER_ROWS)
    cfg = file.cfg
    if cleaned and LETTERS_ROWS not in shapes:
        cfg = {**cfg, "model": {**file.model, "add_text_ctc": False}}
    settings = pretrained_settings(file.path, cfg, system, _units(file, shapes), rows, without_criterion=cleaned)
    tokens = None if cleaned else _text_vocabulary(file, vocabulary, rows)
    if tokens is not None:
        settings = replace(settings, text_mask=has_mask(tokens, rows))
    model = _empty(settings, system)
    form: dict[str, Any] = {"system": system, "task": "pretrain"}
    notes = [PADDING]
    if cleaned:
        assert isinstance(model, UnitBridge)
        model.drop_heads()
        form["heads"] = False
        notes.append(NO_HEADS)
    _fill(file, name, system, model, settings, dict(file.weights), notes, keep_heads=not cleaned)
    form["model"] = config.to_dict(settings)
    commands = ["avtlm info FOLDER", f"avtlm units MANIFEST OUT --model FOLDER --layer {settings.encoder.layers}"]
    text = card(f"{TITLES[system]} ({name})", model, f"the official checkpoint `{file.path.name}`", commands, notes)
    return Converted(model, form, tokens, None, {} if cleaned else _unit_files(file), text)


def pretrained_settings(
    path: Path, cfg: Mapping[str, Any], system: Bridge, units: tuple[int, ...], letters: int, without_criterion: bool = False
) -> BridgeConfig:
    """Our configuration, from the options of a pre-trained file and the sizes of its tables.

    Raises:
        OptionError: an option that cannot be honoured, or is unknown.
    """
    task, criterion = group(cfg, "task", path), group(cfg, "criterion", path)
    if task.get("sample_rate") not in (None, SAMPLE_RATE):
        raise OptionError(f"cfg.task: sample_rate is {task['sample_rate']}; avtlm's models hear {SAMPLE_RATE} samples per second.")
    values = dict(group(cfg, "model", path))
    rates = [rate for rate in (values.pop("label_rate", None), task.get("label_rate")) if isinstance(rate, int | float) and rate > 0]
    values |= {"label_rate": rates[0]} if rates else {}
    if not without_criterion:
        values |= {key: value for key, value in criterion.items() if not key.startswith("_") and value is not None}
    options = Options(values, "cfg.model", pretraining_spare())
    with options.blamed():
        settings = bridge(options, system, units, letters, normalise=bool(task.get("normalize", False)), official=True)
    options.finish()
    return settings


def _units(file: Container, shapes: Mapping[str, tuple[int, ...]]) -> tuple[int, ...]:
    """Classes of each kind of units; those of the defaults for a file that has lost them.

    Raises:
        OptionError: dictionaries and tables do not belong together.
    """
    rows = _rows(shapes, "unit_embed_tokens.weight") or _rows(shapes, "unit_encoder.embed_tokens.weight")
    second = _rows(shapes, "label_embs_list.1") or _rows(shapes, "code_encoder_proj.weight") or rows
    sizes = [len(symbols) for symbols in file.units]
    for what, found in (("speech", sizes[0] if sizes else rows), ("text", len(file.text_units or ()) or rows)):
        if rows and found != rows:
            raise OptionError(
                f"the dictionary of the units of {what} has {found} symbols, but the model has embeddings of {rows}; "
                "they do not belong together."
            )
    if len(sizes) > 1 and sizes[-1] != second:
        raise OptionError(
            f"the dictionary of the second kind of units has {sizes[-1]} symbols, but the head predicts {second}; "
            "they do not belong together."
        )
    if not rows:
        return (BridgeConfig.units,)
    return (rows, second) if len(sizes) > 1 or second != rows else (rows,)


def _unit_files(file: Container) -> dict[str, str]:
    """Symbols of units, one a line."""
    tables = {units_file(number): symbols for number, symbols in enumerate(file.units)}
    if file.text_units and (not file.units or file.text_units != file.units[0]):
        tables[TEXT_UNITS] = file.text_units
    return {name: "".join(f"{symbol}\n" for symbol in symbols) for name, symbols in tables.items()}


# Fine-tuned ---------------------------------------------------------------------------------------------------------------------------


def _fine_tuned(
    file: Container, name: str, system: Bridge, kind: str, pretrained: str | Path | None, vocabulary: str | Path | None
) -> Converted:
    weights: dict[str, Stored] = {plain_key(key): tensor for key, tensor in file.weights.items()}
    shapes = {key: tensor.shape for key, tensor in weights.items()}
    origin = None if pretrained is None else read_container(pretrained, weightless=True)
    if origin is not None and MODELS.get(system_of(origin)) != (system, None):
        raise OptionError(f"{pretrained} holds {origin.name!r}, no pre-trained model of {TITLES[system]}.")
    table = DECODER_ROWS if kind == "translation" else LINEAR_ROWS if LINEAR_ROWS in shapes else LETTERS_ROWS
    rows = _rows(shapes, table)
    if not rows:
        raise OptionError(f"it has no {table}, which every fine-tuned file of {TITLES[system]} of this kind holds.")
    cfg = _origin_cfg(file, system, shapes, origin)
    # Dictionaries of units say nothing here: what they belong to is left out.
    settings = pretrained_settings(file.path, cfg, system, (BridgeConfig.units,), rows)
    criterion = group(file.cfg, "criterion", file.path)
    options = Options(file.model, "cfg.model", fine_tuning_spare())
    with options.blamed():
        smoothing, written = criterion.get("label_smoothing") or 0.0, criterion.get("dec_weight")
        settings = fine_tuning(options, settings, kind, float(smoothing), 0.5 if written is None else float(written))
    options.finish()
    tokens = _text_vocabulary(file, vocabulary, rows, origin)
    if tokens is None:
        raise OptionError("it holds no dictionary of its texts; name the SentencePiece model or dict.txt with --vocabulary.")
    settings = replace(settings, vocabulary=rows, text_mask=has_mask(tokens, rows))
    model = _empty(settings, system)
    notes = [PADDING]
    _fill(file, name, system, model, settings, weights, notes, keep_heads=False)
    form = {"system": system, "task": "transcription", "model": config.to_dict(settings)}
    commands = ["avtlm info FOLDER", "avtlm transcribe FILE --model FOLDER"]
    text = card(f"{TITLES[system]} ({name})", model, f"the official checkpoint `{file.path.name}`", commands, notes)
    return Converted(model, form, tokens, DecodingConfig(**settings.search), {}, text)  # type: ignore[attr-defined]


def _origin_cfg(file: Container, system: Bridge, shapes: Mapping[str, tuple[int, ...]], origin: Container | None) -> dict[str, Any]:
    """The configuration that a fine-tuned model was pre-trained with, or one that its tensors tell."""
    if origin is not None:
        return origin.cfg
    arguments = file.model.get("w2v_args")
    if isinstance(arguments, dict) and isinstance(arguments.get("model"), dict):
        return arguments
    if arguments not in (None, MISSING, {}):
        raise OptionError(f"cfg.model.w2v_args is {arguments!r:.60}, no configuration of a pre-trained model.")
    normalise = file.model.get("normalize") or group(file.cfg, "task", file.path).get("normalize")
    return {"model": released_options(system, shapes), "task": {"normalize": bool(normalise) and normalise != MISSING}}


# Texts --------------------------------------------------------------------------------------------------------------------------------


def has_mask(tokens: Tokenizer, rows: int) -> bool:
    """Whether the last of so many symbols of text is ``<mask>``, which word pieces do not count."""
    return len(tokens) < rows or tokens.symbols[-1] == MASK


def _text_vocabulary(file: Container, given: str | Path | None, rows: int, origin: Container | None = None) -> Tokenizer | None:
    """Symbols of the texts: of what is given, of the file's dictionaries, or of those of the file that it came from.

    Raises:
        OptionError: they do not fit the tables, or are word pieces without their SentencePiece model.
        VocabularyError: they cannot be read.
    """
    from avtlm.text.subwords import WORD_START, Subwords

    found: Tokenizer | None = None
    if given is not None and Path(given).suffix == ".model":
        found = Subwords.load_model(given)
    else:
        symbols = Vocabulary.load_dict(given).symbols if given is not None else file.target or file.text
        if symbols is None and origin is not None:
            symbols = origin.text
        if symbols is None or not rows:
            return None
        if any(WORD_START in symbol and symbol != WORD_START for symbol in symbols):
            raise OptionError("its dictionary of texts lists word pieces without their SentencePiece model; name that with --vocabulary.")
        found = Vocabulary([SPACE if symbol == WORD_START else symbol for symbol in symbols])
    if len(found) not in (rows, rows - 1):
        where = f"{given} has" if given is not None else "its dictionary of texts has"
        raise OptionError(f"{where} {len(found)} symbols, but the model {rows}; they do not belong together.")
    return found


# Tensors ------------------------------------------------------------------------------------------------------------------------------


def _rows(shapes: Mapping[str, tuple[int, ...]], key: str) -> int:
    return shapes[key][0] if key in shapes else 0


def _empty(settings: BridgeConfig, system: str) -> nn.Module:
    build = systems.find(system).build
    return build_empty(lambda: build(settings))


def normed_distances(settings: BridgeConfig) -> dict[str, bool]:
    """Whether the layers of a stack, by its official name, norm vectors of distances."""
    return {
        "encoder": settings.encoder.norm_first,
        "unit_encoder": settings.unit_encoder.norm_first,
        "decoder": settings.decoder is not None and settings.decoder.norm_first,
    }


def ours(
    weights: Mapping[str, Stored], settings: BridgeConfig, system: Bridge, keep_heads: bool = True
) -> tuple[dict[str, Stored], list[str], list[str]]:
    """Tensors by our names, keys that have none, and keys that only pre-training uses, where those are not kept."""
    rules = bridge_rules(system, settings.waveform.norm)
    used = normed_distances(settings)
    tied = settings.decoder is not None and settings.decoder.tie_embeddings
    stored: dict[str, Stored] = {}
    unknown, left = [], []
    for key, tensor in weights.items():
        distance = DISTANCE_NORM.fullmatch(key)
        if UNUSED.fullmatch(key) or (distance and not used[distance[1]]) or (tied and key == "decoder.output_projection.weight"):
            continue
        try:
            name = find_name(rules, key, TITLES[system])
        except ValueError:
            unknown.append(key)
            continue
        if settings.projects and name.startswith("predictor.project."):
            stored[name.replace("predictor.project.", "entrance.")] = tensor
        if name.startswith(PRETRAINING) and not keep_heads:
            left.append(key)
            continue
        if settings.ctc_head == "none" and name.startswith("ctc."):
            left.append(key)
            continue
        if settings.projects and name == "predictor.units":
            continue  # the embeddings, once more or in their place
        stored[name] = tensor
        if name.startswith("predictor.glu.") and system == "speechlm":
            stored[f"shared_{name}"] = tensor
    if settings.projects and UNITS in stored:
        stored["predictor.units"] = stored[UNITS]
    return stored, unknown, left


def _fill(
    file: Container,
    name: str,
    system: Bridge,
    model: nn.Module,
    settings: BridgeConfig,
    weights: dict[str, Stored],
    notes: list[str],
    keep_heads: bool,
) -> None:
    """Give the model its tensors, strictly, and note which ones were left out."""
    stored, unknown, left = ours(weights, settings, system, keep_heads)
    rules = bridge_rules(system, settings.waveform.norm)
    prefix = next((prefix for prefix in PREFIXES if any(key.startswith(prefix) for key in file.weights)), "")

    def official(our_name: str) -> str:
        try:
            key = find_key(rules, our_name)
        except ValueError:
            return our_name
        return prefix + key if prefix + key in file.weights or not key.startswith("decoder.") else key

    unknown = [key if key in file.weights else prefix + key for key in unknown]
    fill(model, stored, official, f"{file.path} does not hold the tensors of {name}", unknown)
    if left:
        notes.append(f"Left out, since only pre-training uses it: {', '.join(left)}.")
