"""Multi-stage multi-modal pre-training for speech recognition (Jain et al., arXiv 2403.19822): the model of the first stage.

There is no public code, and the paper's text was not at hand. From its abstract come the three stages (audio-visual pre-training, a
supervised one whose task is translation, recognition from speech alone), and from a summary of it the two objectives, masked autoencoding
(mae) and contrastive learning (clr). Sizes, masks, weights and all else in this file are proposals of this library, none of them a value of
the paper.

What is unusual here:
- The audio encoder stands by itself: filter bank, two convolutions, a norm, positions, layers; frames of 40 ms of speech of any length. It
  alone is handed to translation and recognition; the rest (`Pretraining`) goes when heads are dropped.
- Tokens that mae removes are not computed. Nothing of them is left to their neighbours: the filter bank is silent and lips are grey where
  they were, before any convolution sees it.
- Audio and video meet in joint layers over all kept tokens of both; what is simultaneous is told by positions alone.
- Clips are told apart (clr) within the batch that they come in, so that a loss does not depend on how many processes train.

The functions behind it, and the model they come from, are those of CAV-MAE (cav_mae.py). Order below: config, what only pre-training needs,
the model, its losses. Over 400 lines, because the encoder that stays belongs beside what it learns by.
"""

from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from torch import Tensor, nn

from avtlm.data.batching import Batch
from avtlm.data.inputs import InputFormat
from avtlm.frontends.filterbank import FRAME_RATE
from avtlm.frontends.lips import LipEncoderConfig
from avtlm.frontends.multimodal import InputMask
from avtlm.frontends.subsampling import LEAST_SAMPLES, SubsamplingConfig, SubsamplingFrontEnd, fbank_frames, shortened
from avtlm.frontends.video_tokens import LipTokens, PatchConfig, PatchTokens
from avtlm.nn.attention import padding_mask
from avtlm.nn.norm import LayerNorm
from avtlm.nn.positions import PositionalConvolution, SinusoidalPositions
from avtlm.nn.reconstructor import Reconstructor
from avtlm.nn.removal import Kept
from avtlm.nn.transformer import Encoder, EncoderConfig
from avtlm.objectives.contrastive import paired_contrastive_loss
from avtlm.objectives.loss import Loss
from avtlm.objectives.masking import SpanMaskConfig, span_mask
from avtlm.objectives.reconstruction import removed_token_loss, token_targets
from avtlm.objectives.removal import RemovalConfig, remove_blocks

STACKED = 4  # frames of the filter bank that a token is to reconstruct
FIRST = 2  # of the seven frames that the convolutions see for a token, where those begin
LEAST_TEMPERATURE, MOST_TEMPERATURE = 0.01, 1.0


def _layers(dim: int, layers: int, heads: int, feed_forward_dim: int) -> EncoderConfig:
    return EncoderConfig(dim, layers, heads, feed_forward_dim, dropout=0.0, attention_dropout=0.0, layer_drop=0.0, position_kernel=0)


