"""SIGTERM and Ctrl-C as a request: the step is finished, the state is written, and the run ends well, to be started again later."""

import signal
import threading
import time
from pathlib import Path
from types import FrameType


class Interrupted(KeyboardInterrupt):
    """A run has ended early, as it was asked to, and its state is written: whoever called it must not go on as if it were done.

    Attributes:
        folder: its model folder.
    """

    def __init__(self, folder: str | Path) -> None:
        super().__init__(f"{folder}: stopped before its last step; started again, the run goes on from there.")
        self.folder = Path(folder)

    def __reduce__(self) -> tuple[type["Interrupted"], tuple[Path]]:
        return type(self), (self.folder,)  # survives the way back from a worker process


class Interruption:
    """Notes the first SIGTERM or SIGINT while the block runs; another Ctrl-C, a second or more later, stops at once (torchrun passes the
    first one on to processes that have it from the terminal).

    ``signal`` is the name of what came, None while nothing did. Outside of the main thread, where Python takes no signals, nothing does.
    """

    SIGNALS = (signal.SIGTERM, signal.SIGINT)

    def __init__(self) -> None:
        self.signal: str | None = None
        self._noted = 0.0

    def __enter__(self) -> "Interruption":
        self._before = {}
        if threading.current_thread() is threading.main_thread():
            self._before = {number: signal.signal(number, self._note) for number in self.SIGNALS}
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        del frame
        if self.signal is None:
            self.signal, self._noted = signal.Signals(number).name, time.monotonic()
        elif number == signal.SIGINT and time.monotonic() - self._noted >= 1.0:
            raise KeyboardInterrupt


def ignore_in_worker(number: int) -> None:
    """For processes that build batches: whoever started them decides when they end (a signal often goes to a whole group)."""
    del number
    for signal_number in Interruption.SIGNALS:
        signal.signal(signal_number, signal.SIG_IGN)
