"""Lip crops from video files to shards: speed beside auto_avsr's and AV-HuBERT's steps, where time goes, what skipping pictures costs.

    python -m benchmarks.lip_roi [FOLDER ...] [--clips 12] [--clock cpu] [--json FILE] [--profile FILE] [--workers 1 2]

Every folder (or manifest) is measured by itself; without one, a few clips of the synthetic corpus are made. All run in this process, in
turn, on the same clips: ours is :func:`avtlm.lips.crop.extract_lips` plus writing, the others are in benchmarks/lip_roi_peers.py. With
``--clock cpu`` seconds are those of all processors, threads of mediapipe and FFmpeg included, which holds on a busy machine too.
"""

import argparse
import json
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from avtlm.data.media import SAMPLE_RATE, FrameStream, read_track, write_clip, write_wav
from avtlm.errors import MissingExtra
from avtlm.files import write_text
from avtlm.lips.align import cut_all, interpolate_missing, plan_crops
from avtlm.lips.crop import extract_lips
from avtlm.lips.landmarks import FaceMesh
from avtlm.lips.tracking import FaceTrack, follow_face
from benchmarks.clock import CLOCKS
from benchmarks.lip_quality import compare, summary
from benchmarks.lip_roi_peers import AutoAvsr, AvHubert
from demos.stages import machine
from preprocess.clips import find_clips
from preprocess.corpora.talking_heads import generate
from preprocess.lip_roi import run
from tests.made_media import talking, tone, write_media

FPS = 25.0
GOAL = 20.0  # times real time on a core, from video to shard
STRIDES = ("auto", 3, 1)
Clock = Callable[[], float]


def ours(path: Path, out: Path, mesh: FaceMesh) -> int:
    """Our pipeline; returns the number of crops."""
    clip = extract_lips(path, mesh)
    write_clip(out / "ours.mp4", clip.crops, crf=20)
    if clip.audio is not None:
        write_wav(out / "ours.wav", clip.audio)
    return len(clip.crops)


def speeds(clips: Sequence[Path], clock: Clock, rounds: int) -> dict[str, dict[str, float]]:
    """Frames a second of every pipeline; the best of a few rounds, in turn."""
    mesh, auto_avsr, avhubert = FaceMesh(), AutoAvsr(), AvHubert()
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        runs: dict[str, Callable[[Path], int]] = {
            "ours": lambda clip: ours(clip, out, mesh),
            "auto_avsr": lambda clip: auto_avsr(clip, out),
            "AV-HuBERT": lambda clip: avhubert(clip, out),
        }
        for function in runs.values():
            function(clips[0])  # graphs start
        seconds: dict[str, list[float]] = {name: [] for name in runs}
        frames = dict.fromkeys(runs, 0)
        for _ in range(rounds):
            for name, function in runs.items():
                start = clock()
                frames[name] = sum(function(clip) for clip in clips)
                seconds[name].append(clock() - start)
    return {name: rate(frames[name], min(seconds[name])) for name in runs}


def rate(frames: int, seconds: float) -> dict[str, float]:
    return {
        "frames": frames,
        "seconds": round(seconds, 3),
        "frames_per_second": round(frames / seconds, 1),
        "times_real_time": round(frames / seconds / FPS, 2),
    }


class Timed:
    """A detector that counts the seconds in which it searches and in which it counts faces."""

    def __init__(self, mesh: FaceMesh, clock: Clock) -> None:
        self.mesh, self.clock, self.stride = mesh, clock, mesh.stride
        self.find_seconds = self.count_seconds = 0.0
        self.begin, self.end = mesh.begin, mesh.end

    def find(self, index: int, picture: np.ndarray) -> list[np.ndarray]:
        start = self.clock()
        found = self.mesh.find(index, picture)
        self.find_seconds += self.clock() - start
        return found

    def count(self, picture: np.ndarray) -> int:
        start = self.clock()
        found = self.mesh.count(picture)
        self.count_seconds += self.clock() - start
        return found


