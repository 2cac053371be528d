"""The command: what it prints and how it ends."""

import json
from pathlib import Path

import pytest

from preprocess.superb.__main__ import TASKS, main, preparation
from tests.preprocess.corpora.made_sound import sound


def test_all_fourteen_tasks_have_a_preparation_of_their_own_name() -> None:
    assert len(TASKS) == 14
    assert [preparation(task).task for task in TASKS] == list(TASKS)


def test_the_command_writes_a_folder_and_says_what_is_in_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("p226_001", "p228_001", "p228_002"):
        sound(tmp_path / "vb" / "noisy_trainset_28spk_wav_16k" / f"{name}.wav")
        if name != "p228_002":
            sound(tmp_path / "vb" / "clean_trainset_28spk_wav_16k" / f"{name}.wav")
    for kind in ("noisy", "clean"):
        sound(tmp_path / "vb" / f"{kind}_testset_wav_16k" / "p232_001.wav")
    assert main(["se", "--root", str(tmp_path / "vb"), "--out", str(tmp_path / "out"), "--workers", "0"]) == 0
    printed = capsys.readouterr()
    assert "1 train" in printed.out
    assert "1 dev, 1 test; 1 left out (left_out.tsv)" in printed.out.replace("1 train, ", "")
    assert "p228_002.wav: is not there, and its noisy one is" in printed.err
    assert json.loads((tmp_path / "out" / "task.json").read_text()) == {"task": "SE", "name": "VoiceBank-DEMAND"}


def test_an_unknown_task_and_a_missing_corpus_are_one_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["SEE"]) == 2
    assert "'SEE' is unknown; choose one of SID" in capsys.readouterr().err
    assert main(["ER", "--root", str(tmp_path), "--out", str(tmp_path / "out")]) == 1
    assert "has no folder Session1" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
