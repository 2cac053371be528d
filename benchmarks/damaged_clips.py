"""Pictures that are missing from damaged clips: how often does a reader say nothing about them?

    python -m benchmarks.damaged_clips [--inputs 600] [--seed 0] [--json FILE]

Small clips in every common container are damaged as by `benchmarks.mutations` (bits flipped, stretches cut off, dropped, doubled, blanked,
moved) and read twice: by the loop over PyAV's frames that programs usually have, and by :class:`avtlm.data.media.FrameStream`. A clip is
short if fewer pictures are decoded than the whole file has; it is silent if there was no error and, here, no warning either.
"""

import argparse
import json
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import av
import numpy as np

from avtlm.data.media import FrameStream, MediaError
from avtlm.data.seeds import seed_for
from avtlm.files import write_text
from benchmarks.containers import Container
from benchmarks.mutations import BINARY, mutate
from tests.made_media import noise_frames

CLIPS = (
    Container("front.mp4", "libx264", "aac", header_in_front=True),
    Container("back.mp4", "libx264", "aac"),
    Container("a.mov", "mpeg4", "aac"),
    Container("a.avi", "mpeg4", "mp2"),
    Container("a.mkv", "libx264", "aac"),
    Container("a.webm", "libvpx", "libopus"),
    Container("a.mpg", "mpeg1video", "mp2"),
    Container("a.ts", "mpeg2video", "mp2"),
)
PICTURES = 40
SHORT, WHOLE = "silently short", "whole"


def make(folder: Path) -> dict[str, bytes]:
    """The whole clips by name."""
    pictures = noise_frames(PICTURES, 64)
    return {clip.name: clip.write(folder, pictures, PICTURES / 25, {"g": "12"}).read_bytes() for clip in CLIPS}


def by_pyav(path: Path, whole: int) -> tuple[str, int]:
    """What becomes of a clip in the usual loop, and how many pictures there were."""
    count = 0
    try:
        with av.open(str(path)) as container:
            for _ in container.decode(video=0):
                count += 1
    except Exception as error:  # which programs catch, or end with
        return f"error: {type(error).__name__}", count
    return (SHORT if count < whole else WHOLE), count


def by_us(path: Path, whole: int) -> tuple[str, int, str]:
    """The same in our reader, and what it said."""
    stream = FrameStream(path)
    try:
        for _ in stream:
            pass
    except MediaError as error:
        return "refused", 0, error.reason
    said, count = "; ".join(stream.info["warnings"]), stream.info["source_frames"]
    return ("warning" if said else SHORT if count < whole else WHOLE), count, said


def damage(inputs: int, seed: int) -> dict[str, Any]:
    """Counts by reader and container, and the inputs of which we said nothing."""
    counts: dict[str, dict[str, Counter[str]]] = {"PyAV": defaultdict(Counter), "here": defaultdict(Counter)}
    unheard, both = [], Counter[str]()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        clips = make(folder)
        whole = {name: by_pyav(folder / name, 0)[1] for name in clips}
        for name in clips:
            outcome, count, said = by_us(folder / name, whole[name])
            assert (outcome, count) == (WHOLE, whole[name]), f"{name}: {said}"
        for number in range(inputs):
            name = list(clips)[number % len(clips)]
            data, how = mutate(clips[name], np.random.default_rng(seed_for("damaged clip", seed, number)), BINARY)
            path = folder / f"damaged-{name}"
            path.write_bytes(data)
            plain, left = by_pyav(path, whole[name])
            ours, count, _ = by_us(path, whole[name])
            kind = name.split(".")[1]
            counts["PyAV"][kind][plain] += 1
            counts["here"][kind][ours] += 1
            if plain == SHORT:
                both[ours] += 1
            if ours == SHORT:
                unheard.append({"clip": name, "number": number, "damage": how, "of": whole[name], "plain": left, "ours": count})
    return {
        "inputs": inputs,
        "counts": {reader: {kind: dict(found) for kind, found in kinds.items()} for reader, kinds in counts.items()},
        "silent_in_PyAV": {"inputs": sum(both.values()), "here": dict(both)},
        "silent_here": unheard,
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; exit code 1 if pictures were missing without a word here."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.damaged_clips", description="Count pictures that go missing in silence.")
    parser.add_argument("--inputs", type=int, default=600, metavar="N", help="damaged clips (default: %(default)s)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures here")
    options = parser.parse_args(arguments)
    av.logging.set_level(av.logging.PANIC)
    report = damage(options.inputs, options.seed)
    report |= {"command": f"python -m benchmarks.damaged_clips --inputs {options.inputs} --seed {options.seed}"}
    report |= {"versions": {name: version(name) for name in ("av", "numpy")}}
    for reader, kinds in report["counts"].items():
        for kind, found in kinds.items():
            print(f"{reader:5} {kind:5} {', '.join(f'{count} {outcome}' for outcome, count in sorted(found.items()))}")
    print(f"short without a word in PyAV: {report['silent_in_PyAV']}")
    for one in report["silent_here"]:
        print(f"  here too: {one}")
    if options.json is not None:
        write_text(options.json, json.dumps(report, indent=1) + "\n")
    return 1 if report["silent_here"] else 0


if __name__ == "__main__":
    sys.exit(main())
