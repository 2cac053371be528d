"""Vocabularies of official checkpoints: fairseq's dictionaries, and vocab.json with its special symbols in Hugging Face folders.

What is unusual here:
- Our vocabularies begin with ``<s>`` (CTC's blank), ``<pad>``, ``</s>`` and ``<unk>``, as fairseq's. In a Hugging Face folder the blank is
  the padding symbol, wherever it stands, so the rows of its head may have to change places; those that it lacks are never chosen.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from avtlm.convert.container import Container
from avtlm.convert.options import OptionError
from avtlm.text.vocabulary import BLANK, EOS, PAD, SPACE, SPECIALS, UNKNOWN, Tokenizer, Vocabulary

VOCAB, TOKENIZER, SPECIAL_TOKENS = "vocab.json", "tokenizer_config.json", "special_tokens_map.json"
ADDED = "added_tokens.json"
NEVER = -1e4  # logit of a symbol that a head does not know
# The special symbols there that take the places of ours: the blank is called padding, and the other way round.
ROLES = {"pad_token": BLANK, "bos_token": PAD, "eos_token": EOS, "unk_token": UNKNOWN}
DEFAULTS = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "word_delimiter_token": "|"}


def fairseq_vocabulary(file: Container, given: str | Path | None) -> Tokenizer:
    """Symbols of the transcripts of a fine-tuned checkpoint: word pieces, or the letters of a dictionary.

    Args:
        given: SentencePiece model or dict.txt, used in place of what the file holds.

    Raises:
        OptionError: there are none, or two that differ.
        VocabularyError: ``given`` cannot be read.
    """
    from avtlm.text.subwords import WORD_START, Subwords

    if given is not None:
        return Subwords.load_model(given) if Path(given).suffix == ".model" else spelled(Vocabulary.load_dict(given).symbols)
    if file.subwords is not None:
        pieces = Subwords(file.subwords)
        if file.target is not None and file.target != pieces.symbols:
            place = next((i for i, (a, b) in enumerate(zip(file.target, pieces.symbols)) if a != b), min(len(file.target), len(pieces)))
            raise OptionError(
                f"the dictionary of the transcripts ({len(file.target)} symbols) and the SentencePiece model ({len(pieces)} pieces) differ "
                f"from symbol {place} on; they do not belong together."
            )
        return pieces
    if file.target is None:
        raise OptionError("it holds no dictionary of the transcripts; name the SentencePiece model or dict.txt with --vocabulary.")
    if any(WORD_START in symbol for symbol in file.target):
        raise OptionError("it holds a dictionary of word pieces without their SentencePiece model; name that with --vocabulary.")
    return spelled(file.target)


def check_rows(vocabulary: Tokenizer, rows: int) -> None:
    """Raises OptionError if a head writes another number of symbols than the vocabulary has."""
    if rows != len(vocabulary):
        raise OptionError(
            f"the dictionary of the transcripts has {len(vocabulary)} symbols, but the head writes {rows}; "
            "the checkpoint and its vocabulary do not belong together."
        )


def spelled(symbols: list[str]) -> Vocabulary:
    """Letters with a sign for the space, or tokens set apart by spaces."""
    letters = SPACE in symbols and all(len(symbol) == 1 or symbol.startswith("madeupword") for symbol in symbols[len(SPECIALS) :])
    return Vocabulary(symbols, "characters" if letters else "tokens")


def units_file(inventory: int) -> str:
    """The symbols of the units in a model folder, one a line, of the first inventory or a further one."""
    return f"units_{inventory}.txt" if inventory else "units.txt"


# Hugging Face -------------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class HeadVocabulary:
    """A vocabulary, and which row of the head there belongs to each of its symbols (None: none)."""

    vocabulary: Vocabulary
    rows: tuple[int | None, ...]

    def notes(self) -> list[str]:
        """For a model card: what is in another place than in the folder."""
        if self.rows == tuple(range(len(self.rows))):
            return []
        absent = [SPECIALS[place] for place, row in enumerate(self.rows) if row is None]
        never = f" It never writes {', '.join(absent)}, for which it had no row." if absent else ""
        return [f"The rows of the head are in another order than in the folder, with CTC's blank first.{never}"]


def read_hugging_face(folder: Path, rows: int, blank: int) -> HeadVocabulary:
    """The symbols of a model with a CTC head.

    Args:
        rows: of the head.
        blank: the padding symbol of its configuration.

    Raises:
        OptionError: a file is missing or damaged, or does not fit the head.
        VocabularyError: a symbol that no vocabulary here can have.
    """
    table = read_json(folder / VOCAB)
    if any(isinstance(value, dict) for value in table.values()):
        raise OptionError(f"{VOCAB} has vocabularies of several languages ({', '.join(list(table)[:4])}); avtlm reads one of letters.")
    if not table or not all(type(index) is int and index >= 0 for index in table.values()):
        raise OptionError(f"{VOCAB} does not give every symbol a number.")
    special = dict(DEFAULTS)
    for name in (SPECIAL_TOKENS, TOKENIZER):
        if (folder / name).is_file():
            found = read_json(folder / name)
            special |= {key: _text(found[key]) for key in DEFAULTS if found.get(key) is not None}
    if (folder / ADDED).is_file():
        table = {**read_json(folder / ADDED), **table}
    symbols = {index: symbol for symbol, index in table.items()}
    beyond = [symbol for symbol, index in table.items() if index >= rows and symbol not in (special["bos_token"], special["eos_token"])]
    if beyond or len(symbols) < len(table):
        raise OptionError(
            f"{VOCAB} has {len(table)} symbols for the {rows} rows of the head; the weights and the vocabulary do not belong together."
        )
    if not blank < rows or symbols.get(blank, special["pad_token"]) != special["pad_token"]:
        raise OptionError(
            f"pad_token_id is {blank}, but {VOCAB} calls that symbol {symbols.get(blank)!r}, and the padding symbol, CTC's blank, is "
            f"{special['pad_token']!r}."
        )
    places: dict[int, int | None] = {BLANK: blank}
    for key, place in ROLES.items():
        if place != BLANK:
            index = table.get(special[key])
            places[place] = index if index is not None and index < rows and index != blank else None
    taken = set(places.values())
    letters = [index for index in range(rows) if index not in taken]
    names = [
        SPACE if symbols.get(index) == special["word_delimiter_token"] else symbols.get(index, f"madeupword{index:04d}")
        for index in letters
    ]
    return HeadVocabulary(spelled([*SPECIALS, *names]), (*(places[place] for place in range(len(SPECIALS))), *letters))


def write_hugging_face(vocabulary: Tokenizer) -> dict[str, Any]:
    """Files of a tokenizer by name, as dictionaries for JSON. Raises OptionError if the symbols are word pieces."""
    if not isinstance(vocabulary, Vocabulary):
        raise OptionError("it writes word pieces of SentencePiece, and the tokenizers of these models in transformers have letters only.")
    names = {place: DEFAULTS[key] for key, place in ROLES.items()}
    symbols = [names.get(index, symbol) for index, symbol in enumerate(vocabulary.symbols)]
    special = {key: DEFAULTS[key] for key in ROLES}
    settings = {
        **special,
        "word_delimiter_token": SPACE,
        "do_lower_case": False,
        "replace_word_delimiter_char": " ",
        "tokenizer_class": "Wav2Vec2CTCTokenizer",
    }
    return {VOCAB: {symbol: index for index, symbol in enumerate(symbols)}, TOKENIZER: settings, SPECIAL_TOKENS: special}


def read_json(path: Path) -> dict[str, Any]:
    """A JSON object. Raises OptionError if the file is missing or no such thing."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise OptionError(f"{path.name} is missing; copy it from where the model comes from.") from error
    except (OSError, ValueError, RecursionError) as error:
        raise OptionError(f"{path.name} is damaged ({' '.join(str(error).split())[:80]}); copy it again.") from error
    if not isinstance(content, dict):
        raise OptionError(f"{path.name} is damaged: expected a JSON object.")
    return content


def _text(token: Any) -> str:
    """A special symbol, written as such or as an object with its properties."""
    return str(token.get("content")) if isinstance(token, dict) else str(token)
