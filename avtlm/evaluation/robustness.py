"""The tables of robustness: kinds of noise by signal-to-noise ratios, with means, as the papers print it (arXiv 2201.01763), and kinds of
corrupted pictures by their strengths.

Works on reports, ``{"wer": {modality: {"clean" | SNR: percent}}, "interval_95": ...}``; with several kinds of noise a report has such cells
for each of them in ``by_noise``, and with corrupted pictures in ``visual``, by strength in place of SNR. All kinds are mixed into the same
utterances, so that a mean of rates is the rate over all of them.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from avtlm.evaluation.corruptions import KINDS, strength_label

if TYPE_CHECKING:
    from rich.table import Table

CLEAN = "clean"
INPUTS = {"a": "audio", "v": "video", "av": "audio-visual"}
ALL = "all"

Rates = Mapping[str, Mapping[str, float]]


def mean_of_noises(by_noise: Mapping[str, Rates]) -> dict[str, dict[str, float]]:
    """modality -> condition -> mean of the kinds of noise, which all have the same conditions."""
    first = next(iter(by_noise.values()))
    return {
        modality: {name: round(sum(rates[modality][name] for rates in by_noise.values()) / len(by_noise), 2) for name in row}
        for modality, row in first.items()
    }


def means_over_ratios(cells: Mapping[str, Mapping[str, Rates]]) -> dict[str, dict[str, float]]:
    """Kind of noise, or ``all`` -> modality -> mean rate over the ratios, clean speech left out."""
    rates = {noise: parts["wer"] for noise, parts in cells.items()}
    rows = rates | {ALL: mean_of_noises(rates)}
    return {noise: {modality: _mean(row) for modality, row in found.items()} for noise, found in rows.items()}


def _mean(row: Mapping[str, float]) -> float:
    noisy = [rate for name, rate in row.items() if name != CLEAN]
    return round(sum(noisy) / len(noisy), 2)


def rate_table(report: Mapping[str, Any], names: Sequence[str]) -> "Table":
    """A report as a table for the terminal.

    Args:
        report: of one kind of noise, with intervals, or of several: then every input has a row for each kind, and one for their mean.
        names: the conditions in the order of the columns.
    """
    from rich.table import Table

    several = "by_noise" in report
    what = "Word error rate, %" if several else "Word error rate, % (95 % interval)"
    table = Table(title=f"{what}: {report['utterances']} utterances, {report['words']} words", title_justify="left")
    table.add_column("input")
    if several:
        table.add_column("noise")
    for name in names:
        table.add_column(name if name == CLEAN else f"{name} dB", justify="right")
    if not several:
        for modality, row in report["wer"].items():
            table.add_row(INPUTS[modality], *(_cell(row[name], report["interval_95"][modality][name]) for name in names))
        return table
    table.add_column("mean", justify="right")
    for modality, row in report["wer"].items():
        if "a" not in modality:  # noise does not change what is seen
            table.add_row(INPUTS[modality], "any", *(f"{row[name]:.1f}" for name in (*names, CLEAN)), end_section=True)
            continue
        for noise, cells in report["by_noise"].items():
            rates = [*(cells["wer"][modality][name] for name in names), report["mean"][noise][modality]]
            table.add_row(INPUTS[modality], noise, *(f"{rate:.1f}" for rate in rates))
        rates = [*(row[name] for name in names), report["mean"][ALL][modality]]
        table.add_row(INPUTS[modality], "mean", *(f"{rate:.1f}" for rate in rates), end_section=True)
    return table


def corruption_table(report: Mapping[str, Any], kind: str) -> "Table":
    """The rates under one kind of corruption, by strength; sound alone, which it does not reach, stands there for comparison."""
    from rich.table import Table

    part = report["visual"][kind]
    table = Table(title=f"{kind}: {KINDS[kind].what} (sound: {report['visual_sound']})", title_justify="left")
    table.add_column("input")
    for name in next(iter(part["wer"].values())):
        table.add_column(strength_label(kind, name), justify="right")
    for modality, row in part["wer"].items():
        table.add_row(INPUTS[modality], *(_cell(row[name], part["interval_95"][modality][name]) for name in row))
    return table


def _cell(percent: float, interval: Sequence[float]) -> str:
    return f"{percent:.1f} ({interval[0]:.1f}-{interval[1]:.1f})"
