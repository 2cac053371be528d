"""Claims about symbol lists, word pieces and transcript rules."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from avtlm.text import normalize
from avtlm.text.subwords import Subwords
from avtlm.text.vocabulary import SPECIALS, Vocabulary, VocabularyError, load_vocabulary

TEXTS = ["bin blue at f two now", "set red by g nine please", "it's a small world after all", "place white with z zero soon"] * 20


@pytest.fixture(scope="module")
def subwords():
    return Subwords.train(TEXTS, size=40)


def test_special_symbols_come_first_in_the_order_of_fairseq():
    assert Vocabulary.characters(["ba b"]).symbols == ["<s>", "<pad>", "</s>", "<unk>", "|", "a", "b"]


@settings(max_examples=60, deadline=None)
@given(st.text(alphabet="abc' \t", max_size=30))
def test_decoding_what_was_encoded_gives_the_text_with_single_spaces(text):
    vocabulary = Vocabulary.characters(["abc'"])
    assert vocabulary.decode(vocabulary.encode(text)) == " ".join(text.split())


def test_special_ids_are_dropped_from_text():
    vocabulary = Vocabulary.characters(["ab"])
    a, b = vocabulary.encode("ab")
    assert vocabulary.decode([0, a, 1, 3, b, 2, 2]) == "ab"


def test_text_cannot_smuggle_special_symbols_in():
    assert Vocabulary.tokens(["aa ih"]).encode("<s> aa </s>") == [3, 4, 3]


def test_unknown_characters_are_counted_and_named():
    report = Vocabulary.characters(["abc"]).unknown_report(["abz", "z?"])
    assert (report.unknown, report.total, report.symbols) == (3, 5, {"z": 2, "?": 1})
    assert str(report) == "3 of 5 symbols unknown (60.00 %): 'z' 2x, '?' 1x"
    assert Vocabulary.characters([]).unknown_report([]).rate == 0.0


def test_words_carry_the_positions_of_their_letters():
    vocabulary = Vocabulary.characters(["abc"])
    ids = vocabulary.encode("ab c")
    spans = vocabulary.words([*ids[:1], 3, *ids[1:], ids[2]])  # an unknown inside the first word, a space at the end
    assert [(s.text, s.first, s.end) for s in spans] == [("ab", 0, 3), ("c", 4, 5)]
    assert vocabulary.words([]) == []


def test_a_vocabulary_survives_saving_and_loading(tmp_path, subwords):
    for number, vocabulary in enumerate([Vocabulary.characters(TEXTS), Vocabulary.tokens(["AA0 B", "SIL"]), subwords]):
        folder = tmp_path / str(number)
        vocabulary.save(folder)
        assert load_vocabulary(folder) == vocabulary
        assert type(vocabulary).load(folder).symbols == vocabulary.symbols


def test_the_dictionary_of_fairseq_is_read_and_written(tmp_path):
    vocabulary = Vocabulary.characters(["abc"])
    vocabulary.save_dict(tmp_path / "dict.ltr.txt")
    assert (tmp_path / "dict.ltr.txt").read_text() == "| 1\na 1\nb 1\nc 1\n"
    assert Vocabulary.load_dict(tmp_path / "dict.ltr.txt") == vocabulary
    (tmp_path / "dict.txt").write_text("E 5\nmadeupword0000 0\n# 3 #fairseq:overwrite\n")
    assert Vocabulary.load_dict(tmp_path / "dict.txt").symbols[4:] == ["E", "madeupword0000", "#"]


@pytest.mark.parametrize(
    ("content", "message"),
    [("a\n", "line 1: expected a symbol and a count"), ("a 1\nb x\n", "line 2"), ("a 1\na 2\n", "'a' is in the vocabulary more than once")],
)
def test_a_broken_dictionary_is_named_by_line(tmp_path, content, message):
    path = tmp_path / "dict.txt"
    path.write_text(content)
    with pytest.raises(VocabularyError, match=message):
        Vocabulary.load_dict(path)


def test_a_missing_or_damaged_vocabulary_is_one_sentence(tmp_path):
    with pytest.raises(VocabularyError, match=r"vocabulary.json is missing"):
        load_vocabulary(tmp_path)
    (tmp_path / "vocabulary.json").write_text("[1")
    with pytest.raises(VocabularyError, match="cannot be read"):
        load_vocabulary(tmp_path)
    (tmp_path / "vocabulary.json").write_text(json.dumps({"kind": "subwords", "model": "subwords.model"}))
    with pytest.raises(VocabularyError, match=r"subwords.model cannot be read"):
        load_vocabulary(tmp_path)
    (tmp_path / "subwords.model").write_bytes(b"no model")
    with pytest.raises(VocabularyError, match="not a SentencePiece model"):
        load_vocabulary(tmp_path)
    with pytest.raises(VocabularyError, match="starts with"):
        Vocabulary(["a", "b"])
    with pytest.raises(VocabularyError, match="white space"):
        Vocabulary([*SPECIALS, "a b"])


def test_word_pieces_have_the_ids_of_av_hubert(subwords):
    assert subwords.symbols[:4] == list(SPECIALS)
    assert len(subwords) == 40


def test_word_pieces_spell_every_training_text_exactly(subwords):
    for text in TEXTS[:4]:
        ids = subwords.encode(text)
        assert subwords.decode([0, *ids, 2]) == text
        assert [span.text for span in subwords.words(ids)] == text.split()
        assert subwords.decode(ids[subwords.words(ids)[1].first : subwords.words(ids)[1].end]) == text.split()[1]


def test_word_pieces_are_the_same_every_time(subwords):
    assert Subwords.train(TEXTS, size=40) == subwords


def test_word_pieces_report_what_they_cannot_spell(subwords):
    report = subwords.unknown_report(["bin q\u00e9", "now"])
    assert report.unknown >= 1
    assert any("\u00e9" in symbol for symbol in report.symbols)
    assert subwords.unknown_report(TEXTS).rate == 0.0


def test_too_many_pieces_for_the_text_is_one_sentence():
    with pytest.raises(VocabularyError, match=r"1000 word pieces cannot be trained from 2 sentences: at most \d+ pieces fit"):
        Subwords.train(["one two", "three"], size=1000)
    with pytest.raises(VocabularyError, match="hold no words"):
        Subwords.train(["", "  "])


def test_lrs3_text_is_what_follows_the_first_colon_in_lower_case():
    assert normalize.lrs3_file("Text:  IT'S 5: OK  \nConf:  4\n") == "it's 5: ok"
    with pytest.raises(ValueError, match="no colon"):
        normalize.lrs3_file("HELLO")


def test_letter_transcripts_become_words():
    assert normalize.normalize("T H E | C A T |", "letters") == "THE CAT"
    assert normalize.normalize("  HELLO \t World") == "hello world"
    with pytest.raises(ValueError, match="choose one of"):
        normalize.normalize("x", "no such rule")


def test_letters_are_those_of_the_official_fine_tuning(tmp_path: Path) -> None:
    letters = Vocabulary.letters()
    assert len(letters) == 32
    assert letters.symbols[4:8] == ["|", "E", "T", "A"]
    ids = letters.encode("the cat's  hat")
    assert [letters.symbols[index] for index in ids] == list("THE|CAT'S|HAT|")
    assert letters.decode(ids) == "THE CAT'S HAT"
    further = Vocabulary([*letters.symbols, "<mask>"], "letters")  # no letter, in whatever case
    assert further.encode("the cat's  hat") == ids
    assert [(span.text, span.first, span.end) for span in letters.words(ids)] == [("THE", 0, 3), ("CAT'S", 4, 9), ("HAT", 10, 13)]
    assert letters.unknown_report(["naïve 7"]).symbols == {"Ï": 1, "7": 1}
    letters.save(tmp_path)
    assert load_vocabulary(tmp_path) == letters
    assert load_vocabulary(tmp_path).encode("a") == letters.encode("A")
    with pytest.raises(VocabularyError, match="'a' is in lower case"):
        Vocabulary([*SPECIALS, "|", "a"], "letters")
