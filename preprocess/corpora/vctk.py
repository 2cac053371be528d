"""VCTK 0.92 (Yamagishi et al. 2019, Edinburgh DataShare 10283/3443): 110 speakers read 400 sentences each; for synthesis and voices.

    python -m preprocess.corpora vctk --root VCTK --out DIR [--microphone mic1|mic2] [--copy]

Read are ``wav48_silence_trimmed/<speaker>/<speaker>_<number>_<microphone>.flac`` (``wav48/.../<speaker>_<number>.wav`` of version 0.80)
with ``txt/<speaker>/<speaker>_<number>.txt``. The corpus has no splits; here 5 % of the sentences validate and 5 % are the test, by a
hash of their words: what several speakers read, such as the rainbow passage, stands in one split. Speakers are in all of them.
"""

import argparse
import re
import sys
from pathlib import Path

from avtlm.data.manifest import Utterance
from avtlm.text.normalize import lower
from preprocess.corpora.reading import find_root
from preprocess.corpora.sound_corpus import Listing, SoundCorpus, draw, lines

SPEAKERS = 110
MICROPHONES = ("mic1", "mic2")
FOLDERS = {"wav48_silence_trimmed": ".flac", "wav48": ".wav"}
SHARE = 0.05  # of the sentences, for valid and for test


def lists(root: Path, microphone: str = "mic1") -> Listing:
    """Recordings of one microphone."""
    root = find_root(root, list(FOLDERS))
    folder = next(name for name in FOLDERS if (root / name).is_dir())
    listing = Listing(root)
    texts: dict[str, str] = {}
    files: dict[str, Path] = {}
    for path in sorted((root / folder).glob(f"*/*{FOLDERS[folder]}")):
        name, _, heard = path.stem.partition("_mic")
        if heard and f"mic{heard}" != microphone:
            continue
        written = root / "txt" / path.parent.name / f"{name}.txt"
        try:
            texts[name] = " ".join(" ".join(lines(written)).split())
        except ValueError:
            listing.left_out[str(path)] = (
                "has no text that can be read" if written.is_file() else f"has no text {written.relative_to(root)}"
            )
            continue
        if not texts[name]:
            listing.left_out[str(path)] = "its text is empty"
            continue
        files[name] = path
    splits = draw((_key(texts[name]) for name in files), SHARE, SHARE, "VCTK")
    for name, path in files.items():
        audio, speaker = path.relative_to(root).as_posix(), path.parent.name
        listing.rows.append(Utterance(name, audio=audio, transcript=texts[name], speaker=speaker, split=splits[_key(texts[name])]))
    if (speakers := len({row.speaker for row in listing.rows})) != SPEAKERS:
        listing.remarks.append(f"{speakers} speakers, the published corpus {SPEAKERS} (p315 without texts)")
    return listing


def _key(text: str) -> str:
    """Its letters alone: speakers' files differ in marks."""
    return re.sub(r"[^a-z]+", " ", lower(text)).strip()


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--microphone", choices=MICROPHONES, default="mic1", help="p280 and p315 lack mic2 (default: %(default)s)")


CORPUS = SoundCorpus("vctk", "VCTK", lists, add_options)
read, main = CORPUS.read, CORPUS.main

if __name__ == "__main__":
    sys.exit(main())
