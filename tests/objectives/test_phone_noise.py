"""Noise of phonemes: how many, which, and what they become."""

import math

import pytest
import torch

from avtlm.objectives.phone_noise import PhoneNoiseConfig, noise_phones

MASK = 24


def noised(lengths: list[int], seed: int = 0, **changes: float) -> tuple[torch.Tensor, torch.Tensor]:
    phones = torch.arange(4, 24).repeat(len(lengths), 3)[:, : max(lengths)]
    generator = torch.Generator().manual_seed(seed)
    return phones, noise_phones(phones, torch.tensor(lengths), MASK, PhoneNoiseConfig(**changes), generator)


def test_the_share_is_rounded_up_and_what_stands_behind_a_text_stays() -> None:
    phones, found = noised([31, 10, 1, 0], random=0.0)
    changed = found != phones
    assert changed.sum(1).tolist() == [math.ceil(0.3 * 31), 3, 1, 0]
    assert bool((found[changed] == MASK).all())
    assert not bool(changed[1, 10:].any())


def test_some_of_them_become_random_phonemes() -> None:
    phones, found = noised([60] * 200, random=0.5)
    assert int((found == MASK).sum()) == pytest.approx(200 * 18 / 2, rel=0.1)
    others = found[(found != phones) & (found != MASK)]
    assert set(others.tolist()) == set(range(4, 24))


def test_a_seed_repeats_it() -> None:
    assert torch.equal(noised([40], 5)[1], noised([40], 5)[1])
    assert not torch.equal(noised([40], 5)[1], noised([40], 6)[1])


def test_shares_outside_of_0_to_1_are_refused() -> None:
    with pytest.raises(ValueError, match=r"noise: share 1\.5"):
        PhoneNoiseConfig(share=1.5)
