"""SIGTERM and Ctrl-C as a request: the step is finished, the state is written, and the run ends well, to be started again later."""

import signal
import threading
from types import FrameType


class Interruption:
    """Notes the first SIGTERM or SIGINT while the block runs; a second Ctrl-C stops at once.

    ``signal`` is the name of what came, None while nothing did. Outside of the main thread, where Python takes no signals, nothing does.
    """

    SIGNALS = (signal.SIGTERM, signal.SIGINT)

    def __init__(self) -> None:
        self.signal: str | None = None

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
        if self.signal is not None and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.signal = signal.Signals(number).name


def ignore_in_worker(number: int) -> None:
    """For processes that build batches: whoever started them decides when they end (a signal often goes to a whole group)."""
    del number
    for signal_number in Interruption.SIGNALS:
        signal.signal(signal_number, signal.SIG_IGN)
