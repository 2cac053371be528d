"""MMSpeech: Mandarin recognition that learns from speech, from text and from pairs of them at once (Zhou et al., arXiv 2212.00500).

What is unusual here:
- Phonemes are the bridge. The lower layers of the encoder hear speech alone; the upper ones hear what those say, or read the phonemes of a
  text. The table that embeds phonemes names them, too: a frame's logits are its products with rows of the table, of which that of ``<unk>``
  is CTC's blank.
- Five tasks share all of it: speech to text (s2t) and to phonemes (pp) with pairs, noised phonemes to text (p2t) with text, speech to codes
  (s2c) and the agreement of masked with unmasked speech on phonemes (msp) with speech.
- The decoder attends by positions, too: those of the encoder are what its positional convolutions put out (avtlm/nn/biased_decoder.py).
- Losses are sums; those of all batches of a step are divided by their sentences.
- The teacher of msp is the model itself as it is. Its logits are read before the last norm of a pre-norm encoder, the student's behind it,
  and the student's table gets no gradient; so it is in the official code.
- The official code lets padding change what comes out: ``subsampling.official_lengths`` and ``compute_padding`` bring that back.

The paper's text was not at hand; what is here follows the official code, whose label smoothing is without effect and left out.

Over 400 lines, because five tasks share these nets.
"""

from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from avtlm.data.batching import Batch, pad
from avtlm.data.inputs import InputFormat
from avtlm.frontends.filterbank import SAMPLE_RATE, STEP
from avtlm.frontends.multimodal import InputMask
from avtlm.frontends.subsampling import LEAST_SAMPLES, SubsamplingConfig, SubsamplingFrontEnd
from avtlm.nn.attention import padding_mask
from avtlm.nn.biased_decoder import BiasedDecoder, BiasedDecoderConfig
from avtlm.nn.dropout import Dropout
from avtlm.nn.positions import PositionalConvolution, StackedPositionalConvolution
from avtlm.nn.transformer import Encoder, EncoderConfig
from avtlm.objectives.ctc import ctc_loss
from avtlm.objectives.loss import Loss
from avtlm.objectives.masking import SpanMaskConfig, span_mask
from avtlm.objectives.phone_noise import PhoneNoiseConfig, noise_phones
from avtlm.objectives.seq2seq import seq2seq_loss, shift_right
from avtlm.text.vocabulary import BOS, EOS, PAD, SPECIALS, UNKNOWN

FRAME_RATE = SAMPLE_RATE / (4 * STEP)  # Hz, behind the convolutions
FIRST_PHONE = len(SPECIALS)


@dataclass(frozen=True)
class MMSpeechLosses:
    """What each task counts; 0 leaves one out. See the module's docstring for their names."""

    s2t: float = 1.0
    pp: float = 1.0
    p2t: float = 1.0
    s2c: float = 1.0
    msp: float = 1.0


