"""What AISHELL-1 and AISHELL-2 have in common: lists of transcripts, their characters, and rows with the speakers that ids name.

A transcript becomes the characters that error rates count: without spaces, Latin letters in upper case and of their usual width, quotation
marks left out. What the corpus has in its place stays in ``extra["raw"]`` where it differs.
"""

import re
import unicodedata
from collections.abc import Sequence
from pathlib import Path

from avtlm.data.manifest import Utterance
from preprocess.corpora.sound_corpus import lines

SPLITS = {"train": "train", "dev": "valid", "test": "test"}
_FULL_WIDTH = re.compile("[Ａ-Ｚａ-ｚ]")
_QUOTE = re.compile(r"(?<![A-Za-z])'|'(?![A-Za-z])")  # but not an apostrophe within an English word


def read_pairs(path: Path) -> dict[str, str]:
    """What a list has behind each id: transcripts, or paths.

    Raises:
        ValueError: the list cannot be read, is empty, or has an id twice, by its line.
    """
    found: dict[str, str] = {}
    for number, line in enumerate(lines(path), 1):
        name, *rest = line.split(maxsplit=1) if line.strip() else ("",)
        if name in found:
            raise ValueError(f"{path}, line {number}: {name} stands there for the second time; remove one of them.")
        if name:
            found[name] = rest[0].strip() if rest else ""
    if not found:
        raise ValueError(f"{path}: this list is empty.")
    return found


def characters(raw: str) -> str:
    """What is scored of a transcript."""
    text = _FULL_WIDTH.sub(lambda letter: unicodedata.normalize("NFKC", letter[0]), "".join(raw.split()))
    return _QUOTE.sub("", text).upper()


def row(name: str, audio: str, raw: str, speaker: str, part: str) -> Utterance:
    """An utterance of a part (train, dev or test), without its length.

    Raises:
        ValueError: there is nothing in its transcript.
    """
    text = characters(raw)
    if not text:
        raise ValueError("its transcript is empty")
    extra = {"part": part} | ({"raw": raw} if raw != text else {})
    return Utterance(name, audio=audio, transcript=text, speaker=speaker, split=SPLITS[part], extra=extra)


def speakers_missing(rows: Sequence[Utterance], published: dict[str, int]) -> list[str]:
    """Remarks on parts with other numbers of speakers than published."""
    heard = {part: {each.speaker for each in rows if each.extra["part"] == part} for part in published}
    return [
        f"{part} has {len(heard[part]):,} speakers, the published corpus {count:,}"
        for part, count in published.items()
        if heard[part] and len(heard[part]) != count
    ]
