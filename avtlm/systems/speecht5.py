"""SpeechT5: one encoder-decoder that reads speech or text and writes speech or text (Ao et al., arXiv 2110.07205).

What is unusual here:
- Around one encoder and one decoder stand nets for each modality, of which a model has those that its ``inputs`` and ``outputs`` name. Text
  has one embedding for what is read, what was written, and what is written next (section 3.1).
- Speech passes a positional convolution and sinusoids before the encoder, text scaled sinusoids. Self-attention of the encoder adds learned
  vectors of distances; that of the decoder has none, though official files hold them.
- Batches hold speech or text alone. Some frames of what the encoder says are replaced by code vectors that both share (section 3.2).
- To enhance speech, the decoder may read the spectrogram of what is heard, and write a mask for it (``spectrogram.reads``, ``writes``).
- The official code lets padding change what comes out; ``waveform.compute_padding``, ``compute_padding`` and
  ``spectrogram.compute_padding`` bring that back for comparisons, and ``waveform.frame_padding`` tells its rule for valid frames
  (``samples``) from that of Hugging Face (``convolution``).

Over 400 lines, because pre-training and six tasks share these nets.
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from avtlm.data.batching import Batch, pad
from avtlm.data.inputs import InputFormat
from avtlm.frontends.filterbank import SAMPLE_RATE
from avtlm.frontends.mel import log_mel
from avtlm.frontends.multimodal import InputMask
from avtlm.nn.attention import padding_mask
from avtlm.nn.dropout import Dropout
from avtlm.nn.positions import PositionalConvolution, ScaledPositions, SinusoidalPositions
from avtlm.nn.quantize import GumbelQuantizer, Quantised, QuantizerConfig
from avtlm.nn.speaker_head import SpeakerHead, SpeakerHeadConfig
from avtlm.nn.spectrogram import SpectrogramConfig, SpectrogramHead, SpectrogramPrenet, Written, shift_frames
from avtlm.nn.transformer import Decoder, DecoderConfig, DecoderStack, EncoderConfig, Memory
from avtlm.objectives.ctc import ctc_loss
from avtlm.objectives.infilling import InfillingConfig, TorchDraws, infill
from avtlm.objectives.loss import Loss
from avtlm.objectives.masked_prediction import UnitPredictor, inventories, masked_prediction_loss, units_of_frames
from avtlm.objectives.masking import SpanMaskConfig
from avtlm.objectives.mixing import draw_mixed, mix
from avtlm.objectives.reconstruction import ReconstructionConfig, guided_attention_loss, spectrogram_loss
from avtlm.objectives.seq2seq import seq2seq_loss, shift_right
from avtlm.systems.speech_encoder import Heard, SpeechEncoder, SpeechEncoderConfig
from avtlm.text.vocabulary import BOS, EOS, PAD

Modality = Literal["speech", "text"]


@dataclass(frozen=True)
class LossConfig:
    """What is learned, and how much it counts; the defaults are those of pre-training. A weight of 0 leaves a loss out (Table 7).

    Attributes:
        units: of masked prediction, in which hidden frames count ``hidden`` and the others ``visible``.
        feature_penalty: of the mean square of the convolutions' output. diversity: of unused codes.
        spectrogram: of written speech, whose parts ``reconstruction`` weighs.
        text: of written text in pre-training.
        attention, ctc: of the transcript in recognition; both are summed over tokens and divided by sentences.
        label_smoothing: of the transcript.
    """

    units: float = 1.0
    hidden: float = 1.0
    visible: float = 0.0
    feature_penalty: float = 10.0
    diversity: float = 0.1
    spectrogram: float = 1.0
    reconstruction: ReconstructionConfig = field(default_factory=ReconstructionConfig)
    text: float = 1.0
    attention: float = 0.5
    ctc: float = 0.5
    label_smoothing: float = 0.0


@dataclass(frozen=True)
class SpeechT5Config(SpeechEncoderConfig):
    """The defaults are the base model in pre-training, with 81 symbols and 500 clusters.

    Attributes:
        task: whose losses are computed: ``pretrain`` learns from batches of speech and of text, ``recognition`` (also translation) writes
            text, ``generation`` (synthesis, voice conversion, enhancement) speech, ``speaker`` names a voice.
        inputs, outputs: ``speech``, ``text`` or both.
        position_kernel, position_groups: of the positional convolution of speech. (``encoder.position_kernel`` is 0.)
        sinusoids: speech has sinusoidal positions, too.
        position_dropout: behind the positions of text. scaled_positions: these have a learned factor (ScaledPositions).
        vocabulary: symbols of text, in the order of fairseq's dictionary: special symbols, text, ``<mask>``, CTC's blank, and numbered
            mask symbols where ``infilling`` has any.
        shared_embedding: text that is read has the embedding of text that is written. (``decoder.tie_embeddings`` is of the output.)
        ctc_head: a head of its own, the embedding of text that is read (``tied``), or ``none``.
        units, further_units, separate_projections, final_dim, temperature, label_rate: of the head over units, see HubertConfig; 0 units
            for no head.
        memory_layer: in training, the decoder attends to what this layer of the encoder puts out (``unb_enc_layer``, counted from 1); null
            for the last.
        codebook: code vectors; null for none. mixing: the share of frames that they replace.
        speakers: classes of the head over voices; 0 for no head. pooling: of a voice: the ``decoder``'s answer to a zero vector, or the
            ``encoder``'s mean or ``first`` frame. speaker_head: what is between the pooled vector and the classes. leading_symbol: text's
            start symbol stands before the frames of speech. speakers_in_text: voices are symbols of text, and the decoder says which one.
        shuffle_frames: in training, what the encoder sees of speech is in random order.
        freeze_encoder_steps: train the decoder and the heads alone for so many steps.
        compute_padding: let padding take part in positions, code statistics and pooling as in the official code, and codes replace the
            same places of every row.
    """

    encoder: EncoderConfig = field(default_factory=lambda: EncoderConfig(norm_first=False, position_kernel=0, key_distance=160))
    mask: SpanMaskConfig = field(default_factory=SpanMaskConfig)
    task: Literal["pretrain", "recognition", "generation", "speaker"] = "pretrain"
    inputs: tuple[Modality, ...] = ("speech", "text")
    outputs: tuple[Modality, ...] = ("speech", "text")
    decoder: DecoderConfig = field(
        default_factory=lambda: DecoderConfig(
            heads=12, activation="gelu", norm_first=False, attention_dropout=0.1, activation_dropout=0.0, layer_drop=0.05
        )
    )
    position_kernel: int = 128
    position_groups: int = 16
    sinusoids: bool = True
    position_dropout: float = 0.1
    scaled_positions: bool = True
    vocabulary: int = 81
    shared_embedding: bool = True
    ctc_head: Literal["own", "tied", "none"] = "own"
    units: int = 504
    further_units: tuple[int, ...] = ()
    separate_projections: bool = False
    memory_layer: int | None = None
    final_dim: int = 256
    temperature: float = 0.1
    label_rate: float = 50.0
    codebook: QuantizerConfig | None = field(default_factory=lambda: QuantizerConfig(entries=100))
    mixing: float = 0.1
    spectrogram: SpectrogramConfig = field(default_factory=SpectrogramConfig)
    infilling: InfillingConfig = field(default_factory=InfillingConfig)
    speakers: int = 0
    pooling: Literal["decoder", "encoder", "first"] = "decoder"
    speaker_head: SpeakerHeadConfig = field(default_factory=SpeakerHeadConfig)
    leading_symbol: bool = False
    speakers_in_text: bool = False
    shuffle_frames: bool = False
    losses: LossConfig = field(default_factory=LossConfig)
    freeze_encoder_steps: int = 0
    compute_padding: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, found in (("inputs", self.inputs), ("outputs", self.outputs)):
            if not found or not set(found) <= {"speech", "text"}:
                raise ValueError(f"{name}: {', '.join(found) or 'none'}; give speech, text or both.")
        if self.encoder.position_kernel:
            raise ValueError("encoder.position_kernel: set 0, since positions stand before SpeechT5's encoder; see position_kernel.")
        if not self.has_text and self.ctc_head != "none":
            raise ValueError(f"ctc_head: {self.ctc_head} in a model without text; set none, or add text to inputs or outputs.")
        writes = {"recognition": "text", "generation": "speech"}.get(self.task)
        if writes is not None and writes not in self.outputs:
            raise ValueError(f"task: {self.task} writes {writes}, but outputs is {', '.join(self.outputs)}; add it there.")
        if self.task == "recognition" and self.losses.ctc > 0 and self.ctc_head == "none":
            raise ValueError(f"losses.ctc: {self.losses.ctc}, but ctc_head is none; set ctc_head own and name ctc in fresh, or set 0.")
        if self.memory_layer is not None and not 1 <= self.memory_layer <= self.encoder.layers:
            raise ValueError(f"memory_layer: {self.memory_layer}; give null, or one of the encoder's {self.encoder.layers} layers.")
        if self.task == "speaker" and not self.speakers and not self.speakers_in_text:
            raise ValueError("speakers: 0 in a model that names them; give their number.")
        if self.speakers_in_text and (self.speakers or self.pooling != "decoder" or not self.has_text):
            raise ValueError("speakers_in_text: goes with a model of text, speakers 0 and pooling decoder.")
        if self.leading_symbol and (not self.has_text or self.decoder.dim != self.encoder.dim):
            raise ValueError("leading_symbol: goes with a model of text whose encoder and decoder have one width.")
        if self.spectrogram.needs_source and (self.task != "generation" or "speech" not in self.inputs):
            raise ValueError("spectrogram: only a model that makes speech of speech (task generation) has a source to read or to mask.")
        if self.has_text and self.vocabulary < 6 + self.infilling.numbered:
            raise ValueError(
                f"vocabulary: {self.vocabulary}; a model of text has 4 special symbols, <mask>, a blank and numbered mask symbols, so give "
                f"at least {6 + self.infilling.numbered}."
            )
        if self.codebook is not None and self.decoder.dim != self.encoder.dim:
            raise ValueError(f"codebook: codes replace frames, but decoder.dim is {self.decoder.dim} and encoder.dim {self.encoder.dim}.")

    # How a run makes a model of this system; see avtlm.protocols.WholeConfig.
    further_symbols: ClassVar[tuple[str, ...]] = ("<mask>", "<ctc_blank>")
    vocabulary_parts: ClassVar[tuple[str, ...]] = ("decoder.embedding", "text_prenet.embedding", "decoder.output", "ctc")
    optional_parts: ClassVar[tuple[str, ...]] = ("ctc",)
    speaker_parts: ClassVar[tuple[str, ...]] = ("speaker", "speaker_head")

    @classmethod
    def of_task(cls, task: str) -> dict[str, Any]:
        """Fine-tuning has neither units nor codes."""
        if task == "pretrain":
            return {"task": task}
        return {"task": {"transcription": "recognition"}.get(task, task), "units": 0, "codebook": None}

    @property
    def has_text(self) -> bool:
        return "text" in (*self.inputs, *self.outputs)

    @property
    def mask_id(self) -> int:
        """The symbol of a hole in a text."""
        return self.blank - 1

    @property
    def blank(self) -> int:
        """CTC's."""
        return self.vocabulary - 1 - self.infilling.numbered


