"""Clips with labels and with answers of teachers: batches, and what is refused before the first step."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from avtlm.data.dataset import Source
from avtlm.data.heard_clips import HeardDataset, labels_of
from avtlm.data.inputs import InputFormat
from avtlm.data.manifest import Manifest, Utterance, read_manifest, write_manifest
from avtlm.data.spoken_clips import open_source
from avtlm.data.tags import display_names, listed, read_display_names, read_tags
from avtlm.data.teacher_targets import About, TargetsError, TaughtBy, TeacherTargets, key, piece_path, read_about
from tests.made_corpus import MadeCorpus, make_corpus
from tests.systems.heard_models import TAGS, labelled

INPUTS = InputFormat(audio_normalise="none", video_size=None, waveform=True, frame_rate=25.0, shortest=1360)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> MadeCorpus:
    return make_corpus(tmp_path_factory.mktemp("corpus"), 6)


def save_answers(folder: Path, ids: list[str], without: tuple[str, ...] = (), speech: tuple[str, ...] | None = None) -> Path:
    """Answers of all teachers about all clips but some; of speech about some alone."""
    folder.mkdir()
    teachers = {"speech": TaughtBy("w", 4, 50.0), "sound": TaughtBy("b", 3), "speaker": TaughtBy("e", 2)}
    (folder / "teach.json").write_text(About("x", len(ids), teachers, TAGS).to_json())
    found = {}
    for place, name in enumerate(ids):
        if name not in without:
            found |= {key(name, "sound"): torch.rand(3), key(name, "speaker"): torch.full((2,), float(place))}
            if speech is None or name in speech:
                found[key(name, "speech")] = torch.full((20 + place, 4), float(place)).half()
    save_file(found, piece_path(folder, 0))
    return folder


def ids(corpus: MadeCorpus) -> list[str]:
    return [row.id for row in read_manifest(corpus.sound)]


def test_labels_become_ones_in_their_places(corpus: MadeCorpus, tmp_path: Path) -> None:
    source = Source(str(labelled(corpus, tmp_path)), "tagging")
    dataset = open_source(source, inputs=INPUTS, training=False, tags=TAGS)
    batch = dataset.batch([0, 1, 2])
    assert batch.task == "tagging"
    assert batch.targets["tags"].tolist() == torch.eye(3).tolist()
    assert batch.audio is not None
    assert batch.audio.dim() == 2


@pytest.mark.parametrize(
    ("labels", "message"),
    [(["horse"], "has the label 'horse', which is none of the training's"), ([], "has no labels under extra"), (7, "has the labels 7")],
)
def test_labels_that_mean_nothing_are_refused_by_row(corpus: MadeCorpus, tmp_path: Path, labels: object, message: str) -> None:
    rows = read_manifest(corpus.sound)
    changed = [dataclasses.replace(row, extra={"labels": labels}) for row in rows]
    write_manifest(tmp_path / "m.jsonl", Manifest(rows.root, tuple(changed)))
    with pytest.raises(ValueError, match=message) as error:
        HeardDataset(Source(str(tmp_path / "m.jsonl"), "tagging"), inputs=INPUTS, tags=TAGS)
    assert rows[0].id in str(error.value)


def test_one_name_is_a_list_of_one() -> None:
    assert labels_of(Utterance("x", extra={"labels": "rain"})) == ("rain",)
    assert labels_of(Utterance("x")) == ()


def test_answers_are_padded_and_what_a_row_lacks_is_told(corpus: MadeCorpus, tmp_path: Path) -> None:
    names = ids(corpus)
    folder = save_answers(tmp_path / "answers", names, speech=(names[1],))
    batch = open_source(Source(str(corpus.sound), "distillation", teachers=str(folder)), inputs=INPUTS).batch([0, 1])
    assert batch.targets["learned"].tolist() == [[False, True, True], [True, True, True]]
    assert batch.targets["speech"].shape == (2, 21, 4)
    assert batch.target_lengths["speech"].tolist() == [0, 21]
    assert batch.targets["speaker"].tolist() == [[0, 0], [1, 1]]


def test_a_source_may_learn_from_some_teachers_alone(corpus: MadeCorpus, tmp_path: Path) -> None:
    folder = save_answers(tmp_path / "answers", ids(corpus))
    source = Source(str(corpus.sound), "distillation", teachers=str(folder), learns=("speaker",))
    batch = open_source(source, inputs=INPUTS).batch([0, 1])
    assert set(batch.targets) == {"speaker", "learned"}
    assert batch.targets["learned"].tolist() == [[False, False, True]] * 2
    asked = open_source(dataclasses.replace(source, teachers=None), inputs=INPUTS).batch([0])
    assert asked.targets["learned"].tolist() == [[False, False, True]]


def test_clips_that_no_teacher_could_hear_are_left_out_and_counted(
    corpus: MadeCorpus, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    names = ids(corpus)
    folder = save_answers(tmp_path / "answers", names, without=(names[0],))
    dataset = HeardDataset(Source(str(corpus.sound), "distillation", teachers=str(folder)), inputs=INPUTS)
    assert [row.id for row in dataset.manifest] == names[1:5]
    assert "1 clips about which no teacher said anything" in caplog.text
    nothing = save_answers(tmp_path / "nothing", ["others"])
    with pytest.raises(ValueError, match="has answers for no utterance"):
        HeardDataset(Source(str(corpus.sound), "distillation", teachers=str(nothing)), inputs=INPUTS)


def test_only_distillation_has_teachers_that_there_are() -> None:
    with pytest.raises(ValueError, match="only distillation has teachers"):
        Source("m.jsonl", "tagging", teachers="answers")
    with pytest.raises(ValueError, match="choose among speech, sound and speaker"):
        Source("m.jsonl", "distillation", learns=("lips",))


def test_folders_that_are_incomplete_or_damaged_say_so(corpus: MadeCorpus, tmp_path: Path) -> None:
    folder = save_answers(tmp_path / "answers", ids(corpus))
    assert read_about(folder).tags == TAGS
    assert TeacherTargets.read(folder).of(ids(corpus)[2], ("speaker",))["speaker"].tolist() == [2, 2]
    piece_path(folder, 0).write_bytes(b"\x00" * 30)
    with pytest.raises(TargetsError, match=r"targets-00000\.safetensors: damaged"):
        TeacherTargets.read(folder)
    piece_path(folder, 0).unlink()
    with pytest.raises(TargetsError, match="1 of 1 files are missing"):
        TeacherTargets.read(folder)
    (folder / "teach.json").write_text("{}")
    with pytest.raises(TargetsError, match=r"teach\.json is damaged"):
        read_about(folder)
    with pytest.raises(TargetsError, match="is missing"):
        read_about(tmp_path)


def test_names_of_classes_are_a_list_in_a_folder_and_identifiers_have_names(tmp_path: Path) -> None:
    for name, text in listed(TAGS).items():
        (tmp_path / name).write_text(text)
    assert read_tags(tmp_path) == TAGS
    assert read_tags(tmp_path / "other") == read_tags(None) == ()
    assert listed(()) == {}
    table = tmp_path / "class_labels_indices.csv"
    table.write_text('index,mid,display_name\n0,/m/09x0r,"Speech"\n1,/m/05zppz,"Male speech, man speaking"\n')
    assert display_names(["/m/05zppz"], read_display_names(table)) == ("Male speech, man speaking",)
    with pytest.raises(ValueError, match="/m/0: one of 1 identifiers without a name"):
        display_names(["/m/0"], read_display_names(table))
    table.write_text(json.dumps({}))
    with pytest.raises(ValueError, match=r"cannot be read as AudioSet's"):
        read_display_names(table)