@dataclass(frozen=True)
class MultistageConfig:
    """The defaults are this library's proposal.

    Attributes:
        encoder: layers of the audio encoder; those of video and the joint ones are like them. (``position_kernel`` is 0, see below.)
        position_kernel, position_groups: of the positional convolution in front of the audio encoder's layers.
        objective: ``mae``, ``clr`` or ``both``.
        video: ``lips``, ``patches`` (of any video), or ``none``: mae on sound alone.
        lip_cells: lip frames are reconstructed as so many cells a side.
        video_layers, joint_layers: see ``encoder``.
        decoder: what reconstructs, in mae.
        decoder_kernel: of the positional convolutions in front of its layers, of ``position_groups``; 0 for none.
        normalise_targets: mean 0 and variance 1 of each token's values.
        contrast_dim: width in which clips are compared.
        temperature: of clr, at first; it is learned, within 0.01 and 1.
        contrast_weight: of clr beside mae, in ``both``.
    """

    subsampling: SubsamplingConfig = field(default_factory=SubsamplingConfig)
    encoder: EncoderConfig = field(
        default_factory=lambda: EncoderConfig(512, 12, 8, 2048, attention_dropout=0.0, layer_drop=0.0, position_kernel=0)
    )
    position_kernel: int = 128
    position_groups: int = 16
    objective: Literal["mae", "clr", "both"] = "both"
    video: Literal["lips", "patches", "none"] = "lips"
    lips: LipEncoderConfig = field(default_factory=LipEncoderConfig)
    lip_cells: int = 22
    patches: PatchConfig = field(default_factory=PatchConfig)
    video_layers: int = 2
    joint_layers: int = 2
    decoder: EncoderConfig = field(default_factory=lambda: _layers(256, 4, 4, 1024))
    decoder_kernel: int = 15
    removal: RemovalConfig = field(default_factory=RemovalConfig)
    normalise_targets: bool = True
    contrast_dim: int = 256
    temperature: float = 0.07
    contrast_weight: float = 0.1

    def __post_init__(self) -> None:
        for name, part in (("encoder", self.encoder), ("decoder", self.decoder)):
            if part.position_kernel or part.relative_buckets or part.key_distance or part.experts:
                raise ValueError(
                    f"{name}: set position_kernel, relative_buckets and key_distance to 0 and experts to none; positions stand before the "
                    "layers here."
                )
        if self.position_kernel < 1 or self.video_layers < 1 or self.joint_layers < 1:
            raise ValueError(
                f"position_kernel: {self.position_kernel}, video_layers: {self.video_layers}, joint_layers: {self.joint_layers}; give at "
                "least 1 of each."
            )
        if self.decoder_kernel < 0 or (self.decoder_kernel and self.decoder.dim % self.position_groups):
            raise ValueError(
                f"decoder_kernel: {self.decoder_kernel}, decoder.dim: {self.decoder.dim}; give 0 for no convolution, or a kernel and a "
                f"width that position_groups, {self.position_groups}, divides."
            )
        if self.objective != "mae" and self.video == "none":
            raise ValueError(f"video: none, but objective {self.objective} compares sound with video; choose mae, or lips or patches.")
        if not LEAST_TEMPERATURE <= self.temperature <= MOST_TEMPERATURE or self.contrast_weight <= 0:
            raise ValueError(
                f"temperature: {self.temperature}, contrast_weight: {self.contrast_weight}; give a temperature from {LEAST_TEMPERATURE} "
                f"to {MOST_TEMPERATURE:g}, and a weight above 0."
            )

    @property
    def video_size(self) -> int | None:
        """Side of the pictures that pre-training looks at."""
        return {"lips": self.lips.size, "patches": self.patches.picture, "none": None}[self.video]


@dataclass(frozen=True)
class Heard:
    """The filter bank of a batch.

    Attributes:
        features: (batch, frames, bands) at 100 Hz.
        feature_lengths: valid ones, (batch,).
        lengths: valid tokens of 40 ms, (batch,).
    """

    features: Tensor
    feature_lengths: Tensor
    lengths: Tensor

    @property
    def tokens(self) -> int:
        return shortened(self.features.shape[1])

    @property
    def targets(self) -> Tensor:
        """The four frames in the middle of what each token sees, (batch, tokens, 4 * bands)."""
        last = FIRST + STACKED * self.tokens
        return self.features[:, FIRST:last].unflatten(1, (self.tokens, STACKED)).flatten(2)


@dataclass(frozen=True)
class Seen:
    """The video of a batch: pictures (batch, frames, height, width), their numbers, tokens of each clip (both (batch,))."""

    video: Tensor
    lengths: Tensor
    counts: Tensor


@dataclass(frozen=True)
class Removed:
    """What mae does not see, bool (batch, tokens) of each modality; None of one that there is not."""

    audio: Tensor
    video: Tensor | None = None


