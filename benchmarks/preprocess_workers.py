"""Lip crops against the number of workers, in the local pool and on a Ray cluster of one machine.

    python -m benchmarks.preprocess_workers [FOLDER] [--workers 1 2] [--clips 40] [--json FILE] [--plot PNG]

Without a folder, talking heads of the synthetic corpus are made. A worker does whole clips: decoding, landmarks, crops, writing. The rate
is taken from the first result to the last, so that the seconds in which processes start, stated beside it, do not blur it. What a clip
costs in CPU seconds within a worker says how much of a rate that does not grow is due to other programs on the same cores.
"""

import argparse
import contextlib
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from avtlm.data.manifest import Utterance
from avtlm.files import write_text
from avtlm.lips.align import opencv
from avtlm.lips.landmarks import LandmarkProvider
from avtlm.origin import processor
from preprocess.clips import find_clips
from preprocess.cluster import workforce
from preprocess.lip_roi import make_crops
from preprocess.lip_tasks import Options, Task
from preprocess.pool import Crash, run_tasks

FPS = 25.0
STORE = 80 << 20  # bytes for Ray's objects; records of clips are small


def provider() -> LandmarkProvider:
    """What a worker sets up once."""
    opencv().setNumThreads(1)
    return Options().provider(None)


def timed_crops(provider: LandmarkProvider, task: Task) -> tuple[int, float]:
    """Frames of a clip and CPU seconds of this process for it; threads of mediapipe and FFmpeg count."""
    begun = time.process_time()
    record = make_crops(provider, task)
    return int(record.get("frames", 0)), time.process_time() - begun


@contextlib.contextmanager
def ray_cluster(cpus: int) -> Iterator[None]:
    """A cluster of this machine."""
    import ray

    ray.init(num_cpus=cpus, object_store_memory=STORE, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    try:
        yield
    finally:
        ray.shutdown()


def measure(pool: str, workers: int, clips: Sequence[tuple[Path, Utterance]]) -> dict[str, Any]:
    """Do all clips once."""
    with contextlib.ExitStack() as stack:
        out = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        if pool == "ray":
            stack.enter_context(ray_cluster(workers))
        tasks = [Task(str(path.absolute()), utterance, str(out), Options()) for path, utterance in clips]
        force = stack.enter_context(workforce("auto" if pool == "ray" else None, workers, out))
        begun, results, ends = time.perf_counter(), [], []
        for _, result in run_tasks(timed_crops, tasks, provider, force):
            if isinstance(result, Crash):
                raise SystemExit(f"a clip {result.reason}.")
            results.append(result)
            ends.append(time.perf_counter() - begun)
    frames, cpu = sum(result[0] for result in results), sum(result[1] for result in results)
    later = sum(result[0] for result in results[1:])
    return {
        "pool": pool,
        "workers": workers,
        "clips": len(results),
        "frames": frames,
        "seconds_to_first_result": round(ends[0], 2),
        "seconds": round(ends[-1], 2),
        "times_real_time": round(later / FPS / max(ends[-1] - ends[0], 1e-9), 2),
        "cpu_milliseconds_per_frame": round(1000 * cpu / max(frames, 1), 3),
        "times_real_time_per_cpu_second": round(frames / FPS / max(cpu, 1e-9), 2),
        "load_average": round(os.getloadavg()[0], 1),
    }


def made_clips(folder: Path, count: int) -> list[tuple[Path, Utterance]]:
    """Talking heads, evenly over the speakers."""
    from preprocess.corpora.talking_heads import generate

    found = find_clips(generate(folder, size="smoke"))[1]
    return found[:: max(1, len(found) // count)][:count]


def draw(runs: Sequence[dict[str, Any]], path: Path) -> None:
    """Times real time against workers, a line for each pool."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 3.4), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    for pool, name in (("local", "processes of one machine"), ("ray", "Ray cluster")):
        points = [(run["workers"], run["times_real_time"]) for run in runs if run["pool"] == pool]
        if points:
            axes.plot(*zip(*points), marker="o", label=name)
    axes.set(xlabel="workers", ylabel="times real time", ylim=(0, None), xticks=sorted({run["workers"] for run in runs}))
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=120)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.preprocess_workers", description="Lip crops against the number of workers.")
    parser.add_argument("input", nargs="?", help="folder or manifest of talking clips (default: made ones)")
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2], metavar="N", help="(default: 1 2)")
    parser.add_argument("--pools", nargs="+", choices=("local", "ray"), default=["local", "ray"], help="(default: both)")
    parser.add_argument("--clips", type=int, default=40, metavar="N", help="clips in each run (default: %(default)s)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures")
    parser.add_argument("--plot", type=Path, metavar="PNG", help="draw them")
    given = parser.parse_args(arguments)
    runs = []
    with tempfile.TemporaryDirectory() as folder:
        clips = find_clips(given.input)[1][: given.clips] if given.input else made_clips(Path(folder), given.clips)
        for pool in given.pools:
            for workers in given.workers:
                runs.append(measure(pool, workers, clips))
                print(json.dumps(runs[-1]), flush=True)
    if given.plot:
        draw(runs, given.plot)
    if given.json:
        versions = {package: version(package) for package in ("av", "mediapipe", "numpy", *(["ray"] if "ray" in given.pools else []))}
        hardware = {"processor": processor(), "cores": os.cpu_count()}
        write_text(given.json, json.dumps({"hardware": hardware, "versions": versions, "runs": runs}, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    from benchmarks.preprocess_workers import main as command  # under its own name, by which workers know it

    sys.exit(command())
