"""Do the workers keep up? Utterances a second from disk to batch, beside what a base model on the CPU consumes, and the memory it takes.

    python -m benchmarks.data_pipeline [--json FILE] [--quick] [--workers 0 1 2] [--clips 240]

Clips as long as LRS3's, with picture and sound, are stored as arrays and wav, as H.264 and flac, and as tar shards of the latter. Every
stock is read for three epochs with nothing done to the batches; rates are those of the second and third, memory is the proportional share
(PSS) of this process and its workers, the median over each epoch. The model is VATLM base, forward and backward. As other programs may
share the machine, ratios are given of wall seconds and of CPU seconds; the latter hardly depend on who else is there.
"""

import argparse
import json
import multiprocessing
import os
import platform
import resource
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
import torch
from rich.console import Console
from rich.table import Table

from avtlm.data.augment import AugmentConfig, NoiseConfig
from avtlm.data.batching import Batch, summarise
from avtlm.data.dataset import ClipDataset, Source
from avtlm.data.manifest import Manifest, Utterance, write_manifest
from avtlm.data.media import read_audio, read_lip_crops, write_clip
from avtlm.files import write_text
from avtlm.origin import processor
from avtlm.systems.vatlm import VATLM, VATLMConfig
from avtlm.training.stream import BatchStream
from avtlm.units.labels import write_labels
from benchmarks.made_clips import LENGTHS
from preprocess.shards import write_shards

GOAL = 20.0  # times what the model consumes
FLAT = 1.05  # memory of the third epoch over that of the second
EPOCHS = 3
MAX_FRAMES, MAX_ROWS = 1000, 64
LOUD = AugmentConfig(noise=NoiseConfig(0.25, 0.0, 0.0, voices=4), frequency_masks=2)


# Clips ----------------------------------------------------------------------------------------------------------------------------------


def lips(frames: int, rng: np.random.Generator) -> np.ndarray:
    """uint8 (frames, 96, 96): a shaded face with a mouth that opens and closes, and a little noise of a camera."""
    y, x = np.mgrid[0:96, 0:96].astype(np.float32)
    face = 150 + 40 * np.cos(x / 30 + rng.uniform(0, 6)) + 20 * np.sin(y / 17)
    opening = 6 + 5 * np.sin(2 * np.pi * 3 * np.arange(frames) / 25 + rng.uniform(0, 6))
    mouth = ((x - 48) / 24) ** 2 + ((y - 48) / opening[:, None, None]) ** 2 < 1
    noise = rng.normal(0, 2, (frames, 96, 96)).astype(np.float32)
    return np.clip(np.where(mouth, 60, face) + noise, 0, 255).astype(np.uint8)


def make_stocks(folder: Path, count: int, generator: torch.Generator) -> dict[str, tuple[Path, Path | str]]:
    """Manifest and units of every way of storing the same clips."""
    rng = np.random.default_rng(0)
    frames = (25 * LENGTHS["lrs3"].draw(count, generator)).long().tolist()
    labels = {f"clip{index:04d}": rng.integers(0, 2000, length).astype(np.int32) for index, length in enumerate(frames)}
    write_labels(folder / "all.units", labels)
    kinds = {"arrays, wav": ("npy", "wav"), "H.264, flac": ("mp4", "flac")}
    stocks: dict[str, tuple[Path, Path | str]] = {}
    rows: dict[str, list[Utterance]] = {kind: [] for kind in kinds}
    for kind, (video, _) in kinds.items():
        (folder / video).mkdir()
        stocks[kind] = (folder / video / "manifest.jsonl", folder / "all.units")
    for (name, _), length in zip(labels.items(), frames, strict=True):
        crops, wave = lips(length, rng), np.clip(rng.normal(0, 0.05, 640 * length), -1, 1)
        for kind, (video, audio) in kinds.items():
            if video == "npy":
                np.save(folder / video / f"{name}.npy", crops)
            else:
                write_clip(folder / video / f"{name}.mp4", crops, crf=20)
            soundfile.write(folder / video / f"{name}.{audio}", wave, 16000, subtype="PCM_16")
            row = Utterance(name, f"{name}.{video}", f"{name}.{audio}", length, 640 * length, speaker=name[-2:], split="train")
            rows[kind].append(row)
    for kind, (place, _) in stocks.items():
        write_manifest(place, Manifest(place.parent, tuple(rows[kind])))
    shards = write_shards(stocks["H.264, flac"][0], folder / "shards", 2_000_000, folder / "all.units", workers=0)
    return {**stocks, "shards of H.264, flac": (shards, "shards")}


