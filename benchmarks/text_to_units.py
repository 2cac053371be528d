"""How many lines a second become units, and does memory stay flat as the file grows?

    python -m benchmarks.text_to_units [--json FILE] [--lines 10000 100000] [--size small|tiny|phones] [--model DIR] [--threads 2]

Each number of lines is a process of its own, which writes the units of so many sentences by `avtlm.units.text_stream.text2units`, as
`avtlm units text2units` does, and whose largest memory is read when it ends. Without --model the text-to-unit model is made here: the
published small one, or a tiny one, with random weights and phones that last about five frames. ``phones`` has no model: phones with
silences and durations, as SpeechLM-P reads them.
"""

import argparse
import json
import math
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console
from rich.table import Table

from avtlm import __version__, config
from avtlm.checkpoint import save_model
from avtlm.data.seeds import seed_for
from avtlm.files import write_text
from avtlm.origin import processor
from avtlm.systems.fast_text2unit import FastText2Unit, FastText2UnitConfig
from avtlm.text.vocabulary import SPECIALS, Vocabulary
from avtlm.units.generators import open_generator
from avtlm.units.phonemes import PronunciationConfig, mono_phones
from avtlm.units.text_stream import text2units
from preprocess.synthesis.tales import distinct_tales

PRONUNCIATION = PronunciationConfig(stress=False, silence="<SIL>")
TINY: dict[str, Any] = {"dim": 64, "layers": 2, "unit_layers": 2, "feed_forward_dim": 128, "kernel": 5, "duration_dim": 64, "units": 100}
SIZES: dict[str, dict[str, Any]] = {"small": {}, "tiny": TINY}
FRAMES = 5.0  # that a phone lasts


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.text_to_units", description="Measure how fast texts become units.")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results to this file")
    parser.add_argument("--lines", type=int, nargs="+", default=[10_000, 100_000], metavar="N", help="default: 10000 100000")
    parser.add_argument("--size", choices=[*SIZES, "phones"], default="small", help="of the model that is made (default: small)")
    parser.add_argument("--model", metavar="DIR", help="a text-to-unit model in place of a made one")
    parser.add_argument("--threads", type=int, default=2, metavar="N", help="CPU threads (default: 2)")
    parser.add_argument("--one", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.one is not None:
        print(json.dumps(measure(options.one, options.model, options.threads)))
        return 0
    if min(options.lines) < 1 or options.threads < 1:
        parser.error("--lines and --threads: give at least 1.")
    report: dict[str, Any] = {"command": f"python -m benchmarks.text_to_units --size {options.size}", "results": []}
    cores = {"processor": processor(), "cores": os.cpu_count(), "gpu": torch.cuda.is_available()}
    report |= {"hardware": cores, "versions": {"avtlm": __version__, "torch": torch.__version__}, "threads": options.threads}
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        model = options.model
        if model is None and options.size in SIZES:
            model = str(made_model(folder / "model", FastText2UnitConfig(**SIZES[options.size], pronunciation=PRONUNCIATION)))
        write_lines(folder, options.lines)
        for count in options.lines:
            chosen = [] if model is None else ["--model", model]
            command = [sys.executable, "-m", "benchmarks.text_to_units", "--one", str(folder / f"{count}.txt"), *chosen]
            done = subprocess.run([*command, "--threads", str(options.threads)], capture_output=True, text=True, check=False)
            if done.returncode:
                print(done.stderr, file=sys.stderr)
                return 1
            report["results"].append({"lines": count, **json.loads(done.stdout.splitlines()[-1])})
    Console(width=None if sys.stdout.isatty() else 100).print(table(report))
    if options.json is not None:
        write_text(options.json, json.dumps(report, indent=1) + "\n")
    return 0


def measure(text: Path, model: str | None, threads: int) -> dict[str, float]:
    """Write the units of a text in this process."""
    torch.set_num_threads(threads)
    generator = open_generator(model)
    started = time.perf_counter()
    done = text2units(text, text.with_suffix(".units"), generator)
    seconds = time.perf_counter() - started
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    return {"lines_per_second": done.lines / seconds, "seconds": seconds, "units": done.units, "kept": done.kept, "peak_bytes": peak}


def made_model(folder: Path, settings: FastText2UnitConfig) -> Path:
    """A folder of a model with random weights whose phones last about five frames each."""
    vocabulary = Vocabulary([*SPECIALS, *mono_phones()], "tokens")
    values = {**config.to_dict(settings), "vocabulary": len(vocabulary)}
    torch.manual_seed(seed_for("text to units"))
    model = FastText2Unit(config.load(FastText2UnitConfig, values))
    with torch.no_grad():
        model.durations.project.weight.mul_(0.1)
        model.durations.project.bias.fill_(math.log(FRAMES + 1))
    card = {"system": "fast_text2unit", "task": "text_to_units", "model": config.to_dict(model.config)}
    save_model(folder, model, card, vocabulary)
    return folder


def write_lines(folder: Path, counts: Sequence[int]) -> None:
    """A text of so many distinct sentences for each count; the shorter ones begin the longer ones."""
    sentences = [tale.english for tale in distinct_tales(max(counts), np.random.default_rng(seed_for("lines")))]
    for count in counts:
        write_text(folder / f"{count}.txt", "".join(f"{sentence}\n" for sentence in sentences[:count]))


def table(report: dict[str, Any]) -> Table:
    """A line for every number of lines."""
    found = Table(title=f"Text to units: {report['command']}, {report['threads']} threads", title_justify="left")
    for heading in ("lines", "lines/s", "units", "seconds", "peak memory, MB"):
        found.add_column(heading, justify="right")
    for row in report["results"]:
        peak = f"{row['peak_bytes'] / 1e6:.0f}"
        found.add_row(str(row["lines"]), f"{row['lines_per_second']:.1f}", str(row["units"]), f"{row['seconds']:.1f}", peak)
    return found


if __name__ == "__main__":
    raise SystemExit(main())
