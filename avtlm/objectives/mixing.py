"""Codes that speech and text share: frames of the encoder's output replaced at random by their code vectors before the decoder sees them
(SpeechT5, arXiv 2110.07205, section 3.2)."""

import torch
from torch import Tensor


def draw_mixed(lengths: Tensor, frames: int, share: float, generator: torch.Generator, alike: bool = False) -> Tensor:
    """Which frames are replaced: int(share x length) of every row at random.

    Args:
        lengths: valid frames, (batch,).
        frames: width of the batch.
        generator: a CPU one.
        alike: the same places in every row, padding among them, as in the official code.

    Returns:
        bool (batch, frames), on the CPU.
    """
    mixed = torch.zeros(len(lengths), frames, dtype=torch.bool)
    if alike:
        mixed[:, torch.randperm(frames, generator=generator)[: int(frames * share)]] = True
        return mixed
    for row, length in zip(mixed, lengths.tolist(), strict=True):
        row[torch.randperm(length, generator=generator)[: int(length * share)]] = True
    return mixed


def mix(encoded: Tensor, vectors: Tensor, mixed: Tensor) -> Tensor:
    """Code vectors where ``mixed`` (batch, frames) says so: (batch, frames, dim) both."""
    return torch.where(mixed[..., None], vectors.to(encoded.dtype), encoded)
