"""The light decoder of a masked autoencoder: from the tokens that were seen to the values of all (MAE, arXiv 2111.06377; of two modalities
CAV-MAE, arXiv 2210.07839, section 3.2)."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from avtlm.nn.positions import PositionalConvolution
from avtlm.nn.removal import Kept
from avtlm.nn.transformer import Encoder, EncoderConfig, initialise_like_bert


class Reconstructor(nn.Module):
    """A learned vector stands for what was not seen; layers go over all tokens, and one linear map a modality gives their values.

    Initialisation: linear maps and vectors N(0, 0.02), biases 0; layers see Encoder.

    Args:
        dim: width of what was seen.
        layers: of the decoder, without positions of their own.
        outputs: values of a token of each modality, in the order of the sequence.
        kernel: of a positional convolution over each modality; 0 for none. With one, what is beside a token is known from the first step
            on; layers alone learn late to look there.
        groups: of that convolution.
    """

    def __init__(self, dim: int, layers: EncoderConfig, outputs: Sequence[int], kernel: int = 0, groups: int = 16) -> None:
        super().__init__()
        self.project = nn.Linear(dim, layers.dim)
        self.mask_token = nn.Parameter(torch.empty(layers.dim).normal_(0.0, 0.02))
        self.modality = nn.Parameter(torch.empty(len(outputs), layers.dim).normal_(0.0, 0.02))
        self.encoder = Encoder(layers)
        self.near = nn.ModuleList(PositionalConvolution(layers.dim, kernel, groups) for _ in outputs) if kernel else None
        self.heads = nn.ModuleList(nn.Linear(layers.dim, width) for width in outputs)
        for part in (self.project, *self.heads):
            initialise_like_bert(part)

    def forward(self, seen: Tensor, kept: Kept, positions: Tensor, sizes: Sequence[int], there: Tensor | None = None) -> list[Tensor]:
        """Values of all tokens, of each modality (batch, its tokens, its values).

        Args:
            seen: (batch, most, dim), which ``kept`` puts back into the whole sequence.
            positions: what says where a token is, broadcastable to (batch, tokens, width of the decoder).
            sizes: tokens of each modality, which follow each other.
            there: bool (batch, tokens), False at padding; None if there is none.
        """
        whole = kept.restore(self.project(seen), self.mask_token)
        if self.near is not None:
            absent = torch.zeros_like(whole[..., 0], dtype=torch.bool) if there is None else ~there
            parts = zip(self.near, whole.split(list(sizes), 1), absent.split(list(sizes), 1), strict=True)
            near = [conv(part.masked_fill(gone[..., None], 0.0), gone) for conv, part, gone in parts]
            whole = whole + torch.cat(near, 1).to(whole.dtype)
        kinds = torch.repeat_interleave(torch.arange(len(sizes)), torch.tensor(sizes)).to(whole.device)
        whole = whole + positions.to(whole.dtype) + self.modality[kinds]
        if there is None:
            decoded = self.encoder(whole, None)
        else:
            valid = Kept.of(there)
            decoded = self.encoder(valid.gather(whole), valid.counts)
            decoded = valid.restore(decoded, decoded.new_zeros(decoded.shape[-1]))
        return [head(part) for head, part in zip(self.heads, decoded.split(list(sizes), 1), strict=True)]
