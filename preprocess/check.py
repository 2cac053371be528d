"""Check a corpus before it is trained on: ``python -m preprocess.check DIR``.

Every file is opened and decoded to its end; its length is compared with the manifest, and sound with picture; files of equal content and
recordings that sound the same are found; speakers and transcripts that stand in several splits are counted; and how late the sound is
against the lips is estimated. Nothing is changed. ``clips.jsonl`` notes every clip as it is done, so that a run that was stopped goes on;
``report.json`` and ``report.html`` say it all. A clip that brings its process down, or hangs, is a finding like any other.
"""

import argparse
import functools
import logging
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from avtlm.data.container import FPS, SAMPLE_RATE
from avtlm.data.manifest import SPLITS, Manifest, ManifestError, Utterance, read_manifest
from avtlm.data.shards import names_shards
from avtlm.data.sound import SOUND_FILES
from avtlm.errors import MissingExtra
from avtlm.training.progress import bar
from preprocess.check_clip import Task, examine
from preprocess.check_corpus import Finding, duplicates, leaks, near_duplicates, offsets
from preprocess.check_report import lines, write_report
from preprocess.clips import VIDEO_FILES, InputError
from preprocess.journal import journal, read_journal
from preprocess.pool import Crash, default_workers, run_tasks

MEDIA = VIDEO_FILES | SOUND_FILES | {".mp3", ".ogg", ".m4a", ".opus", ".aac"}
TIMEOUT = 600.0  # seconds for one clip


def check(
    corpus: str | Path, out: str | Path | None = None, workers: int | None = None, find_lips: bool = False, timeout: float = TIMEOUT
) -> tuple[dict[str, Any], list[Finding]]:
    """Look at every clip of a corpus, write the reports, and return what they say.

    Args:
        corpus: a manifest, its folder, or any folder with media files.
        out: folder of the reports; default: ``check`` beside the manifest.
        workers: processes; default: one for each core. 0 works in this one.
        find_lips: crop the lips of videos, so that their sound can be compared with them (needs the extra lips; slow).
        timeout: seconds after which a clip counts as hung.

    Raises:
        InputError: no media files, or shards.
        ManifestError: the manifest cannot be read.
        MissingExtra: lips are to be found, and mediapipe is not installed.
        OSError: the reports cannot be written.
    """
    manifest = _manifest(Path(corpus))
    paths = {row.id: (_place(manifest, row.video), _place(manifest, row.audio)) for row in manifest}
    folder = Path(out) if out is not None else manifest.root / "check" if manifest.source is None else manifest.source.parent / "check"
    tasks = [Task(row, *paths[row.id], find_lips) for row in manifest]
    records = _look(tasks, folder, default_workers() if workers is None else workers, find_lips, timeout)
    rows = manifest.utterances
    findings = [
        Finding(kind, fault, (name,), text)
        for name, record in records.items()
        for fault, found in ((True, record["faults"]), (False, record["remarks"]))
        for kind, text in found
    ]
    sync, late = offsets(records)
    findings += [*duplicates(records, paths, rows), *near_duplicates(records, paths, rows), *leaks(rows), *late]
    summary = {
        "manifest": str(manifest.source or manifest.root),
        "clips": len(rows),
        "hours": round(sum(_seconds(records[row.id]) for row in rows) / 3600, 4),
        "faulty": len({name for finding in findings if finding.fault for name in finding.ids}),
        "splits": _splits(rows, records),
        "offset": sync,
    }
    write_report(folder, summary, findings)
    return summary, findings


def _manifest(path: Path) -> Manifest:
    if names_shards(path):
        raise InputError(f"{path}: holds shards; check them with python -m preprocess.shards {path} --check --decode.")
    if not path.is_dir() or (path / "manifest.jsonl").is_file():
        return read_manifest(path)
    files = sorted(file for file in path.rglob("*") if file.suffix.lower() in MEDIA and file.is_file())
    if not files:
        raise InputError(f"{path}: holds neither a manifest.jsonl nor media files.")
    rows = []
    for file in files:
        name = file.relative_to(path).as_posix()
        rows.append(Utterance(name, video=name) if file.suffix.lower() in VIDEO_FILES else Utterance(name, audio=name))
    return Manifest(path, tuple(rows))


