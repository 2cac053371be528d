"""How long `import avtlm` takes beside `import torch`, each in a new Python, in turns.

    python -m benchmarks.import_time [--runs 7] [--json FILE]

``import avtlm`` loads nothing; the row below it is what the first use costs (`avtlm.transcribe`, which opens everything that a transcript
needs, PyTorch with it). Times are of the import statement alone, without the start of Python; the median of the runs counts, and their
ratio to that of torch.
"""

import argparse
import json
import platform
import statistics
import subprocess
import sys
from typing import Any

from avtlm.origin import processor

STATEMENTS = {
    "import torch": "import torch",
    "import avtlm": "import avtlm",
    "import avtlm; avtlm.load": "import avtlm; avtlm.load",
    "import avtlm; avtlm.transcribe": "import avtlm; avtlm.transcribe",
}
LIMIT = 1.5  # times the import of torch


def seconds(statement: str) -> float:
    """Seconds that a statement takes in a new Python."""
    script = f"import time\nstart = time.perf_counter()\n{statement}\nprint(time.perf_counter() - start)"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return float(result.stdout.split()[-1])


def measure(runs: int) -> dict[str, Any]:
    """Medians by statement in seconds, and their ratios to that of torch."""
    if runs < 1:
        raise ValueError(f"runs: {runs}; give at least 1.")
    for statement in STATEMENTS.values():
        seconds(statement)  # from the disk to the memory
    times: dict[str, list[float]] = {name: [] for name in STATEMENTS}
    for _ in range(runs):
        for name, statement in STATEMENTS.items():
            times[name].append(seconds(statement))
    medians = {name: statistics.median(found) for name, found in times.items()}
    torch = medians["import torch"]
    ratios = [found / base for found, base in zip(times["import avtlm; avtlm.transcribe"], times["import torch"])]
    return {
        "seconds": {name: round(value, 4) for name, value in medians.items()},
        "ratio": {name: round(value / torch, 4) for name, value in medians.items()},
        "transcribe_ratio_of_each_run": [round(ratio, 3) for ratio in ratios],
        "limit": LIMIT,
    }


def about() -> dict[str, str]:
    """What it was measured on."""
    import torch

    import avtlm

    return {"avtlm": avtlm.__version__, "torch": torch.__version__, "python": platform.python_version(), "processor": processor()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--json", metavar="FILE")
    options = parser.parse_args()
    found = {**measure(options.runs), "runs": options.runs, **about(), "command": f"python -m benchmarks.import_time --runs {options.runs}"}
    print(f"{'statement':34}{'seconds':>10}{'of torch':>10}")
    for name, value in found["seconds"].items():
        print(f"{name:34}{value:10.3f}{found['ratio'][name]:10.2f}")
    if options.json:
        from avtlm.files import write_text

        write_text(options.json, json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
