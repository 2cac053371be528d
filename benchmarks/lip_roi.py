"""Speed of lip crops, from a media file to a written crop, on one core, beside a straightforward reading of auto_avsr's steps.

    python benchmarks/lip_roi.py [FOLDER ...] [--clips 40] [--json FILE]

Every folder (or manifest) is measured by itself, then a few clips of the synthetic corpus made for the occasion. Both pipelines run in
this process on the same clips: ours is :func:`avtlm.lips.crop.extract_lips` plus writing, the peer follows auto_avsr's mediapipe path
step by step, without its bugs: RGB frames, face detection on every frame, one robust similarity and one 256 x 256 colour warp per frame,
colour crops. CPU seconds are those of the whole process, so threads of mediapipe and FFmpeg count.
"""

import argparse
import json
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path

import cv2
import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from avtlm.data.media import FrameStream, read_audio, read_clip, write_clip, write_wav
from avtlm.errors import MissingExtra
from avtlm.lips.align import FRAME, interpolate_missing, plan_crops
from avtlm.lips.crop import extract_lips
from avtlm.lips.landmarks import FaceMesh, quiet_native_log
from avtlm.lips.tracking import follow_face
from preprocess.clips import find_clips
from preprocess.corpora.talking_heads import generate
from tests.made_media import talking, tone, write_media

FPS = 25.0
GOAL = 15.0  # times real time per core


def ours(path: Path, out: Path, mesh: FaceMesh) -> int:
    """Our pipeline; returns the number of crops."""
    clip = extract_lips(path, mesh)
    write_clip(out / "ours.mp4", clip.crops, crf=20)
    if clip.audio is not None:
        write_wav(out / "ours.wav", clip.audio)
    return len(clip.crops)


class Peer:
    """auto_avsr's mediapipe path, written down plainly."""

    def __init__(self) -> None:
        from mediapipe import solutions

        with quiet_native_log():
            self.detectors = [solutions.face_detection.FaceDetection(min_detection_confidence=0.5, model_selection=kind) for kind in (1, 0)]
            for detector in self.detectors:
                detector.process(np.zeros((64, 64, 3), np.uint8))

    def __call__(self, path: Path, out: Path) -> int:
        frames = read_clip(path, audio=False, colour=True, damaged="keep").frames
        assert frames is not None
        for detector in self.detectors:
            points = np.stack([self.key_points(detector, frame) for frame in frames])
            if np.isfinite(points).any():
                break
        else:
            return 0
        plan = plan_crops(interpolate_missing(points), "auto_avsr_mediapipe")
        crops = []
        for frame, matrix, (left, top) in zip(frames, plan.matrices, plan.corners):
            aligned = cv2.warpAffine(frame, matrix, (FRAME, FRAME), flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT, borderValue=0)
            crops.append(aligned[top : top + 96, left : left + 96])
        write_clip(out / "peer.mp4", np.stack(crops), crf=20)
        if read_clip(path, video=False).audio is not None:
            write_wav(out / "peer.wav", read_audio(path))
        return len(crops)

    @staticmethod
    def key_points(detector: object, frame: np.ndarray) -> np.ndarray:
        height, width = frame.shape[:2]
        found = detector.process(frame).detections  # type: ignore[attr-defined]
        if not found:
            return np.full((4, 2), np.nan)
        points = found[0].location_data.relative_keypoints[:4]
        return np.array([[int(point.x * width), int(point.y * height)] for point in points], float)


def measure(function: Callable[[], int]) -> dict[str, float]:
    """Frames per CPU second and per wall second."""
    cpu, wall = time.process_time(), time.perf_counter()
    frames = function()
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    return {
        "frames": frames,
        "cpu_seconds": round(cpu, 3),
        "frames_per_cpu_second": round(frames / cpu, 1),
        "times_real_time_per_core": round(frames / cpu / FPS, 2),
        "wall_seconds": round(wall, 3),
    }


def usable(path: Path, mesh: FaceMesh, out: Path) -> bool:
    """Whether our pipeline accepts the clip: speed on refused clips says nothing."""
    try:
        return ours(path, out, mesh) > 0
    except ValueError:
        return False


def bench(name: str, clips: Sequence[Path], rounds: int) -> dict[str, object]:
    """All figures of one set of clips; the best of a few rounds, alternating between the pipelines."""
    cv2.setNumThreads(1)
    mesh, every, peer = FaceMesh(), FaceMesh(stride=1), Peer()
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        clips = [clip for clip in clips if usable(clip, mesh, out)]
        if not clips:
            raise SystemExit(f"{name}: no clip gave lip crops.")
        peer(clips[0], out)
        runs: dict[str, Callable[[], int]] = {
            "ours": lambda: sum(ours(clip, out, mesh) for clip in clips),
            "peer": lambda: sum(peer(clip, out) for clip in clips),
            "ours, landmarks in every frame": lambda: sum(ours(clip, out, every) for clip in clips),
            "part: decode to grey at 25/s": lambda: sum(sum(1 for _ in FrameStream(clip)) for clip in clips),
            "part: decode and landmarks": lambda: sum(len(follow_face(FrameStream(clip), mesh, clip).points) for clip in clips),
            "part: crops without writing": lambda: sum(len(extract_lips(clip, mesh, audio=False).crops) for clip in clips),
        }
        best: dict[str, dict[str, float]] = {}
        for _ in range(rounds):
            for label, function in runs.items():
                result = measure(function)
                if label not in best or result["cpu_seconds"] < best[label]["cpu_seconds"]:
                    best[label] = result
    ratio = best["ours"]["frames_per_cpu_second"] / best["peer"]["frames_per_cpu_second"]
    return {"name": name, "clips": len(clips), "results": best, "ours_to_peer": round(ratio, 2)}


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


def processor() -> str:
    """The processor's name."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if Path("/proc/cpuinfo").exists() else []
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.processor())


def main() -> int:
    parser = argparse.ArgumentParser(description="Speed of lip crops, decode to written crop, on one core.")
    parser.add_argument("inputs", nargs="*", help="folders or manifests of talking clips, beside the synthetic ones")
    parser.add_argument("--clips", type=int, default=40, help="clips of each input, spread over it (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=2, help="take the best of so many rounds (default: %(default)s)")
    parser.add_argument("--json", metavar="FILE", help="also write the figures here")
    given = parser.parse_args()
    sets = []
    with tempfile.TemporaryDirectory() as folder:
        for name in given.inputs:
            sets.append(bench(name, spread([path for path, _ in find_clips(name)[1]], given.clips), given.rounds))
        sets.append(bench(*made_clips(Path(folder), given.clips), given.rounds))
    for one in sets:
        results: dict[str, dict[str, float]] = one["results"]  # type: ignore[assignment]
        print(f"\n{one['name']}: {one['clips']} clips, {results['ours']['frames']:.0f} frames")
        for label, result in results.items():
            rate, times = result["frames_per_cpu_second"], result["times_real_time_per_core"]
            print(f"  {label:34s}{rate:9.0f} frames/CPU-s {times:8.1f} x real time per core")
        print(f"  ours / peer {one['ours_to_peer']}, goal {GOAL:g} x real time per core")
    report = {
        "command": " ".join(sys.argv),
        "processor": processor(),
        "python": platform.python_version(),
        "versions": {package: version(package) for package in ("av", "mediapipe", "opencv-contrib-python", "numpy")},
        "sets": sets,
    }
    if given.json:
        Path(given.json).write_text(json.dumps(report, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
