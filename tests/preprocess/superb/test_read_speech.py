"""LibriSpeech for phonemes and words."""

from pathlib import Path

import pytest

from preprocess.superb.read_speech import first_pronunciations
from tests.preprocess.corpora.made_sound import sound, text
from tests.preprocess.superb.read_folder import clips, prepare

PARTS = {"train-clean-100": "HE SAID THE CAT", "dev-clean": "THE CAT", "test-clean": "HE SAID"}
NAMES = {"train": "1-2-0000", "dev": "2-2-0000", "test": "3-2-0000"}


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "LibriSpeech"
    for (part, words), name in zip(PARTS.items(), NAMES.values(), strict=True):
        sound(root / part / name[0] / "2" / f"{name}.flac")
        text(root / part / name[0] / "2" / f"{name[:3]}.trans.txt", f"{name} {words}")
    return root


@pytest.fixture
def lexicon(tmp_path: Path) -> Path:
    return text(tmp_path / "lexicon.txt", "THE  DH AH0", "THE  DH IY0", "CAT\tK AE1 T", "he HH IY1", "SAID S EH1 D")


def test_words_are_in_upper_case(tree: Path, tmp_path: Path) -> None:
    corpus = prepare("ASR", tree, tmp_path / "out")
    assert [clips(corpus, split)[name].text("text") for split, name in NAMES.items()] == list(PARTS.values())


def test_phones_are_the_first_pronunciation_of_each_word(tree: Path, lexicon: Path, tmp_path: Path) -> None:
    corpus = prepare("PR", tree, tmp_path / "out", lexicon=[lexicon])
    assert clips(corpus, "dev")["2-2-0000"].names("phones") == ["DH", "AH0", "K", "AE1", "T"]
    assert clips(corpus, "test")["3-2-0000"].names("phones") == ["HH", "IY1", "S", "EH1", "D"]


def test_a_later_lexicon_adds_words_and_changes_none(lexicon: Path, tmp_path: Path) -> None:
    other = text(tmp_path / "other.txt", "CAT K AH0 T", "DOG D AO1 G")
    said = first_pronunciations([lexicon, other])
    assert (said["CAT"], said["DOG"]) == (["K", "AE1", "T"], ["D", "AO1", "G"])
    with pytest.raises(ValueError, match="line 1: 'DOG' has no phones"):
        first_pronunciations([text(tmp_path / "broken.txt", "DOG")])


def test_a_text_with_an_unknown_word_is_left_out_by_name(tree: Path, tmp_path: Path) -> None:
    few = text(tmp_path / "few.txt", "HE HH IY1", "SAID S EH1 D", "THE DH AH0")
    with pytest.raises(ValueError, match=r"has nothing usable for train, and PR needs it.*the lexicon lacks CAT"):
        prepare("PR", tree, tmp_path / "out", lexicon=[few])
