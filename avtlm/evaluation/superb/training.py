"""Training of a task's head over frozen features: one learning rate, one corpus (or fold), one seed.

As in s3prl's runner (run_downstream.py): the losses of accumulated batches are means that are averaged, gradients are cut to a norm, the
head that is best on dev is kept. Everything that is drawn comes from the seed and the number of the update, so that a run that was stopped
goes on to the same result.
"""

import contextlib
import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from avtlm.checkpoint import replace_folder
from avtlm.data.seeds import seed_for
from avtlm.evaluation.superb.cache import Piece, States
from avtlm.evaluation.superb.data import Clip
from avtlm.evaluation.superb.features import groups
from avtlm.evaluation.superb.probe import Probe
from avtlm.evaluation.superb.task import Heard, Task
from avtlm.files import write_text
from avtlm.training.progress import bar
from avtlm.training.state import TrainState, load_state, moments, save_state

STATE, CURVE, WEIGHTS, BEST, IDENTITY = "state", "curve.json", "weights.safetensors", "best.safetensors", "identity.json"
EVALUATED_VALUES = 50_000_000  # of hidden states in a batch of dev or test, with padding


class DivergenceError(FloatingPointError):
    """A loss is no number any more."""


@dataclass
class Curve:
    """What was seen in training.

    Attributes:
        loss: mean loss of an update, by update, at every look.
        dev: metrics by update.
        best: update of the kept head.
    """

    loss: dict[int, float] = field(default_factory=dict)
    dev: dict[int, dict[str, float]] = field(default_factory=dict)
    best: int | None = None

    def to_json(self) -> dict[str, Any]:
        return {"loss": self.loss, "dev": self.dev, "best": self.best}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "Curve":
        loss = {int(step): value for step, value in values["loss"].items()}
        return cls(loss, {int(step): value for step, value in values["dev"].items()}, values["best"])


