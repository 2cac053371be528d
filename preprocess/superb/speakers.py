"""VoxCeleb1 for speaker identification (SID) and verification (ASV).

    python -m preprocess.superb SID --root VOX1 --out DIR
    python -m preprocess.superb ASV --root VOX1 --out DIR [--trials FILE]

Identification has the splits of ``iden_split.txt``. Verification trains on all speakers but the 40 of the test, whose clips are compared as
the cleaned list ``veri_test2.txt`` says (``voxceleb1_test_v2.txt`` in s3prl); there is no official dev.
"""

import argparse
from pathlib import Path

from avtlm.data.manifest import Utterance
from preprocess.corpora import voxceleb1
from preprocess.corpora.sound_corpus import lines
from preprocess.superb.folder import Preparation, Prepared, Row, by_split, prepared

LISTS = ("veri_test2.txt", "voxceleb1_test_v2.txt")


def _identification(root: Path, out: Path, workers: int | None) -> Prepared:
    reading = voxceleb1.read(root, workers=workers, protocol="identification")
    return prepared(reading, out, _speaker)


def _speaker(utterance: Utterance) -> Row:
    return {"label": utterance.speaker}


def _verification(root: Path, out: Path, workers: int | None, trials: Path | None = None) -> Prepared:
    reading = voxceleb1.read(root, workers=workers, protocol="verification")
    found = by_split(reading, out, _speaker)
    assert reading.root is not None
    compared, lost = _trials(trials or _list_beside(reading.root), {row["id"] for row in found.get("test", ())})
    if not compared:
        raise ValueError(f"{root}: no trial has both of its clips; unpack the test part of VoxCeleb1 as well.")
    remarks = [*reading.remarks, *([f"{lost:,} trials lack a clip and are not used"] if lost else [])]
    return Prepared(found, compared, {}, reading.left_out, remarks)


def _list_beside(root: Path) -> Path:
    places = [folder / name for folder in (root, root.parent) for name in LISTS]
    found = next((place for place in places if place.is_file()), None)
    if found is None:
        raise ValueError(f"{root}: the list of trials {LISTS[0]} is neither there nor in the folder above; give it with --trials.")
    return found


def _trials(path: Path, known: set[str]) -> tuple[list[str], int]:
    """Trials as pairs of ids, and how many lack a clip."""
    found, lost = [], 0
    for number, line in enumerate(lines(path), 1):
        words = line.split()
        if not words:
            continue
        if len(words) != 3 or words[0] not in ("0", "1"):
            raise ValueError(f"{path}, line {number}: {line!r:.60} is no trial ('1 <speaker>/<video>/<clip>.wav <the other>').")
        first, second = (word.removesuffix(".wav") for word in words[1:])
        if first in known and second in known:
            found.append(f"{words[0]} {first} {second}")
        else:
            lost += 1
    return found, lost


def _add_trials(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--trials", type=Path, metavar="FILE", help="list of trials (default: veri_test2.txt beside the recordings)")


IDENTIFICATION = Preparation("SID", "VoxCeleb1", ("train", "dev", "test"), _identification)
VERIFICATION = Preparation("ASV", "VoxCeleb1", ("train", "test"), _verification, _add_trials)
