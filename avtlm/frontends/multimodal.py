"""Audio, lips and phones to one fused sequence at 25 Hz: what AV-HuBERT and VATLM have in front of their encoder.

Paper terms: VATLM section III-B (modality-dependent pre-processing), AV-HuBERT sections 3.1-3.2. Masked inputs are prepared here because
input masking works before the front-ends (a learned vector for audio, frames of the same clip for video) and feature masking after the
fusion.
"""

from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from torch import Tensor, nn

from avtlm.data.batching import Batch, fit
from avtlm.frontends.fusion import Fusion
from avtlm.frontends.lips import LipEncoder, LipEncoderConfig, normalise_grey
from avtlm.frontends.text import PhoneEncoder, downsampled
from avtlm.nn.attention import padding_mask
from avtlm.nn.gradient import ScaleGradient
from avtlm.nn.transformer import Encoder, EncoderConfig


@dataclass(frozen=True)
class FrontEndConfig:
    """Front-ends and their fusion; ``phones`` = 0 leaves the text slot out (AV-HuBERT)."""

    audio_dim: int = 104
    audio_normalise: Literal["frame", "utterance", "none"] = "frame"
    lips: LipEncoderConfig = field(default_factory=LipEncoderConfig)
    phones: int = 46
    fusion: Literal["concat", "add"] = "concat"
    # Transformer layers of audio and of video each, before the fusion (AV-HuBERT's ``sub_encoder_layers``; 0 in every released model).
    layers: int = 0
    # A norm behind each front-end keeps one modality from drowning the others in small models; the official ones have none.
    feature_norm: bool = False
    # The official code runs the front-ends over padded frames too; they reach the batch norms and the feature penalty, never the encoder.
    compute_padding: bool = False
    dropout: float = 0.1

    @property
    def modalities(self) -> tuple[str, ...]:
        return ("audio", "video", "text") if self.phones else ("audio", "video")


@dataclass(frozen=True)
class InputMask:
    """Hidden frames of one batch.

    Attributes:
        audio, video: bool (batch, frames), hidden before the front-ends.
        video_source: int (batch, frames), which frame stands in for each hidden video frame; None hides them as zeros.
        fused: bool (batch, frames), hidden behind the fusion.
        video_row: int (batch,), the row of the batch that these frames are taken from; None takes them from the same clip.
        channels: bool (batch, dim), set to zero in all frames before the encoder.
    """

    audio: Tensor | None = None
    video: Tensor | None = None
    video_source: Tensor | None = None
    fused: Tensor | None = None
    video_row: Tensor | None = None
    channels: Tensor | None = None

    def to(self, device: torch.device | str) -> "InputMask":
        parts = (self.audio, self.video, self.video_source, self.fused, self.video_row, self.channels)
        return InputMask(*(None if part is None else part.to(device) for part in parts))

    def hidden(self, frames: int) -> Tensor | None:
        """Frames that are hidden in any way, bool (batch, frames); None if nothing is."""
        parts = [part[:, :frames] for part in (self.audio, self.video, self.fused) if part is not None]
        return torch.stack(parts).any(0) if parts else None


@dataclass(frozen=True)
class Fused:
    """Joined features before norm and projection.

    Attributes:
        joined: (batch, frames, width).
        lengths: valid frames of each row, (batch,).
        present: which rows hold which modality, bool (batch,) by name; what modality dropout hid counts as missing.
    """

    joined: Tensor
    lengths: Tensor
    present: dict[str, Tensor]

    def first(self, frames: int) -> "Fused":
        """The same, cut at the end."""
        return Fused(self.joined[:, :frames], self.lengths.clamp(max=frames), self.present)


