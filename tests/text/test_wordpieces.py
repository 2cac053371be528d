"""Word pieces as BERT has them: what transformers gives, decoding of Chinese, files, and what is refused."""

from pathlib import Path

import pytest

from avtlm.text.vocabulary import SPECIALS, UNKNOWN, VocabularyError, load_vocabulary
from avtlm.text.wordpieces import WordPieces

SYMBOLS = [*SPECIALS, "[UNK]", "你", "好", "，", "!", "ab", "##c", "##cd", "a", "1", "##2", "cafe", "'", "s", "<mask>"]
TEXTS = ["你好，abcd!", "AB 你abc好", "Café's 12 你", "xyz你 ab", "  a\tab  好\n", "", "a" * 101 + "好", "你\u200b好", "２"]


@pytest.fixture
def pieces() -> WordPieces:
    return WordPieces(SYMBOLS)


@pytest.mark.parametrize("text", TEXTS)
def test_pieces_are_those_of_transformers(pieces: WordPieces, tmp_path: Path, text: str) -> None:
    from transformers import BertTokenizer

    (tmp_path / "vocab.txt").write_text("\n".join(SYMBOLS) + "\n", encoding="utf-8")
    theirs = BertTokenizer(str(tmp_path / "vocab.txt"), do_lower_case=True)
    expected = [UNKNOWN if token == "[UNK]" else SYMBOLS.index(token) for token in theirs.tokenize(text)]
    assert pieces.encode(text) == expected


@pytest.mark.parametrize(
    ("text", "expected"), [("你好，abcd", "你好，abcd"), ("AB 你  abc 好 a1", "ab你abc好"), ("a ab", "a ab"), ("", "")]
)
def test_text_comes_back_without_spaces_around_chinese(pieces: WordPieces, text: str, expected: str) -> None:
    assert pieces.decode(pieces.encode(text)) == expected
    assert pieces.decode([0, *pieces.encode(text), 2, 1]) == expected


def test_words_have_the_places_of_their_pieces(pieces: WordPieces) -> None:
    ids = pieces.encode("你abc 好")
    assert [(span.text, span.first, span.end) for span in pieces.words(ids)] == [("你", 0, 1), ("abc", 1, 3), ("好", 3, 4)]


def test_what_it_cannot_write_is_counted(pieces: WordPieces) -> None:
    report = pieces.unknown_report(["你坏xyz", "好坏"])
    assert (report.unknown, report.total, report.symbols) == (3, 5, {"坏": 2, "xyz": 1})


def test_files_of_bert_and_of_fairseq_are_read_and_folders_keep_them(tmp_path: Path) -> None:
    (tmp_path / "vocab.txt").write_text("[PAD]\n你\n?\n", encoding="utf-8")
    (tmp_path / "dict.txt").write_text("[PAD] 1\n你 1\n? 1\n", encoding="utf-8")
    plain, counted = (WordPieces.read(tmp_path / name, ("<mask>", "?")) for name in ("vocab.txt", "dict.txt"))
    assert plain == counted
    assert hash(plain) == hash(counted)
    assert plain.symbols == [*SPECIALS, "[PAD]", "你", "?", "<mask>"]
    plain.save(tmp_path)
    assert load_vocabulary(tmp_path) == plain
    (tmp_path / "whole.txt").write_text("\n".join(plain.symbols), encoding="utf-8")
    assert WordPieces.read(tmp_path / "whole.txt") == plain


def test_what_is_no_list_of_word_pieces_is_refused(tmp_path: Path) -> None:
    with pytest.raises(VocabularyError, match="starts with"):
        WordPieces(["a", "b"])
    with pytest.raises(VocabularyError, match="'a' is in the vocabulary more than once"):
        WordPieces([*SPECIALS, "a", "a"])
    with pytest.raises(VocabularyError, match=r"none.txt cannot be read"):
        WordPieces.read(tmp_path / "none.txt")
    (tmp_path / "vocabulary.json").write_text('{"kind": "symbols", "symbols": []}')
    with pytest.raises(VocabularyError, match="does not list word pieces"):
        WordPieces.load(tmp_path)
