"""`avtlm profile CONFIG`: where the time of a training step goes.

What is unusual here:
- The run is the one that `avtlm train` would make, in a folder that is thrown away: its data, its model, its loop. Nothing is imitated.
- One clock is handed from part to part: whoever starts takes it, and whoever ends gives it back to who had it before. So the parts add up
  to the step by construction, and what nobody claims is ``other``.
- On a GPU the clock waits for the device at every hand-over, which a training does not; a step takes a little longer so than it would.
"""

import contextlib
import dataclasses
import functools
import inspect
import os
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from avtlm import config
from avtlm.nn.adapters import LengthAdapter
from avtlm.nn.transformer import DecoderStack, Encoder
from avtlm.objectives.regression import Teacher
from avtlm.training.loop import TrainConfig, Trainer
from avtlm.training.meter import Meter, pace
from avtlm.training.peak import Peak, peak_rate, synchronize

WARM_UP = 2  # steps that do not count: first batches, memory that is asked for once, the moments of the optimiser
DATA, WAITING, OTHER = "data", "waiting for data", "other"
ORDER = (DATA, WAITING, "front-end", "encoder", "decoder", "teacher", "loss", "backward", "optimiser", OTHER)
WIDTH = 40  # of the bars


@dataclass(frozen=True)
class Profile:
    """Mean seconds of a step's parts.

    Attributes:
        parts: ``data`` (batches that are built in this process) or ``waiting for data`` (built by workers), ``front-end``, ``encoder``,
            ``decoder`` and ``teacher`` forward where there are any, ``loss`` (heads, masks and objective), ``backward``, ``optimiser``
            (norm and clipping of the gradient, update, averages), ``other``.
        step: seconds of a step, measured from beginning to end of all of them.
        steps: that were measured.
        rates: see Meter.rates.
    """

    config: str
    device: str
    precision: str
    threads: int
    workers: int
    steps: int
    step: float
    parts: dict[str, float]
    rates: dict[str, float]
    peak: Peak

    def to_json(self) -> dict[str, Any]:
        """All figures by name."""
        values = dataclasses.asdict(self)
        return values | {"shares": {name: seconds / self.step for name, seconds in self.parts.items()}}

    def table(self) -> str:
        """Parts, seconds, shares and bars, in lines."""
        where = f"{self.device}, {self.precision}, {self.threads} threads, {self.workers} workers for data"
        lines = [f"{self.config}: a step takes {self.step:.4g} s ({where}; mean of {self.steps})", ""]
        width = max(map(len, self.parts))
        for name, seconds in self.parts.items():
            share = seconds / self.step
            lines.append(f"{name:<{width}}  {seconds:9.4f} s  {share:6.1%}  {'█' * round(WIDTH * share)}".rstrip())
        lines += [f"{'step':<{width}}  {self.step:9.4f} s  {1:6.1%}", ""]
        peak = f"{self.peak.flops / 1e12:.3g} TFLOP/s, {self.peak.source}"
        return "\n".join([*lines, f"{pace(self.rates).removeprefix(', ')} ({peak})"])


class Stopwatch:
    """Seconds by part; at every moment one part has the clock.

    Args:
        device: is waited for when the clock changes hands.
        clock: seconds.
    """

    def __init__(self, device: torch.device | str = "cpu", clock: Callable[[], float] = time.perf_counter) -> None:
        self.device, self.clock = device, clock
        self.seconds: dict[str, float] = {}
        self._holders: list[str] = [OTHER]
        self._since = self._now()

    def _now(self) -> float:
        synchronize(self.device)
        return self.clock()

    def _note(self) -> None:
        now = self._now()
        self.seconds[self._holders[-1]] = self.seconds.get(self._holders[-1], 0.0) + now - self._since
        self._since = now

    def restart(self) -> None:
        """Forget what was measured."""
        self.seconds.clear()
        self._since = self._now()

    def stop(self) -> dict[str, float]:
        """Seconds of every part since the last `restart`."""
        self._note()
        return dict(self.seconds)

    @contextlib.contextmanager
    def running(self, part: str) -> Iterator[None]:
        """Time the block as this part, but for what other parts take of it."""
        self._note()
        self._holders.append(part)
        try:
            yield
        finally:
            self._note()
            self._holders.pop()

    def attach(self, owner: object, method: str, part: str) -> None:
        """Time a method of one object as this part from now on."""
        function = getattr(owner, method)

        @functools.wraps(function)
        def timed(*arguments: Any, **more: Any) -> Any:
            with self.running(part):
                return function(*arguments, **more)

        setattr(owner, method, timed)


