"""Sentences are distinct and keep to their grammar."""

import numpy as np
import pytest

from preprocess.synthesis.sentences import DIGITS, GRAMMAR, KINDS, WORDS, Kind, distinct, spoken


@pytest.mark.parametrize("kind", KINDS)
def test_no_sentence_comes_twice_and_the_seed_decides(kind: Kind) -> None:
    sentences = distinct(kind, 3000, np.random.default_rng(1))
    assert len(set(sentences)) == 3000
    assert sentences == distinct(kind, 3000, np.random.default_rng(1))
    assert sentences != distinct(kind, 3000, np.random.default_rng(2))


def test_commands_fill_six_slots_with_51_words() -> None:
    assert sum(len(slot) for slot in GRAMMAR) == 51
    for sentence in distinct("command", 200, np.random.default_rng(1)):
        assert all(word in slot for word, slot in zip(sentence.split(), GRAMMAR, strict=True))


@pytest.mark.parametrize(("kind", "words"), [("digits", DIGITS), ("words", WORDS)])
def test_strings_have_four_to_seven_words(kind: Kind, words: tuple[str, ...]) -> None:
    lengths = {len(sentence.split()) for sentence in distinct(kind, 500, np.random.default_rng(1))}
    assert lengths == {4, 5, 6, 7}
    assert {word for sentence in distinct(kind, 500, np.random.default_rng(1)) for word in sentence.split()} == set(words)


def test_mixed_sentences_hold_all_kinds() -> None:
    sentences = distinct("mixed", 500, np.random.default_rng(1))
    digits = [s for s in sentences if set(s.split()) <= set(DIGITS)]
    commands = [s for s in sentences if len(s.split()) == 6 and all(w in slot for w, slot in zip(s.split(), GRAMMAR, strict=True))]
    assert len(digits) > 50
    assert len(commands) > 200
    assert len(sentences) - len(digits) - len(commands) > 50


def test_more_commands_than_the_grammar_has_are_refused() -> None:
    with pytest.raises(ValueError, match="64,000"):
        distinct("command", 64_001, np.random.default_rng(1))


def test_lone_letters_are_spelt() -> None:
    assert spoken("place blue at a two now") == "place blue at A two now"
