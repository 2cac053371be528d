"""How fast is a training step? HuBERT, forward and backward, on batches of clips as long as those of real corpora, beside other libraries.

    python -m benchmarks.train_step [--json FILE] [--size base|quick|tiny] [--threads 2] [--device cuda] [--lengths librispeech lrs3]

Everybody gets the same weights, clips, masks and units. All batches of all contestants are timed in turn, ``--repeats`` times, and
medians are added up, so that a busy machine slows all of them alike. The same clips make batches in three ways: at random, in buckets of
similar lengths (padded), and in buckets of which only true frames are computed (packed). Useful FLOPs are those of the true frames,
whoever computes more; the floor is the rate of a large matrix product in the same precision, measured in between. The optimiser is left
out, and no layer is dropped; dropout is that of the published model.
"""

import argparse
import json
import platform
import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from rich import box
from rich.console import Console
from rich.table import Table

from avtlm.data.batching import Batch
from avtlm.files import write_text
from avtlm.frontends.filterbank import SAMPLE_RATE
from avtlm.frontends.multimodal import InputMask
from avtlm.frontends.waveform import WaveformConfig
from avtlm.memory import give_memory_back, use_huge_pages
from avtlm.nn.packing import PackingMode
from avtlm.nn.transformer import EncoderConfig
from avtlm.origin import processor
from avtlm.systems.hubert import Hubert, HubertConfig
from avtlm.training.flops import UsefulWork
from avtlm.training.peak import PRECISIONS
from avtlm.training.peak import matrix_rate as best_rate
from benchmarks.clock import CLOCKS
from benchmarks.made_clips import LENGTHS, UNITS, Clip, bucketed, collate, make_clips
from benchmarks.peers import PEERS, Contestant, PeerError, ours

# What of a published size is left: width, layers, heads, width of the convolutions, and the factor on the lengths of clips.
SIZES = {"base": (768, 12, 12, 512, 1.0), "quick": (384, 4, 6, 256, 0.5), "tiny": (32, 2, 4, 16, 0.1)}
ORDERS = ("equal", "random", "bucketed")
MATRIX = {"cpu": 2048, "cuda": 8192}
Plan = tuple[Batch, InputMask]


# Models ---------------------------------------------------------------------------------------------------------------------------------


def hubert_config(size: str, dropout: float, official: bool = False, **encoder: Any) -> HubertConfig:
    """HuBERT base, or less of it; ``official`` computes padding everywhere, as other libraries do."""
    dim, layers, heads, width, _ = SIZES[size]
    return HubertConfig(
        waveform=WaveformConfig(widths=(width,) * 7, dropout=dropout, compute_padding=official),
        encoder=EncoderConfig(
            dim=dim,
            layers=layers,
            heads=heads,
            feed_forward_dim=4 * dim,
            norm_first=False,
            dropout=dropout,
            attention_dropout=dropout,
            layer_drop=0.0,
            compute_padding=official,
            **encoder,
        ),
        units=UNITS,
    )


def useful_flops(model: Hubert, plan: Sequence[Plan], training: bool) -> float:
    """Useful operations of all batches of a plan, forward and, in training, backward (avtlm/training/flops.py)."""
    work = UsefulWork(model)
    model.train(training)
    with torch.set_grad_enabled(training):
        for batch, mask in plan:
            with work.counting(batch):
                if training:
                    model.masked_losses(batch, mask)
                else:
                    model.encode(batch)
            give_memory_back()
    work.remove()
    return float(work.take())


# Timing ---------------------------------------------------------------------------------------------------------------------------------


def now(device: str, clock: str) -> float:
    if device == "cuda":
        torch.cuda.synchronize()
    return CLOCKS[clock]()


def run(
    contestant: Contestant, batch: Batch, mask: InputMask, precision: str, training: bool, device: str, clock: str = "wall"
) -> tuple[float, float]:
    """Seconds of one step or one forward pass, and on a GPU the peak of its memory in GB."""
    contestant.model.train(training)
    contestant.model.zero_grad(set_to_none=True)
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    start = now(device, clock)
    with torch.set_grad_enabled(training), torch.autocast(device, torch.bfloat16, enabled=precision == "bf16"):
        if training:
            value, count = contestant.losses(batch, mask)
        else:
            contestant.encode(batch)
    if training:
        (value / count).backward()
    seconds = now(device, clock) - start
    contestant.model.zero_grad(set_to_none=True)
    give_memory_back()  # or what one contestant has freed stands in the way of the next
    return seconds, torch.cuda.max_memory_allocated() / 1e9 if device == "cuda" else 0.0


def matrix_rate(precision: str, device: str, size: int, clock: str = "wall") -> float:
    """FLOP/s of a square matrix product."""
    return best_rate(precision, device, size, clock=CLOCKS[clock])


