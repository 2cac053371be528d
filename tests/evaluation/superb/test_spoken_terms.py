"""Dynamic time warping against all paths there are, and distances against their definition."""

import itertools

import numpy as np
import torch

from avtlm.evaluation.superb.spoken_terms import frame_distances, subsequence_cost


def cheapest(distances: np.ndarray) -> float:
    """Over every path with steps of 0, 1 or 2 document frames."""
    rows, columns = distances.shape
    costs = []
    for start in range(columns):
        for steps in itertools.product((0, 1, 2), repeat=rows - 1):
            places = np.cumsum([start, *steps])
            if places[-1] < columns:
                costs.append(distances[np.arange(rows), places].sum() / rows)
    return float(min(costs))


def test_the_cost_is_that_of_the_cheapest_of_all_paths() -> None:
    distances = torch.rand(3, 5, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    distances[1, :, 4:] = torch.inf  # a shorter document
    found = subsequence_cost(distances)
    for row in range(3):
        np.testing.assert_allclose(found[row].item(), cheapest(distances[row].numpy()))


def test_a_document_of_one_frame_has_a_path_and_one_that_holds_the_query_costs_nothing() -> None:
    query = torch.eye(4, dtype=torch.float64)
    documents = torch.zeros(2, 6, 4, dtype=torch.float64)
    documents[0, 1:5], documents[1, 0] = query, query[0]
    cost = subsequence_cost(frame_distances(query, documents, torch.tensor([6, 1])))
    assert cost[0] == 0.0
    assert torch.isfinite(cost[1])


def test_distances_are_exponential_cosines_brought_to_0_and_1() -> None:
    generator = torch.Generator().manual_seed(1)
    query, document = torch.randn(3, 4, generator=generator), torch.randn(5, 4, generator=generator)
    padded = torch.cat([document, torch.randn(2, 4, generator=generator)])[None]
    found = frame_distances(query, padded, torch.tensor([5]))[0]
    cosines = torch.nn.functional.cosine_similarity(query[:, None], document[None], dim=2)
    plain = (1 - cosines).exp() - 1
    expected = (plain - plain.amin(1, keepdim=True)) / (plain.amax(1, keepdim=True) - plain.amin(1, keepdim=True))
    torch.testing.assert_close(found[:, :5], expected)
    assert torch.isinf(found[:, 5:]).all()
