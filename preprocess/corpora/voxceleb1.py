"""VoxCeleb1 (Nagrani et al., arXiv 1706.08612): celebrities in interviews, for telling speakers apart.

    python -m preprocess.corpora voxceleb1 --root VOX1 --out DIR [--protocol identification|verification]

Read is ``wav/<speaker>/<video>/<5 digits>.wav``, in one folder or in ``dev/`` and ``test/``. Identification takes the splits of
``iden_split.txt`` (1, 2, 3 are train, valid, test; all 1,251 speakers are in all of them: SUPERB's task). In verification the 40 speakers
whose names begin with E (id10270 to id10309) are the test, everybody else trains; lists of trials beside the recordings (``veri_test2.txt``
and the like) are counted, and clips that they name and that are not there are listed. There are no transcripts.
"""

import argparse
import sys
from collections import Counter
from pathlib import Path

from avtlm.data.manifest import Utterance
from preprocess.corpora.reading import differences, find_root
from preprocess.corpora.sound_corpus import Listing, SoundCorpus, lines

PROTOCOLS = {
    "identification": {"train": 138_361, "valid": 6_904, "test": 8_251},
    "verification": {"train": 148_642, "test": 4_874},
}
SPEAKERS = 1_251
SPLITS = {"1": "train", "2": "valid", "3": "test"}  # of iden_split.txt
TESTED = range(10270, 10310)
TRIALS = {"veri_test.txt": 37_720, "veri_test2.txt": 37_611, "list_test_all2.txt": 579_818, "list_test_hard2.txt": 550_894}


def lists(root: Path, protocol: str = "identification") -> Listing:
    """Recordings of all speakers.

    Raises:
        ValueError: an unknown protocol, no VoxCeleb1 there, or no iden_split.txt for identification.
    """
    if protocol not in PROTOCOLS:
        raise ValueError(f"protocol: {protocol!r} is unknown; choose one of {', '.join(PROTOCOLS)}.")
    root = find_root(root, ("wav", "dev", "test"))
    files: dict[str, str] = {}
    for pattern in ("wav/id*/*/*.wav", "*/wav/id*/*/*.wav", "dev/id*/*/*.wav", "test/id*/*/*.wav"):
        for path in sorted(root.glob(pattern)):
            files.setdefault("/".join(path.parts[-3:]), path.relative_to(root).as_posix())
    listing = Listing(root, published=PROTOCOLS[protocol])
    splits = _identification(listing, files) if protocol == "identification" else _verification(listing, files)
    for name, split in splits.items():
        extra = {"part": split}
        listing.rows.append(Utterance(name.removesuffix(".wav"), audio=files[name], speaker=name.split("/")[0], split=split, extra=extra))
    if (speakers := len({row.speaker for row in listing.rows})) != SPEAKERS:
        listing.remarks.append(f"{speakers:,} speakers, the published corpus {SPEAKERS:,}")
    return listing


def _identification(listing: Listing, files: dict[str, str]) -> dict[str, str]:
    path = next((place for place in (listing.root / "iden_split.txt", listing.root.parent / "iden_split.txt") if place.is_file()), None)
    if path is None:
        raise ValueError(f"{listing.root}: the list iden_split.txt is neither there nor in the folder above; it comes with the corpus.")
    splits = {}
    for number, line in enumerate(lines(path), 1):
        part, _, name = line.strip().partition(" ")
        if not line.strip():
            continue
        if part not in SPLITS:
            listing.left_out[f"{path}, line {number}"] = f"is {line!r:.60}, not '1 <speaker>/<video>/<clip>.wav'"
        elif name not in files:
            listing.left_out[str(listing.root / "wav" / name)] = "is in iden_split.txt, and not there"
        else:
            splits[name] = SPLITS[part]
    if unlisted := len(files) - len(splits):
        listing.remarks.append(f"{unlisted:,} clips are not in iden_split.txt and not used")
    return splits


def _verification(listing: Listing, files: dict[str, str]) -> dict[str, str]:
    tested = {f"id{number}" for number in TESTED}
    for name, count in TRIALS.items():
        path = next((place for place in (listing.root / name, listing.root.parent / name) if place.is_file()), None)
        if path is None:
            continue
        trials = [line.split() for line in lines(path) if line.strip()]
        listing.remarks += differences({name: len(trials)}, {name: count})
        named = Counter(clip for trial in trials for clip in trial[1:])
        listing.left_out |= {
            str(listing.root / "wav" / clip): f"is in {name}, and not there" for clip in sorted(named) if clip not in files
        }
    return {name: "test" if name.split("/")[0] in tested else "train" for name in files}


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--protocol", choices=list(PROTOCOLS), default="identification", help="how it is split (default: %(default)s)")


CORPUS = SoundCorpus("voxceleb1", "VoxCeleb1", lists, add_options)
read, main = CORPUS.read, CORPUS.main

if __name__ == "__main__":
    sys.exit(main())
