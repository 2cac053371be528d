"""The picture of where a decoder looked."""

from pathlib import Path

import numpy as np
import pytest

from avtlm.evaluation.attention_plot import MOST, joined, plot_attention


def test_every_layer_is_drawn(tmp_path: Path) -> None:
    for layers in (1, 2, 6):
        plot_attention([np.full((layers, 4, 3), 0.3, np.float32)], tmp_path / f"{layers}.png")
        assert (tmp_path / f"{layers}.png").read_bytes().startswith(b"\x89PNG")
    assert (tmp_path / "6.png").stat().st_size > (tmp_path / "1.png").stat().st_size
    plot_attention([np.full((2, 4, 3), 0.3, np.float32)] * (MOST + 1), tmp_path / "many.png")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1.png", "2.png", "6.png", "many.png"]


def test_parts_stand_on_the_diagonal() -> None:
    found = joined([np.ones((2, 3, 2), np.float32), np.full((2, 1, 4), 2.0, np.float32)])
    assert found.shape == (2, 4, 6)
    assert found[0].tolist() == [[1, 1, 0, 0, 0, 0]] * 3 + [[0, 0, 2, 2, 2, 2]]


def test_nothing_cannot_be_drawn(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="nothing was said"):
        plot_attention([], tmp_path / "a.png")
    assert not list(tmp_path.iterdir())
