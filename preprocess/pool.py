"""Worker processes for long corpus jobs, one task at a time each, that survive the death of a worker.

concurrent.futures gives up the whole pool when one process is killed by a damaged file or by the kernel; here that task alone is reported
and a new worker takes its place. Results come as they are ready, with the index of their task.
"""

import contextlib
import multiprocessing
import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any

THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


@dataclass(frozen=True)
class Crash:
    """A task that took its worker down, or that was stopped for taking too long."""

    reason: str


@dataclass
class _Worker:
    process: BaseProcess
    connection: Connection
    task: int
    started: float


def run_tasks(
    function: Callable[[Any, Any], Any], tasks: Sequence[Any], setup: Callable[[], Any], workers: int, timeout: float = 1800.0
) -> Iterator[tuple[int, Any]]:
    """Yield ``(index, function(state, task))`` for every task, in the order of finishing; a :class:`Crash` instead of a lost result.

    Args:
        function: picklable, called with what ``setup`` returned and a task.
        setup: picklable, called once in every worker.
        workers: number of processes; 0 runs everything in this one.
        timeout: seconds after which a task counts as hung and its worker is stopped.

    Raises:
        Exception: what ``setup`` or ``function`` raised, from the worker that raised it.
    """
    if workers == 0:
        state = setup()
        for index, task in enumerate(tasks):
            yield index, function(state, task)
        return
    waiting = iter(range(len(tasks)))
    running: list[_Worker] = []
    try:
        for _, index in zip(range(workers), waiting):
            running.append(_start(function, setup, tasks, index))
        while running:
            ready = wait([worker.connection for worker in running], timeout=5)
            for worker in list(running):
                if worker.connection in ready:
                    result = _receive(worker)
                elif time.monotonic() - worker.started > timeout:
                    worker.process.kill()
                    worker.process.join()
                    result = Crash(f"took longer than {timeout:.0f} s and was stopped")
                else:
                    continue
                running.remove(worker)
                finished = worker.task
                following = next(waiting, None)
                if isinstance(result, Crash):
                    worker.connection.close()
                    if following is not None:
                        running.append(_start(function, setup, tasks, following))
                elif following is None:
                    _stop(worker)
                else:
                    worker.connection.send(tasks[following])
                    running.append(_Worker(worker.process, worker.connection, following, time.monotonic()))
                yield finished, result
    finally:
        for worker in running:
            worker.process.kill()
            worker.process.join()
            worker.connection.close()


def _start(function: Callable[[Any, Any], Any], setup: Callable[[], Any], tasks: Sequence[Any], index: int) -> _Worker:
    context = multiprocessing.get_context("spawn")  # a forked copy of a process with threads (torch, mediapipe) may hang
    here, there = context.Pipe()
    process = context.Process(target=_work, args=(there, function, setup), daemon=True)
    with _one_thread():
        process.start()
    there.close()
    here.send(tasks[index])
    return _Worker(process, here, index, time.monotonic())


def _receive(worker: _Worker) -> Any:
    try:
        good, result = worker.connection.recv()
    except (EOFError, ConnectionError):
        worker.process.join()
        code = worker.process.exitcode
        return Crash(f"took its worker process down ({f'signal {-code}' if code is not None and code < 0 else f'exit code {code}'})")
    if not good:
        raise result
    return result


def _stop(worker: _Worker) -> None:
    worker.connection.close()
    worker.process.join(10)
    if worker.process.is_alive():
        worker.process.kill()
        worker.process.join()


def _work(connection: Connection, function: Callable[[Any, Any], Any], setup: Callable[[], Any]) -> None:
    with contextlib.suppress(EOFError, ConnectionError, KeyboardInterrupt):  # the main process has no more work, or is gone
        try:
            state = setup()
            while True:
                connection.send((True, function(state, connection.recv())))
        except Exception as error:
            if isinstance(error, EOFError | ConnectionError):
                raise
            connection.send((False, error))


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """Numerical libraries read these variables when they are loaded, which in a worker is before any code of ours."""
    before = {name: os.environ.get(name) for name in THREAD_VARIABLES}
    os.environ.update(dict.fromkeys(THREAD_VARIABLES, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value
