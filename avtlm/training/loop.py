"""The whole training loop in sight: configuration, data, steps, validation, checkpoints.

    avtlm train configs/vatlm/tiny.yaml optim.lr=1e-3

A run lives in one folder: ``model/`` (the checkpoint with its trainer state, replaced atomically), ``best/`` if validation chooses one, and
``log.jsonl``; ``starts.jsonl`` has machine, versions and command of every start. Started again with the same configuration it goes on where
the last checkpoint is, and repeats the steps after it bit for bit. SIGTERM and Ctrl-C end it behind a step, with a checkpoint. Several
processes (distributed.py) make the same updates as one.
"""

import logging
import math
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from rich.console import Console
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from avtlm import config
from avtlm.data.batching import Batch
from avtlm.data.dataset import ClipDataset, Source
from avtlm.data.mixing import Mixer, MixingConfig
from avtlm.data.seeds import seed_for
from avtlm.data.spoken_clips import open_source
from avtlm.files import write_text
from avtlm.objectives.loss import Loss
from avtlm.origin import note_start
from avtlm.protocols import FollowsSteps
from avtlm.training import distributed, run_folder, watching
from avtlm.training.distributed import Parallel, whole
from avtlm.training.guard import Guard
from avtlm.training.initial import build, check_inventory, check_sources
from avtlm.training.interruption import Interrupted, Interruption
from avtlm.training.layers import prepare_layers
from avtlm.training.meter import Meter
from avtlm.training.optim import OptimConfig, make_optimizer, schedule, set_lr
from avtlm.training.peak import peak_rate
from avtlm.training.progress import bar
from avtlm.training.state import TrainState
from avtlm.training.stream import BatchStream
from avtlm.training.validation import Validation
from avtlm.training.weight_average import WeightAverage

log = logging.getLogger(__name__)

BatchIterator = Iterator[tuple[Batch | None, tuple[int, int]]]


