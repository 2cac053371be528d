"""A profile's parts are those of the real run, and add up to its step."""

import json
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from avtlm import cli, config
from avtlm.plain_yaml import dump_yaml
from avtlm.profile import OTHER, Stopwatch, _attach, parts_of, profile
from avtlm.training.loop import TrainConfig, Trainer
from tests.made_corpus import MadeCorpus, make_corpus
from tests.training import made_runs
from tests.training.test_speech_systems import MODELS
from tests.training.test_speech_systems import pretraining as speech


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> MadeCorpus:
    return make_corpus(tmp_path_factory.mktemp("corpus"), 12)


@pytest.fixture(scope="module")
def fast_units(corpus: MadeCorpus, tmp_path_factory: pytest.TempPathFactory) -> MadeCorpus:
    return made_runs.with_units_at_50_hz(corpus, tmp_path_factory.mktemp("units"))


def measured(settings: dict[str, Any], steps: int = 3) -> Any:
    return profile(config.load(TrainConfig, settings), steps=steps)


# The clock ------------------------------------------------------------------------------------------------------------------------------


def test_a_part_has_the_time_that_parts_inside_it_do_not_take() -> None:
    now = [0.0]
    watch = Stopwatch(clock=lambda: now[0])

    def wait(seconds: float) -> None:
        now[0] += seconds

    watch.restart()
    wait(1.0)
    with watch.running("loss"):
        wait(2.0)
        with watch.running("encoder"):
            wait(4.0)
        with watch.running("loss"):
            wait(8.0)
        wait(16.0)
    wait(32.0)
    assert watch.stop() == {OTHER: 33.0, "loss": 26.0, "encoder": 4.0}
    watch.restart()
    assert watch.stop() == {OTHER: 0.0}


def test_the_clock_goes_back_when_a_part_fails() -> None:
    now = [0.0]
    watch = Stopwatch(clock=lambda: now[0])
    with pytest.raises(KeyError), watch.running("loss"):
        raise KeyError
    now[0] = 5.0
    assert watch.stop()[OTHER] == 5.0


# Runs -----------------------------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("system", ["hubert", "wav2vec2", "mt4ssl"])
def test_the_parts_of_a_system_over_waveforms_add_up_to_the_measured_step(system: str, fast_units: MadeCorpus, tmp_path: Path) -> None:
    found = measured(speech(fast_units, tmp_path / "run", system))
    expected = {"data", "front-end", "encoder", "loss", "backward", "optimiser", OTHER} | ({"teacher"} if system == "mt4ssl" else set())
    assert set(found.parts) == expected
    assert min(found.parts.values()) > 0
    assert sum(found.parts.values()) == pytest.approx(found.step, rel=1e-3)
    assert sum(found.to_json()["shares"].values()) == pytest.approx(1.0, rel=1e-3)
    assert found.rates["utterances_per_second"] == pytest.approx(4 / found.step, rel=0.5)
    assert not (tmp_path / "run").exists()


def test_the_parts_of_four_kinds_of_batches_add_up(corpus: MadeCorpus, tmp_path: Path) -> None:
    found = measured(made_runs.pretraining(corpus, tmp_path / "run"))
    assert sum(found.parts.values()) == pytest.approx(found.step, rel=1e-3)
    assert found.parts["front-end"] > 0


def test_a_recogniser_has_a_decoder_and_workers_are_waited_for(corpus: MadeCorpus, tmp_path: Path) -> None:
    heads = {"encoder": made_runs.MODEL, "ctc_weight": 0.3, "decoder": made_runs.DECODER}
    found = measured(made_runs.recognition(corpus, tmp_path / "run", model=heads, workers=1, validate_every=5))
    assert "data" not in found.parts
    assert found.parts["waiting for data"] > 0
    assert found.parts["decoder"] > 0
    assert sum(found.parts.values()) == pytest.approx(found.step, rel=1e-3)


