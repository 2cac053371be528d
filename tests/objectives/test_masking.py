"""Span masks and imposters: shapes, shares and seeds (equality with the official masks: tests/test_golden.py)."""

from itertools import pairwise

import pytest
import torch

from avtlm.objectives.masking import SpanMaskConfig, TorchDraws, imposters, other_clip, runs, span_mask


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_thinned_rows_hide_equally_many_of_their_own_frames() -> None:
    for seed in range(20):
        mask = span_mask(torch.tensor([120, 90, 61]), 120, SpanMaskConfig(0.3, 5), generator(seed))
        assert len(set(mask.sum(1).tolist())) == 1
        assert not bool(mask[1, 90:].any() or mask[2, 61:].any())


def test_a_row_that_hides_nothing_takes_the_masks_of_the_others_but_one_without_frames_does_not() -> None:
    config = SpanMaskConfig(0.3, 5, min_spans=0)
    drawn = [span_mask(torch.tensor([120, 6]), 120, config, generator(seed)) for seed in range(20)]
    assert {tuple(mask.sum(1).tolist()) for mask in drawn} >= {(0, 0)}
    for seed in range(20):
        mask = span_mask(torch.tensor([120, 0]), 120, config, generator(seed))
        assert mask[0].any()
        assert not mask[1].any()


def test_without_thinning_every_run_is_at_least_a_span_long_and_there_are_at_least_two_starts() -> None:
    config = SpanMaskConfig(0.3, 5)
    for seed in range(50):
        mask = span_mask(torch.tensor([60, 20]), 60, config, generator(seed), same_count=False)
        for row in range(2):
            lengths = [end - start for start, end in runs(mask[row])]
            assert min(lengths) >= 5
            assert sum(lengths) > 5


@pytest.mark.parametrize("lengths", ["static", "uniform", "normal", "poisson"])
def test_spans_kept_apart_never_touch(lengths: str) -> None:
    config = SpanMaskConfig(0.5, 4, lengths=lengths, spread=1.0, overlap=False, min_space=2)  # type: ignore[arg-type]
    for seed in range(50):
        mask = span_mask(torch.tensor([60, 7]), 60, config, generator(seed), same_count=False)
        found = runs(mask[0])
        assert len(found) > 2
        assert all(later - earlier >= 1 for (_, earlier), (later, _) in pairwise(found))
        if lengths == "static":
            assert {end - start for start, end in found} == {4}
        assert not bool(mask[1, 7:].any())


def test_drawn_lengths_have_the_mean_that_was_asked_for() -> None:
    for lengths, spread in (("uniform", 2.0), ("normal", 1.5), ("poisson", 0.0)):
        config = SpanMaskConfig(0.01, 8, min_spans=1, lengths=lengths, spread=spread)  # type: ignore[arg-type]
        sizes = [int(span_mask(torch.tensor([400]), 400, config, generator(seed)).sum()) for seed in range(300)]
        assert sum(sizes) / 300 == pytest.approx(9.0 if lengths == "uniform" else 8.0, abs=0.7)
        assert len(set(sizes)) > 4


def test_another_clip_stands_in_row_by_row() -> None:
    seen = set()
    for seed in range(30):
        row, source = other_clip(torch.tensor([6, 4, 5]), 6, generator(seed))
        assert sorted(row.tolist()) == [0, 1, 2]
        assert all(row != torch.arange(3))
        for number, origin in enumerate(row.tolist()):
            last = (6, 4, 5)[origin] - 1
            assert source[number].tolist() == [min(place, last) for place in range(6)]
        seen.add(tuple(row.tolist()))
    assert len(seen) == 2


def test_a_row_is_masked_alike_whatever_its_batch_if_rows_are_not_thinned() -> None:
    config = SpanMaskConfig(0.8, 10)
    alone = span_mask(torch.tensor([50]), 50, config, generator(), same_count=False)
    together = span_mask(torch.tensor([50, 80]), 80, config, generator(), same_count=False)
    assert torch.equal(alone[0], together[0, :50])
    assert not bool(together[0, 50:].any())


@pytest.mark.parametrize("lengths", [[1], [2], [3], [5, 0], [0, 0], [11, 1]])
def test_clips_shorter_than_a_span_are_hidden_within_their_length(lengths: list[int]) -> None:
    for seed in range(20):
        mask = span_mask(torch.tensor(lengths), 12, SpanMaskConfig(0.8, 10), generator(seed), same_count=False)
        for row, n in enumerate(lengths):
            assert bool(mask[row].any()) == (n > 0) or n == 1
            assert not bool(mask[row, n:].any())


def test_probability_zero_hides_nothing_and_draws_nothing() -> None:
    source = generator()
    state = source.get_state()
    assert not bool(span_mask(torch.tensor([50]), 50, SpanMaskConfig(0.0), source).any())
    assert torch.equal(state, source.get_state())


