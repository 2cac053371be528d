"""Lists of AISHELL: what is scored of a transcript, and lists that are damaged."""

from pathlib import Path

import pytest

from preprocess.corpora.aishell import characters, read_pairs, row


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ("而 对 楼市 成交", "而对楼市成交"),
        ("ｂ 股 和 Ａ 股", "B股和A股"),
        ("t恤", "T恤"),
        ("搬不走的要及时'关停并转'", "搬不走的要及时关停并转"),
        ("Nothing's Gonna Change", "NOTHING'SGONNACHANGE"),
        ("，。", "，。"),
    ],
)
def test_characters_that_are_scored(raw: str, expected: str) -> None:
    assert characters(raw) == expected


def test_a_transcript_without_characters_is_refused() -> None:
    with pytest.raises(ValueError, match="its transcript is empty"):
        row("a", "a.wav", " ' ", "S1", "train")
    assert row("a", "a.wav", "好", "S1", "dev").split == "valid"


def test_lists_are_read_whatever_divides_their_columns(tmp_path: Path) -> None:
    path = tmp_path / "trans.txt"
    path.write_text("a\t好  的\n\nb 不\nc\n", encoding="utf-8")
    assert read_pairs(path) == {"a": "好  的", "b": "不", "c": ""}
    path.write_text("a 好\na 不\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"trans.txt, line 2: a stands there for the second time"):
        read_pairs(path)
    path.write_text("\n", encoding="utf-8")
    with pytest.raises(ValueError, match="this list is empty"):
        read_pairs(path)
    path.write_bytes(b"a \xff\xfe\n")
    with pytest.raises(ValueError, match="it is not UTF-8 text"):
        read_pairs(path)
