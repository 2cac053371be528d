"""What SpeechLM and SpeechUT share: speech and text that meet as discrete units (Zhang et al., arXiv 2209.15329 and 2210.03730).

What is unusual here:
- Two encoders in a row. The first one hears speech. The second, the unit encoder, goes on from what the first says of frames, or reads
  embeddings of units, and gives both positions of its own.
- In pre-training some frames that are not hidden enter the unit encoder as the embeddings of their units.
- Which frames the unit encoder takes as padding follows from the units of a batch, not from its samples; without units from the samples.
- CTC looks at pairs of neighbouring frames through a convolution and puts out one frame more than it is given. No loss looks at that one.
- Vectors of units that frames are compared with are the embeddings themselves where both have the same width; then frames are projected
  before they enter the unit encoder. Released models have other widths, and frames enter as they are.

Over 400 lines, because the configuration and both kinds of training are the same in the two systems.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from avtlm.data.batching import Batch
from avtlm.data.inputs import InputFormat
from avtlm.frontends.filterbank import SAMPLE_RATE
from avtlm.frontends.multimodal import InputMask
from avtlm.nn.attention import padding_mask
from avtlm.nn.dropout import Dropout
from avtlm.nn.transformer import Decoder, DecoderConfig, EncoderConfig
from avtlm.nn.unit_encoder import LetterHead, UnitEncoder, UnitEncoderConfig
from avtlm.objectives.ctc import ctc_loss
from avtlm.objectives.loss import Loss
from avtlm.objectives.masked_prediction import UnitPredictor, inventories, masked_prediction_loss
from avtlm.objectives.masking import SpanMaskConfig, span_mask
from avtlm.objectives.seq2seq import seq2seq_loss, shift_right
from avtlm.systems.speech_encoder import Heard, SpeechEncoder, SpeechEncoderConfig
from avtlm.text.vocabulary import BLANK, EOS, PAD, SPECIALS

NORM_FLOOR = 1e-12  # of norms in the official cosine; embeddings that frames are compared with may hold a row of zeros, that of padding


@dataclass(frozen=True)
class BridgeLosses:
    """What counts how much; the defaults are those of pre-training. A weight of 0 leaves a loss out.

    Attributes:
        masked, visible: of the units of hidden and of other frames, at both depths.
        feature_penalty: of the mean square of the convolutions' output.
        distance: of what frames are apart from their units' embeddings, where they enter the unit encoder.
        ctc: of the letters that units (in pre-training) or speech stand for.
        attention: of the same letters, or of a translation, written by the decoder.
        label_smoothing: of what the decoder writes.
        divisor: what fine-tuning divides its losses by: ``sentences`` (recognition), or ``tokens`` with their ends (translation).
    """

    masked: float = 1.0
    visible: float = 0.0
    feature_penalty: float = 10.0
    distance: float = 0.0
    ctc: float = 0.1
    attention: float = 0.1
    label_smoothing: float = 0.1
    divisor: Literal["sentences", "tokens"] = "sentences"


@dataclass(frozen=True)
class BridgeConfig(SpeechEncoderConfig):
    """The parts of both systems; the defaults are those of the base models.

    Attributes:
        task: ``pretrain`` learns from batches of speech with units and of units with letters, ``recognition`` to write what was said.
        unit_encoder: the second encoder, as wide as the first.
        units: classes and embeddings of units: clusters or phones, 4 special symbols before them, ``<mask>`` behind.
        further_units: classes of a second kind of units, which the second depth predicts in place of the first kind; at most one.
        final_dim: width in which frames and units are compared; 0 for that of the encoder.
        temperature: divides their cosine.
        unit_glu: units pass a gated linear layer before they are compared.
        label_rate: units per second of speech, at least one for every frame.
        swap: spans of frames that units' embeddings replace, those that are hidden excepted; ``prob: 0`` for none.
        swap_predicted: replace them by embeddings of the units that the first depth takes them for.
        vocabulary: symbols of text: 4 special ones, letters, ``<mask>``.
        text_mask: false where the symbols of text end without ``<mask>``, as those of official translations.
        ctc_head: ``own`` or ``none``.
        ctc_kernel: of its convolution, which moves by half of it; 0 for a linear layer alone.
        final_dropout: between the encoders and what writes text, in fine-tuning.
        decoder: writes letters or translations; null for none.
        freeze_encoder_steps: train the heads alone for so many steps.
    """

    encoder: EncoderConfig = field(
        default_factory=lambda: EncoderConfig(layers=6, heads=8, norm_first=False, layer_drop=0.1, key_distance=160)
    )
    mask: SpanMaskConfig = field(default_factory=SpanMaskConfig)
    task: Literal["pretrain", "recognition"] = "pretrain"
    unit_encoder: UnitEncoderConfig = field(default_factory=UnitEncoderConfig)
    units: int = 505
    further_units: tuple[int, ...] = ()
    final_dim: int = 256
    temperature: float = 0.1
    unit_glu: bool = False
    label_rate: float = 50.0
    swap: SpanMaskConfig = field(default_factory=lambda: SpanMaskConfig(prob=0.4, length=5))
    swap_predicted: bool = False
    vocabulary: int = 33
    text_mask: bool = True
    ctc_head: Literal["own", "none"] = "own"
    ctc_kernel: int = 2
    final_dropout: float = 0.0
    decoder: DecoderConfig | None = None
    losses: BridgeLosses = field(default_factory=BridgeLosses)
    freeze_encoder_steps: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.adapter is not None:
            raise ValueError("adapter: the unit encoder reads 50 frames a second; set null.")
        if self.unit_encoder.dim != self.encoder.dim:
            raise ValueError(f"unit_encoder.dim: {self.unit_encoder.dim}, but encoder.dim is {self.encoder.dim}; give both the same width.")
        if min(self.units, *self.further_units, self.units) < 6 or len(self.further_units) > 1:
            raise ValueError(
                f"units: {self.units}, further_units: {list(self.further_units)}; give 4 special symbols, <mask> and at least one unit, "
                "and at most one further kind."
            )
        if self.vocabulary < 6:
            raise ValueError(f"vocabulary: {self.vocabulary}; there are 4 special symbols, <mask> and letters, so give at least 6.")
        if self.labels_per_frame < 1:
            raise ValueError(
                f"label_rate: {self.label_rate:g} units per second for {self.waveform.frame_rate:g} frames per second of the model; every "
                "frame needs a unit, so give at least as many units."
            )
        if self.ctc_kernel < 0 or self.ctc_kernel == 1:
            raise ValueError(f"ctc_kernel: {self.ctc_kernel}; give at least 2, or 0 for no convolution.")
        if self.ctc_head == "none" and self.task == "recognition" and self.decoder is None:
            raise ValueError("ctc_head: none in a model without decoder, which could write nothing; set own, or give it a decoder.")

    # What fine-tuning counts, CTC's loss and the decoder's.
    tuned: ClassVar[dict[str, float]] = {}

    @classmethod
    def of_task(cls, task: str) -> dict[str, Any]:
        """Settings that a run's task makes of these; fine-tuning writes what was said.

        Raises:
            ValueError: a task that the systems are not made for.
        """
        if task == "pretrain":
            return {"task": task}
        if task == "transcription":
            return {"task": "recognition", "losses": dict(cls.tuned)}
        raise ValueError(f"task: {task} for {cls.name}, which writes text alone; choose pretrain or transcription.")

    # How a run makes a model; see avtlm.protocols.WholeConfig.
    name: ClassVar[str] = "unit_bridge"
    inputs: ClassVar[tuple[str, ...]] = ("speech", "units")
    speakers: ClassVar[int] = 0
    further_symbols: ClassVar[tuple[str, ...]] = ("<mask>",)
    vocabulary_parts: ClassVar[tuple[str, ...]] = ("decoder.embedding", "decoder.output", "ctc.output")
    optional_parts: ClassVar[tuple[str, ...]] = ("ctc", "decoder")
    speaker_parts: ClassVar[tuple[str, ...]] = ()

    @property
    def has_text(self) -> bool:
        return True

    @property
    def mask_id(self) -> int | None:
        """``<mask>``, which no text holds."""
        return self.vocabulary - 1 if self.text_mask else None

    @property
    def blank(self) -> int:
        """CTC's."""
        return BLANK

    @property
    def width(self) -> int:
        """In which frames and units are compared."""
        return self.final_dim or self.encoder.dim

    @property
    def projects(self) -> bool:
        """Whether frames are projected before they enter the unit encoder, among the embeddings that they are compared with."""
        return self.width == self.encoder.dim

    @property
    def labels_per_frame(self) -> float:
        return self.label_rate * self.waveform.hop / SAMPLE_RATE


