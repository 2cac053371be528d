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
import pickle
import platform
import re
import resource
import shutil
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from avtlm.data.seeds import seed_for
from avtlm.files import write_text
from avtlm.training.progress import bar
from benchmarks.mutations import BINARY, TEXTUAL, cut, mutate
from preprocess.pool import Crash, run_tasks

SLOW = 10.0  # seconds for one input
STUCK = 60.0  # seconds after which a worker is stopped; its start counts too
HEAVY = 1.5e9  # bytes by which one input may raise the memory of its worker
LONGEST = 700  # characters of a sentence
ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Seed:
    """A whole file, what it is called where it is read, and how it is read.

    Attributes:
        read: from the path of the damaged file; returns how much was read (None: nothing that can be counted) and what was said of it.
        whole: how much there is in the whole file.
        beside: further files that have to stand beside it.
    """

    kind: str
    name: str
    data: bytes
    read: Callable[[Path], tuple[int | None, Sequence[str]]]
    whole: int | None = None
    textual: bool = False
    beside: tuple[tuple[str, bytes], ...] = ()


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


def seeds(folder: Path, kinds: Sequence[str]) -> list[Seed]:
    """Whole files of some kinds, made in a folder."""
    makers = {
        "media": _media,
        "manifest": _manifests,
        "config": _configs,
        "checkpoint": _checkpoints,
        "official": _official,
        "arrays": _arrays,
    }
    return [seed for kind in kinds for seed in makers[kind](folder)]


KINDS = ("media", "manifest", "config", "checkpoint", "official", "arrays")


def _media(folder: Path) -> list[Seed]:
    from avtlm.data.media import read_clip
    from avtlm.data.sound import read_track
    from tests.made_media import noise_frames, tone, write_media

    def video(path: Path) -> tuple[int, list[str]]:
        clip = read_clip(path)
        assert clip.frames is not None
        return len(clip.frames), clip.info["warnings"]

    def sound(path: Path) -> tuple[int, list[str]]:
        wave, notes = read_track(path)
        return 0 if wave is None else len(wave), notes

    pictures, wave = noise_frames(30, 64), tone(1.2)
    made = []
    for name, codec, audio, start in (
        ("a.mp4", "libx264", "aac", True),
        ("b.mp4", "libx264", "aac", False),
        ("c.avi", "mpeg4", "mp3", False),
        ("d.mkv", "libx264", "aac", False),
        ("e.webm", "libvpx", "libopus", False),
        ("f.mpg", "mpeg1video", "mp2", False),
    ):
        path = folder / name
        sounds = tone(1.2, 48000) if audio == "libopus" else wave
        write_media(
            path, pictures, audio=sounds, rate=48000 if audio == "libopus" else 16000, codec=codec, audio_codec=audio, fast_start=start
        )
        made.append(Seed("media", name, path.read_bytes(), video, video(path)[0]))
    import soundfile

    for name in ("g.wav", "h.flac", "i.ogg", "j.mp3"):
        soundfile.write(folder / name, wave, 16000)
        # Nothing tells how long MP3 was meant to be: its lengths are guessed from the size of the file.
        whole = None if name.endswith("mp3") else sound(folder / name)[0]
        made.append(Seed("media", name, (folder / name).read_bytes(), sound, whole))
    return made


def _manifests(folder: Path) -> list[Seed]:
    from avtlm.data.manifest import Manifest, Utterance, read_manifest, validate, write_manifest, write_tsv
    from avtlm.data.shards import Shard, head_line

    def read(path: Path) -> tuple[int, list[str]]:
        manifest = read_manifest(path)
        return len(manifest), [str(problem) for problem in validate(manifest)]

    rows = tuple(
        Utterance(
            f"s/{number}",
            f"v/{number}.mp4",
            f"a/{number}.wav",
            50,
            32000,
            transcript="bin blue",
            speaker="s1",
            split="train",
            phones="b:0:1",
        )
        for number in range(4)
    )
    rows = (*rows, Utterance("ü", audio="a.wav", audio_samples=1, extra={"units": "1 2", "span": [0.5, None]}))
    write_manifest(folder / "m.jsonl", Manifest(Path("/data"), rows))
    write_tsv(folder / "train.tsv", Manifest(folder, rows[:4]))
    shard = Shard("shard-000000.tar", 10240, "0" * 64, 1, 50)
    row = {"id": "a", "video_frames": 50, "shard": 0, "members": {"video": ["0.video.npy", 512, 100, 7], "json": ["0.json", 2048, 10, 9]}}
    shards = f"{head_line([shard], 'key')}\n{json.dumps(row)}\n"
    words = (folder / "train.wrd").read_bytes()
    return [
        Seed("manifest", "m.jsonl", (folder / "m.jsonl").read_bytes(), read, textual=True),
        Seed("manifest", "train.tsv", (folder / "train.tsv").read_bytes(), read, textual=True, beside=(("train.wrd", words),)),
        Seed("manifest", "lines.txt", b"first line\nsecond line\n", read, textual=True),
        Seed("manifest", "shards.jsonl", shards.encode(), read, textual=True),
    ]


