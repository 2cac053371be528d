"""Phonemes by eSpeak NG's rules: IPA by words, ARPAbet with stress, and one sentence where it cannot be done."""

import sys

import pytest

from avtlm.errors import MissingExtra
from avtlm.units import grapheme_to_phoneme
from avtlm.units.grapheme_to_phoneme import ARPABET, VOWELS, arpabet, ipa
from avtlm.units.phonemes import CONSONANTS


def test_arpabet_has_stress_on_its_vowels_alone() -> None:
    assert arpabet(["h", "ə", "l", "ˈoʊ"]) == ("HH", "AH0", "L", "OW1")
    assert arpabet(["h", "ə", "l", "ˈoʊ"], stress=False) == ("HH", "AH", "L", "OW")
    assert arpabet(["f", "ˈaɪɚ"]) == ("F", "AY1", "ER0")
    assert arpabet(["ˌɑɹ", "?"]) == ("AA2", "R")


def test_every_symbol_is_one_of_arpabet() -> None:
    assert {symbol for phones in ARPABET.values() for symbol in phones} <= {*VOWELS, *CONSONANTS}
    assert {symbol for phones in ARPABET.values() for symbol in phones} >= {*VOWELS, *CONSONANTS} - {"ZH"}


def test_a_missing_library_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "espeakng_loader", None)
    with pytest.raises(MissingExtra, match=r"avtlm\[phonemes\]"):
        ipa(["word"])


def test_words_are_read_one_by_one_and_alike_in_every_call() -> None:
    pytest.importorskip("espeakng_loader")
    first = ipa(["the cat sat", "a reading room", ""])
    assert first == ipa(["the cat sat", "a reading room", ""])
    assert [len(words) for words in first] == [3, 3, 0]
    assert [grapheme_to_phoneme.without_stress(phone) for phone in first[0][1]] == ["k", "æ", "t"]
    assert ipa([]) == []


def test_clauses_of_a_text_are_all_read() -> None:
    pytest.importorskip("espeakng_loader")
    (words,) = ipa(["yes, a cat. no"])
    assert len(words) == 4


def test_an_unknown_language_is_refused() -> None:
    pytest.importorskip("espeakng_loader")
    with pytest.raises(ValueError, match="eSpeak NG knows no 'xx-none'"):
        ipa(["word"], "xx-none")


def test_synthesis_is_not_disturbed() -> None:
    """Both use one library that has one state in a process."""
    pytest.importorskip("espeakng_loader")
    from preprocess.synthesis.espeak import Voice, speak

    voice = Voice("en-us+adam", 150, 45, 45)
    before = speak("one two", voice)
    ipa(["three four"])
    after = speak("one two", voice)
    assert before.phones == after.phones
    assert (before.wave == after.wave).all()
