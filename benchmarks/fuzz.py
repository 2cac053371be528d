"""Damaged input by the thousand: does every reader answer in one sentence, in time, and leave nothing behind?

    python -m benchmarks.fuzz --inputs 10000 --json FILE [--kinds media manifest ...] [--workers 2] [--keep DIR]

Whole files of every kind that the library reads are made, damaged by `benchmarks.mutations`, and read in worker processes. Good answers are
a result (the damage did no harm, or is reported) and a ValueError of one sentence that names the file. Everything else is counted as
a failure: another exception, a sentence that is none, more than 10 seconds, more than 1.5 GB, a dead process, a file left behind, and sound
or pictures that are missing from a file cut short without a word. The same seed gives the same inputs.
"""

import argparse
import functools
import json
import os
import platform
import re
import resource
import shutil
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from avtlm.data.seeds import seed_for
from avtlm.files import write_text
from avtlm.origin import processor
from avtlm.training.progress import bar
from benchmarks.mutations import BINARY, TEXTUAL, cut, mutate
from benchmarks.whole_files import KINDS, Seed, seeds
from preprocess.pool import Crash, run_tasks

SLOW = 10.0  # seconds for one input
STUCK = 60.0  # seconds after which a worker is stopped; its start counts too
HEAVY = 1.5e9  # bytes by which one input may raise the memory of its worker
LONGEST = 700  # characters of a sentence


@dataclass(frozen=True)
class Outcome:
    """What became of one input. ``result`` is read, refused, or the failure."""

    kind: str
    seed: str
    number: int
    damage: tuple[str, ...]
    result: str
    said: str
    seconds: float
    grown: float


GOOD = ("read", "refused")


@dataclass
class Bench:
    """What a worker has: its folder and the whole files."""

    folder: Path
    seeds: list[Seed]
    seed: int
    keep: Path | None


def prepare(parent: str, kinds: Sequence[str], seed: int, keep: str | None) -> Bench:
    """A folder of its own for one worker, and the whole files."""
    folder = Path(tempfile.mkdtemp(dir=parent))
    (folder / "whole").mkdir()
    return Bench(folder, seeds(folder / "whole", kinds), seed, None if keep is None else Path(keep))


def run(bench: Bench, number: int) -> Outcome:
    """Damage one file and read it."""
    seed = bench.seeds[number % len(bench.seeds)]
    rng = np.random.default_rng(seed_for("fuzz", bench.seed, number))
    data, damage = mutate(seed.data, rng, TEXTUAL if seed.textual else BINARY)
    place = bench.folder / "input"
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    path = place / seed.name
    for name, content in ((seed.name, data), *seed.beside):
        (place / name).write_bytes(content)
    before, memory, start = sorted(place.rglob("*")), _peak(), time.monotonic()
    try:
        count, notes = seed.read(path)
        result, said = "read", "; ".join(notes)
        lost = (
            seed.whole is not None
            and count is not None
            and damage == (cut.__name__,)
            and count < seed.whole - 2
            and len(data) < len(seed.data)
        )
        if lost and not notes:
            result, said = "lost without a word", f"{count} of {seed.whole}"
    except ValueError as error:
        result, said = ("refused" if is_sentence(str(error), path) else "unclear"), str(error)
    except Exception as error:
        result, said = "another error", f"{type(error).__name__}: {error}"
    seconds, grown = time.monotonic() - start, _peak() - memory
    if result in GOOD and sorted(place.rglob("*")) != before:
        result = "left files behind"
    if result in GOOD and seconds > SLOW:
        result = "slow"
    if result in GOOD and grown > HEAVY:
        result = "heavy"
    if result not in GOOD and bench.keep is not None:
        bench.keep.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, bench.keep / f"{number:06d}-{seed.name}")
    return Outcome(seed.kind, seed.name, number, damage, result, said[:LONGEST], round(seconds, 3), grown)


def is_sentence(text: str, path: Path) -> bool:
    """One line that names a file of the input's folder, ends like a sentence, and can be read at a glance."""
    named = path.name in text or str(path.parent) in text
    return named and "\n" not in text.strip() and len(text) < LONGEST and bool(re.search(r"[.)?]$", text.strip()))


def _peak() -> float:
    """Bytes of memory that this process has held at most."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def fuzz(inputs: int, kinds: Sequence[str] = KINDS, workers: int = 1, seed: int = 0, keep: Path | None = None) -> list[Outcome]:
    """Outcomes of so many inputs, taken in turn from the whole files of all kinds. 0 workers read them in this process."""
    outcomes = []
    with tempfile.TemporaryDirectory() as parent, bar("fuzz", inputs) as progress:
        setup = functools.partial(prepare, parent, tuple(kinds), seed, None if keep is None else str(keep))
        for number, outcome in run_tasks(run, range(inputs), setup, workers, timeout=STUCK):
            if isinstance(outcome, Crash):
                outcome = Outcome(
                    "?", "?", number, (), "hang" if "longer" in outcome.reason else "dead process", outcome.reason, STUCK, 0.0
                )
            outcomes.append(outcome)
            progress.advance()
    return sorted(outcomes, key=lambda outcome: outcome.number)


def summary(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """Counts by kind, what went wrong, the slowest, the hungriest."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for outcome in outcomes:
        counts[outcome.kind][outcome.result] += 1
    return {
        "inputs": len(outcomes),
        "kinds": {kind: dict(found) for kind, found in sorted(counts.items())},
        "failures": [vars(outcome) for outcome in outcomes if outcome.result not in GOOD],
        "slowest_seconds": max((outcome.seconds for outcome in outcomes), default=0.0),
        "largest_growth_bytes": max((outcome.grown for outcome in outcomes), default=0.0),
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; exit code 1 if anything failed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.fuzz", description="Feed damaged files to every reader.")
    parser.add_argument("--inputs", type=int, default=1000, metavar="N", help="how many (default: %(default)s)")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS, help="of what (default: all)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, metavar="N", help="processes (default: one for each core)")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="where inputs go that something failed on")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures")
    options = parser.parse_args(arguments)
    start = time.monotonic()
    report = summary(fuzz(options.inputs, options.kinds, options.workers, options.seed, options.keep))
    report |= {
        "seconds": round(time.monotonic() - start, 1),
        "command": f"python -m benchmarks.fuzz --inputs {options.inputs} --seed {options.seed}",
        "hardware": {"processor": processor(), "cores": os.cpu_count()},
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in ("av", "numpy", "torch", "safetensors", "PyYAML")},
        },
    }
    for kind, found in report["kinds"].items():
        print(f"{kind:11} {', '.join(f'{count} {result}' for result, count in sorted(found.items()))}")
    for failure in report["failures"][:20]:
        print(f"  {failure['seed']} {failure['number']} ({', '.join(failure['damage'])}): {failure['result']}: {failure['said'][:200]}")
    slowest, seconds = report["slowest_seconds"], report["seconds"]
    print(f"{report['inputs']} inputs, {len(report['failures'])} failures, slowest {slowest:.2f} s, {seconds:.0f} s in all")
    if options.json:
        write_text(options.json, json.dumps(report, indent=1) + "\n")
    return 1 if report["failures"] else 0


if __name__ == "__main__":
    sys.exit(main())
