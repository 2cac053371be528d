"""Worker processes on all machines of a Ray cluster, for the same jobs as those of one machine (pool.py).

Every worker is an actor with one CPU, which Ray places where there is room; machines that join while a job runs get workers as well. Tasks
stay with the program that started the job and are handed out one by one, and so what a lost machine had in hand is known and done again.
Files go by their paths: all machines have to see the same folders, and a worker that does not see them is given nothing to do.
"""

import contextlib
import logging
import os
import secrets
import socket
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from avtlm import __version__
from avtlm.errors import needs
from preprocess.pool import Function, Lost, Raised, Setup, Workforce, WorkforceError, default_workers

log = logging.getLogger(__name__)

RUNNING = "auto"  # the cluster that runs on this machine, or the one that RAY_ADDRESS names
MARK = ".seen-by-all."
SIGHT = 10.0  # seconds that a network file system may take to show a new file
COUNT = 2.0  # seconds between two counts of the CPUs


@dataclass(frozen=True)
class Surroundings:
    """What a worker has to find where it is: the working folder, files, and this version of the library."""

    folder: str
    files: tuple[str, ...]
    version: str = __version__

    def problem(self) -> str | None:
        """Go to the folder; what is missing, in words, None if nothing is."""
        machine = socket.gethostname()
        if self.version != __version__:
            return f"{machine} has avtlm {__version__} and not {self.version}; install the same on all machines."
        for name in (self.folder, *self.files):
            if not _seen(name):
                return f"{machine} does not see {name}; put input and output where all machines see them under the same path."
        os.chdir(self.folder)
        return None


def _seen(name: str) -> bool:
    end = time.monotonic() + SIGHT
    while not os.path.exists(name):
        if time.monotonic() > end:
            return False
        time.sleep(0.2)
    return True


class Desk:
    """Where a worker of the cluster sits; an actor of Ray, with calls one after the other."""

    def __init__(self, function: Function, setup: Setup, surroundings: Surroundings) -> None:
        self.function, self.setup, self.surroundings = function, setup, surroundings
        self.state: Any = None

    def prepare(self) -> str | None:
        """Make ready for tasks; says what is in the way, None if nothing is."""
        problem = self.surroundings.problem()
        if problem is None:
            try:
                self.state = self.setup()
            except ImportError as error:
                return f"{socket.gethostname()}: {error}"
        return problem

    def work(self, task: Any) -> Any:
        """Do a task."""
        return self.function(self.state, task)


@dataclass
class RayCluster:
    """Workers of a cluster that this program is connected to (see `connected`).

    Attributes:
        surroundings: what every worker has to find.
        workers: how many there may be; None takes one for each CPU of the cluster, counted again while the job runs.
    """

    surroundings: Surroundings
    workers: int | None = None
    queues: bool = True
    _counted: float = field(default=-COUNT, repr=False)
    _cpus: int = field(default=0, repr=False)

    def size(self) -> int:
        if self.workers is not None:
            return self.workers
        if time.monotonic() - self._counted > COUNT:
            import ray

            self._counted, self._cpus = time.monotonic(), int(ray.cluster_resources().get("CPU", 0))
        return self._cpus

    def start(self, function: Function, setup: Setup) -> "_Actor":
        import ray

        desk = ray.remote(num_cpus=1, max_restarts=0, max_task_retries=0)(Desk)
        return _Actor(desk.remote(function, setup, self.surroundings))

    def wait(self, workers: Sequence["_Actor"], seconds: float) -> list["_Actor"]:
        import ray

        if not workers:
            time.sleep(seconds)
            return []
        by_answer = {worker.answer: worker for worker in workers}
        if not ray.wait(list(by_answer), num_returns=1, timeout=seconds)[0]:
            return []
        ready, _ = ray.wait(list(by_answer), num_returns=len(by_answer), timeout=0)
        return [by_answer[answer] for answer in ready]


class _Actor:
    """A worker, and the answer that it owes."""

    def __init__(self, desk: Any) -> None:
        self.desk = desk
        self.answer = desk.prepare.remote()

    def give(self, task: Any) -> None:
        self.answer = self.desk.work.remote(task)

    def take(self) -> Any:
        import ray
        from ray.exceptions import RayActorError, RayError, RayTaskError

        try:
            return ray.get(self.answer)
        except RayActorError as error:
            self.stop(at_once=True)  # one that is only out of reach must not go on with what another is given
            return Lost(*_cause(str(error)))
        except RayTaskError as error:
            return Raised(error.cause if isinstance(error.cause, Exception) else error)
        except RayError as error:  # a result that was lost on its way
            self.stop(at_once=True)
            return Lost(type(error).__name__, machine=True)

    def stop(self, at_once: bool) -> None:
        import ray

        ray.kill(self.desk)


def _cause(message: str) -> tuple[str, bool]:
    """In a few words why an actor died, and whether its machine did. Ray says so in its message alone."""
    if "node has died" in message or "unavailable" in message:
        return "its machine was lost", True
    if "memory usage threshold" in message or "low on memory" in message:  # Ray stopped it before the kernel would have
        return "its machine ran out of memory", False
    return "it was killed or crashed", False


@contextlib.contextmanager
def connected(address: str = RUNNING) -> Iterator[None]:
    """Be connected to a cluster while the block runs; a connection that is there already is used, and stays.

    Raises:
        WorkforceError: there is no such cluster.
        MissingExtra: Ray is not installed.
    """
    with needs("cluster", "ray", "working on a cluster"):
        import ray
    ours = not ray.is_initialized()
    if ours:
        try:
            ray.init(address=address, log_to_driver=False, logging_level=logging.WARNING)
        except (ConnectionError, ValueError, RuntimeError, OSError) as error:
            name = "no Ray cluster runs here" if address == RUNNING else f"no Ray cluster answers at {address}"
            reason = " ".join(str(error).split())[:200]
            raise WorkforceError(f"{name} ({reason}); start one with ray start --head and join others with ray start --address.") from error
    try:
        yield
    finally:
        if ours:
            ray.shutdown()


@contextlib.contextmanager
def workforce(cluster: str | None, workers: int | None, out: Path | None, files: Sequence[str] = ()) -> Iterator[int | Workforce]:
    """What `preprocess.pool.run_tasks` takes for its workers: a number of processes here, or those of a cluster.

    Args:
        cluster: address of a Ray cluster, "auto" for the one that runs; None works on this machine.
        workers: processes, 0 for none besides this one; None takes one for each core, on a cluster for each of its CPUs.
        out: a folder that there is, which all machines have to see; None if they write elsewhere.
        files: further paths that they have to see.

    Raises:
        WorkforceError: there is no such cluster, or it is to work with no worker.
        MissingExtra: Ray is not installed.
    """
    if cluster is None:
        yield default_workers() if workers is None else workers
        return
    if workers is not None and workers < 1:
        raise WorkforceError(f"{workers} workers on a cluster; give at least 1, or leave it out for one on each CPU.")
    with connected(cluster), _marked(out) as marks:
        here = os.getcwd()
        yield RayCluster(Surroundings(here, tuple(os.path.join(here, name) for name in (*marks, *files))), workers)


@contextlib.contextmanager
def _marked(out: Path | None) -> Iterator[list[str]]:
    """A new file in a folder while the block runs: who sees it sees this folder, and not another of its name."""
    if out is None:
        yield []
        return
    for old in out.glob(f"{MARK}*"):
        old.unlink(missing_ok=True)
    mark = out / f"{MARK}{secrets.token_hex(4)}"
    mark.touch()
    try:
        yield [str(mark)]
    finally:
        mark.unlink(missing_ok=True)
