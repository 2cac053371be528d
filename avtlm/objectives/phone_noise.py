"""Phonemes of a text with noise: some of them become a mask symbol, and a few of those a random phoneme (MMSpeech, arXiv 2212.00500).

Source: OFA-Sys/OFA, data/s2t_data/unify_dataset.py (``add_noise_to_phone``).
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from avtlm.text.vocabulary import SPECIALS


@dataclass(frozen=True)
class PhoneNoiseConfig:
    """How much is changed.

    Attributes:
        share: of the phonemes of each text that are changed.
        random: of these, the share that becomes a random phoneme and no mask.
    """

    share: float = 0.3
    random: float = 0.1

    def __post_init__(self) -> None:
        if not 0.0 <= self.share <= 1.0 or not 0.0 <= self.random <= 1.0:
            raise ValueError(f"noise: share {self.share}, random {self.random}; give shares from 0 to 1.")


def noise_phones(phones: Tensor, lengths: Tensor, mask: int, config: PhoneNoiseConfig, generator: torch.Generator) -> Tensor:
    """Phonemes with noise.

    Args:
        phones: int (batch, symbols), on the CPU.
        lengths: (batch,) of each text; what stands behind stays as it is.
        mask: id of the mask symbol, behind those of all phonemes; the first phoneme comes behind the special symbols.
        generator: a CPU one.
    """
    noised = phones.clone()
    for row, length in zip(noised, lengths.tolist(), strict=True):
        count = math.ceil(length * config.share)
        chosen = torch.randperm(length, generator=generator)[:count]
        replaced = torch.rand(count, generator=generator) < config.random
        row[chosen] = mask
        row[chosen[replaced]] = torch.randint(len(SPECIALS), mask, (int(replaced.sum()),), generator=generator)
    return noised
