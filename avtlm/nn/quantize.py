"""Product quantiser with Gumbel noise (wav2vec 2.0, section 2, eq. 1; Jang et al., arXiv 1611.01144)."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn


@dataclass(frozen=True)
class QuantizerConfig:
    """Codebooks of a Gumbel quantiser; the defaults are those of wav2vec 2.0 base.

    Attributes:
        groups: codebooks, of which each gives a part of a code vector.
        entries: of each codebook.
        dim: of a code vector; null takes the width in which it is compared.
        shared: all groups take from one codebook.
        depth, factor: layers that score the entries, and the width of the hidden ones in input widths.
        start, end, decay: temperature max(start * decay ** updates, end).
        hard: in training, take one drawn entry (its gradient is that of the mixture); false takes the mixture itself.
    """

    groups: int = 2
    entries: int = 320
    dim: int | None = None
    shared: bool = False
    depth: int = 1
    factor: int = 3
    start: float = 2.0
    end: float = 0.5
    decay: float = 0.999995
    hard: bool = True

    def __post_init__(self) -> None:
        if min(self.groups, self.entries, self.depth, self.factor) < 1 or (self.dim is not None and self.dim % self.groups):
            raise ValueError(
                f"quantizer: {self.groups} groups of {self.entries} entries, dim {self.dim}, depth {self.depth}, factor {self.factor}; "
                "give at least 1 of each and a dim that the groups divide."
            )
        if not 0 < self.end <= self.start or not 0 < self.decay <= 1:
            raise ValueError(
                f"quantizer: temperature from {self.start} to {self.end} by {self.decay}; give 0 < end <= start, a decay up to 1."
            )


@dataclass(frozen=True)
class Quantised:
    """What the quantiser makes of n frames.

    Attributes:
        vectors: (n, dim).
        codes: chosen entries, int (n, groups).
        soft_perplexity: summed over groups, of the mean probabilities of the entries without noise; has a gradient.
        hard_perplexity: the same of how often each entry is chosen.
    """

    vectors: Tensor
    codes: Tensor
    soft_perplexity: Tensor
    hard_perplexity: Tensor


class GumbelQuantizer(nn.Module):
    """Frames to code vectors: the best entry of each codebook in evaluation, a drawn one in training, straight through.

    Initialisation: entries uniform(0, 1); the last scoring layer N(0, 1) with zero bias.

    Args:
        config: of the codebooks.
        inputs: width of the frames.
        dim: of a code vector where the configuration leaves it open.
    """

    def __init__(self, config: QuantizerConfig, inputs: int, dim: int) -> None:
        super().__init__()
        self.config = config
        self.dim = config.dim or dim
        if self.dim % config.groups:
            raise ValueError(f"quantizer.groups: {config.groups} does not divide the dim {self.dim} of code vectors; choose a divisor.")
        books = 1 if config.shared else config.groups
        self.entries = nn.Parameter(torch.rand(1, books * config.entries, self.dim // config.groups))
        hidden = inputs * config.factor
        widths = [inputs, *[hidden] * (config.depth - 1)]
        self.score = nn.ModuleList(
            nn.Linear(width, hidden if index < config.depth - 1 else config.groups * config.entries) for index, width in enumerate(widths)
        )
        last = self.score[-1]
        assert isinstance(last, nn.Linear)
        nn.init.normal_(last.weight, 0.0, 1.0)
        nn.init.zeros_(last.bias)
        self.temperature = config.start

    def set_updates(self, updates: int) -> None:
        """Cool down to the temperature after so many updates."""
        config = self.config
        self.temperature = max(config.start * config.decay**updates, config.end)

    @property
    def books(self) -> Tensor:
        """Entries of every group, (groups, entries, dim / groups)."""
        config = self.config
        return self.entries.view(-1, config.entries, self.dim // config.groups).expand(config.groups, -1, -1)

    def forward(self, x: Tensor, counted: Tensor | None = None, noise: Tensor | None = None) -> Quantised:
        """Quantise frames (n, inputs).

        Args:
            counted: bool (n,), the frames that the perplexities are taken over; None takes all.
            noise: Gumbel noise (n, groups, entries) for training; None draws it as dropout is drawn.
        """
        config = self.config
        for index, layer in enumerate(self.score):
            x = F.gelu(layer(x)) if index < len(self.score) - 1 else layer(x)
        logits = x.float().unflatten(-1, (config.groups, config.entries))
        codes = logits.argmax(-1)
        # Out of place, and not by one_hot, which looks at its values and so waits for the device.
        hard = torch.zeros_like(logits).scatter(-1, codes[..., None], 1.0)
        soft_perplexity = _perplexity(logits.softmax(-1), counted)
        hard_perplexity = _perplexity(hard, counted)
        chosen = hard
        if self.training:
            if noise is None:
                noise = -torch.empty_like(logits).exponential_().log()
            soft = ((logits + noise.to(logits.dtype)) / self.temperature).softmax(-1)
            codes = soft.argmax(-1)
            chosen = torch.zeros_like(soft).scatter(-1, codes[..., None], 1.0) - soft.detach() + soft if config.hard else soft
        vectors = torch.einsum("nge,ged->ngd", chosen, self.books.float()).flatten(1)
        return Quantised(vectors, codes, soft_perplexity, hard_perplexity)

    def look_up(self, codes: Tensor) -> Tensor:
        """Code vectors of given entries: int (..., groups) -> (..., dim)."""
        parts = [book[codes[..., group]] for group, book in enumerate(self.books)]
        return torch.cat(parts, -1)


def _perplexity(probabilities: Tensor, counted: Tensor | None) -> Tensor:
    """(n, groups, entries) -> the perplexities of the groups' mean distributions, summed."""
    if counted is None:
        mean = probabilities.mean(0)
    else:
        mean = (probabilities * counted[:, None, None]).sum(0) / counted.sum().clamp(min=1)
    return torch.exp(-(mean * torch.log(mean + 1e-7)).sum(-1)).sum()
