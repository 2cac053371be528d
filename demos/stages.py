"""A long job as a list of stages: each is run once and timed, goes on after an interruption, and is known by a stamp once it is done."""

import contextlib
import json
import os
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console

from avtlm.files import write_text
from avtlm.origin import machine as machine  # what figures were measured on, for the reports of demos and benchmarks

# What a process must be told before it starts.
ENVIRONMENT = {
    # Large tensors come and go in every step; without this the C library hands their memory back each time (a seventh of a run).
    "MALLOC_TRIM_THRESHOLD_": "4000000000",
    "MALLOC_MMAP_THRESHOLD_": "4000000000",
    "MALLOC_TOP_PAD_": "268435456",
    # Threads that wait for each other soon let go of their core: as fast on a quiet machine, five times faster on a busy one.
    "GOMP_SPINCOUNT": "1000",
}
TICK = 5.0  # seconds of a killed stage that go uncounted at most


class Stages:
    """Stages of one job in one folder, numbered as they come.

    Args:
        out: folder of the job; stamps lie in ``stages/``.
        total: how many stages there will be.
        afresh: by stage, the folders under ``out`` to delete before a stage that was made from other settings starts again. Stages that
            check for themselves whether what they find is theirs need none.
        asked: settings that all stages depend on.

    Attributes:
        seconds: time that each stage took, over all its attempts.
    """

    def __init__(self, out: Path, console: Console, total: int, afresh: Mapping[str, Sequence[str]] | None = None, **asked: Any) -> None:
        self.out, self.console, self.total, self.afresh = out, console, total, afresh or {}
        self.asked: dict[str, Any] = dict(asked)
        self.seconds: dict[str, float] = {}

    def run(self, name: str, what: str, work: Callable[[], None], **depends: Any) -> None:
        """Run a stage, or what is left of it, unless it was finished before.

        ``depends`` is what the stage takes from the plan. A stage that was made from other settings, its own or those of a stage before
        it, starts afresh: a training would otherwise go on from the model of another plan.
        """
        self.asked |= depends
        stamp = self.out / "stages" / f"{name}.json"
        before = json.loads(stamp.read_text()) if stamp.exists() else None
        if before is None or before["asked"] != self.asked:
            before = {"asked": dict(self.asked), "seconds": 0.0, "finished": False}
            stamp.unlink(missing_ok=True)
            for folder in self.afresh.get(name, ()):
                shutil.rmtree(self.out / folder, ignore_errors=True)
        self.seconds[name] = before["seconds"]
        head = f"[bold cyan]\\[{len(self.seconds)}/{self.total}][/] [bold]{name}[/]  {what}"
        if before["finished"]:
            self.console.print(f"{head}  [dim]done before, in {before['seconds']:.0f} s[/]", highlight=False)
            return
        self.console.print(head, highlight=False)
        start, finished = time.monotonic(), False

        def note() -> None:
            self.seconds[name] = round(before["seconds"] + time.monotonic() - start, 1)
            write_json(stamp, before | {"seconds": self.seconds[name], "finished": finished})

        note()
        try:
            with _every(TICK, note):
                work()
            finished = True
        finally:
            note()
        self.console.print(f"      [dim]{self.seconds[name]:.0f} s[/]", highlight=False)


@contextlib.contextmanager
def _every(seconds: float, work: Callable[[], None]) -> Iterator[None]:
    """Do something small again and again beside a block of code."""
    over = threading.Event()

    def turn() -> None:
        while not over.wait(seconds):
            work()

    thread = threading.Thread(target=turn, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def restart_tuned(module: str, arguments: Sequence[str]) -> None:
    """Start ``python -m module`` again with the settings of `ENVIRONMENT`, unless they are set: they are read once, at the start."""
    if any(os.environ.get(name) != value for name, value in ENVIRONMENT.items()) and sys.platform.startswith("linux"):
        os.execve(sys.executable, [sys.executable, "-m", module, *arguments], os.environ | ENVIRONMENT)


def finish(name: str, work: Callable[[], Any]) -> int:
    """Do the work of a command; returns its exit code, and says on standard error in one sentence why it ended early."""
    try:
        work()
    except KeyboardInterrupt:
        print(f"{name}: stopped; the same command goes on from here.", file=sys.stderr)
        return 130
    except (ValueError, ImportError, OSError, ArithmeticError) as error:
        print(f"{name}: {error}", file=sys.stderr)
        return 1
    return 0


def write_json(path: Path, content: Any) -> None:
    write_text(path, json.dumps(content, indent=1) + "\n")
