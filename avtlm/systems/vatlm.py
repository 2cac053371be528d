"""VATLM: one model and one masked-prediction loss for lip video, audio and text (Zhu et al., arXiv 2211.11275).

What is unusual here:
- Three slots, [audio, video, phones], are concatenated; an absent modality is a block of zeros. Four kinds of batches train the same
  encoder: audio + video, audio alone, audio + text, text alone. Their targets come from one inventory of units (section III-C).
- No modality experts: one plain Transformer sees every input.
- The released ``input`` masking only works with video and audio present. Here it masks the modalities that are there, their union is in the
  loss, and text alone is masked behind the fusion with zeros. ``feature`` masking (the other released type) always masks behind the fusion,
  with a learned vector.
- The text-only batches of the official code have no padding mask, and its front-ends run over padding; ours have one, and ours stop at each
  row's end, so that a loss does not depend on what it is batched with (``frontends.compute_padding`` brings the official way back).

Order below: config, model, masks (section III-D), losses.
"""

from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn

from avtlm.data.batching import Batch
from avtlm.frontends.fusion import modality_dropout
from avtlm.frontends.multimodal import FrontEndConfig, Fused, InputMask, MultimodalFrontEnd
from avtlm.nn.attention import padding_mask
from avtlm.nn.transformer import Encoder, EncoderConfig
from avtlm.objectives.loss import Loss
from avtlm.objectives.masked_prediction import UnitPredictor, masked_prediction_loss
from avtlm.objectives.masking import SpanMaskConfig, imposters, span_mask


@dataclass(frozen=True)
class VATLMConfig:
    """The defaults are VATLM base (107,497,448 parameters with 2004 units and 46 phones)."""

    frontends: FrontEndConfig = field(default_factory=FrontEndConfig)
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    units: int = 2004
    final_dim: int = 256
    temperature: float = 0.1
    masking: Literal["input", "feature"] = "input"
    audio_mask: SpanMaskConfig = field(default_factory=SpanMaskConfig)
    video_mask: SpanMaskConfig = field(default_factory=lambda: SpanMaskConfig(prob=0.3, length=5))
    text_mask: SpanMaskConfig = field(default_factory=SpanMaskConfig)
    same_mask_count: bool = True
    modality_dropout: float = 0.5
    audio_dropout: float = 0.5
    # The official code draws one modality dropout for a whole batch.
    dropout_per_row: bool = False
    masked_weight: float = 1.0
    visible_weight: float = 0.0
    feature_penalty: float = 10.0
    feature_gradient_scale: float = 0.1

    def __post_init__(self) -> None:
        if self.units < 2:
            raise ValueError(f"units: {self.units}; masked prediction needs at least 2 units.")
        if self.masking == "feature" and self.audio_mask != self.video_mask:
            raise ValueError("audio_mask, video_mask: feature masking hides fused frames, so both must be equal.")


