"""The picture of word error rates against how far a picture of lips is corrupted: one panel for every kind, all on one scale."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from avtlm.errors import needs
from avtlm.evaluation.corruptions import KINDS
from avtlm.evaluation.plots import CLEAN, COLOURS, GRID, INK, MARKERS, NAMES, SOFT, STYLES, wer_against_snr, wer_by_noise
from avtlm.files import atomic_path

COLUMNS = 3


def wer_against_strength(report: Mapping[str, Any], path: str | Path, title: str = "Speech recognition from corrupted pictures") -> None:
    """Draw the curves with their 95 % bands into a PNG. Strengths stand evenly, from the neutral one on the left to the heaviest, offsets
    from early sound to late.

    Args:
        report: of an evaluation (`Evaluation.to_json`) with ``visual``.
        path: of the PNG; written atomically.
        title: over the panels.

    Raises:
        ValueError: the report has no corrupted pictures.
    """
    with needs("train", "matplotlib", "drawing figures"):
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

    parts = report.get("visual")
    if not parts:
        raise ValueError("The report has no rates for corrupted pictures; measure them with avtlm evaluate --visual.")
    columns = min(COLUMNS, len(parts))
    rows = -(-len(parts) // columns)
    figure = Figure(figsize=(4.6 * columns, 1.1 + 3.1 * rows), dpi=150, facecolor="white")
    FigureCanvasAgg(figure)
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes in grid.flat[len(parts) :]:
        axes.set_visible(False)
    ends = [interval[1] for part in parts.values() for row in part["interval_95"].values() for interval in row.values()]
    for axes, (kind, part) in zip(grid.flat, parts.items()):
        for modality, row in part["wer"].items():
            colour, places = COLOURS[modality], range(len(row))
            axes.plot(places, list(row.values()), STYLES[modality], color=colour, linewidth=2.2, label=NAMES[modality], zorder=3)
            axes.plot(places, list(row.values()), MARKERS[modality], color=colour, markersize=5, markeredgecolor="white", zorder=4)
            bands = [part["interval_95"][modality][name] for name in row]
            low, high = [band[0] for band in bands], [band[1] for band in bands]
            axes.fill_between(places, low, high, color=colour, alpha=0.15, linewidth=0, zorder=2)
        names = list(next(iter(part["wer"].values())))
        axes.set_xticks(range(len(names)), [name.replace("-", "\u2212") for name in names], fontsize=9)
        axes.set_ylim(0, max([1.0, *ends]) * 1.06)
        axes.set_title(kind.replace("_", " "), color=INK, fontsize=11, loc="left")
        axes.set_xlabel(f"{KINDS[kind].what}, {KINDS[kind].unit}", color=SOFT, fontsize=9)
        axes.tick_params(length=0, labelcolor=SOFT, pad=5)
        axes.grid(axis="y", color=GRID, linewidth=0.8)
        axes.set_axisbelow(True)
        for side in ("top", "right", "left"):
            axes.spines[side].set_visible(False)
        axes.spines["bottom"].set_color(GRID)
    for axes in grid[:, 0]:
        axes.set_ylabel("Word error rate, %", color=SOFT, fontsize=10)
    height = figure.get_figheight()
    figure.tight_layout(rect=(0, 0, 1, 1 - 1.1 / height), w_pad=2.0)
    figure.text(0.01, 1 - 0.3 / height, title, color=INK, fontsize=14, fontweight="bold", va="center")
    heard = f"Word error rate, lower is better; bands are 95 % intervals; sound: {report['visual_sound']}"
    figure.text(0.01, 1 - 0.6 / height, heard, color=SOFT, fontsize=10, va="center")
    handles, labels = grid[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="upper left", bbox_to_anchor=(0.005, 1 - 0.72 / height), ncol=3, frameon=False, fontsize=9)
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", metadata={"Software": None})


def draw(report: Mapping[str, Any], path: str | Path) -> None:
    """The figures of an evaluation: rates against noise; or against strengths, where it has pictures that were corrupted and no noise.
    Where it has both, the second figure lies beside the first, as ``NAME_visual.png``.

    Raises:
        ValueError: the report has no rates.
    """
    noisy = any(name != CLEAN for row in report["wer"].values() for name in row)
    if noisy or not report.get("visual"):
        (wer_by_noise if "by_noise" in report else wer_against_snr)(report, path)
    if report.get("visual"):
        wer_against_strength(report, Path(path).with_stem(f"{Path(path).stem}_visual") if noisy else path)
