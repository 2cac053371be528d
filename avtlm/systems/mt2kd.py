"""MT2KD: one Zipformer for speech, sound and speakers, distilled from three teachers, then fine-tuned on three tasks at once
(Yang et al., arXiv 2409.17010; encoder: arXiv 2310.11230).

What is unusual here:
- First nothing is labelled: three small heads copy frozen teachers (Whisper's frames, BEATs' probabilities, ECAPA-TDNN's vector), whose
  answers lie on disk (``avtlm teach``) or are asked for in training. A clip counts for the teachers whose answers it has.
- Then a transducer writes, classes of sounds are tagged and speakers named; every batch comes from one corpus and counts for its own task.
  The encoder may wait until the new heads have learned, and parts may stay as they are for good.
- Losses are sums over clips, divided by clips, not by frames or symbols, and weighed as in the released runs.
- A speaker is heard in one inner stack (the third, at 12.5 Hz), not behind the encoder.
- The released code counts valid frames of that stack by the longest clip of a batch; ``relative_lengths`` brings that back.

Over 400 lines, because both stages and all three tasks share the encoder and these heads.
"""

from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from avtlm.data.batching import Batch
from avtlm.data.heard_clips import answer_shape, with_answers
from avtlm.data.inputs import InputFormat
from avtlm.data.teacher_targets import TEACHERS
from avtlm.frontends.fbank import batch_fbank
from avtlm.frontends.filterbank import STEP
from avtlm.frontends.spec_augment import SpecAugmentConfig, spec_augment
from avtlm.nn.attention import padding_mask
from avtlm.nn.ecapa import AttentiveStatisticsPooling, relative_lengths
from avtlm.nn.transducer import TransducerConfig, TransducerHead
from avtlm.nn.zipformer import Zipformer, ZipformerConfig, ZipformerOutput
from avtlm.objectives.ctc import ctc_loss
from avtlm.objectives.distillation import joined_frames, of_rows, sound_losses, speaker_distances, speech_distances
from avtlm.objectives.loss import Loss
from avtlm.objectives.pruned_transducer import (
    PrunedLosses,
    loss_scales,
    prune_ranges,
    pruned_lattice,
    simple_lattice,
    sum_paths,
    weighed,
)
from avtlm.objectives.transducer import transducer_loss
from avtlm.teachers import Teacher, open_teacher

LEAST_FRAMES = 9  # of the filter bank, which the first convolutions need
BLANK = 0


@dataclass(frozen=True)
class JoinerConfig:
    """The transducer: a prediction network that sees ``context`` labels, and the joiner.

    Attributes:
        loss: ``pruned``, see avtlm.objectives.pruned_transducer, or ``full``, which joins every frame with every place of the text.
        prune_range: places of a frame's window.
        lm_scale, am_scale: smoothing of the simple transducer.
        simple_scale: weight of its loss after ``warmup`` steps, from 1; that of the pruned one rises from 0.1 to 1.
    """

    dim: int = 512
    context: int = 2
    joint_dim: int = 512
    loss: Literal["pruned", "full"] = "pruned"
    prune_range: int = 5
    lm_scale: float = 0.25
    am_scale: float = 0.0
    simple_scale: float = 0.5
    warmup: int = 2000

    def __post_init__(self) -> None:
        if self.prune_range < 2 or self.warmup < 0:
            raise ValueError(f"prune_range: {self.prune_range}, warmup: {self.warmup}; give at least 2 places, and 0 steps or more.")
        if self.lm_scale < 0 or self.am_scale < 0 or self.lm_scale + self.am_scale >= 1:
            raise ValueError(f"lm_scale: {self.lm_scale}, am_scale: {self.am_scale}; give shares that sum up to less than 1.")


@dataclass(frozen=True)
class WeightConfig:
    """What the losses count; the defaults are those of the released runs.

    Attributes:
        speech, sound, speaker: of the teachers.
        transducer, ctc, tagging, naming: of the tasks; 0 for ``ctc`` makes no such head.
    """

    speech: float = 1.0
    sound: float = 1.0
    speaker: float = 10.0
    transducer: float = 1.0
    ctc: float = 0.0
    tagging: float = 2.0
    naming: float = 10.0


@dataclass(frozen=True)
class TeachersConfig:
    """Where teachers are that are asked in training, for sources without stored answers; see avtlm.teachers. Null: not asked."""

    speech: str | None = None
    sound: str | None = None
    speaker: str | None = None