def test_a_language_model_has_no_front_end(corpus: MadeCorpus, tmp_path: Path) -> None:
    model = {"dim": 32, "layers": 2, "heads": 2, "feed_forward_dim": 48}
    source = {"manifest": str(corpus.clips), "task": "sentences"}
    settings = {"system": "language_model", "task": "language_model", "output": str(tmp_path), "model": model, "sources": {"text": source}}
    found = measured(settings)
    assert "front-end" not in found.parts
    assert found.parts["decoder"] > 0
    assert sum(found.parts.values()) == pytest.approx(found.step, rel=1e-3)


def test_time_lost_in_a_part_is_found_in_that_part(corpus: MadeCorpus, tmp_path: Path) -> None:
    """A sleep of known length put into each part in turn shows there and nowhere else."""
    settings = config.load(TrainConfig, made_runs.pretraining(corpus, tmp_path / "run"))
    for part, place in {
        "data": ("_draw",),
        "encoder": ("model", "encoder", "forward"),
        "front-end": ("model", "frontends", "join"),
    }.items():
        run = Trainer(settings)
        owner: Any = run
        for name in place[:-1]:
            owner = getattr(owner, name)
        function = getattr(owner, place[-1])
        setattr(owner, place[-1], lambda *arguments, function=function, **more: (time.sleep(0.05), function(*arguments, **more))[1])
        watch = Stopwatch()
        _attach(watch, run)
        batches, meter = run.batches(), made_meter()
        run.step(0, batches, meter)  # not counted
        watch.restart()
        run.step(1, batches, meter)
        seconds = watch.stop()
        assert seconds[part] > 0.05
        assert max(seconds, key=lambda name: seconds[name]) == part


def made_meter() -> Any:
    from avtlm.training.meter import Meter

    return Meter()


def test_a_whole_teacher_is_one_part(fast_units: MadeCorpus, tmp_path: Path) -> None:
    model = MODELS["data2vec"] | {"teacher": MODELS["data2vec"]["teacher"] | {"whole": True}}
    run = Trainer(config.load(TrainConfig, speech(fast_units, tmp_path, "data2vec", model=model)))
    kinds: dict[str, list[str]] = {}
    for module, part in parts_of(run.model):
        kinds.setdefault(part, []).append(type(module).__name__)
    assert kinds == {"front-end": ["WaveformFrontEnd"], "encoder": ["Encoder"], "teacher": ["Teacher", "WaveformFrontEnd"]}


def test_profiling_changes_nothing_of_what_a_run_computes(corpus: MadeCorpus, tmp_path: Path) -> None:
    settings = config.load(TrainConfig, made_runs.pretraining(corpus, tmp_path / "run"))
    runs = [Trainer(settings), Trainer(settings)]
    _attach(Stopwatch(), runs[1])
    for run in runs:
        batches, meter = run.batches(), made_meter()
        for number in range(2):
            run.step(number, batches, meter)
    one, two = (run.model.state_dict() for run in runs)
    assert all(torch.equal(one[name], two[name]) for name in one)


# The command ----------------------------------------------------------------------------------------------------------------------------


def test_the_command_prints_a_table_with_bars_and_writes_json(
    corpus: MadeCorpus, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(dump_yaml(made_runs.pretraining(corpus, tmp_path / "run")))
    assert cli.main(["profile", str(file), "max_rows=2", "--steps", "2", "--json", str(tmp_path / "profile.json")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"{file}: a step takes ")
    assert any(line.startswith("backward") and "█" in line and "%" in line for line in lines)
    assert "of peak" in lines[-1]
    values = json.loads((tmp_path / "profile.json").read_text())
    assert values["steps"] == 2
    assert sum(values["parts"].values()) == pytest.approx(values["step"], rel=1e-3)
    assert cli.main(["profile", str(file), "--steps", "0"]) == 1
    assert capsys.readouterr().err.startswith("avtlm: steps: 0; give at least 1.")
