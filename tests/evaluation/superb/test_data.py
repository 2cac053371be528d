"""Corpora are read as the format says, and what is wrong is named with its file and line."""

import json
from pathlib import Path

import numpy as np
import pytest

from avtlm.evaluation.superb.data import Corpus, CorpusError, corpora
from tests.evaluation.superb import made_corpora


def test_clips_have_their_sound_their_piece_and_their_fields(tmp_path: Path) -> None:
    data = made_corpora.save_simple(tmp_path, "KS")
    rows = [json.loads(line) for line in (data / "train.jsonl").read_text().splitlines()]
    rows[0] |= {"start": 0.1, "end": 0.3, "clean": rows[1]["audio"]}
    made_corpora.write_rows(data / "train.jsonl", rows)
    corpus = Corpus.read(data)
    whole, piece = corpus.split("train")[1], corpus.split("train")[0]
    assert (corpus.task, corpus.name, corpus.folds) == ("KS", "made KS", ())
    assert len(whole.wave()) == round(0.42 * 16000)
    assert len(piece.wave()) == 3200
    np.testing.assert_array_equal(piece.wave("train_1.wav"), whole.wave()[1600:4800])
    assert piece.text("label") == "low"


def test_a_folder_of_folders_holds_several_corpora(tmp_path: Path) -> None:
    for task in ("KS", "SID"):
        made_corpora.write_task(tmp_path / task.lower(), task)
    assert [corpus.task for corpus in corpora(tmp_path)] == ["KS", "SID"]


def test_trials_name_clips_by_id_or_by_file(tmp_path: Path) -> None:
    trials = Corpus.read(made_corpora.save_trials(tmp_path)).trials()
    assert len(trials) == 15
    assert (trials[0].first.id, trials[0].second.id, trials[0].same) == ("test-0", "test-1", False)
    assert sum(trial.same for trial in trials) == 3


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("task.json", "{", "is not JSON"),
        ("task.json", "{}", "does not name its task"),
        ("train.jsonl", "[1]\n", "line 1 is no JSON object"),
        ("train.jsonl", '{"id": "a"}\n', "line 1 has no 'audio'"),
        ("train.jsonl", '{"id": "a", "audio": "a.wav", "start": -1}\n', "line 1 has start = -1"),
        ("train.jsonl", '{"id": "a", "audio": "a.wav"}\n' * 2, "line 2: the id 'a' is there more than once"),
        ("train.jsonl", "", "lists no clips"),
        ("trials.txt", "2 a b\n", "line 1: '2 a b' is no trial"),
        ("trials.txt", "1 test-0 nobody\n", "line 1: nobody is no clip of test.jsonl"),
    ],
)
def test_what_is_wrong_is_named(file: str, content: str, message: str, tmp_path: Path) -> None:
    data = made_corpora.save_trials(tmp_path)
    (data / file).write_text(content)
    with pytest.raises(CorpusError, match=message):
        _read_all(data)


def _read_all(data: Path) -> None:
    corpus = Corpus.read(data)
    corpus.split("train")
    corpus.trials()


def test_fields_of_another_kind_are_refused(tmp_path: Path) -> None:
    clip = Corpus.read(made_corpora.save_simple(tmp_path, "KS")).split("train")[0]
    with pytest.raises(CorpusError, match=r"train\.jsonl, line 1: train-0 has no 'phones'; give a list of texts"):
        clip.names("phones")
    with pytest.raises(CorpusError, match="has label = 'low'; give a list of texts"):
        clip.names("label")
    with pytest.raises(CorpusError, match="has no 'text'"):
        clip.text("text")


def test_no_corpus_is_said(tmp_path: Path) -> None:
    with pytest.raises(CorpusError, match="neither it nor a folder in it"):
        corpora(tmp_path)
    with pytest.raises(CorpusError, match="does not exist"):
        corpora(tmp_path / "none")
