"""Progress of long jobs on standard error: a bar with rate and remaining time in a terminal, an occasional line elsewhere.

Nested bars share one display. Nothing here goes to standard output, so that results can be piped.
"""

import contextlib
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Sized
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.text import Text

T = TypeVar("T")
LINE_SECONDS = 20.0  # between two lines where there is no terminal

_lock = threading.RLock()
_display: Progress | None = None
_open_bars = 0


class _Rate(ProgressColumn):
    def render(self, task: Task) -> Text:
        return Text(rate_text(task.finished_speed or task.speed), style="cyan")


def rate_text(per_second: float | None) -> str:
    """``12.3/s`` for fast work, ``4.0 s each`` for slow work, empty if unknown."""
    if not per_second:
        return ""
    return f"{per_second:.3g}/s" if per_second >= 1 else f"{1 / per_second:.3g} s each"


def duration_text(seconds: float) -> str:
    """``7.3 s``, ``2:05 min`` or ``1:02 h``."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d} min" if minutes < 60 else f"{minutes // 60}:{minutes % 60:02d} h"


class Bar:
    """One running job. `advance` it by finished items; an optional note (such as the loss) stands behind it."""

    def __init__(self, console: Console, description: str, total: int | None, done: int) -> None:
        self.description, self.total, self.done, self.note = description, total, done, ""
        self._console, self._first = console, done
        self._started = self._spoke = time.monotonic()
        self._task = _display.add_task(description, total=total, completed=done, note="") if _display else None

    def advance(self, count: int = 1, note: str | None = None) -> None:
        """Say that ``count`` more items are done."""
        self.done += count
        self.note = self.note if note is None else note
        if self._task is not None and _display is not None:
            _display.update(self._task, advance=count, note=self.note)
        elif time.monotonic() - self._spoke >= LINE_SECONDS:
            self._spoke = time.monotonic()
            self._console.print(self.line(), highlight=False, markup=False, soft_wrap=True)

    def line(self) -> str:
        """The state in one line, such as ``lip crops: 320/1000, 45.1/s, 15.1 s left, loss 2.1``."""
        elapsed, count = time.monotonic() - self._started, self.done - self._first
        parts = [f"{self.done}/{self.total}" if self.total else str(self.done)]
        if count and elapsed > 0:
            parts.append(rate_text(count / elapsed))
            if self.total:
                parts.append(f"{duration_text((self.total - self.done) * elapsed / count)} left")
        return f"{self.description}: {', '.join([*parts, self.note] if self.note else parts)}"

    def close(self) -> None:
        """Take the bar off the display, leaving one line where there is no terminal and the job took long."""
        if self._task is not None and _display is not None:
            _display.remove_task(self._task)
        elif self._spoke > self._started:
            self._console.print(f"{self.line()}, took {duration_text(time.monotonic() - self._started)}", highlight=False, markup=False)


@contextlib.contextmanager
def bar(description: str, total: int | None = None, done: int = 0, console: Console | None = None) -> Iterator[Bar]:
    """Show a job while the block runs. ``done`` items count as finished before it started (a resumed run)."""
    global _display, _open_bars
    with _lock:
        console = console or Console(stderr=True)
        if _open_bars == 0 and console.is_terminal:
            columns = (
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                _Rate(),
                TimeElapsedColumn(),
                TimeRemainingColumn(),
            )
            # Lines printed meanwhile go above the bar where both are seen; a redirected standard output is left alone.
            above = sys.stdout.isatty()
            _display = Progress(*columns, TextColumn("[dim]{task.fields[note]}"), console=console, transient=True, redirect_stdout=above)
            _display.start()
        _open_bars += 1
        current = Bar(console, description, total, done)
    try:
        yield current
    finally:
        with _lock:
            current.close()
            _open_bars -= 1
            if _open_bars == 0 and _display is not None:
                _display.stop()
                _display = None


def track(items: Iterable[T], description: str, total: int | None = None) -> Iterator[T]:
    """Yield the items and show how many are done, how fast, and how long the rest will take."""
    if total is None and isinstance(items, Sized):
        total = len(items)
    with bar(description, total) as current:
        for item in items:
            yield item
            current.advance()
