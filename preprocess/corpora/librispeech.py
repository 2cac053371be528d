"""LibriSpeech (Panayotov et al. 2015, ICASSP; openslr 12): 1,000 hours of audio books with transcripts.

    python -m preprocess.corpora librispeech --root LibriSpeech --out DIR [--parts train-clean-100 dev-other ...]

Read is ``<part>/<speaker>/<chapter>/<speaker>-<chapter>-<4 digits>.flac`` with a ``<speaker>-<chapter>.trans.txt`` in every chapter. The
same layout have mini LibriSpeech (openslr 31: ``train-clean-5``, ``dev-clean-2``) and the small labelled sets of Libri-Light (``1h``,
``9h``; 10 minutes are ``1h/0``). Transcripts, published in upper case, are in lower case. Parts train, dev and test are the splits train,
valid and test; each part has a manifest of its own (``OUT/dev-other.jsonl``).
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from avtlm.data.manifest import Utterance
from avtlm.text.normalize import lower
from preprocess.corpora.reading import find_root
from preprocess.corpora.sound_corpus import Listing, SoundCorpus, lines

PUBLISHED = {
    "train-clean-100": 28_539,
    "train-clean-360": 104_014,
    "train-other-500": 148_688,
    "dev-clean": 2_703,
    "dev-other": 2_864,
    "test-clean": 2_620,
    "test-other": 2_939,
}
SMALL = ("train-clean-5", "dev-clean-2", "1h", "9h")
SPLITS = {"dev": "valid", "test": "test"}  # by the first word of a part; all else is for training


def lists(root: Path, parts: Sequence[str] | None = None) -> Listing:
    """Utterances of the transcript files of some parts; None takes the parts that are there."""
    known = (*PUBLISHED, *SMALL)
    root = find_root(root, parts or known)
    chosen = [part for part in known if (root / part).is_dir()] if parts is None else list(parts)
    listing = Listing(root, published={part: PUBLISHED[part] for part in chosen if part in PUBLISHED})
    for part in chosen:
        for chapter in sorted((root / part).rglob("*.trans.txt")):
            _add_chapter(listing, part, chapter)
    return listing


def _add_chapter(listing: Listing, part: str, chapter: Path) -> None:
    folder = chapter.parent
    unlisted = {path.stem: path for path in sorted(folder.glob("*.flac"))}
    try:
        texts = [line.partition(" ") for line in lines(chapter) if line.strip()]
    except ValueError as error:
        listing.left_out[str(chapter)] = str(error).rstrip(".")
        return
    for name, _, text in texts:
        path = unlisted.pop(name, folder / f"{name}.flac")
        if not text.strip():
            listing.left_out[str(path)] = f"its transcript in {chapter.name} is empty"
            continue
        split = SPLITS.get(part.partition("-")[0], "train")
        audio = f"{folder.relative_to(listing.root).as_posix()}/{name}.flac"
        row = Utterance(name, audio=audio, transcript=lower(text), speaker=name.partition("-")[0], split=split, extra={"part": part})
        listing.rows.append(row)
    listing.left_out |= {str(path): f"has no line in {chapter.name}" for path in unlisted.values()}


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--parts", nargs="+", choices=(*PUBLISHED, *SMALL), metavar="PART", help="which parts (default: those there)")


CORPUS = SoundCorpus("librispeech", "LibriSpeech", lists, add_options)
read, main = CORPUS.read, CORPUS.main

if __name__ == "__main__":
    sys.exit(main())
