"""The part of a report on how runs learned: curves over the steps, and the figures at their ends."""

import math
from collections.abc import Iterable, Sequence

from avtlm.evaluation.report.chart import Series, line_chart
from avtlm.evaluation.report.folder import LOG, Run
from avtlm.evaluation.report.page import Markup, element, folded, joined, paragraph, section, table

NAME, TITLE = "training", "Training"
FIRST = ("loss", "lr", "gradient_norm")
SHARES = {"lr": "learning rate", "gradient_norm": "norm of the gradient"}


def training(runs: Sequence[Run]) -> Markup:
    """Curves of all runs in one chart for each figure, and tables of where they began and ended."""
    parts: list[Markup] = []
    silent = [run.name for run in runs if not run.log]
    if silent:
        parts.append(paragraph(f"No {LOG} with figures: {', '.join(silent)}, so no curves.", kind="faint"))
    logged = [run for run in runs if run.log]
    if not logged:
        return section(NAME, TITLE, *parts)
    main, further = _names(logged)
    parts.append(element("div", *(_chart(name, runs) for name in main), class_="grid"))
    if further:
        charts = element("div", *(_chart(name, runs) for name in further), class_="grid")
        parts.append(folded(f"{len(further)} further figures of the log", charts))
    if len(logged) > 1:
        parts.append(_differences(logged, [*main, *further]))
    for run in logged:
        rows = [_row(name, run.log[name]) for name in (*main, *further) if name in run.log]
        head = ("figure", "lines", "first", "last", "lowest", "at step", "highest", "at step")
        figures = table(head, rows, f"{run.name}: figures of {LOG}")
        parts.append(figures if len(logged) == 1 else folded(f"All figures of {run.name}", figures))
    return section(NAME, TITLE, *parts)


def number(value: float) -> str:
    """Four digits, as in all tables."""
    return f"{value:.4g}".replace("-", "\u2212") if math.isfinite(value) else "not finite"


def change(value: float, first: float) -> str:
    """How a figure differs from that of the first run."""
    return f"{value - first:+.4g}".replace("-", "\u2212") if math.isfinite(value - first) else ""


def last_step(run: Run) -> int | None:
    """The last step that the log knows."""
    return max((points[-1][0] for points in run.log.values()), default=None)


def _names(runs: Iterable[Run]) -> tuple[list[str], list[str]]:
    """What is shown at once: loss, learning rate, validation; and the rest."""
    names = list(dict.fromkeys(name for run in runs for name in run.log))
    main = [name for name in FIRST if name in names] + sorted(name for name in names if name.startswith("valid_"))
    return main, sorted(name for name in names if name not in main)


def _chart(name: str, runs: Sequence[Run]) -> Markup:
    series = [Series(run.name, run.log[name], look=place) for place, run in enumerate(runs) if name in run.log]
    return line_chart(series, SHARES.get(name, name), "step")


def _row(name: str, points: Sequence[tuple[int, float]]) -> list[object]:
    finite = [point for point in points if math.isfinite(point[1])] or [points[-1]]
    low, high = min(finite, key=lambda point: point[1]), max(finite, key=lambda point: point[1])
    ends = [number(points[0][1]), number(points[-1][1])]
    return [name, len(points), *ends, number(low[1]), low[0], number(high[1]), high[0]]


def _differences(runs: Sequence[Run], names: Sequence[str]) -> Markup:
    """The last value of every figure in every run, and how it differs from that in the first."""
    rows = []
    for name in names:
        values = [run.log[name][-1][1] if name in run.log else None for run in runs]
        first = values[0]
        cells = ["" if first is None else number(first)]
        for value in values[1:]:
            against = "" if value is None or first is None else change(value, first)
            cells.append("" if value is None else number(value) + (f" ({against})" if against else ""))
        rows.append([name, *cells])
    caption = f"Last values (difference from {runs[0].name})"
    return joined([table(["figure", *(run.name for run in runs)], rows, caption)])
