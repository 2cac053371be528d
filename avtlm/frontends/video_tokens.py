"""The picture of a clip as tokens, some of which can be removed: frames of lips, or patches of a few pictures of any video.

What is unusual here:
- A lip frame is seen together with two on each side (the stem's kernel). Frames that are removed are grey there, the mean of all pictures,
  so that what is to be reconstructed cannot be looked at; and only frames that are kept go through the ResNet.
- Patches are linear maps of their own pixels alone. A clip of any length gives as many, of pictures spread evenly over it.
- Both say what a token's values are (`targets`) and at which frame of 40 ms it stands (`times`).
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from avtlm.frontends.lips import LipEncoder, LipEncoderConfig, normalise_grey
from avtlm.frontends.patches import grid_positions, patchify


@dataclass(frozen=True)
class PatchConfig:
    """General video: ``frames`` pictures of a clip, each of ``picture`` pixels a side, in patches of ``size`` pixels a side."""

    picture: int = 88
    size: int = 22
    frames: int = 8

    def __post_init__(self) -> None:
        if self.size < 1 or self.picture % self.size or self.frames < 1:
            raise ValueError(
                f"patches: picture {self.picture}, size {self.size}, frames {self.frames}; give a size that divides the picture, and at "
                "least 1 frame."
            )

    @property
    def per_picture(self) -> int:
        return (self.picture // self.size) ** 2


class LipTokens(nn.Module):
    """One token a frame, whose values are its pixels averaged over ``cells`` x ``cells`` squares.

    Raises:
        ValueError: the crop cannot be divided so.
    """

    def __init__(self, config: LipEncoderConfig, dim: int, cells: int) -> None:
        super().__init__()
        if cells < 1 or config.size % cells:
            raise ValueError(f"lip_cells: {cells} does not divide lips.size {config.size}; choose a divisor.")
        self.encoder = LipEncoder(config)
        self.project = nn.Linear(self.encoder.output_dim, dim)
        self.cells, self.values = cells, cells**2

    def counts(self, lengths: Tensor) -> Tensor:
        """Tokens of clips of so many frames, (batch,)."""
        return lengths

    def times(self, video: Tensor, lengths: Tensor) -> Tensor:
        """The frame of every token, int (batch, tokens)."""
        del lengths
        return torch.arange(video.shape[1], device=video.device).expand(len(video), -1)

    def targets(self, video: Tensor, lengths: Tensor) -> Tensor:
        """Crops (batch, frames, size, size) -> (batch, tokens, values)."""
        del lengths
        cell = video.shape[-1] // self.cells
        return F.avg_pool2d(normalise_grey(video), cell).flatten(2)

    def forward(self, video: Tensor, lengths: Tensor, removed: Tensor | None = None) -> Tensor:
        """(batch, tokens, dim); what stands at ``removed`` tokens, bool (batch, tokens), means nothing."""
        out: Tensor = self.project(self.encoder(video, lengths, None if removed is None else ~removed))
        return out


class PatchTokens(nn.Module):
    """The patches of some pictures, picture by picture. Initialisation: Xavier uniform, biases 0, as MAE's."""

    grid: Tensor

    def __init__(self, config: PatchConfig, dim: int) -> None:
        super().__init__()
        self.config = config
        self.values = config.size**2
        self.project = nn.Linear(self.values, dim)
        nn.init.xavier_uniform_(self.project.weight)
        nn.init.zeros_(self.project.bias)
        side = config.picture // config.size
        self.register_buffer("grid", grid_positions(dim, side, side).repeat(config.frames, 1), persistent=False)

    def counts(self, lengths: Tensor) -> Tensor:
        """Tokens of clips of so many frames, (batch,): always as many, or none."""
        return (lengths > 0) * (self.config.frames * self.config.per_picture)

    def times(self, video: Tensor, lengths: Tensor) -> Tensor:
        """The frame of every token, int (batch, tokens)."""
        del video
        return self._chosen(lengths).repeat_interleave(self.config.per_picture, 1)

    def targets(self, video: Tensor, lengths: Tensor) -> Tensor:
        """Pictures (batch, frames, picture, picture) -> (batch, tokens, values)."""
        chosen = self._chosen(lengths)
        pictures = normalise_grey(video[torch.arange(len(video), device=video.device)[:, None], chosen])
        return patchify(pictures.flatten(0, 1)[:, None], self.config.size).unflatten(0, (len(video), -1)).flatten(1, 2)

    def forward(self, video: Tensor, lengths: Tensor, removed: Tensor | None = None) -> Tensor:
        """(batch, tokens, dim); no token looks at another, so that it does not matter which are ``removed``."""
        del removed
        out: Tensor = self.project(self.targets(video, lengths)) + self.grid
        return out

    def _chosen(self, lengths: Tensor) -> Tensor:
        """The middles of equal parts of every clip, int (batch, frames)."""
        parts = torch.arange(self.config.frames, device=lengths.device) + 0.5
        return (parts * lengths[:, None] / self.config.frames).long()