class Pretraining(nn.Module):
    """Video encoder, joint layers, decoder and projections of clips, those that the objective needs.

    Initialisation: modality vectors N(0, 0.02), projections PyTorch's, the rest see its parts.
    """

    def __init__(self, config: MultistageConfig) -> None:
        super().__init__()
        dim, values = config.encoder.dim, [STACKED * config.subsampling.bands]
        self.video: LipTokens | PatchTokens | None = None
        self.video_encoder: Encoder | None = None
        if config.video != "none":
            lips = config.video == "lips"
            self.video = LipTokens(config.lips, dim, config.lip_cells) if lips else PatchTokens(config.patches, dim)
            self.video_encoder = Encoder(replace(config.encoder, layers=config.video_layers))
            values.append(self.video.values)
        self.positions = SinusoidalPositions(dim)
        self.joint: Encoder | None = None
        self.decoder: Reconstructor | None = None
        if config.objective != "clr":
            self.modality = nn.Parameter(torch.empty(len(values), dim).normal_(0.0, 0.02))
            self.joint = Encoder(replace(config.encoder, layers=config.joint_layers))
            self.decoder = Reconstructor(dim, config.decoder, values, config.decoder_kernel, config.position_groups)
            self.decoder_positions = SinusoidalPositions(config.decoder.dim)
        self.projections: nn.ModuleList | None = None
        if config.objective != "mae":
            self.projections = nn.ModuleList(nn.Linear(dim, config.contrast_dim) for _ in values)
            self.log_temperature = nn.Parameter(torch.tensor(config.temperature).log())

    @property
    def temperature(self) -> Tensor:
        return self.log_temperature.exp().clamp(LEAST_TEMPERATURE, MOST_TEMPERATURE)

    def watch(self, seen: Seen, removed: Tensor | None = None) -> Tensor:
        """Video through its encoder, (batch, tokens, dim); zeros at what is removed and at padding."""
        assert self.video is not None
        assert self.video_encoder is not None
        x = self.video(seen.video, seen.lengths, removed)
        x = x + self.positions(self.video.times(seen.video, seen.lengths)).to(x.dtype)
        there = ~padding_mask(seen.counts, x.shape[1])
        kept = Kept.of(there if removed is None else there & ~removed)
        return kept.restore(self.video_encoder(kept.gather(x), kept.counts), x.new_zeros(x.shape[-1]))

    def reconstruct(self, states: list[Tensor], there: list[Tensor], removed: list[Tensor], times: list[Tensor]) -> list[Tensor]:
        """Values of all tokens of each modality, (batch, tokens, values), from what its encoder made of those that it saw.

        Args:
            states: (batch, tokens, dim).
            there: False at padding; removed: True at what was not seen, bool (batch, tokens).
            times: frames at which tokens stand, int (batch or 1, tokens).
        """
        assert self.joint is not None
        assert self.decoder is not None
        rows = len(states[0])
        places = torch.cat([time.expand(rows, -1) for time in times], 1)
        marked = torch.cat([part + vector for part, vector in zip(states, self.modality, strict=True)], 1)
        x = marked + self.positions(places).to(marked.dtype)
        valid = torch.cat(there, 1)
        kept = Kept.of(valid & ~torch.cat(removed, 1))
        joint = self.joint(kept.gather(x), kept.counts)
        sizes = [part.shape[1] for part in states]
        return self.decoder(joint, kept, self.decoder_positions(places), sizes, valid)