@dataclass(frozen=True)
class Drawn:
    """What chance decides about speech in pre-training, so that a stored case can be replayed.

    Attributes:
        mask: hidden frames.
        swap: frames that may be replaced by their units, bool (batch, frames); None for none.
        offset: which of the units of a frame is its label.
    """

    mask: InputMask
    swap: Tensor | None = None
    offset: int = 0


@dataclass(frozen=True)
class Crossing:
    """Speech on its way through both encoders.

    Attributes:
        units: the unit of every frame, int (batch, frames), of every kind.
        hidden: frames that were hidden, bool (batch, frames).
        spoken: what the first encoder says, (batch, frames, dim).
        tokens: the units that frames may enter as, int (batch, frames), PAD where there is none.
        swapped: frames that they replaced, bool (batch, frames).
        entered: what the unit encoder is given, ``entered_lengths`` (batch,) of it valid but for ``gaps``, see UnitEncoder.forward.
        encoded: what it says.
        distance: see BridgeLosses; a mean over hidden frames.
    """

    heard: Heard
    units: list[Tensor]
    hidden: Tensor
    spoken: Tensor
    tokens: Tensor
    swapped: Tensor
    entered: Tensor
    entered_lengths: Tensor
    gaps: Tensor | None
    encoded: Tensor
    distance: Tensor


