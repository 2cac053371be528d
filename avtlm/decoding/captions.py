"""Captions: SubRip and WebVTT of words with times, divided by pauses, length and duration, and the files of all output formats."""

import itertools
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from avtlm.files import write_text

if TYPE_CHECKING:
    from avtlm.decoding.result import Transcript

PAUSE = 0.7  # seconds of silence that begin a new caption
CUE_SECONDS = 6.0
LINE = 42  # characters, a common rule for captions, which have two lines at most
FORMATS = {"text": ".txt", "json": ".json", "srt": ".srt", "vtt": ".vtt"}

Cue = tuple[float, float, str]  # start and end in seconds, text


def cues_of(words: Iterable[Cue]) -> list[Cue]:
    """Words in time order -> captions: a new one after a pause, after six seconds, or when two lines are full."""
    cues: list[Cue] = []
    for start, end, text in words:
        if cues:
            first, last, before = cues[-1]
            if start - last < PAUSE and end - first <= CUE_SECONDS and fits(f"{before} {text}"):
                cues[-1] = (first, end, f"{before} {text}")
                continue
        cues.append((start, end, text))
    return cues


def spread_words(words: Sequence[str], start: float, end: float) -> list[Cue]:
    """Words without times, spread over the time from ``start`` to ``end`` by their numbers of letters: a guess, for want of better."""
    letters = list(itertools.accumulate((len(word) + 1 for word in words), initial=0))
    marks = [start + (end - start) * done / max(letters[-1], 1) for done in letters]
    return list(zip(marks[:-1], marks[1:], words, strict=True))


def fits(text: str) -> bool:
    """Whether a caption of this text keeps to two lines."""
    return len(lines_of(text)) <= 2


def lines_of(text: str) -> list[str]:
    """The lines of a caption, none longer than 42 characters unless a single word is."""
    lines: list[str] = []
    for word in text.split():
        if lines and len(lines[-1]) + 1 + len(word) <= LINE:
            lines[-1] += f" {word}"
        else:
            lines.append(word)
    return lines


def srt(cues: Iterable[Cue]) -> str:
    """SubRip, times as ``00:00:01,240``."""
    return "\n".join(
        f"{number}\n{_clock(start, ',')} --> {_clock(end, ',')}\n{_shown(text)}\n" for number, (start, end, text) in enumerate(cues, 1)
    )


def vtt(cues: Iterable[Cue]) -> str:
    """WebVTT, times as ``00:00:01.240``."""
    escaped = [(start, end, text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")) for start, end, text in cues]
    return "WEBVTT\n\n" + "\n".join(f"{_clock(start, '.')} --> {_clock(end, '.')}\n{_shown(text)}\n" for start, end, text in escaped)


def render(transcript: "Transcript", path: Path, kind: str) -> str:
    """A transcript as text of one of `FORMATS`, with a newline at its end; JSON is one object in one line, with the file's name.

    Raises:
        ValueError: captions of a transcript without any times.
    """
    if kind == "json":
        return json.dumps({"file": str(path), **transcript.to_dict()}, ensure_ascii=False, allow_nan=False) + "\n"
    shown = {"srt": transcript.to_srt, "vtt": transcript.to_vtt}[kind]() if kind != "text" else transcript.text
    return shown.rstrip("\n") + "\n"


def format_of(kind: str | None, out: str | None) -> str:
    """The format that was asked for: by name, else by the suffix of the output file, else plain text.

    Raises:
        ValueError: both are given and differ.
    """
    suffix = "" if out is None else Path(out).suffix.lower()
    named = next((name for name, ending in FORMATS.items() if ending == suffix), None)
    if kind is not None and named is not None and kind != named:
        raise ValueError(f"--format {kind} does not fit --out {out}; leave one of them out, or name the file *{FORMATS[kind]}.")
    return kind or named or "text"


def targets(files: list[Path], out: str, kind: str) -> list[Path]:
    """Where the transcript of every file goes: ``out`` itself if that is named like a file of the format, else a file in this folder.

    Raises:
        ValueError: several files would go into one.
    """
    ending = FORMATS[kind]
    if Path(out).suffix.lower() == ending:
        if len(files) > 1:
            raise ValueError(f"--out {out} is one file, but there are {len(files)} to transcribe; give a folder.")
        return [Path(out)]
    if len({file.stem for file in files}) < len(files):
        raise ValueError("--out would write several files of the same name; transcribe them one folder at a time.")
    return [Path(out) / f"{file.stem}{ending}" for file in files]


def write(transcript: "Transcript", source: Path, target: Path, kind: str) -> None:
    """Write one transcript atomically."""
    write_text(target, render(transcript, source, kind))


def _shown(text: str) -> str:
    return "\n".join(lines_of(text))


def _clock(seconds: float, point: str) -> str:
    thousandths = round(seconds * 1000)
    minutes, rest = divmod(thousandths, 60_000)
    hours, minutes = divmod(minutes, 60)
    return f"{hours:02d}:{minutes:02d}:{rest // 1000:02d}{point}{rest % 1000:03d}"
