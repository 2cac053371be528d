"""What the page answers to what a visitor does. No browser is needed to call it, and every problem is one sentence on the page."""

import html
import threading
from collections import OrderedDict
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from demos.demo_examples import Example
from demos.demo_views import comparison, timeline
from demos.error_marks import hint, notice, problem
from demos.noisy_clip import CLEAN, Outcome, OvertakenError, Studio

EMPTY = "The transcripts appear here as soon as there is a clip."
MOST_VISITORS = 1000  # whose last wishes are remembered

Noise = tuple[str, float, str | None]  # kind, dB, sound file


@dataclass(frozen=True)
class Answer:
    """What is shown of a clip in noise; None leaves what is shown as it is."""

    message: str | None
    sound: "tuple[int, Any] | None"
    transcripts: str | None
    timeline: str | None
    kept: bool = False  # nobody waits for it: everything stays


class Wishes:
    """What every visitor has asked for last, so that answers nobody waits for any more are given up.

    A wish is noted the moment a control is moved, the answer waits in the queue: by the time it is worked on, or while it is, another wish
    may have come. A new clip makes all wishes of before void.
    """

    def __init__(self) -> None:
        self._last: OrderedDict[str, Noise | None] = OrderedDict()  # None: a new clip, for which no noise was chosen yet
        self._lock = threading.Lock()

    def note(self, visitor: str, noise: Noise | None) -> None:
        """Remember a noise, or with None that another clip is wanted; of nobody in particular ("") nothing is remembered."""
        if not visitor:
            return
        with self._lock:
            self._last[visitor] = noise
            self._last.move_to_end(visitor)
            while len(self._last) > MOST_VISITORS:
                self._last.popitem(last=False)

    def begin(self, visitor: str, noise: Noise) -> None:
        """A new clip is worked on in this noise, unless another noise has been chosen since."""
        with self._lock:
            if self._last.get(visitor, noise) is None:
                self._last[visitor] = noise

    def wanted(self, visitor: str, noise: Noise) -> bool:
        """Whether this is what the visitor still waits for."""
        with self._lock:
            return self._last.get(visitor, noise) == noise

    def forget(self, visitor: str) -> None:
        """The visitor has left."""
        with self._lock:
            self._last.pop(visitor, None)


class Page:
    """The answers, by what was done.

    Args:
        studio: does the work.
        examples: clips to choose from.
    """

    def __init__(self, studio: Studio, examples: list[Example]) -> None:
        self.studio = studio
        self.examples = examples
        self.wishes = Wishes()
        studio.introduce(examples)

    def pick(self, index: int, visitor: str = "") -> tuple[str, str]:
        """An example: its video and what is said in it."""
        self.wishes.note(visitor, None)
        example = self.examples[index]
        return str(example.path), example.transcript

    def show(self, path: str | None, reference: str, noise: Noise, visitor: str = "") -> tuple[Answer, str | None]:
        """A clip that was not shown before: the answer, and the video of its lips."""
        if path is None:
            return Answer("", None, hint(EMPTY), ""), None
        self.wishes.begin(visitor, noise)
        try:
            lips = str(self.studio.open(path).lips)
        except ValueError as error:  # MediaError and its kin: a sentence for the visitor
            return _failed(error), None
        return self.remix(path, reference, noise, visitor), lips

    def remix(self, path: str | None, reference: str, noise: Noise, visitor: str = "") -> Answer:
        """A clip in a noise."""
        if path is None:
            return Answer("", None, hint(EMPTY), "")
        kind, snr, file = noise
        message = ""
        if kind == "file" and file is None and snr < CLEAN:
            snr, message = CLEAN, notice("Choose a sound file for the noise; until then the sound is clean.")
        try:
            clip = self.studio.open(path)
            outcome = self.studio.listen(clip, kind, snr, file, lambda: self.wishes.wanted(visitor, noise))
        except OvertakenError:
            return Answer(None, None, None, None, kept=True)
        except ValueError as error:
            return _failed(error)
        transcripts = comparison(reference, outcome, remark(outcome, clip.warnings, kind, snr))
        return Answer(message, (16000, outcome.wave), transcripts, timeline(outcome, clip.pictures))


def _failed(error: ValueError) -> Answer:
    return Answer(problem(readable(error)), None, hint(EMPTY), "")


def remark(outcome: Outcome, warnings: tuple[str, ...], noise: str, snr: float) -> str:
    """What the transcripts are of, how long they took, and what was unusual about the clip; HTML."""
    names = {"babble": "babble", "white": "white noise", "file": "the sound file"}
    condition = "clean sound" if snr >= CLEAN else f"{names[noise]} at {snr:g} dB".replace("-", "−")
    line = f"{len(outcome.wave) / 16000:.1f} s of speech, {condition}; heard and read in {outcome.seconds:.2f} s."
    return line + "".join(f" Note: {html.escape(warning)}." for warning in warnings)


def readable(error: ValueError) -> str:
    """The sentence of an error with the name of the file in place of where the server keeps it."""
    path, reason = getattr(error, "path", None), getattr(error, "reason", None)
    return str(error) if path is None or reason is None else f"{Path(path).name}: {reason}"
