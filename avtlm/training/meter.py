"""Running means of what the losses log."""

import math
import time
from typing import Any

import torch
from torch import Tensor

from avtlm.objectives.loss import Loss
from avtlm.training.distributed import Processes


class Meter:
    """Ratios of sums over a logging interval, without waiting for the device until they are read."""

    def __init__(self) -> None:
        self.sums: dict[str, tuple[Tensor, Tensor]] = {}
        self.frames = 0
        self.started = time.perf_counter()

    def add(self, prefix: str, losses: dict[str, Loss]) -> None:
        for loss in losses.values():
            for name, (numerator, denominator) in loss.logs.items():
                self._add(f"{prefix}/{name}" if prefix else name, numerator.detach(), denominator)

    def add_value(self, name: str, value: Tensor) -> None:
        self._add(name, value, torch.ones((), device=value.device))

    def _add(self, name: str, numerator: Tensor, denominator: Tensor) -> None:
        before = self.sums.get(name)
        self.sums[name] = (numerator, denominator) if before is None else (before[0] + numerator, before[1] + denominator)

    def merged(self, processes: Processes) -> "Meter":
        """The meter of all processes; all of them have to ask."""
        if not processes.several:
            return self
        total = Meter()
        total.started = self.started
        own = {name: (float(numerator), float(denominator)) for name, (numerator, denominator) in self.sums.items()}
        for sums, frames in processes.gather((own, self.frames)):
            total.frames += frames
            for name, (numerator, denominator) in sums.items():
                total._add(name, torch.tensor(numerator, dtype=torch.float64), torch.tensor(denominator, dtype=torch.float64))
        return total

    def means(self) -> dict[str, float]:
        result = {name: (numerator / denominator).item() for name, (numerator, denominator) in self.sums.items() if denominator > 0}
        return result | {"frames_per_second": self.frames / max(time.perf_counter() - self.started, 1e-9)}

    @staticmethod
    def note(line: dict[str, Any]) -> str:
        accuracy = next((f", accuracy {value:.2f}" for name, value in line.items() if name.endswith("accuracy")), "")
        return f"loss {line.get('loss', math.nan):.3g}{accuracy}"
