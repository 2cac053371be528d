"""The pruned transducer: sums over paths, windows, and that k2's kernel takes over where it is."""

import itertools
import sys
import types
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor
from torchaudio.functional import rnnt_loss

from avtlm.objectives import pruned_transducer
from avtlm.objectives.pruned_transducer import (
    Lattice,
    Summed,
    full_lattice,
    loss_scales,
    prune_ranges,
    pruned_lattice,
    simple_lattice,
    sum_paths,
)

LENGTHS, COUNTS = torch.tensor([6, 4]), torch.tensor([3, 2])


def joint(frames: int = 6, symbols: int = 3, vocabulary: int = 5) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(2, frames, symbols + 1, vocabulary, generator=generator)
    return logits, torch.randint(1, vocabulary, (2, symbols), generator=generator)


def paths(lattice: Lattice, row: int, frames: int, symbols: int) -> Tensor:
    """Every path by itself, summed."""
    found = []
    for places in itertools.combinations(range(frames + symbols - 1), symbols):  # the last step is a blank
        frame = said = 0
        total = torch.zeros((), dtype=torch.double)
        for step in range(frames + symbols):
            if step in places:
                total = total + lattice.labels[row, said, frame].double()
                said += 1
            else:
                total = total + lattice.blanks[row, said, frame].double()
                frame += 1
        found.append(total)
    return torch.stack(found).logsumexp(0)


def test_the_full_lattice_sums_all_paths_as_torchaudio_does() -> None:
    logits, tokens = joint()
    logits.requires_grad_()
    lattice = full_lattice(logits, tokens, LENGTHS)
    total = sum_paths(lattice, LENGTHS, COUNTS).total
    for row in range(2):
        torch.testing.assert_close(total[row].double(), paths(lattice, row, int(LENGTHS[row]), int(COUNTS[row])), atol=1e-5, rtol=1e-5)
    (ours,) = torch.autograd.grad(total.sum(), logits)
    theirs = rnnt_loss(logits, tokens.int(), LENGTHS.int(), COUNTS.int(), blank=0, clamp=-1, reduction="none")
    torch.testing.assert_close(-total, theirs, atol=1e-4, rtol=1e-5)
    (expected,) = torch.autograd.grad(-theirs.sum(), logits)
    torch.testing.assert_close(ours, expected, atol=1e-4, rtol=1e-4)


def test_the_simple_lattice_is_the_full_one_of_a_joiner_that_adds() -> None:
    generator = torch.Generator().manual_seed(3)
    heard, said = torch.randn(2, 6, 5, generator=generator), torch.randn(2, 4, 5, generator=generator)
    _, tokens = joint()
    simple = simple_lattice(heard, said, tokens, LENGTHS)
    full = full_lattice(heard[:, :, None] + said[:, None], tokens, LENGTHS)
    for ours, other in ((simple.labels, full.labels), (simple.blanks, full.blanks)):
        torch.testing.assert_close(ours, other, atol=1e-5, rtol=1e-5)


def test_smoothing_mixes_in_what_is_said_and_what_is_heard_alone() -> None:
    generator = torch.Generator().manual_seed(3)
    heard, said = torch.randn(2, 6, 5, generator=generator), torch.randn(2, 4, 5, generator=generator)
    _, tokens = joint()
    plain = simple_lattice(heard, said, tokens, LENGTHS)
    smooth = simple_lattice(heard, said, tokens, LENGTHS, lm_scale=0.25)
    alone = said.log_softmax(-1)[..., 0][..., None]
    torch.testing.assert_close(smooth.blanks, 0.75 * plain.blanks + 0.25 * alone.expand_as(plain.blanks))
    both = simple_lattice(heard, said, tokens, LENGTHS, lm_scale=0.25, am_scale=0.1)
    mean = said.softmax(-1).mean((0, 1)).log()
    acoustic = (heard + mean).log_softmax(-1)[..., 0][:, None]
    expected = 0.65 * plain.blanks + 0.25 * alone.expand_as(plain.blanks) + 0.1 * acoustic.expand_as(plain.blanks)
    torch.testing.assert_close(both.blanks, expected, atol=1e-5, rtol=1e-5)


