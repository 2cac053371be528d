"""Vocabularies of Hugging Face folders: symbols in any order, and what is wrong with those that do not fit."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from avtlm import systems
from avtlm.convert.huggingface import convert_folder
from avtlm.convert.model import ConversionError
from avtlm.text.vocabulary import SPECIALS
from tests.convert import made_transformers as made

COMMUNITY = {"a": 0, "e": 1, "t": 2, "o": 3, "'": 4, "/": 5, "[UNK]": 6, "[PAD]": 7, "n": 8}


def community(folder: Path) -> Any:
    """A model with its blank at another place, another sign for the space, and no symbols for the ends."""
    model = made.make("wav2vec2 large", "ForCTC", pad_token_id=7)
    with torch.no_grad():
        torch.nn.init.normal_(model.lm_head.weight)
    made.save(model, folder, COMMUNITY)
    special = {
        "pad_token": {"__type": "AddedToken", "content": "[PAD]"},
        "unk_token": "[UNK]",
        "bos_token": "<s>",
        "eos_token": "</s>",
        "word_delimiter_token": "/",
    }
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "Wav2Vec2CTCTokenizer", **special}))
    (folder / "added_tokens.json").write_text(json.dumps({"<s>": 9, "</s>": 10}))
    return model


def test_symbols_in_another_order_give_the_transcripts_of_transformers(tmp_path: Path) -> None:
    model = community(tmp_path / "theirs")
    folder = convert_folder(tmp_path / "theirs", None, tmp_path / "ours")
    ours = systems.load(folder)
    assert ours.vocabulary.symbols == [*SPECIALS, *"aeto'|n"]
    card = (folder / "README.md").read_text()
    assert "in another order than in the folder" in card
    assert "It never writes <pad>, </s>" in card
    # Read from the folder, this version of transformers forgets the sign for the space.
    special = {"pad_token": "[PAD]", "unk_token": "[UNK]", "word_delimiter_token": "/"}
    tokenizer = made.transformers.Wav2Vec2CTCTokenizer(str(tmp_path / "theirs/vocab.json"), **special)
    one = made.clips((9000,))
    with torch.no_grad():
        expected = made.letters_of(tokenizer.decode(model(one.audio).logits[0].argmax(-1)), "<s>", "</s>", "[UNK]")
    assert len(expected) > 3
    assert ours.transcribe_batch(one)[0].text == expected


def test_rows_that_no_symbol_belongs_to_get_names(tmp_path: Path) -> None:
    letters = {letter: index for letter, index in made.LETTERS.items() if index != 7}
    folder = made.save(made.make("hubert", "ForCTC"), tmp_path / "theirs", letters)
    assert systems.load(convert_folder(folder, None, tmp_path / "ours")).vocabulary.symbols[7] == "madeupword0007"


VOCABULARIES: dict[str, tuple[Callable[[Path], Any], str]] = {
    "no vocabulary": (lambda folder: (folder / "vocab.json").unlink(), r"vocab\.json is missing"),
    "too many symbols": (lambda folder: made.change(folder / "vocab.json", X=9), r"has 10 symbols for the 9 rows of the head"),
    "two symbols in one place": (lambda folder: made.change(folder / "vocab.json", X=5), "has 10 symbols for the 9 rows"),
    "several languages": (
        lambda folder: (folder / "vocab.json").write_text(json.dumps({"eng": {"a": 0}, "deu": {"a": 0}})),
        r"vocabularies of several languages \(eng, deu\)",
    ),
    "no numbers": (lambda folder: made.change(folder / "vocab.json", X="x"), "does not give every symbol a number"),
    "another blank": (made.with_config(pad_token_id=5), r"pad_token_id is 5, but vocab\.json calls that symbol 'E'"),
    "white space": (
        lambda folder: (folder / "vocab.json").write_text(json.dumps({"a b" if key == "T" else key: n for key, n in made.LETTERS.items()})),
        "'a b' is empty or holds white space",
    ),
    "a missing head": (made.with_tensors(lambda state: state.pop("lm_head.bias")), r"1 missing \(lm_head\.bias\)"),
}


@pytest.mark.parametrize("name", VOCABULARIES)
def test_vocabularies_that_do_not_fit_are_refused_in_one_sentence(name: str, tmp_path: Path) -> None:
    folder = made.save(made.make("wav2vec2", "ForCTC"), tmp_path / "theirs", made.LETTERS)
    change, message = VOCABULARIES[name]
    change(folder)
    with pytest.raises(ConversionError, match=message):
        convert_folder(folder, None, tmp_path / "out/ours")
    assert not (tmp_path / "out").exists()
