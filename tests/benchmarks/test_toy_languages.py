"""Toy languages: every command has one translation, told from all others, in the order that each language's rule says."""

from pathlib import Path

import pytest

from avtlm.data.manifest import Manifest, Utterance, read_manifest, write_manifest
from benchmarks.toy_languages import LANGUAGES, add_translations, translate
from preprocess.synthesis.sentences import GRAMMAR


@pytest.mark.parametrize("language", LANGUAGES)
def test_lists_have_a_word_of_their_own_for_every_english_one(language: str) -> None:
    words, order = LANGUAGES[language]
    assert [len(part) for part in words] == [len(part) for part in GRAMMAR]
    assert sorted(order) == list(range(len(GRAMMAR)))
    flat = [word for part in words for word in part]
    assert len(set(flat)) == len(flat)


def test_german_keeps_the_order_and_italian_puts_the_colour_behind_the_digit() -> None:
    assert translate("place blue at f nine now", "german") == "stelle blau an f neun jetzt"
    assert translate("place blue at f nine now", "italian") == "colloca presso f nove blu adesso"


def test_what_is_no_command_is_refused() -> None:
    for text in ("place blue at f nine", "nine blue at f place now", ""):
        with pytest.raises(ValueError, match="is no command of the synthetic corpus"):
            translate(text, "german")


def test_a_manifest_gets_both_translations_and_keeps_its_files(tmp_path: Path) -> None:
    row = Utterance("one", audio="one.wav", transcript="set red in q zero again", split="train", extra={"part": "audio"})
    (tmp_path / "corpus").mkdir()
    write_manifest(tmp_path / "corpus" / "manifest.jsonl", Manifest(tmp_path / "corpus", (row,)))
    add_translations(tmp_path / "corpus" / "manifest.jsonl", tmp_path / "out" / "translations.jsonl")
    [found] = (made := read_manifest(tmp_path / "out" / "translations.jsonl"))
    assert found.extra == {"part": "audio", "german": "setze rot in q null wieder", "italian": "metti dentro q zero rosso ancora"}
    assert made.path(found.audio).resolve() == (tmp_path / "corpus" / "one.wav").resolve()
