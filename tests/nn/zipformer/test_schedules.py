"""Values follow the count of batches, and decisions the seed."""

import pytest
import torch

from avtlm.nn.zipformer.schedules import Schedule, happens, kept_rows


def test_a_schedule_is_linear_between_its_points_and_stays_outside_of_them() -> None:
    value = Schedule(((10.0, 1.0), (20.0, 0.0), (40.0, 0.5)), rest=0.7)
    assert [value(count) for count in (0, 10, 15, 20, 30, 40, 1e6)] == pytest.approx([1.0, 1.0, 0.5, 0.0, 0.25, 0.5, 0.5])
    assert value(None) == 0.7


@pytest.mark.parametrize("points", [(), ((0.0, 1.0), (0.0, 2.0)), ((2.0, 1.0), (1.0, 2.0))])
def test_points_out_of_order_are_refused(points: tuple[tuple[float, float], ...]) -> None:
    with pytest.raises(ValueError, match="each at a later batch than the one before"):
        Schedule(points)


def test_decisions_repeat_from_a_seed_and_happen_as_often_as_they_should() -> None:
    torch.manual_seed(0)
    first = [happens(0.3) for _ in range(2000)]
    torch.manual_seed(0)
    assert [happens(0.3) for _ in range(2000)] == first
    assert sum(first) / 2000 == pytest.approx(0.3, abs=0.04)
    assert not any(happens(0.0) for _ in range(10))
    assert all(happens(1.0) for _ in range(10))


def test_rows_are_dropped_whole() -> None:
    torch.manual_seed(0)
    kept = kept_rows(4000, 0.25, torch.zeros(1, dtype=torch.float64))
    assert kept.shape == (4000, 1, 1)
    assert kept.dtype == torch.float64
    assert float(kept.mean()) == pytest.approx(0.75, abs=0.03)