def test_masks_repeat_from_a_seed() -> None:
    config, lengths = SpanMaskConfig(), torch.tensor([90, 60])
    assert torch.equal(span_mask(lengths, 90, config, generator(3)), span_mask(lengths, 90, config, generator(3)))
    assert not torch.equal(span_mask(lengths, 90, config, generator(3)), span_mask(lengths, 90, config, generator(4)))


def test_runs_are_half_open_ranges() -> None:
    assert runs(torch.tensor([True, True, False, True, False, False, True])) == [(0, 2), (3, 4), (6, 7)]
    assert runs(torch.zeros(4, dtype=torch.bool)) == []


def test_imposters_are_runs_of_the_same_clip_from_outside_the_hidden_one() -> None:
    config = SpanMaskConfig(0.3, 5)
    for seed in range(30):
        lengths = torch.tensor([60, 23])
        mask = span_mask(lengths, 60, config, generator(seed), same_count=False)
        source = imposters(mask, generator(seed), lengths)
        own = torch.arange(60).expand(2, 60)
        assert torch.equal(source[~mask], own[~mask])
        for row in range(2):
            last = int(lengths[row]) - 1
            for start, end in runs(mask[row]):
                shown = source[row, start:end].tolist()
                blocked = range(max(0, start - (end - start)), end)
                assert shown[0] not in blocked
                assert shown == [min(shown[0] + i, last) for i in range(end - start)]


def test_every_free_frame_can_start_an_imposter() -> None:
    mask = torch.zeros(1, 12, dtype=torch.bool)
    mask[0, 5:7] = True
    source = generator()
    starts = {int(imposters(mask, source)[0, 5]) for _ in range(400)}
    assert starts == {0, 1, 2, 7, 8, 9, 10, 11}


def test_with_lengths_no_imposter_comes_from_the_padding() -> None:
    mask = torch.zeros(1, 40, dtype=torch.bool)
    mask[0, 2:5] = True
    source = generator()
    assert max(int(imposters(mask, source, torch.tensor([8]))[0, 2:5].max()) for _ in range(100)) == 7
    assert max(int(imposters(mask, source)[0, 2:5].max()) for _ in range(100)) > 30


def test_a_clip_hidden_as_a_whole_keeps_its_frames() -> None:
    mask = torch.ones(1, 4, dtype=torch.bool)
    assert imposters(mask, generator())[0].tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("wrong", [{"prob": 1.5}, {"length": 0}, {"min_spans": -1}, {"min_space": -1}, {"spread": -1.0}])
def test_impossible_masks_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=r"give a prob from 0 to 1|neither is negative"):
        SpanMaskConfig(**wrong)  # type: ignore[arg-type]


# Equal counts, dropout, starts -----------------------------------------------------------------------------------------------------------

ROWS = torch.tensor([60, 40, 20])


def test_rows_are_thinned_to_the_fewest_or_filled_to_the_most() -> None:
    for seed in range(10):
        free = span_mask(ROWS, 60, SpanMaskConfig(0.5, 5), generator(seed), same_count=False).sum(1)
        thin = span_mask(ROWS, 60, SpanMaskConfig(0.5, 5), generator(seed)).sum(1)
        full = span_mask(ROWS, 60, SpanMaskConfig(0.5, 5, equal_by="filling"), generator(seed)).sum(1)
        assert thin.tolist() == [int(free.min())] * 3
        assert full.tolist() == [int(free.max())] * 3


def test_dropout_gives_a_share_of_the_hidden_frames_back() -> None:
    for seed in range(10):
        free = span_mask(ROWS, 60, SpanMaskConfig(0.5, 5), generator(seed), same_count=False).sum(1)
        part = span_mask(ROWS, 60, SpanMaskConfig(0.5, 5, dropout=0.25), generator(seed), same_count=False).sum(1)
        assert part.tolist() == [int(n) - round(0.25 * int(n)) for n in free]


def test_spans_may_start_up_to_the_last_frame() -> None:
    last = [
        sum(bool(span_mask(torch.tensor([20]), 20, SpanMaskConfig(0.3, 5, starts=starts), generator(seed))[0, 19]) for seed in range(200))  # type: ignore[arg-type]
        for starts in ("inside", "anywhere")
    ]
    assert last[0] == 0
    assert last[1] > 10


def test_every_row_may_have_its_own_numbers() -> None:
    rows = [TorchDraws(generator(seed)) for seed in (3, 4, 5)]
    mask = span_mask(ROWS, 60, SpanMaskConfig(0.5, 5), rows, same_count=False)
    for row, seed in enumerate((3, 4, 5)):
        alone = span_mask(ROWS[row : row + 1], 60, SpanMaskConfig(0.5, 5), generator(seed), same_count=False)
        assert torch.equal(mask[row], alone[0])


def test_a_dropout_of_everything_is_refused() -> None:
    with pytest.raises(ValueError, match="mask: dropout 1"):
        SpanMaskConfig(dropout=1.0)