@dataclass(frozen=True)
class MMSpeechConfig:
    """The defaults are the base model.

    Attributes:
        task: ``pretrain`` learns from all three kinds of batches, ``recognition`` from pairs (and text).
        speech_layers: layers of the encoder that hear speech alone.
        position_kernel, position_groups, position_blocks: of the positional convolutions, one for speech and one for phonemes; one block is
            that of wav2vec 2.0, several are data2vec's stack. (``encoder.position_kernel`` is 0.)
        compute_padding: let stacked convolutions see padding, as the official code.
        vocabulary: symbols of text, in the order of fairseq's dictionary: special symbols, text, ``<mask>``, ``<blank>``.
        codes: of speech, behind the symbols of text in the decoder's table; 0 for none.
        phones: what can be said; the table has the four special symbols before them, ``<mask>`` and ``spare_phones`` behind.
        phone_classes: logits of a frame, the blank and phones; null for all phones.
        label_rate: units per second, of which codes are made by merging runs.
        mask: hidden spans of speech alone. The released collater hides one span a clip, which a ``prob`` just above 0 does.
        paired_mask: hidden spans of speech with a transcript, in training.
        channel_mask: spans of channels that are zero in all frames, wherever frames are hidden.
        input_dropout: before frames are hidden.
        same_mask_count: hide equally many frames of every clip of a batch.
    """

    subsampling: SubsamplingConfig = field(default_factory=SubsamplingConfig)
    encoder: EncoderConfig = field(default_factory=lambda: EncoderConfig(attention_dropout=0.0, position_kernel=0))
    decoder: BiasedDecoderConfig = field(default_factory=BiasedDecoderConfig)
    task: Literal["pretrain", "recognition"] = "pretrain"
    speech_layers: int = 6
    position_kernel: int = 95
    position_groups: int = 16
    position_blocks: int = 5
    compute_padding: bool = False
    vocabulary: int = 21134
    codes: int = 30000
    phones: int = 120
    spare_phones: int = 16
    phone_classes: int | None = None
    label_rate: float = 50.0
    mask: SpanMaskConfig = field(default_factory=lambda: SpanMaskConfig(prob=0.7, min_spans=1))
    paired_mask: SpanMaskConfig = field(default_factory=lambda: SpanMaskConfig(prob=0.3, min_spans=1))
    channel_mask: SpanMaskConfig = field(default_factory=lambda: SpanMaskConfig(prob=0.0, min_spans=0))
    input_dropout: float = 0.0
    same_mask_count: bool = True
    noise: PhoneNoiseConfig = field(default_factory=PhoneNoiseConfig)
    losses: MMSpeechLosses = field(default_factory=MMSpeechLosses)

    def __post_init__(self) -> None:
        if self.encoder.position_kernel or self.encoder.relative_buckets or self.encoder.key_distance or self.encoder.experts:
            raise ValueError(
                "encoder: set position_kernel, relative_buckets and key_distance to 0 and experts to none, since positions stand before "
                "its encoder, see position_kernel."
            )
        if not 0 < self.speech_layers < self.encoder.layers:
            raise ValueError(
                f"speech_layers: {self.speech_layers} of {self.encoder.layers} layers; give at least 1, and fewer than the encoder has."
            )
        if self.decoder.dim != self.encoder.dim:
            raise ValueError(f"decoder.dim: {self.decoder.dim}, but encoder.dim is {self.encoder.dim}; give both the same width.")
        if self.vocabulary < 7 or self.codes < 0 or self.phones < 1 or self.spare_phones < 0:
            raise ValueError(
                f"vocabulary: {self.vocabulary}, codes: {self.codes}, phones: {self.phones}, spare_phones: {self.spare_phones}; give at "
                "least 7 (4 special symbols, text, <mask>, <blank>), 0, 1 and 0."
            )
        if self.phone_classes is not None and not 2 <= self.phone_classes <= self.phone_rows - UNKNOWN:
            raise ValueError(
                f"phone_classes: {self.phone_classes}; give at least 2 (a blank and a phone), and at most the {self.phone_rows - UNKNOWN} "
                "rows of the table from the blank on."
            )

    # How a run makes a model; see avtlm.protocols.WholeConfig.
    inputs: ClassVar[tuple[str, ...]] = ("speech", "units")
    speakers: ClassVar[int] = 0
    further_symbols: ClassVar[tuple[str, ...]] = ("<mask>", "<blank>")
    vocabulary_parts: ClassVar[tuple[str, ...]] = ("decoder.embedding", "decoder.output")
    optional_parts: ClassVar[tuple[str, ...]] = ()
    speaker_parts: ClassVar[tuple[str, ...]] = ()
    ctc_head: ClassVar[str] = "none"  # over symbols of text
    start: ClassVar[int] = BOS  # what stands before a text

    @classmethod
    def of_task(cls, task: str) -> dict[str, Any]:
        """Fine-tuning has no codes.

        Raises:
            ValueError: a task that it is not made for.
        """
        if task == "pretrain":
            return {"task": task}
        if task == "transcription":
            return {"task": "recognition", "codes": 0}
        raise ValueError(f"task: {task} for mmspeech, which writes text alone; choose pretrain or transcription.")

    @property
    def search(self) -> dict[str, Any]:
        """How the official code searches: settings of avtlm.decoding.settings.DecodingConfig."""
        return {"method": "attention", "beam": 5, "max_length_ratio": 0.0, "max_length_extra": 256.0, "no_repeat_ngram": 5}

    @property
    def has_text(self) -> bool:
        return True

    @property
    def mask_id(self) -> int:
        """``<mask>`` of texts, which none holds."""
        return self.vocabulary - 2

    @property
    def blank(self) -> int:
        """``<blank>`` of texts, which none holds; that of phonemes is the first of their classes."""
        return self.vocabulary - 1

    @property
    def phone_mask(self) -> int:
        """``<mask>`` of phonemes."""
        return FIRST_PHONE + self.phones

    @property
    def phone_rows(self) -> int:
        """Of the table of phonemes."""
        return FIRST_PHONE + self.phones + 1 + self.spare_phones