@dataclass(frozen=True)
class Drawn:
    """What chance decides in pre-training, so that a stored case can be replayed; None draws as dropout is drawn.

    Attributes:
        mask: hidden frames of speech.
        mixed: frames that codes replace, bool (batch, frames).
        noise: of the codes (batch x frames, groups, entries).
        keep: what the dropout before the decoder keeps, see SpectrogramPrenet.
    """

    mask: InputMask | None = None
    mixed: Tensor | None = None
    noise: Tensor | None = None
    keep: Tensor | None = None


class TextPrenet(nn.Module):
    """Positions of text that is read, and its embedding where that is not the decoder's, N(0, dim^-0.5)."""

    def __init__(self, dim: int, dropout: float, vocabulary: int = 0, scaled: bool = True) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, dim, padding_idx=PAD) if vocabulary else None
        if self.embedding is not None:
            nn.init.normal_(self.embedding.weight, 0.0, dim**-0.5)
        self.positions = ScaledPositions(dim, scaled)
        self.dropout = Dropout(dropout)

    def forward(self, embedded: Tensor) -> Tensor:
        """(batch, length, dim) -> the same."""
        out: Tensor = self.dropout(self.positions.place(embedded))
        return out


def shuffled(x: Tensor, padding: Tensor) -> Tensor:
    """Frames (batch, frames, dim) in random order, from the global generator that dropout uses too; padding stays behind them."""
    order = torch.rand(padding.shape, device=x.device).masked_fill(padding, 2.0).argsort(1)
    return x.gather(1, order[..., None].expand_as(x))


