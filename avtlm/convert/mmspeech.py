"""Official files of MMSpeech, of fairseq and of ModelScope's port, to models in our terms.

What is unusual here:
- A file of fairseq holds neither its texts' symbols nor its phonemes: ``--vocabulary`` names BERT's ``dict.txt`` or ``vocab.txt``. Codes of
  speech stand behind these symbols in the decoder's table. A folder of ModelScope has its ``vocab.txt``.
- How features are normed stands in ``fbank_config.yaml`` beside either; where it is missing, each utterance is, as published.
- Padding changes what the official code puts out, and its weights were trained so. A converted model does the same.
- Tables for pictures, which speech never touches, and a norm and a projection that no code uses are left out.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from avtlm import config, systems
from avtlm.convert.container import Container, group
from avtlm.convert.model import TITLES, ConversionError, Converted, Stored, build_empty, card, fill
from avtlm.convert.names.inverse import find_key
from avtlm.convert.names.mmspeech import EMBEDDING, OUTPUT, UNUSED, official_key, ported_key, rules
from avtlm.convert.names.transformer import find_name
from avtlm.convert.options import OptionError, Options
from avtlm.convert.options.mmspeech import WITHOUT_EFFECT, Tables, official, ported
from avtlm.decoding.settings import DecodingConfig
from avtlm.plain_yaml import read_yaml
from avtlm.systems.mmspeech import MMSpeechConfig
from avtlm.text.mandarin import PHONEMES
from avtlm.text.vocabulary import SPECIALS, Tokenizer, Vocabulary
from avtlm.text.wordpieces import WordPieces

SYSTEM = "mmspeech"
MODELS = ("ofa_speech", "ofa_speech_base", "ofa_speech_large")
TEXT_ROWS, PHONE_ROWS = "decoder.embed_tokens.weight", "encoder.phone_item_embedding.weight"
FEATURES, PIECES, PHONES = "fbank_config.yaml", "vocab.txt", "phones.txt"
PADDING = (
    "As in the official code, padding changes what comes out: clips alone and in a batch differ a little. Set compute_padding and "
    "subsampling.official_lengths to false in config.yaml to make every clip independent of its batch."
)
COMMANDS = ["avtlm info FOLDER", "avtlm transcribe FILE --model FOLDER"]


def converted(file: Container, vocabulary: str | Path | None = None) -> Converted:
    """The model of an official file.

    Args:
        vocabulary: BERT's ``dict.txt`` or ``vocab.txt``, in place of what the file holds.

    Raises:
        ConversionError, OptionError, VocabularyError: tensors or options that are unknown, missing or cannot be honoured; symbols that do
            not fit.
    """
    rows, table = _rows(file.weights, TEXT_ROWS), _rows(file.weights, PHONE_ROWS)
    if vocabulary is None and file.target is None:
        raise OptionError("it holds no symbols of its texts; name BERT's dict.txt or vocab.txt with --vocabulary.")
    tokens = _symbols(vocabulary, file.target)
    named = file.phones or ()
    phones = named.index("<mask>") - len(SPECIALS) if "<mask>" in named else len(PHONEMES)
    tables = Tables(len(tokens), _codes(tokens, rows), phones, table - len(SPECIALS) - phones - 1)
    options = Options(file.model, "cfg.model", WITHOUT_EFFECT)
    settings = official(options, tables)
    if not file.mixed:
        options.finish()
    notes = [PADDING]
    settings = _normed(settings, file.path.parent, notes)
    first_stage = group(file.cfg, "task", file.path).get("train_stage") == 1
    if first_stage:
        notes.append("It is of the first stage of pre-training and has read texts alone; it cannot hear yet.")
    symbols = [*named[len(SPECIALS) : len(SPECIALS) + phones]] or list(PHONEMES)
    return _made(file.weights, settings, tokens, symbols, notes, str(file.path), file.path.name, lambda key: key, first_stage)


def reads(values: Mapping[str, Any]) -> bool:
    """Whether a config.json is that of ModelScope's port."""
    return values.get("model_type") in ("ofa", "mmspeech") and bool(
        {"phone_vocab_size", "encoder_conv_pos", "phone_dict_size"} & set(values)
    )


