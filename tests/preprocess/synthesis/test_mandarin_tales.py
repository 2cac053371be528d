"""Mandarin sentences: distinct, repeatable, in characters that are said as their pinyin says."""

import numpy as np
import pytest

from avtlm.text.mandarin import PHONEMES, simplify
from preprocess.synthesis.mandarin_tales import PEOPLE, Phrase, distinct_tales, phrases, words


def test_sentences_are_distinct_and_repeat_with_their_seed() -> None:
    made = distinct_tales(500, np.random.default_rng(3))
    assert len({each.text for each in made}) == 500
    assert made == distinct_tales(500, np.random.default_rng(3))
    assert made != distinct_tales(500, np.random.default_rng(4))


def test_sentences_are_short_and_use_every_word() -> None:
    made = distinct_tales(4000, np.random.default_rng(1))
    assert {len(each.text) for each in made} <= set(range(4, 20))
    everything = "".join(f"{each.text} " for each in made)
    assert [word.text for word in words() if word.text not in everything] == []
    assert len(words()) > 250


def test_words_are_chinese_characters_alone_with_phonemes_that_mandarin_has() -> None:
    for word in words():
        assert all("一" <= character <= "鿿" for character in word.text), word.text
        assert set(word.phonemes) <= set(PHONEMES)


def test_words_are_simplified_and_said_as_dictionaries_say_but_for_tones_that_kinship_loses() -> None:
    pytest.importorskip("zhconv", reason="needs the extra 'mandarin'")
    pypinyin = pytest.importorskip("pypinyin", reason="needs the extra 'mandarin'")
    for word in words():
        assert simplify(word.text) == word.text
        said = pypinyin.lazy_pinyin(word.text, style=pypinyin.Style.TONE3, neutral_tone_with_five=True, v_to_u=False)
        if word.text == 2 * word.text[0]:  # 妈妈 is ma1 ma1 in the dictionary, and ma1 ma5 in all mouths
            said[1] = f"{said[0][:-1]}5"
        assert tuple(said) == word.pinyin, word.text


def test_nobody_is_together_with_himself() -> None:
    for each in distinct_tales(500, np.random.default_rng(2)):
        assert not any(f"{person.text}{link}{person.text}" in each.text for person in PEOPLE for link in "和给"), each.text


def test_a_word_without_a_syllable_for_each_character_is_a_mistake_of_the_list() -> None:
    assert phrases("女儿 nv3 er2, 马 ma3") == (Phrase("女儿", ("nv3", "er2")), Phrase("马", ("ma3",)))
    assert phrases("女儿 nv3 er2")[0].phonemes == ("n", "v3", "er2")
    with pytest.raises(AssertionError, match="女儿: nv3"):
        phrases("女儿 nv3")
