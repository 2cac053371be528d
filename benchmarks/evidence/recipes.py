"""Recipes that have one seed a run: their reports, one for every seed, as one report like those of the comparisons.

Of one report alone there is no interval over seeds; those over its utterances, which it has itself, stay beside its figures."""

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

STARTS = ("pretrained", "scratch")


def together(values: Sequence[Any]) -> Any:
    """Equal trees of numbers as one tree, with ``mean`` and ``seeds`` in place of every number.

    Raises:
        ValueError: trees of different forms, or none.
    """
    if values and all(isinstance(value, Mapping) and set(value) == set(values[0]) for value in values):
        return {key: together([value[key] for value in values]) for key in values[0]}
    if values and all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
        return {"mean": round(fmean(values), 3), "seeds": list(values)}
    raise ValueError("Reports of several seeds have different forms; were all runs of one size, and with the same extras?")


def quickstart(reports: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Reports of demos.quickstart: word errors in noise, and those of the two starts, each the mean over the report's own fine-tunings; of
    one report alone each of these fine-tunings is a seed."""
    noise = _with_intervals(together([report["wer"] for report in reports]), reports)
    compared = [report["pretrained_vs_scratch"] for report in reports]
    if len(compared) == 1:
        starts = {start: together([run["wer"] for run in compared[0][start]]) for start in STARTS}
    else:
        starts = {start: together([one[f"{start}_mean"] for one in compared]) for start in STARTS}
    return {"results": {"noise": noise, "start": starts}, **_shared(reports)}


def speaking(reports: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Reports of demos.speaking: word errors of recordings and of synthesised speech by those who understood them in every run."""
    judges = [name for name in reports[0]["wer"] if all(name in report["wer"] for report in reports)]
    found = _with_intervals({name: together([report["wer"][name] for report in reports]) for name in judges}, reports)
    return {"results": {"wer": found}, "utterances": reports[0]["utterances"], **_shared(reports)}


def superb(reports: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Reports of benchmarks.superb: figures by encoder, task and metric."""
    found: list[dict[str, dict[str, dict[str, float]]]] = []
    for report in reports:
        figures: dict[str, dict[str, dict[str, float]]] = {}
        for row in report["rows"]:
            for encoder, value in row["figures"].items():
                figures.setdefault(encoder, {}).setdefault(row["task"], {})[row["metric"]] = value
        found.append(figures)
    seconds = sum(each for report in reports for encoders in report["seconds"].values() for each in encoders.values())
    plan = {**reports[0]["size"], "seeds": len(reports)}
    return {"results": together(found), "plan": plan, "seconds": {"total": round(seconds, 1)}, "machine": reports[0]["machine"]}


def _with_intervals(found: dict[str, Any], reports: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Word errors by row and condition, with the intervals over utterances if there is one report alone."""
    if len(reports) > 1:
        return found
    known = reports[0]["interval_95"]
    return {row: {name: cell | {"interval_95": known[row][name]} for name, cell in cells.items()} for row, cells in found.items()}


def _shared(reports: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What all recipes say of themselves; times of all seeds together, and the settings of the first."""
    plan = {key: value for key, value in reports[0]["plan"].items() if key not in ("seed", "seeds")}
    plan |= {"seeds": len(reports)} | ({"seeds_of_fine_tuning": reports[0]["plan"]["seeds"]} if "seeds" in reports[0]["plan"] else {})
    seconds = {"total": round(sum(report["seconds"]["total"] for report in reports), 1)}
    return {"plan": plan, "seconds": seconds, "machine": reports[0]["machine"]}