@dataclass(frozen=True)
class MT2KDConfig:
    """The defaults are the M model with 500 word pieces.

    Attributes:
        task: ``pretrain`` learns from teachers, ``transcription`` from transcripts, tags and names of speakers.
        vocabulary: symbols of texts; 0 for no transducer.
        tags: classes of sounds. speakers: that are told apart; 0 for no such head.
        voice_dim: width of the vector of a speaker.
        speech_width: values of the teacher of speech that one frame learns, those of successive frames side by side; 0 for no such head.
        project_speech: the transducer reads what that head makes of frames (without its ReLU), in place of the frames.
        speaker_stack: whose layers a speaker is heard in, from 0; null for what the transducer reads.
        delay: frames of 40 ms by which a causal model answers the teacher of speech late.
        dropout: before the classes of sounds.
        freeze_encoder_steps: train the heads alone for so many steps. freeze_heads: and of these the transducer and CTC alone.
        frozen: parts that never change, such as ``encoder.embed``.
        batches_before: what the schedules of the encoder have behind them: 100000 in fine-tuning, where they are at their ends.
        batches_per_step: of 600 s of sound each, by which these schedules are counted.
        chunk, left_context: frames at 50 Hz that a causal model sees at once, and before them, outside of training; -1 for all.
        relative_lengths: see the module's docstring.
    """

    encoder: ZipformerConfig = field(default_factory=ZipformerConfig)
    task: Literal["pretrain", "transcription"] = "pretrain"
    vocabulary: int = 500
    tags: int = 527
    speakers: int = 0
    voice_dim: int = 192
    speech_width: int = 2560
    project_speech: bool = False
    speaker_stack: int | None = 2
    delay: int = 0
    dropout: float = 0.1
    transducer: JoinerConfig = field(default_factory=JoinerConfig)
    weights: WeightConfig = field(default_factory=WeightConfig)
    teachers: TeachersConfig = field(default_factory=TeachersConfig)
    spec_augment: SpecAugmentConfig | None = None
    freeze_encoder_steps: int = 0
    freeze_heads: bool = False
    frozen: tuple[str, ...] = ()
    batches_before: float = 0.0
    batches_per_step: float = 1.0
    chunk: int = -1
    left_context: int = -1
    relative_lengths: bool = False

    def __post_init__(self) -> None:
        if self.speaker_stack is not None and not 0 <= self.speaker_stack < len(self.encoder.layers):
            raise ValueError(f"speaker_stack: {self.speaker_stack}; there are stacks 0 to {len(self.encoder.layers) - 1}, or null.")
        if self.project_speech and not self.speech_width:
            raise ValueError("project_speech: there is no such head; set speech_width, or false.")
        if self.delay < 0 or (self.delay and not self.encoder.causal):
            raise ValueError(f"delay: {self.delay}; give 0, or frames by which a causal encoder (encoder.causal) is late.")
        if self.freeze_heads and not (self.freeze_encoder_steps and self.vocabulary):
            raise ValueError("freeze_heads: set freeze_encoder_steps, and a vocabulary, whose heads are all that is left to train.")
        if self.chunk != -1 and not self.encoder.causal:
            raise ValueError(f"chunk: {self.chunk}, but the encoder is not causal; set -1.")
        if min(self.tags, self.voice_dim) < 1 or self.vocabulary < 0:
            raise ValueError(f"tags: {self.tags}, voice_dim: {self.voice_dim}, vocabulary: {self.vocabulary}; give at least 1, 1 and 0.")

    # How a run makes a model of this system; see avtlm.protocols.WholeConfig.
    inputs: ClassVar[tuple[str, ...]] = ("speech",)
    further_symbols: ClassVar[tuple[str, ...]] = ()
    vocabulary_parts: ClassVar[tuple[str, ...]] = ("transducer", "simple_heard", "simple_said", "ctc")
    optional_parts: ClassVar[tuple[str, ...]] = ("speech_projection", "speaker", "transducer", "simple_heard", "simple_said", "ctc")
    speaker_parts: ClassVar[tuple[str, ...]] = ("speaker",)
    tag_parts: ClassVar[tuple[str, ...]] = ("tagging",)

    @classmethod
    def of_task(cls, task: str) -> dict[str, Any]:
        """Learning from teachers has no text, fine-tuning no frames of a teacher."""
        return {"task": task, "vocabulary": 0} if task == "pretrain" else {"task": task, "speech_width": 0, "speakers": 0}

    @property
    def has_text(self) -> bool:
        return self.vocabulary > 0

    # What a search has to know; see avtlm.whole_model.TextConfig.
    mask_id: ClassVar[int | None] = None
    blank: ClassVar[int] = BLANK

    @property
    def ctc_head(self) -> str:
        return "own" if self.vocabulary and self.weights.ctc else "none"

    @property
    def search(self) -> dict[str, Any]:
        """Greedy, with at most one symbol in a frame, as released models are read without more."""
        return {"method": "transducer", "beam": 1, "symbols_per_frame": 1}

    @property
    def frame_rate(self) -> float:
        """Frames per second of the encoder's output."""
        return self.encoder.rate


