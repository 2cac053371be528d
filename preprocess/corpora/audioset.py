"""AudioSet (Gemmeke et al. 2017, ICASSP): ten seconds of sound with labels out of 527 classes.

    python -m preprocess.corpora audioset --root AUDIOSET --out DIR [--sound DIR] [--parts balanced_train eval]

Google distributes tables alone: ``{balanced_train,unbalanced_train,eval}_segments.csv`` and ``class_labels_indices.csv`` are read from the
root. The sound is what the user has of it: any sound files at any depth below ``--sound`` (default: the root) named by the id of the video,
with or without a ``Y`` before it and the start in seconds or milliseconds behind it (``Y--4gqARaEJE_0.000.wav``). Ids are
``<video>_<start>``; the names of the classes stand in ``extra["labels"]``. Clips that are listed and not there are left out and listed; a
part of them is gone from the web by now, which every published result on AudioSet shares.
"""

import argparse
import csv
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from avtlm.data.manifest import Utterance
from preprocess.corpora.sound_corpus import Listing, SoundCorpus, lines, table

PUBLISHED = {"balanced_train": 22_160, "unbalanced_train": 2_041_789, "eval": 20_371}
CLASSES = 527
SOUND = frozenset((".wav", ".flac", ".mp3", ".m4a", ".ogg", ".opus", ".webm", ".mp4", ".aac", ".mkv"))
NAME = re.compile(r"Y?([\w-]{11})(?:_-?\d+(?:\.\d+)?)*")


def lists(root: Path, sound: str | Path | None = None, parts: Sequence[str] | None = None) -> Listing:
    """Clips of the tables that are there; None takes all such parts.

    Raises:
        ValueError: no tables.
    """
    chosen = [part for part in PUBLISHED if (root / f"{part}_segments.csv").is_file()] if parts is None else list(parts)
    if not chosen:
        raise ValueError(f"{root}: has none of {', '.join(f'{part}_segments.csv' for part in PUBLISHED)}; give the folder of the tables.")
    names = {row["mid"]: row["display_name"] for row in table(root / "class_labels_indices.csv", ("mid", "display_name"))}
    # Relative paths lead out of the root where the sound lies elsewhere, so that the listing starts at the sound.
    folder = root if sound is None else Path(sound)
    files = _files(folder)
    listing = Listing(folder, published={part: PUBLISHED[part] for part in chosen})
    if len(names) != CLASSES:
        listing.remarks.append(f"class_labels_indices.csv has {len(names)} classes, the published one {CLASSES}")
    for part in chosen:
        _add_part(listing, part, root / f"{part}_segments.csv", names, files)
    return listing


def _files(folder: Path) -> dict[str, str]:
    """Sound files by the id of their video."""
    found: dict[str, str] = {}
    for path in sorted(folder.rglob("*")) if folder.is_dir() else ():
        match = NAME.fullmatch(path.stem)
        if match and path.suffix.lower() in SOUND:
            found.setdefault(match[1], path.relative_to(folder).as_posix())
    return found


def _add_part(listing: Listing, part: str, path: Path, names: dict[str, str], files: dict[str, str]) -> None:
    for number, line in enumerate(lines(path), 1):
        if not line.strip() or line.startswith("#"):
            continue
        cells = next(csv.reader([line], skipinitialspace=True))
        mids = cells[3].split(",") if len(cells) == 4 else []
        if not mids or any(mid not in names for mid in mids):
            listing.left_out[f"{path}, line {number}"] = f"is {line.strip()!r:.60}, not a clip with labels of class_labels_indices.csv"
        elif cells[0] not in files:
            listing.left_out[str(listing.root / cells[0])] = f"is in {path.name}, and no sound file bears its name"
        else:
            split, labels = "test" if part == "eval" else "train", [names[mid] for mid in mids]
            name = f"{cells[0]}_{cells[1]}"
            listing.rows.append(Utterance(name, audio=files[cells[0]], split=split, extra={"part": part, "labels": labels}))


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--sound", metavar="DIR", help="folder of the sound files (default: the root)")
    parser.add_argument("--parts", nargs="+", choices=list(PUBLISHED), help="which parts (default: those there)")


CORPUS = SoundCorpus("audioset", "AudioSet", lists, add_options)
read, main = CORPUS.read, CORPUS.main

if __name__ == "__main__":
    sys.exit(main())
