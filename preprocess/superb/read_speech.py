"""LibriSpeech for phoneme recognition (PR) and recognition (ASR): train-clean-100, dev-clean and test-clean.

    python -m preprocess.superb PR --root LibriSpeech --out DIR --lexicon FILE [FILE ...]
    python -m preprocess.superb ASR --root LibriSpeech --out DIR

The phones of a text are the first pronunciation of each word in the lexicons, in their order: ``librispeech-lexicon-200k-g2p.txt`` and
``librispeech-lexicon-allothers-g2p.txt`` of s3prl, which have every word, or any file of lines ``WORD  PH ON ES``. Texts are in upper case.
Of a small copy of the corpus, ``--parts`` names what there is; what begins with ``dev`` is dev, with ``test`` the test.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from preprocess.corpora import librispeech
from preprocess.corpora.sound_corpus import lines
from preprocess.superb.folder import Preparation, Prepared, Row, prepared

PARTS = ("train-clean-100", "dev-clean", "test-clean")


def _words(root: Path, out: Path, workers: int | None, parts: Sequence[str] = PARTS) -> Prepared:
    reading = librispeech.read(root, workers=workers, parts=parts)
    return prepared(reading, out, lambda row: {"text": (row.transcript or "").upper()})


def _phones(root: Path, out: Path, workers: int | None, lexicon: Sequence[Path], parts: Sequence[str] = PARTS) -> Prepared:
    said = first_pronunciations(lexicon)
    done = _words(root, out, workers, parts)
    lists: dict[str, list[Row]] = {}
    left_out = dict(done.left_out)
    for name, rows in done.lists.items():
        lists[name] = []
        for row in rows:
            words = row["text"].split()
            lacking = [word for word in words if word not in said]
            if lacking:
                left_out[row["audio"]] = f"the lexicon lacks {' and '.join(lacking[:3])}"
            else:
                lists[name].append({**row, "phones": [phone for word in words for phone in said[word]]})
    return Prepared(lists, (), {}, left_out, done.remarks)


def first_pronunciations(paths: Sequence[Path]) -> dict[str, list[str]]:
    """Phones of each word, in upper case; a word that comes again keeps the first.

    Raises:
        ValueError: a file cannot be read, or a line has a word without phones.
    """
    said: dict[str, list[str]] = {}
    for path in paths:
        for number, line in enumerate(lines(path), 1):
            word, *phones = line.split() or [""]
            if word and not phones:
                raise ValueError(f"{path}, line {number}: {word!r:.40} has no phones; write 'WORD  PH ON ES'.")
            if word:
                said.setdefault(word.upper(), phones)
    if not said:
        raise ValueError(f"{', '.join(map(str, paths)) or 'no lexicon'}: there is no word in it.")
    return said


def _add_parts(parser: argparse.ArgumentParser) -> None:
    known = (*librispeech.PUBLISHED, *librispeech.SMALL)
    parser.add_argument(
        "--parts", nargs="+", choices=known, default=PARTS, metavar="PART", help="(default: train-clean-100 dev-clean test-clean)"
    )


def _add_lexicon(parser: argparse.ArgumentParser) -> None:
    _add_parts(parser)
    parser.add_argument("--lexicon", nargs="+", type=Path, required=True, metavar="FILE", help="words and their phones")


PHONES = Preparation("PR", "LibriSpeech", ("train", "dev", "test"), _phones, _add_lexicon)
WORDS = Preparation("ASR", "LibriSpeech", ("train", "dev", "test"), _words, _add_parts)
