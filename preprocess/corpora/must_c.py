"""MuST-C (Di Gangi et al. 2019, N19-1202): talks in English with transcripts and translations.

    python -m preprocess.corpora must_c --root MUSTC --out DIR --target de [--parts train dev tst-COMMON tst-HE]

Read is ``en-<target>/data/<part>/{wav/*.wav,txt/<part>.{yaml,en,<target>}}``: line i of both texts belongs to item i of the yaml file,
which says which seconds of which talk are meant. Every utterance is cut out of its talk into ``OUT/audio/<talk>_<number>.flac``,
numbered in the order of their starts, as the official ids are. Transcripts and translations (``extra["translation"]``) keep case and
punctuation. ``dev`` is the split valid, ``tst-COMMON`` and ``tst-HE`` are test; published figures are on tst-COMMON alone, which is why
tst-HE has to be asked for.
"""

import argparse
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from avtlm.data.manifest import Utterance
from preprocess.corpora.reading import find_root
from preprocess.corpora.sound_corpus import Listing, SoundCorpus, lines

SPLITS = {"train": "train", "dev": "valid", "tst-COMMON": "test", "tst-HE": "test"}
PUBLISHED: Mapping[str, Mapping[str, int]] = {  # in version 1; others have other counts
    "de": {"train": 229_703, "dev": 1_423, "tst-COMMON": 2_641, "tst-HE": 600},
    "fr": {"tst-COMMON": 2_632},
    "es": {"tst-COMMON": 2_502},
}
# One item a line. A YAML reader takes minutes for the 230,000 of train.
ITEM = re.compile(r"(\w+): *('[^']*'|\"[^\"]*\"|[^,{}]+)")


def lists(root: Path, target: str = "de", parts: Sequence[str] = ("train", "dev", "tst-COMMON")) -> Listing:
    """Utterances of some parts of one pair of languages.

    Raises:
        ValueError: the files of a part are not there, or have different numbers of lines.
    """
    pair = f"en-{target}"
    root = root if root.name == pair and (root / "data").is_dir() else find_root(root, [pair]) / pair
    listing = Listing(root, published={part: count for part, count in PUBLISHED.get(target, {}).items() if part in parts})
    for part in parts:
        folder = root / "data" / part
        items, english, other = (lines(folder / "txt" / f"{part}.{end}") for end in ("yaml", "en", target))
        items = [line for line in items if line.strip()]
        if not len(items) == len(english) == len(other):
            raise ValueError(
                f"{folder / 'txt'}: {part}.yaml has {len(items)} items, the texts {len(english)} and {len(other)} lines; unpack them again."
            )
        _add_part(listing, part, items, english, other)
    return listing


def _add_part(listing: Listing, part: str, items: Sequence[str], english: Sequence[str], other: Sequence[str]) -> None:
    folder = listing.root / "data" / part
    found: dict[str, list[tuple[float, float, int, str]]] = {}
    for number, line in enumerate(items):
        values = {name: value.strip().strip("'\"") for name, value in ITEM.findall(line)}
        try:
            start, seconds, wave = float(values["offset"]), float(values["duration"]), values["wav"]
            good = start >= 0 and seconds > 0
        except (KeyError, ValueError):
            good = False
        if not good:
            listing.left_out[f"{folder / 'txt' / part}.yaml, item {number + 1}"] = f"is {line.strip()!r:.80}, not an utterance"
        elif not english[number].strip() or not other[number].strip():
            listing.left_out[f"{folder / 'wav' / wave}, item {number + 1}"] = "its transcript or its translation is empty"
        else:
            found.setdefault(wave, []).append((start, start + seconds, number, values.get("speaker_id", "")))
    for wave, spans in sorted(found.items()):
        for place, (start, end, number, speaker) in enumerate(sorted(spans)):
            row = Utterance(
                f"{Path(wave).stem}_{place}",
                audio=f"data/{part}/wav/{wave}",
                transcript=english[number].strip(),
                speaker=speaker or Path(wave).stem,
                split=SPLITS[part],
                extra={"part": part, "translation": other[number].strip(), "span": [round(start, 4), round(end, 4)]},
            )
            listing.rows.append(row)


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--target", default="de", metavar="LANGUAGE", help="language of the translations (default: %(default)s)")
    default = ("train", "dev", "tst-COMMON")
    parser.add_argument("--parts", nargs="+", choices=list(SPLITS), default=default, help=f"which parts (default: {' '.join(default)})")


CORPUS = SoundCorpus("must_c", "MuST-C", lists, add_options)
read, main = CORPUS.read, CORPUS.main

if __name__ == "__main__":
    sys.exit(main())
