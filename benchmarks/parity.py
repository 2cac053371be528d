"""Do we compute what official code computes? Every stored case is replayed and compared tensor by tensor.

    python -m benchmarks.parity [--cases DIR] [--json FILE]

A case is a folder with a ``case.json`` and tensors (see benchmarks/replay); the default are the cases of this repository. Models are built
from ``case.json`` alone. The exit code is 1 if any case fails or could not be run.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from avtlm.files import write_text
from benchmarks.replay import Report, find_cases, replay

CASES = Path(__file__).resolve().parents[1] / "tests" / "golden"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.parity", description="Compare this library with stored results of official code."
    )
    parser.add_argument("--cases", type=Path, default=CASES, metavar="DIR", help="folder of cases (default: tests/golden)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results to this file")
    options = parser.parse_args(arguments)
    cases = find_cases(options.cases)
    if not cases:
        parser.error(f"{options.cases}: no folder below it holds a case.json.")
    console = Console(width=None if sys.stdout.isatty() else 120)
    reports = []
    for name, folder in cases:
        reports.append(replay(folder, name))
        if not reports[-1].passed:
            console.print(f"{name}: {explain(reports[-1])}", style="red", highlight=False, markup=False)
    console.print(table(reports))
    for reason, tensors in left_out(reports).items():
        console.print(
            f"Not compared, {len(tensors)}: {reason} ({', '.join(tensors[:4])}{', ...' if len(tensors) > 4 else ''})", markup=False
        )
    if options.json is not None:
        write_text(options.json, json.dumps([as_json(report) for report in reports], indent=1) + "\n")
    return 0 if all(report.passed for report in reports) else 1


def explain(report: Report) -> str:
    """Why a case does not pass, in one line."""
    if report.failure is not None:
        return f"could not be run: {report.failure}"
    wrong = [each for each in report.comparisons if not each.passed]
    if not wrong:
        return "nothing was compared."
    worst = max(wrong, key=lambda each: each.error)
    return f"{len(wrong)} of {len(report.comparisons)} tensors differ; {worst.name} by {worst.error:.3g}, tolerance {worst.tolerance:.3g}."


def table(reports: Sequence[Report]) -> Table:
    """One line a case: how it went, and the comparison that comes nearest to its tolerance."""
    result = Table(title=f"{sum(report.passed for report in reports)} of {len(reports)} cases pass", title_justify="left")
    result.add_column("case", overflow="fold")
    result.add_column("")
    for heading in ("max abs error", "nearest to its tolerance", "tensors", "left out"):
        result.add_column(heading, justify="right", overflow="fold")
    for report in reports:
        worst = report.worst
        near = "" if worst is None else f"{worst.error:.1e} of {worst.tolerance:.0e}" if worst.tolerance else f"{worst.error:.1e}, exact"
        verdict = "[green]pass[/]" if report.passed else "[red]not run[/]" if report.failure else "[red]FAIL[/]"
        counts = (str(len(report.comparisons)), str(len(report.skipped)))
        result.add_row(report.case, verdict, f"{report.max_abs_error:.1e}" if report.comparisons else "", near, *counts)
    return result


def left_out(reports: Sequence[Report]) -> dict[str, list[str]]:
    """Tensors that were not compared, by the reason."""
    reasons: dict[str, list[str]] = {}
    for report in reports:
        for tensor, reason in report.skipped.items():
            reasons.setdefault(reason, []).append(f"{report.case}: {tensor}")
    return reasons


def as_json(report: Report) -> dict[str, Any]:
    skipped = dict(report.skipped) if report.failure is None else {"*": report.failure, **report.skipped}
    return {
        "case": report.case,
        "passed": report.passed,
        "max_abs_error": report.max_abs_error if report.comparisons else None,
        "tolerance": report.tolerance,
        "compared": [each.name for each in report.comparisons],
        "skipped": skipped,
    }


if __name__ == "__main__":
    raise SystemExit(main())
