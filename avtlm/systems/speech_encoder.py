"""What wav2vec 2.0, HuBERT, WavLM, data2vec and MT4SSL share: waveform, convolutions, masks, Transformer (arXiv 2006.11477, section 2).

What is unusual here:
- Masks work behind the front-end: hidden frames are replaced by one learned vector, hidden channels (in fine-tuning) by zeros.
- Nothing a clip gives depends on what it is batched with. The official group norm, stacked positions and normed targets see padding;
  ``waveform.compute_padding``, ``encoder.compute_padding`` and the like bring that back for comparisons.
- The models differ in what they learn from hidden frames; fine-tuning drops those parts (`drop_heads`).
"""

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from avtlm.data.batching import Batch
from avtlm.data.inputs import InputFormat
from avtlm.frontends.multimodal import InputMask
from avtlm.frontends.waveform import WaveformConfig, WaveformFrontEnd
from avtlm.nn.adapters import LengthAdapter, LengthAdapterConfig
from avtlm.nn.attention import padding_mask
from avtlm.nn.quantize import Quantised
from avtlm.nn.transformer import Encoder, EncoderConfig
from avtlm.objectives.loss import Loss
from avtlm.objectives.masking import SpanMaskConfig, span_mask


@dataclass(frozen=True)
class SpeechEncoderConfig:
    """The encoder and its masks; the defaults are those of the base models of wav2vec 2.0 and HuBERT.

    Attributes:
        mask: spans of hidden frames.
        channel_mask: spans of channels set to zero (none in pre-training).
        channels_first: set channels to zero before frames are hidden, so that the vector of hidden frames stays whole.
        same_mask_count: even out the numbers of hidden frames of a batch, as the official code.
        feature_gradient_scale: multiplies the gradients into the convolutions; 0 freezes them (fine-tuning).
        adapter: makes the encoder's output shorter; null leaves it at 50 Hz. Targets of pre-training are learned before it.
    """

    waveform: WaveformConfig = field(default_factory=WaveformConfig)
    encoder: EncoderConfig = field(default_factory=lambda: EncoderConfig(norm_first=False))
    mask: SpanMaskConfig = field(default_factory=lambda: SpanMaskConfig(prob=0.65))
    channel_mask: SpanMaskConfig = field(default_factory=lambda: SpanMaskConfig(prob=0.0, length=64, min_spans=0))
    channels_first: bool = False
    same_mask_count: bool = True
    feature_gradient_scale: float = 0.1
    adapter: LengthAdapterConfig | None = None

    def __post_init__(self) -> None:
        if self.feature_gradient_scale < 0:
            raise ValueError(f"feature_gradient_scale: {self.feature_gradient_scale}; give 0 (frozen) or more.")


@dataclass(frozen=True)
class Heard:
    """What the front-end makes of a batch.

    Attributes:
        convolved, normed: (batch, frames, width).
        projected: (batch, frames, dim), before dropout.
        lengths: valid frames, (batch,).
        quantised: what ``projected`` was made of, in models that quantise their inputs (wav2vec2.py).
    """

    convolved: Tensor
    normed: Tensor
    projected: Tensor
    lengths: Tensor
    quantised: Quantised | None = None

    @property
    def padding(self) -> Tensor:
        """True where a frame is padding, (batch, frames)."""
        return padding_mask(self.lengths, self.normed.shape[1])