class MultimodalFrontEnd(nn.Module):
    """All front-ends of an audio-visual(-text) model and their fusion.

    Args:
        config: sizes and kinds.
        dim: width of the encoder behind it.
        mask_audio: whether hidden audio frames are replaced by a learned vector.
        layer: what a layer of the encoder is like; needed for ``config.layers`` only.
    """

    def __init__(self, config: FrontEndConfig, dim: int, mask_audio: bool = True, layer: EncoderConfig | None = None) -> None:
        super().__init__()
        self.config = config
        self.dim = dim
        # What hidden audio frames are replaced by; models that mask behind the fusion have no such vector.
        self.audio_mask = nn.Parameter(torch.rand(config.audio_dim)) if mask_audio else None
        self.audio = nn.Linear(config.audio_dim, dim)
        self.lips = LipEncoder(config.lips)
        self.video = nn.Linear(self.lips.output_dim, dim)
        self.audio_encoder = _own_encoder(layer, config.layers)
        self.video_encoder = _own_encoder(layer, config.layers)
        self.text = PhoneEncoder(config.phones, dim) if config.phones else None
        self.norms = nn.ModuleDict({name: nn.LayerNorm(dim) for name in config.modalities}) if config.feature_norm else None
        self.fusion = Fusion(dim, config.modalities, config.fusion)
        self.dropout = nn.Dropout(config.dropout)

    def join(
        self, batch: Batch, mask: InputMask | None = None, keep: dict[str, Tensor] | None = None, gradient_scale: float = 1.0
    ) -> Fused:
        """Run the front-ends of what is there and join them.

        Args:
            batch: at least one of audio, video, text; rows may lack some of them (length 0).
            mask: frames to hide before the front-ends. A batch of one hides audio and video as zeros, as the official code does.
            keep: rows whose modality is kept, bool (batch,), by ``audio`` and ``video`` (modality dropout).
            gradient_scale: multiplies the gradients into the audio and the video front-end.

        Raises:
            ValueError: nothing to join, or a modality that this model has no front-end for.
        """
        mask, keep = mask or InputMask(), keep or {}
        features: dict[str, Tensor] = {}
        lengths: dict[str, Tensor] = {}
        alone = len(batch) == 1
        if batch.audio is not None:
            assert batch.audio_lengths is not None
            audio = batch.audio
            if mask.audio is not None:
                vector = torch.zeros((), device=audio.device) if alone or self.audio_mask is None else self.audio_mask
                audio = torch.where(mask.audio[..., None], vector.to(audio.dtype), audio)
            features["audio"] = self._encode(self.audio(audio), self.audio_encoder, batch.audio_lengths, gradient_scale)
            lengths["audio"] = batch.audio_lengths
        if batch.video is not None:
            assert batch.video_lengths is not None
            shown = self._hide_video(batch.video, mask, alone)
            if self.config.compute_padding:
                shown = _blank_padding(shown, batch.video_lengths)
            # Lips that modality dropout hides are not looked at: the lip encoder is most of the work of a step.
            looked_at = batch.video_lengths * keep["video"] if "video" in keep else batch.video_lengths
            encoded = self.lips(shown, self.computed(looked_at, shown.shape[1]))
            features["video"] = self._encode(self.video(encoded), self.video_encoder, batch.video_lengths, gradient_scale)
            lengths["video"] = batch.video_lengths
        if batch.text is not None:
            if self.text is None or batch.text_lengths is None:
                raise ValueError(f"{batch.ids[0]}: this model has no text front-end; leave the text out or set frontends.phones.")
            features["text"] = self.text(batch.text, self.computed(batch.text_lengths, batch.text.shape[1]))
            lengths["text"] = downsampled(batch.text_lengths)
        if not features:
            raise ValueError(f"{batch.ids[0]}: neither audio nor video nor text; give at least one.")
        # Audio or video set the clock; phones are cut or filled up with zeros to their length (VATLM's audio-text batches).
        clock = [lengths[name] for name in ("audio", "video") if name in lengths] or [lengths["text"]]
        valid = torch.stack(clock).amax(0)
        frames = max(features[name].shape[1] for name in features if name != "text" or len(features) == 1)
        present: dict[str, Tensor] = {}
        for name, feature in features.items():
            if self.norms is not None:
                feature = self.norms[name](feature)
            present[name] = there = (lengths[name] > 0) & keep.get(name, torch.ones_like(lengths[name], dtype=torch.bool))
            beyond = padding_mask(self.computed(lengths[name], feature.shape[1]), feature.shape[1])
            feature = feature.masked_fill((beyond | ~there[:, None])[..., None], 0.0)
            features[name] = fit(feature.transpose(0, 1), frames).transpose(0, 1)
        return Fused(self.fusion.join(features), valid, present)

    def _encode(self, x: Tensor, encoder: Encoder | None, lengths: Tensor, gradient_scale: float) -> Tensor:
        if encoder is not None:
            x = encoder(x, self.computed(lengths, x.shape[1]))
        scaled: Tensor = ScaleGradient.apply(x, gradient_scale)
        return scaled

    def computed(self, lengths: Tensor, frames: int) -> Tensor:
        """How many frames of each row the front-ends compute: its own, or all of them (``compute_padding``)."""
        return torch.full_like(lengths, frames) if self.config.compute_padding else lengths

    def fuse(self, fused: Fused) -> Tensor:
        """Norm, project, drop: (batch, frames, dim)."""
        return self.dropout(self.fusion(fused.joined))

    def _hide_video(self, video: Tensor, mask: InputMask, alone: bool) -> Tensor:
        if mask.video is None:
            return video
        if alone or mask.video_source is None:
            # Zero is the mean grey value once frames are normalised, so normalise first.
            return normalise_grey(video).masked_fill(mask.video[..., None, None], 0.0)
        own = torch.arange(len(video), device=video.device)[:, None]
        if mask.video_row is None:
            return video[own, mask.video_source]
        return video[torch.where(mask.video, mask.video_row[:, None], own), mask.video_source]


def _own_encoder(layer: EncoderConfig | None, layers: int) -> Encoder | None:
    if layers == 0:
        return None
    assert layer is not None, "front-ends with layers of their own need the encoder's configuration"
    return Encoder(replace(layer, layers=layers, experts=(), joint_layers=0))


def _blank_padding(video: Tensor, lengths: Tensor) -> Tensor:
    """Normalised crops whose padded frames are zero, the mean grey."""
    grey = video if video.is_floating_point() else normalise_grey(video.flatten(0, 1)).view_as(video)
    return grey.masked_fill(padding_mask(lengths, video.shape[1])[..., None, None], 0.0)
