"""How fast is a causal Zipformer on sound as it comes? Real-time factor and latency of every chunk size, and the whole clip for comparison.

    python -m benchmarks.streaming [--size medium] [--chunks 16 32 64] [--seconds 20] [--threads 1] [--json FILE]

Weights are random: what a model has learned does not change what it computes. Features come as they would from a microphone, 10 ms at a
time; a chunk is computed as soon as its features are there. For each chunk size:

- real-time factor: seconds of computing for a second of sound, as a stream and for the whole clip at once with the same chunk mask;
- wait: how long the first sound of a chunk is held until the chunk can be computed (the chunk itself and what the convolutions see ahead);
- computing a chunk takes a median and a 95th percentile; latency is the wait and the latter;
- difference: the largest one between what the stream and the whole clip give, over the largest value.
"""

import argparse
import json
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

from avtlm.files import write_text
from avtlm.nn.linear import lay_out
from avtlm.nn.zipformer import LARGE, MEDIUM, SMALL, Zipformer, ZipformerConfig, ZipformerStream
from benchmarks.clock import CLOCKS
from demos.stages import machine

RATE = 100  # frames of features in a second
WINDOW = 0.015  # seconds of sound beyond its 10 ms that a frame of features takes
TINY = ZipformerConfig(
    layers=(1, 1, 1),
    downsampling=(1, 2, 4),
    dims=(16, 24, 32),
    feed_forward=(16, 24, 32),
    heads=(2, 2, 2),
    kernels=(7, 5, 3),
    unmasked_dims=(16, 16, 16),
    query_head_dim=8,
    value_head_dim=4,
)
SIZES = {"tiny": TINY, "small": SMALL, "medium": MEDIUM, "large": LARGE}
COLUMNS = {
    "chunk_ms": "chunk, ms",
    "real_time_factor": "real-time factor",
    "whole_real_time_factor": "whole clip",
    "wait_ms": "wait, ms",
    "chunk_seconds_median": "a chunk, ms",
    "chunk_seconds_95": "95 %, ms",
    "latency_ms": "latency, ms",
    "difference": "difference",
}


def made_features(seconds: float, bands: int, seed: int) -> Tensor:
    """Noise as large as log filter banks, (1, frames, bands)."""
    return 3.0 * torch.randn(1, round(seconds * RATE), bands, generator=torch.Generator().manual_seed(seed)) - 6.0


@torch.no_grad()
def measure(model: Zipformer, features: Tensor, chunk: int, left: int, repeats: int, clock: str = "wall") -> dict[str, Any]:
    """One chunk size (frames at 50 Hz), the best of so many streams; ``clock`` is one of CLOCKS."""
    seconds, lengths, now = features.shape[1] / RATE, torch.tensor([features.shape[1]]), CLOCKS[clock]
    best: list[float] = []
    whole_seconds = float("inf")
    found = whole = features
    for _ in range(repeats):
        stream = ZipformerStream(model, chunk, left)
        pieces, times = [], []
        for frame in features.split(1, 1):
            begun = now()
            piece = stream.accept(frame)
            if piece.shape[1]:
                times.append(now() - begun)
                pieces.append(piece)
        begun = now()
        pieces.append(stream.finish())
        times.append(now() - begun)
        if not best or sum(times) < sum(best):
            best = times
        found = torch.cat(pieces, 1)
        begun = now()
        whole = model(features, lengths, chunk, left).frames
        whole_seconds = min(whole_seconds, now() - begun)
    full = best[:-1] or best  # the last chunk is cut short
    slow = statistics.quantiles(full, n=20)[-1] if len(full) > 1 else full[0]
    wait = ZipformerStream(model, chunk, left).features_for_chunk / RATE + WINDOW
    return {
        "chunk_frames": chunk,
        "chunk_ms": 20 * chunk,
        "left_context_frames": left,
        "chunks": len(full),
        "real_time_factor": sum(best) / seconds,
        "whole_real_time_factor": whole_seconds / seconds,
        "wait_ms": 1000 * wait,
        "chunk_seconds_median": statistics.median(full),
        "chunk_seconds_95": slow,
        "latency_ms": 1000 * (wait + slow),
        "difference": float((found - whole).abs().max() / whole.abs().max()),
    }


def table(report: dict[str, Any]) -> Table:
    title = (
        f"{report['size']}, {report['parameters'] / 1e6:.1f} M parameters, {report['threads']} thread(s), {report['seconds']:g} s of sound"
    )
    found = Table(*COLUMNS.values(), title=title, title_justify="left")
    for line in report["chunks"]:
        shown = {name: line[name] * (1000 if "seconds" in name else 1) for name in COLUMNS}
        kinds = {"real_time_factor": ".3f", "whole_real_time_factor": ".3f", "difference": ".1e"}
        found.add_row(*(f"{value:{kinds.get(name, '.0f')}}" for name, value in shown.items()))
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.streaming", description=__doc__.splitlines()[0])
    parser.add_argument("--size", choices=SIZES, default="medium")
    parser.add_argument("--chunks", type=int, nargs="+", default=[16, 32, 64], help="frames at 50 Hz (default: 16 32 64)")
    parser.add_argument("--left-context", type=int, default=128, help="frames at 50 Hz before a chunk (default: 128)")
    parser.add_argument("--seconds", type=float, default=20.0, help="of sound (default: 20)")
    parser.add_argument("--repeats", type=int, default=3, help="the fastest counts (default: 3)")
    parser.add_argument("--threads", type=int, default=1, help="default: 1")
    told = "of the wall, or of the processor alone, which counts the same with one thread where others want it, too (default: wall)"
    parser.add_argument("--clock", choices=CLOCKS, default="wall", help=told)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results to this file")
    options = parser.parse_args(arguments)
    if options.seconds < 1 or options.repeats < 1 or options.threads < 1:
        parser.error("--seconds, --repeats, --threads: give at least 1 of each.")
    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    config = ZipformerConfig(**{**SIZES[options.size].__dict__, "causal": True})
    try:
        for chunk in options.chunks:
            config.check_chunk(chunk)
    except ValueError as error:
        parser.error(f"--chunks: {error}")
    model = lay_out(Zipformer(config).eval())
    features = made_features(options.seconds, config.features, options.seed)
    report = {
        "command": " ".join(["python -m benchmarks.streaming", *(sys.argv[1:] if arguments is None else arguments)]),
        "machine": machine(),
        "size": options.size,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "threads": options.threads,
        "seconds": options.seconds,
        "clock": options.clock,
        "chunks": [measure(model, features, chunk, options.left_context, options.repeats, options.clock) for chunk in options.chunks],
    }
    Console(width=None if sys.stdout.isatty() else 120).print(table(report))
    if options.json is not None:
        write_text(options.json, json.dumps(report, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
