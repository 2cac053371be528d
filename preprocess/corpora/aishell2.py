"""AISHELL-2 (Du et al., arXiv 1808.10583): 1,000 hours of Mandarin, read by 1,991 speakers into telephones, with tests of three channels.

    python -m preprocess.corpora aishell2 --root AISHELL-2 --out DIR [--channel iOS|Android|Mic]

Read is the release as it is unpacked: ``iOS/data`` is train, ``<channel>/dev`` and ``<channel>/test`` are ``valid`` and ``test``, beside it
or in ``AISHELL-DEV-TEST-SET`` beside the folder of the corpus. Each has ``trans.txt`` (ids and texts), sounds as
``wav/<speaker>/<id>.wav``, and mostly ``wav.scp``, which then says where they lie. Texts hold some Latin letters and words.
"""

import argparse
import sys
from pathlib import Path

from preprocess.corpora.aishell import read_pairs, row, speakers_missing
from preprocess.corpora.reading import find_root
from preprocess.corpora.sound_corpus import Listing, SoundCorpus

CHANNELS = ("iOS", "Android", "Mic")
EVALUATION = "AISHELL-DEV-TEST-SET"
PUBLISHED = {"train": 1_009_223, "dev": 2_500, "test": 5_000}
SPEAKERS = {"train": 1_991, "dev": 5, "test": 10}


def lists(root: Path, channel: str = "iOS") -> Listing:
    """All sounds that have a transcript.

    Args:
        channel: of dev and test; train is there as recorded by iOS alone.

    Raises:
        ValueError: no AISHELL-2 there, an unknown channel, or a list that cannot be read.
    """
    if channel not in CHANNELS:
        raise ValueError(f"channel: {channel!r} is unknown; choose one of {', '.join(CHANNELS)}.")
    home = find_root(root, CHANNELS)
    wanted = {"train": Path("iOS", "data"), "dev": Path(channel, "dev"), "test": Path(channel, "test")}
    folders = {part: folder for part, tail in wanted.items() if (folder := _folder(home, tail)) is not None}
    if not folders:
        raise ValueError(f"{home}: has none of {', '.join(str(tail / 'trans.txt') for tail in wanted.values())}; unpack the corpus there.")
    found = Listing(home if all(folder.is_relative_to(home) for folder in folders.values()) else home.parent, published=PUBLISHED)
    for part, folder in folders.items():
        _list(found, part, folder)
    found.remarks += speakers_missing(found.rows, SPEAKERS)
    return found


def _folder(home: Path, tail: Path) -> Path | None:
    places = (home / tail, home / EVALUATION / tail, home.parent / EVALUATION / tail)
    return next((place for place in places if (place / "trans.txt").is_file()), None)


def _list(found: Listing, part: str, folder: Path) -> None:
    transcripts = read_pairs(folder / "trans.txt")
    script = folder / "wav.scp"
    placed = read_pairs(script) if script.is_file() else {name: f"wav/{name[1:6]}/{name}.wav" for name in transcripts}
    for name in sorted(transcripts.keys() | placed.keys()):
        try:
            if name not in placed:
                raise ValueError("has a transcript, and is not in wav.scp")
            if name not in transcripts:
                raise ValueError("has no line in trans.txt")
            path = folder / placed[name]
            if not path.is_relative_to(found.root):
                raise ValueError("leads out of the folder of the corpus")
            audio = path.relative_to(found.root).as_posix()
            found.rows.append(row(name, audio, transcripts[name], Path(placed[name]).parent.name, part))
        except ValueError as error:
            found.left_out[str(folder / placed.get(name, f"{name}.wav"))] = str(error)


def _add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--channel", choices=CHANNELS, default="iOS", help="of dev and test (default: iOS)")


CORPUS = SoundCorpus("aishell2", "AISHELL-2", lists, _add_options)
main = CORPUS.main

if __name__ == "__main__":
    sys.exit(main())
