"""Stacked positional convolutions and gated relative positions (values: tests/test_golden.py)."""

import math
from dataclasses import replace

import pytest
import torch

from avtlm.nn.attention import padding_mask
from avtlm.nn.positions import KeyPositions, RelativePositions, ScaledPositions, StackedPositionalConvolution, distance_bias
from avtlm.nn.transformer import Encoder, EncoderConfig

SMALL = EncoderConfig(dim=16, layers=2, heads=4, feed_forward_dim=24, position_kernel=6, position_groups=4)
OPTIONS: dict[str, dict[str, object]] = {
    "stacked": {"position_blocks": 5, "position_kernel": 35},
    "relative": {"relative_buckets": 8, "relative_distance": 6},
    "batch norm": {"position_norm": "batch", "position_activation": "relu"},
    "stack of one": {"position_norm": "layer", "position_kernel": 5},
}


def encoder(**changes: object) -> Encoder:
    torch.manual_seed(0)
    model = Encoder(replace(SMALL, **changes))  # type: ignore[arg-type]
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, 0.0, 0.3)
    return model.eval()


@pytest.mark.parametrize("norm_first", [True, False])
@pytest.mark.parametrize("changes", OPTIONS.values(), ids=OPTIONS)
def test_encoding_of_a_row_does_not_depend_on_its_batch(changes: dict[str, object], norm_first: bool) -> None:
    model = encoder(norm_first=norm_first, **changes)
    x = torch.randn(3, 9, 16, generator=torch.Generator().manual_seed(0))
    lengths = torch.tensor([9, 4, 1])
    together = model(x, lengths)
    for row, n in enumerate(lengths.tolist()):
        torch.testing.assert_close(together[row, :n], model(x[row : row + 1, :n], None)[0], atol=1e-5, rtol=1e-5)


def test_the_official_stack_sees_what_its_blocks_make_of_padding() -> None:
    x = torch.randn(1, 9, 16, generator=torch.Generator().manual_seed(0))
    lengths = torch.tensor([5])
    changes = OPTIONS["stacked"]
    ours, official = encoder(**changes), encoder(compute_padding=True, **changes)
    assert not torch.allclose(ours(x, lengths)[:, :5], official(x, lengths)[:, :5], atol=1e-4)
    padding = padding_mask(lengths, 9)
    quiet = x.masked_fill(padding[..., None], 0.0)
    assert torch.equal(official.positions(quiet, padding), official.positions(quiet))


def test_a_batch_norm_before_the_positions_learns_from_true_frames_alone() -> None:
    x, lengths = torch.randn(2, 9, 16, generator=torch.Generator().manual_seed(0)), torch.tensor([9, 5])
    ours, official = (encoder(position_norm="batch", compute_padding=official).train() for official in (False, True))
    for model in (ours, official):
        model(x, lengths)
    true = torch.cat([x[0], x[1, :5]])
    torch.testing.assert_close(ours.positions.norm.running_mean, 0.1 * true.mean(0))
    torch.testing.assert_close(official.positions.norm.running_mean, 0.1 * true.sum(0) / 18)


@pytest.mark.parametrize("kernel", [35, 40])  # 7 frames each, and 8, which give a frame too many
def test_a_stack_keeps_the_length(kernel: int) -> None:
    assert StackedPositionalConvolution(8, kernel, 2)(torch.zeros(1, 11, 8)).shape == (1, 11, 8)


def test_near_distances_have_buckets_of_their_own_and_far_ones_share() -> None:
    positions = RelativePositions(2, 32, 80)
    ahead = torch.arange(-200, 201)
    buckets = positions.bucket(ahead)
    assert buckets[200] == 0
    assert buckets[200 - 7 : 200].tolist() == [7, 6, 5, 4, 3, 2, 1]
    assert buckets[201:208].tolist() == [17, 18, 19, 20, 21, 22, 23]
    assert set(buckets.tolist()) == set(range(32)) - {16}  # nothing is ahead by 0
    assert (buckets[ahead <= -80] == 15).all()
    assert (buckets[ahead >= 80] == 31).all()
    for distance in (8, 20, 50):
        assert buckets[200 - distance] == 8 + int(math.log(distance / 8) / math.log(80 / 8) * 8)


def test_relative_positions_change_what_is_attended_to() -> None:
    model = encoder(**OPTIONS["relative"])
    x = torch.randn(1, 7, 16, generator=torch.Generator().manual_seed(0))
    before = model(x, None)
    assert model.relative is not None
    with torch.no_grad():
        model.relative.table.weight[0, 0] += 1.0
    assert not torch.allclose(model(x, None), before)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"relative_buckets": 3}, "give at least 4 buckets"),
        ({"relative_buckets": 8, "relative_distance": 2}, "a distance above a quarter"),
        ({"position_blocks": 0}, "give at least 1, 0 and 0"),
        ({"position_blocks": 2, "position_groups": 3}, "choose a divisor of dim 16"),
        ({"position_blocks": 2, "position_kernel": 1}, "at least 1 frame for each block"),
        ({"position_blocks": 2, "position_norm": "batch"}, "position_norm: batch for 2"),
        ({"adapter_dim": 4, "norm_first": False}, "only pre-norm layers have adapters"),
    ],
)
def test_impossible_settings_are_refused(wrong: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        encoder(**wrong)


def test_distances_are_of_queries_from_keys_and_clipped() -> None:
    positions = KeyPositions(4, 2)
    query = torch.ones(1, 5, 1, 4)
    with torch.no_grad():
        positions.table.weight.copy_(torch.arange(4.0)[:, None].expand(-1, 4))
    # Rows 0 to 3 stand for -2 (and less), -1, 0, 1 (and more); a product of four ones is halved as those with keys are.
    bias = distance_bias(query, 5, positions.table.weight)[0, 0] / 2
    assert bias[2].tolist() == [3.0, 3.0, 2.0, 1.0, 0.0]
    assert bias[0].tolist() == [2.0, 1.0, 0.0, 0.0, 0.0]
    last = distance_bias(query[:, -1:], 5, positions.table.weight)[0, 0] / 2
    assert torch.equal(last[0], bias[4])


def test_scaled_sinusoids_alternate_and_follow_their_factor() -> None:
    positions = ScaledPositions(6)
    places = torch.tensor([0, 3])
    found = positions(places)
    assert found[0].tolist() == [0.0, 1.0, 0.0, 1.0, 0.0, 1.0]
    assert found[1, 2].item() == pytest.approx(math.sin(3 * 10000 ** (-2 / 6)), abs=1e-6)
    with torch.no_grad():
        positions.scale.fill_(2.0)
    torch.testing.assert_close(positions(places), 2 * found)
    with pytest.raises(ValueError, match="dim: 5 is odd"):
        ScaledPositions(5)