def converted_port(folder: Path, values: Mapping[str, Any], system: str | None, weights: Mapping[str, Stored]) -> Converted:
    """The model of a folder of ModelScope.

    Args:
        values: its config.json.
        system: to make sure of it.

    Raises:
        ConversionError, OptionError, VocabularyError: see `converted`.
    """
    if system not in (None, SYSTEM):
        raise OptionError(f"it holds {TITLES[SYSTEM]}, not {TITLES.get(str(system), system)}; convert it with --system {SYSTEM}.")
    if not (folder / PIECES).is_file():
        raise OptionError(f"{PIECES} is missing; copy it from where the model comes from.")
    official_names = {official_key(key): tensor for key, tensor in weights.items()}
    tokens = _symbols(folder / PIECES, None)
    rows = _rows(official_names, TEXT_ROWS)
    _codes(tokens, rows)
    settings = ported(dict(values), "config.json", rows, len(tokens))
    notes = [PADDING]
    settings = _normed(settings, folder, notes)
    return _made(official_names, settings, tokens, list(PHONEMES), notes, str(folder), folder.resolve().name, ported_key, False)


def _made(
    weights: Mapping[str, Stored],
    settings: MMSpeechConfig,
    tokens: Tokenizer,
    phones: list[str],
    notes: list[str],
    where: str,
    name: str,
    there: Callable[[str], str],
    first_stage: bool,
) -> Converted:
    """Fill the model with tensors under official names; ``there`` turns such a name into that of the file."""
    settings = replace(settings, task="pretrain" if first_stage else "recognition")
    build = systems.find(SYSTEM).build
    model = build_empty(lambda: build(settings))
    stored: dict[str, Stored] = {}
    unknown = []
    for key, tensor in weights.items():
        if UNUSED.fullmatch(key) or (key == OUTPUT and settings.decoder.tie_embeddings):
            continue
        try:
            stored[find_name(rules(), key, TITLES[SYSTEM])] = tensor
        except ValueError:
            unknown.append(there(key))
    fill(model, stored, lambda ours: there(_official(ours)), f"{where} does not hold the tensors of {TITLES[SYSTEM]}", unknown)
    form = {"system": SYSTEM, "task": "pretrain" if first_stage else "transcription", "model": config.to_dict(settings)}
    text = card(TITLES[SYSTEM], model, f"`{name}`", COMMANDS[: 1 if first_stage else None], notes)
    decoding = None if first_stage else DecodingConfig(**settings.search)
    return Converted(model, form, tokens, decoding, {PHONES: "".join(f"{phone}\n" for phone in phones)}, text)


def _official(name: str) -> str:
    if name == EMBEDDING:
        return TEXT_ROWS
    try:
        return find_key(rules(), name)
    except ValueError:
        return name


def _rows(weights: Mapping[str, Stored], key: str) -> int:
    """Raises ConversionError if a table is missing."""
    if key not in weights:
        raise ConversionError(f"it has no {key}, which every file of {TITLES[SYSTEM]} holds.")
    return weights[key].shape[0]


def _symbols(path: str | Path | None, known: list[str] | None) -> Tokenizer:
    """Symbols of texts with the two further ones behind; word pieces, unless there are none."""
    pieces = WordPieces.read(path, MMSpeechConfig.further_symbols) if path is not None else WordPieces(known or SPECIALS)
    whole = any(symbol.startswith("##") or symbol == "[UNK]" for symbol in pieces.symbols)
    return pieces if whole else Vocabulary(pieces.symbols)


def _codes(tokens: Tokenizer, rows: int) -> int:
    """Codes of speech behind the symbols of text. Raises OptionError if there are more symbols than rows."""
    if len(tokens) > rows:
        raise OptionError(
            f"the vocabulary has {len(tokens)} symbols with <mask> and <blank>, but the decoder {rows}; they do not belong together."
        )
    return rows - len(tokens)


def _normed(settings: MMSpeechConfig, folder: Path, notes: list[str]) -> MMSpeechConfig:
    """How features are normed, by ``fbank_config.yaml`` if it is there."""
    path = folder / FEATURES
    if not path.is_file():
        notes.append(f"{FEATURES} was not there; features are normed over each utterance, as published.")
        return settings
    transforms = read_yaml(path).get("transforms", {})
    asked = (transforms.get("_eval") or transforms.get("*") or []) if isinstance(transforms, dict) else []
    odd = [name for name in asked if name != "utterance_cmvn"]
    if odd:
        raise OptionError(f"{FEATURES} asks for {', '.join(map(str, odd))}, and avtlm norms utterances alone (utterance_cmvn).")
    return replace(settings, subsampling=replace(settings.subsampling, normalise="utterance_cmvn" in asked))
