"""The part of a report on what was measured: error rates by input and condition, also from corrupted pictures, and single figures."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from avtlm.evaluation.corruptions import KINDS, strength_label
from avtlm.evaluation.plots import CLEAN, NAMES
from avtlm.evaluation.report.chart import Series, line_chart
from avtlm.evaluation.report.folder import Run, flattened, has_rates
from avtlm.evaluation.report.page import Markup, element, joined, paragraph, section, table
from avtlm.evaluation.report.training import change

NAME, TITLE = "results", "Results"
Rates = Mapping[str, Mapping[str, float]]
Intervals = Mapping[str, Mapping[str, Sequence[float]]]


@dataclass(frozen=True)
class Measured:
    """One evaluation with rates: whose it is, its place among the runs, and what it holds."""

    name: str
    look: int
    content: Mapping[str, Any]


def results(runs: Sequence[Run]) -> Markup:
    """Tables and curves of every evaluation, side by side where there are several."""
    rated = _rated(runs)
    single = {f"{run.name}: {file}": dict(_single(content)) for run in runs for file, content in run.evaluations.items()
              if not has_rates(content)}  # fmt: skip
    if not rated and not single:
        advice = "avtlm evaluate MANIFEST --model MODEL --out FOLDER/evaluation.json --cells FOLDER/cells"
        return section(NAME, TITLE, paragraph("No figures of an evaluation in JSON, so no error rates; ", element("code", advice),
                                              " writes them.", kind="faint"))  # fmt: skip
    parts = [_table(each) for each in rated]
    if len(rated) > 1:
        parts.append(_differences(rated))
    if any(len(row) > 1 for each in rated for row in each.content["wer"].values()):
        curves = [(each, each.content["wer"], each.content.get("interval_95") or {}) for each in rated]
        parts.append(_charts(curves, "Word error rate in noise, %", "signal-to-noise ratio, dB", _by_noise))
    kinds = dict.fromkeys(kind for each in rated for kind in _visual(each) if kind in KINDS)
    for kind in kinds:
        chosen = [(each, _visual(each)[kind]) for each in rated if kind in _visual(each)]
        parts.append(element("h3", f"Corrupted pictures: {kind}"))
        parts += [_strengths(each, kind, part) for each, part in chosen]
        curves = [(each, part["wer"], part.get("interval_95") or {}) for each, part in chosen]
        about = KINDS[kind]
        parts.append(_charts(curves, f"Word error rate, %: {kind}", f"{about.what}, {about.unit}", lambda names: names))
    if single:
        keys = dict.fromkeys(key for figures in single.values() for key in figures)
        rows = [[key, *(figures.get(key, "") for figures in single.values())] for key in keys]
        parts.append(table(["figure", *single], rows, "Other figures"))
    return section(NAME, TITLE, *parts)


def condition_order(names: Iterable[str]) -> list[str]:
    """Clean first, then from little noise to heavy, then whatever is no ratio."""
    return sorted(names, key=lambda name: (_ratio(name) is None and name != CLEAN, name != CLEAN, -(_ratio(name) or 0.0)))


def _ratio(name: str) -> float | None:
    try:
        return float(name)
    except ValueError:
        return None


def _by_noise(names: Sequence[str]) -> list[str]:
    return condition_order(names)[::-1]  # noise grows to the left


def _rated(runs: Sequence[Run]) -> list[Measured]:
    """Evaluations with rates; of several files of a run with the same rates the one that says most."""
    found = []
    for look, run in enumerate(runs):
        chosen: list[tuple[str, Mapping[str, Any]]] = []
        for file, content in sorted(run.evaluations.items(), key=lambda item: (-len(set(item[1]) & {"manifest", "visual"}), item[0])):
            if has_rates(content) and all(content["wer"] != other["wer"] for _, other in chosen):
                chosen.append((file, content))
        found += [Measured(run.name if len(chosen) == 1 else f"{run.name}: {file}", look, content) for file, content in chosen]
    return found


def _visual(measured: Measured) -> dict[str, Any]:
    found = measured.content.get("visual")
    return {kind: part for kind, part in found.items() if isinstance(part, dict) and has_rates(part)} if isinstance(found, dict) else {}


def _table(measured: Measured) -> Markup:
    """The rates as in the terminal: a row for every input (and kind of noise), a column for every condition."""
    content = measured.content
    names = condition_order(dict.fromkeys(name for row in content["wer"].values() for name in row))
    given = [f"{content[key]} {key}" for key in ("utterances", "words") if key in content]
    if content.get("manifest"):
        given.append(f"{content['manifest']}, split {content.get('split') or 'all'}")
    unit = "Character" if content.get("unit") == "characters" else "Word"
    caption = f"{measured.name}: {unit.lower()} error rate in % (95 % interval)" + "".join(f"; {each}" for each in given)
    heads = [name if _ratio(name) is None else f"{name} dB" for name in names]
    by_noise = content.get("by_noise")
    if not isinstance(by_noise, dict) or not all(isinstance(part, dict) and has_rates(part) for part in by_noise.values()):
        return table(["input", *heads], _rows(content["wer"], content.get("interval_95") or {}, names), caption)
    rows = []
    for modality, row in content["wer"].items():
        for noise, part in by_noise.items() if "a" in modality else ():
            [found] = _rows({modality: part["wer"].get(modality, {})}, part.get("interval_95") or {}, names)
            rows.append([found[0], noise, *found[1:]])
        [found] = _rows({modality: row}, {}, names)
        rows.append([found[0], "mean" if "a" in modality else "any", *found[1:]])
    return table(["input", "noise", *heads], rows, caption)


def _rows(rates: Rates, intervals: Intervals, names: Sequence[str]) -> list[list[object]]:
    return [
        [NAMES[modality], *(_cell(row.get(name), (intervals.get(modality) or {}).get(name)) for name in names)]
        for modality, row in rates.items()
    ]


def _cell(rate: float | None, interval: Sequence[float] | None) -> str:
    if rate is None:
        return ""
    return f"{rate:.1f}" + (f" ({interval[0]:.1f}-{interval[1]:.1f})" if _is_interval(interval) and interval is not None else "")


def _is_interval(interval: Any) -> bool:
    return isinstance(interval, list | tuple) and len(interval) == 2 and all(isinstance(end, int | float) for end in interval)


def _differences(rated: Sequence[Measured]) -> Markup:
    """Every rate of all evaluations side by side, and how it differs from that of the first."""
    places = dict.fromkeys(
        (modality, name) for each in rated for modality, row in each.content["wer"].items() for name in condition_order(row)
    )
    rows = []
    for modality, name in places:
        values = [each.content["wer"].get(modality, {}).get(name) for each in rated]
        first = values[0]
        cells = [_cell(first, None)]
        for value in values[1:]:
            cells.append(_cell(value, None) + (f" ({change(value, first)})" if value is not None and first is not None else ""))
        rows.append([f"{NAMES[modality]}, {name if _ratio(name) is None else f'{name} dB'}", *cells])
    found = table(["input, condition", *(each.name for each in rated)], rows, f"Error rates in % (difference from {rated[0].name})")
    sets = {(each.content.get("manifest"), each.content.get("split"), each.content.get("utterances")) for each in rated}
    remark = "These evaluations are not of the same utterances: their rates cannot be compared one to one." if len(sets) > 1 else ""
    return joined([found, paragraph(remark, kind="fault") if remark else ""])


def _charts(
    curves: Sequence[tuple[Measured, Rates, Intervals]], title: str, x_label: str, order: Callable[[list[str]], list[str]]
) -> Markup:
    """One chart with all inputs of a single evaluation, or for each input one with all evaluations."""
    names = order(list(dict.fromkeys(name for _, rates, _ in curves for row in rates.values() for name in row)))
    at = {name: float(place) for place, name in enumerate(names)}
    ticks = [(place, name) for name, place in at.items()]
    modalities = list(dict.fromkeys(modality for _, rates, _ in curves for modality in rates))

    def series(name: str, row: Mapping[str, float], interval: Mapping[str, Sequence[float]], look: int) -> Series:
        points = sorted((at[key], rate) for key, rate in row.items())
        band = sorted((at[key], float(ends[0]), float(ends[1])) for key, ends in interval.items() if key in at and _is_interval(ends))
        return Series(name, points, band, look, dots=True)

    if len(curves) == 1:
        [(_, rates, intervals)] = curves
        lines = [series(NAMES[each], rates[each], intervals.get(each) or {}, place) for place, each in enumerate(modalities)]
        charts = [line_chart(lines, title, x_label, ticks=ticks, from_zero=True)]
    else:
        charts = []
        for each in modalities:
            lines = [series(who.name, rates[each], ends.get(each) or {}, who.look) for who, rates, ends in curves if each in rates]
            charts.append(line_chart(lines, f"{title}: {NAMES[each].lower()}", x_label, ticks=ticks, from_zero=True))
    return element("div", *charts, class_="grid")


def _strengths(measured: Measured, kind: str, part: Mapping[str, Any]) -> Markup:
    names = list(dict.fromkeys(name for row in part["wer"].values() for name in row))
    heads = [name if _ratio(name) is None else strength_label(kind, name) for name in names]
    heard = measured.content.get("visual_sound", CLEAN)
    caption = f"{measured.name}: {KINDS[kind].what}; error rate in % (95 % interval); sound: {heard}"
    return table(["input", *heads], _rows(part["wer"], part.get("interval_95") or {}, names), caption)


def _single(content: Mapping[str, Any]) -> list[tuple[str, object]]:
    """Figures and what they are of, without tables of single classes."""
    shown = {key: value for key, value in content.items() if key not in ("origin", "average_precision")}
    return [(key, value if isinstance(value, int | float | str) else str(value)) for key, value in flattened(shown)]
