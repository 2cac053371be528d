"""Speech Commands 0.02 (Warden, arXiv 1804.03209): single words of a second, for spotting keywords.

    python -m preprocess.corpora speech_commands --root SPEECH_COMMANDS --out DIR [--classes 35|12] [--test-set DIR]

Read is ``<word>/<speaker>_nohash_<number>.wav`` with ``validation_list.txt`` and ``testing_list.txt``; what is in neither trains. With 35
classes the label (``extra["labels"]``) is the word. With 12 it is one of ten words, ``_unknown_`` or ``_silence_``, which is the seconds of
``_background_noise_``, cut into files, every tenth of them for validation; ``--test-set`` is then the folder of the test set of its own
(``speech_commands_test_set_v0.02``), on which figures for 12 classes are published, in place of the clips of testing_list.txt.
"""

import argparse
import sys
from dataclasses import replace
from pathlib import Path

from avtlm.data.manifest import Utterance
from preprocess.corpora.reading import find_root, read_ids
from preprocess.corpora.sound_corpus import Listing, SoundCorpus
from preprocess.corpora.sound_files import measure

PUBLISHED = {"train": 84_843, "valid": 9_981, "test": 11_005}
TEN = ("yes", "no", "up", "down", "left", "right", "on", "off", "stop", "go")
NOISE, UNKNOWN, SILENCE = "_background_noise_", "_unknown_", "_silence_"
LISTS = {"validation_list.txt": "valid", "testing_list.txt": "test"}


def lists(root: Path, classes: int = 35, test_set: str | Path | None = None) -> Listing:
    """All words, with 12 classes silence as well.

    Raises:
        ValueError: no lists, other classes, or a test set for 35 classes.
    """
    if classes not in (35, 12) or (test_set is not None and classes == 35):
        raise ValueError(f"classes: {classes}{' with a test set' if test_set else ''}; choose 35, or 12 with or without a test set.")
    root = find_root(root, (*TEN, NOISE))
    split_of = {name: split for file, split in LISTS.items() for name in read_ids(root / file)}
    listing = Listing(root, published=PUBLISHED if classes == 35 else {})
    there = set()
    for path in sorted(root.glob("[a-z]*/*.wav")):
        name = path.relative_to(root).as_posix()
        there.add(name)
        split, word = split_of.get(name, "train"), path.parent.name
        if split != "test" or test_set is None:
            label = word if classes == 35 or word in TEN else UNKNOWN
            listing.rows.append(_row(name, word, split, label, path.stem.partition("_")[0]))
    listing.left_out |= {str(root / name): "is in a list, and not there" for name in sorted(set(split_of) - there)}
    if classes == 12:
        _add_silence(listing)
    if test_set is not None:
        _add_test(listing, Path(test_set))
    return listing


def _row(name: str, word: str | None, split: str, label: str, speaker: str | None) -> Utterance:
    extra = {"part": split, "labels": [label]}
    return Utterance(name.removesuffix(".wav"), audio=name, transcript=word, speaker=speaker, split=split, extra=extra)


def _add_silence(listing: Listing) -> None:
    for path in sorted((listing.root / NOISE).glob("*.wav")):
        try:
            samples, rate = measure(path)
        except ValueError as error:
            listing.left_out[str(path)] = str(error).rstrip(".")
            continue
        for second in range(samples // rate):
            split = "valid" if second % 10 == 9 else "train"
            extra = {"part": split, "labels": [SILENCE], "span": [second, second + 1]}
            name = path.relative_to(listing.root).as_posix()
            listing.rows.append(Utterance(f"{SILENCE}/{path.stem}_{second:03d}", audio=name, split=split, extra=extra))


def _add_test(listing: Listing, folder: Path) -> None:
    """Clips of the test set; their paths are absolute where the set lies elsewhere."""
    folder = find_root(folder, (*TEN, SILENCE))
    for path in sorted(folder.glob("*/*.wav")):
        label = path.parent.name
        if label in (*TEN, UNKNOWN, SILENCE):
            row = _row(f"test_set/{label}/{path.name}", label if label in TEN else None, "test", label, None)
            listing.rows.append(replace(row, audio=str(path.resolve())))


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--classes", type=int, choices=(35, 12), default=35, help="words, or ten words, unknown and silence (default: 35)")
    parser.add_argument("--test-set", metavar="DIR", help="test set of the 12 classes")


CORPUS = SoundCorpus("speech_commands", "Speech Commands", lists, add_options)
read, main = CORPUS.read, CORPUS.main

if __name__ == "__main__":
    sys.exit(main())
