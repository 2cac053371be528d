"""Running means of what the losses log, and how fast a run goes."""

import math
import time
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from avtlm.data.batching import Batch
from avtlm.data.inputs import InputFormat
from avtlm.frontends.filterbank import FRAME_RATE, SAMPLE_RATE
from avtlm.objectives.loss import Loss
from avtlm.training.distributed import Processes

RATES = ("frames_per_second", "utterances_per_second", "audio_seconds_per_second", "device_utilisation")  # what the clock says
PART = "part/"


class Meter:
    """Ratios of sums over a logging interval, without waiting for the device until they are read.

    Attributes:
        frames: of the model, that are no padding.
        utterances, seconds: how many, and how long they are; text has no seconds.
        work: useful operations (see avtlm.training.flops).
    """

    def __init__(self) -> None:
        self.sums: dict[str, tuple[Tensor, Tensor]] = {}
        self.frames = self.utterances = 0
        self.seconds = 0.0
        self.work: float | Tensor = 0.0
        self.started = time.perf_counter()

    def add(self, prefix: str, losses: dict[str, Loss]) -> None:
        for loss in losses.values():
            for name, (numerator, denominator) in loss.logs.items():
                self._add(f"{prefix}/{name}" if prefix else name, numerator.detach(), denominator)

    def add_value(self, name: str, value: Tensor) -> None:
        self._add(name, value, torch.ones((), device=value.device))

    def add_parts(self, losses: Iterable[Mapping[str, Loss]], count: Tensor, first: bool) -> None:
        """What the parts of the losses of this process give to a step's loss: its sum over parts, and over processes.

        Args:
            count: what all losses of the step are divided by.
            first: whether this is the first process, which alone counts the step.
        """
        sums: dict[str, Tensor] = {}
        for group in losses:
            for name, loss in group.items():
                value = loss.value.detach()
                sums[name] = sums[name] + value if name in sums else value
        steps = torch.full((), float(first), device=count.device)
        for name, value in sums.items() if len(sums) > 1 else ():
            self._add(PART + name, value / count.clamp(min=1), steps)

    def add_batch(self, batch: Batch, inputs: InputFormat) -> None:
        """Count a batch's utterances."""
        self.frames += frames_of(batch, inputs)
        self.utterances += len(batch)
        self.seconds += seconds_of(batch, inputs)

    def _add(self, name: str, numerator: Tensor, denominator: Tensor) -> None:
        before = self.sums.get(name)
        self.sums[name] = (numerator, denominator) if before is None else (before[0] + numerator, before[1] + denominator)

    def pause(self, since: float) -> None:
        """Leave the time from then (time.perf_counter) to now out of the rates."""
        self.started += time.perf_counter() - since

    def merged(self, processes: Processes) -> "Meter":
        """The meter of all processes; all of them have to ask."""
        if not processes.several:
            return self
        total = Meter()
        total.started = self.started
        own = {name: (float(numerator), float(denominator)) for name, (numerator, denominator) in self.sums.items()}
        for sums, frames, utterances, seconds, work in processes.gather(
            (own, self.frames, self.utterances, self.seconds, float(self.work))
        ):
            total.frames += frames
            total.utterances += utterances
            total.seconds += seconds
            total.work += work
            for name, (numerator, denominator) in sums.items():
                total._add(name, torch.tensor(numerator, dtype=torch.float64), torch.tensor(denominator, dtype=torch.float64))
        return total

    def means(self) -> dict[str, float]:
        """The ratios by name."""
        return {name: (numerator / denominator).item() for name, (numerator, denominator) in self.sums.items() if denominator > 0}

    def rates(self, peak: float) -> dict[str, float]:
        """What was done per second, and the share of what the devices can do at most.

        Args:
            peak: operations per second of all devices together.
        """
        work = float(self.work)  # waits for the device, and so before the clock is read
        elapsed = max(time.perf_counter() - self.started, 1e-9)
        rates = (self.frames / elapsed, self.utterances / elapsed, self.seconds / elapsed, work / elapsed / peak)
        return dict(zip(RATES, rates, strict=True))

    @staticmethod
    def note(line: dict[str, Any]) -> str:
        """A line of the log in a few words."""
        accuracy = next((f", accuracy {value:.2f}" for name, value in line.items() if name.endswith("accuracy")), "")
        return f"loss {line.get('loss', math.nan):.3g}{accuracy}{pace(line)}"


def pace(line: Mapping[str, Any]) -> str:
    """The rates in words: ``, 12.3 utterances/s, 45 s of audio/s, 31 % of peak``."""
    words = ""
    if "utterances_per_second" in line:
        words += f", {line['utterances_per_second']:.3g} utterances/s"
    seconds = line.get("audio_seconds_per_second", 0.0)
    if seconds:
        words += f", {seconds / 3600:.3g} h of audio/s" if seconds >= 3600 else f", {seconds:.3g} s of audio/s"
    if line.get("device_utilisation"):
        words += f", {100 * line['device_utilisation']:.2g} % of peak"
    return words


def frames_of(batch: Batch, inputs: InputFormat) -> int:
    """Frames of the model that are no padding."""
    if inputs.waveform and batch.audio_lengths is not None:
        return int(batch.audio_lengths.sum() * inputs.frame_rate / SAMPLE_RATE)
    lengths = [part for part in (batch.video_lengths, batch.audio_lengths) if part is not None]
    if lengths:
        return int(torch.stack(lengths).amax(0).sum())
    if batch.text_units_lengths is not None:
        return int(batch.text_units_lengths.sum())
    return int((batch.text_lengths.sum() + 3) // 4) if batch.text_lengths is not None else 0


def seconds_of(batch: Batch, inputs: InputFormat) -> float:
    """How long the sound of a batch is, or where there is none its video; 0 for text alone."""
    if inputs.waveform and batch.audio_lengths is not None:
        return float(batch.audio_lengths.sum()) / SAMPLE_RATE
    return frames_of(batch, inputs) / FRAME_RATE if batch.audio is not None or batch.video is not None else 0.0