def _configs(folder: Path) -> list[Seed]:
    from avtlm import config
    from avtlm.decoding.settings import DecodingConfig
    from avtlm.training.loop import TrainConfig

    def training(path: Path) -> tuple[None, list[str]]:
        config.load(TrainConfig, path)
        return None, []

    def decoding(path: Path) -> tuple[None, list[str]]:
        config.load(DecodingConfig, path)
        return None, []

    chosen = ("vatlm/tiny_pretrain.yaml", "avhubert/finetune_avsr_base.yaml", "hubert/finetune_10h.yaml", "speecht5/base.yaml")
    paths = [path for name in chosen if (path := ROOT / "configs" / name).is_file()] or sorted((ROOT / "configs").glob("*/*.yaml"))[:4]
    made = [Seed("config", path.name, path.read_bytes(), training, textual=True) for path in paths]
    return [*made, Seed("config", "decoding.yaml", config.to_yaml(DecodingConfig()).encode(), decoding, textual=True)]


def _checkpoints(folder: Path) -> list[Seed]:
    import torch

    from avtlm.checkpoint import load_config, load_decoding, load_weights, save_model
    from avtlm.decoding.settings import DecodingConfig

    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.Linear(4, 3))
    save_model(folder / "model", model, {"system": "vatlm", "encoder": {"dim": 4}}, decoding=DecodingConfig())

    def read(path: Path) -> tuple[None, list[str]]:
        load_config(path.parent)
        load_decoding(path.parent)
        load_weights(path.parent)
        return None, []

    files = {path.name: path.read_bytes() for path in (folder / "model").iterdir()}
    return [
        Seed(
            "checkpoint",
            name,
            files[name],
            read,
            textual=name.endswith("yaml"),
            beside=tuple((other, files[other]) for other in files if other != name),
        )
        for name in ("weights.safetensors", "weights.safetensors", "config.yaml", "decoding.yaml")
    ]


def _official(folder: Path) -> list[Seed]:
    import torch

    from avtlm.convert.pickles import StoredTensor, TorchFile

    def read(path: Path) -> tuple[None, list[str]]:
        def tensors(value: Any, depth: int = 0) -> None:
            if isinstance(value, StoredTensor):
                value.read()
            elif isinstance(value, dict) and depth < 5:
                for part in list(value.values()):
                    tensors(part, depth + 1)

        tensors(TorchFile(path).content)
        return None, []

    state = {
        "args": None,
        "cfg": {"model": {"name": "x", "dims": [1, 2]}},
        "model": {"a.weight": torch.arange(12.0).view(3, 4), "b": torch.ones(2)},
    }
    made = []
    for name, zipped in (("new.pt", True), ("old.pt", False)):
        torch.save(state, folder / name, _use_new_zipfile_serialization=zipped)
        made.append(Seed("official", name, (folder / name).read_bytes(), read))
    return made


def _arrays(folder: Path) -> list[Seed]:
    from avtlm.data.media import read_lip_crops
    from avtlm.lips.landmarks import read_landmarks
    from avtlm.units.labels import read_labels

    def crops(path: Path) -> tuple[int, list[str]]:
        return len(read_lip_crops(path)), []

    def landmarks(path: Path) -> tuple[None, list[str]]:
        read_landmarks(path)
        return None, []

    def labels(path: Path) -> tuple[None, list[str]]:
        read_labels(path)
        return None, []

    points = np.random.default_rng(0).uniform(0, 96, (3, 68, 2))
    np.save(folder / "crops.npy", np.zeros((4, 96, 96), np.uint8))
    np.save(folder / "points.npy", points)
    np.savez(folder / "points.npz", landmarks=points)
    written = json.dumps([None, *points[:1].round(1).tolist()]).encode()
    pickled = pickle.dumps([None, points[0]])
    return [
        Seed("arrays", "crops.npy", (folder / "crops.npy").read_bytes(), crops, 4),
        Seed("arrays", "points.npy", (folder / "points.npy").read_bytes(), landmarks),
        Seed("arrays", "points.npz", (folder / "points.npz").read_bytes(), landmarks),
        Seed("arrays", "points.json", written, landmarks, textual=True),
        Seed("arrays", "points.pkl", pickled, landmarks),
        Seed("arrays", "all.units", b"a/1\t1 2 3\nb\t7 7 7 8\n", labels, textual=True),
    ]


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
        "hardware": {"processor": platform.processor() or platform.machine(), "cores": os.cpu_count()},
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
