"""What a run over a corpus leaves behind besides crops: the manifest of what was written, and an account of every clip.

``report.jsonl`` and ``report.tsv`` have a line for every clip that was found, ``summary.json`` the counts: the clips found are those
written and those that failed for a reason, whatever happened.
"""

import dataclasses
import json
import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from avtlm.data.manifest import Manifest, Utterance, write_manifest
from avtlm.data.media import FPS, SAMPLE_RATE
from avtlm.files import write_text
from preprocess.lip_tasks import Task

NUMBER = re.compile(r"\d+(?:[.,:]\d+)*")
Records = Mapping[str, dict[str, Any]]


def write_reports(out: Path, tasks: Sequence[Task], records: Records, rest: Iterable[Utterance], others: Mapping[str, int]) -> Path:
    """Reports, summary and manifest, in the order of the input.

    Args:
        out: the folder of the run.
        tasks: all clips that were found.
        records: what happened to each, by id.
        rest: rows without video, which are carried over.
        others: files of the input that are no video, by suffix.

    Returns:
        ``out/manifest.jsonl``.
    """
    rows = [crop_row(task, records[task.utterance.id]) for task in tasks if records[task.utterance.id]["status"] == "done"]
    write_text(out / "report.jsonl", "".join(json.dumps(records[task.utterance.id]) + "\n" for task in tasks))
    write_text(out / "report.tsv", "\n".join([_HEAD, *(_line(task, records[task.utterance.id]) for task in tasks)]) + "\n")
    write_text(out / "summary.json", json.dumps(_summary(tasks, records, rows, others), indent=1) + "\n")
    carried = [dataclasses.replace(row, audio=os.path.relpath(row.audio, out.resolve()) if row.audio else None) for row in rest]
    write_manifest(out / "manifest.jsonl", Manifest(out, (*rows, *carried)))
    return out / "manifest.jsonl"


_HEAD = "id\tstatus\tframes\tfaces\tinterpolated\treason or warnings\tsource"


def _line(task: Task, record: dict[str, Any]) -> str:
    report = record.get("report", {})
    note = record["reason"] or "; ".join(report.get("warnings", ()))
    interpolated = f"{report.get('interpolated', 0):.3f}"
    cells = [record["status"], record.get("frames", 0), report.get("faces", 0), interpolated, note, task.source]
    return "\t".join([task.utterance.id, *(" ".join(str(cell).split()) for cell in cells)])


def crop_row(task: Task, record: dict[str, Any]) -> Utterance:
    """The row of a manifest for a clip that was done."""
    # The span is that of the source, not of the crops.
    extra = {"source_span" if key == "span" else key: value for key, value in task.utterance.extra.items()}
    return dataclasses.replace(
        task.utterance,
        video=task.video,
        audio=task.audio if record["samples"] else None,
        video_frames=record["frames"],
        audio_samples=record["samples"],
        sample_rate=SAMPLE_RATE,
        extra=extra | {"source": task.source, "geometry": task.options.geometry, "landmarks": task.options.landmark_rule()},
    )


def _summary(tasks: Sequence[Task], records: Records, rows: Sequence[Utterance], others: Mapping[str, int]) -> dict[str, Any]:
    failed = {task.utterance.id: records[task.utterance.id]["reason"] for task in tasks if records[task.utterance.id]["status"] != "done"}
    assert len(rows) + len(failed) == len(tasks)
    frames = sum(row.video_frames for row in rows)
    reports = [records[row.id]["report"] for row in rows]
    return {
        "clips": len(tasks),
        "written": len(rows),
        "reasons": reasons(failed.values()),
        "failed": failed,
        "no_videos": dict(others),
        "with_warnings": sum(bool(report["warnings"]) for report in reports),
        "frames": frames,
        "hours": round(frames / FPS / 3600, 4),
        "looked_at": sum(report.get("looked", 0) for report in reports),
        "options": dataclasses.asdict(tasks[0].options) if tasks else {},
    }


def reasons(failed: Iterable[str]) -> dict[str, int]:
    """How often clips failed for each reason, the most frequent first; reasons that differ in their numbers alone are one."""
    return dict(Counter(NUMBER.sub("N", reason) for reason in failed).most_common())
