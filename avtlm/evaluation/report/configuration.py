"""The part of a report on where its figures come from: settings, and in which of them runs differ; machine, versions and command."""

from collections.abc import Mapping, Sequence
from typing import Any

from avtlm.evaluation.report.folder import Run
from avtlm.evaluation.report.page import Markup, element, folded, paragraph, section, table

NAME, TITLE = "configuration", "Configuration and origin"
LONGEST = 300  # characters of a value


def configuration(runs: Sequence[Run]) -> Markup:
    """Settings in which runs differ first, then all of them, and how the runs were started."""
    parts: list[Markup] = []
    configured = [run for run in runs if run.settings]
    without = [run.name for run in runs if not run.settings]
    if len(configured) > 1:
        parts.append(_changes(configured))
    for run in configured:
        rows = [(key, element("code", shown(value))) for key, value in run.settings.items()]
        parts.append(folded(f"All settings of {run.name}", table(("setting", "value"), rows, f"{run.name}: config.yaml")))
    if without:
        parts.append(paragraph(f"No config.yaml: {', '.join(without)}.", kind="faint"))
    for run in runs:
        rows = facts(run)
        if rows:
            parts.append(table(("", "value"), rows, f"{run.name}: where its figures come from"))
        else:
            told = f"{run.name}: it is not noted on which machine, with which versions and by which command its figures were made."
            parts.append(paragraph(told, kind="faint"))
    return section(NAME, TITLE, *parts)


def shown(value: Any) -> str:
    """A setting in a cell."""
    text = "null" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}…"


def changed_settings(runs: Sequence[Run]) -> list[tuple[str, list[Any]]]:
    """Keys whose values differ, with those of every run; ``(not set)`` where a run has none."""
    keys = dict.fromkeys(key for run in runs for key in run.settings)
    rows = [(key, [shown(run.settings[key]) if key in run.settings else "(not set)" for run in runs]) for key in keys]
    return [(key, values) for key, values in rows if len(set(values)) > 1]


def facts(run: Run) -> list[tuple[str, Any]]:
    """What the run's starts or its evaluations say of machine, versions and command."""
    rows: list[tuple[str, Any]] = []
    if run.starts:
        rows += [("starts", len(run.starts)), *_origin("training", run.starts[-1])]
    for file, content in run.evaluations.items():
        rows += _origin(file, content.get("origin"))
        if isinstance(content.get("machine"), Mapping):
            rows += _origin(file, {"machine": content["machine"]})
    return rows


def _changes(runs: Sequence[Run]) -> Markup:
    changes = changed_settings(runs)
    if not changes:
        return paragraph("The settings of all runs are the same.")
    rows = [[key, *(element("code", value) for value in values)] for key, values in changes]
    return table(["setting", *(run.name for run in runs)], rows, "Settings in which the runs differ")


def _origin(what: str, origin: Any) -> list[tuple[str, Any]]:
    if not isinstance(origin, Mapping):
        return []
    rows: list[tuple[str, Any]] = []
    for key in ("time", "step", "processes", "command"):
        if isinstance(origin.get(key), str | int):
            rows.append((f"{what}: {key}", element("code", shown(origin[key])) if key == "command" else shown(origin[key])))
    for part in ("machine", "versions"):
        if isinstance(origin.get(part), Mapping):
            rows.append((f"{what}: {part}", shown(", ".join(f"{key} {shown(value)}" for key, value in origin[part].items()))))
    return rows
