"""Lip crops for a whole corpus: ``avtlm-lip-roi INPUT --out DIR``.

Every clip becomes ``video/<id>.mp4`` (or ``.npy``) with 96 x 96 crops and ``audio/<id>.wav``, listed in ``manifest.jsonl``; ``report.tsv``
and ``report.jsonl`` say of every clip what happened to it. A run may be killed at any time and started again: finished clips are kept,
failed ones are tried again. The files are the same for any number of workers.
"""

import argparse
import dataclasses
import functools
import hashlib
import importlib.util
import json
import logging
import os
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from avtlm.data.manifest import Manifest, ManifestError, Utterance, write_manifest
from avtlm.data.media import FPS, SAMPLE_RATE, MediaError, write_clip, write_wav
from avtlm.errors import MissingExtra
from avtlm.files import atomic_path, write_text
from avtlm.lips.align import GEOMETRIES, opencv
from avtlm.lips.contact_sheet import write_contact_sheet
from avtlm.lips.crop import extract_lips
from avtlm.lips.landmarks import FaceMesh, LandmarkFiles, LandmarkProvider, TasksLandmarker
from avtlm.training.progress import bar
from preprocess.clips import InputError, find_clips
from preprocess.journal import journal, read_journal
from preprocess.pool import Crash, run_tasks

log = logging.getLogger(__name__)

FORMATS = ("mp4", "npy")


class NothingUsableError(ValueError):
    """Not one clip of an input gave lip crops."""


@dataclass(frozen=True)
class Options:
    """How crops are made.

    Attributes:
        geometry: alignment, one of :data:`avtlm.lips.align.GEOMETRIES`; that of the weights to be used.
        format: ``mp4`` (H.264, about 10 kB a second) or ``npy`` (exact, 230 kB a second, read without decoding).
        crf: quality of the mp4, lower is better; AV-HuBERT's crops have 20.
        landmarks: folder of landmark files to use instead of a detector.
        model: ``face_landmarker.task`` for mediapipe 1 instead of FaceMesh.
        stride: find landmarks in every n-th frame (in all while the face moves fast) and interpolate.
        refine: FaceMesh with attention at the lips.
        max_interpolated: refuse clips whose face is missing in a larger share of the pictures looked at.
        min_frames: refuse shorter clips.
        keep_damaged: keep what can be decoded of files that end early.
    """

    geometry: str = "avhubert"
    format: str = "mp4"
    crf: int = 20
    landmarks: str | None = None
    model: str | None = None
    stride: int = 3
    refine: bool = True
    max_interpolated: float = 0.25
    min_frames: int = 5
    keep_damaged: bool = False

    def check(self) -> None:
        """Raise InputError or MissingExtra for what would fail on every clip."""
        for name, value, known in (("geometry", self.geometry, GEOMETRIES), ("format", self.format, FORMATS)):
            if value not in known:
                raise InputError(f"{name} '{value}' is unknown; choose one of {', '.join(known)}.")
        if self.stride < 1:
            raise InputError(f"stride is {self.stride}; it must be 1 or more.")
        if importlib.util.find_spec("cv2") is None:
            raise MissingExtra("lips", "OpenCV", "cropping lips")
        if self.landmarks is not None:
            LandmarkFiles(self.landmarks)
            return
        if importlib.util.find_spec("mediapipe") is None:
            raise MissingExtra("lips", "mediapipe", "finding faces")
        if self.model is not None and not Path(self.model).is_file():
            raise InputError(f"model '{self.model}' does not exist; give the path of mediapipe's face_landmarker.task.")

    def provider(self, root: str | None) -> LandmarkProvider:
        """A detector for one worker."""
        if self.landmarks is not None:
            return LandmarkFiles(self.landmarks, root)
        if self.model is not None:
            return TasksLandmarker(self.model, stride=self.stride)
        return FaceMesh(refine=self.refine, stride=self.stride)