def profile(source: str | Path | TrainConfig, overrides: Sequence[str] = (), steps: int = 20) -> Profile:
    """Measure the first steps of a training, behind a few that do not count. Nothing is kept.

    Raises:
        ConfigError: an unknown key or a wrong value.
        ValueError: data or an initial model that do not fit; several processes.
    """
    if steps < 1:
        raise ValueError(f"steps: {steps}; give at least 1.")
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise ValueError("profile: runs in one process; start it without torchrun.")
    settings = source if isinstance(source, TrainConfig) else config.load(TrainConfig, source, overrides)
    name = settings.output if isinstance(source, TrainConfig) else str(source)
    with tempfile.TemporaryDirectory() as folder:
        changes: dict[str, Any] = {"output": f"{folder}/run", "steps": max(settings.steps, WARM_UP + steps)}
        changes |= {"validation": None, "validate_every": 0, "average": 0, "tensorboard": False, "wandb": None}
        run = Trainer(dataclasses.replace(settings, **changes))
        watch = Stopwatch(run.device)
        _attach(watch, run)
        batches, meter = run.batches(), Meter()
        peak = peak_rate(run.device, settings.precision)
        for number in range(WARM_UP + steps):
            if number == WARM_UP:
                watch.restart()
                begin, meter = watch.clock(), Meter()
            run.step(number, batches, meter)
            run.state.step = number + 1
        seconds = watch.stop()
        total = watch.clock() - begin
        rates = meter.rates(peak.flops)
        batches.clear()  # ends the workers
    parts = {part: seconds.get(part, 0.0) / steps for part in sorted(seconds, key=ORDER.index)}
    device = torch.cuda.get_device_name(run.device) if run.device.type == "cuda" else run.device.type
    return Profile(name, device, settings.precision, torch.get_num_threads(), settings.workers, steps, total / steps, parts, rates, peak)


def _attach(watch: Stopwatch, run: Trainer) -> None:
    """Hand the clock to the parts of a run."""
    watch.attach(run, "_draw", WAITING if run.settings.workers else DATA)
    watch.attach(run, "_step", "optimiser")  # what is left of it once forward and backward pass have taken theirs
    watch.attach(run.replicas, "forward", OTHER)  # copies to the device
    watch.attach(run.replicas, "backward", "backward")
    watch.attach(run.model, "losses", "loss")
    found = list(parts_of(run.model))
    for module, part in found:
        for method in _public_methods(module):
            watch.attach(module, method, part)
    if not any(part in ("encoder", "decoder") for _, part in found):
        watch.attach(run.model, "forward", "decoder")  # language models


def parts_of(model: nn.Module) -> Iterator[tuple[nn.Module, str]]:
    """Modules of a model whose methods are timed, and the part that each belongs to; all that is in a teacher is the teacher."""
    for child in model.children():
        if isinstance(child, Teacher):
            yield child, "teacher"
            yield from ((module, "teacher") for module, part in parts_of(child) if part == "front-end")  # they are called past it
        elif type(child).__module__.startswith("avtlm.frontends."):
            yield child, "front-end"
        elif isinstance(child, Encoder | LengthAdapter):
            yield child, "encoder"
        elif isinstance(child, DecoderStack):
            yield child, "decoder"
        else:
            yield from parts_of(child)


def _public_methods(module: nn.Module) -> list[str]:
    """What a module's own classes, PyTorch's left out, offer to callers."""
    names: dict[str, None] = {}
    for kind in type(module).__mro__[: type(module).__mro__.index(nn.Module)]:
        names |= {name: None for name, value in vars(kind).items() if inspect.isfunction(value) and not name.startswith("_")}
    return list(names)
