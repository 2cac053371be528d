"""Any video as whole pictures: grey, 96 x 96, at 25 Hz, with its sound, as models that look at patches learn from it (docs/multistage.md).

    python -m preprocess.whole_pictures INPUT --out DIR [--workers N]

Nothing is cut away: a picture of any shape is averaged down to a square. INPUT is a manifest, a folder or a file.
A clip that cannot be used is told with its reason and left out of the manifest; what is there already is not made again.
"""

import argparse
import dataclasses
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from avtlm.data.dataset import SIDE
from avtlm.data.manifest import Manifest, Utterance, write_manifest
from avtlm.data.media import FPS, SAMPLE_RATE, FrameStream, MediaError, read_audio, read_track, write_wav
from avtlm.errors import MissingExtra
from avtlm.files import atomic_path
from avtlm.training.progress import bar
from preprocess.clips import find_clips
from preprocess.pool import Crash, run_tasks


@dataclass(frozen=True)
class Task:
    """One clip."""

    row: Utterance
    source: str
    out: Path


def whole_pictures(source: str | Path, out: str | Path, workers: int | None = None) -> tuple[Path, dict[str, str]]:
    """Make the pictures and sound of every clip, or those that are missing.

    Args:
        source: a manifest, a folder or a file.
        workers: processes; default: one for each core. 0 works in this process.

    Returns:
        Path of the manifest, and why clips were left out, by their ids.

    Raises:
        MissingExtra: OpenCV is not installed.
        ValueError: nothing to read, or not one clip could be used.
    """
    try:
        import cv2  # noqa: F401
    except ImportError as error:
        raise MissingExtra("lips", "opencv-contrib-python", "making pictures smaller") from error
    _, clips, rest = find_clips(source)
    folder = Path(out)
    tasks = [Task(row, str(path), folder) for path, row in clips]
    failed = {row.id: "has no video in the manifest." for row in rest}
    made: dict[str, Utterance] = {}
    count = (os.cpu_count() or 1) if workers is None else workers
    with bar("whole pictures", len(tasks)) as progress:
        for index, found in run_tasks(_make, tasks, _prepare, count):
            if isinstance(found, Utterance):
                made[found.id] = found
            else:
                failed[tasks[index].row.id] = found.reason if isinstance(found, Crash) else found
            progress.advance()
    if not made:
        name, reason = next(iter(failed.items()), (str(source), "holds no clip."))
        raise ValueError(f"{source}: not one clip could be used; the first is {name!r}: {reason}")
    rows = tuple(made[task.row.id] for task in tasks if task.row.id in made)
    write_manifest(folder / "manifest.jsonl", Manifest(folder, rows))
    return folder / "manifest.jsonl", failed


def _prepare() -> None:
    import cv2

    cv2.setNumThreads(1)


def _make(_: None, task: Task) -> Utterance | str:
    """One clip; the reason, if it cannot be used."""
    row, video, audio = task.row, f"video/{task.row.id}.npy", f"audio/{task.row.id}.wav"
    try:
        if (task.out / video).exists() and (task.out / audio).exists():
            frames, samples = len(np.load(task.out / video, mmap_mode="r", allow_pickle=False)), len(read_audio(task.out / audio))
        else:
            frames, samples = _convert(task.source, task.out / video, task.out / audio)
    except MediaError as error:
        return str(error)
    return dataclasses.replace(row, video=video, audio=audio, video_frames=frames, audio_samples=samples)


def _convert(source: str, video: Path, audio: Path) -> tuple[int, int]:
    """Write pictures and sound; returns their numbers."""
    import cv2

    stream = FrameStream(source)
    pictures = np.stack([cv2.resize(picture, (SIDE, SIDE), interpolation=cv2.INTER_AREA) for picture in stream])
    info: dict[str, Any] = stream.info
    sound, _ = read_track(source, start=info.get("first_time"), samples=round(len(pictures) * SAMPLE_RATE / FPS))
    if sound is None:
        raise MediaError(source, "has no audio track.")
    write_wav(audio, sound)
    with atomic_path(video) as temporary:
        np.save(temporary, pictures)
    return len(pictures), len(sound)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command ``python -m preprocess.whole_pictures``."""
    parser = argparse.ArgumentParser(prog="python -m preprocess.whole_pictures", description="Make small whole pictures of any video.")
    parser.add_argument("input", metavar="INPUT", help="a manifest, a folder of videos, or one video")
    parser.add_argument("--out", required=True, metavar="DIR", help="folder for video/, audio/ and manifest.jsonl")
    parser.add_argument("--workers", type=int, metavar="N", help="processes (default: one for each core)")
    options = parser.parse_args(arguments)
    try:
        manifest, failed = whole_pictures(options.input, options.out, options.workers)
    except (ValueError, ImportError, OSError) as error:
        print(f"whole_pictures: {error}", file=sys.stderr)
        return 1
    for name, reason in failed.items():
        print(f"whole_pictures: {name}: {reason}", file=sys.stderr)
    print(manifest)
    return 0


if __name__ == "__main__":
    sys.exit(main())
