"""What sources of sounds and of teachers' answers tell a run about its model: classes of sounds, and widths of what teachers say."""

import dataclasses
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from avtlm.data.dataset import Source, choose
from avtlm.data.heard_clips import labels_of
from avtlm.data.manifest import read_manifest
from avtlm.data.tags import read_tags
from avtlm.data.teacher_targets import About, read_about

SUBSAMPLED_RATE = 50.0  # frames per second behind the convolutions of a student


def tag_table(sources: Mapping[str, Source], initial: str | Path | None) -> tuple[str, ...]:
    """Names of the classes of sounds of all sources that tag, by their numbers; none without such sources.

    The classes of an initial model keep their places if it knows all that there are, since its weights belong to them.

    Raises:
        ValueError: a row with labels that are none.
    """
    names: set[str] = set()
    for key, part in sources.items():
        if part.task == "tagging":
            for row in choose(read_manifest(part.manifest), dataclasses.replace(part, limit=None)):
                try:
                    names.update(labels_of(row))
                except ValueError as error:
                    raise ValueError(f"sources.{key}: {error}") from error
    if not names:
        return ()
    known = read_tags(initial)
    return known if names <= set(known) else tuple(sorted(names))


def taught(sources: Iterable[Source], frame_rate: float) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Settings of the model that stored answers decide, and the names of the classes of sounds; nothing without stored answers.

    Args:
        frame_rate: of the student.

    Raises:
        TargetsError: a folder is missing or damaged.
        ValueError: teachers of several folders differ.
    """
    counted: dict[str, Any] = {}
    tags: tuple[str, ...] = ()
    for part in sources:
        if part.teachers is None:
            continue
        about = read_about(part.teachers)
        for name, value in _widths(about, frame_rate, part).items():
            if counted.setdefault(name, value) != value:
                raise ValueError(
                    f"{part.teachers}: makes model.{name} {value}, other sources {counted[name]}; let the same teachers teach all."
                )
        if about.tags and tags and about.tags != tags:
            raise ValueError(f"{part.teachers}: its teacher of sounds has other classes than that of other sources; let one teach all.")
        tags = tags or about.tags
    return counted, tags


def _widths(about: About, frame_rate: float, part: Source) -> dict[str, Any]:
    """Of a folder, what a source learns of it."""
    wanted = {name: each for name, each in about.teachers.items() if part.learns is None or name in part.learns}
    found: dict[str, Any] = {}
    if "speech" in wanted:
        ratio = wanted["speech"].rate / frame_rate
        if ratio < 1 or ratio != round(ratio):
            raise ValueError(
                f"{part.teachers}: its teacher of speech has {wanted['speech'].rate:g} frames per second, no multiple of the student's "
                f"{frame_rate:g}; set model.encoder.output_downsampling, or choose another teacher."
            )
        found["speech_width"] = round(ratio) * wanted["speech"].width
    if "sound" in wanted:
        found["tags"] = wanted["sound"].width
    if "speaker" in wanted:
        found["voice_dim"] = wanted["speaker"].width
    return found
