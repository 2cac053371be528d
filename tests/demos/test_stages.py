"""Stages of a long job: what a kill costs, and what is printed."""

import io
import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from avtlm.training.loop import Trainer
from demos import stages
from demos.stages import Stages
from tests.made_corpus import make_corpus
from tests.training.made_runs import pretraining, run

KILLED = (
    "import sys, time; from pathlib import Path; from rich.console import Console; from demos import stages\n"
    "stages.TICK = 0.1\n"
    "stages.Stages(Path(sys.argv[1]), Console(stderr=True), 1).run('work', 'wait', lambda: time.sleep(60))\n"
)


def test_a_killed_stage_loses_no_more_than_a_tick_of_its_time(tmp_path: Path) -> None:
    process = subprocess.Popen([sys.executable, "-c", KILLED, str(tmp_path)], stderr=subprocess.DEVNULL)
    stamp = tmp_path / "stages" / "work.json"
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not (stamp.exists() and json.loads(stamp.read_text())["seconds"] >= 0.3):
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    found = json.loads(stamp.read_text())
    assert found["seconds"] >= 0.3
    assert not found["finished"]


def test_a_stage_is_numbered_timed_and_not_repeated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stages, "TICK", 0.01)
    done: list[str] = []
    for _ in range(2):
        screen = io.StringIO()
        job = Stages(tmp_path, Console(file=screen, width=100), 2, seed=3)
        job.run("first", "do this", lambda: done.append("first"))
        job.run("second", "do that", lambda: done.append("second"), amount=7)
    assert done == ["first", "second"]
    assert "[2/2] second  do that  done before" in screen.getvalue()
    assert json.loads((tmp_path / "stages" / "second.json").read_text())["asked"] == {"seed": 3, "amount": 7}


def test_a_training_that_was_stopped_leaves_its_stage_unfinished(tmp_path: Path) -> None:
    corpus = make_corpus(tmp_path / "corpus", 6)
    settings = pretraining(corpus, tmp_path / "run", steps=4, save_every=100)
    step = Trainer._step

    def asked(self: Trainer, number: int, *rest: Any) -> None:
        if number == 1:
            signal.raise_signal(signal.SIGINT)
        step(self, number, *rest)

    def job() -> Stages:
        return Stages(tmp_path, Console(file=io.StringIO()), 2)

    done: list[str] = []

    def both() -> None:
        chain = job()
        chain.run("train", "learn", lambda: done.append(str(run(settings))))
        chain.run("use", "use what was learned", lambda: done.append("used"))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "_step", asked)
        with pytest.raises(KeyboardInterrupt):
            both()
    assert not done
    assert not json.loads((tmp_path / "stages" / "train.json").read_text())["finished"]
    both()
    assert done == [str(tmp_path / "run" / "model"), "used"]
    assert json.loads((tmp_path / "run" / "model" / "trainer" / "state.json").read_text())["step"] == 4
