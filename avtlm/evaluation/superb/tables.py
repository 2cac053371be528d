"""Results of the benchmark beside published ones, and a picture of which layers its tasks listen to."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from avtlm.errors import needs
from avtlm.evaluation.plots import GRID, INK, SOFT
from avtlm.evaluation.superb.task import Metric, Outcome
from avtlm.evaluation.superb.tasks import TASKS
from avtlm.evaluation.tables import as_text
from avtlm.files import atomic_path

PUBLISHED = Path(__file__).with_name("published.json")
NOTE = (
    "Published rows are of the official corpora; a row of other data stands beside them for its form alone. Pooling here takes exact "
    "lengths, and MTWV is our own."
)


def published() -> dict[str, Any]:
    """``source``, ``columns`` and ``rows`` of published.json."""
    found: dict[str, Any] = json.loads(PUBLISHED.read_text(encoding="utf-8"))
    return found


def metric_of(column: str) -> Metric:
    """What a column such as ``SF F1`` holds."""
    task, _, name = column.partition(" ")
    return next(metric for metric in TASKS[task].task_class().metrics if metric.name == name)


def beside_published(model: str, parameters: int, values: Mapping[str, float]) -> str:
    """A table with a column for each figure and a row for each encoder, this one last, and its source below."""
    from rich.table import Table

    known = published()
    columns = [*(column for column in known["columns"] if column in values), *sorted(set(values) - set(known["columns"]))]
    table = Table(title="SUPERB", title_justify="left")
    for heading in ("Encoder", "Weights", "Learned from"):
        table.add_column(heading, no_wrap=True)
    for column in columns:
        metric = metric_of(column)
        arrow = "↑" if metric.higher else "↓"
        table.add_column(f"{column}{f', {metric.unit}' if metric.unit else ''} {arrow}", justify="right")
    if any(column in known["columns"] for column in columns):
        for row in known["rows"]:
            by_column = dict(zip(known["columns"], row["values"], strict=True))
            table.add_row(row["name"], row["parameters"], row["data"], *(_shown(by_column.get(column), column) for column in columns))
        table.add_section()
    size = f"{parameters / 1e6:.2f}M" if parameters else "0"
    table.add_row(model, size, "", *(_shown(values[column], column) for column in columns), style="bold")
    return "\n".join([as_text(table, 60 + 16 * len(columns)), f"Published: {known['source']}", NOTE])


def _shown(value: float | None, column: str) -> str:
    if value is None:
        return ""
    digits = metric_of(column).digits
    return f"{value:.{digits}f}" if value == 0 or abs(value) >= 10**-digits else f"{value:.1e}"


def layer_weights(outcomes: Sequence[Outcome], path: str | Path, model: str) -> None:
    """A row of cells for each task, a cell for each layer: how much of the sum comes from it.

    Args:
        outcomes: with weights.
        path: of the PNG; written atomically.
        model: name for the title.
    """
    if not outcomes:
        return
    with needs("train", "matplotlib", "drawing figures"):
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

    layers = max(len(outcome.weights) for outcome in outcomes)
    figure = Figure(figsize=(2.4 + 0.52 * layers, 1.2 + 0.36 * len(outcomes)), dpi=150, facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    rows = [[*outcome.weights, *[0.0] * (layers - len(outcome.weights))] for outcome in outcomes]
    # Each row has its own scale: one task that listens to a single layer would make all others pale.
    axes.imshow([[weight / max(row) for weight in row] for row in rows], cmap="Blues", vmin=0.0, vmax=1.15, aspect="auto")
    for y, row in enumerate(rows):
        for x, weight in enumerate(row):
            axes.text(x, y, f"{100 * weight:.0f}", ha="center", va="center", fontsize=7, color="white" if weight > 0.6 * max(row) else INK)
    axes.set_xticks(range(layers), [str(layer) for layer in range(layers)], color=SOFT, fontsize=8)
    axes.set_yticks(range(len(rows)), [_name(outcome, outcomes) for outcome in outcomes], color=INK, fontsize=8)
    axes.set_xlabel("hidden state, from the first to the last", color=SOFT, fontsize=8)
    axes.set_title(f"Layer weights, %: {model}", color=INK, fontsize=10, loc="left")
    axes.tick_params(length=0)
    for spine in axes.spines.values():
        spine.set_color(GRID)
    figure.tight_layout()
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", metadata={"Software": None})


def _name(outcome: Outcome, outcomes: Sequence[Outcome]) -> str:
    several = sum(other.task == outcome.task for other in outcomes) > 1
    return f"{outcome.task} {outcome.corpus}" if several else outcome.task
