"""`avtlm plan CONFIG --gpus N --hours H`: what a training takes, before it is started.

What is unusual here:
- It needs no data: where a manifest is missing, clips of 10 seconds are assumed, and said to be. The model is the real one, its batches are
  noise (avtlm/training/made_batches.py).
- Work and activations are measured on batches of one and of two clips, and are linear in the number of clips, which packing makes exact
  enough. Nothing is left out at random: no layer and no modality is dropped, so that time and memory are upper bounds there.
- Seconds are measured on this machine, or, for a GPU that is named, estimated: its datasheet's peak times the share of it that is assumed
  to be used. An estimate is called one.
"""

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from avtlm import config
from avtlm.data.dataset import OF_TEXT, Source
from avtlm.data.seeds import seed_for
from avtlm.protocols import FollowsSteps
from avtlm.training.distributed import Rounds
from avtlm.training.initial import Start
from avtlm.training.layers import missing_compiler, prepare_layers
from avtlm.training.loop import TrainConfig
from avtlm.training.made_batches import CLIP_SECONDS, SENTENCE, made_batch, made_start
from avtlm.training.measuring import Cost, measure, seconds_of_update
from avtlm.training.meter import seconds_of
from avtlm.training.optim import make_optimizer
from avtlm.training.peak import DATASHEETS, Datasheet, Peak, datasheet, peak_rate, rate_of

UTILISATION = 0.1  # of a GPU's peak that published pre-trainings of speech models reach
EFFICIENCY = 0.9  # assumed of several devices: what each does, as a share of what it does alone
FLOAT = 4  # bytes


@dataclass(frozen=True)
class Plan:
    """What a training takes.

    Attributes:
        device: what it is planned for.
        estimated: whether seconds come from a datasheet; else a step was measured here.
        parameters, trained: numbers of weights, and of those that gradients change.
        memory: GB of one device by what they are for.
        memory_of_device: GB that it has, where that is known.
        accumulate: rounds of an update; a round is one batch of every source that is drawn.
        round_frames, round_seconds: of the model's frames and of sound (or lips) in a round.
        round_work: useful operations of a round.
        step_seconds: of an update on all devices.
        update_seconds: of the optimiser within it; 0 in estimates.
        frames_per_second, audio_seconds_per_second: of all devices together.
        utilisation: the share of the peak that is reached, or assumed.
        training_hours: of all steps.
        passes: over the hours of data that the steps make; None for text.
        hours_of_pass: of one of them.
        assumed: sentences that say what was assumed.
    """

    config: str
    device: str
    estimated: bool
    precision: str
    gpus: int
    hours: float
    steps: int
    parameters: int
    trained: int
    memory: dict[str, float]
    memory_of_device: float | None
    accumulate: int
    round_frames: float
    round_seconds: float
    round_work: float
    step_seconds: float
    update_seconds: float
    frames_per_second: float
    audio_seconds_per_second: float
    utilisation: float
    peak: Peak
    efficiency: float
    training_hours: float
    passes: float | None
    hours_of_pass: float | None
    assumed: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """All figures by name."""
        return dataclasses.asdict(self)

    def table(self) -> str:
        """The figures in lines, what was assumed at the end."""
        kind = "an ESTIMATE from its datasheet, nothing was timed" if self.estimated else "a step was measured here"
        used = "assumed" if self.estimated else "measured"
        total = sum(self.memory.values())
        room = "" if self.memory_of_device is None else f" of {self.memory_of_device:g}: {'fits' if self.fits else 'does NOT fit'}"
        rows = [("parameters", f"{self.parameters:,} ({self.trained:,} trained)"), ("memory of a device", f"{total:.3g} GB{room}")]
        rows += [(f"  {name}", f"{size:.3g} GB") for name, size in self.memory.items()]
        audio = f", {self.audio_seconds_per_second:.4g} s of audio/s" if self.audio_seconds_per_second else ""
        peak = f"{self.peak.flops / 1e12:.3g} TFLOP/s ({self.peak.source})"
        rows += [
            ("an update", f"{self.accumulate} x {self.round_frames:,.0f} frames ({self.round_seconds:,.4g} s of audio)"),
            ("work of a round", f"{self.round_work / 1e12:.4g} TFLOP"),
            ("utilisation", f"{100 * self.utilisation:.2g} % of {peak}, {used}"),
            ("scaling", f"each of {self.gpus} devices does {100 * self.efficiency:g} % of what it does alone, assumed")
            if self.gpus > 1
            else ("scaling", "one device"),
            ("step", f"{self.step_seconds:.4g} s"),
            ("speed", f"{self.frames_per_second:,.0f} frames/s{audio}"),
            (f"{self.steps:,} steps", f"{_hours(self.training_hours)}"),
        ]
        if self.passes is not None and self.hours_of_pass is not None:
            rows.append((f"{self.hours:g} h of data", f"{self.passes:.3g} passes, {_hours(self.hours_of_pass)} each"))
        width = max(len(name) for name, _ in rows)
        title = f"{self.config} on {self.gpus} x {self.device}, {self.precision} ({kind})"
        return "\n".join([title, "", *(f"{name:<{width}}  {value}" for name, value in rows), "", *(f"- {each}" for each in self.assumed)])

    @property
    def fits(self) -> bool:
        """Whether the memory of a device is enough, as far as it is known."""
        return self.memory_of_device is None or sum(self.memory.values()) <= self.memory_of_device


