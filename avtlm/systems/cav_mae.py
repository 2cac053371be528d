"""CAV-MAE: masked autoencoding and contrastive learning of sound and pictures (Gong et al., arXiv 2210.07839), the closest public code to
the first stage of multistage.py, which is made of the same functions.

What is unusual here:
- A spectrogram and one picture are cut into squares, whose places are fixed sinusoids. Three quarters of the squares of each are removed.
- Kept squares go through layers of their own modality, then through joint ones, three times: all together for reconstruction, and each
  modality alone for the contrast, where joint layers norm by other parameters. These passes see kept squares alone, too.
- With several joint layers the official code gives each of them the same input in the passes for the contrast, so that only the last one
  counts; ``same_input`` is that. One joint layer, as in every released model, makes no difference.

It is here for comparison with the official code, and is no system of `avtlm train`: clips of avtlm are of any length, and pictures grey.
"""

from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import Tensor, nn

from avtlm.frontends.patches import grid_positions, patchify
from avtlm.nn.norm import LayerNorm
from avtlm.nn.reconstructor import Reconstructor
from avtlm.nn.removal import Kept
from avtlm.nn.transformer import Encoder, EncoderConfig, EncoderLayer
from avtlm.objectives.contrastive import paired_contrastive_loss
from avtlm.objectives.reconstruction import removed_token_loss, token_targets
from avtlm.objectives.removal import Structure, keep_smallest, structured_noise

BANDS = 128
COLOURS = 3
TEMPERATURE = 0.05


def _layers(dim: int, layers: int, heads: int) -> EncoderConfig:
    return EncoderConfig(dim, layers, heads, 4 * dim, dropout=0.0, attention_dropout=0.0, layer_drop=0.0, position_kernel=0)


@dataclass(frozen=True)
class CAVMAEConfig:
    """The defaults are those of the released models.

    Attributes:
        picture: pixels a side; ``frames`` of the spectrogram at 100 Hz; ``patch`` pixels, or frames and bands, a side of a square.
        encoder: layers of each modality; the joint ones are like them.
        learned_positions: places are learned from sinusoids on (``tr_pos``), instead of fixed.
        removed_audio, removed_video: shares; ``structure`` of what is removed of sound, ``unstructured`` as in the released models.
        normalise_targets: each square has mean 0 and variance 1.
        reconstruction_weight, contrast_weight: of both losses; ``both_ways`` see paired_contrastive_loss.
        same_input: see the module's docstring.
    """

    picture: int = 224
    frames: int = 1024
    patch: int = 16
    encoder: EncoderConfig = field(default_factory=lambda: _layers(768, 11, 12))
    joint_layers: int = 1
    decoder: EncoderConfig = field(default_factory=lambda: _layers(512, 8, 16))
    learned_positions: bool = False
    removed_audio: float = 0.75
    removed_video: float = 0.75
    structure: Literal["unstructured"] | Structure = "unstructured"
    normalise_targets: bool = True
    reconstruction_weight: float = 1.0
    contrast_weight: float = 0.01
    both_ways: bool = False
    same_input: bool = True


class JointLayers(nn.Module):
    """Layers that sound, pictures and both together pass, each normed by parameters of its own."""

    PASSES = ("audio", "video")

    def __init__(self, config: EncoderConfig, layers: int) -> None:
        super().__init__()
        self.layers = nn.ModuleList(EncoderLayer(config) for _ in range(layers))
        self.norms = nn.ModuleDict(
            {
                name: nn.ModuleList(nn.ModuleList(LayerNorm(config.dim, config.norm_epsilon) for _ in range(2)) for _ in range(layers))
                for name in self.PASSES
            }
        )

    def forward(self, x: Tensor) -> Tensor:
        """Both modalities at once, (batch, tokens, dim)."""
        for layer in self.layers:
            x = layer(x, None)
        return x

    def alone(self, x: Tensor, modality: str, same_input: bool = False) -> Tensor:
        """One modality, (batch, tokens, dim).

        Args:
            same_input: every layer sees ``x`` itself, and the last one's output counts.
        """
        found = x
        for layer, norms in zip(self.layers, self._norms(modality), strict=True):
            assert isinstance(layer, EncoderLayer)
            found = x if same_input else found
            found = found + layer.self_attention(norms[0](found))
            found = found + layer.feed_forward(norms[1](found))
        return found

    def _norms(self, modality: str) -> list[nn.ModuleList]:
        """Those of a pass, before the attention and before the feed-forward part of every layer."""
        found = self.norms[modality]
        assert isinstance(found, nn.ModuleList)
        return [each for each in found if isinstance(each, nn.ModuleList)]


@dataclass(frozen=True)
class Encoded:
    """What the encoder makes of a batch.

    Attributes:
        joint: kept squares of sound, then of pictures, (batch, kept, dim).
        audio, video: the same alone.
        kept_audio, kept_video: which ones.
    """

    joint: Tensor
    audio: Tensor
    video: Tensor
    kept_audio: Kept
    kept_video: Kept