@dataclass(frozen=True)
class Task:
    """One clip: where it is, what is known of it, where its crops go."""

    source: str
    utterance: Utterance
    out: str
    options: Options

    @property
    def key(self) -> str:
        """Changes when the file or the options change, so that its crops are made again."""
        try:
            stat = os.stat(self.source)
            state = (stat.st_size, stat.st_mtime_ns)
        except OSError:
            state = (0, 0)
        span = (self.span,) if self.span else ()
        return hashlib.sha256(repr((self.source, state, dataclasses.astuple(self.options), *span)).encode()).hexdigest()[:16]

    @property
    def span(self) -> tuple[float, float | None] | None:
        """Start and end in seconds of a part of the clip, as the readers of LRS2 and LRS3 give it (``extra["span"]``); None is all.

        Raises:
            InputError: it is something else.
        """
        found = self.utterance.extra.get("span")
        if found is None:
            return None
        match found:
            case [int() | float() as start, int() | float() | None as end] if start >= 0 and (end is None or end > start):
                return float(start), None if end is None else float(end)
        raise InputError(f"utterance '{self.utterance.id}' has the span {found!r}; give [start, end] in seconds, end null for the rest.")

    @property
    def video(self) -> str:
        return f"video/{self.utterance.id}.{self.options.format}"

    @property
    def audio(self) -> str:
        return f"audio/{self.utterance.id}.wav"


def run(
    inputs: str | Path | Sequence[str | Path],
    out_dir: str | Path,
    workers: int | None = None,
    geometry: str = "avhubert",
    format: str = "mp4",
    contact_sheet: str | Path | None = None,
    **options: Any,
) -> Path:
    """Make lip crops of all clips and return the path of the new manifest.

    Args:
        inputs: a folder (all video files below it; a ``.txt`` beside a clip is its transcript), a folder with a ``manifest.jsonl``, a
            manifest, one clip, or a list of clips. Rows of a manifest without video are carried over as they are; of a row with
            ``extra["span"]`` that part of its video is taken (see `Task.span`).
        out_dir: where crops, sound, manifest and reports go.
        workers: processes; default: one for each core. 0 works in this process.
        geometry: see :class:`Options`.
        format: see :class:`Options`.
        contact_sheet: also write a picture of crops of clips spread over the corpus.
        options: further fields of :class:`Options`.

    Returns:
        ``out_dir/manifest.jsonl`` with the clips that worked. ``report.jsonl``, ``report.tsv`` and ``summary.json`` beside it cover all.

    Raises:
        InputError: no clips, or an unknown option.
        NothingUsableError: not one clip gave crops; the reports are written all the same.
        ManifestError: the manifest cannot be read.
        MissingExtra: mediapipe or OpenCV is not installed.
    """
    known = {field.name for field in dataclasses.fields(Options)}
    if unknown := sorted(set(options) - known):
        raise InputError(f"option '{unknown[0]}' is unknown; known are {', '.join(sorted(known))}.")
    chosen = Options(geometry=geometry, format=format, **options)
    chosen.check()
    out = Path(out_dir)
    root, clips, rest = find_clips(inputs)
    tasks = [Task(str(path), utterance, str(out), chosen) for path, utterance in clips]
    for task in tasks:
        _ = task.span  # a wrong one is found before hours of work
    out.mkdir(parents=True, exist_ok=True)
    records = _work_off(tasks, out, str(root) if root else None, default_workers() if workers is None else workers)
    manifest = _finish(out, tasks, records, rest)
    if contact_sheet is not None and any(record["status"] == "done" for record in records.values()):
        write_contact_sheet(manifest, contact_sheet)
    done = sum(record["status"] == "done" for record in records.values())
    log.info("lip crops: %d of %d clips written to %s", done, len(tasks), out)
    if not done and tasks:
        reasons = sorted({record["reason"] for record in records.values()})
        raise NothingUsableError(f"none of the {len(tasks)} clips could be used ({reasons[0]}); {out / 'report.tsv'} lists the reasons.")
    return manifest