@dataclass(frozen=True)
class _Part:
    """One source: how often a round has a batch of it, what such a batch holds and what it costs."""

    times: float
    most: float
    frames: float
    seconds: float
    cost: Cost


def plan(
    source: str | Path | TrainConfig,
    overrides: Sequence[str] = (),
    gpus: int = 1,
    hours: float = 1.0,
    device: str | None = None,
    utilisation: float = UTILISATION,
    efficiency: float = EFFICIENCY,
) -> Plan:
    """Plan a training.

    Args:
        gpus: devices.
        hours: of sound or lips in the data.
        device: a GPU such as ``h100``, for which the time is estimated; None measures this machine.
        utilisation: share of the peak assumed for it.
        efficiency: what each of several devices is assumed to do, as a share of what it does alone.

    Raises:
        ConfigError: an unknown key or a wrong value.
        ValueError: an unknown GPU, a precision that it has not got, or an initial model that is not there.
    """
    settings = source if isinstance(source, TrainConfig) else config.load(TrainConfig, source, overrides)
    name = settings.output if isinstance(source, TrainConfig) else str(source)
    if gpus < 1 or hours <= 0 or not 0 < utilisation <= 1 or not 0 < efficiency <= 1:
        raise ValueError(
            f"gpus {gpus}, hours {hours:g}, utilisation {utilisation:g}, efficiency {efficiency:g}: give at least 1 device, some hours, "
            "and shares above 0 up to 1."
        )
    sheet = None if device is None else _sheet(device)
    here = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if sheet is not None:
        rate = rate_of(sheet, settings.precision)
        if rate is None:
            raise ValueError(f"precision: {sheet.name} has no units for {settings.precision}; set precision=fp32.")
        peak = Peak(rate, f"datasheet of {sheet.name}")
    else:
        peak = peak_rate(here, settings.precision)
    assumed: list[str] = []
    lengths, start = made_start(settings, assumed)
    rounds = _rounds(settings, start, here, assumed)
    parts = {
        key: _part(settings, key, lengths[key], start, rounds, timed=sheet is None, on_gpu=sheet is not None or here.type == "cuda")
        for key in settings.sources
    }
    update = 0.0
    if sheet is None:
        update = seconds_of_update(start.model, make_optimizer(settings.optim, start.model.named_parameters()), here)
    accumulate = max(settings.accumulate, gpus)
    if accumulate > settings.accumulate:
        assumed.append(f"an update has {accumulate} rounds, one for each device (the configuration says accumulate: {settings.accumulate})")
    work = sum(part.times * part.cost.work for part in parts.values())
    alone = (
        work / (peak.flops * utilisation) if sheet is not None else sum(part.times * (part.cost.seconds or 0.0) for part in parts.values())
    )
    share = 1.0 if gpus == 1 else efficiency
    step = (math.ceil(accumulate / gpus) * alone + update) / share
    frames = sum(part.times * part.frames for part in parts.values())
    audio = sum(part.times * part.seconds for part in parts.values())
    total = step * settings.steps / 3600
    passes = settings.steps * accumulate * audio / (3600 * hours) if audio else None
    label = (
        sheet.name
        if sheet is not None
        else torch.cuda.get_device_name()
        if here.type == "cuda"
        else f"CPU ({torch.get_num_threads()} threads)"
    )
    assumed += [
        "work is an upper bound: no layer and no modality is dropped",
        "activations are what autograd keeps of 1 and of 2 clips, scaled to full batches; buffers of kernels and gaps come on top",
    ]
    return Plan(
        config=name,
        device=label,
        estimated=sheet is not None,
        precision=settings.precision,
        gpus=gpus,
        hours=hours,
        steps=settings.steps,
        parameters=sum(parameter.numel() for parameter in start.model.parameters()),
        trained=sum(parameter.numel() for parameter in start.model.parameters() if parameter.requires_grad),
        memory=memory_of(settings, start.model, gpus, sum(part.most * part.cost.kept for part in parts.values())),
        memory_of_device=sheet.memory if sheet is not None else _memory_here(here),
        accumulate=accumulate,
        round_frames=frames,
        round_seconds=audio,
        round_work=work,
        step_seconds=step,
        update_seconds=update,
        frames_per_second=accumulate * frames / step,
        audio_seconds_per_second=accumulate * audio / step,
        utilisation=utilisation if sheet is not None else work / alone / peak.flops,
        peak=peak,
        efficiency=share,
        training_hours=total,
        passes=passes,
        hours_of_pass=None if passes is None else total / passes,
        assumed=tuple(assumed),
    )