# Measuring ------------------------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Rates:
    """What one way of reading gave."""

    stock: str
    cache: bool
    workers: int
    utterances_per_second: float
    cpu_ms_per_utterance: float
    megabytes: tuple[float, ...]

    @property
    def growth(self) -> float:
        """From the second epoch to the third; the first one fills buffers and the memory of decoded clips."""
        return self.megabytes[-1] / self.megabytes[1]


def megabytes() -> float:
    """Proportional share of the memory of this process and its workers."""
    total = 0
    for pid in (os.getpid(), *(child.pid for child in multiprocessing.active_children())):
        try:
            lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
        except (OSError, ProcessLookupError):
            continue  # a worker that has just ended
        total += sum(int(line.split()[1]) for line in lines if line.startswith("Pss:"))
    return total / 1e3


def cpu_seconds() -> float:
    """Of this process and of its workers that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(part.ru_utime + part.ru_stime for part in used)


def stream(place: Path, units: Path | str, cache: bool, workers: int) -> BatchStream:
    source = Source(str(place), "audio_video", units=str(units), cache=cache, augment=LOUD)
    return BatchStream("clips", ClipDataset(source, 1), 1, MAX_FRAMES, MAX_ROWS, workers)


def halves() -> Iterator[float]:
    while True:
        yield 0.5


def measure(stock: str, place: Path, units: Path | str, cache: bool, workers: int) -> Rates:
    """Three epochs of batches for a model that does nothing."""
    batches = stream(place, units, cache, workers)
    plans = [len(batches.plan(epoch)) for epoch in range(EPOCHS)]
    total, timed, started = len(batches.lengths) * EPOCHS, 0, 0.0
    memory: list[list[float]] = [[] for _ in plans]
    cpu = cpu_seconds()
    running = batches.batches((0, 0), halves())
    for epoch, count in enumerate(plans):
        every = max(1, count // 8)
        for number in range(count):
            batch, _ = next(running)
            assert batch is not None
            timed += len(batch) if epoch else 0
            if number % every == 0:
                memory[epoch].append(megabytes())
        if epoch == 0:
            started = time.perf_counter()
    seconds = time.perf_counter() - started
    running.close()  # type: ignore[attr-defined]
    for child in multiprocessing.active_children():
        child.join(10)
    figures = tuple(round(statistics.median(part), 1) for part in memory)
    return Rates(stock, cache, workers, timed / seconds, 1000 * (cpu_seconds() - cpu) / total, figures)


def parts(place: Path, units: Path | str, count: int) -> dict[str, float]:
    """Milliseconds an utterance spends in each part of the way, in one process."""
    batches = stream(place, units, False, 0)
    data, rows = batches.dataset, range(min(count, len(batches.lengths)))
    waves = [data.wave(row) for row in rows]
    crops = [data.crops(row) for row in rows]
    plain = ClipDataset(data.source, 1, training=False)

    def clocked(*steps: Any) -> float:
        start = time.process_time()
        for step in steps:
            step()
        return 1000 * (time.process_time() - start) / len(rows)

    paths = [(data._media(data.manifest[row].audio), data._media(data.manifest[row].video)) for row in rows]
    found = {
        "sound from disk": clocked(lambda: [read_audio(audio[0], content=audio[1]) for audio, _ in paths]),
        "crops from disk": clocked(lambda: [np.asarray(read_lip_crops(*video)).sum() for _, video in paths]),
        "filter bank": clocked(lambda: [data.inputs.audio(wave, len(crop)) for wave, crop in zip(waves, crops, strict=True)]),
        "view of the crops": clocked(lambda: [data.inputs.video(crop) for crop in crops]),
        "whole, not augmented": clocked(lambda: [plain.item(row) for row in rows]),
        "whole, with babble": clocked(lambda: [data.item(row) for row in rows]),
    }
    return {name: round(value, 3) for name, value in found.items()}


def consume(batches: Sequence[Batch], threads: int) -> tuple[float, float]:
    """Utterances that VATLM base trains on in a second, and CPU seconds for each."""
    torch.manual_seed(0)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    model = VATLM(VATLMConfig()).train()
    count = sum(len(batch) for batch in batches)
    wall, cpu = time.perf_counter(), time.process_time()
    for batch in batches:
        losses = model.losses(batch, torch.Generator().manual_seed(0)).values()
        torch.stack([loss.value for loss in losses]).sum().backward()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    torch.set_num_threads(before)
    return count / wall, cpu / count


def model_batches(batches: BatchStream, count: int) -> list[Batch]:
    """Batches of all lengths, evenly over an epoch."""
    rows = sorted(batches.plan(0), key=lambda plan: batches.lengths[plan[0]])
    chosen = [rows[int((place + 0.5) * len(rows) / count)] for place in range(count)]
    running = batches._plans((0, 0))
    wanted = {tuple(plan) for plan in chosen}
    turns = (0.5 if tuple(next(running)[0]) in wanted else None for _ in range(len(rows)))
    return [batch for batch, _ in batches.batches((0, 0), turns) if batch is not None]


# Report ---------------------------------------------------------------------------------------------------------------------------------


def show(console: Console, results: Sequence[Rates], consumed: tuple[float, float]) -> None:
    table = Table("stock", "kept in memory", "workers", "utterances/s", "x model", "CPU ms each", "x model (CPU)", "MB in epochs 1, 2, 3")
    for one in results:
        table.add_row(
            one.stock,
            "yes" if one.cache else "no",
            str(one.workers),
            f"{one.utterances_per_second:.0f}",
            f"{one.utterances_per_second / consumed[0]:.0f}",
            f"{one.cpu_ms_per_utterance:.1f}",
            f"{1000 * consumed[1] / one.cpu_ms_per_utterance:.0f}",
            ", ".join(f"{part:.0f}" for part in one.megabytes),
        )
    console.print(table)


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Utterances per second from disk to batch, beside a base model on the CPU.")
    parser.add_argument("--json", metavar="FILE", help="also write the figures here")
    parser.add_argument("--quick", action="store_true", help="few clips and one batch for the model")
    parser.add_argument("--clips", type=int, default=None, help="clips of the corpus (default: 240, quick: 48)")
    parser.add_argument("--workers", type=int, nargs="+", default=None, help="numbers of workers (default: 0 1 2, quick: 2)")
    parser.add_argument("--stocks", type=int, default=3, help="only the first so many ways of storing (default: %(default)s)")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads of the model (default: %(default)s)")
    given = parser.parse_args(arguments)
    clips = given.clips or (48 if given.quick else 240)
    workers = given.workers if given.workers is not None else [2] if given.quick else [0, 1, 2]
    console = Console(width=140)
    torch.set_num_threads(1)  # as in a worker; the model sets its own number
    generator = torch.Generator().manual_seed(0)
    with tempfile.TemporaryDirectory() as folder:
        stocks = dict(list(make_stocks(Path(folder), clips, generator).items())[: given.stocks])
        first = stream(*stocks["arrays, wav"], cache=False, workers=0)
        summary = summarise(first.lengths, first.plan(0), MAX_FRAMES)
        console.print(f"{summary}; {sum(first.lengths) / 25:.0f} s of video")
        results = [
            measure(stock, place, units, cache, number)
            for stock, (place, units) in stocks.items()
            for cache in (False, True)
            for number in workers
        ]
        spent = {stock: parts(place, units, 48) for stock, (place, units) in stocks.items()}
        consumed = consume(model_batches(first, 1 if given.quick else 3), given.threads)
    console.print(f"VATLM base, forward and backward: {consumed[0]:.2f} utterances/s, {consumed[1]:.2f} CPU s each")
    show(console, results, consumed)
    table = Table("CPU ms an utterance", *stocks)
    for part in next(iter(spent.values())):
        table.add_row(part, *(f"{spent[stock][part]:.2f}" for stock in stocks))
    console.print(table)
    slowest = min(1000 * consumed[1] / one.cpu_ms_per_utterance for one in results)
    flattest = max(one.growth for one in results)
    console.print(
        f"slowest way: {slowest:.0f} x the model's consumption (goal {GOAL:g}); largest growth of memory {flattest:.3f} (goal {FLAT})"
    )
    if given.json:
        report = {
            "command": " ".join(["python -m benchmarks.data_pipeline", *(arguments if arguments is not None else sys.argv[1:])]),
            "machine": {"processor": processor(), "cores": os.cpu_count(), "load": os.getloadavg()[0]},
            "versions": {"python": platform.python_version(), "torch": torch.__version__, "numpy": np.__version__},
            "corpus": {"clips": clips, "seconds": sum(first.lengths) / 25, "padding": summary.padding, "fill": summary.fill},
            "model": {"name": "VATLM base", "utterances_per_second": consumed[0], "cpu_seconds_per_utterance": consumed[1]},
            "rates": [{**vars(one), "growth": one.growth} for one in results],
            "parts": spent,
            "slowest_ratio": slowest,
            "largest_growth": flattest,
        }
        write_text(given.json, json.dumps(report, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