class CAVMAE(nn.Module):
    """Initialisation: squares see PatchTokens, modality vectors N(0, 0.02), the rest see its parts."""

    audio_grid: Tensor
    video_grid: Tensor
    decoder_audio_grid: Tensor
    decoder_video_grid: Tensor

    def __init__(self, config: CAVMAEConfig) -> None:
        super().__init__()
        self.config = config
        dim, square = config.encoder.dim, config.patch**2
        self.rows, columns, side = BANDS // config.patch, config.frames // config.patch, config.picture // config.patch
        self.audio_patches, self.video_patches = nn.Linear(square, dim), nn.Linear(COLOURS * square, dim)
        for part in (self.audio_patches, self.video_patches):
            nn.init.xavier_uniform_(part.weight)
            nn.init.zeros_(part.bias)
        self.modality = nn.Parameter(torch.empty(2, dim).normal_(0.0, 0.02))
        # The last norms of these are those of the passes for the contrast, behind the joint layers.
        self.audio, self.video = Encoder(config.encoder), Encoder(config.encoder)
        self.joint = JointLayers(config.encoder, config.joint_layers)
        self.norm = LayerNorm(dim, config.encoder.norm_epsilon)
        self.decoder = Reconstructor(dim, config.decoder, (square, COLOURS * square))
        for prefix, width in (("", dim), ("decoder_", config.decoder.dim)):
            for name, grid in (("audio_grid", (self.rows, columns)), ("video_grid", (side, side))):
                places = grid_positions(width, *grid)
                if config.learned_positions:
                    self.register_parameter(f"{prefix}{name}", nn.Parameter(places))
                else:
                    self.register_buffer(f"{prefix}{name}", places, persistent=False)

    def squares(self, audio: Tensor, pictures: Tensor) -> tuple[Tensor, Tensor]:
        """Spectrograms (batch, frames, 128) and pictures (batch, 3, height, width) as squares; those of sound row by row of bands.

        Raises:
            ValueError: sizes that squares do not divide.
        """
        return patchify(audio.transpose(1, 2)[:, None], self.config.patch), patchify(pictures, self.config.patch)

    def remove(self, noise: Tensor, generator: torch.Generator | None = None) -> Kept:
        """Which squares of sound stay; ``generator`` draws times and frequencies of a structured removal."""
        config = self.config
        if config.structure != "unstructured":
            assert generator is not None, "a structured removal is drawn"
            noise = structured_noise(noise, self.rows, config.removed_audio, config.structure, generator)
        return keep_smallest(noise, config.removed_audio)

    def remove_pictures(self, noise: Tensor) -> Kept:
        """Which squares of pictures stay."""
        return keep_smallest(noise, self.config.removed_video)

    def encode(self, audio: Tensor, video: Tensor, kept_audio: Kept, kept_video: Kept) -> Encoded:
        """Squares (batch, squares, values) of both, of which some are kept."""
        sound = kept_audio.gather(self.audio_patches(audio) + self.audio_grid + self.modality[0])
        sight = kept_video.gather(self.video_patches(video) + self.video_grid + self.modality[1])
        sound = self.audio(sound, None, len(self.audio.layers))
        sight = self.video(sight, None, len(self.video.layers))
        joint = self.norm(self.joint(torch.cat([sound, sight], 1)))
        alone = [
            encoder.norm(self.joint.alone(states, name, self.config.same_input))
            for name, encoder, states in (("audio", self.audio, sound), ("video", self.video, sight))
        ]
        return Encoded(joint, alone[0], alone[1], kept_audio, kept_video)

    def reconstruct(self, encoded: Encoded) -> list[Tensor]:
        """Values of all squares, of sound and of pictures."""
        sound, sight = encoded.kept_audio, encoded.kept_video
        both = Kept(torch.cat([sound.index, sight.index + sound.width], 1), sound.counts + sight.counts, sound.width + sight.width)
        places = torch.cat([self.decoder_audio_grid, self.decoder_video_grid])
        return self.decoder(encoded.joint, both, places, (sound.width, sight.width))

    def losses(self, audio: Tensor, video: Tensor, encoded: Encoded, predicted: list[Tensor]) -> dict[str, Tensor]:
        """Means over removed squares of each modality, over clips of the contrast, and their weighted sum (``total``)."""
        config, found = self.config, {}
        for name, ours, target, kept in (
            ("audio", predicted[0], audio, encoded.kept_audio),
            ("video", predicted[1], video, encoded.kept_video),
        ):
            loss = removed_token_loss(ours, token_targets(target, config.normalise_targets), kept.removed)
            found[name] = loss.value / loss.count
        contrast = paired_contrastive_loss(encoded.audio.mean(1), encoded.video.mean(1), TEMPERATURE, config.both_ways)
        found["contrast"] = contrast.value / contrast.count
        found["total"] = config.reconstruction_weight * (found["audio"] + found["video"]) + config.contrast_weight * found["contrast"]
        return found
