"""Fluent Speech Commands and Audio SNIPS."""

from pathlib import Path

import pytest

from avtlm.evaluation.slot_filling import slots
from preprocess.superb.spoken_commands import marked
from tests.preprocess.corpora.made_sound import sound, text
from tests.preprocess.superb.read_folder import clips, prepare


def test_an_intent_is_an_action_an_object_and_a_location(tmp_path: Path) -> None:
    root = tmp_path / "fluent"
    for split in ("train", "valid", "test"):
        path = f"wavs/speakers/2BqVo8kVB2Skwgyb/{split}.wav"
        header = ",path,speakerId,transcription,action,object,location"
        text(root / "data" / f"{split}_data.csv", header, f'0,{path},2BqVo8kVB2Skwgyb,"Lights on, please",activate,lights,none')
        sound(root / path)
    corpus = prepare("IC", tmp_path, tmp_path / "out")
    (clip,) = clips(corpus, "dev").values()
    assert (clip.id, clip.names("labels")) == ("2BqVo8kVB2Skwgyb/valid", ["activate", "lights", "none"])


def test_neighbouring_words_of_one_type_are_one_slot() -> None:
    text = marked(["PLAY", "ABBA", "&", "QUEEN", "NOW", ",", "PLEASE"], ["O", "artist", "artist", "artist", "time", "O", "O"])
    assert text == "PLAY B-artist ABBA AND QUEEN E-artist B-time NOW E-time PLEASE"
    assert slots(text) == {"artist": ["ABBA AND QUEEN"], "time": ["NOW"]}


def test_marks_of_beginnings_part_slots_of_one_type() -> None:
    assert marked(["ONE", "TWO", "THREE"], ["B-a", "B-a", "I-a"]) == "B-a ONE E-a B-a TWO THREE E-a"


def test_each_split_has_speakers_of_its_own(tmp_path: Path) -> None:
    root = tmp_path / "SNIPS"
    names = ("Ivy-snips-train-0", "Amy-snips-valid-0", "Brian-snips-test-0", "Ivy-snips-test-0")
    text(root / "all.iob.snips.txt", *(f"{name} BOS ADD THIS SONG EOS\tO O O music_item AddToPlaylist" for name in names))
    for name in names:
        sound(root / name.split("-")[2] / f"{name}.wav")
    corpus = prepare("SF", root, tmp_path / "out")
    assert [list(clips(corpus, split)) for split in ("train", "dev", "test")] == [[name] for name in names[:3]]
    assert clips(corpus, "test")[names[2]].text("text") == "ADD THIS B-music_item SONG E-music_item"


def test_a_sentence_without_a_type_for_each_word_is_named(tmp_path: Path) -> None:
    (tmp_path / "train").mkdir()
    text(tmp_path / "all.iob.snips.txt", "Ivy-snips-train-0 BOS ADD THIS EOS\tO O AddToPlaylist")
    with pytest.raises(ValueError, match=r"all.iob.snips.txt, line 1: .* with a type for each word"):
        prepare("SF", tmp_path, tmp_path / "out")
