"""Batches for models that write speech."""

import pytest
import torch

from avtlm.data.spoken import Utterance, collate, crop, crop_size, draw_starts


def row(name: str, samples: int, frames: int) -> Utterance:
    return Utterance(
        name,
        wave=torch.arange(float(samples)),
        mel=torch.arange(float(frames))[:, None].expand(-1, 2),
        units=torch.arange(samples // 320),
        voice=torch.ones(3),
    )


def test_clips_are_cut_to_the_shortest_and_spectrograms_and_units_with_them() -> None:
    rows = [row("a", 16000, 63), row("b", 9600, 38)]
    size = crop_size([16000, 9600], 8000)
    assert size == 8000
    cut = crop(rows, [6400, 800], size)
    assert [len(each.wave) for each in cut if each.wave is not None] == [8000, 8000]
    first = cut[0]
    assert first.wave is not None
    assert first.units is not None
    assert first.mel is not None
    assert first.wave[0] == 6400
    assert first.units.tolist() == list(range(20, 45))
    assert (first.mel[0, 0], len(first.mel)) == (25, 31)


def test_padded_batches_cut_only_what_is_too_long() -> None:
    rows = [row("a", 16000, 63), row("b", 4800, 19)]
    size = crop_size([16000, 4800], 8000, padded=True)
    cut = crop(rows, [3200, 0], size, padded=True)
    assert [len(each.wave) for each in cut if each.wave is not None] == [8000, 4800]
    assert [len(each.units) for each in cut if each.units is not None] == [25, 15]
    assert [len(each.mel) for each in cut if each.mel is not None] == [31, 19]


def test_crops_lie_within_their_clips() -> None:
    generator = torch.Generator().manual_seed(0)
    starts = [draw_starts([1000, 400], 400, generator) for _ in range(50)]
    assert {second for _, second in starts} == {0}
    assert all(0 <= first <= 600 for first, _ in starts)
    assert len({first for first, _ in starts}) > 20


def test_batches_hold_every_part_padded() -> None:
    batch = collate([row("a", 640, 5), row("b", 960, 3)], "pretrain")
    assert batch.ids == ("a", "b")
    assert batch.audio is not None
    assert batch.audio.shape == (2, 960)
    assert batch.targets["units"].tolist() == [[0, 1, -1], [0, 1, 2]]
    assert batch.target_lengths["mel"].tolist() == [5, 3]
    assert batch.targets["voice"].shape == (2, 3)
    assert batch.text is None


def test_a_row_that_lacks_what_others_have_is_named() -> None:
    with pytest.raises(ValueError, match="b: no mel, which other utterances of its batch have"):
        collate([row("a", 640, 5), Utterance("b", wave=torch.zeros(10), units=torch.zeros(1), voice=torch.ones(3))], "pretrain")
