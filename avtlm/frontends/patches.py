"""Pictures and spectrograms as square patches, and where each of them is (MAE, arXiv 2111.06377; CAV-MAE, arXiv 2210.07839)."""

import torch
from torch import Tensor


def patchify(pictures: Tensor, size: int) -> Tensor:
    """(n, channels, height, width) -> (n, patches, size * size * channels): patches row by row, in each its rows, columns, channels.

    Raises:
        ValueError: a size that does not divide height and width.
    """
    height, width = pictures.shape[2:]
    if height % size or width % size:
        raise ValueError(f"patches: pictures of {height} x {width} are not made of squares of {size}; choose a divisor of both.")
    squares = pictures.unflatten(3, (-1, size)).unflatten(2, (-1, size))  # (n, channels, rows, size, columns, size)
    return squares.permute(0, 2, 4, 3, 5, 1).flatten(3).flatten(1, 2)


def grid_positions(dim: int, rows: int, columns: int) -> Tensor:
    """Fixed sinusoids for patches row by row, (rows * columns, dim): the first half of the values says the column, the second the row.

    Raises:
        ValueError: a width that four does not divide.
    """
    if dim % 4:
        raise ValueError(f"dim: {dim}; positions on a grid need sine and cosine of row and column, so choose a multiple of 4.")
    rate = 10000.0 ** -(torch.arange(dim // 4, dtype=torch.float64) / (dim / 4))
    row, column = torch.arange(rows).repeat_interleave(columns), torch.arange(columns).repeat(rows)
    angles = [place.double()[:, None] * rate for place in (column, row)]
    return torch.cat([part for angle in angles for part in (angle.sin(), angle.cos())], 1).float()
