"""Stages in a row: finished ones are kept, a broken one goes on, and what has changed is told and never trained over."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from avtlm import cli, systems
from avtlm.checkpoint import CheckpointError
from avtlm.config import ConfigError
from avtlm.training import pipeline as module
from avtlm.training.interruption import Interrupted
from avtlm.training.loop import TrainConfig, train
from avtlm.training.pipeline import STAMP, pipeline, read_stages
from tests.made_corpus import MadeCorpus, make_corpus
from tests.training.made_runs import same
from tests.training.made_stages import write_stages


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> MadeCorpus:
    return make_corpus(tmp_path_factory.mktemp("corpus"), 12)


@pytest.fixture(scope="module")
def finished(corpus: MadeCorpus, tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Configurations whose stages are trained."""
    configs = write_stages(corpus, tmp_path_factory.mktemp("finished"))
    pipeline(configs)
    return configs


@pytest.fixture
def trained(finished: list[Path], tmp_path: Path) -> list[Path]:
    """A copy of them that a test may change; paths in it still are those of the original, which nothing writes to."""
    copy = tmp_path / "copy"
    shutil.copytree(finished[0].parent, copy)
    old, new = str(finished[0].parent), str(copy)
    for path in copy.rglob("*"):
        if (path.suffix == ".yaml" and path.parent == copy) or path.name == STAMP:
            path.write_text(path.read_text().replace(old, new))
    return [copy / path.name for path in finished]


def lines(configs: list[Path], *overrides: str, **options: Any) -> list[str]:
    told: list[str] = []
    pipeline(configs, overrides, tell=told.append, **options)
    return [line.partition("): ")[2] for line in told]


def test_stages_run_in_order_and_a_second_call_runs_none(trained: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    assert systems.load(trained[0].parent / "3_recognise" / "model").ctc is not None
    monkeypatch.setattr(module, "train", lambda settings: pytest.fail("a finished stage was trained"))
    assert lines(trained) == ["done before"] * 3
    assert lines(trained, "threads=2", "3:log_every=3") == ["done before"] * 3  # of which nothing depends


def test_a_broken_stage_goes_on_and_ends_as_if_it_had_never_stopped(
    trained: list[Path], corpus: MadeCorpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "broken").mkdir()
    configs = write_stages(corpus, tmp_path / "broken")
    folder = tmp_path / "broken"

    def interrupted(settings: TrainConfig) -> Path:
        if Path(settings.output).name == "2_translate":
            from dataclasses import replace

            train(replace(settings, steps=2))  # a checkpoint in the middle, as a signal leaves it
            raise Interrupted(settings.output)
        return train(settings)

    monkeypatch.setattr(module, "train", interrupted)
    with pytest.raises(Interrupted):
        pipeline(configs)
    assert json.loads((folder / "2_translate" / STAMP).read_text())["finished"] is False
    assert not (folder / "3_recognise").exists()
    monkeypatch.undo()
    assert lines(configs) == ["done before", "goes on", "starts"]
    assert same(folder / "1_pretrain" / "model", trained[0].parent / "1_pretrain" / "model")


def test_a_changed_setting_is_refused_by_name_and_trained_anew_where_asked(trained: list[Path]) -> None:
    with pytest.raises(ConfigError, match=r"stage 2 was trained with something else: optim\.lr is 0\.001 now, but was 0\.003; .*--again"):
        pipeline(trained, ["2:optim.lr=0.001"])
    told = lines(trained, "2:optim.lr=0.001", again=True)
    assert told[0] == "done before"
    assert told[1] == "trained anew, since optim.lr is 0.001 now, but was 0.003"
    assert "2_translate/model, is another one now" in told[2]
    assert lines(trained, "2:optim.lr=0.001") == ["done before"] * 3


def test_a_changed_predecessor_is_refused(trained: list[Path], corpus: MadeCorpus) -> None:
    folder = trained[0].parent
    shutil.rmtree(folder / "1_pretrain")
    with pytest.raises(ConfigError, match=r"stage 2 was trained with something else: the model that it starts from, .*, is another one"):
        pipeline(trained, ["1:seed=7"])
    assert (folder / "1_pretrain" / "model").is_dir()


def test_a_folder_that_no_pipeline_has_made_is_left_alone(trained: list[Path]) -> None:
    (trained[0].parent / "1_pretrain" / STAMP).unlink()
    with pytest.raises(ConfigError, match="holds a run that no pipeline has started"):
        pipeline(trained, again=True)
    (trained[0].parent / "1_pretrain" / STAMP).write_text("{")
    with pytest.raises(ConfigError, match=r"stage\.json: is damaged"):
        pipeline(trained)


def test_a_stage_whose_model_was_removed_is_trained_again(trained: list[Path]) -> None:
    shutil.rmtree(trained[0].parent / "3_recognise" / "model")
    assert lines(trained)[2] == "goes on"
    assert (trained[0].parent / "3_recognise" / "model").is_dir()


def test_a_damaged_predecessor_is_said(trained: list[Path]) -> None:
    (trained[0].parent / "1_pretrain" / "model" / "config.yaml").unlink()
    with pytest.raises(CheckpointError, match="missing"):
        pipeline(trained)


def test_stages_have_to_follow_each_other(trained: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second, third = trained
    with pytest.raises(ConfigError, match=r"3_recognise\.yaml: it starts from .*, but the stage before it leaves .*1_pretrain/model"):
        read_stages([first, third])
    with pytest.raises(ConfigError, match=r"its output .* is that of stage 1"):
        read_stages([first, second], [f"2:output={first.parent / '1_pretrain'}"])
    with pytest.raises(ConfigError, match=r"^4: there is no such stage; there are 2\.$"):
        read_stages([first, second], ["4:steps=3"])
    found = read_stages([first, second], ["2:initialise=null", "steps=7", "1:steps=9"])
    assert [stage.settings.steps for stage in found] == [9, 7]
    assert found[1].settings.initialise == str(first.parent / "1_pretrain" / "model")
    assert read_stages([second])[0].settings.initialise == found[1].settings.initialise  # one alone may start from anything
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match="start each of them by torchrun"):
        pipeline(trained)


def test_the_command_tells_what_it_does_and_names_the_last_model(trained: list[Path], capsys: pytest.CaptureFixture[str]) -> None:
    given = [str(path) for path in trained]
    assert cli.main(["pipeline", *given, "threads=1"]) == 0
    captured = capsys.readouterr()
    assert captured.out == f"model: {trained[0].parent / '3_recognise' / 'model'}\n"
    assert "stage 1 of 3 (1_pretrain.yaml" in captured.err
    assert cli.main(["pipeline", *given, "2:steps=5"]) == 2
    assert "steps is 5 now, but was 4" in capsys.readouterr().err
    assert cli.main(["pipeline", "steps=5"]) == 2
    assert "no configuration is given" in capsys.readouterr().err


def test_a_stopped_command_says_how_it_goes_on(
    trained: list[Path], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*arguments: Any) -> Path:
        raise Interrupted("runs/x/model")

    monkeypatch.setattr(module, "pipeline", stop)
    assert cli.main(["pipeline", str(trained[0])]) == 0
    captured = capsys.readouterr()
    assert "the same command goes on from runs/x/model" in captured.err
    assert captured.out == ""