class AudioVisualPretrain(nn.Module):
    """Audio encoder, and around it what pre-training needs."""

    def __init__(self, config: MultistageConfig) -> None:
        super().__init__()
        self.config = config
        self.frontend = SubsamplingFrontEnd(config.subsampling, config.encoder.dim)
        # With the mean over the clip taken off before. Without either, what convolutions put out grows in pre-training until little but its
        # mean is left, and a later stage learns worse than afresh.
        self.norm = LayerNorm(config.encoder.dim, config.encoder.norm_epsilon)
        self.positions = PositionalConvolution(config.encoder.dim, config.position_kernel, config.position_groups)
        self.encoder = Encoder(config.encoder)
        self.pretraining: Pretraining | None = Pretraining(config)

    @property
    def dim(self) -> int:
        """Width of the encoder's output."""
        return self.config.encoder.dim

    @property
    def input_format(self) -> InputFormat:
        """Waveforms; pictures as long as there is something to look at them."""
        size = None if self.pretraining is None else self.config.video_size
        return InputFormat("none", size, waveform=True, frame_rate=FRAME_RATE, shortest=LEAST_SAMPLES)

    def drop_heads(self) -> None:
        """Leave the audio encoder alone."""
        self.pretraining = None

    # The audio encoder ---------------------------------------------------------------------------------------------------------------

    def hear(self, batch: Batch) -> Heard:
        """The filter bank of the sound.

        Raises:
            ValueError: a row without sound, or none as a waveform.
        """
        with torch.no_grad():
            features, counts = self.frontend.features(*batch.waveforms())
        lengths = self.config.subsampling.valid_frames(counts, shortened(features.shape[1]))
        silent = torch.nonzero(lengths == 0).flatten().tolist()
        if silent:
            raise ValueError(f"{batch.ids[silent[0]]}: no sound, or less than one frame of it; leave the clip out (min_seconds).")
        return Heard(features, counts, lengths)

    def features(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Filter banks of a batch's sound (batch, frames, bands), and the valid frames of each clip (batch,).

        Raises:
            ValueError: a row without sound, or none as a waveform.
        """
        heard = self.hear(batch)
        return heard.features, heard.feature_lengths

    def encode_features(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """What `encode` gives, from filter banks."""
        valid = self.config.subsampling.valid_frames(lengths, shortened(features.shape[1]))
        return self.listen(Heard(features, lengths, valid)), valid

    def listen(self, heard: Heard, removed: Tensor | None = None, mask: InputMask | None = None, output_layer: int | None = None) -> Tensor:
        """Sound through the audio encoder, (batch, tokens, dim).

        Args:
            removed: tokens that are silent and not computed, bool (batch, tokens); zeros come out there.
            mask: tokens that are silent but computed (``fused``), bands of the filter bank that are (``channels``): fine-tuning.
            output_layer: see Encoder.forward.
        """
        x, lengths, absent = self._placed(heard, removed, mask)
        if removed is None:
            return self.encoder(x, lengths, output_layer)
        kept = Kept.of(~(absent | removed))
        states = self.encoder(kept.gather(x), kept.counts)
        return kept.restore(states, states.new_zeros(self.dim))

    def hidden_states(self, batch: Batch) -> tuple[list[Tensor], Tensor]:
        """What enters the layers for the batch's sound, and what each of them puts out, (batch, tokens, dim) each, and lengths (batch,)."""
        x, lengths, _ = self._placed(self.hear(batch), None, None)
        return self.encoder.hidden_states(x, lengths), lengths

    def _placed(self, heard: Heard, removed: Tensor | None, mask: InputMask | None) -> tuple[Tensor, Tensor, Tensor]:
        """What enters the layers (batch, tokens, dim), lengths, and which tokens are padding; arguments as of listen."""
        features = heard.features
        hidden = removed if mask is None else mask.fused
        if hidden is not None:
            features = features.masked_fill(own_frames(hidden, features.shape[1])[..., None], 0.0)
        if mask is not None and mask.channels is not None:
            features = features.masked_fill(mask.channels[:, None], 0.0)
        x, lengths = self.frontend(features, heard.feature_lengths)
        absent = padding_mask(lengths, x.shape[1])
        away = absent if removed is None else absent | removed
        x = self.norm(x - mean_of(x, ~away).to(x.dtype)[:, None]).masked_fill(away[..., None], 0.0)
        return x + self.positions(x, absent).to(x.dtype), lengths, absent

    def encode(
        self, batch: Batch, output_layer: int | None = None, mask: InputMask | None = None, keep: dict[str, Tensor] | None = None
    ) -> tuple[Tensor, Tensor]:
        """Features of the sound at 25 Hz: (batch, frames, dim) and lengths (batch,).

        Args:
            output_layer: see Encoder.forward.
            mask: ``fused`` silences frames, ``channels`` bands; None nothing.
            keep: modality dropout of audio-visual recognisers; only sound is heard here.
        """
        del keep
        heard = self.hear(batch)
        return self.listen(heard, mask=mask, output_layer=output_layer), heard.lengths

    def draw_masks(
        self, batch: Batch, generator: torch.Generator, frames: SpanMaskConfig, channels: SpanMaskConfig, same_count: bool = False
    ) -> InputMask:
        """Spans of frames and of bands that fine-tuning silences (as SpecAugment), on the batch's device; the generator is a CPU one."""
        assert batch.audio is not None
        assert batch.audio_lengths is not None
        subsampling = self.config.subsampling
        counts = torch.tensor([fbank_frames(samples) for samples in batch.audio_lengths.tolist()])
        tokens = max(shortened(int(counts.max())), 1)
        hidden = span_mask(subsampling.valid_frames(counts, tokens), tokens, frames, generator, same_count)
        bands = subsampling.bands
        silenced = span_mask(torch.full((len(batch),), bands), bands, channels, generator, same_count=False)
        return InputMask(fused=hidden, channels=silenced).to(batch.audio.device)

    # Losses --------------------------------------------------------------------------------------------------------------------------

    def losses(self, batch: Batch, generator: torch.Generator) -> dict[str, Loss]:
        """Those of the objective.

        Raises:
            ValueError: a clip without sound, or without video where the model looks at it.
        """
        heard, seen = self.hear(batch), self.see(batch)
        return self.removed_losses(heard, seen, None if self.config.objective == "clr" else self.draw_removed(heard, seen, generator))

    def see(self, batch: Batch) -> Seen | None:
        """The pictures; None for a model of sound alone.

        Raises:
            ValueError: a clip without video.
        """
        assert self.pretraining is not None, "a model without its heads cannot be trained further"
        if self.pretraining.video is None:
            return None
        lacking = list(batch.ids)
        if batch.video is not None and batch.video_lengths is not None:
            lacking = [name for name, length in zip(batch.ids, batch.video_lengths.tolist(), strict=True) if length == 0]
        if lacking:
            raise ValueError(
                f"{lacking[0]}: no video, which audio-visual pre-training needs of every clip; leave the clip out, or learn from sound "
                "alone (model.video none, model.objective mae)."
            )
        assert batch.video is not None
        assert batch.video_lengths is not None
        return Seen(batch.video, batch.video_lengths, self.pretraining.video.counts(batch.video_lengths))

    def draw_removed(self, heard: Heard, seen: Seen | None, generator: torch.Generator) -> Removed:
        """What mae does not see, on the device; the generator is a CPU one."""
        removal, device = self.config.removal, heard.lengths.device
        audio = remove_blocks(heard.lengths.cpu(), heard.tokens, removal.audio, removal.audio_span, generator)
        if seen is None or self.pretraining is None or self.pretraining.video is None:
            return Removed(audio.to(device))
        tokens = self.pretraining.video.times(seen.video, seen.lengths).shape[1]
        video = remove_blocks(seen.counts.cpu(), tokens, removal.video, removal.video_span, generator)
        return Removed(audio.to(device), video.to(device))

    def removed_losses(self, heard: Heard, seen: Seen | None, removed: Removed | None) -> dict[str, Loss]:
        """The losses with given removals. Each is a mean, of removed tokens or of clips, times the clips, which the first one counts."""
        config = self.config
        found: dict[str, Loss] = {}
        if removed is not None:
            found |= self.reconstruction(heard, seen, removed)
        if seen is not None and config.objective != "mae":
            contrast = self.contrast(heard, seen)
            weight = config.contrast_weight if config.objective == "both" else 1.0
            found["contrast"] = Loss(weight * contrast.value, contrast.count, contrast.logs)
        rows = torch.tensor(len(heard.lengths), device=heard.lengths.device)
        none = torch.zeros_like(rows)
        return {
            name: Loss(loss.value / loss.count.clamp(min=1) * rows, none if number else rows, loss.logs)
            for number, (name, loss) in enumerate(found.items())
        }

    def reconstruction(self, heard: Heard, seen: Seen | None, removed: Removed) -> dict[str, Loss]:
        """Squared error of removed tokens, of sound and of video."""
        assert self.pretraining is not None
        states = [self.listen(heard, removed.audio)]
        there, gone = [~padding_mask(heard.lengths, heard.tokens)], [removed.audio]
        times = [torch.arange(heard.tokens, device=heard.lengths.device)[None]]
        targets = {"audio": heard.targets}
        if seen is not None and removed.video is not None and self.pretraining.video is not None:
            states.append(self.pretraining.watch(seen, removed.video))
            there.append(~padding_mask(seen.counts, states[1].shape[1]))
            gone.append(removed.video)
            times.append(self.pretraining.video.times(seen.video, seen.lengths))
            targets["video"] = self.pretraining.video.targets(seen.video, seen.lengths)
        predicted = self.pretraining.reconstruct(states, there, gone, times)
        return {
            f"{name}_reconstruction": removed_token_loss(
                ours, token_targets(target, self.config.normalise_targets), hidden, f"{name}_error"
            )
            for (name, target), ours, hidden in zip(targets.items(), predicted, gone, strict=True)
        }

    def contrast(self, heard: Heard, seen: Seen) -> Loss:
        """Clips told apart by the means of what both encoders make of all of them."""
        pretraining = self.pretraining
        assert pretraining is not None
        assert pretraining.projections is not None
        watched = pretraining.watch(seen)
        means = [
            mean_of(self.listen(heard), ~padding_mask(heard.lengths, heard.tokens)),
            mean_of(watched, ~padding_mask(seen.counts, watched.shape[1])),
        ]
        projected = [project(mean) for project, mean in zip(pretraining.projections, means, strict=True)]
        return paired_contrastive_loss(projected[0], projected[1], pretraining.temperature)


def own_frames(tokens: Tensor, frames: int) -> Tensor:
    """Frames of the filter bank that belong to some tokens: bool (batch, tokens) -> (batch, frames)."""
    spread = tokens.repeat_interleave(STACKED, 1)[:, : max(frames - FIRST, 0)]
    found = tokens.new_zeros(len(tokens), frames)
    found[:, FIRST : FIRST + spread.shape[1]] = spread
    return found


def mean_of(states: Tensor, there: Tensor) -> Tensor:
    """Over the frames of each row that are there, bool (batch, frames): (batch, frames, dim) -> (batch, dim), in float32."""
    return (states.float() * there[..., None]).sum(1) / there.sum(1).clamp(min=1)[:, None]
