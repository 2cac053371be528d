"""Trainings side by side: what they return, what they print, and what happens when one fails."""

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from avtlm import config
from avtlm.training.interruption import Interrupted
from demos.parallel import Job, last_step, measure_together, train_together
from tests.made_corpus import make_corpus
from tests.training.made_runs import pretraining


def test_steps_are_read_from_a_log_that_is_being_written(tmp_path: Path) -> None:
    assert last_step(tmp_path / "log.jsonl") == 0
    (tmp_path / "log.jsonl").write_text('{"step": 10, "loss": 1}\n{"step": 20, "lo')
    assert last_step(tmp_path / "log.jsonl") == 10


def jobs(tmp_path: Path, *seeds: int, **changes: Any) -> list[Job]:
    corpus = make_corpus(tmp_path / "corpus", 6)
    found = []
    for seed in seeds:
        settings = pretraining(corpus, tmp_path / f"run{seed}", steps=2, save_every=100, log_every=1, seed=seed, **changes)
        path = tmp_path / f"run{seed}.yaml"
        path.write_text(config.to_yaml(settings))
        found.append(Job(path, (), tmp_path / f"run{seed}"))
    return found


def test_trainings_come_back_in_their_order_and_tell_their_logs_what_they_do(tmp_path: Path) -> None:
    made = jobs(tmp_path, 1, 2)
    assert train_together("two of them", made, 4) == [job.folder / "model" for job in made]
    for job in made:
        assert (job.folder / "train.log").exists()
        assert last_step(job.folder / "log.jsonl") == 2


def stopped(job: Job) -> None:
    raise Interrupted(job.folder)


def test_a_stopped_training_stops_the_recipe(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        train_together("stopped", [Job(tmp_path / "none.yaml", (), tmp_path)], 1, stopped)


def test_a_wrong_setting_is_told_as_it_is(tmp_path: Path) -> None:
    [job] = jobs(tmp_path, 1)
    with pytest.raises(ValueError, match="stepz"):
        train_together("wrong", [Job(job.config, ("stepz=3",), job.folder)], 2)


def doubled(number: int) -> int:
    """A measurement, with the one thread that it has and words that nobody sees."""
    import sys

    import torch

    assert torch.get_num_threads() == 1
    print("progress of its own", file=sys.stderr)
    return 2 * number


def refused(number: int) -> int:
    raise ValueError(f"{number}: not to be measured.")


def test_measurements_come_back_in_their_order_and_are_counted(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    counted: list[Any] = []

    class Counter:
        def advance(self, steps: int) -> None:
            counted.append(steps)

    @contextlib.contextmanager
    def counter(what: str, total: int) -> Iterator[Counter]:
        counted.append((what, total))
        yield Counter()

    monkeypatch.setattr("avtlm.training.progress.bar", counter)
    assert measure_together("measuring", doubled, [3, 1, 2]) == [6, 2, 4]
    assert counted == [("measuring", 3), 1, 1, 1]
    assert "progress of its own" not in capfd.readouterr().err


def test_a_measurement_that_fails_says_why() -> None:
    with pytest.raises(ValueError, match="7: not to be measured"):
        measure_together("measuring", refused, [7])