def profile(clips: Sequence[Path], clock: Clock) -> dict[str, Any]:
    """Seconds of every step, the decoder's with one thread and two, landmarks at several strides, and how far crops lie apart then."""
    steps = dict.fromkeys(("decode", "landmarks", "count of faces", "flow", "smoothing", "warp", "encode", "sound"), 0.0)
    meshes = {stride: FaceMesh(stride=stride) for stride in STRIDES}  # type: ignore[arg-type]
    strides = {stride: {"looked": 0, "seconds": 0.0} for stride in STRIDES}
    apart: dict[Any, list[dict[str, np.ndarray]]] = {stride: [] for stride in STRIDES[:-1]}
    two_threads = {"cpu": 0.0, "wall": 0.0}
    one_thread_wall, frames = 0.0, 0
    cv2.setNumThreads(1)

    def timed(step: str, function: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        start = clock()
        value = function(*arguments, **options)
        steps[step] += clock() - start
        return value

    with tempfile.TemporaryDirectory() as folder:
        for path in clips:
            stream = FrameStream(path)
            wall = time.perf_counter()
            pictures = timed("decode", list, stream)
            one_thread_wall += time.perf_counter() - wall
            cpu, wall = time.process_time(), time.perf_counter()
            frames += sum(1 for _ in FrameStream(path, threads=2))
            two_threads["cpu"] += time.process_time() - cpu
            two_threads["wall"] += time.perf_counter() - wall
            tracks: dict[Any, FaceTrack] = {}
            for stride, mesh in meshes.items():
                detector = Timed(mesh, clock)
                start = clock()
                tracks[stride] = follow_face(pictures, detector, path)
                seconds = clock() - start
                strides[stride]["seconds"] += seconds
                strides[stride]["looked"] += tracks[stride].looked
                if stride == "auto":
                    steps["landmarks"] += detector.find_seconds
                    steps["count of faces"] += detector.count_seconds
                    steps["flow"] += seconds - detector.find_seconds - detector.count_seconds
            plan = timed("smoothing", plan_crops, interpolate_missing(tracks["auto"].points))
            crops = timed("warp", cut_all, pictures, plan)
            timed("encode", write_clip, Path(folder) / "a.mp4", crops, crf=20)
            samples = round(len(crops) * SAMPLE_RATE / FPS)
            wave, _ = timed("sound", read_track, path, start=stream.info["first_time"], samples=samples)
            if wave is not None:
                timed("sound", write_wav, Path(folder) / "a.wav", wave)
            for stride, parts in apart.items():
                parts.append(compare(pictures, tracks[1], tracks[stride]))
    whole = sum(steps.values())
    return {
        "frames": frames,
        "steps": {
            step: {"ms_a_frame": round(1e3 * seconds / frames, 4), "share": round(seconds / whole, 4)} for step, seconds in steps.items()
        },
        "strides": {
            str(stride): {
                "a_look_in": round(frames / values["looked"], 2),
                "ms_a_frame": round(1e3 * values["seconds"] / frames, 3),
                **({"apart": summary(apart[stride])} if stride in apart else {}),
            }
            for stride, values in strides.items()
        },
        "decoder_threads_ms_a_frame": {
            "one": {"wall": round(1e3 * one_thread_wall / frames, 3)},
            "two": {name: round(1e3 * seconds / frames, 3) for name, seconds in two_threads.items()},
        },
    }


def to_shards(clips: Sequence[Path], clock: Clock, rounds: int) -> dict[str, float]:
    """From video files to tar shards in this process, all files, reports and checksums included, without the detector's start; the best of
    a few rounds."""
    from preprocess.shards import write_shards

    def work(part: Sequence[Path]) -> tuple[int, float]:
        with tempfile.TemporaryDirectory() as folder:
            start = clock()
            manifest = run(part, Path(folder) / "lips", workers=0)
            write_shards(manifest, Path(folder) / "shards", workers=0)
            seconds = clock() - start
            return json.loads((manifest.parent / "summary.json").read_text())["frames"], seconds

    results = []
    for _ in range(rounds):
        first, all_of_them = work(clips[:1]), work(clips)
        results.append(rate(all_of_them[0] - first[0], all_of_them[1] - first[1]))
    return max(results, key=lambda result: result["frames_per_second"])


def by_workers(clips: Sequence[Path], counts: Sequence[int]) -> dict[str, dict[str, float]]:
    """Wall and processor seconds of a run by so many processes; their start is that of a run over one clip each, and is taken off."""

    def work(part: Sequence[Path], workers: int) -> tuple[int, float, float]:
        with tempfile.TemporaryDirectory() as folder:
            before, wall = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
            manifest = run(part, Path(folder) / "lips", workers=workers)
            wall = time.perf_counter() - wall
            after = resource.getrusage(resource.RUSAGE_CHILDREN)
            cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
            return json.loads((manifest.parent / "summary.json").read_text())["frames"], wall, cpu

    results = {}
    for count in counts:
        start, whole = work(clips[:count], count), work(clips, count)
        frames, wall, cpu = (b - a for a, b in zip(start, whole, strict=True))
        per_second = round(frames / cpu, 1)
        results[str(count)] = {"frames": frames, "wall": round(wall, 2), "cpu": round(cpu, 2), "frames_per_cpu_second": per_second}
    return results


def usable(clips: Sequence[Path]) -> list[Path]:
    """Those that our pipeline accepts: speed on refused clips says nothing."""
    mesh, good = FaceMesh(stride=3), []
    for clip in clips:
        try:
            extract_lips(clip, mesh, audio=False)
        except ValueError as error:
            print(f"left out: {error}", file=sys.stderr)
        else:
            good.append(clip)
    return good


def made_clips(folder: Path, count: int) -> tuple[str, list[Path]]:
    """Talking heads of the synthetic corpus, or plainly drawn faces where its speech synthesis is not installed."""
    try:
        manifest = generate(folder, size="smoke")
        return "talking heads (synthetic corpus)", spread([path for path, _ in find_clips(manifest)[1]], count)
    except MissingExtra as error:
        print(f"{error} Drawing plain faces instead.", file=sys.stderr)
    sizes = np.linspace(0.8, 1.1, min(count, 20))
    clips = [write_media(folder / f"{i:03d}.mp4", talking(3.0, size=round(float(s), 2)), audio=tone(3.0)) for i, s in enumerate(sizes)]
    return "drawn faces", clips


def spread(items: Sequence[Path], count: int) -> list[Path]:
    """Up to ``count`` items, evenly over all of them."""
    return [items[index] for index in np.unique(np.linspace(0, len(items) - 1, min(count, len(items))).astype(int))]


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.lip_roi", description="Speed of lip crops, from video files to shards.")
    parser.add_argument("inputs", nargs="*", help="folders or manifests of talking clips (default: synthetic ones)")
    parser.add_argument("--clips", type=int, default=12, help="clips of each input, spread over it (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=1, help="take the best of so many rounds (default: %(default)s)")
    parser.add_argument("--clock", choices=CLOCKS, default="cpu", help="seconds of the wall, or of all processors (default: %(default)s)")
    parser.add_argument("--workers", type=int, nargs="*", default=[], metavar="N", help="also run by so many processes (first input)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write speeds here")
    parser.add_argument("--profile", type=Path, metavar="FILE", help="write where the time goes, and how far crops lie apart, here")
    given = parser.parse_args(arguments)
    clock = CLOCKS[given.clock]
    about = {
        "machine": machine(),
        "clock": given.clock,
        "versions": {name: version(name) for name in ("av", "mediapipe", "opencv-contrib-python", "numpy")},
    }
    results, profiles = [], []
    with tempfile.TemporaryDirectory() as folder:
        chosen = [(Path(name).name, spread([path for path, _ in find_clips(name)[1]], given.clips)) for name in given.inputs]
        for number, (name, clips) in enumerate(chosen or [made_clips(Path(folder), given.clips)]):
            clips = usable(clips)
            if not clips:
                parser.error(f"{name}: no clip gave lip crops.")
            result: dict[str, Any] = {"name": name, "clips": len(clips), "speeds": speeds(clips, clock, given.rounds)}
            result["speeds"]["ours, to shards"] = to_shards(clips, clock, given.rounds)
            if given.workers and number == 0:
                result["workers"] = by_workers(clips, given.workers)
            results.append(result)
            profiles.append({"name": name, "clips": len(clips), **profile(clips, clock)})
            show(result, profiles[-1])
    for path, sets in ((given.json, results), (given.profile, profiles)):
        if path is not None:
            write_text(path, json.dumps({**about, "sets": sets}, indent=1) + "\n")
    return 0


def show(result: dict[str, Any], parts: dict[str, Any]) -> None:
    print(f"\n{result['name']}: {result['clips']} clips, {parts['frames']} frames; aim {GOAL:g} x real time on a core, to shards")
    for name, figures in result["speeds"].items():
        print(f"  {name:18s}{figures['frames_per_second']:8.0f} frames/s {figures['times_real_time']:7.1f} x real time")
    for name, figures in result.get("workers", {}).items():
        print(f"  {name} workers: {figures}")
    for name, figures in parts["steps"].items():
        print(f"  {name:18s}{figures['ms_a_frame']:8.3f} ms a frame {figures['share']:7.1%}")
    for name, figures in parts["strides"].items():
        print(f"  stride {name}: {figures}")
    print(f"  decoder threads: {parts['decoder_threads_ms_a_frame']}")


if __name__ == "__main__":
    sys.exit(main())