class SpeechEncoder(nn.Module):
    """Waveforms to frames at 50 Hz.

    Initialisation: see WaveformFrontEnd and Encoder; the vector of hidden frames is uniform(0, 1).
    """

    def __init__(self, config: SpeechEncoderConfig) -> None:
        super().__init__()
        self.config = config
        self.frontend = WaveformFrontEnd(config.waveform, config.encoder.dim)
        self.feature_mask = nn.Parameter(torch.rand(config.encoder.dim))
        self.encoder = Encoder(config.encoder)
        self.adapter: LengthAdapter | None = None
        if config.adapter is not None:
            self.adapter = LengthAdapter(config.adapter, config.encoder.dim, config.waveform.compute_padding)

    @property
    def dim(self) -> int:
        """Width of the output."""
        return self.config.encoder.dim if self.adapter is None else self.adapter.dim

    @property
    def input_format(self) -> InputFormat:
        """Sound alone, as a waveform."""
        waveform = self.config.waveform
        return InputFormat(
            audio_normalise="utterance" if waveform.normalise else "none",
            video_size=None,
            label_rate=self.label_rate,
            waveform=True,
            frame_rate=waveform.frame_rate,
            shortest=waveform.receptive_field,
        )

    @property
    def label_rate(self) -> float:
        """Units per second, for those that learn from units."""
        return self.config.waveform.frame_rate

    def drop_heads(self) -> None:
        """Remove what only pre-training needs; there is nothing in the encoder alone."""

    def encode(
        self, batch: Batch, output_layer: int | None = None, mask: InputMask | None = None, keep: dict[str, Tensor] | None = None
    ) -> tuple[Tensor, Tensor]:
        """Features at 50 Hz, or of the adapter: (batch, frames, dim) and lengths (batch,).

        Args:
            output_layer: see Encoder.forward; layers have no adapter behind them.
            mask: ``fused`` hides frames, ``channels`` channels; None hides nothing.
            keep: modality dropout of audio-visual batches; there is only one modality here.
        """
        del keep
        heard = self.hear(batch)
        encoded = self.encoder(self.hide(heard.projected, mask), heard.lengths, output_layer)
        if self.adapter is None or output_layer is not None:
            return encoded, heard.lengths
        return self.adapter(encoded, heard.lengths)

    def hidden_states(self, batch: Batch) -> tuple[list[Tensor], Tensor]:
        """What enters the layers and what each of them puts out, (batch, frames, dim) each, and lengths (batch,); the last one as encode
        gives it without an adapter."""
        heard = self.hear(batch)
        return self.encoder.hidden_states(self.hide(heard.projected, None), heard.lengths), heard.lengths

    def hear(self, batch: Batch, frames: int | None = None) -> Heard:
        """Run the front-end.

        Args:
            frames: keep at most so many.

        Raises:
            ValueError: no sound, or none as a waveform.
        """
        wave, samples = batch.waveforms()
        convolved = self.frontend.convolve(wave, samples, self.config.feature_gradient_scale)[:, :frames]
        normed, projected = self.frontend(convolved)
        lengths = self.config.waveform.valid_frames(samples, wave.shape[1], convolved.shape[1])
        return Heard(convolved, normed, projected, lengths)

    def hide(self, projected: Tensor, mask: InputMask | None) -> Tensor:
        """Dropout, then masks: what the encoder sees of (batch, frames, dim)."""
        return self.cover(self.frontend.dropout(projected), mask)

    def cover(self, x: Tensor, mask: InputMask | None) -> Tensor:
        """The masks alone, over (batch, frames, dim)."""
        if mask is None:
            return x
        frames, channels = mask.fused, mask.channels
        if channels is not None and self.config.channels_first:
            x = x.masked_fill(channels[:, None], 0.0)
        if frames is not None:
            x = torch.where(frames[:, : x.shape[1], None], self.feature_mask.to(x.dtype), x)
        if channels is not None and not self.config.channels_first:
            x = x.masked_fill(channels[:, None], 0.0)
        return x

    # Masks (section 3.1) -------------------------------------------------------------------------------------------------------------

    def draw_masks(
        self,
        batch: Batch,
        generator: torch.Generator,
        frames: SpanMaskConfig | None = None,
        channels: SpanMaskConfig | None = None,
        same_count: bool | None = None,
    ) -> InputMask:
        """Masks for a batch, on its device; the generator is a CPU one. Fine-tuning gives other spans than those of the configuration.

        Raises:
            ValueError: a clip of which nothing would be seen.
        """
        config, waveform = self.config, self.config.waveform
        frames, channels = frames or config.mask, channels or config.channel_mask
        assert batch.audio is not None
        assert batch.audio_lengths is not None
        samples, device = batch.audio.shape[1], batch.audio.device
        width = int(waveform.frames(torch.tensor(samples)))
        lengths = waveform.valid_frames(batch.audio_lengths.cpu(), samples, max(width, 1))
        hidden = span_mask(lengths, width, frames, generator, config.same_mask_count if same_count is None else same_count)
        unseen = torch.nonzero((hidden.sum(1) >= lengths) & (lengths > 0)).flatten().tolist()
        if unseen:
            raise ValueError(
                f"{batch.ids[unseen[0]]}: all {int(lengths[unseen[0]])} frames of this clip would be hidden by spans of {frames.length}; "
                "raise min_seconds of its source."
            )
        silenced = None
        if channels.prob > 0:
            width = config.encoder.dim
            silenced = span_mask(torch.full((len(batch),), width), width, channels, generator, same_count=False).to(device)
        return InputMask(fused=hidden.to(device), channels=silenced)

    def hidden_frames(self, heard: Heard, mask: InputMask) -> Tensor:
        """Frames in the loss: bool (batch, frames), hidden ones that are no padding (the official code takes these as well)."""
        frames = heard.normed.shape[1]
        hidden = mask.hidden(frames)
        if hidden is None:
            return torch.zeros_like(heard.padding)
        return hidden if self.config.waveform.compute_padding else hidden & ~heard.padding

    def feature_penalty(self, heard: Heard, weight: float, count: Tensor) -> Loss:
        """``weight`` times the mean square of the convolutions' output, times the frames in the loss (released settings: 10)."""
        squares = heard.convolved.float().square().mean(-1)
        if self.config.waveform.compute_padding:
            penalty = squares.mean()
        else:
            there = ~padding_mask(heard.lengths, squares.shape[1])
            penalty = (squares * there).sum() / there.sum().clamp(min=1)
        zero = torch.zeros_like(count)
        return Loss(weight * penalty * count, zero, {"feature_penalty": (penalty.detach(), zero + 1)})
