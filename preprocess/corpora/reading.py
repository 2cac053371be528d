"""What a reader of a corpus returns, and the command line that all readers share: a manifest, what was left out, and remarks.

No file is dropped without a word: ``left_out.tsv`` beside the manifest names each with the reason.
"""

import argparse
import sys
import tarfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from avtlm.data.manifest import SPLITS, Manifest, Utterance, write_manifest
from avtlm.files import write_text

SHOWN = 10  # lines on the screen; left_out.tsv has them all


@dataclass(frozen=True)
class Reading:
    """What was found: rows in the order of their ids, what was left out and why (path -> reason), and remarks on the whole.

    Paths of the rows are relative to ``root``; where it is None, to the folder that was given. Rows that name a part of the corpus
    (``extra["part"]``) are written to a manifest of that part as well.
    """

    rows: tuple[Utterance, ...]
    left_out: dict[str, str] = field(default_factory=dict)
    remarks: tuple[str, ...] = ()
    root: Path | None = None


def differences(found: Mapping[str, int], published: Mapping[str, int]) -> list[str]:
    """Remarks on the parts of a corpus that have other numbers of clips than published."""
    return [
        f"{part} has {found.get(part, 0):,} clips, the published corpus {count:,}"
        for part, count in published.items()
        if found.get(part, 0) != count
    ]


def find_root(given: Path, folders: Sequence[str]) -> Path:
    """The folder that holds the given ones: this one or one below it; archives are often unpacked one level too deep.

    Raises:
        ValueError: there is none.
    """
    below = sorted(path for path in given.iterdir() if path.is_dir()) if given.is_dir() else []
    for root in (given, *below):
        if any((root / name).is_dir() for name in folders):
            return root
    raise ValueError(f"{given}: has no folder {' or '.join(folders)}; give the folder of the unpacked corpus.")


def read_ids(path: str | Path) -> set[str]:
    """Ids of a list file, plain or .gz: the first field of every line.

    Raises:
        ValueError: the file cannot be read, or has none.
    """
    import gzip  # one list of ids is compressed
    import zlib

    try:
        with gzip.open(path, "rt", encoding="utf-8") if str(path).endswith(".gz") else open(path, encoding="utf-8") as handle:
            ids = {line.split()[0].removesuffix(".mp4") for line in handle if line.strip()}
    except (OSError, EOFError, UnicodeDecodeError, zlib.error) as error:
        raise ValueError(f"{path}: this list of ids cannot be read ({getattr(error, 'strerror', None) or error}).") from None
    if not ids:
        raise ValueError(f"{path}: this list has no ids.")
    return ids


def command(
    name: str,
    summary: str,
    read: Callable[..., Reading],
    add_options: Callable[[argparse.ArgumentParser], None],
    arguments: Sequence[str] | None,
    writes: bool = False,
) -> int:
    """The command line of a reader: ``--root``, ``--out`` and its own options, which go to ``read`` by name.

    Args:
        writes: the reader may write files besides, so that it is told ``out`` as well.

    Returns:
        The exit code: 0 done, 1 if nothing can be read.
    """
    parser = argparse.ArgumentParser(prog=f"python -m preprocess.corpora {name}", description=summary)
    parser.add_argument("--root", required=True, metavar="DIR", help="folder of the corpus")
    parser.add_argument("--out", required=True, metavar="DIR", help="where manifest.jsonl and left_out.tsv go")
    add_options(parser)
    given = vars(parser.parse_args(arguments))
    root, out = Path(given.pop("root")), Path(given.pop("out"))
    try:
        reading = _writable(read(root, **given | ({"out": out} if writes else {})))
        _write(reading, (reading.root or root).resolve(), out)
    except (ValueError, OSError, tarfile.TarError) as error:
        print(f"{name}: {error}", file=sys.stderr)
        return 1
    for remark in reading.remarks:
        print(f"{name}: {remark}.", file=sys.stderr)
    for path, reason in list(reading.left_out.items())[:SHOWN]:
        print(f"{name}: left out {path}: {reason}.", file=sys.stderr)
    if len(reading.left_out) > SHOWN:
        print(f"{name}: and {len(reading.left_out) - SHOWN} more, in {out / 'left_out.tsv'}.", file=sys.stderr)
    splits = Counter(row.split for row in reading.rows)
    counts = ", ".join(f"{splits[split]:,} {split}" for split in SPLITS if splits[split]) or "of no split"
    print(f"{out / 'manifest.jsonl'}: {len(reading.rows):,} clips ({counts}), {len(reading.left_out):,} left out")
    return 0


def _writable(reading: Reading) -> Reading:
    """The same with names that can be written as UTF-8; clips of other names, which no manifest could hold, are left out."""
    rows, left_out = [], {_plain(path): reason for path, reason in reading.left_out.items()}
    for row in reading.rows:
        names = "".join(filter(None, (row.id, row.video, row.audio)))
        if names.isascii() or _plain(names) == names:
            rows.append(row)
        else:
            left_out[_plain(row.video or row.audio or row.id)] = "its name is not UTF-8; rename it"
    return replace(reading, rows=tuple(rows), left_out=left_out)


def _plain(name: str) -> str:
    """A name with bytes that are no UTF-8, and with tabs and line breaks, written as escapes."""
    return name.encode("utf-8", "backslashreplace").decode().replace("\t", "\\t").replace("\n", "\\n")


def _write(reading: Reading, root: Path, out: Path) -> None:
    write_text(out / "left_out.tsv", "".join(f"{path}\t{reason}\n" for path, reason in reading.left_out.items()))
    parts: dict[str, list[Utterance]] = {}
    for row in reading.rows:
        if isinstance(row.extra.get("part"), str):
            parts.setdefault(row.extra["part"], []).append(row)
    for part, rows in parts.items():
        write_manifest(out / f"{part.replace('/', '-')}.jsonl", Manifest(root, tuple(rows)))
    write_manifest(out / "manifest.jsonl", Manifest(root, reading.rows))
