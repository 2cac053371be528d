"""MUSAN (Snyder et al., arXiv 1510.08484; openslr 17): music, speech and noise.

    python -m preprocess.corpora musan --root musan --out DIR

Read are all WAV files below ``music``, ``speech`` and ``noise``. The corpus has no splits; what a file is stands in ``extra["labels"]``.
This manifest is for looking at the corpus and for models that learn from any sound. For training and testing in noise,
``python -m preprocess.noise --musan DIR`` makes files and lists in the way of AV-HuBERT.
"""

import sys
from pathlib import Path

from avtlm.data.manifest import Utterance
from preprocess.corpora.reading import find_root
from preprocess.corpora.sound_corpus import Listing, SoundCorpus
from preprocess.noise import MUSAN_FILES


def lists(root: Path) -> Listing:
    """All files."""
    root = find_root(root, list(MUSAN_FILES))
    listing = Listing(root, published=MUSAN_FILES)
    for kind in MUSAN_FILES:
        for path in sorted((root / kind).rglob("*.wav")):
            place = path.relative_to(root)
            extra = {"part": kind, "labels": [kind]}
            listing.rows.append(Utterance(place.with_suffix("").as_posix(), audio=place.as_posix(), extra=extra))
    return listing


CORPUS = SoundCorpus("musan", "MUSAN", lists)
read, main = CORPUS.read, CORPUS.main

if __name__ == "__main__":
    sys.exit(main())