@dataclass(frozen=True)
class TrainConfig:
    """One training run.

    Attributes:
        system: name of a system in avtlm.systems.
        task: ``pretrain`` (the system's own losses), ``recognition`` (a recogniser on its encoder), ``language_model``,
            ``text_to_units`` (of the systems that write units for text), or of a system that is trained whole, such as SpeechT5,
            ``transcription`` (also translation), ``generation`` of speech, or ``speaker``.
        output: folder of the run.
        model: configuration of the system, or of the recogniser, whose ``encoder`` group then changes single settings of the initial
            encoder.
        initialise: model folder to start the encoder (or, in pre-training and of a system that is trained whole, all of the model) from;
            null starts from scratch.
        sources: training data by name.
        mixing: how the sources share the steps; by default every step takes one batch of each source that is drawn (see Source.weight).
        validation: data for validation, unaugmented but for the noise that it asks for itself (``augment.noise``).
        max_frames, max_rows: bounds of one batch (padded frames at the model's rate, 25 or 50 Hz; utterances).
        buckets: utterances are sorted by length within windows of this many times max_rows; more pads less and shuffles less.
        precision: ``fp32`` or ``bf16`` (autocast; norms, softmax and losses stay in float32).
        initialise_weights: false takes only the sizes of the initial encoder and starts it from scratch.
        fresh: modules of the initial model that start from scratch, such as ``predictor`` when the units are others; of a system that is
            trained whole also ``vocabulary``: it is made of the transcripts, and what belongs to the initial one is dropped.
        keep_decoder: a recogniser starts with the attention decoder of the initial one, too (its encoder is all that it takes otherwise);
            embeddings of another vocabulary start from scratch.
        subwords: size of a SentencePiece vocabulary for a recogniser; null writes with characters.
        vocabulary: these are ``characters``, those of the transcripts with ``|`` between words, or ``letters``, the English ones in upper
            case with ``|`` behind every word, as the official fine-tuning of wav2vec 2.0 and its kin writes them (32 symbols).
        vocabulary_from: model folder of the recogniser whose tokens a language model shall learn; null makes a vocabulary of its texts.
        decoding: how a model for transcription is searched (DecodingConfig), or how one for generation ends its speech (SynthesisOptions),
            when it is used; goes into its decoding.yaml.
        average: keep this many of the best validated models in ``candidates/`` and write their mean to ``average/`` at the end; 0 keeps
            none.
        max_bad_steps: stop after this many steps in a row whose loss is not finite; such a step changes nothing and is logged with its ids.
        spike: treat a loss of more than so many times its running mean in the same way; null does not.
        accumulate: rounds in a step, each with batches of its own, whose losses make one update; several processes share them out.
        parallel: what several processes hold of the model (see distributed.py): all of it (``ddp``), or a part each (``fsdp``).
        timeout_seconds: give up when another process does not answer for so long.
        activation_checkpointing: compute the encoder's layers a second time for their gradients in place of keeping what they need.
        compile: the encoder's layers by torch.compile.
        ema: decay of a moving average of the weights, in ``model/ema/``; null keeps none.
        tensorboard: write ``tensorboard/`` too, where the package is installed.
        wandb: project of Weights & Biases to log to; null does not.
        samples: validation utterances of a recogniser that are logged as it understands them.
        threads: CPU threads; null leaves PyTorch's choice.
    """

    system: str
    task: Literal["pretrain", "recognition", "language_model", "text_to_units", "transcription", "generation", "speaker"]
    output: str
    sources: dict[str, Source]
    model: dict[str, Any] = field(default_factory=dict)
    initialise: str | None = None
    initialise_weights: bool = True
    fresh: tuple[str, ...] = ()
    keep_decoder: bool = False
    subwords: int | None = None
    vocabulary: Literal["characters", "letters"] = "characters"
    vocabulary_from: str | None = None
    decoding: dict[str, Any] = field(default_factory=dict)
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
    spike: float | None = None
    accumulate: int = 1
    parallel: Parallel = "ddp"
    timeout_seconds: float = 600.0
    activation_checkpointing: bool = False
    compile: bool = False
    ema: float | None = None
    tensorboard: bool = True
    wandb: str | None = None
    samples: int = 4
    workers: int = 0
    threads: int | None = None

    def __post_init__(self) -> None:
        if not self.sources:
            raise ValueError("sources: no training data; describe at least one source.")
        self.mixing.check({name: part.weight for name, part in self.sources.items()})
        check_sources(self)
        if (self.system == "language_model") != (self.task == "language_model"):
            raise ValueError(f"task: {self.task} for {self.system}; the task and the system language_model belong together.")
        if self.task in ("language_model", "text_to_units") and (self.activation_checkpointing or self.compile):
            raise ValueError(
                "activation_checkpointing, compile: both work on encoders of speech, of which a model of text has none; set false."
            )
        if self.vocabulary_from is not None and (
            self.task != "language_model" or self.subwords is not None or self.vocabulary == "letters"
        ):
            raise ValueError(
                f"vocabulary_from: {self.vocabulary_from} for {self.task}; it is for a language_model, without subwords or vocabulary."
            )
        if self.keep_decoder and (self.task != "recognition" or self.initialise is None or not self.initialise_weights):
            raise ValueError("keep_decoder: true, but only recognition from an initial recogniser takes a decoder; set false.")
        if self.decoding and self.task not in ("transcription", "generation"):
            raise ValueError(f"decoding: {self.task} has none here; only transcription and generation have, so leave it out.")
        if self.steps < 1 or self.log_every < 1 or self.save_every < 1 or self.buckets < 1:
            counts = f"steps {self.steps}, log_every {self.log_every}, save_every {self.save_every}, buckets {self.buckets}"
            raise ValueError(f"{counts}: give at least 1 of each.")
        if self.validate_every and self.validation is None:
            raise ValueError("validate_every: there is no validation source; describe one under the key validation, or set 0.")
        if self.subwords is not None and self.vocabulary != "characters":
            raise ValueError(f"subwords: {self.subwords} together with vocabulary: {self.vocabulary}; choose one of them.")
        if self.average and (self.average < 2 or not self.validate_every):
            raise ValueError(f"average: {self.average}; give 0, or at least 2 models together with validate_every, which ranks them.")
        if self.accumulate < 1 or self.timeout_seconds <= 0:
            raise ValueError(f"accumulate {self.accumulate}, timeout_seconds {self.timeout_seconds}: give at least 1 round, and some time.")
        if self.spike is not None and self.spike <= 1:
            raise ValueError(f"spike: {self.spike}; give a factor above 1, such as 3, or null for none.")
        if self.ema is not None and not 0 < self.ema < 1:
            raise ValueError(f"ema: {self.ema}; give a decay between 0 and 1, such as 0.999, or null for none.")


def train(source: str | Path | TrainConfig, overrides: Sequence[str] = ()) -> Path:
    """Train, or go on training, what a configuration describes.

    Returns:
        The model folder.

    Raises:
        ConfigError: an unknown key or a wrong value.
        ValueError: data or an initial model that do not fit; ProcessLost if it is another process that has gone.
        FloatingPointError: the loss was not finite, or a spike, ``max_bad_steps`` times in a row.
        Interrupted: SIGTERM or Ctrl-C asked for an end; the state is written.
    """
    settings = source if isinstance(source, TrainConfig) else config.load(TrainConfig, source, overrides)
    try:
        done = Trainer(settings).run()  # nothing holds it any longer: it holds the group of the processes
    except RuntimeError as error:
        if not distributed.is_loss_of_a_process(error):
            raise
        raise distributed.ProcessLost(
            f"{settings.output}: another process of this run has ended or does not answer; started again, the run goes on from its last "
            "checkpoint."
        ) from error
    distributed.leave()
    if done < settings.steps:
        raise Interrupted(Path(settings.output) / "model")
    return Path(settings.output) / "model"


