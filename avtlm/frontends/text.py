"""Text front-end of VATLM: frame-level phones at 100 Hz, embedded and brought to 25 Hz by two strided convolutions (VATLM section
III-B)."""

import torch.nn.functional as F
from torch import Tensor, nn

from avtlm.nn.attention import padding_mask

DOWNSAMPLING = 4


class PhoneEncoder(nn.Module):
    """Embedding without padding index, then two convolutions of stride 2."""

    def __init__(self, phones: int, dim: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(phones, dim)
        nn.init.normal_(self.embedding.weight, 0.0, 0.02)
        self.conv1 = nn.Conv1d(dim, dim, 3, stride=2, padding=1)
        self.conv2 = nn.Conv1d(dim, dim, 3, stride=2, padding=1)

    def forward(self, phones: Tensor, lengths: Tensor) -> Tensor:
        """phones (batch, length) int at 100 Hz, lengths (batch,) -> (batch, ceil(length / 4), dim) at 25 Hz.

        What lies beyond a row's length is zero to both convolutions, as it is to a row on its own.
        """
        x = self.embedding(phones).masked_fill(padding_mask(lengths, phones.shape[1])[..., None], 0.0)
        x = F.relu(self.conv1(x.transpose(1, 2)))
        x = x.masked_fill(padding_mask((lengths + 1) // 2, x.shape[2])[:, None], 0.0)
        return self.conv2(x).transpose(1, 2)


def downsampled(lengths: Tensor) -> Tensor:
    """Phones at 100 Hz to frames at 25 Hz: ceil(length / 4)."""
    return (lengths + DOWNSAMPLING - 1) // DOWNSAMPLING
