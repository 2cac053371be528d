"""LJSpeech 1.1 (Ito and Johnson, 2017): one woman reads non-fiction, 24 hours; for synthesis.

    python -m preprocess.corpora ljspeech --root LJSpeech-1.1 --out DIR [--protocol chapters|random]

Read are ``metadata.csv`` (``id|text|text with numbers written out``, quotes are literal) and ``wavs/<id>.wav``. The transcript is the text
with numbers written out; ``extra["text"]`` is the printed one. The corpus has no splits: here either the last two books (LJ049 and LJ050)
are the test and 100 clips drawn from the others validate, or 500 drawn clips are the test, 100 validate and 12,500 train. What is drawn
follows from the ids, so that everybody has the same.
"""

import argparse
import sys
from pathlib import Path

from avtlm.data.manifest import Utterance
from preprocess.corpora.reading import find_root
from preprocess.corpora.sound_corpus import Listing, SoundCorpus, draw, lines

CLIPS = 13_100
PROTOCOLS = ("chapters", "random")
TESTED = ("LJ049", "LJ050")
VALID, TEST = 100, 500
SHARES = VALID / CLIPS, TEST / CLIPS  # so that a part of the corpus is split alike


def lists(root: Path, protocol: str = "chapters") -> Listing:
    """Clips of metadata.csv.

    Raises:
        ValueError: an unknown protocol, or no LJSpeech there.
    """
    if protocol not in PROTOCOLS:
        raise ValueError(f"protocol: {protocol!r} is unknown; choose one of {', '.join(PROTOCOLS)}.")
    root = find_root(root, ["wavs"])
    listing = Listing(root, published={"LJSpeech": CLIPS})
    texts: dict[str, tuple[str, str]] = {}
    for number, line in enumerate(lines(root / "metadata.csv"), 1):
        name, *cells = line.split("|")
        said = next((cell.strip() for cell in reversed(cells) if cell.strip()), "")
        if said:
            texts[name] = said, cells[0].strip()
        elif line.strip():
            listing.left_out[f"{root / 'metadata.csv'}, line {number}"] = f"is {line!r:.60}, not 'id|text|text'"
    aside = [name for name in texts if protocol == "chapters" and name.partition("-")[0] in TESTED]
    rest = [name for name in texts if name not in set(aside)]
    splits = draw(rest, SHARES[0], SHARES[1] if protocol == "random" else 0, "LJSpeech", protocol) | dict.fromkeys(aside, "test")
    for name, (said, printed) in texts.items():
        extra = {"part": "LJSpeech", "text": printed}
        listing.rows.append(Utterance(name, audio=f"wavs/{name}.wav", transcript=said, speaker="LJ", split=splits[name], extra=extra))
    listing.left_out |= {
        str(path): "has no line in metadata.csv" for path in sorted((root / "wavs").glob("*.wav")) if path.stem not in texts
    }
    return listing


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--protocol", choices=PROTOCOLS, default="chapters", help="how it is split (default: %(default)s)")


CORPUS = SoundCorpus("ljspeech", "LJSpeech", lists, add_options)
read, main = CORPUS.read, CORPUS.main

if __name__ == "__main__":
    sys.exit(main())
