"""Long corpus jobs, one task at a time on each of many workers, that survive the death of workers.

concurrent.futures gives up the whole pool when one process is killed by a damaged file or by the kernel; here that task alone is tried
again or reported, and a new worker takes its place. Results come as they are ready, with the index of their task. Workers are processes of
this machine (:class:`Processes`) or of a cluster (preprocess/cluster.py); who does what, and what happens when a worker dies, is decided
here for both: a worker is handed its next task when it has answered, so that slow tasks hold up no other, nothing piles up behind a
consumer that is slower than the workers, and a dead worker takes one task with it at most.
"""

import contextlib
import logging
import multiprocessing
import os
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any, Protocol

log = logging.getLogger(__name__)

THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
FAILED_STARTS = 3  # workers in a row that die while they start
LOST_MACHINES = 5  # under one task: then the task may be the reason
SILENCE = 600.0  # seconds without any machine to work on
START = 600.0  # seconds that a worker of this machine may take to start
Function = Callable[[Any, Any], Any]
Setup = Callable[[], Any]


class WorkforceError(ValueError):
    """There are no workers to do the tasks; one sentence with the reason."""


@dataclass(frozen=True)
class Crash:
    """A task that took its worker down, or that was stopped for taking too long."""

    reason: str


@dataclass(frozen=True)
class Raised:
    """An exception in a worker, which is still there."""

    error: Exception


@dataclass(frozen=True)
class Lost:
    """A worker that is gone, with what it had in hand; ``machine`` says that it went with its machine, for which no task is to blame."""

    reason: str
    machine: bool = False


class Worker(Protocol):
    """One worker process. Its first answer, unasked, is what keeps it from working where it is, None if nothing does."""

    def give(self, task: Any) -> None:
        """Hand over a task; to be called after the answer to the one before."""

    def take(self) -> Any:
        """The answer: a result, :class:`Raised` or :class:`Lost`."""

    def stop(self, at_once: bool) -> None:
        """End the process, in the middle of its task if it must be ``at_once``."""


class Workforce(Protocol):
    """Where worker processes come from."""

    @property
    def queues(self) -> bool:
        """Whether a new worker may have to wait for room before it starts."""

    def size(self) -> int:
        """How many workers there may be now."""

    def start(self, function: Function, setup: Setup) -> Worker:
        """A new worker, which calls ``setup`` once."""

    def wait(self, workers: Sequence[Any], seconds: float) -> Sequence[Any]:
        """Those of the workers that have answered or died; returns when there is one or the time is up."""