def default_workers() -> int:
    """One worker for each core this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def make_crops(provider: LandmarkProvider, task: Task) -> dict[str, Any]:
    """Do one clip, write its files and return its record; whatever is wrong with the clip is in the record."""
    options, out = task.options, Path(task.out)
    record: dict[str, Any] = {"id": task.utterance.id, "source": task.source, "key": task.key, "status": "failed", "reason": ""}
    try:
        clip = extract_lips(
            task.source,
            provider,
            geometry=options.geometry,
            max_interpolated=options.max_interpolated,
            min_frames=options.min_frames,
            damaged="keep" if options.keep_damaged else "refuse",
            span=task.span,
        )
        if options.format == "mp4":
            write_clip(out / task.video, clip.crops, crf=options.crf)
        else:
            _write_array(out / task.video, clip.crops)
        if clip.audio is not None:
            write_wav(out / task.audio, clip.audio)
    except MediaError as error:
        return record | {"reason": error.reason if error.path == task.source else str(error)}
    except Exception as error:  # one clip, whatever it does, must not end a run over thousands
        log.exception("unexpected error in %s", task.source)
        return record | {"reason": f"unexpected {type(error).__name__}: {error}"}
    samples = 0 if clip.audio is None else len(clip.audio)
    return record | {"status": "done", "frames": len(clip.crops), "samples": samples, "report": clip.report.to_json()}


def _write_array(path: Path, crops: np.ndarray) -> None:
    with atomic_path(path) as temporary:
        np.save(temporary, crops)


def _provider(options: Options, root: str | None) -> LandmarkProvider:
    opencv().setNumThreads(1)
    return options.provider(root)


def _work_off(tasks: list[Task], out: Path, root: str | None, workers: int) -> dict[str, dict[str, Any]]:
    """Records by id; each is appended to ``report.jsonl`` as it comes, which is what a resumed run reads."""
    notes = out / "report.jsonl"
    before = read_journal(notes)
    records = {task.utterance.id: before[task.utterance.id] for task in tasks if _is_done(task, before.get(task.utterance.id))}
    left = [task for task in tasks if task.utterance.id not in records]
    if not left:
        return records
    setup = functools.partial(_provider, left[0].options, root)
    failed = 0
    with bar("lip crops", total=len(tasks), done=len(records)) as progress, journal(notes) as book:
        for index, result in run_tasks(make_crops, left, setup, min(workers, len(left))):
            task = left[index]
            if isinstance(result, Crash):
                result = {"id": task.utterance.id, "source": task.source, "key": task.key, "status": "failed", "reason": result.reason}
            records[task.utterance.id] = result
            book.note(result)
            failed += result["status"] == "failed"
            progress.advance(note=f"{failed} failed")
    return records


def _is_done(task: Task, record: dict[str, Any] | None) -> bool:
    if record is None or record.get("status") != "done" or record.get("key") != task.key:
        return False
    out = Path(task.out)
    return (out / task.video).is_file() and (not record["samples"] or (out / task.audio).is_file())


def _finish(out: Path, tasks: list[Task], records: dict[str, dict[str, Any]], rest: Iterable[Utterance]) -> Path:
    """Reports and manifest in the order of the input."""
    rows: list[Utterance] = []
    lines = ["id\tstatus\tframes\tfaces\tinterpolated\treason or warnings\tsource"]
    for task in tasks:
        record = records[task.utterance.id]
        report = record.get("report", {})
        note = record["reason"] or "; ".join(report.get("warnings", ()))
        cells = [
            record["status"],
            record.get("frames", 0),
            report.get("faces", 0),
            f"{report.get('interpolated', 0):.3f}",
            note,
            task.source,
        ]
        lines.append("\t".join([task.utterance.id, *(" ".join(str(cell).split()) for cell in cells)]))
        if record["status"] == "done":
            rows.append(
                dataclasses.replace(
                    task.utterance,
                    video=task.video,
                    audio=task.audio if record["samples"] else None,
                    video_frames=record["frames"],
                    audio_samples=record["samples"],
                    sample_rate=SAMPLE_RATE,
                    extra=_extra(task),
                )
            )
    failed = {task.utterance.id: records[task.utterance.id]["reason"] for task in tasks if records[task.utterance.id]["status"] != "done"}
    frames = sum(row.video_frames for row in rows)
    summary = {
        "clips": len(tasks),
        "written": len(rows),
        "failed": failed,
        "with_warnings": sum(bool(records[row.id]["report"]["warnings"]) for row in rows),
        "frames": frames,
        "hours": round(frames / FPS / 3600, 4),
        "options": dataclasses.asdict(tasks[0].options) if tasks else {},
    }
    write_text(out / "report.jsonl", "".join(json.dumps(records[task.utterance.id]) + "\n" for task in tasks))
    write_text(out / "report.tsv", "\n".join(lines) + "\n")
    write_text(out / "summary.json", json.dumps(summary, indent=1) + "\n")
    carried = [dataclasses.replace(row, audio=os.path.relpath(row.audio, out.resolve()) if row.audio else None) for row in rest]
    write_manifest(out / "manifest.jsonl", Manifest(out, (*rows, *carried)))
    return out / "manifest.jsonl"


def _extra(task: Task) -> dict[str, Any]:
    """What is known besides, and where the crops come from. The span is that of the source, not of the crops."""
    extra = {"source_span" if key == "span" else key: value for key, value in task.utterance.extra.items()}
    return extra | {"source": task.source, "geometry": task.options.geometry}


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; returns the exit code: 0 when at least one clip was written, 1 when none could be, 2 for wrong use."""
    defaults = Options()
    parser = argparse.ArgumentParser(
        prog="avtlm-lip-roi",
        description="Find the speaker's face in every clip and write aligned 96 x 96 lip crops at 25 frames a second, 16 kHz sound, "
        "a manifest and a report. Start it again after an interruption: finished clips are kept.",
    )
    parser.add_argument("input", help="folder of clips, manifest (.jsonl or .tsv), or one clip")
    parser.add_argument(
        "--out", required=True, metavar="DIR", help="folder for video/, audio/, manifest.jsonl, report.tsv and report.jsonl"
    )
    parser.add_argument("--workers", type=int, default=None, metavar="N", help="worker processes (default: one for each core)")
    parser.add_argument(
        "--geometry",
        default=defaults.geometry,
        choices=GEOMETRIES,
        help="alignment; take that of the weights you use (default: %(default)s)",
    )
    parser.add_argument("--format", default=defaults.format, choices=FORMATS, help="mp4 is small, npy exact (default: %(default)s)")
    parser.add_argument("--crf", type=int, default=defaults.crf, help="mp4 quality, lower is better (default: %(default)s)")
    parser.add_argument("--landmarks", metavar="DIR", help="use landmark files (.npy, .npz, .json, .pkl) instead of finding faces")
    parser.add_argument("--model", metavar="FILE", help="face_landmarker.task for mediapipe 1, instead of FaceMesh")
    parser.add_argument(
        "--stride", type=int, default=defaults.stride, metavar="N", help="landmarks in every N-th frame (default: %(default)s)"
    )
    parser.add_argument(
        "--max-interpolated",
        type=float,
        default=defaults.max_interpolated,
        metavar="SHARE",
        help="refuse clips in which the face is missing more often (default: %(default)s)",
    )
    parser.add_argument(
        "--min-frames", type=int, default=defaults.min_frames, metavar="N", help="refuse shorter clips (default: %(default)s)"
    )
    parser.add_argument("--keep-damaged", action="store_true", help="keep what can be decoded of files that end early")
    parser.add_argument("--contact-sheet", metavar="PNG", help="also write a picture of crops")
    given = vars(parser.parse_args(arguments))
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(message)s")
    try:
        manifest = run(given.pop("input"), given.pop("out"), **given)
    except (NothingUsableError, InputError, ManifestError, MissingExtra, MediaError, OSError) as error:
        print(f"avtlm-lip-roi: {error}", file=sys.stderr)
        return 1 if isinstance(error, NothingUsableError) else 2
    summary = json.loads((manifest.parent / "summary.json").read_text())
    written, failed = summary["written"], summary["failed"]
    print(f"{written} of {summary['clips']} clips written ({summary['frames']} frames), {len(failed)} failed: {manifest}")
    for name, reason in list(failed.items())[:20]:
        print(f"  {name}: {reason}")
    if len(failed) > 20:
        print(f"  ... all of them in {manifest.parent / 'report.tsv'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