class Trainer:
    """One run: what it is made of, and its loop."""

    def __init__(self, settings: TrainConfig) -> None:
        self.settings = settings
        self.folder = Path(settings.output)
        self.model_folder = self.folder / "model"
        if settings.threads is not None:
            torch.set_num_threads(settings.threads)
        watching.check(settings.wandb)
        self.processes = distributed.join(settings.timeout_seconds, settings.accumulate)
        self.device = self.processes.device
        torch.manual_seed(seed_for(settings.seed, "initialise"))
        self.start = build(settings)
        self.model = self.start.model
        self.model.to(self.device).train()
        resuming = run_folder.load_model(self)
        prepare_layers(self.model, settings.activation_checkpointing, settings.compile)
        self.rounds = distributed.Rounds(self.model, settings.precision, self.device)
        self.replicas = distributed.spread_out(self.rounds, self.processes, settings.parallel)
        self.names = {parameter: name for name, parameter in self.model.named_parameters()}
        self.optimizer = make_optimizer(settings.optim, self.model.named_parameters())
        self.average = None if settings.ema is None else WeightAverage(self.model, settings.ema)
        self.state = TrainState(positions={name: (0, 0) for name in settings.sources})
        if resuming:
            self.state = run_folder.load_trainer(self)
        self.guard = Guard(self.state, settings.spike, settings.max_bad_steps, str(self.folder))
        self.interruption, self.stopping = Interruption(), False
        self.streams = {
            name: BatchStream(
                name,
                self._dataset(part, training=True),
                settings.seed,
                part.max_frames or settings.max_frames,
                settings.max_rows,
                settings.workers,
                settings.buckets,
            )
            for name, part in settings.sources.items()
        }
        weights = {name: part.weight for name, part in settings.sources.items()}
        self.mixer = Mixer(settings.mixing, self.streams, weights, settings.seed)
        datasets = {f"sources.{name}": stream.dataset for name, stream in self.streams.items()}
        if settings.validation is not None and settings.validate_every:
            datasets["validation"] = self._dataset(settings.validation, training=False)
        check_inventory(self.model, datasets, self.start.phones)
        self.validation = Validation(self, datasets["validation"]) if "validation" in datasets else None

    def _dataset(self, part: Source, training: bool) -> ClipDataset:
        start = self.start
        return open_source(part, self.settings.seed, start.inputs, start.vocabulary, start.phones, training, start.speakers, start.tags)

    # The loop ------------------------------------------------------------------------------------------------------------------------

    def run(self) -> int:
        """Train; returns the steps that are done by then."""
        settings, state = self.settings, self.state
        if state.step >= settings.steps:
            log.info("%s: %d of %d steps are done already", self.model_folder, state.step, settings.steps)
            return state.step
        if self.processes.first:
            self.folder.mkdir(parents=True, exist_ok=True)
            write_text(self.folder / "config.yaml", config.to_yaml(settings))
            note_start(self.folder, step=state.step, processes=self.processes.count)
        batches, meter = self.batches(), Meter()
        peak = peak_rate(self.device, settings.precision).flops * self.processes.count
        watched = (settings.tensorboard, settings.wandb, config.to_dict(settings))
        with (
            self.interruption,
            watching.Journal(self.folder, state.step, self.processes.first, *watched) as journal,
            open(os.devnull, "w") as nowhere,
            bar(
                f"{settings.task} {self.folder.name}",
                settings.steps,
                state.step,
                None if self.processes.first else Console(file=nowhere),
            ) as progress,
        ):
            for step in range(state.step, settings.steps):
                lr = self.step(step, batches, meter)
                state.step = step + 1
                last = state.step == settings.steps
                saving = state.step % settings.save_every == 0 or last or self.stopping
                # An interval of the log never spans a checkpoint, so that a resumed run writes the same lines.
                if state.step % settings.log_every == 0 or saving:
                    merged = meter.merged(self.processes)
                    line = {"step": state.step, "lr": lr, **merged.means(), **merged.rates(peak)}
                    journal.write(line)
                    progress.advance(0, note=meter.note(line))
                    meter = Meter()
                paused = time.perf_counter()
                if self.validation is not None and (state.step % settings.validate_every == 0 or last):
                    results = self.validation.results()
                    self.validation.keep_the_best(results)
                    journal.write({"step": state.step, **results}, self.validation.samples)
                if saving:
                    run_folder.save(self, self.model_folder)
                meter.pause(paused)
                progress.advance()
                if self.stopping and not last:
                    name = self.interruption.signal or "signal to another process"
                    log.info("%s: %s; stopped at step %d of %d with a checkpoint", self.model_folder, name, state.step, settings.steps)
                    break
        return state.step

    def batches(self) -> dict[str, BatchIterator]:
        """The batches of every source from the next step on."""
        return {name: stream.batches(self.state.positions[name], self._turns(name)) for name, stream in self.streams.items()}

    def step(self, step: int, batches: dict[str, BatchIterator], meter: Meter) -> float:
        """Draw the batches of a step, and make its update; returns the learning rate."""
        rounds = self._draw(step, batches)
        passes = min(epoch for epoch, _ in self.state.positions.values())  # over all of the data, before these batches
        lr = set_lr(self.optimizer, schedule(self.settings.optim, step, self.settings.steps, passes))
        self._step(step, rounds, meter)
        return lr

    def _draw(self, step: int, batches: dict[str, BatchIterator]) -> list[tuple[int, list[Batch]]]:
        """The rounds of a step that this process takes, by their numbers; positions in the data move on by all of them."""
        rounds = []
        for number in range(self.settings.accumulate):
            drawn = []
            for name in self.mixer.drawn(step * self.settings.accumulate + number):
                batch, self.state.positions[name] = next(batches[name])
                drawn.append(batch)
            if self._takes(number):
                rounds.append((number, [batch for batch in drawn if batch is not None]))
        return rounds

    def _takes(self, number: int) -> bool:
        return number % self.processes.count == self.processes.rank

    def _turns(self, name: str) -> Iterator[float | None]:
        """At each later turn of this source: the share of the training done, or None where it is another process's turn."""
        accumulate = self.settings.accumulate
        for step in range(self.state.step, self.settings.steps):
            for number in range(accumulate):
                for _ in range(self.mixer.drawn(step * accumulate + number).count(name)):
                    yield step / self.settings.steps if self._takes(number) else None

    def _step(self, step: int, rounds: list[tuple[int, list[Batch]]], meter: Meter) -> None:
        """Forward and backward over the rounds of one step, and one update: the sum of all losses over the sum of their counts."""
        settings, processes, norms = self.settings, self.processes, self.rounds.norms
        single = settings.accumulate == 1  # then the only count is known before the gradient
        if isinstance(self.model, FollowsSteps):
            self.model.start_step(step, settings.steps)
        buffers = [buffer.clone() for buffer in self.model.buffers()]
        if norms is not None:
            norms.start_step()
        self.optimizer.zero_grad(set_to_none=True)
        found: list[tuple[Batch, dict[str, Loss]]] = []
        sums = torch.zeros(3, dtype=torch.float64, device=self.device)  # losses, counts, processes that are asked to stop
        for number, batches in rounds:
            # What is random depends on step and round, never on the process.
            key = (step, number) if number else (step,)
            torch.manual_seed(seed_for(settings.seed, "dropout", *key))
            generator = torch.Generator().manual_seed(seed_for(settings.seed, "masks", *key))
            total = self.replicas.forward(batches, generator, last=number == rounds[-1][0])
            count = self.rounds.count()
            loss = total / count.clamp(min=1) if single else total
            self.replicas.backward(loss)
            sums += torch.stack([total.detach().double(), count.double(), sums.new_tensor(self.interruption.signal is not None)])
            found += zip(batches, self.rounds.found, strict=True)
        processes.sum(sums)
        self.replicas.finish()
        if not single:
            self.replicas.divide(sums[1].clamp(min=1))
            loss = sums[0] / sums[1].clamp(min=1)
        self.stopping = bool(sums[2] > 0) if processes.several else self.interruption.signal is not None
        work = self.rounds.work.take()
        parameters = list(self.model.parameters())
        norm = whole(get_total_norm([parameter.grad for parameter in parameters if parameter.grad is not None]))
        clip_grads_with_norm_(parameters, settings.optim.clip_norm or math.inf, norm)
        fault = self.guard.fault(norm.item(), None if settings.spike is None else loss.item())
        if fault is not None:
            for buffer, before in zip(self.model.buffers(), buffers, strict=True):
                buffer.copy_(before)  # statistics of batch norms
            ids = processes.gather([name for batch, _ in found for name in batch.ids])
            self.guard.refuse(step, fault, [name for part in ids for name in part])
            return
        self.guard.pass_()
        if norms is not None:
            norms.finish_step([(number, place) for number, batches in rounds for place in range(len(batches))], processes)
        self.optimizer.step()
        if self.average is not None:
            self.average.update()
        for batch, group in found:
            meter.add(batch.task if settings.task == "pretrain" else "", group)
        meter.add_value("loss", loss.detach())
        meter.add_value("gradient_norm", norm)
        meter.add_parts((group for _, group in found), sums[1], processes.first)
        meter.work = meter.work + work
        for batch, _ in found:
            meter.add_batch(batch, self.start.inputs)
