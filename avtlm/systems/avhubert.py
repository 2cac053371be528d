"""AV-HuBERT: masked prediction of units from lip video and audio (Shi et al., arXiv 2201.02184; in noise arXiv 2201.01763).

What is unusual here:
- Audio and video are fused frame by frame before one Transformer; a missing modality is a block of zeros behind its front-end. In training
  one of the two is dropped at random, so that the same model serves audio, lips and both (section 3.1).
- Iterations 1 to 4 hide fused frames (``feature`` masking), iteration 5 hides the inputs: audio behind a learned vector, video behind
  frames of the same clip (``input``; section 3.2). Each iteration predicts clusters of the features of the one before.
- Several inventories of units may be predicted at once, as by HuBERT. Their labels are the targets ``units``, ``units_1``, ...
- The front-ends of the official code run over padding; ours stop at each row's end, so that a loss does not depend on what it is batched
  with (``frontends.compute_padding`` brings the official way back).

Order below: config, model, masks (section 3.2), losses. VATLM (vatlm.py) adds text to this model.
"""

from dataclasses import dataclass, field
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from avtlm.data.batching import Batch
from avtlm.data.inputs import InputFormat
from avtlm.frontends.filterbank import FRAME_RATE
from avtlm.frontends.fusion import keep_modalities
from avtlm.frontends.multimodal import FrontEndConfig, Fused, InputMask, MultimodalFrontEnd
from avtlm.nn.attention import padding_mask
from avtlm.nn.feed_forward import Routing, route
from avtlm.nn.transformer import Encoder, EncoderConfig
from avtlm.objectives.loss import Loss
from avtlm.objectives.masked_prediction import UnitPredictor, inventories, masked_prediction_loss, units_of_frames
from avtlm.objectives.masking import SpanMaskConfig, imposters, other_clip, span_mask


@dataclass(frozen=True)
class AVHubertConfig:
    """The defaults are AV-HuBERT base in iteration 5 (103,330,280 parameters with 2004 units).

    Attributes:
        units: size of the inventory (for official checkpoints: clusters + 4, the dictionary's special symbols first).
        further_units: sizes of further inventories.
        separate_projections: every inventory has a projection of the frames to itself.
        final_dim: width in which frames and units are compared, by ``similarity`` over ``temperature``.
        label_rate: units per second in a batch; of those at 100 Hz (MFCC clusters of iteration 1) every fourth is predicted.
        masking: ``input`` (iteration 5) or ``feature`` (iterations 1-4).
        video_stand_in: what hidden video frames are replaced by: frames of the same clip (``same_clip``, all released models) or of another
            one of the batch (``other_clip``; a loss then depends on its batch).
        channel_mask: spans of channels that are set to zero behind the fusion, with ``feature`` masking only (no released model does it).
        same_mask_count: thin the masks of a batch to equal numbers of hidden frames, as the official code.
        modality_dropout, audio_dropout: see avtlm.frontends.fusion.keep_modalities.
        dropout_per_row: the official code draws one modality dropout for a whole batch.
        masked_weight, visible_weight: of the cross-entropy over hidden and over other frames (``visible_weight`` is 1 in the large models).
        feature_penalty: weight of the mean square of the fused features, times the frames in the loss.
        feature_gradient_scale: multiplies the gradients into the audio and the video front-end.
    """

    frontends: FrontEndConfig = field(default_factory=lambda: FrontEndConfig(phones=0))
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    units: int = 2004
    further_units: tuple[int, ...] = ()
    separate_projections: bool = False
    final_dim: int = 256
    temperature: float = 0.1
    similarity: Literal["cosine", "dot"] = "cosine"
    label_rate: float = FRAME_RATE
    masking: Literal["input", "feature"] = "input"
    audio_mask: SpanMaskConfig = field(default_factory=SpanMaskConfig)
    video_mask: SpanMaskConfig = field(default_factory=lambda: SpanMaskConfig(prob=0.3, length=5))
    channel_mask: SpanMaskConfig = field(default_factory=lambda: SpanMaskConfig(prob=0.0, min_spans=0))
    video_stand_in: Literal["same_clip", "other_clip"] = "same_clip"
    same_mask_count: bool = True
    modality_dropout: float = 0.5
    audio_dropout: float = 0.5
    dropout_per_row: bool = False
    masked_weight: float = 1.0
    visible_weight: float = 0.0
    feature_penalty: float = 10.0
    feature_gradient_scale: float = 0.1
    takes_text: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if min(self.units, *self.further_units, self.units) < 2:
            raise ValueError(f"units: {', '.join(map(str, self.inventories))}; masked prediction needs at least 2 units.")
        if self.label_rate <= 0:
            raise ValueError(f"label_rate: {self.label_rate} units per second; give a positive number.")
        if self.masking == "feature" and self.audio_mask != self.video_mask:
            raise ValueError("audio_mask, video_mask: feature masking hides fused frames, so both must be equal.")
        if self.masking == "input" and self.channel_mask.prob > 0:
            raise ValueError(f"channel_mask: prob {self.channel_mask.prob}, but input masking hides no channels; set it to 0.")
        if self.frontends.phones and not self.takes_text:
            raise ValueError(f"frontends.phones: {self.frontends.phones}, but AV-HuBERT takes no text; set 0 or use VATLM.")

    @property
    def inventories(self) -> tuple[int, ...]:
        """Sizes of all inventories of units."""
        return (self.units, *self.further_units)