class SpeechT5(SpeechEncoder):
    """Encoder, decoder, and the nets around them.

    Initialisation: see SpeechEncoder, Decoder, SpectrogramPrenet, SpectrogramHead, UnitPredictor; heads N(0, 0.02).
    """

    config: SpeechT5Config

    def __init__(self, config: SpeechT5Config) -> None:
        super().__init__(config)
        dim, width = config.encoder.dim, config.decoder.dim
        hears, writes = "speech" in config.inputs, "speech" in config.outputs
        if hears:
            sizes = (config.position_kernel, config.position_groups)
            self.speech_positions = PositionalConvolution(dim, *sizes, config.encoder.position_activation)
            self.numbers = SinusoidalPositions(dim)
        else:
            del self.frontend, self.feature_mask
        own = 0 if config.shared_embedding else config.vocabulary
        self.text_prenet = TextPrenet(dim, config.position_dropout, own, config.scaled_positions) if "text" in config.inputs else None
        self.decoder: DecoderStack = (
            Decoder(config.decoder, config.vocabulary, dim, PAD) if config.has_text else DecoderStack(config.decoder, dim)
        )
        self.ctc = nn.Linear(dim, config.vocabulary) if config.ctc_head == "own" else None
        self.dropout = Dropout(config.encoder.dropout)
        self.speech_prenet = SpectrogramPrenet(config.spectrogram, width) if writes else None
        self.spectrogram = SpectrogramHead(config.spectrogram, width) if writes else None
        self.predictor: UnitPredictor | None = None
        if hears and config.units:
            counts = (config.units, *config.further_units)
            self.predictor = UnitPredictor(dim, counts, config.final_dim, config.temperature, separate=config.separate_projections)
        self.quantizer: GumbelQuantizer | None = (
            GumbelQuantizer(config.codebook, dim, config.codebook.dim or dim) if config.codebook else None
        )
        self.speaker_head = SpeakerHead(config.speaker_head, width if config.pooling == "decoder" else dim) if config.speakers else None
        self.speaker = None if self.speaker_head is None else nn.Linear(self.speaker_head.dim, config.speakers, bias=False)
        for head in (self.ctc, self.speaker):
            if head is not None:
                nn.init.normal_(head.weight, 0.0, 0.02)
        self._frozen = False

    @property
    def input_format(self) -> InputFormat:
        """Waveforms and, where speech is written, spectrograms in the voices that the model knows."""
        config = self.config
        writes = "speech" in config.outputs and config.losses.spectrogram > 0 and config.task in ("pretrain", "generation")
        spectrogram = config.spectrogram
        return dataclasses.replace(
            super().input_format,
            mel_bands=spectrogram.bands if writes else 0,
            voice_dim=spectrogram.voice_dim if writes else 0,
        )

    @property
    def label_rate(self) -> float:
        return self.config.label_rate

    @property
    def inventory(self) -> dict[str, int]:
        """Units that are predicted; there are no phones."""
        further = {f"units_{number}": size for number, size in enumerate(self.config.further_units, 1)}
        return {"units": self.config.units, **further, "phones": 0}

    def drop_heads(self) -> None:
        """Remove what only pre-training needs."""
        self.predictor = self.quantizer = None

    def start_step(self, step: int, steps: int) -> None:
        """Cool the codes down, and let go of the encoder when its time has come."""
        del steps
        if self.quantizer is not None:
            self.quantizer.set_updates(step)
        self._frozen = step < self.config.freeze_encoder_steps

    # Encoder (section 3.1) -----------------------------------------------------------------------------------------------------------

    def place(self, x: Tensor, lengths: Tensor) -> Tensor:
        """Positions of speech, (batch, frames, dim) -> the same."""
        padding = padding_mask(lengths, x.shape[1])
        seen = x if self.config.compute_padding else x.masked_fill(padding[..., None], 0.0)
        x = x + self.speech_positions(seen)
        if self.config.sinusoids:
            x = x + self.frame_numbers(padding).to(x.dtype)
        return x

    def frame_numbers(self, padding: Tensor) -> Tensor:
        """Sinusoids of frames, zeros at padding: bool (batch, frames) -> (batch, frames, dim)."""
        numbers = self.numbers(torch.arange(padding.shape[1], device=padding.device))
        return numbers * ~padding[..., None]

    def read_speech(self, heard: Heard, mask: InputMask | None = None) -> Tensor:
        """What the encoder sees of speech, (batch, frames, dim)."""
        return self.place(self.hide(heard.projected, mask), heard.lengths)

    def read_text(self, tokens: Tensor) -> Tensor:
        """What the encoder sees of text: ids (batch, length) -> (batch, length, dim)."""
        assert self.text_prenet is not None, "a model that reads no text was given some"
        out: Tensor = self.text_prenet(self.read_embedding(tokens))
        return out

    @property
    def read_embedding(self) -> nn.Embedding:
        """Of text that is read."""
        if self.text_prenet is not None and self.text_prenet.embedding is not None:
            return self.text_prenet.embedding
        assert isinstance(self.decoder, Decoder)
        return self.decoder.embedding

    def encode(
        self, batch: Batch, output_layer: int | None = None, mask: InputMask | None = None, keep: dict[str, Tensor] | None = None
    ) -> tuple[Tensor, Tensor]:
        """Frames of the batch's speech, or of its text where it has no speech; see SpeechEncoder.encode."""
        del keep
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self._frozen):
            seen, lengths = self.see(batch, mask)
            return self.encoder(seen, lengths, output_layer), lengths

    def see(self, batch: Batch, mask: InputMask | None = None) -> tuple[Tensor, Tensor]:
        """What the encoder sees of the batch's speech, or of its text where it has no speech, and lengths."""
        if batch.audio is not None:
            heard = self.hear(batch)
            seen = self.read_speech(heard, mask)
            return self.lead(shuffled(seen, heard.padding) if self.config.shuffle_frames and self.training else seen, heard.lengths)
        if batch.text is None or batch.text_lengths is None:
            raise ValueError(f"{batch.ids[0]}: neither speech nor text to read.")
        return self.read_text(batch.text), batch.text_lengths

    def lead(self, seen: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """What the encoder sees of speech, and lengths, with a symbol before it where the configuration asks for one. The official code
        takes all that is behind the symbol for speech."""
        if not self.config.leading_symbol:
            return seen, lengths
        assert isinstance(self.decoder, Decoder)
        start = self.decoder.embed(torch.full((len(seen), 1), BOS, device=seen.device))
        frames = torch.full_like(lengths, seen.shape[1]) if self.config.compute_padding else lengths
        return torch.cat([start, seen], 1), frames + 1

    def encode_seen(self, seen: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """What the encoder says, and what of it the decoder attends to in training: (batch, frames, dim) all three."""
        layer = self.config.memory_layer
        if layer is None:
            encoded: Tensor = self.encoder(seen, lengths)
            return encoded, encoded
        states = self.encoder.hidden_states(seen, lengths, len(self.encoder.layers))  # without the norm behind pre-norm layers
        return self.encoder.norm(states[-1]) if self.config.encoder.norm_first else states[-1], states[layer]

    def encode_to_learn(self, batch: Batch, mask: InputMask | None) -> tuple[Tensor, Tensor, Tensor]:
        """The two of `encode_seen` for a batch, and lengths; without gradients while the encoder is frozen."""
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self._frozen):
            seen, lengths = self.see(batch, mask)
            return *self.encode_seen(seen, lengths), lengths

    def hidden_states(self, batch: Batch) -> tuple[list[Tensor], Tensor]:
        """What enters the layers for the batch's speech, and what each of them puts out; see SpeechEncoder.hidden_states."""
        heard = self.hear(batch)
        return self.encoder.hidden_states(self.read_speech(heard), heard.lengths), heard.lengths

    def ctc_logits(self, encoded: Tensor) -> Tensor:
        """(batch, frames, dim) -> (batch, frames, vocabulary)."""
        x = self.dropout(encoded)
        if self.ctc is not None:
            out: Tensor = self.ctc(x)
            return out
        assert self.config.ctc_head == "tied", "a model without CTC was asked for it"
        return x @ self.read_embedding.weight.t()

    # Decoder (section 3.1) -----------------------------------------------------------------------------------------------------------

    def write_text(self, tokens: Tensor, memory: Memory) -> Tensor:
        """Teacher forcing: tokens (batch, length) that come before those to write -> logits (batch, length, vocabulary)."""
        assert isinstance(self.decoder, Decoder), "a model without text was asked for some"
        lengths = (tokens != PAD).sum(1)
        return self.decoder.predict(self.decoder.decode(self.decoder.embed(tokens), memory, lengths=lengths))

    def write_speech(
        self,
        frames: Tensor,
        lengths: Tensor,
        voice: Tensor | None,
        memory: Memory,
        keep: Tensor | None = None,
        weights: list[Tensor] | None = None,
        source: Tensor | None = None,
    ) -> Written:
        """Teacher forcing: frames (batch, steps, bands) that come before those to write.

        Args:
            lengths: valid steps, (batch,).
            voice: (batch, voice_dim); see SpectrogramPrenet, also for keep.
            weights: is appended where each layer of the decoder looks.
            source: see SpectrogramHead.
        """
        assert self.speech_prenet is not None, "a model that writes no speech was asked for some"
        assert self.spectrogram is not None
        x = self.speech_prenet(frames, voice, keep=keep)
        written: Written = self.spectrogram(self.decoder.decode(x, memory, lengths=lengths, weights=weights), lengths, source)
        return written

    def source(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Frames of the speech that is heard, (batch, frames, bands), and lengths: ``targets.source``, or those of the waveforms."""
        if "source" in batch.targets:
            return batch.targets["source"], batch.target_lengths["source"]
        assert batch.audio is not None
        assert batch.audio_lengths is not None
        frames, lengths = pad([log_mel(wave[:length]) for wave, length in zip(batch.audio, batch.audio_lengths.tolist(), strict=True)])
        return frames, lengths.to(frames.device)

    def name_speaker(self, encoded: Tensor, lengths: Tensor) -> Tensor:
        """Whose voice it is: (batch, frames, dim) -> logits (batch, speakers)."""
        if self.config.speakers_in_text:
            assert isinstance(self.decoder, Decoder)
            return self.decoder.predict(self.pool(encoded, lengths))
        assert self.speaker is not None, "a model without voices was asked for one"
        assert self.speaker_head is not None
        return self.speaker_head.classify(self.speaker_head(self.pool(encoded, lengths)), self.speaker.weight)

    def pool(self, encoded: Tensor, lengths: Tensor) -> Tensor:
        """One vector for every row: (batch, frames, dim) -> (batch, dim)."""
        if self.config.pooling == "first":
            return encoded[:, 0]
        if self.config.pooling == "decoder":
            start = encoded.new_zeros(len(encoded), 1, self.config.decoder.dim)
            return self.decoder.decode(start, self.decoder.project_memory(encoded, lengths))[:, 0]
        if self.config.compute_padding:
            return encoded.mean(1)
        valid = ~padding_mask(lengths, encoded.shape[1])[..., None]
        return (encoded * valid).sum(1) / lengths.clamp(min=1)[:, None]

    # Losses --------------------------------------------------------------------------------------------------------------------------

    def losses(self, batch: Batch, generator: torch.Generator) -> dict[str, Loss]:
        """Those of the configuration's task.

        Raises:
            ValueError: the batch lacks what the task learns from.
        """
        config = self.config
        if config.task == "pretrain" and batch.audio is None:
            whole, holed, lengths = self.draw_holes(batch, generator)
            return self.text_losses(whole, holed, lengths, Drawn(mixed=self.draw_mixed(lengths, holed.shape[1], generator)))
        pretrains = config.task == "pretrain"  # then frames are hidden in evaluation, too
        hides = batch.audio is not None and max(config.mask.prob, config.channel_mask.prob) > 0 and (self.training or pretrains)
        mask = self.draw_masks(batch, generator, same_count=pretrains) if hides else None
        if pretrains:
            assert batch.audio is not None
            assert batch.audio_lengths is not None
            frames = int(config.waveform.frames(torch.tensor(batch.audio.shape[1])))
            lengths = config.waveform.valid_frames(batch.audio_lengths, batch.audio.shape[1], max(frames, 1))
            return self.speech_losses(batch, Drawn(mask, self.draw_mixed(lengths, frames, generator)))
        if config.task == "recognition":
            return self.recognition_losses(batch, mask)
        return self.generation_losses(batch, mask) if config.task == "generation" else self.speaker_losses(batch, mask)

    def combine(self, batches: Sequence[Batch], losses: Sequence[dict[str, Loss]]) -> list[dict[str, Loss]]:
        """Let every batch count the same, whatever it holds (``train_step`` of the official task)."""
        del batches
        found = []
        for group in losses:
            count = torch.stack([loss.count for loss in group.values()]).sum().clamp(min=1)
            counts = [int(place == 0) * torch.ones_like(count) for place in range(len(group))]
            found.append({name: Loss(loss.value / count, one, loss.logs) for (name, loss), one in zip(group.items(), counts, strict=True)})
        return found

    def draw_mixed(self, lengths: Tensor, frames: int, generator: torch.Generator) -> Tensor | None:
        """Which frames codes replace, see objectives/mixing.py; None for a model without codes."""
        if self.quantizer is None:
            return None
        return draw_mixed(lengths.cpu(), frames, self.config.mixing, generator, self.config.compute_padding)

    def draw_holes(self, batch: Batch, generator: torch.Generator) -> tuple[Batch, Tensor, Tensor]:
        """The batch with the text that is to be written, and its text with holes: ids (batch, length) and lengths (batch,)."""
        assert batch.text is not None
        assert batch.text_lengths is not None
        config, device = self.config, batch.text.device
        draws = TorchDraws(generator, config.infilling.mean_span, config.vocabulary)
        texts = [text[:length] for text, length in zip(batch.text.tolist(), batch.text_lengths.tolist(), strict=True)]
        pairs = [infill(text, config.mask_id, config.infilling, draws) for text in texts]
        (holed, lengths), (whole, ends) = (pad([torch.tensor(pair[side]) for pair in pairs], PAD) for side in (0, 1))
        return dataclasses.replace(batch, text=whole.to(device), text_lengths=ends.to(device)), holed.to(device), lengths.to(device)

    def quantise(self, encoded: Tensor, lengths: Tensor, drawn: Drawn) -> tuple[Tensor, Quantised | None]:
        """What the decoder attends to, and the codes: (batch, frames, dim) both (section 3.2)."""
        if self.quantizer is None:
            return encoded, None
        frames = encoded.shape[1]
        valid = None if self.config.compute_padding else ~padding_mask(lengths, frames).flatten()
        codes: Quantised = self.quantizer(encoded.flatten(0, 1), valid, drawn.noise)
        mixed = drawn.mixed
        if mixed is None:
            return encoded, codes
        vectors = codes.vectors.unflatten(0, encoded.shape[:2])
        return mix(encoded, vectors, mixed[:, :frames].to(encoded.device)), codes

    def diversity(self, codes: Quantised, count: Tensor, weight: float = 1.0) -> Loss:
        """The share of codes that are not in use, times what is in the loss, times its weight and that of what it belongs to."""
        assert self.config.codebook is not None
        number, zero = self.config.codebook.groups * self.config.codebook.entries, torch.zeros_like(count)
        value = weight * self.config.losses.diversity * (number - codes.soft_perplexity) / number * count
        return Loss(value, zero, {"code_perplexity": (codes.hard_perplexity.detach(), zero + 1)})

    def speech_losses(self, batch: Batch, drawn: Drawn) -> dict[str, Loss]:
        """Pre-training on speech: units of hidden frames, the whole spectrogram again (section 3.2, eq. 1-3)."""
        weights, units = self.config.losses, self.units_of(batch)
        heard = self.hear(batch, None if units is None else units[0].shape[1])
        mask = drawn.mask or InputMask()
        hidden = self.hidden_frames(heard, mask) & ~heard.padding
        encoded, memory = self.encode_seen(self.read_speech(heard, mask), heard.lengths)
        count = (hidden.sum() if weights.hidden else 0 * hidden.sum()) + ((~hidden & ~heard.padding).sum() if weights.visible else 0)
        found: dict[str, Loss] = {}
        if self.predictor is not None and units is not None:
            scale = (weights.units * weights.hidden, weights.units * weights.visible)
            loss = masked_prediction_loss(self.predictor, encoded, units, hidden, heard.padding, *scale)
            found["masked_prediction"] = dataclasses.replace(loss, count=count)
        zero = torch.zeros_like(count)
        found["feature_penalty"] = self.feature_penalty(heard, weights.units * weights.feature_penalty, count)
        seen, codes = self.quantise(memory, heard.lengths, drawn)
        if codes is not None:
            found["diversity"] = self.diversity(codes, count, weights.units)
        if self.spectrogram is not None and weights.spectrogram:
            whole = self.reconstruct(batch, seen, heard.lengths, drawn.keep)
            share = weights.spectrogram * count / whole.count.clamp(min=1)
            found["spectrogram"] = Loss(whole.value * share, zero, whole.logs)
        if "masked_prediction" not in found:  # then something else has to say what the sums are divided by
            found["feature_penalty"] = dataclasses.replace(found["feature_penalty"], count=count)
        return found

    def units_of(self, batch: Batch) -> list[Tensor] | None:
        """Units of every inventory for the frames that have any, int (batch, frames); None for a model that predicts none.

        Raises:
            ValueError: there are none.
        """
        if self.predictor is None:
            return None
        if "units" not in batch.targets:
            raise ValueError(f"{batch.ids[0]}: no labels 'units', which pre-training on speech predicts; set units to 0 to leave them out.")
        assert batch.audio is not None
        waveform = self.config.waveform
        frames = int(waveform.frames(torch.tensor(batch.audio.shape[1])))
        labels = inventories(batch.targets, 1 + len(self.config.further_units), batch.ids[0])
        return [units_of_frames(each, frames, self.config.label_rate * waveform.hop / SAMPLE_RATE) for each in labels]

    def reconstruct(self, batch: Batch, encoded: Tensor, lengths: Tensor, keep: Tensor | None = None, guide: Tensor | None = None) -> Loss:
        """The batch's spectrogram, written again; its count is the number of frames.

        Args:
            encoded, lengths: what the decoder attends to.
            guide: lengths of what attention walks through along the diagonal; None guides nothing.
        """
        settings, reduction = self.config.losses.reconstruction, self.config.spectrogram.reduction
        if "mel" not in batch.targets:
            raise ValueError(f"{batch.ids[0]}: no log mel spectrogram 'mel', which the decoder learns to write.")
        mel, frames = batch.targets["mel"], batch.target_lengths["mel"]
        steps = torch.div(frames, reduction, rounding_mode="floor")
        weights: list[Tensor] | None = [] if guide is not None and settings.guided_weight else None
        assert self.speech_prenet is not None, "a model that writes no speech was asked for some"
        voice = batch.targets.get("voice")
        memory = self.decoder.project_memory(self.speech_prenet.inform(encoded, voice), lengths)
        read, source = shift_frames(mel, reduction), None
        if self.config.spectrogram.needs_source:
            source, ends = self.source(batch)
            if source.shape != mel.shape:
                raise ValueError(f"{batch.ids[0]}: a spectrogram {tuple(mel.shape)} of noisy speech {tuple(source.shape)}; give pairs.")
            if self.config.spectrogram.reads == "source":
                read, steps, voice = source, ends, None
        written = self.write_speech(read, steps, voice, memory, keep, weights, source)
        loss = spectrogram_loss(written, mel, frames, settings, reduction)
        if weights is not None and guide is not None:
            guided = guided_attention_loss(weights, steps, guide, settings)
            logs = {**loss.logs, "guided_attention": (guided.detach() * loss.count, loss.count)}
            loss = Loss(loss.value + settings.guided_weight * guided * loss.count, loss.count, logs)
        return loss

    def text_losses(self, batch: Batch, holed: Tensor, lengths: Tensor, drawn: Drawn) -> dict[str, Loss]:
        """Pre-training on text: write batch.text, with its start and end symbols, from what is left of it (section 3.2, eq. 4)."""
        weights = self.config.losses
        assert batch.text is not None
        seen, codes = self.quantise(self.encode_seen(self.read_text(holed), lengths)[1], lengths, drawn)
        logits = self.write_text(shift_right(batch.text, EOS, PAD), self.decoder.project_memory(seen, lengths))
        loss = seq2seq_loss(logits, batch.text, PAD, 0.0)
        found = {"text": Loss(weights.text * loss.value, loss.count, loss.logs)}
        if codes is not None:
            found["diversity"] = self.diversity(codes, loss.count)
        return found

    def recognition_losses(self, batch: Batch, mask: InputMask | None = None) -> dict[str, Loss]:
        """Fine-tuning to write ``targets.tokens``, which have no end symbol: attention and CTC, divided by sentences (section 4.1)."""
        weights = self.config.losses
        encoded, memory, lengths = self.encode_to_learn(batch, mask)
        tokens, counts = batch.targets["tokens"], batch.target_lengths["tokens"]
        sentences = counts.new_tensor(len(batch))
        found: dict[str, Loss] = {}
        if weights.attention:
            ended = torch.cat([tokens, tokens.new_full((len(tokens), 1), PAD)], 1).scatter(1, counts[:, None], EOS)
            logits = self.write_text(shift_right(ended, EOS, PAD), self.decoder.project_memory(memory, lengths))
            loss = seq2seq_loss(logits, ended, PAD, weights.label_smoothing)
            found["attention"] = Loss(weights.attention * loss.value, sentences, loss.logs)
        if weights.ctc:
            loss = ctc_loss(self.ctc_logits(encoded), lengths, tokens, counts, self.config.blank)
            found["ctc"] = Loss(weights.ctc * loss.value, torch.zeros_like(sentences) if found else sentences, loss.logs)
        return found

    def generation_losses(self, batch: Batch, mask: InputMask | None = None, keep: Tensor | None = None) -> dict[str, Loss]:
        """Fine-tuning to write speech from text or from other speech (sections 4.2, 4.3, 4.5)."""
        _, memory, lengths = self.encode_to_learn(batch, mask)
        guide = lengths
        if batch.audio_lengths is not None:  # the official code counts by the convolutions here, whatever its padding mask says
            guide = self.config.waveform.frames(batch.audio_lengths)
        loss = self.reconstruct(batch, memory, lengths, keep, guide)
        return {"spectrogram": Loss(self.config.losses.spectrogram * loss.value, loss.count, loss.logs)}

    def speaker_losses(self, batch: Batch, mask: InputMask | None = None) -> dict[str, Loss]:
        """Fine-tuning to name the voice of a clip, ``targets.speaker`` (batch,) (section 4.6)."""
        encoded, memory, lengths = self.encode_to_learn(batch, mask)
        logits = self.name_speaker(memory if self.config.pooling == "decoder" else encoded, lengths).float()
        speaker, smoothing = batch.targets["speaker"], self.config.losses.label_smoothing
        count = speaker.new_tensor(len(speaker))
        correct = (logits.argmax(-1) == speaker).sum()
        plain = nn.functional.cross_entropy(logits, speaker, reduction="sum")
        value = seq2seq_loss(logits, speaker, -1, smoothing).value if smoothing else plain
        return {"speaker": Loss(value, count, {"speaker_loss": (plain.detach(), count), "speaker_accuracy": (correct, count)})}
