"""AISHELL-1 (Bu et al., arXiv 1709.05522): 178 hours of Mandarin, read by 400 speakers.

    python -m preprocess.corpora aishell1 --root data_aishell --out DIR

Read is the release as it is unpacked: ``wav/{train,dev,test}/<speaker>/<id>.wav`` and ``transcript/aishell_transcript_v0.8.txt``, whose
lines are ids and words with spaces between. The speakers are archives within the archive, which have to be unpacked as well. Splits are the
folders, dev being ``valid``. A few sounds have no transcript and a few hundred transcripts no sound: all are listed in ``left_out.tsv``.
"""

import re
import sys
from pathlib import Path

from preprocess.corpora.aishell import SPLITS, read_pairs, row, speakers_missing
from preprocess.corpora.reading import find_root
from preprocess.corpora.sound_corpus import Listing, SoundCorpus

LIST = "transcript/aishell_transcript_v0.8.txt"
PUBLISHED = {"train": 120_098, "dev": 14_326, "test": 7_176}
SPEAKERS = {"train": 340, "dev": 40, "test": 20}


def lists(root: Path) -> Listing:
    """All sounds that have a transcript.

    Raises:
        ValueError: no AISHELL-1 there, or archives of speakers that are not unpacked.
    """
    root = find_root(root, ("transcript",))
    transcripts = read_pairs(root / LIST)
    found = Listing(root, published=PUBLISHED)
    heard = set()
    for part in SPLITS:
        for path in sorted((root / "wav" / part).glob("*/*.wav")):
            name, audio = path.stem, path.relative_to(root).as_posix()
            heard.add(name)
            try:
                if name not in transcripts:
                    raise ValueError(f"has no line in {LIST}")
                found.rows.append(row(name, audio, transcripts[name], path.parent.name, part))
            except ValueError as error:
                found.left_out[str(path)] = str(error)
    archives = sorted((root / "wav").glob("*.tar.gz"))
    if archives and not heard:
        raise ValueError(f"{root / 'wav'}: its {len(archives)} archives such as {archives[0].name} are not unpacked; unpack each there.")
    unpacked = {path.name for part in SPLITS for path in (root / "wav" / part).glob("*")}
    packed = [path.name for path in archives if path.name.removesuffix(".tar.gz") not in unpacked]
    if packed:
        found.remarks.append(f"{len(packed)} archives of speakers such as {packed[0]} are not unpacked")
    for name in sorted(set(transcripts) - heard):
        speaker = re.search(r"S\d{4}", name)
        found.left_out[f"{root / 'wav'}/*/{speaker[0] if speaker else '*'}/{name}.wav"] = "has a transcript, and is not there"
    found.remarks += speakers_missing(found.rows, SPEAKERS)
    return found


CORPUS = SoundCorpus("aishell1", "AISHELL-1", lists)
main = CORPUS.main

if __name__ == "__main__":
    sys.exit(main())
