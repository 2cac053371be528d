"""Claims about captions and output files."""

import itertools
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from avtlm.decoding import captions
from avtlm.decoding.result import Hypothesis, Transcript, Word

RESULT = Transcript("bin blue", (Word("bin", 0.2, 0.5, 0.9), Word("blue", 0.5, 0.9, 0.8)), (Hypothesis((), -1.0, text="bin blue"),))


@given(st.lists(st.tuples(st.floats(0, 2), st.floats(0.05, 1.5), st.integers(1, 30)), min_size=1, max_size=40))
def test_captions_keep_to_two_lines_six_seconds_and_no_pause(steps):
    words, now = [], 0.0
    for gap, length, letters in steps:
        words.append((now + gap, now + gap + length, "x" * letters))
        now += gap + length
    cues = captions.cues_of(words)
    assert " ".join(text for _, _, text in cues).split() == [word for _, _, word in words]
    assert [cue[0] for cue in cues] == sorted(cue[0] for cue in cues)
    for start, end, text in cues:
        lines = captions.lines_of(text)
        assert len(lines) <= 2
        assert all(len(line) <= captions.LINE for line in lines)
        assert end - start <= captions.CUE_SECONDS
        inside = [word for word in words if start <= word[0] < end]
        assert all(after[0] - before[1] < captions.PAUSE for before, after in itertools.pairwise(inside))


def test_a_long_caption_has_two_lines():
    words = tuple(Word("seven77", 0.2 * place, 0.2 * place + 0.2) for place in range(8))
    shown = Transcript(" ".join(word.text for word in words), words).to_srt().splitlines()
    assert shown[1] == "00:00:00,000 --> 00:00:01,600"
    assert shown[2:4] == ["seven77 seven77 seven77 seven77 seven77", "seven77 seven77 seven77"]


def test_a_long_text_without_times_is_spread_over_the_clip():
    cues = Transcript("word " * 40, duration=20.0).cues()
    assert len(cues) > 2
    assert (cues[0][0], cues[-1][1]) == (0.0, 20.0)
    assert all(before[1] == pytest.approx(after[0]) for before, after in itertools.pairwise(cues))


@pytest.mark.parametrize(
    ("kind", "out", "expected"),
    [
        (None, None, "text"),
        ("json", None, "json"),
        (None, "a/b.SRT", "srt"),
        ("vtt", "folder", "vtt"),
        (None, "folder", "text"),
        (None, "x.txt", "text"),
    ],
)
def test_the_format_follows_its_name_or_the_file(kind, out, expected):
    assert captions.format_of(kind, out) == expected


def test_targets_are_one_file_or_one_in_the_folder_for_each():
    files = [Path("x/a.mp4"), Path("y/b.mp4")]
    assert captions.targets(files[:1], "out.srt", "srt") == [Path("out.srt")]
    assert captions.targets(files, "out", "json") == [Path("out/a.json"), Path("out/b.json")]
    with pytest.raises(ValueError, match=r"--format json does not fit --out a\.srt"):
        captions.format_of("json", "a.srt")
    with pytest.raises(ValueError, match="is one file, but there are 2"):
        captions.targets(files, "out.srt", "srt")
    with pytest.raises(ValueError, match="several files of the same name"):
        captions.targets([Path("x/a.mp4"), Path("y/a.mp4")], "out", "text")


def test_files_are_written_whole_and_end_in_a_newline(tmp_path):
    for kind, ending in captions.FORMATS.items():
        target = tmp_path / "new" / f"a{ending}"
        captions.write(RESULT, Path("clip.mp4"), target, kind)
        assert target.read_text().endswith("\n")
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["a.json", "a.srt", "a.txt", "a.vtt"]
    read = json.loads((tmp_path / "new" / "a.json").read_text())
    assert read["file"] == "clip.mp4"
    assert read["words"] == [
        {"word": "bin", "start": 0.2, "end": 0.5, "confidence": 0.9},
        {"word": "blue", "start": 0.5, "end": 0.9, "confidence": 0.8},
    ]
