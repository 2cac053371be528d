"""The clips of an input: a folder, a manifest, a list or one file, with ids and what is known of each."""

import dataclasses
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from avtlm.data.manifest import Utterance, read_manifest

VIDEO_FILES = frozenset(
    (".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".mpg", ".mpeg", ".3gp", ".flv", ".wmv", ".ts", ".mts", ".ogv", ".vob")
)


class InputError(ValueError):
    """The input cannot be used; the message says what and what to do."""


def find_clips(inputs: str | Path | Sequence[str | Path]) -> tuple[Path | None, list[tuple[Path, Utterance]], list[Utterance]]:
    """Root folder, clips with what is known of them, and rows without video (their audio paths absolute).

    Raises:
        InputError: nothing there, or a folder that may not be looked into.
    """
    if not isinstance(inputs, str | Path):
        paths = [Path(path) for path in inputs]
        if not paths:
            raise InputError("the list of clips is empty.")
        return None, [(path, Utterance(name, transcript=transcript_beside(path))) for path, name in zip(paths, _names(paths, None))], []
    path = Path(inputs)
    if path.is_dir() and not (path / "manifest.jsonl").is_file():
        files = sorted(file for file in _walk(path) if _is_video(file, path))
        if not files:
            raise InputError(f"{path} holds no video files ({' '.join(sorted(VIDEO_FILES))}).")
        return path, [(file, Utterance(name, transcript=transcript_beside(file))) for file, name in zip(files, _names(files, path))], []
    if not path.exists():
        raise InputError(f"{path} does not exist; give a folder of clips, a manifest or a clip.")
    if path.is_file() and path.suffix.lower() in VIDEO_FILES:
        return path.parent, [(path, Utterance(path.stem, transcript=transcript_beside(path)))], []
    manifest = read_manifest(path)
    clips = [(manifest.path(row.video).resolve(), row) for row in manifest if row.video is not None]
    rest = [
        dataclasses.replace(row, audio=str(manifest.path(row.audio).resolve()) if row.audio else None)
        for row in manifest
        if row.video is None
    ]
    for _, row in clips:
        if Path(row.id).is_absolute() or ".." in Path(row.id).parts:
            raise InputError(f"{path}: the id '{row.id}' would lead out of the output folder; ids must be plain relative names.")
    return manifest.root, clips, rest


def other_files(inputs: str | Path | Sequence[str | Path]) -> dict[str, int]:
    """How many files of a folder `find_clips` takes for no clips, by suffix; hidden ones together. Nothing for other inputs.

    Raises:
        InputError: a folder that may not be looked into.
    """
    if not isinstance(inputs, str | Path) or not Path(inputs).is_dir() or (Path(inputs) / "manifest.jsonl").is_file():
        return {}
    root = Path(inputs)
    others = [file for file in _walk(root) if not _is_video(file, root)]
    return dict(sorted(Counter("hidden" if _hidden(file, root) else file.suffix.lower() or "no suffix" for file in others).items()))


def _walk(root: Path) -> Iterator[Path]:
    """All files below a folder, behind links to folders too; every folder once, so that links may go round in circles."""
    seen: set[str] = set()
    for folder, inner, names in os.walk(root, onerror=_refuse, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:
            inner.clear()
            continue
        seen.add(real)
        inner.sort(key=lambda name: (os.path.islink(os.path.join(folder, name)), name))
        yield from (Path(folder, name) for name in names)


def _refuse(error: OSError) -> None:
    raise InputError(f"{error.filename} cannot be looked into ({error.strerror}); clips in it would be left out without a word.") from error


def _is_video(file: Path, root: Path) -> bool:
    """A link that leads nowhere is one as well: it is reported when it is opened."""
    return file.suffix.lower() in VIDEO_FILES and not _hidden(file, root)


def _hidden(file: Path, root: Path) -> bool:
    return any(part.startswith(".") for part in file.relative_to(root).parts)


def _names(files: Sequence[Path], root: Path | None) -> list[str]:
    """Ids out of paths: the path below the root without suffix, with it where two clips differ in nothing else."""
    plain = [(file.relative_to(root) if root else Path(file.name)) for file in files]
    stems = [path.with_suffix("").as_posix() for path in plain]
    names = (
        [path.as_posix() if stems.count(stem) > 1 else stem for path, stem in zip(plain, stems)] if len(set(stems)) < len(stems) else stems
    )
    if len(set(names)) < len(names):
        names = [f"{number:05d}_{name}" for number, name in enumerate(names)]
    return names


def transcript_beside(clip: Path) -> str | None:
    """The text of ``<clip>.txt``: the rest of the line that begins with ``Text:`` as in LRS2 and LRS3, otherwise all of it on one line."""
    sidecar = clip.with_suffix(".txt")
    if not sidecar.is_file():
        return None
    text = sidecar.read_text(encoding="utf-8", errors="replace")
    marked = [line.removeprefix("Text:") for line in text.splitlines() if line.startswith("Text:")]
    return " ".join((marked[0] if marked else text).split()) or None
