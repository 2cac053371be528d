"""LRS2-BBC (Afouras et al. 2018, "Deep audio-visual speech recognition"): its lists and parts.

    python -m preprocess.corpora lrs2 --root LRS2 --out DIR [--parts main pretrain]

Read is the release as it is unpacked: ``mvlrs_v1/{main,pretrain}/<programme>/<5 digits>.{mp4,txt}`` and, inside that folder or beside it,
the lists ``train.txt``, ``val.txt``, ``test.txt`` and ``pretrain.txt``, of whose lines the first field is ``<programme>/<5 digits>``.
Clips of pretrain are cut at pauses where they are longer than 15 s, as for LRS3. Ids are ``main/<programme>/<clip>`` and
``pretrain/<programme>/<clip>[_<part>]``; the speaker is the programme: it is the nearest that the corpus knows.
"""

import argparse
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from avtlm.data.manifest import Utterance
from avtlm.training.progress import track
from preprocess.corpora.lrs import clip_pairs, cut_clip, long_parts, read_text
from preprocess.corpora.reading import Reading, command, differences, find_root, read_ids

PUBLISHED = {"pretrain": 96_318, "train": 45_839, "val": 1_082, "test": 1_243}
LISTS = {"main": ("train", "val", "test"), "pretrain": ("pretrain",)}
SPLITS = {"train": "train", "val": "valid", "test": "test", "pretrain": "train"}


def read(root: str | Path, parts: Sequence[str] = ("main", "pretrain")) -> Reading:
    """All usable clips of the lists, with lower-case transcripts and the published splits.

    Args:
        root: the folder that holds main and pretrain, or one above it.
        parts: ``main``, ``pretrain`` or both.

    Raises:
        ValueError: no LRS2 there, unknown parts, or a list that is missing.
    """
    if unknown := [part for part in parts if part not in LISTS]:
        raise ValueError(f"parts: {unknown[0]!r} is unknown; choose main, pretrain or both.")
    root = find_root(Path(root), parts)
    rows: list[Utterance] = []
    left_out: dict[str, str] = {}
    counts: Counter[str] = Counter()
    remarks: list[str] = []
    for part in parts:
        wanted = {name: listed for listed in LISTS[part] for name in sorted(_listed(root, listed))}
        seen, unlisted = set(), 0
        for path, fault in track(clip_pairs(root / part), f"LRS2 {part}", len(wanted)):
            name = f"{path.parent.name}/{path.stem}"
            if name not in wanted:
                unlisted += path.suffix == ".mp4"
                continue
            seen.add(name)
            try:
                if fault is not None:
                    raise ValueError(fault)
                rows += _rows(path.relative_to(root), root, SPLITS[wanted[name]])
                counts[wanted[name]] += 1
            except ValueError as error:
                left_out[str(path)] = str(error).rstrip(".")
        for name in sorted(set(wanted) - seen):
            left_out[str(root / part / f"{name}.mp4")] = f"is in {wanted[name]}.txt, and not there"
        if unlisted:
            remarks.append(f"{unlisted:,} clips of {part} are in no list and not used")
    expected = {listed: PUBLISHED[listed] for part in parts for listed in LISTS[part]}
    remarks += differences(counts, expected) + long_parts(rows)
    return Reading(tuple(sorted(rows, key=lambda row: row.id)), left_out, tuple(remarks), root)


def _listed(root: Path, name: str) -> set[str]:
    for folder in (root, root.parent):
        if (folder / f"{name}.txt").is_file():
            return read_ids(folder / f"{name}.txt")
    raise ValueError(f"{root}: the list {name}.txt is neither there nor in the folder above; it comes with the corpus.")


def _rows(clip: Path, root: Path, split: str) -> list[Utterance]:
    part, programme, name = clip.parts[0], clip.parts[1], clip.with_suffix("").as_posix()
    if part == "pretrain":
        return cut_clip(clip, root, name, programme, split)
    text = read_text(root / clip.with_suffix(".txt"))
    return [Utterance(name, video=str(clip), transcript=text, speaker=programme, split=split)]


def main(arguments: Sequence[str] | None = None) -> int:
    def add_options(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--parts", nargs="+", choices=list(LISTS), default=list(LISTS), help="which parts (default: both)")

    return command("lrs2", "Write the manifest of LRS2.", read, add_options, arguments)


if __name__ == "__main__":
    sys.exit(main())
