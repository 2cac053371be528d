"""Choosing the best candidates in one way everywhere: higher score first, and of equal scores the one with the smaller index.

torch.topk promises nothing about ties, so a search that uses it can give another transcript on another machine or in another batch.
"""

import torch
from torch import Tensor

CHUNK = 64  # long rows are searched by the largest of every so many


def best(scores: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """The ``count`` largest of the last dimension in descending order and their indices; ties go to the smaller index.

    Args:
        scores: (..., candidates), no nan.
        count: at most the number of candidates.
    """
    size = scores.shape[-1]
    if size >= 2 * CHUNK * (count + 1):
        # A candidate is among the best only if its chunk is among the best by their leaders, so most of them need no look.
        whole = size - size % CHUNK
        chunks = scores[..., :whole].unflatten(-1, (-1, CHUNK))
        leading = best(chunks.amax(-1), count)[1].sort(-1).values
        places = (leading[..., None] * CHUNK + torch.arange(CHUNK, device=scores.device)).flatten(-2)
        rest = torch.arange(whole, size, device=scores.device).expand(*places.shape[:-1], -1)
        places = torch.cat([places, rest], -1)
        values, found = best(scores.gather(-1, places), count)
        return values, places.gather(-1, found)
    values, indices = scores.topk(min(count + 1, size), -1)
    if size > count:
        cut = values[..., count - 1] == values[..., count]
        values, indices = values[..., :count], indices[..., :count]
        if bool(cut.any()):  # equal scores on both sides of the border: topk took any of them
            limit = values[..., -1:]
            above = scores > limit
            level = scores == limit
            chosen = above | (level & (level.cumsum(-1) <= count - above.sum(-1, keepdim=True)))
            places = torch.arange(size, device=scores.device).expand_as(scores)
            indices = torch.where(chosen, places, size).topk(count, -1, largest=False).values  # distinct numbers: no ties here
    indices = indices.sort(-1).values
    ordered, order = torch.sort(scores.gather(-1, indices), dim=-1, descending=True, stable=True)
    return ordered, indices.gather(-1, order)


def check_log_probs(log_probs: Tensor, lengths: Tensor) -> None:
    """Refuse what cannot be decoded.

    Args:
        log_probs: (batch, frames, symbols).
        lengths: (batch,) valid frames of each row.

    Raises:
        ValueError: shapes or lengths do not fit together, or a valid frame holds nan.
    """
    if log_probs.ndim != 3 or lengths.shape != log_probs.shape[:1]:
        shapes = f"{tuple(log_probs.shape)} and {tuple(lengths.shape)}"
        raise ValueError(f"Decoding needs log_probs (batch, frames, symbols) and lengths (batch,), not {shapes}.")
    if len(lengths) and not 0 <= int(lengths.min()) <= int(lengths.max()) <= log_probs.shape[1]:
        raise ValueError(f"Lengths from {int(lengths.min())} to {int(lengths.max())} do not fit log_probs of {log_probs.shape[1]} frames.")
    broken = (log_probs.isnan().any(-1) & valid_frames(lengths, log_probs.shape[1])).any(-1)
    if bool(broken.any()):
        row = int(broken.nonzero()[0])
        raise ValueError(f"The log-probabilities of row {row} hold nan; the model's weights or its input are damaged.")


def valid_frames(lengths: Tensor, frames: int) -> Tensor:
    """(batch, frames) bool, True where a frame belongs to its row."""
    return torch.arange(frames, device=lengths.device) < lengths[:, None]
