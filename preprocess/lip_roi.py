"""Lip crops for a whole corpus: ``avtlm-lip-roi INPUT --out DIR``.

Every clip becomes ``video/<id>.mp4`` (or ``.npy``) with 96 x 96 crops and ``audio/<id>.wav``, listed in ``manifest.jsonl``; ``report.tsv``
and ``report.jsonl`` say of every clip what happened to it. A run may be killed at any time and started again: finished clips are kept,
failed ones are tried again. The files are the same for any number of workers.
"""

import argparse
import dataclasses
import functools
import json
import logging
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from avtlm.data.address import AddressError
from avtlm.data.manifest import ManifestError, Utterance
from avtlm.data.media import MediaError, write_clip, write_wav
from avtlm.errors import MissingExtra
from avtlm.files import atomic_path
from avtlm.lips.align import GEOMETRIES, opencv
from avtlm.lips.contact_sheet import write_contact_sheet
from avtlm.lips.crop import extract_lips
from avtlm.lips.landmarks import LandmarkProvider
from avtlm.lips.looks import Stride
from avtlm.training.progress import bar
from preprocess.clips import InputError, find_clips, other_files
from preprocess.cluster import RUNNING, workforce
from preprocess.journal import journal, read_journal
from preprocess.lip_reports import write_reports
from preprocess.lip_shards import LipShards
from preprocess.lip_tasks import FORMATS, Options, Task
from preprocess.pool import Crash, WorkforceError, run_tasks
from preprocess.shards import ShardingError, parse_size

log = logging.getLogger(__name__)


class NothingUsableError(ValueError):
    """Not one clip of an input gave lip crops."""


