"""Mandarin to phonemes: by a lexicon as officially, by pinyin, and what is refused in one sentence."""

from pathlib import Path

import pytest

from avtlm.errors import MissingExtra
from avtlm.text import mandarin
from avtlm.text.mandarin import PHONEMES, MandarinConfig, MandarinPhonemizer, official, phonemes_of, read_lexicon

WORDS = {"银行": ["y", "i2", "n", "h", "a2", "ng"], "行": ["x", "i2", "ng"], "语音识别": ["y"], "语": ["y", "u3"], "零": ["l", "i2", "ng"]}


def test_the_phonemes_are_the_120_of_the_official_dictionary() -> None:
    assert len(PHONEMES) == 120
    assert (PHONEMES[0], PHONEMES[29], PHONEMES[-1]) == ("a1", "er2", "zh")
    assert {"er1", "ue5", "ui5", "ve4"}.isdisjoint(PHONEMES)


@pytest.mark.parametrize(
    ("syllable", "expected"),
    [
        ("zhong1", "zh o1 ng"),
        ("guo2", "g uo2"),
        ("nv3", "n v3"),
        ("xue2", "x ue2"),
        ("lve4", "l ue4"),
        ("you3", "y ou3"),
        ("yuan2", "y ua2 n"),
        ("xiong1", "x i1 o1 ng"),
        ("yong4", "y o4 ng"),
        ("er2", "er2"),
        ("er5", "er2"),
        ("a5", "a5"),
        ("zun1", "z u1 n"),
        ("wai4", "w ai4"),
        ("weng1", "w e1 ng"),
        ("jun1", "j u1 n"),
        ("hng5", "e5 n"),
    ],
)
def test_pinyin_falls_into_initial_vowels_with_tone_and_nasal(syllable: str, expected: str) -> None:
    assert " ".join(phonemes_of(syllable)) == expected
    assert set(phonemes_of(syllable)) <= set(PHONEMES)


@pytest.mark.parametrize("wrong", ["zhong", "zhong6", "xq1", "b1", ""])
def test_what_is_no_syllable_is_refused(wrong: str) -> None:
    with pytest.raises(ValueError, match="pinyin: "):
        phonemes_of(wrong)


def test_every_syllable_of_the_library_has_phonemes() -> None:
    from pypinyin.constants import PINYIN_DICT
    from pypinyin.contrib.tone_convert import to_tone3

    syllables = {each for entry in list(PINYIN_DICT.values())[::7] for each in entry.split(",")}
    said = {to_tone3(each, neutral_tone_with_five=True, v_to_u=False) for each in syllables}
    unsaid = {each for each in said if not set(_phonemes_or_none(each)) <= set(PHONEMES)}
    assert len(said) > 1000
    assert unsaid == set()


def _phonemes_or_none(syllable: str) -> list[str]:
    try:
        return phonemes_of(syllable)
    except ValueError:
        return ["none"]


def test_texts_are_said_by_pinyin_with_the_readings_of_their_words() -> None:
    say = MandarinPhonemizer(MandarinConfig(digits="read"))
    assert " ".join(say("中国银行，我们走。")) == "zh o1 ng g uo2 y i2 n h a2 ng w o3 m e5 n z ou3"
    assert say("3个") == ["s", "a1", "n", "g", "e4"]


def test_a_lexicon_is_followed_character_by_character_and_may_stop_within_a_word() -> None:
    say = MandarinPhonemizer(official(None), WORDS)
    assert say.tokens("语音识语银行x") == ["语音识", "语", "银行", "x"]
    assert " ".join(say("语音识语银行x")) == "y u3 y u3 y i2 n h a2 ng"
    assert say("7") == WORDS["零"]
    assert say("") == []


def test_a_lexicon_is_read_and_its_first_line_of_a_word_counts(tmp_path: Path) -> None:
    path = tmp_path / "lexicon.txt"
    path.write_text("\ufeff行\th a2 ng\n行\tx i2 ng\n", encoding="utf-8")
    assert read_lexicon(path) == {"行": ["h", "a2", "ng"]}
    assert MandarinPhonemizer(MandarinConfig(str(path)))("行") == ["h", "a2", "ng"]
    path.write_text("行 h a2 ng\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"lexicon.txt, line 1: expected a word, a tab"):
        read_lexicon(path)
    path.write_bytes(b"\xff\xfe\n")
    with pytest.raises(ValueError, match="is not UTF-8 text"):
        read_lexicon(path)


@pytest.mark.parametrize("words", [None, WORDS])
@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("銀行", "line 3: has the traditional character 銀; write simplified ones, or set traditional to convert."),
        ("银行ABC", "line 3: has the Latin letter 'A', which has no phonemes; write it in characters, or leave the text out."),
        ("银行12号", "line 3: has the digits 12; write them in characters, as they are said."),
        ("银行ф", "line 3: has the character 'ф', whose phonemes are unknown; add it to the lexicon, or leave the text out."),
    ],
)
def test_what_cannot_be_said_is_refused_in_one_sentence(words: dict[str, list[str]] | None, text: str, message: str) -> None:
    with pytest.raises(ValueError) as caught:
        MandarinPhonemizer(MandarinConfig(), words)(text, "line 3")
    assert str(caught.value) == message


def test_the_official_rules_convert_or_leave_out_the_same() -> None:
    say = MandarinPhonemizer(official(None), WORDS)
    assert " ".join(say("銀行ABCф1")) == "y i2 n h a2 ng l i2 ng"


def test_a_missing_library_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "pypinyin", None)
    with pytest.raises(MissingExtra, match=r"avtlm\[mandarin\]"):
        MandarinPhonemizer(MandarinConfig())
    monkeypatch.setitem(sys.modules, "zhconv", None)
    with pytest.raises(MissingExtra, match="zhconv"):
        mandarin.simplify("银行")
    assert mandarin.simplify("plain") == "plain"