def _place(manifest: Manifest, name: str | None) -> str | None:
    return None if name is None else str(manifest.path(name))


def _provider(find_lips: bool) -> Any:
    """What a worker finds faces with, if it is to."""
    if not find_lips:
        return None
    from avtlm.lips.landmarks import FaceMesh

    return FaceMesh()


def _look(tasks: Sequence[Task], folder: Path, workers: int, find_lips: bool, timeout: float) -> dict[str, dict[str, Any]]:
    """Records by id, in the order of the tasks; those of an earlier run are taken over where nothing has changed since."""
    if find_lips:
        _provider(True)  # what is missing is said before anything is written
    path = folder / "clips.jsonl"
    before = read_journal(path)
    records = {task.row.id: before[task.row.id] for task in tasks if before.get(task.row.id, {}).get("key") == task.key}
    left = [task for task in tasks if task.row.id not in records]
    faulty = sum(bool(record["faults"]) for record in records.values())
    with journal(path) as notes, bar("check", len(tasks), done=len(records)) as progress:
        work = run_tasks(examine, left, functools.partial(_provider, find_lips), min(workers, len(left)), timeout) if left else ()
        for number, record in work:
            task = left[number]
            if isinstance(record, Crash):  # is not noted: the next run tries again
                records[task.row.id] = {"id": task.row.id, "key": task.key, "faults": [("unreadable", record.reason)], "remarks": []}
            else:
                records[task.row.id] = record
                notes.note(record)
            faulty += bool(records[task.row.id]["faults"])
            progress.advance(note=f"{faulty} with faults")
    return {task.row.id: records[task.row.id] for task in tasks}


def _seconds(record: Mapping[str, Any]) -> float:
    return record["samples"] / SAMPLE_RATE if record.get("samples") else (record.get("frames") or 0) / FPS


def _splits(rows: Sequence[Utterance], records: Mapping[str, dict[str, Any]]) -> dict[str, dict[str, float]]:
    found: dict[str, dict[str, float]] = {}
    for split in (*SPLITS, None):
        own = [row for row in rows if row.split == split or (split is None and row.split not in SPLITS)]
        if own:
            hours = round(sum(_seconds(records[row.id]) for row in own) / 3600, 3)
            found[split or "no split"] = {"clips": len(own), "hours": hours, "speakers": len({row.speaker for row in own} - {None})}
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """The command. Exit codes: 0 no faults, 1 faults were found, 2 nothing could be done."""
    parser = argparse.ArgumentParser(
        prog="python -m preprocess.check",
        description="Open every clip of a corpus and report faults, duplicates, leakage across splits and the offset of the sound. "
        "Start it again after an interruption: finished clips are kept.",
    )
    parser.add_argument("corpus", metavar="DIR", help="folder with a manifest or with media files, or a manifest")
    parser.add_argument(
        "--out", metavar="DIR", help="folder of clips.jsonl, report.json and report.html (default: check beside the manifest)"
    )
    parser.add_argument("--workers", type=int, metavar="N", help="worker processes (default: one for each core)")
    parser.add_argument("--find-lips", action="store_true", help="crop the lips of videos to compare the sound with them (slow)")
    parser.add_argument("--timeout", type=float, default=TIMEOUT, metavar="S", help="seconds for one clip (default: %(default)g)")
    given = parser.parse_args(arguments)
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(message)s")
    try:
        summary, findings = check(given.corpus, given.out, given.workers, given.find_lips, given.timeout)
    except (InputError, ManifestError, MissingExtra, OSError) as error:
        print(f"preprocess.check: {error}", file=sys.stderr)
        return 2
    print("\n".join(lines(summary, findings)))
    return 1 if summary["faulty"] else 0


if __name__ == "__main__":
    sys.exit(main())
