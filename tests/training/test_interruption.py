"""Runs that are asked to stop, or killed without being asked, end bit for bit like those that were not."""

import json
import pickle
import shutil
import signal
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from avtlm.training.interruption import Interrupted, Interruption
from avtlm.training.loop import Trainer
from tests.made_corpus import MadeCorpus, make_corpus
from tests.training.made_jobs import finish, start
from tests.training.made_runs import journal, pretraining, run, same


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> MadeCorpus:
    return make_corpus(tmp_path_factory.mktemp("corpus"), 24)


def state(folder: Path) -> dict[str, Any]:
    path = folder / "model" / "trainer" / "state.json"
    found: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {"step": 0}
    return found


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT"])
def test_a_signal_ends_a_run_behind_its_step_with_a_checkpoint(
    corpus: MadeCorpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, name: str
) -> None:
    settings = pretraining(corpus, tmp_path / "run", steps=8, save_every=100, ema=0.9, accumulate=2)
    whole = run(settings | {"output": str(tmp_path / "whole")})
    step = Trainer._step

    def asked(self: Trainer, number: int, *rest: Any) -> None:
        if number == 3:
            signal.raise_signal(signal.Signals[name])
        step(self, number, *rest)

    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    with monkeypatch.context() as patch, caplog.at_level("INFO", logger="avtlm"):
        patch.setattr(Trainer, "_step", asked)
        with pytest.raises(Interrupted, match="goes on from there") as stopped:
            run(settings)
    model = stopped.value.folder
    assert f"{name}; stopped at step 4 of 8 with a checkpoint" in caplog.text
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before
    assert state(tmp_path / "run")["step"] == 4
    assert same(run(settings), whole)
    assert same(model / "ema", whole / "ema")


def test_the_command_ends_well_when_a_scheduler_asks_it_to(corpus: MadeCorpus, tmp_path: Path) -> None:
    settings = pretraining(corpus, tmp_path / "run", steps=5000, save_every=5000, workers=1)
    settings["sources"] = {"audio": settings["sources"]["audio"]}
    job = start(1, settings)
    log = tmp_path / "run" / "log.jsonl"
    deadline = time.monotonic() + 240
    while not (log.exists() and log.read_text()) and time.monotonic() < deadline and job[0].poll() is None:
        time.sleep(0.01)
    job[0].send_signal(signal.SIGTERM)
    [(code, printed, errors)] = finish(job)
    assert code == 0, errors
    assert printed == f"model: {tmp_path}/run/model\n"
    assert f"SIGTERM; stopped at step {state(tmp_path / 'run')['step']} of 5000 with a checkpoint" in errors


def test_the_first_signal_is_noted_and_a_late_second_ctrl_c_stops_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    with Interruption() as interruption:
        assert interruption.signal is None
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGTERM)
        assert interruption.signal == "SIGINT"
        later = time.monotonic() + 2.0
        monkeypatch.setattr(time, "monotonic", lambda: later)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_what_ended_a_run_early_comes_back_whole_from_another_process() -> None:
    again = pickle.loads(pickle.dumps(Interrupted("runs/one/model")))
    assert (again.folder, str(again)) == (Path("runs/one/model"), str(Interrupted("runs/one/model")))
    assert isinstance(again, KeyboardInterrupt)  # nothing that goes on after errors goes on after it


def test_a_run_in_another_thread_takes_no_signals() -> None:
    seen: list[object] = []

    def enter() -> None:
        with Interruption() as interruption:
            seen.append(interruption.signal)

    thread = threading.Thread(target=enter)
    thread.start()
    thread.join()
    assert seen == [None]


def killed_at_random(settings: dict[str, Any], rng: np.random.Generator) -> None:
    """Start the run and kill it at some moment between its start and about a dozen steps later."""
    sign = Path(settings["output"]) / "config.yaml"
    sign.unlink(missing_ok=True)
    job = start(1, settings)
    deadline = time.monotonic() + 240
    while not sign.exists() and job[0].poll() is None and time.monotonic() < deadline:
        time.sleep(0.002)
    time.sleep(float(rng.uniform(0.0, 0.6)))
    job[0].kill()
    finish(job)


@pytest.mark.parametrize("kills", [2, pytest.param(10, marks=pytest.mark.slow)])
def test_any_number_of_kills_leaves_no_trace(corpus: MadeCorpus, tmp_path: Path, kills: int) -> None:
    """Optimiser, averages, mixing of sources, workers' positions, rounds: whatever is killed, the end is the same."""
    seed = int(np.random.default_rng().integers(1 << 30))
    settings = pretraining(
        corpus, tmp_path / "run", steps=6 * kills, save_every=2, log_every=4, ema=0.95, accumulate=2, workers=1, spike=50.0
    )
    settings["sources"].pop("audio_text")
    whole = run(settings | {"output": str(tmp_path / "whole"), "workers": 0})
    rng = np.random.default_rng(seed)
    for _ in range(kills):
        killed_at_random(settings, rng)
    reached = state(tmp_path / "run")["step"]
    model = run(settings | {"workers": 0})
    assert same(model, whole), f"seed {seed}, {reached} steps done when the last kill came"
    assert same(model / "ema", whole / "ema")
    assert journal(model) == journal(whole)
    assert state(tmp_path / "run") == state(tmp_path / "whole")
    optimizers = [(folder / "trainer" / "optimizer.safetensors").read_bytes() for folder in (model, whole)]
    assert optimizers[0] == optimizers[1]
    shutil.rmtree(tmp_path)


def test_lines_of_a_start_that_was_killed_before_its_first_checkpoint_are_forgotten(corpus: MadeCorpus, tmp_path: Path) -> None:
    settings = pretraining(corpus, tmp_path / "run", steps=2, save_every=2, log_every=1)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "log.jsonl").write_text('{"step": 1, "loss": 9.0}\n{"step": 2, "lo')
    assert [line["step"] for line in journal(run(settings))] == [1, 2]
