"""CoVoST 2, English to German, for translation of speech (ST).

    python -m preprocess.superb ST --root EN --out DIR [--target de] [--translations FILE] [--copy]

As s3prl prepares it: pairs that say REMOVE, are empty, or of which one side has more than five times the words of the other, are left out;
punctuation of translations is made plain (quotes, dashes and ellipses of one form, no space before a stop), the part of Moses's rules that
matters for German. ``--copy`` writes 16 kHz FLAC, which is read much faster than the MP3 of the corpus.
"""

import argparse
import re
from pathlib import Path

from preprocess.corpora import covost2
from preprocess.superb.folder import Preparation, Prepared, Row, prepared

MOST_TIMES = 5
PLAIN: dict[str, str | int | None] = {
    **dict.fromkeys("„“”«»″", '"'),
    **dict.fromkeys("‘’‚´`′", "'"),
    **dict.fromkeys("–—−", "-"),
    "…": "...",
    "\u00a0": " ",
}


def plain_punctuation(text: str) -> str:
    """Text with one form of each quote, dash and ellipsis, single blanks, and no blank before a stop, a question mark or a comma."""
    text = " ".join(text.translate(str.maketrans(PLAIN)).split())
    return re.sub(r" +([.?,!;:])", r"\1", text)


def usable(source: str, target: str) -> bool:
    """Whether a pair of texts is kept."""
    lengths = len(source.split()), len(target.split())
    return min(lengths) >= 1 and max(lengths) <= MOST_TIMES * min(lengths) and "REMOVE" not in source + target


def _prepare(
    root: Path, out: Path, workers: int | None, source: str = "en", target: str = "de", translations: Path | None = None, copy: bool = False
) -> Prepared:
    reading = covost2.read(root, out, copy=copy, workers=workers, source=source, target=target, translations=translations)
    done = prepared(reading, out, lambda row: {"text": row.transcript, "translation": plain_punctuation(row.extra["translation"])})
    lists: dict[str, list[Row]] = {}
    left_out = dict(done.left_out)
    for name, rows in done.lists.items():
        lists[name] = []
        for clip in rows:
            if usable(clip["text"], clip["translation"]):
                lists[name].append(clip)
            else:
                left_out[clip["audio"]] = "its two texts do not go together"
    return Prepared(lists, (), {"name": f"CoVoST 2 {source}-{target}", "source": source, "target": target}, left_out, done.remarks)


def _add_languages(parser: argparse.ArgumentParser) -> None:
    covost2.add_options(parser)
    parser.add_argument("--copy", action="store_true", help="write the sound as 16 kHz FLAC below OUT/audio")


TRANSLATION = Preparation("ST", "CoVoST 2", ("train", "dev", "test"), _prepare, _add_languages)
