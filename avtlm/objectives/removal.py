"""Which tokens an autoencoder never sees: blocks of frames, single patches, or whole times and frequencies of a spectrogram.

All draws come from the CPU generator that is passed in, or from noise that is.

Sources: CAV-MAE (Gong et al., arXiv 2210.07839, section 3.1 and its masking ablation), in the official code's form. Removal in blocks is
this library's own, for sequences of speech, in which single frames are told by their neighbours.
"""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from avtlm.nn.removal import Kept

Structure = Literal["time", "frequency", "both"]
NEVER = 1.1  # above all noise
SHARE_OF_BOTH = 0.7  # of the share, for times and for frequencies where both are removed


@dataclass(frozen=True)
class RemovalConfig:
    """How much of a clip is removed before it is to be reconstructed.

    Attributes:
        audio, video: shares of the tokens.
        audio_span, video_span: tokens side by side that are removed together; 1 removes them one by one.
    """

    audio: float = 0.75
    video: float = 0.75
    audio_span: int = 5
    video_span: int = 1

    def __post_init__(self) -> None:
        if not (0 < self.audio < 1 and 0 < self.video < 1) or self.audio_span < 1 or self.video_span < 1:
            raise ValueError(
                f"removal: audio {self.audio} in spans of {self.audio_span}, video {self.video} in spans of {self.video_span}; give shares "
                "between 0 and 1, and spans of at least 1 token."
            )


def remove_blocks(lengths: Tensor, tokens: int, share: float, span: int, generator: torch.Generator) -> Tensor:
    """Cut every row into blocks of ``span`` tokens, the first one at random shorter, and remove a share of the blocks.

    Of a row of two tokens and more at least one block stays and one goes; a row that is a single block is taken token by token.

    Args:
        lengths: valid tokens of each row, (batch,).
        tokens: width of the result.

    Returns:
        bool (batch, tokens), True where removed; on the CPU.
    """
    removed = torch.zeros(len(lengths), tokens, dtype=torch.bool)
    for row, valid in enumerate(lengths.tolist()):
        if valid < 2:
            continue
        block = torch.div(torch.arange(valid) + int(torch.randint(span, (), generator=generator)), span, rounding_mode="floor")
        if int(block[-1]) == 0:
            block = torch.arange(valid)
        count = int(block[-1]) + 1
        gone = torch.zeros(count, dtype=torch.bool)
        gone[torch.randperm(count, generator=generator)[: min(max(round(share * count), 1), count - 1)]] = True
        removed[row, :valid] = gone[block]
    return removed


def keep_smallest(noise: Tensor, share: float) -> Kept:
    """Remove a share of the tokens: of every row the int(tokens * (1 - share)) with the smallest noise (batch, tokens) stay, smallest
    first."""
    rows, tokens = noise.shape
    kept = int(tokens * (1 - share))
    return Kept(noise.argsort(1)[:, :kept], torch.full((rows,), kept, device=noise.device), tokens)


def structured_noise(noise: Tensor, rows: int, share: float, structure: Structure, generator: torch.Generator) -> Tensor:
    """Noise by which :func:`keep_smallest` removes whole times or frequencies of a spectrogram before anything else.

    Args:
        noise: (batch, tokens), patches of ``rows`` frequencies, each with all its times.
        share: of the times or of the frequencies; of ``both`` 0.7 of it each, as the official code has it.
    """
    raised = noise.clone().unflatten(1, (rows, -1))
    _, frequencies, times = raised.shape
    part = share * SHARE_OF_BOTH if structure == "both" else share
    for clip in raised:
        if structure != "frequency":
            clip[:, torch.randperm(times, generator=generator)[: int(times * part)]] = NEVER
        if structure != "time":
            clip[torch.randperm(frequencies, generator=generator)[: int(frequencies * part)]] = NEVER
    return raised.flatten(1)
