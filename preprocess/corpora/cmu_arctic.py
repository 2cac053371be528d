"""CMU Arctic (Kominek and Black 2004, SSW5): speakers who read the same 1,132 sentences; for converting voices.

    python -m preprocess.corpora cmu_arctic --root ARCTIC --out DIR [--speakers bdl clb rms slt] [--target slt]

Read are ``cmu_us_<speaker>_arctic/wav/<prompt>.wav`` and ``cmu_us_<speaker>_arctic/etc/txt.done.data``. Splits go by the prompts, the same
for all speakers: of all 1,132 in their order the first 932 train, 100 validate and 100 are the test (SpeechT5, section 4.4, and the
recipes that it follows). With ``--target`` the rows of the other speakers name that one's reading of the sentence (``extra["target"]``),
which is what training and evaluation of conversion take.
"""

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path

from avtlm.data.manifest import Utterance
from preprocess.corpora.sound_corpus import Listing, SoundCorpus, lines

PROMPT = re.compile(r'\(\s*(arctic_[ab]\d{4})\s+"(.*)"\s*\)')
PUBLISHED = 1132  # prompts of every speaker: a0001 to a0593, b0001 to b0539; some speakers lack a few
LAST = {"arctic_b0339": "train", "arctic_b0439": "valid", "arctic_b0539": "test"}  # the last prompt of every split


def lists(root: Path, speakers: Sequence[str] | None = None, target: str | None = None) -> Listing:
    """Prompts of some speakers; None takes all that are there.

    Raises:
        ValueError: no speakers, or not the one that is asked for.
    """
    places = {path.name.split("_")[2]: path for path in sorted(root.glob("cmu_us_*_arctic")) if path.is_dir()}
    if not places and root.is_dir() and re.fullmatch(r"cmu_us_\w+_arctic", root.name):
        places, root = {root.name.split("_")[2]: root}, root.parent
    wanted = list(places) if speakers is None else list(speakers)
    lacking = [name for name in (*wanted, *([target] if target else [])) if name not in places]
    if not places or lacking:
        what = f"of {lacking[0]}" if lacking else "of any speaker"
        raise ValueError(f"{root}: has no folder cmu_us_<speaker>_arctic {what}; give the folder above those of the speakers.")
    if target and target not in wanted:
        wanted.append(target)
    listing = Listing(root, published=dict.fromkeys(wanted, PUBLISHED))
    for speaker in wanted:
        _add_speaker(listing, speaker, places[speaker])
    if target:
        there = {row.id for row in listing.rows}
        for row in listing.rows:
            goal = f"{target}/{row.id.partition('/')[2]}"
            if row.speaker != target and goal in there:
                row.extra["target"] = goal
        if alone := sum(row.speaker != target and "target" not in row.extra for row in listing.rows):
            listing.remarks.append(f"{alone} sentences were not read by {target}; they have no target")
    return listing


def _add_speaker(listing: Listing, speaker: str, folder: Path) -> None:
    there = {path.stem for path in folder.glob("wav/*.wav")}
    for number, line in enumerate(lines(folder / "etc" / "txt.done.data"), 1):
        prompt = PROMPT.fullmatch(line.strip())
        if prompt is None:
            if line.strip():
                listing.left_out[f"{folder / 'etc' / 'txt.done.data'}, line {number}"] = f"is {line.strip()!r:.60}, not a prompt"
            continue
        name, text = prompt[1], prompt[2].strip()
        there.discard(name)
        split = next((split for last, split in LAST.items() if name <= last), "test")
        audio, extra = f"{folder.name}/wav/{name}.wav", {"part": speaker}
        listing.rows.append(Utterance(f"{speaker}/{name}", audio=audio, transcript=text, speaker=speaker, split=split, extra=extra))
    listing.left_out |= {str(folder / "wav" / f"{name}.wav"): "has no line in txt.done.data" for name in sorted(there)}


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--speakers", nargs="+", metavar="NAME", help="such as bdl clb rms slt (default: those there)")
    parser.add_argument("--target", metavar="NAME", help="whose readings are the targets of conversion")


CORPUS = SoundCorpus("cmu_arctic", "CMU Arctic", lists, add_options)
read, main = CORPUS.read, CORPUS.main

if __name__ == "__main__":
    sys.exit(main())