@dataclass(frozen=True)
class Cell:
    """One line of the table: who computes which batches how."""

    lengths: str
    batches: str
    contestant: Contestant
    precision: str
    training: bool
    plan: Sequence[Plan]
    clips: Sequence[Clip]


def measure(cells: Sequence[Cell], options: argparse.Namespace, model: Hubert, progress: Callable[[str], None]) -> list[dict[str, Any]]:
    """Time all batches of all cells in turn; a round before the counted ones lets everybody step once."""
    first = {(id(cell.contestant), cell.precision, cell.training): index for index, cell in reversed(list(enumerate(cells)))}
    times: dict[tuple[int, int], list[float]] = {}
    peaks = [0.0] * len(cells)
    rates: dict[str, list[float]] = {name: [] for name in options.precision}
    flops: dict[tuple[int, bool], float] = {}
    for cell in cells:
        key = (id(cell.plan), cell.training)
        flops[key] = flops.get(key) or useful_flops(model, cell.plan, cell.training)
    for repeat in range(-1, options.repeats):
        progress(f"round {repeat + 1} of {options.repeats}")
        for name in options.precision:
            rates[name].append(matrix_rate(name, options.device, options.matrix, options.clock))
        for number in range(max(len(cell.plan) for cell in cells) if repeat >= 0 else 1):
            for index, cell in enumerate(cells):
                if number < len(cell.plan) and (repeat >= 0 or index in first.values()):
                    seconds, peak = run(cell.contestant, *cell.plan[number], cell.precision, cell.training, options.device, options.clock)
                    peaks[index] = max(peaks[index], peak)
                    if repeat >= 0:
                        times.setdefault((index, number), []).append(seconds)
    results = []
    for index, cell in enumerate(cells):
        seconds = sum(statistics.median(times[index, number]) for number in range(len(cell.plan)))
        audio = sum(len(clip.wave) for clip in cell.clips) / SAMPLE_RATE
        frames = sum(len(clip.units) for clip in cell.clips)
        places = sum(batch.targets["units"].numel() for batch, _ in cell.plan)
        useful = flops[id(cell.plan), cell.training]
        results.append(
            {
                "lengths": cell.lengths,
                "batches": cell.batches,
                "contestant": cell.contestant.name,
                "precision": cell.precision,
                "pass": "training step" if cell.training else "forward",
                "seconds": seconds,
                "audio_seconds_per_second": audio / seconds,
                "padding": 1.0 - frames / places,
                "useful_flops": useful,
                "share_of_matrix_rate": useful / seconds / statistics.median(rates[cell.precision]),
                **({"peak_memory_gb": peaks[index]} if options.device == "cuda" else {}),
                "seconds_of_batches": [times[index, number] for number in range(len(cell.plan))],
            }
        )
    return [*results, {"matrix_rate": {name: statistics.median(found) for name, found in rates.items()}}]


# The comparison -------------------------------------------------------------------------------------------------------------------------


def losses_agree(model: Hubert, official: Hubert, plans: dict[str, list[Plan]], peers: Sequence[Contestant]) -> dict[str, Any]:
    """Without dropout: the mean cross-entropy of the same clips batched and packed in every way, and the whole objective of clips of equal
    length in every library. (The penalty on the size of features is a mean over a batch, so it depends on which clips are in it.)"""
    found: dict[str, float] = {}
    encoder, chosen = model.eval().encoder, model.encoder.config
    modes: dict[str, PackingMode] = {"padded": "never", "packed": "always"}
    with torch.no_grad():
        for name, mode in modes.items():
            encoder.config = replace(chosen, packing=mode)
            for batches in ("random", "bucketed"):
                loss = [model.masked_losses(*each)["masked_prediction"] for each in plans[batches]]
                found[f"{batches}, {name}"] = float(sum(each.value for each in loss) / sum(each.count for each in loss))
        encoder.config = chosen
        equal = {each.name: _mean_loss(each, plans["equal"]) for each in [ours("avtlm", official), *peers]}
    spread = (max(found.values()) - min(found.values())) / abs(found["random, padded"])
    apart = (max(equal.values()) - min(equal.values())) / abs(equal["avtlm"])
    return {"unequal_lengths": found, "largest_relative_difference": spread, "equal_lengths": equal, "libraries_relative_difference": apart}


def _mean_loss(contestant: Contestant, plan: Sequence[Plan]) -> float:
    contestant.model.eval()
    sums = [contestant.losses(*each) for each in plan]
    return float(torch.stack([value for value, _ in sums]).sum() / torch.stack([count for _, count in sums]).sum())


