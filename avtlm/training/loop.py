"""The whole training loop in sight: configuration, data, steps, validation, checkpoints.

    avtlm train configs/vatlm/tiny.yaml optim.lr=1e-3

A run lives in one folder: ``model/`` (the checkpoint with its trainer state, replaced atomically), ``best/`` if validation chooses one, and
``log.jsonl``. Started again with the same configuration it goes on where the last checkpoint is, and repeats the steps after it bit for
bit.
"""

import json
import logging
import math
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from avtlm import checkpoint, config, systems
from avtlm.data.batching import Batch, plan_batches
from avtlm.data.dataset import ClipDataset, Source, collate
from avtlm.data.inputs import InputFormat
from avtlm.data.manifest import read_manifest
from avtlm.data.mixing import Mixer, MixingConfig
from avtlm.data.seeds import seed_for
from avtlm.files import write_text
from avtlm.frontends.filterbank import SAMPLE_RATE
from avtlm.objectives.loss import Loss
from avtlm.protocols import CombinesLosses, FollowsSteps
from avtlm.recognizer import Recognizer, transcribe_all
from avtlm.text.vocabulary import load_vocabulary
from avtlm.training.averaging import average
from avtlm.training.initial import PHONES, build, check_inventory
from avtlm.training.meter import Meter
from avtlm.training.optim import OptimConfig, make_optimizer, schedule, set_lr
from avtlm.training.progress import bar
from avtlm.training.state import FOLDER, TrainState, load_state, save_state
from avtlm.training.stream import BatchStream

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class TrainConfig:
    """One training run.

    Attributes:
        system: name of a system in avtlm.systems.
        task: ``pretrain`` (the system's own losses) or ``recognition`` (a recogniser on its encoder).
        output: folder of the run.
        model: configuration of the system, or of the recogniser, whose ``encoder`` group then changes single settings of the initial
            encoder.
        initialise: model folder to start the encoder (or, in pre-training, the whole model) from; null starts from scratch.
        sources: training data by name.
        mixing: how the sources share the steps; by default every step takes one batch of each source that is drawn (see Source.weight).
        validation: data for validation, clean and unaugmented.
        max_frames, max_rows: bounds of one batch (padded frames at the model's rate, 25 or 50 Hz; utterances).
        buckets: utterances are sorted by length within windows of this many times max_rows; more pads less and shuffles less.
        precision: ``fp32`` or ``bf16`` (autocast; norms, softmax and losses stay in float32).
        initialise_weights: false takes only the sizes of the initial encoder and starts it from scratch.
        fresh: modules of the initial model that start from scratch, such as ``predictor`` when the units are others.
        subwords: size of a SentencePiece vocabulary for a recogniser; null writes with characters.
        average: keep this many of the best validated models in ``candidates/`` and write their mean to ``average/`` at the end; 0 keeps
            none.
        max_bad_steps: stop after this many steps in a row whose loss is not finite; such a step changes nothing and is logged with its ids.
        threads: CPU threads; null leaves PyTorch's choice.
    """

    system: str
    task: Literal["pretrain", "recognition"]
    output: str
    sources: dict[str, Source]
    model: dict[str, Any] = field(default_factory=dict)
    initialise: str | None = None
    initialise_weights: bool = True
    fresh: tuple[str, ...] = ()
    subwords: int | None = None
    validation: Source | None = None
    seed: int = 1
    steps: int = 1000
    max_frames: int = 1000
    max_rows: int = 64
    buckets: int = 8
    mixing: MixingConfig = field(default_factory=MixingConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    precision: Literal["fp32", "bf16"] = "fp32"
    log_every: int = 50
    save_every: int = 500
    validate_every: int = 0
    average: int = 0
    max_bad_steps: int = 10
    workers: int = 0
    threads: int | None = None

    def __post_init__(self) -> None:
        if not self.sources:
            raise ValueError("sources: no training data; describe at least one source.")
        self.mixing.check({name: part.weight for name, part in self.sources.items()})
        for key, part in {**{f"sources.{name}": part for name, part in self.sources.items()}, "validation": self.validation}.items():
            if part is not None and (part.task == "recognition") != (self.task == "recognition"):
                raise ValueError(f"{key}.task: {part.task!r} gives no batches for a run whose task is {self.task!r}; change one of them.")
            if part is not None and self.task == "pretrain" and part.units is None and systems.find(self.system).units:
                raise ValueError(f"{key}.units: missing; a pre-training source needs unit labels (see avtlm units --help).")
        if self.steps < 1 or self.log_every < 1 or self.save_every < 1 or self.buckets < 1:
            counts = f"steps {self.steps}, log_every {self.log_every}, save_every {self.save_every}, buckets {self.buckets}"
            raise ValueError(f"{counts}: give at least 1 of each.")
        if self.validate_every and self.validation is None:
            raise ValueError("validate_every: there is no validation source; describe one under the key validation, or set 0.")
        if self.average and (self.average < 2 or not self.validate_every):
            raise ValueError(f"average: {self.average}; give 0, or at least 2 models together with validate_every, which ranks them.")


def train(source: str | Path | TrainConfig, overrides: Sequence[str] = ()) -> Path:
    """Train, or go on training, what a configuration describes.

    Returns:
        The model folder.

    Raises:
        ConfigError: an unknown key or a wrong value.
        ValueError: data or an initial model that do not fit.
        FloatingPointError: the loss was not finite ``max_bad_steps`` times in a row.
    """
    settings = source if isinstance(source, TrainConfig) else config.load(TrainConfig, source, overrides)
    return Trainer(settings).run()


class Trainer:
    """One run: what it is made of, and its loop."""

    def __init__(self, settings: TrainConfig) -> None:
        self.settings = settings
        self.folder = Path(settings.output)
        self.model_folder = self.folder / "model"
        if settings.threads is not None:
            torch.set_num_threads(settings.threads)
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        torch.manual_seed(seed_for(settings.seed, "initialise"))
        self.start = build(settings)
        self.model, self.card, self.vocabulary = self.start.model, self.start.card, self.start.vocabulary
        self.model.to(self.device).train()
        self.names = {parameter: name for name, parameter in self.model.named_parameters()}
        self.optimizer = make_optimizer(settings.optim, self.model.named_parameters())
        self.state = TrainState(positions={name: (0, 0) for name in settings.sources})
        self._resume()
        self.streams = {
            name: BatchStream(
                name,
                self._dataset(part, training=True),
                settings.seed,
                settings.max_frames,
                settings.max_rows,
                settings.workers,
                settings.buckets,
            )
            for name, part in settings.sources.items()
        }
        weights = {name: part.weight for name, part in settings.sources.items()}
        self.mixer = Mixer(settings.mixing, self.streams, weights, settings.seed)
        check_inventory(self.model, {name: stream.dataset for name, stream in self.streams.items()}, self.start.phones)
        validated = settings.validation if settings.validate_every else None
        self.validation = None if validated is None else self._validation_batches(validated)

    def _validation_batches(self, part: Source) -> list[Batch]:
        dataset = self._dataset(part, training=False)
        generator = torch.Generator().manual_seed(0)
        lengths = [dataset.frames(index) for index in range(len(dataset))]
        plans = plan_batches(lengths, self.settings.max_frames, self.settings.max_rows, generator)
        return [collate([dataset.item(row) for row in rows], part.task) for rows in plans]

    def _dataset(self, part: Source, training: bool) -> ClipDataset:
        return ClipDataset(part, self.settings.seed, self.start.inputs, self.start.vocabulary, self.start.phones, training)

    # The loop ------------------------------------------------------------------------------------------------------------------------

    def run(self) -> Path:
        settings, state = self.settings, self.state
        if state.step >= settings.steps:
            log.info("%s: %d of %d steps are done already", self.model_folder, state.step, settings.steps)
            return self.model_folder
        self.folder.mkdir(parents=True, exist_ok=True)
        write_text(self.folder / "config.yaml", config.to_yaml(settings))
        batches = {name: stream.batches(state.positions[name], self._turns(name)) for name, stream in self.streams.items()}
        meter = Meter()
        with (
            bar(f"{settings.task} {self.folder.name}", settings.steps, state.step) as progress,
            open(self.folder / "log.jsonl", "a") as journal,
        ):
            for step in range(state.step, settings.steps):
                drawn = []
                for name in self.mixer.drawn(step):
                    batch, state.positions[name] = next(batches[name])
                    drawn.append(batch)
                lr = set_lr(self.optimizer, schedule(settings.optim, step, settings.steps))
                self._step(step, drawn, meter)
                state.step = step + 1
                last = state.step == settings.steps
                saving = state.step % settings.save_every == 0 or last
                # An interval of the log never spans a checkpoint, so that a resumed run writes the same lines.
                if state.step % settings.log_every == 0 or saving:
                    line = {"step": state.step, "lr": lr, **meter.means()}
                    journal.write(json.dumps(line) + "\n")
                    journal.flush()
                    progress.advance(0, note=meter.note(line))
                    meter = Meter()
                if settings.validate_every and (state.step % settings.validate_every == 0 or last):
                    journal.write(json.dumps({"step": state.step, **self.validate()}) + "\n")
                    journal.flush()
                if saving:
                    self.save(self.model_folder)
                progress.advance()
        return self.model_folder

    def _step(self, step: int, batches: list[Batch], meter: "Meter") -> None:
        """Forward and backward over the batches of one step, and one update: the sum of all losses over the sum of their counts."""
        settings = self.settings
        torch.manual_seed(seed_for(settings.seed, "dropout", step))
        generator = torch.Generator().manual_seed(seed_for(settings.seed, "masks", step))
        if isinstance(self.model, FollowsSteps):
            self.model.start_step(step, settings.steps)
        found: list[dict[str, Loss]] = []
        buffers = [buffer.clone() for buffer in self.model.buffers()]
        with torch.autocast(self.device.type, torch.bfloat16, enabled=settings.precision == "bf16"):
            for batch in batches:
                found.append(self.model.losses(batch.to(self.device), generator))  # type: ignore[operator]
        if isinstance(self.model, CombinesLosses):
            found = self.model.combine(batches, found)
        losses = [loss for group in found for loss in group.values()]
        count = torch.stack([loss.count for loss in losses]).sum().clamp(min=1)
        total = torch.stack([loss.value for loss in losses]).sum() / count
        self.optimizer.zero_grad(set_to_none=True)
        total.backward()
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), settings.optim.clip_norm or math.inf)
        if not math.isfinite(norm.item()):
            for buffer, before in zip(self.model.buffers(), buffers, strict=True):
                buffer.copy_(before)  # statistics of batch norms
            self._bad_step(step, batches)
            return
        self.state.bad_steps = 0
        self.optimizer.step()
        for batch, group in zip(batches, found, strict=True):
            meter.add(batch.task if settings.task == "pretrain" else "", group)
        meter.add_value("loss", total.detach())
        meter.add_value("gradient_norm", norm)
        meter.frames += sum(_frames(batch, self.start.inputs) for batch in batches)

    def _bad_step(self, step: int, batches: list[Batch]) -> None:
        ids = [name for batch in batches for name in batch.ids]
        self.state.bad_steps += 1
        log.warning("step %d: the loss or its gradient is not finite; nothing was changed. Utterances: %s", step, ", ".join(ids))
        if self.state.bad_steps >= self.settings.max_bad_steps:
            raise FloatingPointError(
                f"{self.folder}: loss not finite in {self.state.bad_steps} steps in a row, last at step {step} with utterance {ids[0]}; "
                "lower optim.lr or look at these utterances."
            )

    def _turns(self, name: str) -> Iterator[float]:
        """Share of the training done, at each later turn of this source."""
        for step in range(self.state.step, self.settings.steps):
            for _ in range(self.mixer.drawn(step).count(name)):
                yield step / self.settings.steps

    # Validation and checkpoints ------------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def validate(self) -> dict[str, float]:
        """Losses on the validation source with fixed masks, and the word error rate of a recogniser; keeps the best model in ``best/``."""
        assert self.validation is not None
        self.model.eval()
        meter = Meter()
        for number, batch in enumerate(self.validation):
            generator = torch.Generator().manual_seed(seed_for("validation", number))
            meter.add("", self.model.losses(batch.to(self.device), generator))  # type: ignore[operator]
        results = {f"valid_{name}": value for name, value in meter.means().items() if name != "frames_per_second"}
        if isinstance(self.model, Recognizer) and self.vocabulary is not None:
            from avtlm.evaluation.wer import corpus_wer

            results["valid_wer"] = corpus_wer(self._pairs()).rate
        self.model.train()
        quality = results.get("valid_wer", results.get("valid_masked_loss", math.inf))
        if self.state.best is None or quality < self.state.best:
            self.state.best = quality
            self.save(self.folder / "best", resumable=False)
        if self.settings.average:
            self._keep(quality)
        return results

    def _keep(self, quality: float) -> None:
        """Keep this model if it is among the best; average them after the last step."""
        candidates, folder = self.state.candidates, self.folder / "candidates"
        candidates[self.state.step] = quality
        ranked = sorted(candidates, key=lambda step: (candidates[step], step))
        if self.state.step in ranked[: self.settings.average]:
            self.save(folder / f"step{self.state.step}", resumable=False)
        for step in ranked[self.settings.average :]:
            del candidates[step]
            shutil.rmtree(folder / f"step{step}", ignore_errors=True)
        if self.state.step == self.settings.steps and len(candidates) > 1:
            average([folder / f"step{step}" for step in sorted(candidates)], self.folder / "average")

    def _pairs(self) -> list[tuple[str, str]]:
        assert self.validation is not None
        assert self.settings.validation is not None
        assert isinstance(self.model, Recognizer)
        rows = {row.id: row.transcript or "" for row in read_manifest(self.settings.validation.manifest)}
        texts = transcribe_all(self.model, [batch.to(self.device) for batch in self.validation])
        return [(rows[name], text) for name, text in texts.items()]

    def save(self, folder: Path, resumable: bool = True) -> None:
        """Replace a model folder atomically."""
        decoding = self.model.config.decoding if isinstance(self.model, Recognizer) else None
        with checkpoint.replace_folder(folder) as temporary:
            extra = {} if self.start.phones is None else {PHONES: "\n".join(self.start.phones.symbols) + "\n"}
            checkpoint.write_model(temporary, self.model, self.card, self.vocabulary, extra, decoding=decoding, name=self.folder.name)
            if resumable:
                save_state(temporary, self.state, self.optimizer, self.names)

    def _resume(self) -> None:
        """Go on from the run's own checkpoint, and forget log lines of steps that will be repeated."""
        checkpoint.put_back(self.model_folder)
        if not (self.model_folder / FOLDER).exists():
            return
        saved = checkpoint.load_config(self.model_folder)
        if saved != self.card:
            raise ValueError(
                f"{self.model_folder}: holds a run with another model configuration; choose another output or remove the folder."
            )
        if self.vocabulary is not None and load_vocabulary(self.model_folder).symbols != self.vocabulary.symbols:
            raise ValueError(
                f"{self.model_folder}: was trained on transcripts with other symbols; choose another output or remove the folder."
            )
        table = self.model_folder / PHONES
        if self.start.phones is not None and table.exists() and table.read_text(encoding="utf-8").split() != self.start.phones.symbols:
            raise ValueError(f"{self.model_folder}: was trained on texts with other phones; choose another output or remove the folder.")
        checkpoint.load_into(self.model, self.model_folder)
        positions = self.state.positions
        self.state = load_state(self.model_folder, self.optimizer, self.names)
        self.state.positions = {name: self.state.positions.get(name, start) for name, start in positions.items()}
        journal = self.folder / "log.jsonl"
        if journal.exists():
            lines = [
                line for line in journal.read_text().splitlines() if line.endswith("}") and json.loads(line)["step"] <= self.state.step
            ]
            write_text(journal, "".join(line + "\n" for line in lines))
        log.info("%s: resuming at step %d", self.model_folder, self.state.step)


def _frames(batch: Batch, inputs: InputFormat) -> int:
    if inputs.waveform and batch.audio_lengths is not None:
        return int(batch.audio_lengths.sum() * inputs.frame_rate / SAMPLE_RATE)
    lengths = [part for part in (batch.video_lengths, batch.audio_lengths) if part is not None]
    return (
        int(torch.stack(lengths).amax(0).sum())
        if lengths
        else int((batch.text_lengths.sum() + 3) // 4)
        if batch.text_lengths is not None
        else 0
    )