@dataclass(frozen=True)
class Prediction:
    """What the encoder makes of a masked batch, and what it should predict; all but the penalty are cut to the frames that have units.

    Attributes:
        fused: joined features, normed and projected, before any of them is hidden, (batch, frames, dim).
        encoded: (batch, frames, dim).
        units: of every inventory, int (batch, frames).
        hidden, padding: bool (batch, frames).
        penalty: mean square of the joined features, a scalar.
    """

    fused: Tensor
    encoded: Tensor
    units: list[Tensor]
    hidden: Tensor
    padding: Tensor
    penalty: Tensor


class AVHubert(nn.Module):
    """Encoder for audio, lip video or both, with a head over units."""

    def __init__(self, config: AVHubertConfig) -> None:
        super().__init__()
        self.config = config
        dim = config.encoder.dim
        self.frontends = MultimodalFrontEnd(config.frontends, dim, config.masking == "input", config.encoder)
        self.encoder = Encoder(config.encoder)
        self.feature_mask = nn.Parameter(torch.rand(dim)) if config.masking == "feature" else None
        compared = (config.final_dim, config.temperature, config.similarity)
        self.predictor = UnitPredictor(dim, config.inventories, *compared, config.separate_projections)

    @property
    def dim(self) -> int:
        """Width of the encoder's output."""
        return self.config.encoder.dim

    @property
    def input_format(self) -> InputFormat:
        """What the front-ends take in."""
        frontends = self.config.frontends
        return InputFormat(frontends.audio_normalise, frontends.lips.size, self.config.label_rate)

    @property
    def inventory(self) -> dict[str, int]:
        """Units that are predicted and phones that are known."""
        further = {f"units_{number}": size for number, size in enumerate(self.config.further_units, 1)}
        return {"units": self.config.units, **further, "phones": self.config.frontends.phones}

    def encode(
        self, batch: Batch, output_layer: int | None = None, mask: InputMask | None = None, keep: dict[str, Tensor] | None = None
    ) -> tuple[Tensor, Tensor]:
        """Features at 25 Hz: (batch, frames, dim) and lengths (batch,).

        Args:
            output_layer: see Encoder.forward.
            mask, keep: input masks and modality dropout (fine-tuning draws its own); None hides nothing.
        """
        fused = self.frontends.join(batch, mask, keep)
        return self.encoder(self.frontends.fuse(fused), fused.lengths, output_layer, self._routing(fused)), fused.lengths

    def hidden_states(self, batch: Batch) -> tuple[list[Tensor], Tensor]:
        """What enters the layers and what each of them puts out, (batch, frames, dim) each, and lengths (batch,)."""
        fused = self.frontends.join(batch, None, None)
        states = self.encoder.hidden_states(self.frontends.fuse(fused), fused.lengths, routing=self._routing(fused))
        return states, fused.lengths

    def _routing(self, fused: Fused) -> Routing | None:
        """Rows with one modality to its expert, if the encoder has experts."""
        return route(fused.present) if self.config.encoder.experts else None

    # Masks (section 3.2) -------------------------------------------------------------------------------------------------------------

    def draw_masks(self, batch: Batch, generator: torch.Generator) -> InputMask:
        """Masks for what the batch holds; video is drawn before audio. On the CPU; the generator is a CPU one."""
        config, same = self.config, self.config.same_mask_count
        if config.masking == "feature":
            value, lengths = (batch.audio, batch.audio_lengths) if batch.audio is not None else (batch.video, batch.video_lengths)
            assert value is not None
            assert lengths is not None
            hidden = span_mask(lengths.cpu(), value.shape[1], config.audio_mask, generator, same)
            return InputMask(fused=hidden, channels=self.draw_channels(len(batch), generator))
        audio = video = source = row = None
        if batch.video is not None and batch.video_lengths is not None:
            lengths, frames = batch.video_lengths.cpu(), batch.video.shape[1]
            video = span_mask(lengths, frames, config.video_mask, generator, same)
            computed = self.frontends.computed(lengths, frames)
            if config.video_stand_in == "same_clip":
                source = imposters(video, generator, computed)
            elif len(batch) > 1:
                row, source = other_clip(computed, frames, generator)
                source = torch.where(video, source, torch.arange(frames))
        if batch.audio is not None and batch.audio_lengths is not None:
            audio = span_mask(batch.audio_lengths.cpu(), batch.audio.shape[1], config.audio_mask, generator, same)
        return InputMask(audio=audio, video=video, video_source=source, video_row=row)

    def draw_channels(self, rows: int, generator: torch.Generator) -> Tensor | None:
        """Channels that are hidden behind the fusion, bool (rows, dim); None if there are none."""
        config = self.config
        if config.masking == "input" or config.channel_mask.prob == 0:
            return None
        return span_mask(torch.full((rows,), self.dim), self.dim, config.channel_mask, generator, config.same_mask_count)

    # Losses (section 3.1; the penalty is the official code's) ------------------------------------------------------------------------

    def losses(self, batch: Batch, generator: torch.Generator) -> dict[str, Loss]:
        """Masked prediction over the batch's units, and the penalty on the size of the fused features (sum over frames, as the official
        code)."""
        config = self.config
        mask = self.draw_masks(batch, generator).to(self.predictor.units.device)
        keep = keep_modalities(batch, config.modality_dropout, config.audio_dropout, generator, config.dropout_per_row)
        return self.masked_losses(batch, mask, keep)

    def masked_losses(self, batch: Batch, mask: InputMask, keep: dict[str, Tensor] | None = None) -> dict[str, Loss]:
        """The same with given masks and modality dropout, so that a stored case can be replayed."""
        config, seen = self.config, self.predict(batch, mask, keep)
        loss = masked_prediction_loss(
            self.predictor, seen.encoded, seen.units, seen.hidden, seen.padding, config.masked_weight, config.visible_weight
        )
        scale, zero = config.feature_penalty * loss.count, torch.zeros_like(loss.count)
        logs = {"feature_penalty": (seen.penalty.detach(), zero + 1)}
        return {"masked_prediction": loss, "feature_penalty": Loss(seen.penalty * scale, zero, logs)}

    def predict(self, batch: Batch, mask: InputMask, keep: dict[str, Tensor] | None = None) -> Prediction:
        """Encode a batch with hidden frames; ``units`` of its targets say what is to be predicted.

        Raises:
            ValueError: an inventory of units without labels.
        """
        fused = self.frontends.join(batch, mask, keep, self.config.feature_gradient_scale)
        labels = inventories(batch.targets, len(self.config.inventories), batch.ids[0])
        units = [units_of_frames(each, fused.joined.shape[1], self.config.label_rate / FRAME_RATE) for each in labels]
        frames = units[0].shape[1]
        fused = fused.first(frames)
        penalised = ~padding_mask(self.frontends.computed(fused.lengths, frames), frames)
        squares = fused.joined.float().square().mean(-1) * penalised
        x = projected = self.frontends.fuse(fused)
        if mask.fused is not None:
            # A model that hides its inputs has no vector for fused frames; VATLM's text alone is hidden by zeros then.
            vector = x.new_zeros(()) if self.feature_mask is None else self.feature_mask.to(x.dtype)
            x = torch.where(mask.fused[:, :frames, None], vector, x)
        if mask.channels is not None:
            x = x.masked_fill(mask.channels[:, None], 0.0)
        hidden = mask.hidden(frames)
        return Prediction(
            projected,
            self.encoder(x, fused.lengths, routing=self._routing(fused)),
            units,
            torch.zeros_like(units[0], dtype=torch.bool) if hidden is None else hidden,
            padding_mask(fused.lengths, frames),
            squares.sum() / penalised.sum(),
        )