def test_windows_begin_at_the_start_never_go_back_overlap_and_reach_the_end() -> None:
    generator = torch.Generator().manual_seed(5)
    for frames, symbols, width in ((20, 12, 4), (9, 3, 5), (5, 5, 2)):
        logits = 3 * torch.randn(1, frames, symbols + 1, 6, generator=generator)
        tokens = torch.randint(1, 6, (1, symbols), generator=generator)
        lengths, counts = torch.tensor([frames]), torch.tensor([symbols])
        ranges = prune_ranges(sum_paths(full_lattice(logits, tokens, lengths), lengths, counts), lengths, counts, width)[0]
        start = ranges[:, 0]
        steps = start.diff()
        assert ranges.shape == (frames, min(width, symbols + 1))
        assert int(start[0]) == 0
        assert bool((steps >= 0).all())
        assert bool((steps < ranges.shape[1]).all())
        assert int(ranges[-1, -1]) == symbols


def test_a_lattice_pruned_to_all_places_gives_the_full_loss() -> None:
    logits, tokens = joint()
    ranges = torch.arange(4).expand(2, 6, 4)
    full = sum_paths(full_lattice(logits, tokens, LENGTHS), LENGTHS, COUNTS).total
    pruned = sum_paths(pruned_lattice(logits, tokens, ranges, LENGTHS), LENGTHS, COUNTS).total
    torch.testing.assert_close(pruned, full, atol=1e-5, rtol=1e-5)


def test_pruning_leaves_paths_out() -> None:
    logits, tokens = joint()
    whole = sum_paths(full_lattice(logits, tokens, LENGTHS), LENGTHS, COUNTS)
    ranges = prune_ranges(whole, LENGTHS, COUNTS, 2)
    chosen = logits.gather(2, ranges[..., None].expand(-1, -1, -1, logits.shape[3]))
    pruned = sum_paths(pruned_lattice(chosen, tokens, ranges, LENGTHS), LENGTHS, COUNTS).total
    assert bool((pruned < whole.total).all())
    assert bool((pruned > -100).all())


def test_texts_that_fit_into_the_window_are_not_pruned() -> None:
    logits, tokens = joint()
    whole = sum_paths(full_lattice(logits, tokens, LENGTHS), LENGTHS, COUNTS)
    ranges = prune_ranges(whole, LENGTHS, COUNTS, 5)
    assert torch.equal(ranges, torch.arange(4).expand(2, 6, 4))


def test_texts_without_symbols_have_one_path() -> None:
    logits, tokens = joint()
    nothing = torch.zeros(2, dtype=torch.long)
    lattice = full_lattice(logits, tokens, LENGTHS)
    summed = sum_paths(lattice, LENGTHS, nothing)
    expected = torch.stack([lattice.blanks[row, 0, : LENGTHS[row]].sum() for row in range(2)])
    torch.testing.assert_close(summed.total, expected)
    assert prune_ranges(summed, LENGTHS, nothing, 3)[:, :, 0].eq(0).all()


def test_scales_change_hands_while_the_simple_loss_warms_up() -> None:
    assert loss_scales(0, 2000, 0.5) == (1.0, 0.1)
    assert loss_scales(500, 2000, 0.5) == pytest.approx((0.875, 0.325))
    assert loss_scales(2000, 2000, 0.5) == loss_scales(9999, 2000, 0.5) == (0.5, 1.0)


@pytest.fixture
def fresh_kernel() -> Iterator[None]:
    pruned_transducer._kernel.cache_clear()
    yield
    pruned_transducer._kernel.cache_clear()


@pytest.mark.usefixtures("fresh_kernel")
def test_the_kernel_of_k2_takes_over_where_it_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []

    def recursion(labels: Tensor, blanks: Tensor, boundary: Tensor, return_grad: bool) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        seen.append((boundary.tolist(), return_grad))
        return torch.zeros(2), (torch.zeros_like(labels), torch.zeros_like(blanks))

    monkeypatch.setitem(sys.modules, "k2", types.SimpleNamespace(mutual_information_recursion=recursion))
    logits, tokens = joint()
    summed = sum_paths(full_lattice(logits, tokens, LENGTHS), LENGTHS, COUNTS)
    assert isinstance(summed, Summed)
    assert seen == [([[0, 0, 3, 6], [0, 0, 2, 4]], True)]
