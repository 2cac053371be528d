"""Losses of written spectrograms, and codes in place of frames."""

import math

import pytest
import torch

from avtlm.nn.spectrogram import Written
from avtlm.objectives.mixing import draw_mixed, mix
from avtlm.objectives.reconstruction import (
    ReconstructionConfig,
    guided_attention_loss,
    removed_token_loss,
    spectrogram_loss,
    token_targets,
)


def test_distances_are_means_over_valid_values() -> None:
    mel = torch.zeros(2, 5, 3)
    written = Written(torch.full((2, 4, 3), 2.0), torch.full((2, 4, 3), 1.0), torch.zeros(2, 4))
    written.after[1, 2:] = 99.0  # behind the end
    loss = spectrogram_loss(written, mel, torch.tensor([5, 3]), ReconstructionConfig(), reduction=2)
    assert loss.count == 6
    # The end of each row counts five times, all with probability one half.
    stop = (2 * 5 + 4) * math.log(2) / 6
    assert float(loss.value / loss.count) == pytest.approx(3.0 + stop)
    squared = spectrogram_loss(written, mel, torch.tensor([5, 3]), ReconstructionConfig(absolute=0.0, squared=1.0, stop_weight=0.0), 2)
    assert float(squared.value / squared.count) == pytest.approx(5.0)


def test_rows_may_count_the_same_however_long_they_are() -> None:
    torch.manual_seed(0)
    mel, lengths = torch.randn(2, 6, 3), torch.tensor([6, 2])
    written = Written(torch.randn(2, 6, 3), torch.randn(2, 6, 3), torch.randn(2, 6))
    config = ReconstructionConfig(squared=0.5, average="rows")
    found = spectrogram_loss(written, mel, lengths, config)
    rows = []
    for row, length in enumerate(lengths.tolist()):
        alone = Written(written.before[row, None, :length], written.after[row, None, :length], written.stop[row, None, :length])
        loss = spectrogram_loss(alone, mel[row, None, :length], torch.tensor([length]), ReconstructionConfig(squared=0.5))
        rows.append(float(loss.value / loss.count))
    assert float(found.value / found.count) == pytest.approx(sum(rows) / 2)


def test_padding_may_count_as_silence_behind_the_end() -> None:
    torch.manual_seed(0)
    mel, lengths = torch.randn(2, 7, 3), torch.tensor([7, 3])
    written = Written(torch.randn(2, 6, 3), torch.randn(2, 6, 3), torch.randn(2, 6))
    found = spectrogram_loss(written, mel, lengths, ReconstructionConfig(average="padding", stop_positive=1.0), reduction=2)
    ends = torch.tensor([[0, 0, 0, 0, 0, 1], [0, 1, 1, 1, 1, 1]]).float()  # the second one's third frame is its end, too
    distances = sum((each - mel[:, :6]).abs().mean() for each in (written.before, written.after))
    stop = torch.nn.functional.binary_cross_entropy_with_logits(written.stop, ends)
    assert found.count == 12
    assert float(found.value / found.count) == pytest.approx(float(distances + stop), rel=1e-5)


def test_attention_along_the_diagonal_costs_nothing() -> None:
    along, across = torch.eye(6).expand(1, 2, 6, 6), torch.eye(6).flip(0).expand(1, 2, 6, 6)
    lengths = torch.tensor([6])
    assert guided_attention_loss([along], lengths, lengths, ReconstructionConfig()) == 0
    assert guided_attention_loss([across, across], lengths, lengths, ReconstructionConfig()) > 0.05
    assert guided_attention_loss([], lengths, lengths, ReconstructionConfig()) == 0  # all layers were dropped


def test_attention_behind_the_ends_is_left_out() -> None:
    weights = torch.rand(1, 3, 4, 5)
    short = guided_attention_loss([weights[:, :, :3, :4]], torch.tensor([3]), torch.tensor([4]), ReconstructionConfig())
    assert guided_attention_loss([weights], torch.tensor([3]), torch.tensor([4]), ReconstructionConfig()) == pytest.approx(float(short))


def test_codes_replace_a_share_of_the_valid_frames_of_each_row() -> None:
    mixed = draw_mixed(torch.tensor([20, 7, 0]), 20, 0.3, torch.Generator().manual_seed(0))
    assert mixed.sum(1).tolist() == [6, 2, 0]
    assert not mixed[1, 7:].any()
    alike = draw_mixed(torch.tensor([20, 7]), 20, 0.3, torch.Generator().manual_seed(0), alike=True)
    assert alike.sum(1).tolist() == [6, 6]
    assert torch.equal(alike[0], alike[1])
    assert mix(torch.zeros(2, 20, 1), torch.ones(2, 20, 1), alike).sum() == 12


def test_tokens_that_were_seen_have_no_part_in_the_loss() -> None:
    generator = torch.Generator().manual_seed(0)
    predicted = torch.randn(2, 4, 6, generator=generator, requires_grad=True)
    target = torch.randn(2, 4, 6, generator=generator)
    removed = torch.tensor([[True, False, True, False], [False, False, False, True]])
    loss = removed_token_loss(predicted, target, removed)
    assert loss.count == 3
    assert float(loss.value.detach()) == pytest.approx(float((predicted.detach() - target).square().mean(-1)[removed].sum()))
    loss.value.backward()
    assert predicted.grad is not None
    assert not predicted.grad[~removed].any()
    assert predicted.grad[removed].all()


def test_targets_are_normalised_token_by_token_with_unbiased_variance() -> None:
    values = torch.tensor([[[1.0, 3.0], [5.0, 5.0]]])
    found = token_targets(values)
    assert found[0, 0].tolist() == pytest.approx([-1 / math.sqrt(2), 1 / math.sqrt(2)], abs=1e-6)
    assert found[0, 1].tolist() == [0.0, 0.0]
    assert torch.equal(token_targets(values, normalise=False), values)
