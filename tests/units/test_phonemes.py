"""Phones of a text: the lexicon's rules, what becomes of words that it lacks, silences and durations from stated draws."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from avtlm.units.phonemes import (
    Lexicon,
    MissingWords,
    Phonemizer,
    PronunciationConfig,
    add_silences,
    draw_durations,
    fits,
    kaldi_phones,
    letters,
    mono_phones,
    phone_class,
    placed,
    upsample,
)

KALDI = {"<UNK>": ("SPN_S",), "A": ("AH0_S",), "THE": ("DH_B", "AH0_E"), "CAT": ("K_B", "AE1_I", "T_E")}
MONO = {"A": ("AH",), "THE": ("DH", "AH"), "CAT": ("K", "AE", "T")}


class Draws:
    """Stated numbers in place of a generator's."""

    def __init__(self, uniform: list[float] = (), normal: float = 0.0) -> None:  # type: ignore[assignment]
        self.uniform, self.shift, self.asked = list(uniform), normal, Counter[str]()

    def random(self, size: int) -> Any:
        self.asked["random"] += size
        return [self.uniform.pop(0) for _ in range(size)]

    def normal(self, loc: float, scale: float) -> float:
        self.asked["normal"] += 1
        return loc + self.shift * scale


def written(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


# Alphabets -----------------------------------------------------------------------------------------------------------------------


def test_the_phone_table_is_that_of_kaldis_recipe() -> None:
    phones = kaldi_phones()
    assert len(phones) == len(set(phones)) == 364
    assert phones[:3] == ["<eps>", "SIL", "SIL_B"]
    assert [phones.index(phone) for phone in ("SPN_S", "AA_B", "AH0_E", "DH_B", "#0")] == [10, 11, 48, 119, 347]


def test_the_mono_phones_are_those_of_the_text_to_unit_model() -> None:
    phones = mono_phones()
    assert len(phones) == 42
    assert [phones.index(phone) for phone in ("|", "<SIL>", "'", "AA", "ZH")] == [0, 1, 2, 3, 41]


@pytest.mark.parametrize(
    ("kind", "symbols"),
    [
        ("vowel", ["AH", "AH0", "AA1_B", "ə", "ˈeɪ", "ɚ", "oʊ", "er"]),
        ("consonant", ["T", "DH_B", "tʃ", "ɹ", "ZH", "l"]),
        ("silence", ["SIL", "<SIL>", "sil", "SIL_S", "SPN_S", "", "sp"]),
    ],
)
def test_vowels_consonants_and_silence_are_told_apart_in_arpabet_and_ipa(kind: str, symbols: list[str]) -> None:
    assert {phone_class(symbol) for symbol in symbols} == {kind}


# Lexicon -------------------------------------------------------------------------------------------------------------------------


def test_the_last_entry_of_a_word_counts_and_variants_and_comments_do_not(tmp_path: Path) -> None:
    lexicon = Lexicon.read(written(tmp_path / "l.txt", ";;; words\nREAD  R EH1 D\nREAD R IY1 D\nREAD(2) R EH1 D # past\nA AH0\n"))
    assert dict(lexicon) == {"READ": ("R", "IY1", "D"), "A": ("AH0",)}
    assert (lexicon.arpabet, lexicon.stress, lexicon.positions) == (True, True, False)


def test_kaldis_layout_names_every_word_twice(tmp_path: Path) -> None:
    lexicon = Lexicon.read(written(tmp_path / "l.txt", "THE THE DH_B AH0_E\nA A AH0_S\n"))
    assert dict(lexicon) == {"THE": ("DH_B", "AH0_E"), "A": ("AH0_S",)}
    assert lexicon.positions


@pytest.mark.parametrize(("text", "reason"), [("A AH\nB\n", "line 2: expected a word and its phones; found 'B'"), ("", "has no words")])
def test_a_damaged_lexicon_is_named_with_its_line(text: str, reason: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=rf"l\.txt.*{reason}"):
        Lexicon.read(written(tmp_path / "l.txt", text))


def test_a_lexicon_that_is_not_utf_8_is_refused(tmp_path: Path) -> None:
    (tmp_path / "l.txt").write_bytes(b"A AH\n\xff\xfe B\n")
    with pytest.raises(ValueError, match="line 2: is not UTF-8"):
        Lexicon.read(tmp_path / "l.txt")


# Words ---------------------------------------------------------------------------------------------------------------------------


def test_words_are_found_in_any_case_and_missing_ones_are_noise_counted_and_listed() -> None:
    phonemizer = Phonemizer(PronunciationConfig(unknown="spn"), Lexicon(KALDI))
    assert phonemizer(["the zebra cat", "A zebra"]) == [
        [("DH_B", "AH0_E"), ("SPN_S",), ("K_B", "AE1_I", "T_E")],
        [("AH0_S",), ("SPN_S",)],
    ]
    assert (phonemizer.missing.total, phonemizer.missing.missing, phonemizer.missing.listed()) == (5, 2, [("zebra", 2)])
    assert str(phonemizer.missing) == "2 of 5 words are not in the lexicon (40.00 %): 'zebra' 2x"


def test_without_a_word_for_noise_its_symbol_is_taken() -> None:
    assert Phonemizer(PronunciationConfig(unknown="spn", noise="spn"), Lexicon(MONO))(["zebra"]) == [[("spn",)]]


def test_lines_with_missing_words_can_be_left_out() -> None:
    phonemizer = Phonemizer(PronunciationConfig(unknown="drop"), Lexicon(MONO))
    assert phonemizer(["the zebra", "the cat"]) == [None, [("DH", "AH"), ("K", "AE", "T")]]
    assert phonemizer.missing.missing == 1


def test_missing_words_are_found_by_rules_in_the_lexicons_alphabet() -> None:
    pytest.importorskip("espeakng_loader")
    for words, wanted in ((KALDI, [("DH_B", "AH0_E"), ("M_B", "AE1_I", "T_E")]), (MONO, [("DH", "AH"), ("M", "AE", "T")])):
        phonemizer = Phonemizer(PronunciationConfig(unknown="espeak"), Lexicon(words))
        assert phonemizer(["the mat"]) == [wanted]
        assert phonemizer.missing.listed() == [("mat", 1)]
        assert phonemizer.symbols is not None
        assert {phone for word in wanted for phone in word} <= set(phonemizer.symbols)


def test_stress_can_be_taken_off() -> None:
    stressed = {"CAT": ("K", "AE1", "T")}
    assert Phonemizer(PronunciationConfig(unknown="spn", stress=False), Lexicon(stressed))(["cat"]) == [[("K", "AE", "T")]]


def test_without_a_lexicon_all_words_are_read_by_rules() -> None:
    pytest.importorskip("espeakng_loader")
    for alphabet, wanted in (("kaldi", ("K_B", "AE1_I", "T_E")), ("arpabet", ("K", "AE", "T")), ("ipa", ("k", "æ", "t"))):
        phonemizer = Phonemizer(PronunciationConfig(alphabet=alphabet))  # type: ignore[arg-type]
        (words,) = phonemizer(["the cat"])
        assert words is not None
        assert words[-1] == wanted
    assert Phonemizer(PronunciationConfig(alphabet="ipa")).symbols is None
    assert Phonemizer(PronunciationConfig(alphabet="kaldi")).symbols == kaldi_phones()


def test_rules_do_not_write_a_foreign_alphabet() -> None:
    pytest.importorskip("espeakng_loader")
    with pytest.raises(ValueError, match=r"its phones are not those of ARPAbet.*choose spn or drop"):
        Phonemizer(PronunciationConfig(unknown="espeak"), Lexicon({"chat": ("ʃ", "a")}))


def test_the_list_of_missing_words_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("avtlm.units.phonemes.WORDS_KEPT", 2)
    missing = MissingWords()
    for word in ("a", "b", "c", "a"):
        missing.total += 1
        missing.add(word)
    assert (missing.missing, missing.listed()) == (4, [("a", 2), ("b", 1)])


@pytest.mark.parametrize("changes", [{"silence_probability": 1.5}, {"silence": "a b"}, {"noise": ""}])
def test_settings_that_do_not_fit_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"is not a probability|without white space"):
        PronunciationConfig(**changes)


