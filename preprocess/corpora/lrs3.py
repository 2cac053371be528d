"""LRS3-TED (Afouras et al., arXiv 1809.00496) with the sets of AV-HuBERT: 30 or 433 hours with transcripts.

    python -m preprocess.corpora lrs3 --root LRS3 --out DIR [--hours 433|30] [--valid-ids FILE]

Read is the release as it is unpacked, ``{pretrain,trainval,test}/<video>/<5 digits>.{mp4,txt}``. 433 hours are trainval and pretrain, whose
clips are cut at pauses where they are longer than 15 s; 30 hours are trainval alone. Validation is 1,200 clips of trainval: those of
``--valid-ids`` (AV-HuBERT's list is ``preparation/data/lrs3-valid.id`` in its repository), or, without a list, those that come first by a
hash of their ids; figures with these are not on the official split. Ids are the official ones: ``trainval/<video>/<clip>``,
``short-pretrain/<video>/<clip>[_<part>]``. The speaker is the video: it is the nearest that the corpus knows.
"""

import argparse
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from avtlm.data.manifest import Utterance
from avtlm.data.seeds import seed_for
from avtlm.training.progress import track
from preprocess.corpora.lrs import clip_pairs, cut_clip, long_parts, read_text
from preprocess.corpora.reading import Reading, command, differences, find_root, read_ids

PUBLISHED = {"pretrain": 118_516, "trainval": 31_982, "test": 1_321}  # clips of version 0.4, which all papers use
PARTS = {433: ("pretrain", "trainval", "test"), 30: ("trainval", "test")}
VALID = 1200  # clips of trainval


def read(root: str | Path, hours: int = 433, valid_ids: str | Path | None = None) -> Reading:
    """All usable clips below a folder, with lower-case transcripts and splits.

    Args:
        root: the folder that holds pretrain, trainval and test, or one above it.
        hours: 433 or 30.
        valid_ids: file with one id ``trainval/<video>/<clip>`` a line; None draws as many.

    Raises:
        ValueError: no LRS3 there, other hours, or a list that does not fit.
    """
    if hours not in PARTS:
        raise ValueError(f"hours: {hours} is unknown; choose 433 or 30.")
    root = find_root(Path(root), ("trainval", "test"))
    rows: list[Utterance] = []
    left_out: dict[str, str] = {}
    counts: Counter[str] = Counter()
    remarks: list[str] = []
    for part in PARTS[hours]:
        for path, fault in track(clip_pairs(root / part), f"LRS3 {part}", PUBLISHED[part]):
            try:
                if fault is not None:
                    raise ValueError(fault)
                rows += _rows(path.relative_to(root), root)
                counts[part] += 1
            except ValueError as error:
                left_out[str(path)] = str(error).rstrip(".")
    valid = _valid([row.id for row in rows if row.id.startswith("trainval/")], valid_ids, remarks)
    rows = sorted((replace(row, split="valid") if row.id in valid else row for row in rows), key=lambda row: row.id)
    remarks += differences(counts, {part: PUBLISHED[part] for part in PARTS[hours]}) + long_parts(rows)
    return Reading(tuple(rows), left_out, tuple(remarks), root)


def _rows(clip: Path, root: Path) -> list[Utterance]:
    part, video, name = clip.parts[0], clip.parts[1], clip.with_suffix("").as_posix()
    if part == "pretrain":
        return cut_clip(clip, root, f"short-{name}", video, "train")
    text = read_text(root / clip.with_suffix(".txt"))
    return [Utterance(name, video=str(clip), transcript=text, speaker=video, split="test" if part == "test" else "train")]


def _valid(names: Sequence[str], listed: str | Path | None, remarks: list[str]) -> set[str]:
    if listed is None:
        # By rank, so that the whole corpus gives 1,200 and a part of it the same share.
        count = round(VALID / PUBLISHED["trainval"] * len(names))
        remarks.append(f"validation is {count:,} clips of trainval drawn here; for the official ones give --valid-ids")
        return set(sorted(names, key=lambda name: seed_for("LRS3", "valid", name))[:count])
    ids = read_ids(listed)
    there = ids & set(names)
    if not there:
        raise ValueError(f"{listed}: none of its {len(ids)} ids is a clip of trainval; expected lines such as trainval/<video>/<5 digits>.")
    if len(there) < len(ids):
        remarks.append(f"{len(ids) - len(there):,} of the {len(ids):,} ids of {listed} are not among the clips")
    return there


def main(arguments: Sequence[str] | None = None) -> int:
    def add_options(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--hours", type=int, choices=sorted(PARTS), default=433, help="with or without pretrain (default: 433)")
        parser.add_argument("--valid-ids", metavar="FILE", help="ids of the validation clips, one a line")

    return command("lrs3", "Write the manifest of LRS3.", read, add_options, arguments)


if __name__ == "__main__":
    sys.exit(main())