def default_workers() -> int:
    """One worker for each core this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run_tasks(
    function: Function, tasks: Sequence[Any], setup: Setup, workers: int | Workforce, timeout: float = 1800.0, attempts: int = 1
) -> Iterator[tuple[int, Any]]:
    """Yield ``(index, function(state, task))`` for every task, in the order of finishing; a :class:`Crash` instead of a lost result.

    Args:
        function: picklable, called with what ``setup`` returned and a task.
        setup: picklable, called once in every worker.
        workers: number of processes, or where else they come from; 0 runs everything in this one.
        timeout: seconds after which a task counts as hung and its worker is stopped.
        attempts: workers that a task may take down before it is given up. Tasks that are tried again come last. Machines that are lost do
            not count until they are as many as :data:`LOST_MACHINES`.

    Raises:
        WorkforceError: workers die while they start, none is to be had, or fewer than none are asked for.
        Exception: what ``setup`` or ``function`` raised, from the worker that raised it.
    """
    if workers == 0:
        state = setup()
        for index, task in enumerate(tasks):
            yield index, function(state, task)
        return
    if isinstance(workers, int) and workers < 0:
        raise WorkforceError(f"{workers} workers; give 0 to work in this process, or the number of processes.")
    job = _Run(Processes(workers) if isinstance(workers, int) else workers, function, tasks, setup, timeout, attempts)
    try:
        while job.unfinished:
            job.hire()
            yield from job.collect()
    finally:
        job.dismiss()


@dataclass(frozen=True)
class _Hand:
    """What a worker does: the index of its task, None while it starts, and since when."""

    task: int | None
    since: float


class _Run:
    """Tasks, the workers that have them, and what is left."""

    def __init__(self, force: Workforce, function: Function, tasks: Sequence[Any], setup: Setup, timeout: float, attempts: int) -> None:
        self.force, self.function, self.tasks, self.setup = force, function, tasks, setup
        self.timeout, self.attempts = timeout, attempts
        self.waiting = deque(range(len(tasks)))
        self.busy: dict[Worker, _Hand] = {}
        self.unfit: list[Worker] = []  # they stay where they are, so that the next one is started elsewhere
        self.problem = ""
        self.deaths: Counter[int] = Counter()
        self.machines: Counter[int] = Counter()
        self.failed_starts = 0
        self.heard = time.monotonic()
        self.warned = self.heard

    @property
    def unfinished(self) -> bool:
        return bool(self.waiting) or self._running() > 0

    def _running(self) -> int:
        return sum(hand.task is not None for hand in self.busy.values())

    def hire(self) -> None:
        """Start as many workers as there is work and room for."""
        wanted = min(self.force.size(), len(self.waiting) + self._running() + len(self.unfit))
        for _ in range(wanted - len(self.busy) - len(self.unfit)):
            self.busy[self.force.start(self.function, self.setup)] = _Hand(None, time.monotonic())

    def collect(self) -> Iterator[tuple[int, Any]]:
        """Wait for answers, for a few seconds at most, and hand out what is next."""
        self._look_for_workers()
        for worker in self.force.wait(list(self.busy), 5.0):
            answer = worker.take()
            hand = self.busy[worker]
            if isinstance(answer, Raised):
                raise answer.error
            del self.busy[worker]
            self.heard = time.monotonic()
            if isinstance(answer, Lost):
                if (crash := self._lost(hand, answer)) is not None and hand.task is not None:
                    yield hand.task, crash
            elif hand.task is None:
                self._started(worker, answer)
            else:
                self._next(worker)
                yield hand.task, answer
        for worker, hand in list(self.busy.items()):
            taken = time.monotonic() - hand.since
            if hand.task is not None and taken > self.timeout:
                del self.busy[worker]
                worker.stop(at_once=True)
                yield hand.task, Crash(f"took longer than {self.timeout:.0f} s and was stopped")
            elif hand.task is None and taken > START and not self.force.queues:
                del self.busy[worker]
                worker.stop(at_once=True)
                self._lost(hand, Lost(f"took longer than {START:.0f} s"))

    def _next(self, worker: Worker) -> None:
        if not self.waiting:
            worker.stop(at_once=False)
            return
        index = self.waiting.popleft()
        worker.give(self.tasks[index])
        self.busy[worker] = _Hand(index, time.monotonic())

    def _started(self, worker: Worker, problem: str | None) -> None:
        self.failed_starts = 0
        if problem is None:
            self._next(worker)
            return
        if problem != self.problem:
            log.warning("a worker cannot be used: %s", problem)
        self.problem = problem
        self.unfit.append(worker)

    def _lost(self, hand: _Hand, lost: Lost) -> Crash | None:
        """Have the task done again, unless it was tried often enough."""
        if hand.task is None:
            self.failed_starts += not lost.machine
            if self.failed_starts == FAILED_STARTS:
                raise WorkforceError(f"{FAILED_STARTS} workers in a row died while they started ({lost.reason}).")
            return None
        counter = self.machines if lost.machine else self.deaths
        counter[hand.task] += 1
        if self.deaths[hand.task] == self.attempts:
            times = {1: "", 2: " twice"}.get(self.attempts, f" {self.attempts} times")
            return Crash(f"took its worker process down{times} ({lost.reason})")
        if self.machines[hand.task] == LOST_MACHINES:
            return Crash(f"was in work on {LOST_MACHINES} machines that were lost ({lost.reason})")
        log.warning("%s; its task is done again", lost.reason)
        self.waiting.append(hand.task)
        return None

    def _look_for_workers(self) -> None:
        """Give up where there is no hope, and say so where there is little."""
        if self.unfit and not self.busy:
            raise WorkforceError(f"no worker can be used: {self.problem}")
        silent = time.monotonic() - self.heard
        if not self.busy and silent > SILENCE:
            raise WorkforceError(f"there was no machine to work on for {silent / 60:.0f} minutes; start again to go on.")
        if self._running() == 0 and min(silent, time.monotonic() - self.warned) > 60:
            self.warned = time.monotonic()
            log.warning("no worker has started yet")

    def dismiss(self) -> None:
        """Stop everybody at once."""
        for worker in (*self.busy, *self.unfit):
            worker.stop(at_once=True)


# Processes of this machine ----------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Processes:
    """So many worker processes of this machine."""

    workers: int
    queues: bool = False

    def size(self) -> int:
        return self.workers

    def start(self, function: Function, setup: Setup) -> "_Process":
        return _Process(function, setup)

    def wait(self, workers: Sequence["_Process"], seconds: float) -> list["_Process"]:
        ready = wait([worker.connection for worker in workers], timeout=seconds)
        return [worker for worker in workers if worker.connection in ready]


class _Process:
    """A process and the connection to it."""

    def __init__(self, function: Function, setup: Setup) -> None:
        context = multiprocessing.get_context("spawn")  # a forked copy of a process with threads (torch, mediapipe) may hang
        self.connection, there = context.Pipe()
        self.process = context.Process(target=_work, args=(there, function, setup), daemon=True)
        with _one_thread():
            self.process.start()
        there.close()

    def give(self, task: Any) -> None:
        with contextlib.suppress(ConnectionError):  # it died meanwhile, which the next answer says
            self.connection.send(task)

    def take(self) -> Any:
        try:
            good, answer = self.connection.recv()
        except (EOFError, ConnectionError):
            self.process.join()
            self.connection.close()
            code = self.process.exitcode
            return Lost(f"signal {-code}" if code is not None and code < 0 else f"exit code {code}")
        return answer if good else Raised(answer)

    def stop(self, at_once: bool) -> None:
        self.connection.close()
        if not at_once:
            self.process.join(10)
        if self.process.is_alive():
            self.process.kill()
        self.process.join()


def _work(connection: Connection, function: Function, setup: Setup) -> None:
    with contextlib.suppress(EOFError, ConnectionError, KeyboardInterrupt):  # the main process has no more work, or is gone
        try:
            state = setup()
            connection.send((True, None))
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