# Silences and durations ------------------------------------------------------------------------------------------------------------


def test_silences_stand_at_both_ends_and_where_a_draw_is_below_the_probability() -> None:
    draws = Draws([0.24, 0.25])
    assert add_silences([("a",), ("b", "c"), ("d",)], draws) == ["SIL", "a", "SIL", "b", "c", "d", "SIL"]
    assert draws.asked["random"] == 2


def test_one_word_and_no_probability_draw_nothing() -> None:
    draws = Draws()
    assert add_silences([("a",)], draws, "<SIL>") == ["<SIL>", "a", "<SIL>"]
    assert add_silences([("a",), ("b",)], draws, probability=0.0) == ["SIL", "a", "b", "SIL"]
    assert not draws.asked


def test_durations_are_drawn_by_the_kind_of_phone_and_are_at_least_one_frame() -> None:
    assert draw_durations(["SIL", "SPN_S", "AH0_S", "<SIL>"], Draws(normal=1.0)) == [21, 43, 8, 21]  # 7.5 is rounded to even
    assert draw_durations(["SIL", "SPN_S", "AH0_S"], Draws(normal=-3.0)) == [1, 1, 1]


def test_a_line_that_is_too_long_takes_its_means_made_shorter() -> None:
    draws = Draws(normal=1.0)
    assert draw_durations(["SIL", "a", "b"], draws, most=24) == [13, 4, 4]
    assert draws.asked["normal"] == 3
    assert draw_durations(["SIL", "a", "b"], Draws(normal=1.0), most=14) == [10, 1, 1]
    with pytest.raises(ValueError, match="a line of 3 phones does not fit into 3 frames"):
        draw_durations(["SIL", "a", "b"], Draws(normal=1.0), most=3)


def test_old_and_new_generators_of_numpy_are_taken() -> None:
    for rng in (np.random.RandomState(3), np.random.default_rng(3)):
        phones = upsample(add_silences([("a",), ("b",)], rng), rng)
        assert set(phones) == {"SIL", "a", "b"}
        assert (phones[0], phones[-1]) == ("SIL", "SIL")


def test_pairs_are_kept_by_the_length_of_both_sides() -> None:
    assert [fits(1, 9, most=10), fits(0, 9, most=10), fits(10, 1, most=10)] == [True, False, False]


def test_letters_have_a_bar_behind_every_word() -> None:
    assert letters("i don't") == "I | D O N ' T |"
    assert letters("the <unk> cat<unk>") == "T H E | C A T |"


def test_positions_mark_where_a_phone_stands_in_its_word() -> None:
    assert placed(["A"]) == ("A_S",)
    assert placed(["A", "B", "C"]) == ("A_B", "B_I", "C_E")
