"""What LRS2 and LRS3 have in common: transcript files, their tables of words, and long clips that are cut at pauses.

A transcript file says ``Text:  UPPER CASE WORDS`` in its first line; in the part for pre-training a table of words follows the header
``WORD START END ...``, with times in seconds.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from avtlm.data.manifest import Utterance
from avtlm.text.normalize import lrs3_file

LONGEST = 15.0  # seconds; clips whose last word ends before stay whole
PAUSE = 0.4  # seconds between words at which longer ones are cut
FILTERED = 20.0  # seconds; what official training leaves out


@dataclass(frozen=True)
class Word:
    """A word with its times in seconds."""

    text: str
    start: float
    end: float


@dataclass(frozen=True)
class Span:
    """A part of a clip: what is said in it, and its times in seconds; None is the end of the clip."""

    text: str
    start: float = 0.0
    end: float | None = None


def read_text(path: Path) -> str:
    """The transcript in lower case, as AV-HuBERT scores it, without the braces that mark unclear words.

    Raises:
        ValueError: there is none.
    """
    text = lrs3_file(_content(path)).replace("{", "").replace("}", "")
    if not text.strip():
        raise ValueError("its transcript is empty")
    return text


def read_words(path: Path) -> list[Word]:
    """The table of words of a transcript file.

    Raises:
        ValueError: no table, or a line of it that is damaged.
    """
    lines = _content(path).splitlines()
    first = next((number for number, line in enumerate(lines) if line.startswith("WORD")), None)
    if first is None:
        raise ValueError("its transcript has no table of words (WORD START END ...)")
    words = []
    for line in lines[first + 1 :]:
        parts = line.split()
        if not parts:
            continue
        try:
            words.append(Word(parts[0].lower().strip("{}"), float(parts[1]), float(parts[2])))
        except (IndexError, ValueError):
            raise ValueError(f"its table of words has the line {line.strip()!r:.60}") from None
    if not words:
        raise ValueError("its table of words is empty")
    return words


def spans(words: Sequence[Word]) -> list[Span]:
    """A clip in parts, cut in the middle of every pause of more than 0.4 s: the rule of AV-HuBERT. Parts may be long all the same."""
    groups = [[words[0]]]
    for before, word in pairwise(words):
        if word.start - before.end > PAUSE:
            groups.append([])
        groups[-1].append(word)
    cuts = [(left[-1].end + right[0].start) / 2 for left, right in pairwise(groups)]
    texts = [" ".join(word.text for word in group) for group in groups]
    return [Span(text, start, end) for text, start, end in zip(texts, [0.0, *cuts], [*cuts, None], strict=True)]


def clip_pairs(folder: Path) -> Iterator[tuple[Path, str | None]]:
    """``<id>/<name>.mp4`` below a folder, with what is wrong: no transcript beside it, no bytes in it; transcripts without clips too."""
    for inner in sorted(path for path in folder.iterdir() if path.is_dir()) if folder.is_dir() else ():
        names = {path.name: path for path in inner.iterdir() if not path.name.startswith(".")}
        for name in sorted(names):
            path, stem = names[name], name.rpartition(".")[0]
            if name.endswith(".mp4"):
                missing = f"{stem}.txt" not in names
                yield path, "has no transcript beside it" if missing else "is an empty file" if path.stat().st_size == 0 else None
            elif name.endswith(".txt") and f"{stem}.mp4" not in names:
                yield path, "has no clip beside it"


def cut_clip(clip: Path, root: Path, name: str, speaker: str, split: str) -> list[Utterance]:
    """The rows of one clip of the part for pre-training: the whole clip if its last word ends before 15 s, else its parts.

    ``extra["span"]`` of a part says which seconds are meant; avtlm-lip-roi cuts them out.

    Args:
        clip: relative to ``root``; its transcript lies beside it.
        name: id of the clip; its parts are ``<name>_0`` and so on.

    Raises:
        ValueError: the transcript cannot be used.
    """
    transcript = root / clip.with_suffix(".txt")
    words = read_words(transcript)
    if words[-1].end < LONGEST:
        return [Utterance(name, video=str(clip), transcript=read_text(transcript), speaker=speaker, split=split)]
    rows = []
    for number, part in enumerate(spans(words)):
        span: dict[str, Any] = {"span": [round(part.start, 3), None if part.end is None else round(part.end, 3)]}
        rows.append(Utterance(f"{name}_{number}", video=str(clip), transcript=part.text, speaker=speaker, split=split, extra=span))
    return rows


def long_parts(rows: Sequence[Utterance]) -> list[str]:
    """A remark on parts of clips that official training leaves out for their length."""
    ends = [(row.extra["span"][0], row.extra["span"][1]) for row in rows if "span" in row.extra]
    long = sum(end is not None and end - start > FILTERED for start, end in ends)
    return [f"{long:,} parts of clips are longer than {FILTERED:g} s; training leaves them out by max_seconds"] if long else []


def _content(path: Path) -> str:
    return path.read_text(encoding="utf-8", errors="replace")
