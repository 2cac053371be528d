"""Corpora of sound as tables: what each lists is its own, opening, counting and reporting is the same for all.

A reader is a function that goes through the lists and folders of a corpus and returns a `Listing`, and a `SoundCorpus` that names it. Every
file is then opened by several workers: a row gets its samples and their rate, and what cannot be used is left out with the reason. With
``--copy`` the sound is written as 16 kHz FLAC, which trains faster than MP3, 48 kHz or sound on slow disks; utterances that are parts of
longer recordings (``extra["span"]``, seconds) are always copied, each to a file of its own.
"""

import argparse
import csv
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from avtlm.data.manifest import Utterance
from avtlm.data.seeds import seed_for
from preprocess.corpora.reading import Reading, command, differences
from preprocess.corpora.sound_files import Sounding, open_all
from preprocess.pool import default_workers


@dataclass
class Listing:
    """What the lists and folders of a corpus say, before any sound file is opened.

    Attributes:
        root: what the paths of the rows are relative to.
        rows: without lengths; ``extra["part"]`` is the part of the corpus that a row counts for.
        published: rows in every part of the published corpus.
        left_out: what cannot be a row, and why.
    """

    root: Path
    rows: list[Utterance] = field(default_factory=list)
    published: Mapping[str, int] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)


def no_options(parser: argparse.ArgumentParser) -> None:
    """A corpus that is read in one way."""


@dataclass(frozen=True)
class SoundCorpus:
    """A corpus and its reader.

    Attributes:
        name: on the command line.
        title: in sentences.
        lists: goes through the corpus below a folder; takes the options by name.
        add_options: to the command line.
    """

    name: str
    title: str
    lists: Callable[..., Listing]
    add_options: Callable[[argparse.ArgumentParser], None] = no_options

    def read(self, root: str | Path, out: str | Path | None = None, copy: bool = False, workers: int | None = 0, **options: Any) -> Reading:
        """All usable utterances below a folder.

        Args:
            out: where copies go; needed for corpora that are cut, and with ``copy``.
            copy: write the sound as 16 kHz FLAC below ``out``.
            workers: processes; None takes one for each core, 0 works in this one.
            options: of the corpus.

        Raises:
            ValueError: no such corpus there, or a list that cannot be read.
            OSError: copies cannot be written.
        """
        listing = self.lists(Path(root), **options)
        rows = self._unique(listing)
        left_out = dict(listing.left_out)
        copies = Path(out) if out is not None and (copy or any("span" in row.extra for row in rows)) else None
        if copies is None and (copy or any("span" in row.extra for row in rows)):
            raise ValueError(f"{self.title} is cut into files: give a folder for them.")
        soundings = [self._sounding(row, listing.root, copies) for row in rows]
        count = default_workers() if workers is None else workers
        good = []
        for sounding, sized in zip(soundings, open_all(self.title, soundings, count, copies), strict=True):
            if isinstance(sized, str):
                left_out[f"{sounding.path}{f' ({sounding.row.id})' if sounding.span else ''}"] = sized
                continue
            row = replace(sounding.row, audio_samples=sized[0], sample_rate=sized[1])
            good.append(row if sounding.copy is None or copies is None else replace(row, audio=str(sounding.copy.relative_to(copies))))
        if not good:
            reason = f" ({next(iter(left_out.values()))})" if left_out else ""
            raise ValueError(f"{listing.root}: holds no usable sound of {self.title}{reason}; give the folder of the unpacked corpus.")
        counts = Counter(str(row.extra.get("part")) for row in good)
        remarks = [*listing.remarks, *differences(counts, listing.published)]
        return Reading(tuple(sorted(good, key=lambda row: row.id)), left_out, tuple(remarks), copies or listing.root)

    def _unique(self, listing: Listing) -> list[Utterance]:
        """Rows whose ids stand once, and whose names stay within the corpus, whatever its lists say."""
        seen: set[str] = set()
        rows = []
        for row in listing.rows:
            where = f"{listing.root / (row.audio or '')} ({row.id})"
            if row.id in seen:
                listing.left_out[where] = "its id stands in the lists twice"
            elif Path(row.id).is_absolute() or any(".." in Path(name).parts for name in (row.id, row.audio or "")):
                listing.left_out[where] = "its name leads out of the folder of the corpus"
            else:
                seen.add(row.id)
                rows.append(row)
        return rows

    def _sounding(self, row: Utterance, root: Path, copies: Path | None) -> Sounding:
        span = row.extra.get("span")
        copy = copies / "audio" / f"{row.id}.flac" if copies is not None else None
        return Sounding(row, root / (row.audio or ""), None if span is None else (span[0], span[1]), copy)

    def main(self, arguments: Sequence[str] | None = None) -> int:
        """The command line of the reader; returns the exit code."""

        def add_options(parser: argparse.ArgumentParser) -> None:
            self.add_options(parser)
            parser.add_argument("--copy", action="store_true", help="write the sound as 16 kHz FLAC below OUT/audio")
            parser.add_argument("--workers", type=int, metavar="N", help="processes (default: one for each core)")

        return command(self.name, f"Write the manifest of {self.title}.", self.read, add_options, arguments, writes=True)


def lines(path: Path) -> list[str]:
    """Lines of a text file.

    Raises:
        ValueError: it cannot be read.
    """
    try:
        return path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: cannot be read ({getattr(error, 'strerror', None) or 'it is not UTF-8 text'}).") from None


def table(path: Path, columns: Sequence[str], **dialect: Any) -> Iterator[dict[str, str]]:
    """Rows of a table with a header, by column; ``dialect`` is that of `csv`.

    Raises:
        ValueError: it cannot be read, or lacks a column.
    """
    try:
        with open(path, encoding="utf-8-sig", newline="") as handle:
            reader = csv.DictReader(handle, **dialect)
            if lacking := [column for column in columns if column not in (reader.fieldnames or ())]:
                raise ValueError(f"{path}: has no column {' and no column '.join(lacking)}; is it the right file?")
            for row in reader:
                yield {column: row[column] or "" for column in columns}
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = getattr(error, "strerror", None) or ("it is not UTF-8 text" if isinstance(error, UnicodeDecodeError) else error)
        raise ValueError(f"{path}: cannot be read ({reason}).") from None


def draw(names: Iterable[str], valid: float, test: float, *seed: Any) -> dict[str, str]:
    """Names to splits by a hash of each, for corpora without published splits: the same for everybody.

    Args:
        valid, test: shares of the names (below 1) or numbers of them.
    """
    order = sorted(set(names), key=lambda name: (seed_for(*seed, name), name))
    tested, validated = (round(amount * len(order)) if amount < 1 else int(amount) for amount in (test, valid))
    return {name: "test" if place < tested else "valid" if place < tested + validated else "train" for place, name in enumerate(order)}
