"""A picture of where a decoder looked while it wrote: a path from corner to corner where it read in order, smears where it was lost."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from avtlm.errors import needs
from avtlm.evaluation.plots import INK, SOFT
from avtlm.files import atomic_path

COLUMNS = 3
MOST = 8  # parts, since their picture grows with the square of their number


def plot_attention(parts: Sequence[np.ndarray], path: str | Path, title: str = "Where the decoder looked") -> None:
    """One panel for each layer into one PNG.

    Args:
        parts: (layers, steps, read) each, of what was said one after another; what one part read, the others did not. The first eight
            are drawn.
        path: of the PNG; written atomically.
        title: over the panels.

    Raises:
        ValueError: there is nothing to draw.
    """
    with needs("train", "matplotlib", "drawing figures"):
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

    if not parts:
        raise ValueError("attention: nothing was said, so there is nothing to draw.")
    looks = joined(parts[:MOST])
    title += f" (first {MOST} of {len(parts)} parts)" if len(parts) > MOST else ""
    rows = -(-len(looks) // COLUMNS)
    columns = min(COLUMNS, len(looks))
    figure = Figure(figsize=(3.6 * columns + 0.4, 2.8 * rows + 0.7), dpi=120, facecolor="white")
    FigureCanvasAgg(figure)
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes in grid.flat[len(looks) :]:
        axes.set_visible(False)
    for number, (axes, look) in enumerate(zip(grid.flat, looks), 1):
        axes.imshow(look.T, origin="lower", aspect="auto", interpolation="nearest", cmap="Blues", vmin=0.0)
        axes.set_title(f"layer {number}", color=INK, fontsize=10, loc="left")
        axes.set_xlabel("steps", color=SOFT, fontsize=9)
        axes.set_ylabel("read", color=SOFT, fontsize=9)
        axes.tick_params(colors=SOFT, labelsize=8)
    top = 1 - 0.5 / figure.get_figheight()
    figure.tight_layout(rect=(0, 0, 1, top))
    figure.text(0.01, 1 - 0.25 / figure.get_figheight(), title, color=INK, fontsize=12, fontweight="bold", va="center")
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", metadata={"Software": None})


def joined(parts: Sequence[np.ndarray]) -> np.ndarray:
    """Parts along a diagonal, zeros beside them: (layers, all steps, all that was read)."""
    steps, read = sum(part.shape[1] for part in parts), sum(part.shape[2] for part in parts)
    found = np.zeros((len(parts[0]), steps, read), np.float32)
    step = place = 0
    for part in parts:
        found[:, step : step + part.shape[1], place : place + part.shape[2]] = part
        step, place = step + part.shape[1], place + part.shape[2]
    return found