def compare(options: argparse.Namespace, say: Callable[[str], None]) -> dict[str, Any]:
    """All figures, for the table and the file."""
    generator = torch.Generator().manual_seed(options.seed)
    torch.manual_seed(options.seed)
    config = hubert_config(options.size, options.dropout)
    model, official = Hubert(config), Hubert(hubert_config(options.size, options.dropout, official=True))
    official.load_state_dict(model.state_dict())
    peers, skipped, versions = [], {}, {}
    for name in options.peers:
        try:
            peers.append(PEERS[name](official))
            versions |= peers[-1].version
        except PeerError as reason:
            skipped[name] = str(reason)
            say(f"{name} is left out: {reason}")
    for module in [model, official, *(peer.model for peer in peers)]:
        module.to(options.device)
    packed, padded = ours("avtlm", model), ours("avtlm", official)
    cells: list[Cell] = []
    checks = {}
    for lengths in options.lengths:
        rows = options.rows or LENGTHS[lengths].rows
        seconds = LENGTHS[lengths].draw(rows * options.batches, generator) * SIZES[options.size][4]
        clips = make_clips(seconds, generator)
        alike = make_clips(seconds.mean().expand(rows), generator)
        orders = {
            "random": [list(range(start, start + rows)) for start in range(0, len(clips), rows)],
            "bucketed": bucketed(clips, rows, generator),
        }
        plans = {name: [collate([clips[row] for row in each], options.device) for each in order] for name, order in orders.items()}
        plans["equal"] = [collate(alike, options.device)]
        checks[lengths] = losses_agree(model, official, plans, peers)
        # What every library does, and what ours adds; the first line of batches at random is the measure of the ratios.
        lines: list[tuple[str, str, Contestant, bool]] = []
        for training in (True, False):
            lines += [("equal", "equal", each, training) for each in [packed, *peers]]
        lines += [("random, padded", "random", each, True) for each in [*peers, padded]]
        lines += [("bucketed, padded", "bucketed", each, True) for each in [*peers, padded]]
        lines += [(f"{order}, packed", order, packed, True) for order in ("random", "bucketed")]
        cells += [
            Cell(lengths, label, each, precision, training, plans[order], alike if order == "equal" else clips)
            for precision in options.precision
            for label, order, each, training in lines
            if order in options.orders
        ]
    results = measure(cells, options, model, say)
    rates = results.pop()
    return {"results": results, "aims": aims(results), "losses": checks, "left_out": skipped, "versions": versions, **rates}


def aims(results: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """What is wanted, and what was measured; without transformers the comparisons with it are missing."""
    seconds = {tuple(line[key] for key in ("lengths", "batches", "contestant", "precision", "pass")): line["seconds"] for line in results}
    found = []

    def add(text: str, goal: str, over: tuple[str, ...], under: tuple[str, ...], factor: float) -> None:
        if over in seconds and under in seconds:
            ratio = seconds[over] / seconds[under]
            reached = ratio <= factor if goal == "at most" else ratio >= factor
            found.append({"lengths": over[0], "aim": text, "goal": f"{goal} {factor:g}", "measured": ratio, "reached": reached})

    step, us, them = "training step", "avtlm", "transformers"
    for lengths, packed in (("librispeech", 1.2), ("lrs3", 2.2)):
        equal = (lengths, "equal")
        add("equal lengths, fp32: time of avtlm / transformers", "at most", (*equal, us, "fp32", step), (*equal, them, "fp32", step), 1.02)
        add("equal lengths: fp32 / bf16, training step", "at least", (*equal, us, "fp32", step), (*equal, us, "bf16", step), 2.0)
        add("equal lengths: fp32 / bf16, forward", "at least", (*equal, us, "fp32", "forward"), (*equal, us, "bf16", "forward"), 2.5)
        for precision in PRECISIONS:
            random = (lengths, "random, padded", them, precision, step)
            mine = (lengths, "bucketed, packed", us, precision, step)
            add(f"{precision}: transformers on random batches / avtlm in buckets, packed", "at least", random, mine, packed)
    return found


def tables(report: dict[str, Any]) -> list[Table]:
    """The figures by lengths, and the aims. ``ratio`` is to the first library on padded random batches, ``rate`` the share of the matrix
    rate."""
    results = report["results"]
    found = []
    with_memory = any("peak_memory_gb" in line for line in results)
    base: dict[tuple[str, ...], dict[str, Any]] = {}
    for line in results:
        if line["batches"] == "random, padded":
            base.setdefault((line["lengths"], line["precision"], line["pass"]), line)
    for key in dict.fromkeys((line["lengths"], line["precision"], line["pass"]) for line in results):
        table = Table(
            title=f"{key[2]}, {key[1]}, lengths like those of {key[0]}", title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1)
        )
        for heading in ("batches", "library"):
            table.add_column(heading, no_wrap=True)
        for heading in ("pad", "seconds", "audio s/s", "ratio", "rate", *(["peak GB"] if with_memory else [])):
            table.add_column(heading, justify="right", no_wrap=True)
        for line in (line for line in results if (line["lengths"], line["precision"], line["pass"]) == key):
            other = base.get(key)
            ratio = "" if other is None or line["batches"] == "equal" else f"{other['seconds'] / line['seconds']:.2f}"
            peak = [f"{line['peak_memory_gb']:.2f}"] if with_memory else []
            table.add_row(
                *(line[name] for name in ("batches", "contestant")),
                *(f"{line['padding']:.0%}", f"{line['seconds']:.2f}", f"{line['audio_seconds_per_second']:.1f}", ratio),
                *(f"{line['share_of_matrix_rate']:.0%}", *peak),
            )
        found.append(table)
    table = Table(title="Aims", title_justify="left", box=box.SIMPLE_HEAD)
    for heading in ("lengths", "aim", "goal", "measured", ""):
        table.add_column(heading)
    for aim in report["aims"]:
        table.add_row(aim["lengths"], aim["aim"], aim["goal"], f"{aim['measured']:.3f}", "reached" if aim["reached"] else "not reached")
    return [*found, table]


