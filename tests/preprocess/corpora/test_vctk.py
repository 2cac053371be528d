"""The reader of VCTK, on generated trees in the layouts of both versions."""

from pathlib import Path

import pytest

from preprocess.corpora.vctk import read
from tests.preprocess.corpora.made_sound import sound, text

SENTENCES = [f"Sentence {'abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMN'[number]} is read." for number in range(40)]


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data") / "VCTK"
    for speaker in ("p225", "p226"):
        for number, sentence in enumerate(SENTENCES[:26], 1):
            for microphone in ("mic1", "mic2"):
                sound(root / "wav48_silence_trimmed" / speaker / f"{speaker}_{number:03d}_{microphone}.flac", rate=48000)
            said = sentence if speaker == "p225" else sentence.lower().replace(".", "!")
            text(root / "txt" / speaker / f"{speaker}_{number:03d}.txt", said)
    sound(root / "wav48_silence_trimmed" / "p315" / "p315_001_mic1.flac")
    return root


def test_one_microphone_is_read_with_its_texts(tree: Path) -> None:
    reading = read(tree)
    row = reading.rows[0]
    assert (row.id, row.audio) == ("p225_001", "wav48_silence_trimmed/p225/p225_001_mic1.flac")
    assert (row.transcript, row.speaker, row.sample_rate) == ("Sentence a is read.", "p225", 48000)
    assert list(reading.left_out.values()) == ["has no text txt/p315/p315_001.txt"]
    assert "2 speakers, the published corpus 110" in reading.remarks[0]
    assert all("mic2" in (row.audio or "") for row in read(tree, microphone="mic2").rows)


def test_a_sentence_stands_in_one_split_whoever_reads_it(tree: Path) -> None:
    rows = read(tree).rows
    splits: dict[str, set[str]] = {}
    for row in rows:
        splits.setdefault((row.transcript or "").lower().rstrip(".!"), set()).add(row.split or "")
    assert len(splits) == 26
    assert all(len(found) == 1 for found in splits.values())
    assert {row.split for row in rows} == {"train", "valid", "test"}


def test_the_older_version_is_read(tmp_path: Path) -> None:
    sound(tmp_path / "VCTK-Corpus" / "wav48" / "p225" / "p225_001.wav", rate=48000)
    text(tmp_path / "VCTK-Corpus" / "txt" / "p225" / "p225_001.txt", "Please call Stella.")
    (row,) = read(tmp_path).rows
    assert (row.id, row.transcript) == ("p225_001", "Please call Stella.")
