"""What stands between a pooled vector and the classes of voices (SpeechT5's ``speaker_decoder_postnet``)."""

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class SpeakerHeadConfig:
    """The defaults are those of SpeechT5's recipe: the pooled vector goes straight to the classes.

    Attributes:
        pooled_norm: a batch norm over pooled vectors.
        dim: of an embedding with a batch norm behind it; 0 for none.
        cosine: classes are told by directions alone. (The margins of the official code are not reached by its criterion.)
    """

    pooled_norm: bool = False
    dim: int = 0
    cosine: bool = False

    def __post_init__(self) -> None:
        if self.dim < 0:
            raise ValueError(f"speaker_head.dim: {self.dim}; give 0 (no embedding) or more.")


class SpeakerHead(nn.Module):
    """Pooled vectors to embeddings of voices.

    Initialisation: the embedding N(0, dim^-0.5).
    """

    def __init__(self, config: SpeakerHeadConfig, dim: int) -> None:
        super().__init__()
        self.config = config
        self.dim = config.dim or dim
        self.pooled_norm = nn.BatchNorm1d(dim) if config.pooled_norm else None
        self.project = nn.Linear(dim, config.dim, bias=False) if config.dim else None
        self.norm = nn.BatchNorm1d(config.dim) if config.dim else None
        if self.project is not None:
            nn.init.normal_(self.project.weight, 0.0, config.dim**-0.5)

    def forward(self, pooled: Tensor) -> Tensor:
        """(batch, dim) -> embeddings (batch, self.dim)."""
        x = pooled if self.pooled_norm is None else self.pooled_norm(pooled)
        if self.project is None or self.norm is None:
            return x
        out: Tensor = self.norm(self.project(x))
        return out

    def classify(self, embedded: Tensor, classes: Tensor) -> Tensor:
        """Embeddings (batch, self.dim) and classes (number, self.dim) -> logits (batch, number)."""
        if self.config.cosine:
            embedded, classes = F.normalize(embedded, dim=1), F.normalize(classes, dim=1)
        return F.linear(embedded, classes)