class Training:
    """One run.

    Args:
        task: with its corpus and settings.
        states: of the encoder.
        folder: where the run keeps its state and its result.
        device: of the head.
        identity: says what the run depends on besides its settings: encoder and corpus.
        choose: the split whose first metric decides which head is kept; None keeps the last one.

    Raises:
        ValueError: the folder holds a run with other settings.
    """

    def __init__(
        self,
        task: Task[Any],
        states: States,
        folder: Path,
        device: torch.device | str = "cpu",
        identity: str = "",
        choose: str | None = "dev",
    ) -> None:
        self.task, self.states, self.folder, self.device, self.choose = task, states, folder, torch.device(device), choose
        config, upstream = task.config, states.upstream
        self.identity = json.dumps({"settings": repr(config), "data": identity, "encoder": upstream.key, "choose": choose})
        with _seeded(config.seed, "head"):
            head = task.head(upstream.width, upstream.frame_rate)
        self.probe = Probe(upstream.layers, head, config.layer_norm).to(self.device)
        kind = torch.optim.AdamW if config.optimizer == "adamw" else torch.optim.Adam
        self.optimizer: torch.optim.Optimizer = kind(self.probe.parameters(), lr=config.lr)
        self.best = {name: tensor.clone() for name, tensor in self.probe.state_dict().items()}
        self.curve, self.state = Curve(), TrainState()
        self._names: dict[nn.Parameter, str] = {parameter: name for name, parameter in self.probe.named_parameters()}
        self._resume()

    def run(self) -> Curve:
        """Train to the last step, or go on to it; then the probe is the chosen one.

        Raises:
            DivergenceError: the loss is no number.
            CorpusError: the corpus does not fit the task.
        """
        config, task = self.task.config, self.task
        if self.state.step < config.steps:
            clips = list(task.clips("train"))
            self.states.prepare(clips)
            if self.choose is not None:
                self.states.prepare(task.clips(self.choose))
            frames = [self.states.frames(clip) for clip in clips]
            name = f"{task.corpus.task} {self.states.upstream.name}, lr {config.lr:g}"
            with bar(name, config.steps, done=self.state.step) as progress:
                batches = self._batches(clips, frames)
                while self.state.step < config.steps:
                    loss = self._update(batches)
                    self.state.step += 1
                    progress.advance(1, f"loss {loss:.3f}")
                    if self.state.step % config.looks == 0 or self.state.step == config.steps:
                        self._look(loss)
        self.probe.load_state_dict(self.best)
        return self.curve

    def _update(self, batches: Iterator[Sequence[Piece]]) -> float:
        config, step = self.task.config, self.state.step
        self.probe.train()
        self.optimizer.zero_grad(set_to_none=True)
        total = 0.0
        with _seeded(config.seed, "update", step):
            generator = torch.Generator().manual_seed(seed_for(config.seed, "draws", step))
            for _ in range(config.accumulation):
                heard = self._heard(next(batches))
                found = self.task.loss(self.probe.head, heard, generator)
                mean = found.value / found.count.clamp(min=1) / config.accumulation
                if not bool(torch.isfinite(mean)):
                    raise DivergenceError(f"{self.folder}: the loss is no number any more at update {step + 1}; choose a smaller lr.")
                mean.backward()
                total += float(mean.detach())
        nn.utils.clip_grad_norm_(self.probe.parameters(), config.clip_norm)
        for group in self.optimizer.param_groups:
            group["lr"] = config.lr * self.task.rate(step)
        self.optimizer.step()
        return total

    def _batches(self, clips: Sequence[Clip], frames: Sequence[int]) -> Iterator[Sequence[Piece]]:
        """Pieces of clips, batch by batch, from where the state says."""
        config = self.task.config
        most = None if config.crop_seconds is None else max(1, round(config.crop_seconds * self.states.upstream.frame_rate))
        epoch, index = self.state.positions.get("train", (0, 0))
        while True:
            plan = self.task.plan(frames, epoch)
            assert all(plan), "a batch without clips"
            assert plan, "an epoch without batches"
            for place in range(index, len(plan)):
                self.state.positions["train"] = (epoch, place + 1)
                yield [self._piece(clips[row], frames[row], most, epoch) for row in plan[place]]
            epoch, index = epoch + 1, 0

    def _piece(self, clip: Clip, frames: int, most: int | None, epoch: int) -> Piece:
        if most is None or frames <= most:
            return Piece(clip)
        return Piece(clip, seed_for(self.task.config.seed, "crop", epoch, clip.id) % (frames - most + 1), most)

    def _heard(self, pieces: Sequence[Piece]) -> Heard:
        features, lengths = self.probe.features(self.states.of(pieces), self.device)
        clips, first = tuple(piece.clip for piece in pieces), tuple(piece.first for piece in pieces)
        return Heard(features, lengths, clips, first, self.states.upstream.frame_rate)

    @torch.no_grad()
    def evaluate(self, split: str) -> dict[str, float]:
        """The task's metrics of the probe as it is."""
        clips = list(self.task.clips(split))
        self.states.prepare(clips)
        self.probe.eval()
        frames = {clip.id: self.states.frames(clip) for clip in clips}
        clips.sort(key=lambda clip: (frames[clip.id], clip.id))
        upstream = self.states.upstream
        together = groups([frames[clip.id] for clip in clips], EVALUATED_VALUES / (upstream.layers * upstream.width))
        rows = [part[start : start + 64] for part in together for start in range(0, len(part), 64)]
        return self.task.evaluate(self.probe.head, (self._heard([Piece(clips[row]) for row in part]) for part in rows), split)

    def _look(self, loss: float) -> None:
        """Measure on dev, keep the head if it is the best one, and write the state."""
        state, metric = self.state, self.task.metrics[0]
        self.curve.loss[state.step] = loss
        better = True
        if self.choose is not None:
            found = self.curve.dev[state.step] = self.evaluate(self.choose)
            better = metric.better(found[metric.name], state.best)
            if better:
                state.best = found[metric.name]
        if better:
            self.curve.best = state.step
            self.best = {name: tensor.detach().clone() for name, tensor in self.probe.state_dict().items()}
        with replace_folder(self.folder / STATE, marker=WEIGHTS) as temporary:
            save_file({name: tensor.contiguous() for name, tensor in self.probe.state_dict().items()}, temporary / WEIGHTS)
            save_file({name: tensor.contiguous() for name, tensor in self.best.items()}, temporary / BEST)
            save_state(temporary, state, moments(self.optimizer, self._names))
            (temporary / CURVE).write_text(json.dumps(self.curve.to_json()), encoding="utf-8")
            (temporary / IDENTITY).write_text(self.identity, encoding="utf-8")

    def _resume(self) -> None:
        folder = self.folder / STATE
        if not (folder / WEIGHTS).is_file():
            return
        if (folder / IDENTITY).read_text(encoding="utf-8") != self.identity:
            raise ValueError(f"{self.folder}: holds a training with other settings, data or weights; choose another --out, or delete it.")
        self.probe.load_state_dict(load_file(folder / WEIGHTS))
        self.best = {name: tensor.to(self.device) for name, tensor in load_file(folder / BEST).items()}
        self.state = load_state(folder, self.optimizer, self._names)
        self.curve = Curve.from_json(json.loads((folder / CURVE).read_text(encoding="utf-8")))

    @property
    def weights(self) -> tuple[float, ...]:
        """Of the layers, of the probe as it is."""
        return tuple(self.probe.sum.weights.detach().cpu().tolist())


def write_json(path: Path, values: Any) -> None:
    """Numbers that are none become null."""
    write_text(path, json.dumps(_plain(values), indent=1, ensure_ascii=False) + "\n")


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


@contextlib.contextmanager
def _seeded(*parts: object) -> Iterator[None]:
    """Torch's generators seeded inside the block, and as they were behind it."""
    with torch.random.fork_rng():
        torch.manual_seed(seed_for(*parts))
        yield
