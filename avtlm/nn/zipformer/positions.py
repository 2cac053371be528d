"""How far a key is from a query: one fixed vector for every distance, fine near by and coarse far away (paper section 3.1, appendix).

For a distance d, d' = c sign(d) log(1 + |d| / c), c = sqrt(dim), is squeezed into (-pi / 2, pi / 2) by atan(2 pi d' / dim); sines and
cosines of its multiples are the vector, the last of whose values is 1.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor


def distance_vectors(queries: int, keys: int, dim: int, device: torch.device | None = None) -> Tensor:
    """(queries + keys - 1, dim), of the distances key - query from -(keys - 1) up to queries - 1.

    Args:
        queries: frames; the last one stands at the last key.
    """
    far = torch.arange(1 - keys, queries, device=device, dtype=torch.float32)
    turns = torch.arange(1, dim // 2 + 1, device=device, dtype=torch.float32)
    unit = math.sqrt(dim)
    squeezed = unit * far.sign() * ((far.abs() + unit).log() - math.log(unit))
    angles = (squeezed * (2.0 * math.pi / dim)).atan()[:, None] * turns
    vectors = torch.stack([angles.cos(), angles.sin()], -1).flatten(1)
    if torch.compiler.is_exporting():
        return torch.cat([vectors[:, :-1], torch.ones_like(vectors[:, -1:])], 1)
    vectors[:, -1] = 1.0
    return vectors


def by_key(scores: Tensor, keys: int) -> Tensor:
    """Scores by distance (rows, queries, queries + keys - 1) -> by key (rows, queries, keys), a view.

    Query i finds key j at place queries - 1 - i + j: every row begins one place before the one above it.
    """
    rows, queries, distances = scores.shape
    if torch.compiler.is_exporting():  # a graph has no strides: one place more in every row moves the next one by as many
        flat = F.pad(scores, (0, 1)).flatten(1)[:, queries - 1 : queries - 1 + queries * distances]
        return flat.unflatten(1, (queries, distances))[..., :keys]
    assert scores.is_contiguous()
    assert distances == queries + keys - 1
    strides = (queries * distances, distances - 1, 1)
    return scores.as_strided((rows, queries, keys), strides, scores.storage_offset() + queries - 1)
