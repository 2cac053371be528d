"""The picture of the main result: word error rate against noise for audio, video and both, as PNG, as text, and as tables.

All functions take the report of the quickstart or of an evaluation: ``{"wer": {"a"|"v"|"av": {"clean"|"10"|...|"-10": percent}}}``, and, if
it is there, ``"interval_95"`` of the same form with [low, high] in place of the rate.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from avtlm.errors import needs
from avtlm.files import atomic_path

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from rich.table import Table

CLEAN = "clean"
NAMES = {"a": "Audio only", "v": "Video only", "av": "Audio-visual"}
COLOURS = {"a": "#c2571a", "v": "#6b7280", "av": "#1261a6"}  # apart for colour-blind eyes, and in brightness
STYLES = {"a": "--", "v": ":", "av": "-"}
MARKERS = {"a": "o", "v": "s", "av": "D"}
SIGNS = {"a": "A", "v": "V", "av": "#"}
INK, SOFT, GRID = "#1f2328", "#59636e", "#e4e7eb"

Rates = dict[str, dict[str, float]]
Intervals = dict[str, dict[str, tuple[float, float]]]


def conditions(report: Mapping[str, Any]) -> list[str]:
    """The conditions of a report from clean speech to the heaviest noise.

    Raises:
        ValueError: the report has no rates, or a condition is neither ``clean`` nor a number of dB.
    """
    rates = _rates(report)
    names = {name for row in rates.values() for name in row}
    try:
        return sorted(names, key=lambda name: float("-inf") if name == CLEAN else -float(name))
    except ValueError as error:
        raise ValueError(f"The report has a condition that is neither 'clean' nor an SNR in dB: {error}.") from error


def wer_against_snr(
    report: Mapping[str, Any], path: str | Path, title: str = "Speech recognition in noise", subtitle: str | None = None
) -> None:
    """Draw the curves, with their 95 % bands where the report has intervals, into a PNG that reads on light and dark pages alike.

    Args:
        report: rates in percent, as described above; clean speech stands apart at the right.
        path: of the PNG; written atomically.
        title: over the plot.
        subtitle: under the title; says what the lines and bands are if None.

    Raises:
        ValueError: the report has no rates.
    """
    with needs("train", "matplotlib", "drawing figures"):
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

    figure = Figure(figsize=(8.0, 4.6), dpi=200, facecolor="white")
    FigureCanvasAgg(figure)
    axes = figure.add_axes((0.085, 0.135, 0.73, 0.69))
    _panel(axes, report, _highest([report]))
    axes.set_xlabel("Signal-to-noise ratio", color=SOFT, fontsize=10, labelpad=7)
    axes.set_ylabel("Word error rate, %", color=SOFT, fontsize=10)
    figure.text(0.03, 0.935, title, color=INK, fontsize=14, fontweight="bold", va="center")
    figure.text(0.03, 0.875, _subtitle(report) if subtitle is None else subtitle, color=SOFT, fontsize=10, va="center")
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", metadata={"Software": None})


def wer_by_noise(report: Mapping[str, Any], path: str | Path, title: str = "Speech recognition in noise") -> None:
    """One panel for every kind of noise, all on the same scale, and a last one for their mean, into one PNG.

    Args:
        report: with ``by_noise``: kind of noise -> rates and intervals as above.
        path: of the PNG; written atomically.
        title: over the panels.

    Raises:
        ValueError: the report is not one of several kinds of noise.
    """
    with needs("train", "matplotlib", "drawing figures"):
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

    if not report.get("by_noise"):
        raise ValueError("The report is of one kind of noise; draw it with wer_against_snr.")
    parts = {**report["by_noise"], "mean of the kinds": {"wer": report["wer"]}}
    columns = min(3, len(parts))
    rows = -(-len(parts) // columns)
    figure = Figure(figsize=(4.6 * columns, 0.9 + 3.1 * rows), dpi=150, facecolor="white")
    FigureCanvasAgg(figure)
    highest = _highest(list(parts.values()))
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes in grid.flat[len(parts) :]:
        axes.set_visible(False)
    for axes, (noise, part) in zip(grid.flat, parts.items()):
        _panel(axes, part, highest, unit="")
        axes.set_title(noise, color=INK, fontsize=11, loc="left")
        axes.set_xlabel("Signal-to-noise ratio, dB", color=SOFT, fontsize=9)
    for axes in grid[:, 0]:
        axes.set_ylabel("Word error rate, %", color=SOFT, fontsize=10)
    top = 1 - 0.9 / figure.get_figheight()
    figure.tight_layout(rect=(0, 0, 1, top), w_pad=3.0)
    figure.text(0.01, 1 - 0.3 / figure.get_figheight(), title, color=INK, fontsize=14, fontweight="bold", va="center")
    subtitle = _subtitle(next(iter(parts.values())))
    figure.text(0.01, 1 - 0.6 / figure.get_figheight(), subtitle, color=SOFT, fontsize=10, va="center")
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", metadata={"Software": None})


def _panel(axes: "Axes", report: Mapping[str, Any], highest: float, unit: str = " dB") -> None:
    """The curves of one report with their names at their right ends, on a scale up to ``highest`` percent."""
    rates, intervals = _rates(report), _intervals(report)
    names = conditions(report)[::-1]  # noise grows to the left, clean speech is at the right end
    noisy = [name for name in names if name != CLEAN]
    places = {name: float(place) for place, name in enumerate(noisy)}
    if CLEAN in names:
        places[CLEAN] = len(noisy) + (0.35 if noisy else 0.0)
    for modality, row in rates.items():
        _curve(
            axes,
            modality,
            [(places[name], row[name], intervals.get(modality, {}).get(name)) for name in names if name in row],
            CLEAN in row,
        )
    ends = _spread(
        {modality: row[[name for name in names if name in row][-1]] for modality, row in rates.items()},
        gap=highest * (0.06 if unit else 0.08),
    )
    for modality, height in ends.items():
        at = (max(places.values()) + 0.22, height)
        axes.annotate(NAMES[modality], at, color=COLOURS[modality], fontsize=11, fontweight="bold", va="center", annotation_clip=False)
    axes.set_xticks(list(places.values()), [_label(name).replace(" dB", unit) for name in places], fontsize=10)
    axes.set_xlim(-0.3, max(places.values()) + 0.15)
    axes.set_ylim(0, highest * 1.06)
    axes.tick_params(length=0, labelcolor=SOFT, pad=6)
    axes.grid(axis="y", color=GRID, linewidth=0.8)
    axes.set_axisbelow(True)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color("#c4cad1")


def _highest(reports: Sequence[Mapping[str, Any]]) -> float:
    """The end of the scale: the largest rate or end of an interval, at least 1."""
    rates = [rate for report in reports for row in _rates(report).values() for rate in row.values()]
    ends = [interval[1] for report in reports for row in _intervals(report).values() for interval in row.values()]
    return max([1.0, *rates, *ends])


def _subtitle(report: Mapping[str, Any]) -> str:
    return "Word error rate, lower is better" + ("; bands are 95 % intervals" if _intervals(report) else "")


def text_plot(report: Mapping[str, Any], width: int = 72, height: int = 16) -> str:
    """The same curves as text, for a terminal: ``A`` audio, ``V`` video, ``#`` both; where curves meet the lowest rate's sign is on top.

    Args:
        report: rates in percent, as described above.
        width: of the whole plot in characters, at least 30.
        height: of the area of the curves in lines, at least 5.

    Raises:
        ValueError: the report has no rates.
    """
    rates, names = _rates(report), conditions(report)[::-1]
    width, height = max(width, 30), max(height, 5)
    columns = width - 8
    top = _round_up(max(max(row.values()) for row in rates.values()))
    cells = [[" "] * columns for _ in range(height)]
    at = {name: round(index * (columns - 7) / max(len(names) - 1, 1)) + 3 for index, name in enumerate(names)}

    def line(rate: float) -> int:
        return height - 1 - round(rate / top * (height - 1))

    for modality in sorted(rates, key=lambda modality: -sum(rates[modality].values()) / len(rates[modality])):
        points = [(at[name], rates[modality][name]) for name in names if name in rates[modality]]
        for (left, before), (right, after) in pairwise(points):
            for column in range(left + 1, right):
                cell = line(before + (after - before) * (column - left) / (right - left))
                if cells[cell][column] == " ":
                    cells[cell][column] = "\u00b7"
        for column, rate in points:
            cells[line(rate)][column] = SIGNS[modality]
    marks = {line(top * share): f"{top * share:.0f}" for share in (0, 0.25, 0.5, 0.75, 1)}
    rows = [f"{marks.get(index, ''):>5} \u2502" + "".join(row).rstrip() for index, row in enumerate(cells)]
    axis = [" "] * (columns + 6)
    for name in names:
        label = _label(name)
        first = min(max(at[name] - len(label) // 2, 0), columns - len(label) + 6)
        axis[first : first + len(label)] = label
    legend = "   ".join(f"{SIGNS[modality]} {NAMES[modality].lower()}" for modality in rates)
    return "\n".join([f"Word error rate, %     {legend}", *rows, "      \u2514" + "\u2500" * columns, " " * 7 + "".join(axis).rstrip()])


def wer_table(report: Mapping[str, Any], title: str = "Word error rate, % (95 % interval)") -> "Table":
    """The rates as a table for the terminal: a row for every modality, a column for every condition; the best of a column is bold."""
    from rich.table import Table

    table = Table(title=title, title_justify="left")
    table.add_column("input")
    for name in conditions(report):
        table.add_column(_label(name), justify="right")
    for label, cells in _cells(report):
        table.add_row(label, *(f"[bold]{text}[/]" if is_best else text for text, is_best in cells))
    return table


def wer_markdown(report: Mapping[str, Any]) -> str:
    """The rates as a Markdown table, with the best of every column in bold."""
    names = conditions(report)
    lines = ["| input | " + " | ".join(_label(name) for name in names) + " |", "|---|" + "---:|" * len(names)]
    for label, cells in _cells(report):
        lines.append(f"| {label} | " + " | ".join(f"**{text}**" if is_best else text for text, is_best in cells) + " |")
    return "\n".join(lines) + "\n"


def _rates(report: Mapping[str, Any]) -> Rates:
    found = report.get("wer")
    if not isinstance(found, Mapping) or not any(found.get(modality) for modality in NAMES):
        raise ValueError("The report has no word error rates; expected {'wer': {'a' | 'v' | 'av': {'clean' | SNR: percent}}}.")
    return {modality: {str(name): float(rate) for name, rate in found[modality].items()} for modality in NAMES if found.get(modality)}


def _intervals(report: Mapping[str, Any]) -> Intervals:
    found = report.get("interval_95") or {}
    return {modality: {str(name): (float(ends[0]), float(ends[1])) for name, ends in row.items()} for modality, row in found.items()}


def _label(name: str) -> str:
    return name if name == CLEAN else f"{float(name):g} dB".replace("-", "\u2212")


def _cells(report: Mapping[str, Any]) -> list[tuple[str, list[tuple[str, bool]]]]:
    """(row label, [(cell text, is the best of its column)]) for every modality."""
    rates, intervals, names = _rates(report), _intervals(report), conditions(report)
    best = {name: min(row[name] for row in rates.values() if name in row) for name in names}
    rows = []
    for modality, row in rates.items():
        cells = []
        for name in names:
            ends = intervals.get(modality, {}).get(name)
            text = "" if name not in row else f"{row[name]:.1f}" + (f" ({ends[0]:.1f}-{ends[1]:.1f})" if ends else "")
            cells.append((text, name in row and len(rates) > 1 and row[name] == best[name]))
        rows.append((NAMES[modality], cells))
    return rows


def _curve(axes: "Axes", modality: str, points: list[tuple[float, float, tuple[float, float] | None]], clean_last: bool) -> None:
    """One line with its band; clean speech is off the dB scale, so the line to it is thin."""
    colour = COLOURS[modality]
    parts = [points[:-1], points[-2:]] if clean_last and len(points) > 1 else [points]
    for index, part in enumerate(parts):
        thin = index == 1
        x, y = [point[0] for point in part], [point[1] for point in part]
        axes.plot(x, y, STYLES[modality], color=colour, linewidth=1.2 if thin else 2.4, alpha=0.55 if thin else 1.0, zorder=3)
        banded = [(at, interval) for at, _, interval in part if interval]
        if banded:
            low, high = [interval[0] for _, interval in banded], [interval[1] for _, interval in banded]
            axes.fill_between([at for at, _ in banded], low, high, color=colour, alpha=0.08 if thin else 0.15, linewidth=0, zorder=2)
    x, y = [point[0] for point in points], [point[1] for point in points]
    axes.plot(x, y, MARKERS[modality], color=colour, markersize=6, markeredgecolor="white", markeredgewidth=1.0, zorder=4)


def _spread(heights: dict[str, float], gap: float) -> dict[str, float]:
    """Heights of labels moved apart to at least ``gap``, in order."""
    placed: dict[str, float] = {}
    floor = float("-inf")
    for modality, height in sorted(heights.items(), key=lambda pair: pair[1]):
        placed[modality] = floor = max(height, floor + gap)
    return placed


def _round_up(rate: float) -> float:
    """The end of an axis: a round number not below ``rate``."""
    return next((float(end) for end in (4, 8, 12, 20, 40, 60, 80, 100, 120, 160, 200, 400) if end >= rate), rate) or 4.0


def modality_map(
    places: Any, inputs: Sequence[str], labels: Sequence[str], path: str | Path, same_phone: Mapping[str, float], chance: float
) -> None:
    """Two views of one layout: points coloured by kind of input, and, where phones are known, by the most frequent phones.

    Args:
        places: (points, 2).
        inputs: ``av``, ``a``, ``v`` or ``text``, one for each point.
        labels: phone of each point, empty where unknown.
        path: of the PNG; written atomically.
        same_phone, chance: see avtlm.evaluation.representations; shown below the picture.
    """
    with needs("train", "matplotlib", "drawing figures"):
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

    frequent = [label for label, _ in Counter(label for label in labels if label).most_common(10)]
    figure = Figure(figsize=(11.0, 5.6) if frequent else (6.0, 5.6), dpi=160, facecolor="white")
    FigureCanvasAgg(figure)
    panels = figure.subplots(1, 2 if frequent else 1, squeeze=False)[0]
    names = {**NAMES, "text": "Text"}
    colours = {**COLOURS, "text": "#2e7d32"}
    kinds = [kind for kind in ("av", "a", "v", "text") if kind in inputs]
    for kind in kinds:
        chosen = [index for index, name in enumerate(inputs) if name == kind]
        panels[0].scatter(places[chosen, 0], places[chosen, 1], s=7, color=colours[kind], alpha=0.65, linewidths=0, label=names[kind])
    panels[0].set_title("by input", color=INK, fontsize=11, loc="left")
    if frequent:
        rest = [index for index, label in enumerate(labels) if label not in frequent]
        panels[1].scatter(places[rest, 0], places[rest, 1], s=4, color=GRID, linewidths=0)
        for number, phone in enumerate(frequent):
            chosen = [index for index, label in enumerate(labels) if label == phone]
            panels[1].scatter(places[chosen, 0], places[chosen, 1], s=7, color=f"C{number}", linewidths=0, label=phone)
        panels[1].set_title("by phone (the ten most frequent)", color=INK, fontsize=11, loc="left")
    for axes in panels:
        axes.set_xticks([])
        axes.set_yticks([])
        axes.legend(fontsize=8, frameon=False, loc="upper left", bbox_to_anchor=(0.0, -0.01), ncol=5, handletextpad=0.1, columnspacing=1.0)
        for spine in axes.spines.values():
            spine.set_color(GRID)
    if same_phone:
        shares = "   ".join(f"{pair.replace('>', ' → ')} {100 * share:.0f} %" for pair, share in same_phone.items())
        note = f"Nearest neighbour in another input and another clip is the same phone (chance {100 * chance:.0f} %):"
        figure.text(0.01, 0.012, f"{note}\n{shares}", color=SOFT, fontsize=7, linespacing=1.5)
    figure.tight_layout(rect=(0, 0.05, 1, 1))
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", metadata={"Software": None})


def layer_maps(maps: Mapping[int, tuple[Any, Sequence[str], Sequence[str]]], path: str | Path) -> None:
    """A row of two views for every layer: points coloured by what was given, speech or units, and by the ten most frequent phones.

    Args:
        maps: by layer the places (points, 2), ``speech`` or ``units`` for each point, and its phone.
        path: of the PNG; written atomically.
    """
    with needs("train", "matplotlib", "drawing figures"):
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure

    figure = Figure(figsize=(9.0, 0.5 + 4.0 * len(maps)), dpi=130, facecolor="white")
    FigureCanvasAgg(figure)
    grid = figure.subplots(len(maps), 2, squeeze=False)
    for (layer, (places, inputs, labels)), (by_input, by_phone) in zip(maps.items(), grid):
        for kind, colour in (("speech", COLOURS["a"]), ("units", COLOURS["av"])):
            chosen = [index for index, name in enumerate(inputs) if name == kind]
            by_input.scatter(places[chosen, 0], places[chosen, 1], s=6, color=colour, alpha=0.6, linewidths=0, label=kind)
        frequent = [label for label, _ in Counter(labels).most_common(10)]
        rest = [index for index, label in enumerate(labels) if label not in frequent]
        by_phone.scatter(places[rest, 0], places[rest, 1], s=3, color=GRID, linewidths=0)
        for number, phone in enumerate(frequent):
            chosen = [index for index, label in enumerate(labels) if label == phone]
            by_phone.scatter(places[chosen, 0], places[chosen, 1], s=6, color=f"C{number}", linewidths=0, label=phone)
        by_input.set_title(f"layer {layer}, by input", color=INK, fontsize=10, loc="left")
        by_phone.set_title(f"layer {layer}, by phone (the ten most frequent)", color=INK, fontsize=10, loc="left")
    for axes in grid.flat:
        axes.set_xticks([])
        axes.set_yticks([])
        axes.legend(fontsize=7, frameon=False, loc="upper left", bbox_to_anchor=(0.0, -0.01), ncol=10, handletextpad=0.1, columnspacing=0.8)
        for spine in axes.spines.values():
            spine.set_color(GRID)
    figure.tight_layout()
    with atomic_path(path) as temporary:
        figure.savefig(temporary, format="png", metadata={"Software": None})
