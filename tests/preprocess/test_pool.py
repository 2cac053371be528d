"""Tasks are done whatever becomes of their workers."""

import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from avtlm.errors import MissingExtra
from preprocess import pool
from preprocess.pool import Crash, Lost, WorkforceError, run_tasks


def number() -> int:
    return 100


def add(state: int, task: int) -> int:
    if task == 3:
        os._exit(9)
    if task == 4:
        time.sleep(600)
    return state + task


def deadly_once(state: int, task: Path) -> str:
    """Die the first time that a task is done."""
    if not task.exists():
        task.touch()
        os._exit(7)
    return task.name


def fail() -> int:
    raise ValueError("cannot start")


def die() -> int:
    os._exit(5)


def lacking() -> int:
    raise MissingExtra("lips", "mediapipe", "finding faces")


def threads(state: int, task: str) -> str | None:
    return os.environ.get(task)


def test_a_dead_and_a_hung_worker_cost_one_task_each() -> None:
    results = dict(run_tasks(add, list(range(8)), number, workers=2, timeout=4.0))
    assert {index: value for index, value in results.items() if index not in (3, 4)} == {n: 100 + n for n in (0, 1, 2, 5, 6, 7)}
    assert results[3] == Crash("took its worker process down (exit code 9)")
    assert results[4] == Crash("took longer than 4 s and was stopped")


def test_a_task_whose_worker_died_is_done_again_and_comes_last(tmp_path: Path) -> None:
    (tmp_path / "b").touch()
    results = list(run_tasks(deadly_once, [tmp_path / name for name in "abb"], number, workers=1, attempts=2))
    assert results == [(1, "b"), (2, "b"), (0, "a")]
    assert dict(run_tasks(add, [3], number, workers=1, attempts=2)) == {0: Crash("took its worker process down twice (exit code 9)")}


def test_an_error_of_the_setup_reaches_the_caller() -> None:
    with pytest.raises(ValueError, match="cannot start"):
        list(run_tasks(add, [1, 2], fail, workers=1))
    with pytest.raises(MissingExtra, match="pip install"):
        list(run_tasks(add, [1, 2], lacking, workers=1))


def test_workers_that_cannot_start_end_the_job_and_not_its_tasks() -> None:
    with pytest.raises(WorkforceError, match=r"3 workers in a row died while they started \(exit code 5\)"):
        list(run_tasks(add, list(range(9)), die, workers=1))


def test_fewer_than_no_workers_are_refused() -> None:
    with pytest.raises(WorkforceError, match="-2 workers; give 0 to work in this process"):
        list(run_tasks(add, [1], number, workers=-2))


def test_workers_compute_with_one_thread() -> None:
    assert list(run_tasks(threads, ["OMP_NUM_THREADS"], number, workers=1)) == [(0, "1")]


# Any workforce ----------------------------------------------------------------------------------------------------------------------------


class Played:
    """A worker that answers at once with what it is told to."""

    def __init__(self, start: Any, answer: Callable[[Any], Any]) -> None:
        self.answer, self.next, self.stopped = answer, start, False

    def give(self, task: Any) -> None:
        self.next = self.answer(task)

    def take(self) -> Any:
        return self.next

    def stop(self, at_once: bool) -> None:
        self.stopped = True


class Play:
    """A workforce of such workers. ``starts`` are the first answers of its workers in turn, None for all that follow."""

    queues = True

    def __init__(self, size: int, answer: Callable[[Any], Any], starts: Sequence[Any] = ()) -> None:
        self.workers: list[Played] = []
        self.limit, self.answer, self.starts = size, answer, list(starts)
        self.given: list[Any] = []

    def size(self) -> int:
        return self.limit

    def start(self, function: object, setup: object) -> Played:
        def answer(task: Any) -> Any:
            self.given.append(task)
            return self.answer(task)

        self.workers.append(Played(self.starts.pop(0) if self.starts else None, answer))
        return self.workers[-1]

    def wait(self, workers: Sequence[Any], seconds: float) -> Sequence[Any]:
        return workers


def done(force: Play, tasks: int) -> dict[int, Any]:
    return dict(run_tasks(add, list(range(tasks)), number, force, attempts=2))


def test_a_lost_machine_is_no_fault_of_its_task_until_there_are_many() -> None:
    trouble = [Lost("gone", machine=True)] * 3 + [Lost("killed")]
    force = Play(1, lambda task: trouble.pop() if task == 1 and trouble else 10 * task)
    assert done(force, 3) == {0: 0, 1: 10, 2: 20}
    force = Play(1, lambda task: Lost("gone", machine=True) if task == 1 else 10 * task)
    assert done(force, 3)[1] == Crash("was in work on 5 machines that were lost (gone)")
    assert force.given.count(1) == 5


def test_a_worker_that_cannot_work_where_it_is_keeps_its_place_and_the_others_do_everything() -> None:
    force = Play(3, lambda task: task, starts=["b does not see out", "b does not see out"])
    assert done(force, 9) == {n: n for n in range(9)}
    assert len(force.workers) == 3
    assert all(worker.stopped for worker in force.workers)


def test_the_job_ends_with_the_reason_if_no_worker_can_work() -> None:
    with pytest.raises(WorkforceError, match="no worker can be used: b does not see out"):
        done(Play(2, lambda task: task, starts=["b does not see out"] * 2), 3)


def test_the_job_ends_if_all_machines_stay_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pool, "SILENCE", 0.05)
    with pytest.raises(WorkforceError, match=r"there was no machine to work on for \d+ minutes; start again to go on"):
        done(Play(0, lambda task: task), 3)


def test_workers_that_come_later_get_their_share() -> None:
    force = Play(1, lambda task: task)
    for index, _ in run_tasks(add, list(range(12)), number, force):
        force.limit = 3 if index > 3 else 1
    assert len(force.workers) == 3


def test_nothing_piles_up_behind_a_slow_consumer() -> None:
    force = Play(3, lambda task: task)
    for taken, _ in enumerate(run_tasks(add, list(range(30)), number, force), 1):
        assert len(force.given) <= taken + 3
    assert len(force.given) == 30


def test_a_consumer_that_goes_away_stops_the_workers() -> None:
    force = Play(3, lambda task: task)
    results = run_tasks(add, list(range(30)), number, force)
    next(results)
    results.close()  # type: ignore[attr-defined]
    assert all(worker.stopped for worker in force.workers)
