"""Batches: padding, plans, and what a modality's absence looks like."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from avtlm.data.batching import Batch, fit, pad, plan_batches, summarise


def batch() -> Batch:
    lengths = torch.tensor([3, 2])
    return Batch(
        ("a", "b"),
        "audio_video",
        torch.ones(2, 3, 104),
        lengths,
        torch.zeros(2, 3, 88, 88),
        lengths,
        targets={"units": torch.zeros(2, 3).long()},
    )


def test_rows_are_padded_at_the_end_and_keep_their_lengths() -> None:
    padded, lengths = pad([torch.tensor([[1, 2], [3, 4]]), torch.zeros(0, 2, dtype=torch.long)], -1)
    assert padded.tolist() == [[[1, 2], [3, 4]], [[-1, -1], [-1, -1]]]
    assert lengths.tolist() == [2, 0]


def test_fitting_cuts_or_fills_up() -> None:
    row = torch.arange(6).view(3, 2)
    assert fit(row, 2).tolist() == [[0, 1], [2, 3]]
    assert fit(row, 4, -1).tolist() == [[0, 1], [2, 3], [4, 5], [-1, -1]]
    assert fit(torch.arange(2), 3).tolist() == [0, 1, 0]


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 100), min_size=1, max_size=120), st.integers(100, 400), st.integers(1, 12), st.integers(0, 1000))
def test_a_plan_holds_every_utterance_once_within_its_bounds(frames: list[int], max_frames: int, max_rows: int, seed: int) -> None:
    plan = plan_batches(frames, max_frames, max_rows, torch.Generator().manual_seed(seed))
    assert sorted(index for rows in plan for index in rows) == list(range(len(frames)))
    for rows in plan:
        assert len(rows) <= max_rows
        assert max(frames[index] for index in rows) * len(rows) <= max_frames


def test_a_plan_repeats_from_a_seed_and_differs_between_seeds() -> None:
    frames = list(range(10, 90))
    plans = [plan_batches(frames, 500, 8, torch.Generator().manual_seed(seed)) for seed in (1, 1, 2)]
    assert plans[0] == plans[1]
    assert plans[0] != plans[2]


def test_batches_hold_utterances_of_like_length() -> None:
    frames = torch.randint(10, 200, (400,), generator=torch.Generator().manual_seed(0)).tolist()
    plan = plan_batches(frames, 2000, 16, torch.Generator().manual_seed(0))
    padded = sum(max(frames[i] for i in rows) * len(rows) for rows in plan)
    assert padded < 1.25 * sum(frames)


def lrs3_like(count: int) -> list[int]:
    """Frames at 25 Hz, log-normal with median 2.6 s."""
    seconds = 2.6 * torch.exp(0.7 * torch.randn(count, generator=torch.Generator().manual_seed(0)))
    return (25 * seconds.clamp(0.8, 16)).long().tolist()


def test_the_published_batch_sizes_are_filled_and_hardly_padded() -> None:
    """1000 and 3000 frames per GPU: AV-HuBERT and VATLM."""
    frames = lrs3_like(4000)
    for max_frames in (1000, 3000):
        summary = summarise(frames, plan_batches(frames, max_frames, 512, torch.Generator().manual_seed(0)), max_frames)
        assert summary.utterances == 4000
        assert summary.padding < 0.03
        assert summary.fill > 0.9


def test_more_buckets_pad_less_where_rows_bound_the_batch() -> None:
    frames = lrs3_like(4000)
    plans = {buckets: plan_batches(frames, 1000, 8, torch.Generator().manual_seed(0), buckets) for buckets in (1, 8, 64)}
    padding = {buckets: summarise(frames, plan, 1000).padding for buckets, plan in plans.items()}
    assert padding[1] > 0.3 > 0.15 > padding[8] > 0.05 > padding[64]


def test_two_epochs_put_other_utterances_together() -> None:
    """Of the pairs that share a batch in one epoch, few do in the next; and short batches come in no order."""
    frames = lrs3_like(2000)
    plans = [plan_batches(frames, 1000, 64, torch.Generator().manual_seed(epoch)) for epoch in (0, 1)]
    pairs = [{(i, j) for rows in plan for i in rows for j in rows if i < j} for plan in plans]
    assert len(pairs[0] & pairs[1]) < 0.2 * len(pairs[0])
    longest = torch.tensor([float(max(frames[i] for i in rows)) for rows in plans[0]])
    assert abs(float(torch.corrcoef(torch.stack([longest[1:], longest[:-1]]))[0, 1])) < 0.2


def test_a_summary_counts_padding_and_room() -> None:
    summary = summarise([10, 20, 40], [[0, 1], [2]], 50)
    assert (summary.utterances, summary.batches) == (3, 2)
    assert summary.padding == pytest.approx(1 - 70 / 80)
    assert summary.fill == pytest.approx(80 / 100)
    assert str(summary) == "3 utterances in 2 batches, 12.5 % of their frames are padding, 80 % of max_frames are used"


def test_an_utterance_that_fits_no_batch_is_refused_with_both_numbers() -> None:
    with pytest.raises(ValueError, match="max_frames: 50 is less than the longest utterance, 60 frames"):
        plan_batches([10, 60], 50, 8, torch.Generator())


def test_a_batch_moves_as_a_whole() -> None:
    moved = batch().to("cpu")._map(lambda tensor: tensor + 1)
    assert moved.audio is not None
    assert moved.audio[0, 0, 0] == 2
    assert moved.targets["units"][0, 0] == 1
    assert moved.text is None
    assert len(moved) == 2


def test_a_batch_seen_through_one_modality_lacks_the_other() -> None:
    whole = batch()
    assert whole.only("av") is whole
    sound, lips = whole.only("a"), whole.only("v")
    assert sound.video is None
    assert sound.video_lengths is None
    assert lips.audio is None
    assert lips.audio_lengths is None
    assert lips.ids == ("a", "b")


def test_a_modality_that_is_not_there_or_not_known_is_refused() -> None:
    with pytest.raises(ValueError, match="'av' was asked for, but a has no audio"):
        batch().only("v").only("av")
    with pytest.raises(ValueError, match="a has no video"):
        batch().only("a").only("v")
    with pytest.raises(ValueError, match="'va' is unknown; choose av, a or v"):
        batch().only("va")
