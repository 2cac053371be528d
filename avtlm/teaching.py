"""`avtlm teach`: ask MT2KD's teachers about every clip of a manifest, once, and keep what they say (avtlm.data.teacher_targets).

Pieces of 200 clips are written whole or not at all; a run that was stopped goes on with those that are missing, and another manifest or
other teachers are refused. A clip that cannot be heard is listed in ``failed.jsonl`` with the reason, and the others go on.
"""

import hashlib
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from avtlm.data.manifest import Manifest, Utterance, read_manifest
from avtlm.data.media import MediaError, read_track
from avtlm.data.shard_cache import ShardError
from avtlm.data.shards import ShardReader
from avtlm.data.tags import display_names, read_display_names
from avtlm.data.teacher_targets import ABOUT, FAILED, PIECE, TEACHERS, About, TargetsError, TaughtBy, key, piece_path, read_about
from avtlm.files import atomic_path, write_text
from avtlm.teachers import Teacher, open_teacher
from avtlm.training.progress import bar

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Taught:
    """What `teach` has done.

    Attributes:
        clips: of the manifest.
        failed: reasons by utterance, of all runs.
        new: pieces that this run has written.
    """

    folder: Path
    about: About
    clips: int
    failed: Mapping[str, str]
    new: int


def teach(
    manifest: str | Path,
    teachers: Mapping[str, str | Path],
    out: str | Path,
    labels: str | Path | None = None,
    device: str | None = None,
) -> Taught:
    """Ask teachers about all clips of a manifest.

    Args:
        teachers: where their checkpoints lie, by ``speech``, ``sound`` and ``speaker``; see avtlm.teachers.
        out: a new folder, or one of a stopped run.
        labels: AudioSet's class_labels_indices.csv, by which the sounds' identifiers get names.
        device: None takes a GPU if there is one.

    Raises:
        ManifestError, ValueError: the manifest, a teacher or ``labels`` cannot be read, or ``out`` holds something else.
        OSError: nothing can be written.
    """
    unknown = sorted(set(teachers) - set(TEACHERS))
    if unknown or not teachers:
        raise ValueError(f"teachers: {', '.join(unknown) or 'none'}; name at least one of {', '.join(TEACHERS)}.")
    rows, folder = read_manifest(manifest), Path(out)
    place = device or ("cuda" if torch.cuda.is_available() else "cpu")
    asked = {name: open_teacher(name, teachers[name], place) for name in TEACHERS if name in teachers}
    about = _about(rows, teachers, asked, labels)
    folder.mkdir(parents=True, exist_ok=True)
    if (folder / ABOUT).exists():
        if read_about(folder).identity != about.identity:
            raise TargetsError(f"{folder}: holds what other teachers said, or of other clips; choose another folder, or remove it.")
    elif any(folder.iterdir()):
        raise TargetsError(f"{folder} holds other files; choose a new folder.")
    write_text(folder / ABOUT, about.to_json())
    failed, new = _read_failed(folder), 0
    missing = [piece for piece in range(about.pieces) if not piece_path(folder, piece).exists()]
    reader = None if rows.shards is None else ShardReader(rows.shards)
    with bar("teaching", sum(len(_rows_of(rows, piece)) for piece in missing)) as progress:
        for piece in missing:
            found: dict[str, Tensor] = {}
            for row in _rows_of(rows, piece):
                try:
                    found |= _answers(row, _sound(row, rows, reader), asked)
                    failed.pop(row.id, None)
                except (MediaError, ShardError, ValueError, OSError, torch.OutOfMemoryError) as error:
                    failed[row.id] = " ".join(str(error).split())
                    log.warning("%s: %s", row.id, failed[row.id])
                progress.advance(1)
            # The reasons first: a piece that is there is never looked at again.
            write_text(folder / FAILED, "".join(json.dumps({"id": name, "reason": why}) + "\n" for name, why in failed.items()))
            with atomic_path(piece_path(folder, piece)) as temporary:
                save_file(found or {"nothing": torch.zeros(0)}, temporary)
            new += 1
    return Taught(folder, about, len(rows), failed, new)


def _rows_of(rows: Manifest, piece: int) -> tuple[Utterance, ...]:
    return rows.utterances[piece * PIECE : (piece + 1) * PIECE]


def _about(rows: Manifest, places: Mapping[str, str | Path], asked: Mapping[str, Teacher], labels: str | Path | None) -> About:
    """What the folder will hold."""
    taught = {name: TaughtBy(str(places[name]), teacher.width, teacher.rate) for name, teacher in asked.items()}
    tags = asked["sound"].tags if "sound" in asked else ()
    if labels is not None:
        if not tags:
            raise ValueError(f"labels: {labels}, but no teacher names sounds; leave it out.")
        tags = display_names(tags, read_display_names(labels))
    clips = [(row.id, row.audio, row.audio_samples) for row in rows]
    told = json.dumps([clips, {name: [Path(each.source).name, each.width, each.rate] for name, each in taught.items()}, tags])
    return About(hashlib.blake2b(told.encode(), digest_size=16).hexdigest(), len(rows), taught, tags)


def _sound(row: Utterance, rows: Manifest, reader: ShardReader | None) -> Tensor:
    """The clip as students hear it: int16's values, of -1 to 1."""
    if row.audio is None:
        raise ValueError("has no audio; leave it out of the manifest.")
    path, content = (rows.path(row.audio), None) if reader is None else reader.media(row.audio)
    sound, _ = read_track(path, content=content)
    if sound is None:
        raise MediaError(path, "has no audio track.")
    return torch.from_numpy(np.round(np.clip(sound, -1, 32767 / 32768) * 32768).astype(np.float32) / 32768.0)


def _answers(row: Utterance, wave: Tensor, asked: Mapping[str, Teacher]) -> dict[str, Tensor]:
    """By the names of the file; all of them or none."""
    found = {}
    for name, teacher in asked.items():
        said = teacher.answer(wave).cpu()
        found[key(row.id, name)] = (said.half() if teacher.rate else said).contiguous()
    return found


def _read_failed(folder: Path) -> dict[str, str]:
    path = folder / FAILED
    if not path.exists():
        return {}
    return {told["id"]: told["reason"] for told in map(json.loads, path.read_text(encoding="utf-8").splitlines())}
