"""ESC-50 (Piczak 2015, ACM MM): 2,000 sounds of 5 seconds in 50 classes and five folds, for tagging; and its part ESC-10.

    python -m preprocess.corpora esc50 --root ESC-50-master --out DIR [--test-fold 1] [--esc10]

Read are ``meta/esc50.csv`` and ``audio/*.wav``; where there is no such table, folders of classes with files of the older ESC-10
(``001 - Dog bark/1-30226-A.ogg``: the first number is the fold). One fold is the test, the others train; the published figure is the mean
over the five. The class stands in ``extra["labels"]``.
"""

import argparse
import re
import sys
from pathlib import Path

from avtlm.data.manifest import Utterance
from preprocess.corpora.reading import find_root
from preprocess.corpora.sound_corpus import Listing, SoundCorpus, table

CLIPS, FEW = 2_000, 400
FOLDS = 5
OLD_NAME = re.compile(r"([1-5])-\d+-[A-Z]")


def lists(root: Path, test_fold: int = 1, esc10: bool = False) -> Listing:
    """All clips.

    Raises:
        ValueError: there is no such fold, or no ESC there.
    """
    if not 1 <= test_fold <= FOLDS:
        raise ValueError(f"test_fold: {test_fold}; choose 1 to {FOLDS}.")
    old = sorted(path for path in root.glob("*/*.ogg") if OLD_NAME.fullmatch(path.stem))
    listing = Listing(root if old else find_root(root, ["meta"]))
    listing.published = {"ESC-10" if old or esc10 else "ESC-50": FEW if old or esc10 else CLIPS}
    if old:
        for path in old:
            label = re.sub(r"^\d+ - ", "", path.parent.name).lower().replace(" ", "_")
            _add(listing, path.relative_to(root).as_posix(), int(path.stem[0]), label, test_fold)
        return listing
    for row in table(listing.root / "meta" / "esc50.csv", ("filename", "fold", "category", "esc10")):
        if esc10 and row["esc10"].lower() != "true":
            continue
        if not re.fullmatch(r"[1-5]", row["fold"]):
            listing.left_out[str(listing.root / "audio" / row["filename"])] = f"is in the fold {row['fold']!r:.20}"
            continue
        _add(listing, f"audio/{row['filename']}", int(row["fold"]), row["category"], test_fold)
    return listing


def _add(listing: Listing, audio: str, fold: int, label: str, test_fold: int) -> None:
    extra = {"part": next(iter(listing.published)), "fold": fold, "labels": [label]}
    split = "test" if fold == test_fold else "train"
    listing.rows.append(Utterance(Path(audio).stem, audio=audio, split=split, extra=extra))


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--test-fold", type=int, default=1, metavar="N", help="1 to 5 (default: 1)")
    parser.add_argument("--esc10", action="store_true", help="only the ten classes of ESC-10")


CORPUS = SoundCorpus("esc50", "ESC-50", lists, add_options)
read, main = CORPUS.read, CORPUS.main

if __name__ == "__main__":
    sys.exit(main())