def hardware(device: str) -> dict[str, Any]:
    gpu = {"gpu": torch.cuda.get_device_name()} if device == "cuda" else {}
    return {"processor": processor(), "processors": torch.multiprocessing.cpu_count(), "threads": torch.get_num_threads(), **gpu}


def prepare(
    parser: argparse.ArgumentParser, arguments: Sequence[str] | None, lengths: Sequence[str], batches: int, repeats: int
) -> argparse.Namespace:
    """Read the arguments that the benchmarks of steps share, and set PyTorch up by them; the rest are their defaults."""
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures to this file")
    parser.add_argument("--size", choices=SIZES, default="base", help="of the model (default: %(default)s)")
    parser.add_argument("--device", choices=MATRIX, default="cpu")
    parser.add_argument("--threads", type=int, default=2, help="of the CPU (default: %(default)s)")
    parser.add_argument("--clock", choices=CLOCKS, default="wall", help="seconds of the wall, or of all processors (for a busy machine)")
    parser.add_argument("--lengths", nargs="+", choices=LENGTHS, default=lengths, help="of the clips (default: %(default)s)")
    parser.add_argument("--precision", nargs="+", choices=PRECISIONS, default=list(PRECISIONS))
    parser.add_argument("--batches", type=int, default=batches, help="batches of unequal clips (default: %(default)s)")
    parser.add_argument("--rows", type=int, help="clips of a batch (default: 8 for librispeech, 16 for lrs3)")
    parser.add_argument("--repeats", type=int, default=repeats, help="times every batch is timed (default: %(default)s)")
    parser.add_argument("--dropout", type=float, default=0.1, help="everywhere, also of attention weights (default: %(default)s)")
    parser.add_argument("--matrix", type=int, help="side of the matrices whose product is the floor")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args(arguments)
    options.matrix = options.matrix or MATRIX[options.device]
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: PyTorch finds no GPU here.")
    use_huge_pages()
    torch.set_num_threads(options.threads)
    return options


def read_options(parser: argparse.ArgumentParser, arguments: Sequence[str] | None) -> argparse.Namespace:
    """Arguments of this benchmark."""
    quick = "the same as --size quick"
    # Without SUPPRESS its default would hide that of --size.
    parser.add_argument("--quick", action="store_const", const="quick", dest="size", default=argparse.SUPPRESS, help=quick)
    parser.add_argument("--orders", nargs="+", choices=ORDERS, default=list(ORDERS), help="of clips in batches (default: all)")
    parser.add_argument("--peers", nargs="*", choices=PEERS, default=list(PEERS), help="other libraries (default: all)")
    return prepare(parser, arguments, lengths=list(LENGTHS), batches=4, repeats=3)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.train_step", description="Time a training step of HuBERT, here and in other libraries."
    )
    options = read_options(parser, arguments)
    console = Console()
    report = compare(options, lambda line: console.print(line, style="dim", highlight=False))
    report = {
        "command": " ".join(["python -m benchmarks.train_step", *(sys.argv[1:] if arguments is None else arguments)]),
        "hardware": hardware(options.device),
        **report,
        "versions": {"python": platform.python_version(), **{name: version(name) for name in ("torch", "avtlm")}, **report["versions"]},
    }
    for table in tables(report):
        console.print(table)
    for lengths, check in report["losses"].items():
        console.print(
            f"{lengths}: losses of padded and packed batches differ by {check['largest_relative_difference']:.1e}, "
            f"those of the libraries on equal lengths by {check['libraries_relative_difference']:.1e} (relative).",
            highlight=False,
        )
    if options.json is not None:
        write_text(options.json, json.dumps(report, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
