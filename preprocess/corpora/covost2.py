"""CoVoST 2 (Wang et al., arXiv 2007.10310): translations of Common Voice 4, English to 15 languages and 21 to English.

    python -m preprocess.corpora covost2 --root EN --out DIR --source en --target de [--translations FILE] [--copy]

Read are ``validated.tsv`` and ``clips/*.mp3`` of one language of Common Voice 4 and the table ``covost_v2.<source>_<target>.tsv``, in the
same folder, in the one above, or as ``--translations``; they are joined by the name of the clip, in the tables' own way of escaping. Splits
are those of CoVoST; transcripts and translations (``extra["translation"]``) keep case and punctuation. Clips are MP3 at 48 kHz: ``--copy``
saves decoding them in every epoch.
"""

import argparse
import csv
import sys
from collections.abc import Mapping
from pathlib import Path

from avtlm.data.manifest import Utterance
from preprocess.corpora.sound_corpus import Listing, SoundCorpus, table

SPLITS = {"train": "train", "train_covost": "train", "dev": "valid", "test": "test"}
PUBLISHED: Mapping[str, Mapping[str, int]] = {"en": {"train": 289_430, "dev": 15_531, "test": 15_531}}  # whatever the target
DIALECT = {"delimiter": "\t", "quoting": csv.QUOTE_NONE, "escapechar": "\\"}


def lists(root: Path, source: str = "en", target: str = "de", translations: str | Path | None = None) -> Listing:
    """Clips of the table of translations.

    Raises:
        ValueError: a table is missing.
    """
    for place in (root, root / source):
        if (place / "validated.tsv").is_file():
            root = place
            break
    else:
        raise ValueError(f"{root}: has no validated.tsv; give the folder of one language of Common Voice 4.")
    name = f"covost_v2.{source}_{target}.tsv"
    places = [Path(translations)] if translations else [root / name, root.parent / name]
    listed = next((place for place in places if place.is_file()), None)
    if listed is None:
        raise ValueError(f"{places[0]}: there is no such table of translations; it comes with CoVoST 2, not with Common Voice.")
    said = {row["path"]: row for row in table(root / "validated.tsv", ("path", "sentence", "client_id"), **DIALECT)}
    listing = Listing(root, published=PUBLISHED.get(source, {}))
    others = 0
    for row in table(listed, ("path", "translation", "split"), **DIALECT):
        split, clip = SPLITS.get(row["split"]), said.get(row["path"])
        where = str(root / "clips" / row["path"])
        if split is None:
            others += 1
        elif clip is None:
            listing.left_out[where] = f"is in {listed.name}, and not in validated.tsv"
        elif not clip["sentence"].strip() or not row["translation"].strip():
            listing.left_out[where] = "its sentence or its translation is empty"
        else:
            part = "train" if split == "train" else row["split"]
            extra = {"part": part, "translation": row["translation"].strip()}
            audio = f"clips/{row['path']}"
            listing.rows.append(
                Utterance(
                    Path(row["path"]).stem,
                    audio=audio,
                    transcript=clip["sentence"].strip(),
                    speaker=clip["client_id"],
                    split=split,
                    extra=extra,
                )
            )
    if others:
        listing.remarks.append(f"{others:,} clips of {listed.name} are in no split and not used")
    return listing


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--source", default="en", metavar="LANGUAGE", help="that is spoken (default: %(default)s)")
    parser.add_argument("--target", default="de", metavar="LANGUAGE", help="that is written (default: %(default)s)")
    parser.add_argument("--translations", metavar="FILE", help="the table of CoVoST 2 (default: beside validated.tsv, or a folder above)")


CORPUS = SoundCorpus("covost2", "CoVoST 2", lists, add_options)
read, main = CORPUS.read, CORPUS.main

if __name__ == "__main__":
    sys.exit(main())
