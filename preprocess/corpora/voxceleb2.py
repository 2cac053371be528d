"""VoxCeleb2 (Chung et al., arXiv 1806.05622): faces that speak, without transcripts, for pre-training and self-training.

    python -m preprocess.corpora voxceleb2 --root VOX2 --out DIR [--ids FILE] [--parts dev test]

Read are ``{dev,test}/mp4/<speaker>/<video>/<5 digits>.mp4``. All clips are of split train, those of test too, as for AV-HuBERT, which takes
the 628,418 clips in English: ``--ids`` is their list (``preparation/data/vox-en.id.gz`` in its repository). Ids are those of the list,
``dev/mp4/<speaker>/<video>/<clip>``.
"""

import argparse
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from avtlm.data.manifest import Utterance
from avtlm.training.progress import track
from preprocess.corpora.reading import Reading, command, differences, find_root, read_ids

PUBLISHED = {"dev": 1_092_009, "test": 36_237}  # other places count 36,273 in test


def read(root: str | Path, ids: str | Path | None = None, parts: Sequence[str] = ("dev", "test")) -> Reading:
    """All clips below a folder, or those of a list, without transcripts.

    Args:
        root: the folder that holds dev and test, or one above it.
        ids: file with one id a line, plain or .gz; None takes all clips.
        parts: ``dev``, ``test`` or both.

    Raises:
        ValueError: no VoxCeleb2 there, unknown parts, or a list that does not fit.
    """
    if unknown := [part for part in parts if part not in PUBLISHED]:
        raise ValueError(f"parts: {unknown[0]!r} is unknown; choose dev, test or both.")
    root = find_root(Path(root), parts)
    wanted = None if ids is None else read_ids(ids)
    rows: list[Utterance] = []
    left_out: dict[str, str] = {}
    counts: Counter[str] = Counter()
    for path in track(_clips(root, parts), "VoxCeleb2", sum(PUBLISHED[part] for part in parts)):
        video = path.relative_to(root)
        name = video.with_suffix("").as_posix()
        counts[video.parts[0]] += 1
        if wanted is not None and name not in wanted:
            continue
        if path.stat().st_size == 0:
            left_out[str(path)] = "is an empty file"
            continue
        rows.append(Utterance(name, video=str(video), speaker=video.parts[2], split="train"))
    if not rows:
        raise ValueError(f"{root}: holds no clips{' of the list' if wanted else ''} (dev/mp4/<speaker>/<video>/<clip>.mp4).")
    remarks = differences(counts, {part: PUBLISHED[part] for part in parts})
    if wanted is not None:
        found = {row.id for row in rows} | {Path(path).relative_to(root).with_suffix("").as_posix() for path in left_out}
        absent = sorted(name for name in wanted - found if name.split("/")[0] in parts)
        left_out |= {str(root / f"{name}.mp4"): "is in the list of ids, and not there" for name in absent}
        remarks.append(f"{sum(counts.values()) - len(rows):,} of {sum(counts.values()):,} clips are not in the list of ids")
    return Reading(tuple(rows), left_out, tuple(remarks), root)


def _clips(root: Path, parts: Sequence[str]) -> Iterator[Path]:
    for part in parts:
        yield from sorted((root / part / "mp4").glob("*/*/*.mp4"))


def main(arguments: Sequence[str] | None = None) -> int:
    def add_options(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--ids", metavar="FILE", help="only clips of this list, such as vox-en.id.gz (English)")
        parser.add_argument("--parts", nargs="+", choices=list(PUBLISHED), default=list(PUBLISHED), help="which parts (default: both)")

    return command("voxceleb2", "Write the manifest of VoxCeleb2.", read, add_options, arguments)


if __name__ == "__main__":
    sys.exit(main())
