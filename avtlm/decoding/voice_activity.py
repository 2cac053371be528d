"""Where somebody speaks: detectors that say so for every 20 ms of a stream of sound.

The detector of our own compares energies between 200 and 4000 Hz, in dB of full scale. Over the last ten seconds the 10th percentile of
the levels is the noise floor and the 95th the level of speech; both follow the recording, so that neither gain nor a fan that is switched
on need an adjustment. A frame is speech above

    max(floor + clip(0.4 (speech - floor), 3, 10), speech - 35, -60)   dB

which is some dB above the noise (less where noise and speech are close), not 35 dB below the voices, and not digital silence. Percentiles
in place of minima keep single dropouts from moving the floor. It knows loudness alone: music and claps are speech to it.

Detectors hold a few frames of state, whatever the length of the recording.
"""

from collections import deque
from typing import Any, Protocol

import numpy as np

from avtlm.data.container import SAMPLE_RATE
from avtlm.errors import MissingExtra

FRAME = 320  # samples of a decision: 20 ms
FRAME_SECONDS = FRAME / SAMPLE_RATE
BAND = slice(4, 81)  # bins of 50 Hz: 200 to 4000 Hz, where voices are strong
WINDOW = np.hanning(FRAME + 1)[:-1]
MEMORY = 500  # frames, ten seconds, that floor and speech level are taken from
WARM_UP = 50  # frames that are waited for before the first decision
REFRESH = 10  # frames between two looks at the percentiles
MARGIN = (3, 10.0)  # dB above the floor, at least and at most
SHARE = 0.4  # of the distance from floor to speech
RANGE = 35.0  # dB below the level of speech
LOWEST = -60.0  # dB of full scale
SILENT = -100.0  # the level of digital silence
SILERO_WINDOW = 512  # samples of a decision of silero-vad


class VoiceDetector(Protocol):
    """Anything that says, frame by frame, whether there is speech."""

    def feed(self, block: np.ndarray) -> np.ndarray:
        """float32 (samples,) at 16 kHz, the next of a stream -> bool (frames,): decisions that have become possible, in order."""
        ...

    def finish(self) -> np.ndarray:
        """The decisions that were still waiting for more sound."""
        ...


class FrameLevels:
    """Levels in dB of successive frames of 20 ms, of a stream that comes in blocks of any length."""

    def __init__(self) -> None:
        self._rest = np.zeros(0, np.float32)

    def feed(self, block: np.ndarray) -> np.ndarray:
        """float32 (samples,) -> float32 (frames,): levels of the frames that are complete."""
        self._rest = np.concatenate([self._rest, block])
        count = len(self._rest) // FRAME
        frames, self._rest = self._rest[: count * FRAME].reshape(count, FRAME), self._rest[count * FRAME :]
        spectrum = np.fft.rfft(frames * WINDOW, axis=1)[:, BAND]
        power = np.square(np.abs(spectrum)).sum(axis=1) * (2 / FRAME / np.square(WINDOW).sum())
        return (10 * np.log10(power + 10 ** (SILENT / 10))).astype(np.float32)


class EnergyDetector:
    """Speech by level over an adaptive noise floor; see the head of this file."""

    def __init__(self) -> None:
        self._levels = FrameLevels()
        self._history: deque[float] = deque(maxlen=MEMORY)
        self._waiting: list[float] = []
        self._age = 0
        self.floor = self.speech = self.threshold = 0.0

    def feed(self, block: np.ndarray) -> np.ndarray:
        return self._decide(self._levels.feed(block).tolist())

    def finish(self) -> np.ndarray:
        waiting, self._waiting = self._waiting, []
        if waiting:
            self._adapt()
        return np.array(waiting) > self.threshold

    def _decide(self, levels: list[float]) -> np.ndarray:
        flags = []
        for level in levels:
            self._history.append(level)
            self._age += 1
            if self._age < WARM_UP:
                self._waiting.append(level)
                continue
            if self._age == WARM_UP or self._age % REFRESH == 0:
                self._adapt()
            flags += [early > self.threshold for early in self._waiting]
            self._waiting = []
            flags.append(level > self.threshold)
        return np.array(flags, dtype=bool)

    def _adapt(self) -> None:
        floor, speech = np.percentile(self._history, (10, 95))
        self.floor, self.speech = float(floor), float(speech)
        margin = min(max(SHARE * (self.speech - self.floor), MARGIN[0]), MARGIN[1])
        self.threshold = max(self.floor + margin, self.speech - RANGE, LOWEST)


class SileroDetector:
    """silero-vad's network (MIT licence, models inside the package), for recordings with music or noise that changes.

    Args:
        threshold: probability from which on a window of 32 ms is speech.

    Raises:
        MissingExtra: the package is not installed.
    """

    def __init__(self, threshold: float = 0.5) -> None:
        self._model = _silero()
        self._model.reset_states()
        self._threshold = threshold
        self._rest = np.zeros(0, np.float32)
        self._flags = np.zeros(0, bool)  # of samples that do not make a frame yet

    def feed(self, block: np.ndarray) -> np.ndarray:
        import torch

        self._rest = np.concatenate([self._rest, block])
        samples = [self._flags]
        threads = torch.get_num_threads()
        torch.set_num_threads(1)  # so small a network is slower on several
        while len(self._rest) >= SILERO_WINDOW:
            window, self._rest = self._rest[:SILERO_WINDOW], self._rest[SILERO_WINDOW:]
            with torch.no_grad():
                probability = float(self._model(torch.from_numpy(np.ascontiguousarray(window)), SAMPLE_RATE))
            samples.append(np.full(SILERO_WINDOW, probability >= self._threshold))
        torch.set_num_threads(threads)
        flags = np.concatenate(samples)
        count = len(flags) // FRAME
        self._flags = flags[count * FRAME :]
        return flags[: count * FRAME].reshape(count, FRAME).any(axis=1)

    def finish(self) -> np.ndarray:
        missing = len(self._rest) + len(self._flags)
        if not missing:
            return np.zeros(0, bool)
        return self.feed(np.zeros(2 * SILERO_WINDOW, np.float32))[: missing // FRAME]


DETECTORS: dict[str, type[EnergyDetector] | type[SileroDetector]] = {"energy": EnergyDetector, "silero": SileroDetector}


def find_detector(name: str) -> VoiceDetector:
    """A new detector by its name.

    Raises:
        ValueError: there is none of that name.
        MissingExtra: its package is not installed.
    """
    if name not in DETECTORS:
        raise ValueError(f"vad: {name!r} is unknown; choose one of {', '.join(DETECTORS)}.")
    return DETECTORS[name]()


def _silero() -> Any:
    import torch

    threads = torch.get_num_threads()
    try:
        from silero_vad import load_silero_vad
    except ImportError as error:
        raise MissingExtra("vad", "silero-vad", "finding speech with a network (--vad silero)") from error
    finally:
        torch.set_num_threads(threads)  # its import sets one thread for the whole process
    return load_silero_vad()
