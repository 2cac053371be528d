"""Tags and voices of files, their verbs, and what is measured over a manifest."""

import json
from pathlib import Path

import numpy as np
import pytest

from avtlm import cli, systems
from avtlm.data.media import write_wav
from avtlm.evaluation.sounds_and_voices import Trial, evaluate_tags, evaluate_trials, read_trials
from avtlm.hearing import Listener, read_sound, tag_each, verify
from avtlm.transcribe import transcribe_each
from tests.made_corpus import MadeCorpus, make_corpus
from tests.made_media import tone
from tests.made_model import save_tiny_recognizer
from tests.systems.heard_models import TAGS, labelled, save_tiny


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny(tmp_path_factory.mktemp("model") / "mt2kd")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("files")
    for name, pitch, seconds in (("low", 150, 1.0), ("high", 900, 1.5)):
        write_wav(folder / f"{name}.wav", 0.3 * tone(seconds, pitch=pitch))
    return [folder / "low.wav", folder / "high.wav"]


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> MadeCorpus:
    return make_corpus(tmp_path_factory.mktemp("corpus"), 12)


def test_one_folder_writes_tags_and_verifies(model: Path, files: list[Path]) -> None:
    [(_, text)] = transcribe_each(files[:1], model, "a")
    assert isinstance(text.text, str)
    listener = Listener(model)
    [(path, tags), _] = list(tag_each(files, listener))
    assert path == files[0]
    assert isinstance(tags, list)
    assert {tag.name for tag in tags} == set(TAGS)
    assert [tag.probability for tag in tags] == sorted((tag.probability for tag in tags), reverse=True)
    assert verify(files[0], files[0], listener) == pytest.approx(1.0)
    assert verify(*files, listener) < 1.0


def test_a_long_file_is_heard_in_equal_parts(model: Path, files: list[Path]) -> None:
    whole, parts = Listener(model, window=0.0), Listener(model, window=0.6)
    wave = read_sound(files[1])
    logits = [np.log(scores / (1 - scores)) for scores in (whole.tag_scores(piece) for piece in np.array_split(wave, 3))]
    scores = parts.tag_scores(wave)
    np.testing.assert_allclose(np.log(scores / (1 - scores)), np.mean(logits, axis=0), atol=1e-4)
    assert np.linalg.norm(parts.voice(wave)) == pytest.approx(1.0)


def test_files_that_cannot_be_heard_are_reported_and_the_others_go_on(
    model: Path, files: list[Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_wav(tmp_path / "short.wav", np.zeros(500, np.float32))
    names = [str(tmp_path / "gone.wav"), str(tmp_path / "short.wav"), str(files[0])]
    assert cli.main(["tag", *names, "--model", str(model), "--top", "2"]) == 1
    said = capsys.readouterr()
    assert said.out.startswith(f"{files[0]}: ")
    assert said.out.count(",") == 1
    assert said.err.count("avtlm: ") == 2
    assert "500 samples are fewer than" in said.err


def test_verbs_print_json_and_verdicts(model: Path, files: list[Path], capsys: pytest.CaptureFixture[str]) -> None:
    low, high = map(str, files)
    assert cli.main(["tag", low, "--model", str(model), "--json", "--least", "2"]) == 0
    assert json.loads(capsys.readouterr().out) == {"file": low, "tags": []}
    assert cli.main(["verify", low, low, "--model", str(model), "--threshold", "0.9"]) == 0
    assert capsys.readouterr().out.strip() == "1.0000  same speaker"
    assert cli.main(["verify", low, high, "--model", str(model), "--threshold", "1.1", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["same"] is False
    for wrong in (["tag"], ["verify", low], ["verify", low, high, "--trials", "x"], ["tag", low, "--manifest", "m"]):
        assert cli.main([*wrong, "--model", str(model)]) == 2


def test_models_that_only_write_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="for recognition; give the folder of a model for transcription"):
        Listener(save_tiny_recognizer(tmp_path / "model"))
    with pytest.raises(ValueError, match="window: -1 seconds"):
        Listener(tmp_path, window=-1)


def test_tags_and_trials_are_measured_over_a_manifest(
    corpus: MadeCorpus, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = labelled(corpus, tmp_path)
    report = evaluate_tags(manifest, model, None).to_json()
    assert (report["clips"], report["classes_in_clips"]) == (12, 3)
    assert 0 < report["mean_average_precision"] < 100
    trials = tmp_path / "trials.txt"
    trials.write_text("1 sound00.wav sound04.wav\n0 sound00 sound01\n\n0 sound02 sound03\n")
    assert read_trials(trials)[0] == Trial(True, "sound00", "sound04")
    found = evaluate_trials(trials, manifest, model, None)
    assert (found.trials, found.clips) == (3, 5)
    assert 0 <= found.rate <= 1
    assert set(found.to_json()["min_detection_cost"]) == {"0.01", "0.05"}
    assert cli.main(["tag", "--manifest", str(manifest), "--model", str(model), "--split", "all"]) == 0
    assert "12 clips, 3 of 3 classes" in capsys.readouterr().out
    asked = ["verify", "--trials", str(trials), "--manifest", str(manifest), "--model", str(model), "--split", "all"]
    assert cli.main(asked) == 0
    assert "3 trials of 5 clips" in capsys.readouterr().out


def test_lists_of_trials_that_do_not_fit_say_where(corpus: MadeCorpus, model: Path, tmp_path: Path) -> None:
    trials = tmp_path / "trials.txt"
    trials.write_text("1 sound00 sound04\nsame sound00 sound01\n")
    with pytest.raises(ValueError, match="line 2: expected 0 or 1"):
        read_trials(trials)
    trials.write_text("\n")
    with pytest.raises(ValueError, match="no trials"):
        read_trials(trials)
    with pytest.raises(ValueError, match="has no utterance 'other'"):
        evaluate_trials([Trial(True, "sound00", "other")], corpus.sound, model, None)


def test_teaching_is_a_verb(corpus: MadeCorpus, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["teach", str(corpus.sound), "--teachers", f"sound={model}", f"speaker={model}", "-o", str(tmp_path / "answers")]
    assert cli.main([*asked, "--device", "cpu"]) == 0
    assert "12 of 12 clips, 1 of 1 files new" in capsys.readouterr().out
    assert cli.main(["teach", "m", "--teachers", "sound", "-o", "x"]) == 2
    assert systems.find("mt2kd").whole
