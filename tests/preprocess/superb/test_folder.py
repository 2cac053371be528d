"""Folders are whole once they have a task.json."""

from pathlib import Path

import pytest

from avtlm.evaluation.superb.data import Corpus
from preprocess.superb.folder import Preparation, Prepared, write_folder
from tests.preprocess.corpora.made_sound import sound


def test_lists_of_an_earlier_preparation_are_removed(tmp_path: Path) -> None:
    sound(tmp_path / "a.wav")
    clip = {"id": "a", "audio": "a.wav"}
    write_folder(tmp_path, "ASV", "some", Prepared({"train": [clip], "dev": [clip], "test": [clip]}, ["1 a a"]))
    assert Corpus.read(tmp_path).trials()[0].same
    write_folder(tmp_path, "SID", "others", Prepared({"train": [clip]}, about={"name": "others, small"}))
    corpus = Corpus.read(tmp_path)
    assert (corpus.task, corpus.name, corpus.has("dev"), (tmp_path / "trials.txt").exists()) == ("SID", "others, small", False, False)


def test_a_split_without_usable_clips_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    nothing = Preparation("KS", "some", ("train",), lambda root, out, workers: Prepared({"train": []}, left_out={"x.wav": "is empty"}))
    with pytest.raises(ValueError, match=r"has nothing usable for train, and KS needs it.*x.wav.*is empty"):
        nothing(tmp_path, tmp_path / "out")
    assert not (tmp_path / "out").exists()
