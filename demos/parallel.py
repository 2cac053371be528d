"""Several trainings or measurements at once, one thread each: models as small as those of the recipes gain next to nothing from a second
thread."""

import concurrent.futures
import contextlib
import functools
import json
import multiprocessing
import os
import threading
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

Item = TypeVar("Item")
Figures = TypeVar("Figures")


@dataclass(frozen=True)
class Job:
    """One training: its configuration, what is changed in it, and the folder of its run (which the changes name, too)."""

    config: Path
    changes: tuple[str, ...]
    folder: Path


def train_quietly(job: Job) -> Path:
    """Train in a process of its own, which tells its progress to ``train.log``; returns the model folder."""
    from avtlm.training.loop import train

    job.folder.mkdir(parents=True, exist_ok=True)
    with open(job.folder / "train.log", "a") as journal, contextlib.redirect_stderr(journal):
        return train(job.config, [*job.changes, f"output={job.folder}", "threads=1"])


def train_together(what: str, jobs: Sequence[Job], steps: int, work: Callable[[Job], Any] = train_quietly) -> list[Any]:
    """Run all jobs, as many at a time as there are cores, under one bar; returns what ``work`` makes of each, in their order.

    Args:
        what: name of the bar.
        steps: of all trainings together.
        work: picklable.
    """
    from avtlm.training.progress import bar

    context = multiprocessing.get_context("spawn")
    with (
        bar(what, steps) as progress,
        concurrent.futures.ProcessPoolExecutor(min(len(jobs), os.cpu_count() or 1), mp_context=context) as pool,
    ):
        running = [pool.submit(work, job) for job in jobs]
        finished = threading.Event()
        watcher = threading.Thread(target=_watch, args=([job.folder for job in jobs], progress, finished), daemon=True)
        watcher.start()
        try:
            return [future.result() for future in running]
        finally:
            for future in running:
                future.cancel()
            finished.set()
            watcher.join()


def _watch(folders: Sequence[Path], progress: Any, finished: threading.Event) -> None:
    """Advance a bar by the steps that the runs write into their logs."""
    shown = 0
    while True:
        over = finished.wait(2.0)
        steps = sum(last_step(folder / "log.jsonl") for folder in folders)
        progress.advance(steps - shown)
        shown = steps
        if over:
            return


def last_step(journal: Path) -> int:
    return int(last_line(journal).get("step", 0))


def last_line(journal: Path) -> dict[str, float]:
    """The newest whole line of a run's ``log.jsonl``; empty before the first."""
    lines = [line for line in journal.read_text().splitlines() if line.endswith("}")] if journal.exists() else []
    return json.loads(lines[-1]) if lines else {}


def measure_together(what: str, measure: Callable[[Item], Figures], items: Iterable[Item]) -> list[Figures]:
    """What ``measure`` finds of each item, in their order, as many at a time as there are cores, under one bar.

    Args:
        what: name of the bar.
        measure: picklable; what it shows of its own progress is not seen.
    """
    from avtlm.training.progress import bar

    waiting = list(items)
    context = multiprocessing.get_context("spawn")
    with (
        bar(what, len(waiting)) as progress,
        concurrent.futures.ProcessPoolExecutor(min(len(waiting), os.cpu_count() or 1), mp_context=context) as pool,
    ):
        running = [pool.submit(functools.partial(_alone, measure), item) for item in waiting]
        try:
            for _ in concurrent.futures.as_completed(running):
                progress.advance(1)
            return [future.result() for future in running]
        finally:
            for future in running:
                future.cancel()


def _alone(measure: Callable[[Item], Figures], item: Item) -> Figures:
    """Measure with one thread and without a bar."""
    import torch

    torch.set_num_threads(1)
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stderr(nowhere):
        return measure(item)
