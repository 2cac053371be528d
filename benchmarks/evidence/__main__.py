"""Run the small tests of what the published systems claim, and write the tables of docs/evidence.md.

    python -m benchmarks.evidence [SYSTEM ...] [--speech DIR] [--noise DIR] [--seeds N] [--out runs/evidence] [--smoke]
    python -m benchmarks.evidence --page

Hours; stopped at any time, the same command goes on. Every run has a process and a folder of its own, and leaves its figures in
benchmarks/results; one that fails does not end the others. ``--page`` runs nothing and writes the tables from these files.
"""

import argparse
import sys
from pathlib import Path

from rich.console import Console

from benchmarks.evidence.claims import CLAIMS
from benchmarks.evidence.page import PAGE, RESULTS, write_page
from benchmarks.evidence.runs import RECORDINGS, STOPPED, Ended, Settings, Stopped, run_all
from demos.stages import finish


def wanted(systems: list[str]) -> list[str]:
    """Names of the runs that the claims of some systems rest on, or of all, each once.

    Raises:
        ValueError: there is no such system.
    """
    unknown = [name for name in systems if name not in CLAIMS]
    if unknown:
        raise ValueError(f"{unknown[0]!r} is no system of the page; choose from {', '.join(CLAIMS)}.")
    return list(dict.fromkeys(run for name in systems or CLAIMS for run in CLAIMS[name].runs))


def close(ended: list[Ended], asked: bool, console: Console) -> int:
    """Say what became of every run; returns the exit code: 1 if one has failed, or was left out though it was asked for by name."""
    console.print()
    for each in ended:
        console.print(f"{each.name}: {each.how}{f': {each.why}' if each.why else ''}", highlight=False, markup=False)
    return int(any(each.how == "failed" or (asked and each.how == "left out") for each in ended))


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.evidence", description=__doc__.splitlines()[0])
    parser.add_argument("systems", nargs="*", metavar="SYSTEM", help=f"of {', '.join(CLAIMS)} (default: all)")
    parser.add_argument("--page", action="store_true", help="run nothing; write the tables from the results that are there")
    for name, what in RECORDINGS.items():
        parser.add_argument(f"--{name}", type=Path, metavar="DIR", help=f"folder of {what}; runs that need it are left out without it")
    parser.add_argument("--seeds", type=int, metavar="N", help="how many (default: 3)")
    parser.add_argument("--out", type=Path, default="runs/evidence", metavar="DIR", help="folder for everything that is made")
    parser.add_argument("--smoke", action="store_true", help="minutes, to see that all works; results and page stay in --out")
    options = parser.parse_args(arguments)
    console, code = Console(stderr=True), 0

    def work() -> None:
        nonlocal code
        if options.seeds is not None and options.seeds < 1:
            raise ValueError(f"--seeds {options.seeds}: give at least 1; below 2 there are no intervals.")
        runs = wanted(options.systems)
        results = options.out / "results" if options.smoke else RESULTS
        page = options.out / "evidence.md" if options.smoke else PAGE
        if not options.page:
            folders = {name: folder for name in RECORDINGS if (folder := getattr(options, name)) is not None}
            seeds = options.seeds or (2 if options.smoke else 3)
            settings = Settings(options.out, results, seeds, options.smoke, folders)
            try:
                ended = run_all(runs, settings, console, lambda: write_page(page, results))
            except Stopped:
                code = STOPPED
                console.print("evidence: stopped; the same command goes on from here.", highlight=False)
                return
            code = close(ended, bool(options.systems), console)
        write_page(page, results)
        console.print(f"Tables: {page}", highlight=False)

    return finish("evidence", work) or code


if __name__ == "__main__":
    sys.exit(main())
