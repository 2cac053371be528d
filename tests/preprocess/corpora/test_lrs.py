"""Transcripts of LRS2 and LRS3, and where long clips are cut."""

from pathlib import Path

import pytest

from preprocess.corpora.lrs import Span, Word, cut_clip, read_text, read_words, spans
from tests.preprocess.corpora.made_lrs import clip

LONG = [("i", 0.2, 0.4), ("see", 0.5, 1.0), ("a", 1.5, 1.6), ("{cat}", 1.9, 9.0), ("asleep", 9.5, 15.2)]


def test_transcripts_are_the_first_line_in_lower_case_without_braces(tmp_path: Path) -> None:
    path = clip(tmp_path / "a.mp4", [("it's", 0, 1), ("{uh}", 1, 2), ("ten:thirty", 2, 3)]).with_suffix(".txt")
    assert read_text(path) == "it's uh ten:thirty"
    path.write_text("Text:   \nConf: 1\n")
    with pytest.raises(ValueError, match="its transcript is empty"):
        read_text(path)
    path.write_text("no tag\n")
    with pytest.raises(ValueError, match="has no colon"):
        read_text(path)


def test_tables_of_words_are_read_below_their_header(tmp_path: Path) -> None:
    path = clip(tmp_path / "a.mp4", LONG, table=True).with_suffix(".txt")
    assert read_words(path)[3:] == [Word("cat", 1.9, 9.0), Word("asleep", 9.5, 15.2)]
    for content, reason in (
        ("Text: A\n", "has no table of words"),
        ("Text: A\nWORD START END\nA 0.1 soon\n", "has the line 'A 0.1 soon'"),
        ("Text: A\nWORD START END\nA\n", "has the line 'A'"),
        ("Text: A\nWORD START END\n", "is empty"),
    ):
        path.write_text(content)
        with pytest.raises(ValueError, match=reason):
            read_words(path)


def test_clips_are_cut_in_the_middle_of_pauses_longer_than_four_tenths() -> None:
    words = [Word(text, start, end) for text, start, end in LONG]
    # Pauses: 0.1, 0.5 (cut at 1.25), 0.3, 0.5 (cut at 9.25).
    assert spans(words) == [Span("i see", 0.0, 1.25), Span("a {cat}", 1.25, 9.25), Span("asleep", 9.25, None)]
    assert spans(words[2:4]) == [Span("a {cat}", 0.0, None)]
    overlapping = [Word("a", 0.0, 2.0), Word("b", 1.5, 3.0), Word("c", 3.5, 4.0)]
    assert [part.text for part in spans(overlapping)] == ["a b", "c"]


def test_short_clips_stay_whole_and_parts_have_ids_texts_and_times(tmp_path: Path) -> None:
    clip(tmp_path / "v" / "1.mp4", LONG, table=True)
    clip(tmp_path / "v" / "2.mp4", LONG[:3], table=True)
    clip(tmp_path / "v" / "3.mp4", [("on", 0.0, 9.0), ("and", 9.1, 20.0)], table=True)
    rows = [row for name in "123" for row in cut_clip(Path(f"v/{name}.mp4"), tmp_path, f"short/{name}", "v", "train")]
    assert [row.id for row in rows] == ["short/1_0", "short/1_1", "short/1_2", "short/2", "short/3_0"]
    assert [row.transcript for row in rows] == ["i see", "a cat", "asleep", "i see a", "on and"]
    assert [row.extra.get("span") for row in rows] == [[0.0, 1.25], [1.25, 9.25], [9.25, None], None, [0.0, None]]
    assert {row.video for row in rows[:3]} == {"v/1.mp4"}