def run(
    inputs: str | Path | Sequence[str | Path],
    out_dir: str | Path,
    workers: int | None = None,
    geometry: str = "avhubert",
    format: str = "mp4",
    contact_sheet: str | Path | None = None,
    cluster: str | None = None,
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
        cluster: address of a Ray cluster whose machines do the work; "auto" for the one that runs. Its machines have to see the input and
            `out_dir`; `workers` is then how many processes there may be on all of them.
        options: further fields of :class:`Options`.

    Returns:
        ``out_dir/manifest.jsonl`` with the clips that worked. ``report.jsonl``, ``report.tsv`` and ``summary.json`` beside it cover all.

    Raises:
        InputError: no clips, or an unknown option.
        NothingUsableError: not one clip gave crops; the reports are written all the same.
        ManifestError: the manifest cannot be read.
        MissingExtra: mediapipe, OpenCV or, for a cluster, Ray is not installed.
        WorkforceError: no such cluster, or no worker that can be used.
    """
    out = Path(out_dir)
    root, tasks, rest = _find(inputs, out, Options(geometry=geometry, format=format, **_known(options)))
    records = _work_off(tasks, out, root, workers, cluster)
    manifest = write_reports(out, tasks, records, rest, other_files(inputs))
    if contact_sheet is not None and any(record["status"] == "done" for record in records.values()):
        write_contact_sheet(manifest, contact_sheet)
    _conclude(out, tasks, records)
    return manifest


def run_to_shards(
    inputs: str | Path | Sequence[str | Path],
    work_dir: str | Path,
    place: str | Path,
    shard_size: int = 256 * 10**6,
    workers: int | None = None,
    cluster: str | None = None,
    **options: Any,
) -> str:
    """Make lip crops of all clips and pack them into tar shards as they come; see `preprocess.lip_shards`.

    Args:
        inputs: as of `run`, but every row of a manifest needs a video.
        work_dir: where clips lie until their shard has arrived, and where journal and reports go.
        place: folder or address (``s3://bucket/corpus``) for the shards.
        shard_size: bytes of media in a shard, about.
        workers: as of `run`.
        cluster: as of `run`; its machines have to see the input and `work_dir`. This program alone sends the shards.
        options: fields of :class:`Options`.

    Returns:
        The index of the shards, which is the manifest of the corpus.

    Raises:
        ShardingError: the place holds other shards, or a shard cannot be written.
        AddressError: the address cannot be used: no bucket, no permission, no connection.
        Exception: what `run` raises.
    """
    out = Path(work_dir)
    root, tasks, rest = _find(inputs, out, Options(**_known(options)))
    if rest:
        raise InputError(f"{len(rest)} rows of the manifest have no video, such as '{rest[0].id}'; pack them with preprocess.shards.")
    with LipShards(place, out, tasks, read_journal(out / "report.jsonl"), shard_size) as packer:
        records = _work_off(tasks, out, root, workers, cluster, packer)
        write_reports(out, tasks, records, rest, other_files(inputs)).unlink()  # its files are in the shards
        _conclude(out, tasks, records)
        return packer.finish()


def _known(options: dict[str, Any]) -> dict[str, Any]:
    known = {field.name for field in dataclasses.fields(Options)}
    if unknown := sorted(set(options) - known):
        raise InputError(f"option '{unknown[0]}' is unknown; known are {', '.join(sorted(known))}.")
    return options


def _find(inputs: str | Path | Sequence[str | Path], out: Path, options: Options) -> tuple[str | None, list[Task], list[Utterance]]:
    """Root of the input, its clips, and its rows without video; whatever would fail on every clip is found here."""
    options.check()
    root, clips, rest = find_clips(inputs)
    tasks = [Task(str(path), utterance, str(out), options) for path, utterance in clips]
    for task in tasks:
        _ = task.span  # a wrong one is found before hours of work
    out.mkdir(parents=True, exist_ok=True)
    return str(root) if root else None, tasks, rest


def _conclude(out: Path, tasks: Sequence[Task], records: dict[str, dict[str, Any]]) -> None:
    done = sum(record["status"] == "done" for record in records.values())
    log.info("lip crops: %d of %d clips written", done, len(tasks))
    if not done and tasks:
        reasons = sorted({record["reason"] for record in records.values()})
        raise NothingUsableError(f"none of the {len(tasks)} clips could be used ({reasons[0]}); {out / 'report.tsv'} lists the reasons.")


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


def _work_off(
    tasks: list[Task], out: Path, root: str | None, workers: int | None, cluster: str | None, packer: LipShards | None = None
) -> dict[str, dict[str, Any]]:
    """Records by id; each is appended to ``report.jsonl`` as it comes, which is what a resumed run reads."""
    notes = out / "report.jsonl"
    before = read_journal(notes)
    finished = [task for task in tasks if (packer and packer.settled(task.utterance.id)) or _is_done(task, before.get(task.utterance.id))]
    records = {task.utterance.id: before[task.utterance.id] for task in finished}
    if packer is not None:
        for name, record in records.items():
            packer.note(name, record)
    left = [task for task in tasks if task.utterance.id not in records]
    if packer is not None:
        left.sort(key=lambda task: packer.turn(task.utterance.id))  # so that one shard after the other is full
    if not left:
        return records
    options = left[0].options
    setup = functools.partial(_provider, options, root)
    needed = (next((task.source for task in left if Path(task.source).exists()), None), options.landmarks, options.model)
    failed = 0
    with (
        workforce(cluster, workers, out, [path for path in needed if path is not None]) as force,
        bar("lip crops", total=len(tasks), done=len(records)) as progress,
        journal(notes) as book,
    ):
        for index, result in run_tasks(make_crops, left, setup, force, attempts=2):
            task = left[index]
            if isinstance(result, Crash):
                result = {"id": task.utterance.id, "source": task.source, "key": task.key, "status": "failed", "reason": result.reason}
            records[task.utterance.id] = result
            book.note(result)
            if packer is not None:
                packer.note(task.utterance.id, result)
            failed += result["status"] == "failed"
            progress.advance(note=f"{failed} failed")
    return records


def _is_done(task: Task, record: dict[str, Any] | None) -> bool:
    if record is None or record.get("status") != "done" or record.get("key") != task.key:
        return False
    out = Path(task.out)
    return (out / task.video).is_file() and (not record["samples"] or (out / task.audio).is_file())


def _stride(text: str) -> Stride:
    if text == "auto":
        return "auto"
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is neither auto nor a number") from None


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
    parser.add_argument("--shards", metavar="PLACE", help="pack clips into tar shards there as they come (folder or s3://bucket/corpus)")
    parser.add_argument("--shard-size", type=parse_size, default="256MB", metavar="SIZE", help="media in a shard (default: %(default)s)")
    parser.add_argument("--workers", type=int, default=None, metavar="N", help="worker processes (default: one for each core)")
    parser.add_argument(
        "--cluster", nargs="?", const=RUNNING, metavar="ADDRESS", help="work on a Ray cluster (default address: the one that runs here)"
    )
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
        "--landmark-stride",
        "--stride",
        dest="stride",
        type=_stride,
        default=defaults.stride,
        metavar="auto|N",
        help="landmarks in every N-th frame, or in as many as it takes to follow the face in between (default: %(default)s)",
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
    inputs, out, place, size = (given.pop(name) for name in ("input", "out", "shards", "shard_size"))
    if place is not None and given.pop("contact_sheet") is not None:
        parser.error("--contact-sheet needs the crops that --shards takes away")
    try:
        written_to = run(inputs, out, **given) if place is None else run_to_shards(inputs, out, place, size, **given)
    except (NothingUsableError, InputError, ManifestError, ShardingError, AddressError, WorkforceError) as error:
        print(f"avtlm-lip-roi: {error}", file=sys.stderr)
        return 1 if isinstance(error, NothingUsableError) else 2
    except (MissingExtra, MediaError, OSError) as error:
        print(f"avtlm-lip-roi: {error}", file=sys.stderr)
        return 2
    summary = json.loads((Path(out) / "summary.json").read_text())
    written, failed = summary["written"], summary["failed"]
    print(f"{written} of {summary['clips']} clips written ({summary['frames']} frames), {len(failed)} failed: {written_to}")
    for name, reason in list(failed.items())[:20]:
        print(f"  {name}: {reason}")
    if len(failed) > 20:
        print(f"  ... all of them in {Path(out) / 'report.tsv'}")
        for reason, count in summary["reasons"].items():
            print(f"  {count} x {reason}")
    if summary["no_videos"]:
        print("no videos, and left alone: " + ", ".join(f"{count} {suffix}" for suffix, count in summary["no_videos"].items()))
    return 0


if __name__ == "__main__":
    from preprocess.lip_roi import main as command  # under its own name, by which workers elsewhere know it

    sys.exit(command())
