"""Asking teachers: what is written, that a stopped run goes on, and that a bad clip stops nothing."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from avtlm import teaching
from avtlm.data.manifest import Manifest, read_manifest, write_manifest
from avtlm.data.media import write_wav
from avtlm.data.teacher_targets import TargetsError, TeacherTargets, piece_path, read_about
from avtlm.teachers import Teacher, open_teacher
from avtlm.teaching import teach
from tests.made_corpus import MadeCorpus, make_corpus
from tests.made_model import save_tiny_recognizer
from tests.systems.heard_models import TAGS, save_tiny


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> MadeCorpus:
    return make_corpus(tmp_path_factory.mktemp("corpus"), 6)


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("teacher") / "model")


def all_of(teacher: Path) -> dict[str, str | Path]:
    return dict.fromkeys(("speech", "sound", "speaker"), teacher)


def test_every_clip_has_what_each_teacher_says_about_it_alone(corpus: MadeCorpus, teacher: Path, tmp_path: Path) -> None:
    done = teach(corpus.sound, all_of(teacher), tmp_path / "answers", device="cpu")
    assert (done.clips, done.failed, done.new) == (6, {}, 1)
    assert {name: (each.width, each.rate) for name, each in done.about.teachers.items()} == {
        "speech": (24, 25.0),
        "sound": (3, 0.0),
        "speaker": (6, 0.0),
    }
    assert read_about(done.folder).tags == TAGS
    answers = TeacherTargets.read(done.folder)
    for row in read_manifest(corpus.sound):
        found = answers.of(row.id)
        assert found["speech"].shape[1] == 24
        assert abs(len(found["speech"]) - 25 * row.duration) <= 3
        assert bool(((found["sound"] > 0) & (found["sound"] < 1)).all())


def test_a_stopped_run_goes_on_and_gives_the_same(
    corpus: MadeCorpus, teacher: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(teaching, "PIECE", 2)
    monkeypatch.setattr("avtlm.data.teacher_targets.PIECE", 2)
    whole = teach(corpus.sound, all_of(teacher), tmp_path / "whole", device="cpu")
    assert whole.new == 3
    asked, answer = [], Teacher.answer

    def stop(self: Teacher, wave: torch.Tensor) -> torch.Tensor:
        asked.append(len(wave))
        if len(asked) == 3 * 3:
            raise KeyboardInterrupt
        return answer(self, wave)

    with monkeypatch.context() as patch:
        patch.setattr(Teacher, "answer", stop)
        with pytest.raises(KeyboardInterrupt):
            teach(corpus.sound, all_of(teacher), tmp_path / "broken", device="cpu")
    with pytest.raises(TargetsError, match=r"2 of 3 files are missing \(targets-00001"):
        TeacherTargets.read(tmp_path / "broken")
    assert teach(corpus.sound, all_of(teacher), tmp_path / "broken", device="cpu").new == 2
    for piece in range(3):
        assert piece_path(tmp_path / "whole", piece).read_bytes() == piece_path(tmp_path / "broken", piece).read_bytes()


def test_bad_clips_are_listed_with_the_reason_and_the_others_go_on(corpus: MadeCorpus, teacher: Path, tmp_path: Path) -> None:
    rows = list(read_manifest(corpus.sound))
    (tmp_path / "broken.wav").write_bytes(b"RIFF nothing")
    write_wav(tmp_path / "short.wav", np.zeros(800, np.float32))
    rows[1] = dataclasses.replace(rows[1], audio=str(tmp_path / "broken.wav"))
    rows[2] = dataclasses.replace(rows[2], audio=str(tmp_path / "gone.wav"))
    rows[3] = dataclasses.replace(rows[3], audio=str(tmp_path / "short.wav"))
    rows[4] = dataclasses.replace(rows[4], audio=None, audio_samples=0)
    manifest = tmp_path / "manifest.jsonl"
    write_manifest(manifest, Manifest(corpus.sound.parent, tuple(rows)))
    done = teach(manifest, {"sound": teacher}, tmp_path / "answers", device="cpu")
    assert set(done.failed) == {row.id for row in rows[1:5]}
    assert "800 samples are too few for a teacher" in done.failed[rows[3].id]
    listed = [json.loads(line) for line in (tmp_path / "answers" / "failed.jsonl").read_text().splitlines()]
    assert {each["id"] for each in listed} == set(done.failed)
    answers = TeacherTargets.read(done.folder)
    assert answers.unheard(row.id for row in rows) == [row.id for row in rows[1:5]]
    again = teach(manifest, {"sound": teacher}, tmp_path / "answers", device="cpu")
    assert (again.new, again.failed) == (0, done.failed)


def test_a_folder_of_other_teachers_or_other_files_is_left_alone(corpus: MadeCorpus, teacher: Path, tmp_path: Path) -> None:
    teach(corpus.sound, {"sound": teacher}, tmp_path / "answers", device="cpu")
    with pytest.raises(TargetsError, match="holds what other teachers said"):
        teach(corpus.sound, {"speaker": teacher}, tmp_path / "answers", device="cpu")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "note.txt").write_text("mine")
    with pytest.raises(TargetsError, match="holds other files"):
        teach(corpus.sound, {"sound": teacher}, tmp_path / "full", device="cpu")
    with pytest.raises(ValueError, match="lips; name at least one of speech, sound, speaker"):
        teach(corpus.sound, {"lips": teacher}, tmp_path / "new", device="cpu")


def test_sounds_get_their_names_by_audiosets_table(corpus: MadeCorpus, tmp_path: Path) -> None:
    teacher = save_tiny(tmp_path / "model", ("/m/1", "/m/2", "/m/3"))
    table = tmp_path / "class_labels_indices.csv"
    table.write_text("index,mid,display_name\n0,/m/2,Car\n1,/m/1,Bird\n2,/m/3,Rain\n")
    done = teach(corpus.sound, {"sound": teacher}, tmp_path / "answers", table, device="cpu")
    assert done.about.tags == ("Bird", "Car", "Rain")
    with pytest.raises(ValueError, match="no teacher names sounds"):
        teach(corpus.sound, {"speaker": teacher}, tmp_path / "other", table, device="cpu")


def test_models_that_cannot_teach_are_refused(tmp_path: Path) -> None:
    folder = save_tiny_recognizer(tmp_path / "lips")
    with pytest.raises(ValueError, match=r"teachers\.sound: .* holds no model that tags sounds"):
        open_teacher("sound", folder)
    with pytest.raises(ValueError, match=r"teachers\.speech: .* holds no model that hears alone"):
        open_teacher("speech", folder)
    with pytest.raises(ValueError, match=r"teachers\.speaker: there is no "):
        open_teacher("speaker", tmp_path / "nothing")
