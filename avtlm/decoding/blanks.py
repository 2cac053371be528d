"""Frames that CTC is sure are blanks, left out before a search: most of a clip, and most of the search's time.

The first frame of every run of such blanks stays, so that two equal letters with nothing but blanks between them remain two. What a frame
that is left out would have given to other symbols is lost: scores change a little (Chen et al. 2016, arXiv 1604.00120).
"""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from avtlm.decoding.ranking import valid_frames
from avtlm.decoding.result import Hypothesis


def skip_blanks(log_probs: Tensor, lengths: Tensor, threshold: float, blank: int = 0) -> tuple[Tensor, Tensor, list[Tensor]]:
    """The frames that a search has to look at.

    Args:
        log_probs: (batch, frames, symbols).
        lengths: (batch,) valid frames of each row.
        threshold: a frame with a larger probability of the blank is sure to be one.

    Returns:
        The frames that stay (batch, most of them, symbols), their numbers (batch,), and for every row the places they come from.
    """
    valid = valid_frames(lengths.to(log_probs.device), log_probs.shape[1])
    sure = (log_probs[:, :, blank].exp() > threshold) & valid
    again = sure.clone()
    again[:, :1] = False
    again[:, 1:] &= sure[:, :-1]
    places = [kept.nonzero()[:, 0] for kept in valid & ~again]
    counts = torch.tensor([len(row) for row in places], device=lengths.device, dtype=lengths.dtype)
    frames = torch.nn.utils.rnn.pad_sequence([row[kept] for row, kept in zip(log_probs, places, strict=True)], batch_first=True)
    return frames, counts, places


def put_back(hypotheses: Sequence[Hypothesis], places: Tensor) -> list[Hypothesis]:
    """Hypotheses whose times count the frames that stayed, with those of the whole clip."""
    at = places.tolist()
    return [
        replace(each, timesteps=tuple((at[first], at[end - 1] + 1) for first, end in each.timesteps)) if each.timesteps else each
        for each in hypotheses
    ]
