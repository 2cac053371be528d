"""The half of a transducer that writes: a prediction network over the last labels, and the joiner of what is heard and what is written.

What is unusual here: the prediction network sees the last labels alone, ``context`` of them, by an embedding and a convolution. It has no
state but these labels, costs next to nothing, and recognises as well as a recurrent one.

Papers: Graves 2012, arXiv 1211.3711; Ghodsi et al. 2020, "RNN-Transducer with stateless prediction network" (ICASSP), in the form of the
recipes of icefall (two labels, grouped convolution, tanh).
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

GROUP = 4  # channels that the convolution mixes


@dataclass(frozen=True)
class TransducerConfig:
    """Sizes of the prediction network and the joiner, and the transducer's share of the loss; the rest is for CTC and attention.

    Attributes:
        context: labels that the prediction network sees; with one, it is their embeddings and nothing behind them, as in icefall.
        joint_dim: width in which frames and predictions are added.
        empty_start: before a text stands one blank, and before that nothing, a vector of zeros, as in the models of icefall; else blanks.
    """

    weight: float = 0.7
    dim: int = 512
    context: int = 2
    joint_dim: int = 512
    dropout: float = 0.1
    empty_start: bool = False

    def __post_init__(self) -> None:
        if not 0.0 < self.weight < 1.0:
            raise ValueError(f"weight: {self.weight}; give the transducer's share of the loss, between 0 and 1.")
        if self.context < 1 or self.dim < GROUP or self.dim % GROUP or self.joint_dim < 1:
            raise ValueError(
                f"dim {self.dim}, context {self.context}, joint_dim {self.joint_dim}: give a multiple of {GROUP}, and at least 1 each."
            )
        if not 0.0 <= self.dropout < 1.0:
            raise ValueError(f"dropout: {self.dropout} is not a probability; give a number from 0 up to, but not including, 1.")


class TransducerHead(nn.Module):
    """Meets the protocol of the searches (avtlm.decoding.transducer). PyTorch's own initialisation; embeddings N(0, dim^-0.5).

    Args:
        vocabulary: symbols, the blank among them.
        encoder_dim: width of the frames.
    """

    def __init__(self, config: TransducerConfig, vocabulary: int, encoder_dim: int, blank: int = 0) -> None:
        super().__init__()
        self.config, self.blank = config, blank
        self.embedding = nn.Embedding(vocabulary, config.dim)
        groups = config.dim // GROUP
        self.convolution = nn.Conv1d(config.dim, config.dim, config.context, groups=groups, bias=False) if config.context > 1 else None
        self.project_predicted = nn.Linear(config.dim, config.joint_dim)
        self.project_encoded = nn.Linear(encoder_dim, config.joint_dim)
        self.output = nn.Linear(config.joint_dim, vocabulary)
        self.dropout = nn.Dropout(config.dropout)
        nn.init.normal_(self.embedding.weight, 0.0, config.dim**-0.5)

    def forward(self, encoded: Tensor, tokens: Tensor) -> Tensor:
        """Frames (batch, frames, encoder_dim) and texts (batch, labels) -> logits (batch, frames, labels + 1, vocabulary): at place u, u
        labels have been said."""
        joined = self.project_encoded(encoded)[:, :, None] + self.project_predicted(self.read(tokens))[:, None]
        return self.output(joined.tanh())

    def read(self, tokens: Tensor) -> Tensor:
        """Texts (batch, labels) -> what the prediction network makes of them, (batch, labels + 1, dim): at place u, u labels have been
        said."""
        before = self._start(len(tokens)).to(tokens)
        before[:, -1] = self.blank
        return self._see(torch.cat([before, tokens], 1))

    def join_some(self, encoded: Tensor, read: Tensor, ranges: Tensor) -> Tensor:
        """Logits at some places of every frame.

        Args:
            encoded: (batch, frames, encoder_dim).
            read: see `read`.
            ranges: the places, int (batch, frames, width).

        Returns:
            (batch, frames, width, vocabulary).
        """
        said = self.project_predicted(read)
        chosen = said.gather(1, ranges.flatten(1)[..., None].expand(-1, -1, said.shape[2])).unflatten(1, ranges.shape[1:])
        return self.output((self.project_encoded(encoded)[:, :, None] + chosen).tanh())

    # Search ------------------------------------------------------------------------------------------------------------------------------

    def initial_state(self, rows: int) -> Tensor:
        """The last labels of empty texts: blanks, or -1 for nothing, (rows, context)."""
        return self._start(rows)

    def _start(self, rows: int) -> Tensor:
        what = -1 if self.config.empty_start else self.blank
        return torch.full((rows, self.config.context), what, device=self.embedding.weight.device)

    def predict(self, tokens: Tensor, state: Tensor) -> tuple[Tensor, Tensor]:
        """tokens (rows,) behind the labels of ``state`` (rows, context) -> what may follow (rows, joint_dim), and the new state."""
        state = torch.cat([state[:, 1:], tokens[:, None]], 1)
        return self.project_predicted(self._see(state))[:, 0], state

    def join(self, encoded: Tensor, predicted: Tensor) -> Tensor:
        """Frames (rows, encoder_dim) and predictions (rows, joint_dim) -> logits (rows, vocabulary)."""
        return self.output((self.project_encoded(encoded) + predicted).tanh())

    def _see(self, labels: Tensor) -> Tensor:
        """(rows, labels) -> (rows, labels - context + 1, dim), for every ``context`` of them; -1 is nothing."""
        embedded = self.embedding(labels.clamp(min=0))
        if self.config.empty_start:
            embedded = embedded * (labels >= 0)[..., None]
        embedded = self.dropout(embedded)
        if self.convolution is None:
            return embedded
        return F.relu(self.convolution(embedded.transpose(1, 2)).transpose(1, 2))
