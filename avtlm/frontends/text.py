"""Text front-end of VATLM: frame-level phones at 100 Hz, embedded and brought to 25 Hz by two strided convolutions (VATLM section III-B)."""

import torch.nn.functional as F
from torch import Tensor, nn

DOWNSAMPLING = 4


class PhoneEncoder(nn.Module):
    """Embedding without padding index (padded phones are embedded, as in the official model), then two convolutions of stride 2."""

    def __init__(self, phones: int, dim: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(phones, dim)
        nn.init.normal_(self.embedding.weight, 0.0, 0.02)
        self.conv1 = nn.Conv1d(dim, dim, 3, stride=2, padding=1)
        self.conv2 = nn.Conv1d(dim, dim, 3, stride=2, padding=1)

    def forward(self, phones: Tensor) -> Tensor:
        """phones (batch, length) int at 100 Hz -> (batch, ceil(length / 4), dim) at 25 Hz."""
        x = self.embedding(phones).transpose(1, 2)
        return self.conv2(F.relu(self.conv1(x))).transpose(1, 2)


def downsampled(lengths: Tensor) -> Tensor:
    """Phones at 100 Hz to frames at 25 Hz: ceil(length / 4)."""
    return (lengths + DOWNSAMPLING - 1) // DOWNSAMPLING
