"""Vectors of distances equal their formula, and scores by distance find their keys."""

import math

import pytest
import torch

from avtlm.nn.zipformer.positions import by_key, distance_vectors


def test_vectors_are_those_of_the_formula() -> None:
    dim, queries, keys = 6, 3, 5
    vectors = distance_vectors(queries, keys, dim)
    assert vectors.shape == (queries + keys - 1, dim)
    for row, distance in enumerate(range(1 - keys, queries)):
        unit = math.sqrt(dim)
        far = unit * math.copysign(1.0, distance) * (math.log(abs(distance) + unit) - math.log(unit))
        angle = math.atan(far / (dim / (2 * math.pi)))
        expected = [function(angle * turn) for turn in (1, 2, 3) for function in (math.cos, math.sin)]
        expected[-1] = 1.0
        assert vectors[row].tolist() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(("queries", "keys"), [(4, 4), (1, 1), (2, 7), (1, 5)])
def test_every_query_finds_each_key_at_its_distance(queries: int, keys: int) -> None:
    distances = torch.arange(1 - keys, queries).float()
    scores = distances.expand(3, queries, -1).contiguous()
    found = by_key(scores, keys)
    # The last query stands at the last key.
    query, key = torch.arange(keys - queries, keys)[:, None], torch.arange(keys)
    assert torch.equal(found, (key - query).float().expand(3, -1, -1))


def test_gradients_come_back_by_distance() -> None:
    scores = torch.randn(2, 3, 7, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x: by_key(x * 1.0, 5), (scores,))