class VATLM(nn.Module):
    """Encoder for any mix of audio, lip video and phones, with a head over units."""

    def __init__(self, config: VATLMConfig) -> None:
        super().__init__()
        self.config = config
        dim = config.encoder.dim
        self.frontends = MultimodalFrontEnd(config.frontends, dim, mask_audio=config.masking == "input")
        self.encoder = Encoder(config.encoder)
        self.feature_mask = nn.Parameter(torch.rand(dim)) if config.masking == "feature" else None
        self.predictor = UnitPredictor(dim, config.units, config.final_dim, config.temperature)

    @property
    def dim(self) -> int:
        """Width of the encoder's output."""
        return self.config.encoder.dim

    @property
    def inventory(self) -> dict[str, int]:
        """Units that are predicted and phones that are known."""
        return {"units": self.config.units, "phones": self.config.frontends.phones}

    def encode(
        self, batch: Batch, output_layer: int | None = None, mask: InputMask | None = None, keep: dict[str, Tensor] | None = None
    ) -> tuple[Tensor, Tensor]:
        """Features at 25 Hz: (batch, frames, dim) and lengths (batch,).

        Args:
            output_layer: see Encoder.forward.
            mask, keep: input masks and modality dropout (fine-tuning draws its own); None hides nothing.
        """
        fused = self.frontends.join(batch, mask, keep)
        return self.encoder(self.frontends.fuse(fused), fused.lengths, output_layer), fused.lengths

    # Masks (section III-D; AV-HuBERT section 3.2) ------------------------------------------------------------------------------------

    def draw_masks(self, batch: Batch, generator: torch.Generator) -> InputMask:
        """Masks for what the batch holds; video is drawn before audio. On the CPU; the generator is a CPU one."""
        config, same = self.config, self.config.same_mask_count
        if config.masking == "feature" or (batch.audio is None and batch.video is None):
            lengths, frames, spans = self._clock(batch)
            return InputMask(text=span_mask(lengths, frames, spans, generator, same))
        audio = video = source = None
        if batch.video is not None and batch.video_lengths is not None:
            video = span_mask(batch.video_lengths.cpu(), batch.video.shape[1], config.video_mask, generator, same)
            source = imposters(video, generator, self.frontends.computed(batch.video_lengths.cpu(), batch.video.shape[1]))
        if batch.audio is not None and batch.audio_lengths is not None:
            audio = span_mask(batch.audio_lengths.cpu(), batch.audio.shape[1], config.audio_mask, generator, same)
        return InputMask(audio=audio, video=video, video_source=source)

    def _clock(self, batch: Batch) -> tuple[Tensor, int, SpanMaskConfig]:
        for value, lengths in ((batch.audio, batch.audio_lengths), (batch.video, batch.video_lengths)):
            if value is not None and lengths is not None:
                return lengths.cpu(), value.shape[1], self.config.audio_mask
        assert batch.text is not None
        assert batch.text_lengths is not None
        return (batch.text_lengths.cpu() + 3) // 4, -(-batch.text.shape[1] // 4), self.config.text_mask

    # Losses (section III-D) ----------------------------------------------------------------------------------------------------------

    def losses(self, batch: Batch, generator: torch.Generator) -> dict[str, Loss]:
        """Masked prediction over the batch's units, and the penalty on the size of the fused features (sum over frames, as the official
        code)."""
        device = self.predictor.units.device
        mask = self.draw_masks(batch, generator)
        keep = {}
        if batch.audio is not None and batch.video is not None:
            rows = len(batch) if self.config.dropout_per_row else 1
            audio, video = modality_dropout(self.config.modality_dropout, self.config.audio_dropout, generator, rows)
            keep = {"audio": audio.expand(len(batch)).to(device), "video": video.expand(len(batch)).to(device)}
        mask = InputMask(*(part if part is None else part.to(device) for part in (mask.audio, mask.video, mask.video_source, mask.text)))
        return self.masked_losses(batch, mask, keep)

    def masked_losses(self, batch: Batch, mask: InputMask, keep: dict[str, Tensor] | None = None) -> dict[str, Loss]:
        """The same with given masks and modality dropout, so that a stored case can be replayed."""
        fused = self.frontends.join(batch, mask, keep, self.config.feature_gradient_scale)
        units = batch.targets["units"][:, : fused.joined.shape[1]]
        frames = min(fused.joined.shape[1], units.shape[1])
        fused = Fused(fused.joined[:, :frames], fused.lengths.clamp(max=frames))
        penalised = ~padding_mask(self.frontends.computed(fused.lengths, frames), frames)
        squares = fused.joined.float().square().mean(-1) * penalised
        penalty = squares.sum() / penalised.sum()
        x = self.frontends.fuse(fused)
        hidden = torch.zeros_like(units[:, :frames], dtype=torch.bool)
        for part in (mask.audio, mask.video, mask.text):
            if part is not None:
                hidden = hidden | part[:, :frames]
        if mask.text is not None:
            vector = x.new_zeros(()) if self.feature_mask is None else self.feature_mask.to(x.dtype)
            x = torch.where(mask.text[:, :frames, None], vector, x)
        encoded = self.encoder(x, fused.lengths)
        loss = masked_prediction_loss(
            self.predictor,
            encoded,
            units[:, :frames],
            hidden,
            padding_mask(fused.lengths, frames),
            self.config.masked_weight,
            self.config.visible_weight,
        )
        scale = self.config.feature_penalty * loss.count
        zero = torch.zeros_like(loss.count)
        return {
            "masked_prediction": loss,
            "feature_penalty": Loss(penalty * scale, zero, {"feature_penalty": (penalty.detach(), zero + 1)}),
        }