@dataclass(frozen=True)
class Heard:
    """Speech behind the front-end.

    Attributes:
        frames: (batch, frames, dim).
        lengths: valid frames, (batch,).
    """

    frames: Tensor
    lengths: Tensor

    @property
    def padding(self) -> Tensor:
        """True where a frame is padding, (batch, frames)."""
        return padding_mask(self.lengths, self.frames.shape[1])


@dataclass(frozen=True)
class Read:
    """Speech or phonemes behind the encoder.

    Attributes:
        states: what it says, (batch, frames, dim).
        places: what its positional convolution put out, like ``states``.
        lengths: valid frames, (batch,).
    """

    states: Tensor
    places: Tensor
    lengths: Tensor

    @property
    def memory(self) -> Tensor:
        """What the decoder attends to, (batch, frames, 2 x dim)."""
        return torch.cat([self.states, self.places.to(self.states.dtype)], -1)


class MMSpeech(nn.Module):
    """Front-end, encoder for speech and phonemes, decoder for text and codes.

    Initialisation: see SubsamplingFrontEnd, Encoder, BiasedDecoder; phonemes N(0, dim^-0.5) with a zero row of padding, the vector of
    hidden frames uniform(0, 1), positional convolutions see positions.py.
    """

    def __init__(self, config: MMSpeechConfig) -> None:
        super().__init__()
        self.config = config
        dim = config.encoder.dim
        self.frontend = SubsamplingFrontEnd(config.subsampling, dim)
        self.feature_mask = nn.Parameter(torch.rand(dim))
        self.dropout = Dropout(config.input_dropout)
        self.speech_positions, self.phone_positions = self._positions(), self._positions()
        self.phone_embedding = nn.Embedding(config.phone_rows, dim, padding_idx=PAD)
        nn.init.normal_(self.phone_embedding.weight, 0.0, dim**-0.5)
        nn.init.zeros_(self.phone_embedding.weight[PAD])
        self.encoder = Encoder(config.encoder)
        self.decoder = BiasedDecoder(config.decoder, config.vocabulary + config.codes, dim, PAD, written=config.vocabulary)

    def _positions(self) -> PositionalConvolution | StackedPositionalConvolution:
        config, dim = self.config, self.config.encoder.dim
        if config.position_blocks == 1:
            return PositionalConvolution(dim, config.position_kernel, config.position_groups)
        return StackedPositionalConvolution(
            dim, config.position_kernel, config.position_groups, config.position_blocks, config.compute_padding
        )

    @property
    def dim(self) -> int:
        """Width of the encoder's output."""
        return self.config.encoder.dim

    @property
    def input_format(self) -> InputFormat:
        """Waveforms, and units behind four special symbols."""
        return InputFormat(
            audio_normalise="none",
            video_size=None,
            label_rate=self.config.label_rate,
            waveform=True,
            frame_rate=FRAME_RATE,
            shortest=LEAST_SAMPLES,
            first_unit=FIRST_PHONE,
        )

    @property
    def label_rate(self) -> float:
        """Units per second in a batch."""
        return self.config.label_rate

    @property
    def inventory(self) -> dict[str, int]:
        """Codes that speech is written in and phonemes of texts, counted behind special symbols as labels are; none is given with times."""
        return {"units": FIRST_PHONE + self.config.codes, "text_units": self.config.phone_mask, "phones": 0}

    def drop_heads(self) -> None:
        """Remove what only pre-training needs: codes."""
        decoder, symbols = self.decoder, self.config.vocabulary
        embedding = nn.Embedding(symbols, self.dim, padding_idx=PAD)
        embedding.weight = nn.Parameter(decoder.embedding.weight.detach()[:symbols].clone())
        decoder.embedding = embedding
        if decoder.output is not None:
            output = nn.Linear(self.dim, symbols, bias=False)
            output.weight = nn.Parameter(decoder.output.weight.detach()[:symbols].clone())
            decoder.output = output

    # Encoder -------------------------------------------------------------------------------------------------------------------------

    def features(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Filter banks of a batch's sound (batch, frames, bands), and the valid frames of each clip (batch,).

        Raises:
            ValueError: no sound, or none as a waveform.
        """
        with torch.no_grad():
            return self.frontend.features(*batch.waveforms())

    def hear(self, batch: Batch) -> Heard:
        """Run the front-end, see `features`."""
        return self.hear_features(*self.features(batch))

    def hear_features(self, features: Tensor, lengths: Tensor) -> Heard:
        """Filter banks (batch, frames, bands) of so many valid frames (batch,) behind the front-end."""
        return Heard(*self.frontend(features, lengths))

    def hide(self, heard: Heard, mask: InputMask | None) -> Tensor:
        """What is seen of speech, (batch, frames, dim): hidden frames are one learned vector."""
        frames: Tensor = self.dropout(heard.frames)
        hidden = None if mask is None else mask.hidden(frames.shape[1])
        if hidden is not None:
            frames = torch.where(hidden[..., None], self.feature_mask.to(frames.dtype), frames)
        if mask is not None and mask.channels is not None:
            frames = frames.masked_fill(mask.channels[:, None], 0.0)
        return frames

    def place(self, x: Tensor, lengths: Tensor, positions: nn.Module) -> tuple[Tensor, Tensor]:
        """(batch, frames, dim) with positions added, and the positions."""
        padding = padding_mask(lengths, x.shape[1])
        x = x.masked_fill(padding[..., None], 0.0)
        places: Tensor = positions(x, padding)
        return x + places.to(x.dtype), places

    def read_speech(self, heard: Heard, mask: InputMask | None = None) -> Read:
        """Speech through the whole encoder."""
        seen, places = self.place(self.hide(heard, mask), heard.lengths, self.speech_positions)
        return Read(self.encoder(seen, heard.lengths), places, heard.lengths)

    def read_phones(self, phones: Tensor, lengths: Tensor) -> Read:
        """Phonemes (batch, symbols) through the upper layers of the encoder; they see no dropout before these, as in the official code.

        Raises:
            ValueError: a phoneme that there is none of.
        """
        highest = int(phones.max()) if phones.numel() else 0
        if highest >= self.config.phone_rows:
            raise ValueError(f"phones: there is a phoneme {highest}, but the table has {self.config.phone_rows} rows; see model.phones.")
        seen, places = self.place(self.phone_embedding(phones), lengths, self.phone_positions)
        return Read(self.encoder(seen, lengths, first_layer=self.config.speech_layers), places, lengths)

    def phone_logits(self, states: Tensor, learn_table: bool = True) -> Tensor:
        """(..., dim) -> logits (..., classes) of the blank and of phonemes.

        Args:
            learn_table: let gradients into the table.
        """
        classes = self.config.phone_classes or self.config.phones + 1
        table = self.phone_embedding.weight[UNKNOWN : UNKNOWN + classes]
        return F.linear(states, table if learn_table else table.detach())

    def encode(self, batch: Batch, output_layer: int | None = None) -> tuple[Tensor, Tensor]:
        """Frames of speech at 25 Hz, (batch, frames, dim) and lengths (batch,); see SpeechEncoder.encode."""
        heard = self.hear(batch)
        seen, _ = self.place(heard.frames, heard.lengths, self.speech_positions)
        return self.encoder(seen, heard.lengths, output_layer), heard.lengths

    def hidden_states(self, batch: Batch) -> tuple[list[Tensor], Tensor]:
        """What enters the layers and what each of them puts out, (batch, frames, dim) each, and lengths (batch,)."""
        heard = self.hear(batch)
        seen, _ = self.place(heard.frames, heard.lengths, self.speech_positions)
        return self.encoder.hidden_states(seen, heard.lengths), heard.lengths

    def remember(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """What the decoder attends to of speech, (batch, frames, 2 x dim) and lengths (batch,)."""
        read = self.read_speech(self.hear(batch))
        return read.memory, read.lengths

    def encode_features(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """What `remember` gives, from filter banks."""
        read = self.read_speech(self.hear_features(features, lengths))
        return read.memory, read.lengths

    # Losses --------------------------------------------------------------------------------------------------------------------------

    def losses(self, batch: Batch, generator: torch.Generator) -> dict[str, Loss]:
        """Those of the tasks that a batch is for: pairs, speech with units, or phonemes with a text.

        Raises:
            ValueError: the batch lacks what the task learns from.
        """
        if batch.audio is None:
            return self.text_losses(batch, generator)
        heard = self.hear(batch)
        if "tokens" in batch.targets:
            mask = self.draw_mask(heard, self.config.paired_mask, generator) if self.training else None
            return self.paired_losses(heard, batch, mask)
        if self.config.task == "recognition":
            raise ValueError(f"{batch.ids[0]}: speech without a transcript, which fine-tuning learns from; leave the source out.")
        return self.speech_losses(heard, batch, self.draw_mask(heard, self.config.mask, generator))

    def draw_mask(self, heard: Heard, spans: SpanMaskConfig, generator: torch.Generator) -> InputMask:
        """Hidden frames of a batch, on its device; the generator is a CPU one."""
        lengths, device, silenced = heard.lengths.cpu(), heard.frames.device, self.config.channel_mask
        hidden = span_mask(lengths, heard.frames.shape[1], spans, generator, self.config.same_mask_count)
        channels = None
        if silenced.prob:
            channels = span_mask(torch.full_like(lengths, self.dim), self.dim, silenced, generator, same_count=False).to(device)
        return InputMask(fused=hidden.to(device), channels=channels)

    def paired_losses(self, heard: Heard, batch: Batch, mask: InputMask | None) -> dict[str, Loss]:
        """Speech to text (s2t) and, in the same pass, to phonemes (pp): ``targets.tokens`` and ``targets.phones``, without end symbols.

        Raises:
            ValueError: there are no phonemes, though they count.
        """
        weights, read = self.config.losses, self.read_speech(heard, mask)
        found: dict[str, Loss] = {}
        if weights.s2t:
            found["s2t"] = self.written_loss(read, batch.targets["tokens"], batch.target_lengths["tokens"], self.config.vocabulary)
        if weights.pp:
            if "phones" not in batch.targets:
                raise ValueError(
                    f"{batch.ids[0]}: no phonemes beside its transcript; name their labels in its source (phonemes), or set losses.pp to 0."
                )
            phones, counts = batch.targets["phones"], batch.target_lengths["phones"]
            # Classes begin with the blank, in the row before the first phoneme's.
            found["pp"] = ctc_loss(self.phone_logits(read.states), read.lengths, (phones - UNKNOWN).clamp(min=0), counts, 0)
        return self._weighed(found, len(batch), heard.frames)

    def speech_losses(self, heard: Heard, batch: Batch, mask: InputMask) -> dict[str, Loss]:
        """Speech to codes (s2c) and, in the same pass, agreement with the model's own phonemes of unmasked speech (msp).

        Raises:
            ValueError: there are no units to make codes of, though they count.
        """
        weights, read = self.config.losses, self.read_speech(heard, mask)
        found: dict[str, Loss] = {}
        if weights.s2c:
            codes, counts = self.codes_of(batch)
            found["s2c"] = self.written_loss(read, codes, counts, None)
        if weights.msp:
            found["msp"] = self.agreement(heard, read, mask)
        return self._weighed(found, len(batch), heard.frames)

    def text_losses(self, batch: Batch, generator: torch.Generator) -> dict[str, Loss]:
        """The text (p2t) of noised phonemes ``text_units``, which have an end symbol.

        Raises:
            ValueError: there are no phonemes, or no text.
        """
        if batch.text_units is None or batch.text is None or batch.text_lengths is None or batch.text_units_lengths is None:
            lacks = "phonemes of a text" if batch.text_units is None else "the text of its phonemes (written)"
            raise ValueError(f"{batch.ids[0]}: neither speech nor {lacks}, which MMSpeech learns from.")
        lengths = batch.text_units_lengths - 1  # phonemes end without a symbol here
        phones = noise_phones(batch.text_units.cpu(), lengths.cpu(), self.config.phone_mask, self.config.noise, generator)
        read = self.read_phones(phones.to(batch.text_units.device).masked_fill(padding_mask(lengths, phones.shape[1]), PAD), lengths)
        if not self.config.losses.p2t:
            raise ValueError("losses.p2t: 0, but a source of texts is given; leave the source out.")
        loss = self.written_loss(read, batch.text, batch.text_lengths, self.config.vocabulary)
        return self._weighed({"p2t": loss}, len(batch), read.states)

    def codes_of(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Ids of codes (batch, codes) in the decoder's table, padded with PAD, and their numbers (batch,): runs of units, merged.

        Raises:
            ValueError: there are no units.
        """
        if "units" not in batch.targets:
            raise ValueError(f"{batch.ids[0]}: no labels 'units', which speech is written in; set losses.s2c to 0 to leave them out.")
        units = batch.targets["units"]
        rows = [torch.unique_consecutive(row[row >= 0]) for row in units]
        codes, counts = pad([row - FIRST_PHONE + self.config.vocabulary for row in rows], PAD)
        return codes, counts.to(units.device)

    def written_loss(self, read: Read, tokens: Tensor, counts: Tensor, symbols: int | None) -> Loss:
        """The decoder's cross-entropy of tokens (batch, length), ``counts`` (batch,) of each, and of their ends.

        Args:
            symbols: the first ones of the table, among which it chooses; None for all.
        """
        ended = torch.cat([tokens, tokens.new_full((len(tokens), 1), PAD)], 1)
        ended = ended.masked_fill(padding_mask(counts, ended.shape[1]), PAD).scatter(1, counts[:, None], EOS)
        logits = self.decoder(shift_right(ended, BOS, PAD), read.memory, read.lengths)
        return seq2seq_loss(logits[..., :symbols], ended, PAD, 0.0)

    def agreement(self, heard: Heard, read: Read, mask: InputMask) -> Loss:
        """The divergence of the phonemes of hidden frames from those of the same frames when nothing is hidden."""
        hidden = mask.hidden(heard.frames.shape[1])
        assert hidden is not None
        hidden = hidden & ~heard.padding
        student = self.phone_logits(read.states[hidden], learn_table=False).float()
        teacher = self.teach(heard)[hidden].float()
        value = F.kl_div(student.log_softmax(-1), teacher.softmax(-1), reduction="sum")
        count = hidden.sum()
        logs = {"msp_divergence": (value.detach(), count)}
        if len(student) > 1:  # both fall to 0 where the model has found out that all frames may be the same
            one = torch.ones_like(count)
            for name, logits in (("msp_teacher_deviation", teacher), ("msp_student_deviation", student.detach())):
                logs[name] = ((logits.var(0) + 1e-6).sqrt().mean(), one)
        return Loss(value, count, logs)

    @torch.no_grad()
    def teach(self, heard: Heard) -> Tensor:
        """Logits of phonemes (batch, frames, classes) of speech of which nothing is hidden, without dropout and before the last norm."""
        training = self.encoder.training
        self.encoder.eval()
        try:
            seen, _ = self.place(heard.frames, heard.lengths, self.speech_positions)
            return self.phone_logits(self.encoder(seen, heard.lengths, len(self.encoder.layers)))
        finally:
            self.encoder.train(training)

    def _weighed(self, found: dict[str, Loss], sentences: int, like: Tensor) -> dict[str, Loss]:
        """Losses by their weights; what they are divided by is the number of sentences, which the first one counts."""
        if not found:
            raise ValueError("losses: all tasks of a batch count 0; leave out its source, or set one of them above 0.")
        weighed: dict[str, Loss] = {}
        for name, loss in found.items():
            logs = {key if key.startswith(name) else f"{name}_{key}": part for key, part in loss.logs.items()}
            count = torch.tensor(0 if weighed else sentences, device=like.device)
            weighed[name] = Loss(getattr(self.config.losses, name) * loss.value, count, logs)
        return weighed
