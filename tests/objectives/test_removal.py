"""Removal in blocks, of single tokens, and of whole times and frequencies: how much goes, in what shape, and that draws repeat."""

import pytest
import torch

from avtlm.objectives.masking import runs
from avtlm.objectives.removal import RemovalConfig, keep_smallest, remove_blocks, structured_noise


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_three_quarters_go_in_spans_and_padding_never_does() -> None:
    lengths = torch.tensor([200, 60, 7])
    removed = remove_blocks(lengths, 200, 0.75, 5, generator())
    shares = removed.sum(1) / lengths
    assert 0.68 < shares[0] < 0.8
    assert 0.6 < shares[1] < 0.85
    assert not removed[1, 60:].any()
    assert not removed[2, 7:].any()
    assert 0 < int(removed[2].sum()) < 7
    inner = [end - start for start, end in runs(removed[0]) if start > 0 and end < 200]
    assert all(length % 5 == 0 for length in inner)
    assert torch.equal(removed, remove_blocks(lengths, 200, 0.75, 5, generator()))
    assert not torch.equal(removed, remove_blocks(lengths, 200, 0.75, 5, generator(1)))


@pytest.mark.parametrize("length", [2, 3, 5])
def test_of_short_rows_something_goes_and_something_stays(length: int) -> None:
    for seed in range(20):
        gone = int(remove_blocks(torch.tensor([length]), length, 0.75, 5, generator(seed)).sum())
        assert 0 < gone < length


def test_of_a_single_token_nothing_goes() -> None:
    assert not remove_blocks(torch.tensor([1, 0]), 1, 0.75, 1, generator()).any()


def test_tokens_with_the_smallest_noise_stay() -> None:
    kept = keep_smallest(torch.tensor([[0.9, 0.1, 0.5, 0.7, 0.3]]), 0.5)
    assert kept.index.tolist() == [[1, 4]]  # int(5 * 0.5)
    assert kept.counts.tolist() == [2]
    assert kept.removed.tolist() == [[True, False, True, True, False]]


@pytest.mark.parametrize(("structure", "times", "frequencies"), [("time", 8, 0), ("frequency", 0, 3), ("both", 5, 2)])
def test_whole_times_and_frequencies_go_first(structure: str, times: int, frequencies: int) -> None:
    noise = torch.rand(2, 4 * 11, generator=generator())
    raised = structured_noise(noise, 4, 0.75, structure, generator()).view(2, 4, 11)  # type: ignore[arg-type]
    for clip in raised:
        above = clip > 1
        assert int(above.all(0).sum()) == (11 if times + 4 * frequencies > 44 else times)
        assert int(above.all(1).sum()) == frequencies
    assert torch.equal(raised.flatten(1)[raised.flatten(1) <= 1], noise[raised.flatten(1) <= 1])
    kept = keep_smallest(raised.flatten(1), 0.75)
    assert int(kept.counts[0]) == 11


def test_shares_that_leave_nothing_or_take_nothing_are_refused() -> None:
    with pytest.raises(ValueError, match="give shares between 0 and 1"):
        RemovalConfig(audio=1.0)
    with pytest.raises(ValueError, match="spans of at least 1 token"):
        RemovalConfig(video_span=0)
