"""Results of runs as the benchmarks write them, with figures of one's choice."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.evidence.claims import CLAIMS, Measure, Trial
from benchmarks.evidence.runs import RUNS

Figures = Callable[[str, Measure], list[float]]
MACHINE = {"processor": "Abacus", "cores": 2, "gpu": None, "python": "3.11", "torch": "2.11"}


def report(name: str, figures: Figures) -> dict[str, Any]:
    """A report of a run in which every cell of every table has the figures that its row and measure give."""
    found: dict[str, Any] = {
        "plan": {"steps": [1, 2], "seeds": 3, "changes": []},
        "seconds": {"one": 60.0, "total": 7200.0},
        "machine": MACHINE,
        "command": RUNS[name].shown,
    }
    for trial in {id(trial): trial for claim in CLAIMS.values() for trial in claim.trials if trial.run == name}.values():
        for row in trial.rows:
            for measure in trial.measures:
                put(found, trial, row, measure, figures(row, measure))
    return found


def put(found: dict[str, Any], trial: Trial, row: str, measure: Measure, seeds: list[float]) -> None:
    """Set one cell."""
    *folders, last = trial.where.format(row=row, measure=measure.path).split("/")
    for each in folders:
        found = found.setdefault(each, {})
    found[last] = {"mean": sum(seeds) / len(seeds), "seeds": seeds}


def write(folder: Path, name: str, content: dict[str, Any]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")
