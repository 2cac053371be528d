"""GRID: 34 talkers who each say 1,000 sentences of six words (Cooke et al. 2006, JASA 120).

    python -m preprocess.corpora grid --root GRID --out DIR [--protocol overlapped|unseen|one_talker] [--talker s1]

Any of the layouts in use is read: ``s1/*.mpg`` (Zenodo), ``s1/video/mpg_6000/*.mpg`` (Sheffield; the larger picture is taken where there
are two), clips with their ``.align`` beside them, alignments in ``s1/align/``, ``alignments/s1/`` or in an ``alignments*.tar.gz`` at the
top.

What is unusual here: the name of a clip is its transcript (``bbaf2n`` is "bin blue at f two now"), so a missing alignment costs only the
times of the words, and one that says something else is an error of the data: such a clip is listed and left out. A code is not unique
across talkers; ids are ``s1_bbaf2n``.
"""

import argparse
import re
import sys
import tarfile
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from avtlm.data.manifest import Utterance
from avtlm.data.seeds import seed_for
from preprocess.clips import VIDEO_FILES
from preprocess.corpora.reading import Reading, command

WORDS = (
    {"b": "bin", "l": "lay", "p": "place", "s": "set"},
    {"b": "blue", "g": "green", "r": "red", "w": "white"},
    {"a": "at", "b": "by", "i": "in", "w": "with"},
    {letter: letter for letter in "abcdefghijklmnopqrstuvxyz"},
    dict(zip("z123456789", ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"), strict=True)),
    {"a": "again", "n": "now", "p": "please", "s": "soon"},
)
SILENCES = ("sil", "sp")
TICKS = 25000.0  # of an alignment, per second
CLIPS, TALKERS = 1000, 34
WITHOUT_VIDEO = ("s21",)
LARGEST = 100_000  # bytes of an alignment; more is none, whatever an archive says that it is called
UNSEEN = ("s1", "s2", "s20", "s22")  # test talkers of the usual protocol with unseen speakers
OVERLAPPED = 255  # test sentences of every talker in LipNet's protocol (arXiv 1611.01599)
PROTOCOLS = ("overlapped", "unseen", "one_talker")
# Test sentences of the protocol one_talker where s1 is the talker, drawn once and for all; other talkers have 100 drawn by their names.
HELD_OUT = """
bbaszn bbir8p bbiz1s bgaa6n bgbb1s bgbn9s bgbozp bgwb4n bgwb5s bram2n brbtzn briz7s brwg8p brwg9a bwat3s bwbg8n bwbg9s lbak1s lbax8n
lbayzp lbbq8n lbid5a lbiq1s lbiq2p lbwe4n lgal8n lgbgzp lgbm4p lgwm7s lrak7s lrbr4n lrid9s lriy1s lrwl4n lrwszp lwal2n lwal3s lwal4p
lwaz3a lwazzn lwbl6n lwie5s lwwf7s lwwm1s lwwz8n pbai4n pbai5s pbbc7a pbbp4p pbib9a pbwj5a pbwp6n pgaezp pgaq9a pgbk8p pgid6p pgikzp
pgwe6n pgwr7a praj1s praxzp prbd1s prbp8n prbp9s prbqzp prbx4p pric3s prwd7a prwk1a pwbd8p pwic8n pwij2n pwix3a pwwy3s sbah1a sbba9s
sbbu3a sbia1s sbig7a sbwb5a sbwo3a sgai6n sgic1a sgiczp sgii4p sgwd1s sran9s srbb4n srbo3s srih1s sriu1a srwb9s srwi3s swbczn swbp1a
swio3a swiu4n swiu6p swwc4n swwc6p
"""
HELD_OUT_COUNT, VALID_COUNT = 100, 40
VALID_SHARE = 0.05


def transcript_of(code: str) -> str | None:
    """The sentence that a clip's name stands for; None if it is no name of GRID."""
    if len(code) != len(WORDS) or any(letter not in table for letter, table in zip(code, WORDS, strict=True)):
        return None
    return " ".join(table[letter] for letter, table in zip(code, WORDS, strict=True))


def read_alignment(lines: Iterable[str]) -> list[tuple[str, float, float]]:
    """Words with start and end in seconds, without silences, in the order of time.

    Raises:
        ValueError: a line that is not ``start end word``.
    """
    entries = []
    for number, line in enumerate(lines, 1):
        parts = line.split()
        if not parts:
            continue
        if len(parts) != 3 or not parts[0].isdigit() or not parts[1].isdigit():
            raise ValueError(f"line {number} is {line.strip()!r}, not 'start end word'")
        entries.append((int(parts[0]), int(parts[1]), parts[2]))
    return [(word, start / TICKS, end / TICKS) for start, end, word in sorted(entries) if word not in SILENCES]


def read(root: str | Path, protocol: str = "overlapped", talker: str = "s1") -> Reading:
    """All usable clips below a folder, with transcripts, times of words (``extra["words"]``) and splits.

    Args:
        root: folder of the corpus.
        protocol: ``overlapped`` (255 test sentences of every talker), ``unseen`` (talkers 1, 2, 20 and 22 are the test) or ``one_talker``
            (train on one; the test is 100 of their sentences and all clips of the others). Validation is 5 % of what is left for training,
            40 sentences in ``one_talker``. Sentences are drawn by a hash of their ids, so that everybody has the same splits.
        talker: of ``one_talker``.

    Raises:
        ValueError: an unknown protocol, no clips, or none of the talker.
    """
    if protocol not in PROTOCOLS:
        raise ValueError(f"protocol: {protocol!r} is unknown; choose one of {', '.join(PROTOCOLS)}.")
    root = Path(root)
    clips, left_out, doubles = _find(root)
    if not clips:
        raise ValueError(f"{root}: holds no clips of GRID (s1/bbaf2n.mpg or the like); give the folder above those of the talkers.")
    alignments = _alignments(root)
    rows, without = [], 0
    for (speaker, code), path in sorted(clips.items()):
        text, extra = transcript_of(code), {}
        found = alignments.get((speaker, code))
        if found is None:
            without += 1
        else:
            place, lines = found
            try:
                words = read_alignment(lines)
            except ValueError as error:
                left_out[str(path)] = f"its alignment {place} is damaged: {error}"
                continue
            said = " ".join(word for word, _, _ in words)
            if said != text:
                left_out[str(path)] = f"its name says {text!r}, its alignment {place} {said!r}"
                continue
            extra = {"words": [[word, round(start, 4), round(end, 4)] for word, start, end in words]}
        rows.append(Utterance(f"{speaker}_{code}", video=str(path.relative_to(root)), transcript=text, speaker=speaker, extra=extra))
    counts = Counter(row.speaker or "" for row in rows)
    if protocol == "one_talker" and talker not in counts:
        raise ValueError(f"{root}: has no clips of talker {talker}, but of {', '.join(sorted(counts, key=_number))}; name one of them.")
    split = _splits(rows, protocol, talker)
    rows = [Utterance(**{**vars(row), "split": split[row.id]}) for row in rows]
    return Reading(tuple(rows), left_out, tuple(_remarks(counts, without, doubles)))


def _find(root: Path) -> tuple[dict[tuple[str, str], Path], dict[str, str], int]:
    """Clips by talker and code, files that are no clips of GRID, and how many clips were there twice."""
    clips: dict[tuple[str, str], Path] = {}
    strange: dict[str, str] = {}
    doubles = 0
    for path in sorted(root.rglob("*")):
        if path.suffix.lower() not in VIDEO_FILES or any(part.startswith(".") for part in path.relative_to(root).parts):
            continue
        talkers = [part for part in path.relative_to(root).parts[:-1] if re.fullmatch(r"s\d{1,2}", part)]
        if not talkers:
            strange[str(path)] = "no folder above it is named after a talker (s1 to s34)"
        elif transcript_of(path.stem) is None:
            strange[str(path)] = "its name is no sentence of GRID"
        else:
            key = talkers[0], path.stem
            doubles += key in clips
            if key not in clips or "mpg_6000" in path.parts:
                clips[key] = path
    return clips, strange, doubles


def _alignments(root: Path) -> dict[tuple[str, str], tuple[str, list[str]]]:
    """Lines of the alignments by talker and code, with where they were found. Files count before archives."""
    found: dict[tuple[str, str], tuple[str, list[str]]] = {}
    for archive in sorted(root.glob("alignments*.tar*")):
        with tarfile.open(archive) as handle:
            for member in handle:
                key = _key(Path(member.name))
                content = handle.extractfile(member) if key and member.isfile() and member.size <= LARGEST else None
                if key and content is not None:
                    found[key] = f"{archive.name}:{member.name}", content.read().decode("utf-8", "replace").splitlines()
    for path in sorted(root.rglob("*.align")):
        key = _key(path.relative_to(root))
        if key:
            found[key] = str(path), path.read_text(encoding="utf-8", errors="replace").splitlines()
    return found


def _key(path: Path) -> tuple[str, str] | None:
    talkers = [part for part in path.parts[:-1] if re.fullmatch(r"s\d{1,2}", part)]
    return (talkers[-1], path.stem) if talkers and path.suffix == ".align" else None


def _splits(rows: list[Utterance], protocol: str, talker: str) -> dict[str, str]:
    chosen: dict[str, str] = {}
    for speaker in sorted({row.speaker or "" for row in rows}):
        own = sorted((row.id for row in rows if row.speaker == speaker), key=lambda name: seed_for("GRID", protocol, name))
        if protocol == "unseen":
            test = set(own) if speaker in UNSEEN else set()
        elif protocol == "overlapped":
            # By rank among all 1,000 where they are there; a part of the corpus keeps the share.
            test = set(own[: round(OVERLAPPED / CLIPS * len(own))])
        elif speaker != talker:
            test = set(own)
        else:
            fixed = [f"s1_{code}" for code in HELD_OUT.split()] if talker == "s1" else own[:HELD_OUT_COUNT]
            test = set(own) & set(fixed)
        rest = [name for name in own if name not in test]
        valid = set(rest[: VALID_COUNT if protocol == "one_talker" else round(VALID_SHARE * len(rest))])
        chosen |= {name: "test" if name in test else "valid" if name in valid else "train" for name in own}
    return chosen


def _remarks(counts: Counter[str], without: int, doubles: int) -> list[str]:
    remarks = []
    missing = [name for number in range(1, TALKERS + 1) if (name := f"s{number}") not in counts and name not in WITHOUT_VIDEO]
    if missing:
        remarks.append(f"{len(missing)} of {TALKERS - len(WITHOUT_VIDEO)} talkers with video are missing: {' '.join(missing)}")
    short = [f"{name} {counts[name]}" for name in sorted(counts, key=_number) if counts[name] != CLIPS]
    if short:
        remarks.append(f"talkers without their {CLIPS:,} clips: {', '.join(short)}")
    if without:
        remarks.append(f"{without} clips have no alignment; their transcript is their name, and their words have no times")
    if doubles:
        remarks.append(f"{doubles} clips are there in two sizes; the larger was taken")
    return remarks


def _number(speaker: str) -> int:
    return int(speaker[1:])


def main(arguments: Sequence[str] | None = None) -> int:
    def add_options(parser: argparse.ArgumentParser) -> None:
        parser.add_argument("--protocol", choices=PROTOCOLS, default="overlapped", help="how it is split (default: overlapped)")
        parser.add_argument("--talker", default="s1", metavar="NAME", help="of one_talker (default: s1)")

    return command("grid", "Write the manifest of GRID.", read, add_options, arguments)


if __name__ == "__main__":
    sys.exit(main())
