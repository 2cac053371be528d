"""Fusion: bring the modalities' features together, frame by frame (AV-HuBERT section 3.1, VATLM section III-B).

A missing modality is a block of zeros after its front-end, never the front-end's answer to zeros. Features are joined in the order in which
the modalities are named: audio, video, text.
"""

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor, nn

from avtlm.data.batching import Batch


def modality_dropout(probability: float, audio_probability: float, generator: torch.Generator, rows: int = 1) -> tuple[Tensor, Tensor]:
    """Draw which of audio and video to keep.

    With ``probability`` one of the two is dropped: the audio with ``audio_probability``, else the video. The official code draws once for a
    whole batch (``rows`` = 1); one draw per row makes small batches less noisy.

    Returns:
        keep_audio, keep_video: bool (rows,).
    """
    drop = torch.rand(rows, generator=generator) < probability
    audio = torch.rand(rows, generator=generator) < audio_probability
    return ~(drop & audio), ~(drop & ~audio)


def keep_modalities(
    batch: Batch, probability: float, audio_probability: float, generator: torch.Generator, per_row: bool = True
) -> dict[str, Tensor]:
    """Modality dropout for a batch: rows that keep ``audio`` and ``video``, bool (batch,) on its device; empty if one is absent.

    A row that has only one of the two always keeps it: there would be nothing left to learn from.
    """
    if batch.audio is None or batch.video is None:
        return {}
    assert batch.audio_lengths is not None
    assert batch.video_lengths is not None
    audio, video = modality_dropout(probability, audio_probability, generator, len(batch) if per_row else 1)
    device = batch.audio.device
    return {"audio": audio.to(device) | (batch.video_lengths == 0), "video": video.to(device) | (batch.audio_lengths == 0)}


class Fusion(nn.Module):
    """Concatenate (normed, then projected back to the model's width) or add the modalities.

    Args:
        dim: width of every modality and of the output.
        modalities: names in the order of concatenation.
        kind: ``concat`` (official) or ``add``.
    """

    def __init__(self, dim: int, modalities: tuple[str, ...], kind: Literal["concat", "add"] = "concat") -> None:
        super().__init__()
        self.dim = dim
        self.modalities = modalities
        self.kind = kind
        width = dim * len(modalities) if kind == "concat" else dim
        self.norm = nn.LayerNorm(width)
        self.project = nn.Linear(width, dim) if kind == "concat" else nn.Identity()

    def join(self, features: Mapping[str, Tensor]) -> Tensor:
        """Features by modality name, each (batch, frames, dim), absent ones left out -> (batch, frames, dim or dim x modalities).

        Raises:
            ValueError: no modality is there, or one that this fusion does not know.
        """
        unknown = set(features) - set(self.modalities)
        if unknown or not features:
            raise ValueError(f"fusion: got {sorted(features) or 'no modality'}; give at least one of {', '.join(self.modalities)}.")
        if self.kind == "add":
            return torch.stack(list(features.values())).sum(0)
        zeros = torch.zeros_like(next(iter(features.values())))
        return torch.cat([features.get(name, zeros) for name in self.modalities], dim=-1)

    def forward(self, joined: Tensor) -> Tensor:
        """What :meth:`join` gave -> (batch, frames, dim)."""
        return self.project(self.norm(joined))