def memory_of(settings: TrainConfig, model: nn.Module, gpus: int, activations: float) -> dict[str, float]:
    """GB of one device. Weights, gradients and moments are float32; FSDP keeps a part of each between steps, and all weights and gradients
    during one (docs/training.md)."""
    weights = FLOAT * sum(parameter.numel() for parameter in model.parameters())
    trained = FLOAT * sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    buffers = sum(buffer.numel() * buffer.element_size() for buffer in model.buffers())
    sharded = gpus > 1 and settings.parallel == "fsdp"
    part = 1 / gpus if sharded else 1.0
    found = {
        "weights": weights * (1 + part if sharded else 1) + buffers,
        "gradients": trained * (1 + part if sharded else 1),
        "optimiser": 2 * trained * part,
    }
    if settings.ema is not None:
        found["moving average"] = weights * part
    if gpus > 1 and not sharded:
        found["exchange of gradients"] = trained
    return {name: size / 1e9 for name, size in (found | {"activations": activations}).items()}


# The model and its batches --------------------------------------------------------------------------------------------------------------


def _rounds(settings: TrainConfig, start: Start, device: torch.device, assumed: list[str]) -> Rounds:
    torch.manual_seed(seed_for(settings.seed, "plan"))
    start.model.to(device).train()
    if isinstance(start.model, FollowsSteps):
        start.model.start_step(settings.steps - 1, settings.steps)
    compiled = settings.compile and missing_compiler() is None
    if settings.compile and not compiled:
        assumed.append("layers are not compiled, for want of a compiler here")
    prepare_layers(start.model, settings.activation_checkpointing, compiled)
    if settings.activation_checkpointing:
        assumed.append("one layer's activations, which are computed again, come on top")
    return Rounds(start.model, settings.precision, device)


def _part(settings: TrainConfig, name: str, length: float | None, start: Start, rounds: Rounds, timed: bool, on_gpu: bool) -> _Part:
    source = settings.sources[name]
    frames = _frames(settings, source, length, start)
    rows = max(1, min(settings.max_rows, (source.max_frames or settings.max_frames) // frames))
    generator = torch.Generator().manual_seed(seed_for(settings.seed, "plan", name))
    one, two = (made_batch(source, start, count, frames, generator) for count in (1, 2))
    single, double = measure(rounds, one, timed=False), measure(rounds, two, timed)

    def scaled(first: float, second: float) -> float:
        return first + (rows - 1) * (second - first)

    kept = [cost.kept + (0 if on_gpu else cost.kept_weights) for cost in (single, double)]
    work = scaled(single.work, double.work)
    seconds = None if double.seconds is None else double.seconds * work / double.work
    cost = Cost(work, round(scaled(*kept)), 0, seconds)
    times, most = _share(settings, name)
    return _Part(times, most, float(rows * frames), rows * seconds_of(one, start.inputs), cost)


def _frames(settings: TrainConfig, source: Source, length: float | None, start: Start) -> int:
    """Frames of a clip of a source, or tokens of a sentence."""
    bound = source.max_frames or settings.max_frames
    if source.task in OF_TEXT:
        return min(SENTENCE, bound)
    clip = min(CLIP_SECONDS, source.max_seconds) if length is None else length
    frames = max(1, round(clip * start.inputs.frame_rate))
    return min(frames, source.crop_frames or frames, bound)


def _share(settings: TrainConfig, name: str) -> tuple[float, float]:
    """Batches of a source in a round: on average, and at most."""
    mixing, count = settings.mixing, len(settings.sources)
    if mixing.kind == "weights":
        return settings.sources[name].weight, 1.0
    if mixing.kind == "sampled":
        return 1.0, 1.0
    share = mixing.shares[name] / sum(mixing.shares.values()) if mixing.kind == "shares" else 1 / count
    return mixing.batches * share, min(float(mixing.batches), math.ceil(mixing.batches * share))


def _sheet(device: str) -> Datasheet:
    sheet = datasheet(device)
    if sheet is None:
        raise ValueError(f"device: {device!r} is not in the table; choose one of {', '.join(each.name for each in DATASHEETS)}.")
    return sheet


def _memory_here(device: torch.device) -> float | None:
    return torch.cuda.get_device_properties(device).total_memory / 1e9 if device.type == "cuda" else None


def _hours(hours: float) -> str:
    """``2.5 days``, ``7.1 h``, ``12 min`` or ``3 s``."""
    if hours >= 48:
        return f"{hours / 24:.3g} days"
    if hours >= 1:
        return f"{hours:.3g} h"
    return f"{60 * hours:.3g} min" if hours >= 1 / 60 else f"{3600 * hours:.3g} s"
