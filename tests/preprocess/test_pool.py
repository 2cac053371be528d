"""Tasks are done whatever becomes of their workers."""

import os
import time

import pytest

from avtlm.errors import MissingExtra
from preprocess.pool import Crash, run_tasks


def number() -> int:
    return 100


def add(state: int, task: int) -> int:
    if task == 3:
        os._exit(9)
    if task == 4:
        time.sleep(600)
    return state + task


def fail() -> int:
    raise ValueError("cannot start")


def lacking() -> int:
    raise MissingExtra("lips", "mediapipe", "finding faces")


def threads(state: int, task: str) -> str | None:
    return os.environ.get(task)


def test_a_dead_and_a_hung_worker_cost_one_task_each() -> None:
    results = dict(run_tasks(add, list(range(8)), number, workers=2, timeout=4.0))
    assert {index: value for index, value in results.items() if index not in (3, 4)} == {n: 100 + n for n in (0, 1, 2, 5, 6, 7)}
    assert results[3] == Crash("took its worker process down (exit code 9)")
    assert results[4] == Crash("took longer than 4 s and was stopped")


def test_an_error_of_the_setup_reaches_the_caller() -> None:
    with pytest.raises(ValueError, match="cannot start"):
        list(run_tasks(add, [1, 2], fail, workers=1))
    with pytest.raises(MissingExtra, match="pip install"):
        list(run_tasks(add, [1, 2], lacking, workers=1))


def test_workers_compute_with_one_thread() -> None:
    assert list(run_tasks(threads, ["OMP_NUM_THREADS"], number, workers=1)) == [(0, "1")]