class UnitBridge(SpeechEncoder):
    """Both encoders, the embeddings of units, CTC, and maybe a decoder; a system adds what it predicts units with at the second depth.

    Initialisation: see SpeechEncoder, UnitEncoder, UnitPredictor, LetterHead, Decoder; embeddings of units N(0, dim^-0.5) with a zero row
    of padding, or those of UnitPredictor where frames are compared with them.
    """

    config: Any  # a BridgeConfig

    def __init__(self, config: BridgeConfig) -> None:
        super().__init__(config)
        dim = config.encoder.dim
        self.unit_encoder = UnitEncoder(config.unit_encoder)
        self.ctc = LetterHead(dim, config.vocabulary, config.ctc_kernel) if config.ctc_head == "own" else None
        self.dropout = Dropout(config.final_dropout)
        self.decoder = None if config.decoder is None else Decoder(config.decoder, config.vocabulary, dim, PAD)
        self.entrance = nn.Linear(dim, dim) if config.projects else None
        self.unit_embedding: nn.Embedding | None = None
        self.predictor: UnitPredictor | None = None
        if config.task == "pretrain":
            self.unit_embedding = nn.Embedding(config.units, dim, padding_idx=PAD)
            nn.init.normal_(self.unit_embedding.weight, 0.0, dim**-0.5)
            nn.init.zeros_(self.unit_embedding.weight[PAD])
            self.predictor = UnitPredictor(dim, config.units, config.width, config.temperature, glu=config.unit_glu, floor=NORM_FLOOR)
            if self.entrance is not None:
                self.predictor.project = self.entrance
                nn.init.uniform_(self.unit_embedding.weight)
                assert isinstance(self.unit_embedding.weight, nn.Parameter)
                self.predictor.units = self.unit_embedding.weight
        self._frozen = False

    @property
    def input_format(self) -> InputFormat:
        """Waveforms, and units behind four special symbols."""
        return dataclasses.replace(super().input_format, first_unit=len(SPECIALS))

    @property
    def label_rate(self) -> float:
        """Units per second in a batch."""
        rate: float = self.config.label_rate
        return rate

    @property
    def inventory(self) -> dict[str, int]:
        """Units that are predicted; there are no phones in batches of their own."""
        further = {f"units_{number}": size for number, size in enumerate(self.config.further_units, 1)}
        return {"units": self.config.units, **further, "phones": 0}

    def drop_heads(self) -> None:
        """Remove what only pre-training needs."""
        self.predictor = self.unit_embedding = None

    def start_step(self, step: int, steps: int) -> None:
        """Let go of the encoders when their time has come."""
        del steps
        self._frozen = step < self.config.freeze_encoder_steps

    # Encoders ------------------------------------------------------------------------------------------------------------------------

    def enter(self, spoken: Tensor, padding: Tensor) -> Tensor:
        """What the first encoder says, as the unit encoder is given it; zeros at padding."""
        x = spoken if self.entrance is None else self.entrance(spoken)
        return x.masked_fill(padding[..., None], 0.0)

    def encode(
        self, batch: Batch, output_layer: int | None = None, mask: InputMask | None = None, keep: dict[str, Tensor] | None = None
    ) -> tuple[Tensor, Tensor]:
        """Speech through both encoders; see SpeechEncoder.encode.

        Args:
            output_layer: counts through both: those of the unit encoder come after those of the first one.
        """
        del keep
        first = self.config.encoder.layers
        layers = first + self.config.unit_encoder.layers
        if output_layer is not None and not 1 <= output_layer <= layers:
            raise ValueError(f"output_layer: {output_layer} is not between 1 and {layers}, the number of layers of both encoders.")
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self._frozen):
            heard = self.hear(batch)
            seen = self.hide(heard.projected, mask)
            if output_layer is not None and output_layer <= first:
                return self.encoder(seen, heard.lengths, output_layer), heard.lengths
            entered = self.enter(self.encoder(seen, heard.lengths), heard.padding)
            layer = None if output_layer is None else output_layer - first
            encoded = self.unit_encoder(entered, heard.lengths, layer)
            if self.config.ctc_kernel > 2 and self.config.unit_encoder.compute_padding:
                return encoded, heard.lengths  # CTC looks at the first frame of padding in official training
            return encoded.masked_fill(heard.padding[..., None], 0.0), heard.lengths  # padding is to CTC as the end of a clip

    def hidden_states(self, batch: Batch) -> tuple[list[Tensor], Tensor]:
        """What every layer of both encoders puts out, one after the other, (batch, frames, dim) each, and lengths (batch,).

        These are the layers that SUPERB weighs; a final norm of pre-norm layers is not among them.
        """
        heard = self.hear(batch)
        spoken = self.encoder.hidden_states(self.hide(heard.projected, None), heard.lengths, len(self.encoder.layers))[1:]
        last = self.encoder.norm(spoken[-1]) if self.config.encoder.norm_first else spoken[-1]
        return [*spoken, *self.unit_encoder.hidden_states(self.enter(last, heard.padding), heard.lengths)[1:]], heard.lengths

    def embed_units(self, units: Tensor, mask: Tensor | None = None) -> Tensor:
        """Embeddings of units (batch, length), the vector of hidden frames where ``mask`` hides them: (batch, length, dim).

        Raises:
            ValueError: a unit that there is none of.
        """
        assert self.unit_embedding is not None, "a model without units was given some"
        highest = int(units.max()) if units.numel() else 0
        if highest >= self.config.units:
            raise ValueError(f"units: there is a unit {highest}, but the model knows {self.config.units}, counted from 0; see model.units.")
        x: Tensor = self.unit_embedding(units)
        return x if mask is None else torch.where(mask[..., None], self.feature_mask.to(x.dtype), x)

    def read_units(self, units: Tensor, mask: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Units, padded with PAD, through the unit encoder: (batch, length, dim) and lengths (batch,)."""
        lengths = (units != PAD).sum(1)
        return self.unit_encoder(self.embed_units(units, mask), lengths), lengths

    def ctc_logits(self, encoded: Tensor) -> Tensor:
        """(batch, frames, dim) -> (batch, frames and one more, vocabulary); see LetterHead for other kernels than 2."""
        assert self.ctc is not None, "a model without CTC was asked for it"
        out: Tensor = self.ctc(encoded)
        return out

    def ctc_frames(self, lengths: Tensor) -> Tensor:
        """Frames of CTC's logits for so many of the encoder's, (batch,)."""
        assert self.ctc is not None, "a model without CTC was asked for it"
        return self.ctc.all_frames(lengths)

    @property
    def ctc_stride(self) -> int:
        """Frames of the encoder for each of CTC's."""
        return 1 if self.ctc is None else self.ctc.stride

    # Pre-training on speech ----------------------------------------------------------------------------------------------------------

    def draw(self, batch: Batch, generator: torch.Generator) -> Drawn:
        """What to hide and to swap of a batch of speech; the generator is a CPU one."""
        config = self.config
        mask = self.draw_masks(batch, generator)
        assert mask.fused is not None
        assert batch.audio is not None
        assert batch.audio_lengths is not None
        width = mask.fused.shape[1]
        lengths = config.waveform.valid_frames(batch.audio_lengths.cpu(), batch.audio.shape[1], max(width, 1))
        swap = span_mask(lengths, width, config.swap, generator, config.same_mask_count).to(mask.fused.device) if config.swap.prob else None
        choices = int(config.labels_per_frame)
        return Drawn(mask, swap, int(torch.randint(choices, (), generator=generator)) if choices > 1 else 0)

    def draw_hidden_units(self, units: Tensor, generator: torch.Generator) -> Tensor:
        """Which units of a text to hide, by the spans that hide frames of speech: bool like ``units`` (batch, length)."""
        lengths = (units != PAD).sum(1).cpu()
        return span_mask(lengths, units.shape[1], self.config.mask, generator, self.config.same_mask_count).to(units.device)

    def units_of(self, batch: Batch, offset: int = 0) -> list[Tensor]:
        """The units of those frames of a batch of speech that have any, (batch, frames) of each kind.

        Raises:
            ValueError: there are none.
        """
        config = self.config
        kinds = inventories(batch.targets, 1 + len(config.further_units), batch.ids[0])
        assert batch.audio is not None
        frames, rate = int(config.waveform.frames(torch.tensor(batch.audio.shape[1]))), config.labels_per_frame
        if rate * frames > kinds[0].shape[1]:
            frames = int(kinds[0].shape[1] / rate)
        places = (torch.arange(frames, device=kinds[0].device).float() * rate).long() + offset
        return [kind[:, places] for kind in kinds]

    def cross(self, batch: Batch, drawn: Drawn) -> Crossing:
        """Speech through both encoders, some of its frames hidden and some replaced by their units."""
        units = self.units_of(batch, drawn.offset)
        heard = self.hear(batch, units[0].shape[1])
        hidden = self.hidden_frames(heard, drawn.mask)
        spoken = self.encoder(self.hide(heard.projected, drawn.mask), heard.lengths)
        tokens = self._taken_for(spoken, heard) if self.config.swap_predicted else units[0].masked_fill(units[0] < 0, PAD)
        embedded = self.embed_units(tokens)
        entered = spoken if self.entrance is None else self.entrance(spoken)
        distance = spoken.new_zeros(())
        if self.config.losses.distance:
            unit = embedded[hidden].float()
            distance = ((entered[hidden].float() - unit).square().mean(-1) / unit.square().sum(-1)).mean()
        swapped = torch.zeros_like(hidden) if drawn.swap is None else drawn.swap[:, : hidden.shape[1]].to(hidden.device) & ~hidden
        entered = torch.where(swapped[..., None], embedded.to(entered.dtype), entered).masked_fill(heard.padding[..., None], 0.0)
        predicted = self.config.swap_predicted  # among which padding may stand anywhere
        lengths = heard.lengths if predicted else (tokens != PAD).sum(1)
        gaps = (tokens == PAD) & ~heard.padding & (tokens != PAD).any(1, keepdim=True) if predicted else None
        encoded = self.unit_encoder(entered, lengths, gaps=gaps)
        return Crossing(heard, units, hidden, spoken, tokens, swapped, entered, lengths, gaps, encoded, distance)

    def _taken_for(self, spoken: Tensor, heard: Heard) -> Tensor:
        """The units that the first depth takes frames for, PAD at padding."""
        assert self.predictor is not None
        with torch.no_grad():
            found = self.predictor(spoken.flatten(0, 1)).argmax(-1).view(spoken.shape[:2])
        return found.masked_fill(heard.padding, PAD)

    def frame_losses(self, crossing: Crossing, predictor: nn.Module) -> dict[str, Loss]:
        """Units of hidden frames at both depths, which count alike, and the extra losses.

        Args:
            predictor: of the second depth; the first one has `predictor`.
        """
        assert self.predictor is not None, "a model without its heads cannot be trained further"
        weights = self.config.losses
        frames = (crossing.hidden, crossing.heard.padding, weights.masked, weights.visible)
        first = masked_prediction_loss(self.predictor, crossing.spoken, crossing.units[0], *frames)
        second = masked_prediction_loss(predictor, crossing.encoded, crossing.units[-1], *frames)
        # Where visible frames count as well, sums are divided by the mean of both numbers of frames.
        count = first.count / 2 if weights.masked > 0 and weights.visible > 0 else first.count
        return {
            "masked_prediction": dataclasses.replace(first, count=count),
            "shared_masked_prediction": Loss(second.value, torch.zeros_like(count), second.named("shared_")),
            **self.extra_losses(crossing, count),
        }

    def extra_losses(self, crossing: Crossing, count: Tensor) -> dict[str, Loss]:
        """The penalty on the size of features, and how far frames are from their units, times ``count`` frames."""
        weights, zero = self.config.losses, torch.zeros_like(count)
        found = {"feature_penalty": self.feature_penalty(crossing.heard, weights.feature_penalty, count)}
        if weights.distance:
            logs = {"unit_distance": (crossing.distance.detach(), zero + 1)}
            found["unit_distance"] = Loss(weights.distance * crossing.distance * count, zero, logs)
        return found

    def combine(self, batches: Sequence[Batch], losses: Sequence[dict[str, Loss]]) -> list[dict[str, Loss]]:
        """Let what is learned from units and letters count by its mean, times the frames of speech that are in the loss of the step."""
        if self.config.task != "pretrain":
            return list(losses)
        spoken = [loss.count for batch, group in zip(batches, losses, strict=True) if batch.audio is not None for loss in group.values()]
        frames = torch.stack(spoken).sum() if spoken else None
        counts: dict[str, Tensor] = {}
        for batch, group in zip(batches, losses, strict=True):
            for name, loss in group.items() if batch.audio is None else ():
                counts[name] = counts.get(name, torch.zeros_like(loss.count)) + loss.count
        found: list[dict[str, Loss]] = []
        for batch, group in zip(batches, losses, strict=True):
            if batch.audio is not None:
                found.append(group)
                continue
            shared: dict[str, Loss] = {}
            for name, loss in group.items():
                # A step without speech is divided by 1.
                alone = frames is None and not found and not shared
                count = torch.full_like(loss.count if frames is None else frames, int(alone))
                share = (1 if frames is None else frames) / counts[name].clamp(min=1)
                shared[name] = Loss(loss.value * share, count, loss.logs)
            found.append(shared)
        return found

    # Letters -------------------------------------------------------------------------------------------------------------------------

    def letter_loss(self, encoded: Tensor, lengths: Tensor, letters: Tensor, counts: Tensor) -> Loss:
        """CTC's sum over letters (batch, symbols) of ``counts`` each, without end symbol; its count takes an end symbol in."""
        assert self.ctc is not None, "a model without CTC was asked for it"
        loss = ctc_loss(self.ctc(encoded), self.ctc.frames(lengths), letters, counts, BLANK)
        return dataclasses.replace(loss, count=loss.count + len(counts))

    def written_loss(self, encoded: Tensor, lengths: Tensor, letters: Tensor, counts: Tensor) -> Loss:
        """The decoder's cross-entropy of the same letters and of their end."""
        assert self.decoder is not None, "a model without decoder was asked for it"
        ended = torch.cat([letters, letters.new_full((len(letters), 1), PAD)], 1)
        ended = ended.masked_fill(padding_mask(counts, ended.shape[1]), PAD).scatter(1, counts[:, None], EOS)
        logits = self.decoder(shift_right(ended, EOS, PAD), encoded, lengths)
        return seq2seq_loss(logits, ended, PAD, self.config.losses.label_smoothing)

    def recognition_losses(self, batch: Batch, mask: InputMask | None = None) -> dict[str, Loss]:
        """Fine-tuning to write ``targets.tokens``, which have no end symbol, by CTC and attention; see BridgeLosses.divisor."""
        weights = self.config.losses
        encoded, lengths = self.encode(batch, mask=mask)
        encoded = self.dropout(encoded)
        tokens, counts = batch.targets["tokens"], batch.target_lengths["tokens"]
        count = counts.new_tensor(len(batch)) if weights.divisor == "sentences" else counts.sum() + len(batch)
        found: dict[str, Loss] = {}
        if self.decoder is not None and weights.attention:
            loss = self.written_loss(encoded, lengths, tokens, counts)
            found["attention"] = Loss(weights.attention * loss.value, count, loss.logs)
        if self.ctc is not None and weights.ctc:
            loss = self.letter_loss(encoded, lengths, tokens, counts)
            found["ctc"] = Loss(weights.ctc * loss.value, torch.zeros_like(count) if found else count, loss.logs)
        return found
