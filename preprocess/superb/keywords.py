"""Speech Commands v0.01 for keyword spotting (KS): ten words, ``_unknown_`` and ``_silence_``.

    python -m preprocess.superb KS --root speech_commands_v0.01 --out DIR --test-set speech_commands_test_set_v0.01

Silence is the seconds of the background noises: nine of ten train, every tenth is dev (s3prl draws a second of these noises in training and
on dev alike). The test is the test set of its own, on which figures are published; without it, the words of testing_list.txt are the test,
and silence is not tested. Version 0.02 has the same layout.
"""

import argparse
import dataclasses
from pathlib import Path

from avtlm.data.manifest import Utterance
from preprocess.corpora import speech_commands
from preprocess.corpora.sound_corpus import Listing, SoundCorpus
from preprocess.superb.folder import Preparation, Prepared, Row, prepared


def _lists(root: Path, test_set: Path | None) -> Listing:
    """The twelve classes; seconds of noise are named by their times and not cut into files."""
    listing = speech_commands.lists(root, 12, test_set)
    for place, row in enumerate(listing.rows):
        extra = dict(row.extra)
        if "span" in extra:
            extra["start"], extra["end"] = extra.pop("span")
            listing.rows[place] = dataclasses.replace(row, extra=extra)
    return listing


CORPUS = SoundCorpus("speech_commands", "Speech Commands", _lists)


def _prepare(root: Path, out: Path, workers: int | None, test_set: Path | None = None) -> Prepared:
    def fields(row: Utterance) -> Row:
        return {"label": row.extra["labels"][0], "start": row.extra.get("start"), "end": row.extra.get("end")}

    return prepared(CORPUS.read(root, workers=workers, test_set=test_set), out, fields)


def _add_test_set(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--test-set", type=Path, metavar="DIR", help="test set of the 12 classes (default: the words of testing_list.txt)")


KEYWORDS = Preparation("KS", "Speech Commands v0.01", ("train", "dev", "test"), _prepare, _add_test_set)