class SpeakerHead(nn.Module):
    """Pooling over time, and a vector of the voice. PyTorch's initialisation."""

    def __init__(self, channels: int, dim: int) -> None:
        super().__init__()
        self.pooling = AttentiveStatisticsPooling(channels)
        self.project = nn.Linear(2 * channels, dim)

    def forward(self, frames: Tensor, lengths: Tensor) -> Tensor:
        """(batch, frames, channels) of the given lengths -> (batch, dim)."""
        out: Tensor = self.project(self.pooling(frames.transpose(1, 2), lengths))
        return out


@dataclass(frozen=True)
class Heard:
    """What the encoder makes of a batch.

    Attributes:
        frames: its output (batch, frames, dim) at 25 Hz, of which so many are valid (batch,).
        voice: what a speaker is heard in, (batch, frames, channels), and the valid ones of it.
        penalty: of the encoder, to be added to the losses in training.
    """

    frames: Tensor
    lengths: Tensor
    voice: Tensor
    voice_lengths: Tensor
    penalty: Tensor | None = None


class MT2KD(nn.Module):
    """Encoder and heads. PyTorch's initialisation but for the encoder's own; the simple projections start at a quarter of it."""

    def __init__(self, config: MT2KDConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = Zipformer(config.encoder)
        dim, stack = self.encoder.dim, config.speaker_stack
        self.tagging = nn.Linear(dim, config.tags)
        self.dropout = nn.Dropout(config.dropout)
        read, written = config.speech_width if config.project_speech else dim, config.transducer
        self.voice = SpeakerHead(read if stack is None else config.encoder.dims[stack], config.voice_dim)
        self.speech_projection = nn.Linear(dim, config.speech_width) if config.speech_width else None
        self.transducer: TransducerHead | None = None
        self.simple_heard: nn.Linear | None = None
        self.simple_said: nn.Linear | None = None
        if config.vocabulary:
            sizes = TransducerConfig(dim=written.dim, context=written.context, joint_dim=written.joint_dim, dropout=0.0, empty_start=True)
            self.transducer = TransducerHead(sizes, config.vocabulary, read, BLANK)
            if written.loss == "pruned":
                self.simple_heard, self.simple_said = nn.Linear(read, config.vocabulary), nn.Linear(written.dim, config.vocabulary)
                for part in (self.simple_heard, self.simple_said):
                    nn.init.uniform_(part.bias, -0.025, 0.025)
                    with torch.no_grad():
                        part.weight.mul_(0.25)
        self.ctc = nn.Linear(read, config.vocabulary) if config.ctc_head == "own" else None
        self.speaker = nn.Linear(config.voice_dim, config.speakers) if config.speakers else None
        self._step, self._frozen = 0, False
        self._teachers: dict[str, Teacher] = {}
        for name in config.frozen:
            self._part(name).requires_grad_(False)

    def _part(self, name: str) -> nn.Module:
        try:
            return self.get_submodule(name)
        except AttributeError as error:
            raise ValueError(f"frozen: {name!r} is no part of this model; its parts are named as in model.state_dict().") from error

    # What other rooms ask for ----------------------------------------------------------------------------------------------------------

    @property
    def input_format(self) -> InputFormat:
        """Sound alone, as a waveform."""
        return InputFormat(
            audio_normalise="none",
            video_size=None,
            label_rate=self.config.frame_rate,
            waveform=True,
            frame_rate=self.config.frame_rate,
            shortest=LEAST_FRAMES * STEP - STEP // 2,
        )

    @property
    def dim(self) -> int:
        """Width of the output."""
        return self.encoder.dim

    @property
    def decoder(self) -> None:
        """There is none that attends."""
        return None

    def start_step(self, step: int, steps: int) -> None:
        """Count batches for the encoder's schedules, and let go of what waits when its time has come."""
        del steps
        config = self.config
        self._step, self._frozen = step, step < config.freeze_encoder_steps
        self.encoder.batch_count = config.batches_before + step * config.batches_per_step
        if self._frozen:
            self.encoder.eval()
        elif self.training:
            self.encoder.train()
        if self.training and config.freeze_heads:
            for part in (self.tagging, self.voice):
                part.train(not self._frozen)
        for name in config.frozen:
            self._part(name).eval()

    # Encoder -----------------------------------------------------------------------------------------------------------------------------

    def features(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Filter banks of a batch's sound (batch, frames, bands), and the valid frames of each clip (batch,).

        Raises:
            ValueError: no sound, or none as a waveform.
        """
        return batch_fbank(*batch.waveforms(), self.config.encoder.features, LEAST_FRAMES)

    def hear(self, batch: Batch, generator: torch.Generator | None = None) -> Heard:
        """Run the encoder.

        Args:
            generator: draws SpecAugment; None changes nothing.

        Raises:
            ValueError: no sound, or none as a waveform.
        """
        features, lengths = self.features(batch)
        if generator is not None and self.config.spec_augment is not None:
            features = spec_augment(features, lengths, self.config.spec_augment, generator)
        return self.listen(features, lengths)

    def listen(self, features: Tensor, lengths: Tensor) -> Heard:
        """The same from features (batch, frames, bands) of the given lengths."""
        config = self.config
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self._frozen):
            out: ZipformerOutput = self.encoder(features, lengths, *self._chunk)
        if config.speaker_stack is None:
            voice, lengths = self.read(out.frames), out.lengths
        else:
            voice, lengths = _mean(out.stacks[config.speaker_stack]), out.stack_lengths[config.speaker_stack]
        if config.relative_lengths:
            lengths = relative_lengths(out.lengths / out.lengths.max(), voice.shape[1])
        return Heard(out.frames, out.lengths, voice, lengths, out.penalty)

    @property
    def _chunk(self) -> tuple[int | None, int | None]:
        """Of a causal model, which draws both in training."""
        config = self.config
        return (None, None) if self.training or not config.encoder.causal else (config.chunk, config.left_context)

    def encode(
        self, batch: Batch, output_layer: int | None = None, mask: None = None, keep: dict[str, Tensor] | None = None
    ) -> tuple[Tensor, Tensor]:
        """Features at 25 Hz: (batch, frames, dim) and lengths (batch,).

        Raises:
            ValueError: an inner layer was asked for, whose frames have another rate.
        """
        del mask, keep
        if output_layer is not None:
            raise ValueError(f"output_layer: {output_layer}; stacks of a Zipformer have frames of their own rates; leave it out.")
        heard = self.hear(batch)
        return heard.frames, heard.lengths

    def hidden_states(self, batch: Batch) -> tuple[list[Tensor], Tensor]:
        """What each stack puts out and what they come to together, see Zipformer.hidden_states, and lengths (batch,)."""
        features, lengths = self.features(batch)
        return self.encoder.hidden_states(features, lengths)

    # Heads -------------------------------------------------------------------------------------------------------------------------------

    def remember(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """What the transducer and CTC read of a batch, and its valid frames."""
        heard = self.hear(batch)
        return self.read(heard.frames), heard.lengths

    def encode_features(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """What `remember` gives, from features."""
        heard = self.listen(features, lengths)
        return self.read(heard.frames), heard.lengths

    def read(self, frames: Tensor) -> Tensor:
        """What the transducer reads of the encoder's output; the projection counts as the encoder's last layer, and waits with it."""
        if not self.config.project_speech:
            return frames
        assert self.speech_projection is not None
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self._frozen):
            out: Tensor = self.speech_projection(frames)
        return out

    def ctc_logits(self, encoded: Tensor) -> Tensor:
        """(batch, frames, width) -> (batch, frames, vocabulary)."""
        assert self.ctc is not None, "a model without CTC was asked for it"
        out: Tensor = self.ctc(encoded)
        return out

    def tag_logits(self, heard: Heard) -> Tensor:
        """Logits of classes of sounds, the mean over the frames of each clip: (batch, tags)."""
        each: Tensor = self.tagging(self.dropout(heard.frames))
        padding = padding_mask(heard.lengths, each.shape[1])
        return each.masked_fill(padding[..., None], 0.0).sum(1) / heard.lengths.clamp(min=1)[:, None]

    def embed_speaker(self, heard: Heard) -> Tensor:
        """Vectors of voices (batch, voice_dim), whose length means nothing."""
        out: Tensor = self.voice(heard.voice, heard.voice_lengths)
        return out

    # Losses ------------------------------------------------------------------------------------------------------------------------------

    def losses(self, batch: Batch, generator: torch.Generator) -> dict[str, Loss]:
        """Those of the batch's task, divided by clips.

        Raises:
            ValueError: the batch lacks what its task learns from.
        """
        heard = self.hear(batch, generator if self.training else None)
        if batch.task == "distillation":
            found = self.distillation_losses(heard, self._answered(batch))
        elif batch.task == "tagging":
            found = {"tagging": self.tagging_loss(heard, batch.targets["tags"])}
        elif batch.task == "speaker":
            found = {"speaker": self.naming_loss(heard, batch.targets["speaker"])}
        else:
            found = self.writing_losses(heard, batch.targets["tokens"], batch.target_lengths["tokens"])
        return _by_clips(found, len(batch), heard.penalty)

    def distillation_losses(self, heard: Heard, batch: Batch) -> dict[str, Loss]:
        """Stage 1: what the teachers say, of the rows that have their answers (``targets.learned``)."""
        config, weights = self.config, self.config.weights
        found: dict[str, Loss] = {}
        learned = batch.targets["learned"].unbind(1)
        if "speech" in batch.targets and self.speech_projection is not None:
            answers = batch.targets["speech"]
            ratio = self._ratio(answers.shape[2])
            known = torch.div(batch.target_lengths["speech"], ratio, rounding_mode="floor") + config.delay
            lengths = torch.minimum(heard.lengths, known)
            predicted = self.speech_projection(heard.frames.relu())
            joined = joined_frames(answers, predicted.shape[1], ratio)
            apart = speech_distances(predicted, joined, lengths, config.delay)
            compared = (lengths - config.delay).clamp(min=0)
            found["speech"] = of_rows(apart, learned[0], weights.speech, "speech_distance", compared)
        if "sound" in batch.targets:
            each = sound_losses(self.tag_logits(heard), batch.targets["sound"])
            found["sound"] = of_rows(each, learned[1], weights.sound, "sound_loss")
        if "speaker" in batch.targets:
            each = speaker_distances(self.embed_speaker(heard), batch.targets["speaker"])
            found["speaker"] = of_rows(each, learned[2], weights.speaker, "speaker_distance")
        return found

    def _ratio(self, width: int) -> int:
        """Frames of the teacher of speech in one of ours."""
        if self.config.speech_width % width:
            raise ValueError(
                f"speech_width: {self.config.speech_width} is no multiple of the teacher's {width} values; set as many as its frames "
                "in 40 ms have."
            )
        return self.config.speech_width // width

    def tagging_loss(self, heard: Heard, tags: Tensor) -> Loss:
        """Stage 2: classes of sounds (batch, tags), 0 or 1 or a teacher's probabilities."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self._heads_wait):
            each = sound_losses(self.tag_logits(heard), tags)
        loss = of_rows(each, torch.ones_like(tags[:, 0], dtype=torch.bool), self.config.weights.tagging, "tagging_loss")
        return self._attached(loss)

    def naming_loss(self, heard: Heard, speakers: Tensor) -> Loss:
        """Stage 2: whose voice it is (batch,), by a plain softmax."""
        if self.speaker is None:
            raise ValueError("speakers: this model has no head for them; name speakers in the manifest of a source of the task speaker.")
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self._heads_wait):
            logits = self.speaker(self.embed_speaker(heard)).float()
            each = nn.functional.cross_entropy(logits, speakers, reduction="none")
        loss = of_rows(each, torch.ones_like(speakers, dtype=torch.bool), self.config.weights.naming, "speaker_loss")
        loss.logs["speaker_accuracy"] = ((logits.argmax(-1) == speakers).sum(), loss.count)
        return self._attached(loss)

    def writing_losses(self, heard: Heard, tokens: Tensor, token_lengths: Tensor) -> dict[str, Loss]:
        """Stage 2: the transcripts, tokens (batch, labels), by the transducer and CTC."""
        if self.transducer is None:
            raise ValueError("vocabulary: 0, so that this model writes nothing; give a source with transcripts, or leave recognition out.")
        settings, weights, read = self.config.transducer, self.config.weights, self.read(heard.frames)
        tokens = tokens.clamp(min=0)
        found: dict[str, Loss] = {}
        if settings.loss == "full":
            loss = transducer_loss(self.transducer(read, tokens), heard.lengths, tokens, token_lengths, BLANK)
        else:
            scales = loss_scales(self._step, settings.warmup, settings.simple_scale)
            loss = weighed(self.pruned_losses(read, heard.lengths, tokens, token_lengths), scales, token_lengths.sum())
        found["transducer"] = Loss(weights.transducer * loss.value, loss.count, loss.logs)
        if self.ctc is not None:
            loss = ctc_loss(self.ctc_logits(read), heard.lengths, tokens, token_lengths, BLANK)
            found["ctc"] = Loss(weights.ctc * loss.value, loss.count, loss.logs)
        return found

    def pruned_losses(self, read: Tensor, lengths: Tensor, tokens: Tensor, token_lengths: Tensor) -> PrunedLosses:
        """Of every row: the simple transducer's, and that of the joiner in the windows that it gives."""
        assert self.transducer is not None
        assert self.simple_heard is not None
        assert self.simple_said is not None
        settings, said = self.config.transducer, self.transducer.read(tokens)
        scales = (settings.lm_scale, settings.am_scale)
        simple = sum_paths(
            simple_lattice(self.simple_heard(read), self.simple_said(said), tokens, lengths, *scales, BLANK), lengths, token_lengths
        )
        ranges = prune_ranges(simple, lengths, token_lengths, settings.prune_range)
        joined = self.transducer.join_some(read, said, ranges)
        pruned = sum_paths(pruned_lattice(joined, tokens, ranges, lengths, BLANK), lengths, token_lengths)
        return PrunedLosses(-simple.total, -pruned.total, ranges)

    # Freezing ----------------------------------------------------------------------------------------------------------------------------

    @property
    def _heads_wait(self) -> bool:
        return self._frozen and self.config.freeze_heads

    def _attached(self, loss: Loss) -> Loss:
        """A loss that nothing learns from hangs on the transducer by a zero: a step of such batches alone has to have a gradient."""
        if loss.value.requires_grad or not torch.is_grad_enabled() or self.transducer is None:
            return loss
        return Loss(loss.value + 0.0 * self.transducer.output.bias.sum(), loss.count, loss.logs)

    # Teachers that are asked in training -------------------------------------------------------------------------------------------------

    def _answered(self, batch: Batch) -> Batch:
        """The batch with the answers of the teachers; stored ones stay as they are."""
        if any(name in batch.targets for name in TEACHERS):
            return batch
        assert batch.audio is not None
        assert batch.audio_lengths is not None
        teachers = self._open_teachers(batch.audio.device)
        learned = batch.targets["learned"].tolist()
        rows: list[dict[str, Tensor]] = []
        for wave, length, wanted in zip(batch.audio, batch.audio_lengths.tolist(), learned, strict=True):
            asked = [name for name, yes in zip(TEACHERS, wanted, strict=True) if yes and name in teachers]
            rows.append({name: teachers[name].answer(wave[:length]) for name in asked})
        asked_any = {name: each for name, each in teachers.items() if any(name in row for row in rows)}
        shapes = {name: answer_shape(each.width, each.rate) for name, each in asked_any.items()}
        return with_answers(batch, rows, shapes).to(batch.audio.device)

    def _open_teachers(self, device: torch.device) -> dict[str, Teacher]:
        """They are no part of the model: neither saved nor trained."""
        named = {name: getattr(self.config.teachers, name) for name in TEACHERS}
        if not any(named.values()):
            raise ValueError("teachers: none is named, and the source has no stored answers; set model.teachers, or the source's teachers.")
        if not self._teachers:
            self._teachers = {name: open_teacher(name, place, device) for name, place in named.items() if place is not None}
        return self._teachers


def _mean(layers: list[Tensor]) -> Tensor:
    return torch.stack(layers).mean(0) if len(layers) > 1 else layers[0]


def _by_clips(found: dict[str, Loss], clips: int, penalty: Tensor | None) -> dict[str, Loss]:
    """Losses that are divided by clips, all of them together: the first one counts them, and has the encoder's penalty."""
    counted = {}
    for place, (name, loss) in enumerate(found.items()):
        value = loss.value if penalty is None or place else loss.value + penalty
        counted[name] = Loss(value, loss.count.new_tensor(clips if place == 0 else 0), loss.logs)
    return counted
