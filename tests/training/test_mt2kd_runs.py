"""MT2KD through the whole loop: teachers are asked, a student learns from them, then three tasks at once; and what is refused."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from avtlm import config, systems
from avtlm.config import ConfigError
from avtlm.data.tags import read_tags
from avtlm.evaluation.evaluate import evaluate
from avtlm.evaluation.sounds_and_voices import Trial, evaluate_tags, evaluate_trials
from avtlm.plan import plan
from avtlm.teaching import Taught, teach
from avtlm.training.loop import TrainConfig, train
from avtlm.training.whole_system import read_speakers
from tests.made_corpus import MadeCorpus, make_corpus
from tests.systems.heard_models import MODEL, TAGS, labelled, save_tiny
from tests.test_configs import ROOT
from tests.training.made_runs import broken_and_resumed, journal, run, same


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> MadeCorpus:
    return make_corpus(tmp_path_factory.mktemp("corpus"), 12)


@pytest.fixture(scope="module")
def taught(corpus: MadeCorpus, tmp_path_factory: pytest.TempPathFactory) -> Taught:
    """By an untrained model in all three parts."""
    folder = tmp_path_factory.mktemp("teachers")
    teacher = save_tiny(folder / "teacher")
    return teach(corpus.sound, dict.fromkeys(("speech", "sound", "speaker"), teacher), folder / "answers", device="cpu")


def distillation(corpus: MadeCorpus, taught: Taught, output: Path, **changes: Any) -> dict[str, Any]:
    settings: dict[str, Any] = {
        "system": "mt2kd",
        "task": "pretrain",
        "output": str(output),
        "sources": {"heard": {"manifest": str(corpus.sound), "task": "distillation", "teachers": str(taught.folder)}},
        "model": MODEL,
        "steps": 6,
        "max_rows": 4,
        "log_every": 2,
        "save_every": 3,
        "threads": 1,
        "tensorboard": False,
        "optim": {"lr": 0.003, "schedule": "constant", "warmup": 0.0},
    }
    return settings | changes


def three_tasks(corpus: MadeCorpus, tagged: Path, output: Path, **changes: Any) -> dict[str, Any]:
    settings = distillation(corpus, Taught(Path("none"), None, 0, {}, 0), output) | {  # type: ignore[arg-type]
        "task": "transcription",
        "sources": {
            "transcribed": {"manifest": str(corpus.sound), "task": "recognition"},
            "tagged": {"manifest": str(tagged), "task": "tagging"},
            "named": {"manifest": str(corpus.sound), "task": "speaker"},
        },
        "model": MODEL
        | {"transducer": {"dim": 8, "joint_dim": 8, "warmup": 4}, "weights": {"ctc": 0.2}, "freeze_encoder_steps": 2, "freeze_heads": True},
        "decoding": {"method": "ctc_greedy"},
    }
    return settings | changes


@pytest.fixture(scope="module")
def tagged(corpus: MadeCorpus, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return labelled(corpus, tmp_path_factory.mktemp("labelled"))


@pytest.fixture(scope="module")
def student(corpus: MadeCorpus, taught: Taught, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return run(distillation(corpus, taught, tmp_path_factory.mktemp("student") / "run", steps=16, save_every=16, log_every=4))


def test_a_student_comes_nearer_to_all_three_teachers(student: Path, taught: Taught) -> None:
    lines = [line for line in journal(student) if "distillation/speech_distance" in line]
    assert len(lines) == 4
    for name in ("speech_distance", "sound_loss", "speaker_distance"):
        assert lines[-1][f"distillation/{name}"] < lines[0][f"distillation/{name}"]
    assert read_tags(student) == TAGS == taught.about.tags
    model, _ = systems.load_encoder(student)
    assert model.config.speech_width == 24  # type: ignore[union-attr]  # one frame of 25 Hz
    assert model.config.voice_dim == 6  # type: ignore[union-attr]


def test_a_stopped_distillation_goes_on_as_if_it_had_not_been(corpus: MadeCorpus, taught: Taught, tmp_path: Path) -> None:
    whole = run(distillation(corpus, taught, tmp_path / "whole"))
    assert same(whole, broken_and_resumed(distillation(corpus, taught, tmp_path / "broken"), number=4))


def test_three_tasks_are_learned_at_once_from_the_student_and_one_folder_answers_all_of_them(
    corpus: MadeCorpus, tagged: Path, student: Path, tmp_path: Path
) -> None:
    validation = {"manifest": str(corpus.sound), "task": "recognition", "split": "valid"}
    settings = three_tasks(corpus, tagged, tmp_path / "run", initialise=str(student), validation=validation, validate_every=3)
    folder = run(settings)
    lines = journal(folder)
    assert {"transducer_loss", "ctc_loss", "tagging_loss", "speaker_loss", "speaker_accuracy"} <= set(lines[0])
    assert any("valid_wer" in line for line in lines)
    assert read_speakers(folder) == ("s0", "s1", "s2", "s3")
    assert read_tags(folder) == TAGS
    assert evaluate(corpus.sound, folder, ("a",), split="valid").conditions[0].rate.percent > 0
    report = evaluate_tags(tagged, folder, "valid")
    assert (report.clips, report.held) == (2, 1)
    trials = [Trial(False, "sound05", "sound11"), Trial(True, "sound05", "sound05")]
    assert evaluate_trials(trials, corpus.sound, folder, "valid").to_json()["trials"] == 2
    # What stage 1 had learned is where stage 2 began: the encoder waits for two steps.
    begun = run(three_tasks(corpus, tagged, tmp_path / "begun", initialise=str(student), steps=2, save_every=2))
    first, second = (systems.load_encoder(place)[0].state_dict() for place in (student, begun))
    kept = [
        name for name in second if name.startswith(("encoder.", "voice.", "tagging.")) and "running" not in name and "tracked" not in name
    ]
    assert all(torch.equal(first[name], second[name]) for name in kept)


def test_one_task_alone_makes_a_teacher(corpus: MadeCorpus, tagged: Path, tmp_path: Path) -> None:
    settings = three_tasks(corpus, tagged, tmp_path / "run")
    settings["sources"] = {"tagged": settings["sources"]["tagged"]}
    settings["model"] = MODEL | {"vocabulary": 0}
    settings["decoding"] = {}
    folder = run(settings)
    assert not (folder / "vocabulary.json").exists()
    done = teach(tagged, {"sound": folder}, tmp_path / "answers", device="cpu")
    assert (done.about.teachers["sound"].width, done.failed) == (3, {})


def test_teachers_may_be_asked_while_the_student_trains(corpus: MadeCorpus, taught: Taught, tmp_path: Path) -> None:
    teacher = save_tiny(tmp_path / "teacher")
    source = {"manifest": str(corpus.sound), "task": "distillation", "learns": ["speech", "speaker"]}
    model = MODEL | {"speech_width": 24, "voice_dim": 6, "teachers": {"speech": str(teacher), "speaker": str(teacher)}}
    asked = journal(run(distillation(corpus, taught, tmp_path / "asked", sources={"heard": source}, model=model)))
    stored = {**source, "teachers": str(taught.folder)}
    read = journal(run(distillation(corpus, taught, tmp_path / "read", sources={"heard": stored}, model=model)))
    for name in ("distillation/speech_distance", "distillation/speaker_distance"):
        assert asked[0][name] == pytest.approx(read[0][name], rel=1e-2)  # stored frames are float16


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"sources": {"a": {"manifest": "m", "task": "speech"}}}, "gives no batches that mt2kd learns from by pretrain"),
        ({"task": "recognition", "sources": {"a": {"manifest": "m", "task": "recognition"}}}, "gives no batches that mt2kd"),
        ({"system": "hubert", "sources": {"a": {"manifest": "m", "task": "distillation"}}}, "or the system mt2kd"),
    ],
)
def test_sources_that_do_not_fit_are_refused(corpus: MadeCorpus, taught: Taught, tmp_path: Path, changes: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        config.load(TrainConfig, distillation(corpus, taught, tmp_path) | changes)


def test_teachers_of_several_sources_have_to_agree(corpus: MadeCorpus, taught: Taught, tmp_path: Path) -> None:
    about = json.loads((taught.folder / "teach.json").read_text())
    about["teachers"]["speaker"]["width"] = 7
    other = tmp_path / "other"
    other.mkdir()
    (other / "teach.json").write_text(json.dumps(about))
    settings = distillation(corpus, taught, tmp_path / "run")
    settings["sources"]["second"] = settings["sources"]["heard"] | {"teachers": str(other)}
    with pytest.raises(ValueError, match=r"makes model\.voice_dim 7, other sources 6"):
        train(config.load(TrainConfig, settings))


@pytest.mark.parametrize("name", ["tiny_pretrain", "tiny_finetune"])
def test_a_training_is_planned_before_there_are_data(name: str) -> None:
    """Clips, labels and answers are made up."""
    changes = ["max_frames=120", "initialise=null", "model.freeze_encoder_steps=0"]
    found = plan(ROOT / "mt2kd" / f"{name}.yaml", changes, device="h100")
    assert found.parameters > 1_000_000
    assert found.step_seconds > 0
