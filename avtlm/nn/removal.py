"""Sequences of which an encoder sees some tokens alone, and the way back to whole ones (masked autoencoders, He et al., arXiv 2111.06377).

Rows may keep different numbers of tokens, in any order: what is kept is an index into the whole sequence, and a count for each row.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from avtlm.nn.attention import padding_mask


@dataclass(frozen=True)
class Kept:
    """Which tokens of each row are seen.

    Attributes:
        index: their places in the whole sequence, int (batch, most); what stands behind a row's count means nothing.
        counts: how many of each row, (batch,).
        width: tokens of the whole sequence, padding included.
    """

    index: Tensor
    counts: Tensor
    width: int

    @classmethod
    def of(cls, seen: Tensor) -> "Kept":
        """Those for which ``seen``, bool (batch, tokens), is True, in their order."""
        counts = seen.sum(1)
        most = max(1, int(counts.max()))
        return cls(torch.argsort((~seen).int(), dim=1, stable=True)[:, :most], counts, seen.shape[1])

    @property
    def removed(self) -> Tensor:
        """True where a token is not seen, bool (batch, tokens)."""
        seen = torch.zeros(len(self.index), self.width + 1, dtype=torch.bool, device=self.index.device)
        return ~seen.scatter(1, self._places(), True)[:, :-1]

    def gather(self, x: Tensor) -> Tensor:
        """Whole sequences (batch, tokens, dim) -> what is seen of them (batch, most, dim)."""
        return x.gather(1, self.index[..., None].expand(-1, -1, x.shape[-1]))

    def restore(self, x: Tensor, empty: Tensor) -> Tensor:
        """What was seen (batch, most, dim) -> whole sequences (batch, tokens, dim), with the vector ``empty`` (dim,) everywhere else."""
        whole = empty.to(x.dtype).expand(len(x), self.width + 1, -1)
        return whole.scatter(1, self._places()[..., None].expand_as(x), x)[:, :-1]

    def _places(self) -> Tensor:
        """The index, in which what means nothing goes to one place behind the end."""
        return self.index.masked_fill(padding_mask(self.counts, self.index.shape[1]), self.width)
