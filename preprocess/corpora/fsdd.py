"""The Free Spoken Digit Dataset (Jackson et al., github.com/Jakobovski/free-spoken-digit-dataset): six speakers say ten digits 50 times.

    python -m preprocess.corpora fsdd --root FSDD --out DIR

Read is ``recordings/<digit>_<speaker>_<take>.wav`` (or the files themselves). Takes 0 to 4 are the test, as its README has it, the others
train. The word of the digit is the transcript and the label.
"""

import re
import sys
from pathlib import Path

from avtlm.data.manifest import Utterance
from preprocess.corpora.sound_corpus import Listing, SoundCorpus
from preprocess.synthesis.sentences import DIGITS

NAME = re.compile(r"(\d)_([A-Za-z0-9]+)_(\d+)")
PUBLISHED = {"train": 2_700, "test": 300}
TESTED = 5  # takes of every digit and speaker


def lists(root: Path) -> Listing:
    """All recordings."""
    listing = Listing(root, published=PUBLISHED)
    folder = next((root / name for name in ("recordings", "free-spoken-digit-dataset/recordings") if (root / name).is_dir()), root)
    for path in sorted(folder.glob("*.wav")):
        found = NAME.fullmatch(path.stem)
        if found is None:
            listing.left_out[str(path)] = "its name is not <digit>_<speaker>_<take>.wav"
            continue
        word, split = DIGITS[int(found[1])], "test" if int(found[3]) < TESTED else "train"
        audio, extra = path.relative_to(root).as_posix(), {"part": split, "labels": [word]}
        listing.rows.append(Utterance(path.stem, audio=audio, transcript=word, speaker=found[2], split=split, extra=extra))
    return listing


CORPUS = SoundCorpus("fsdd", "the Free Spoken Digit Dataset", lists)
read, main = CORPUS.read, CORPUS.main

if __name__ == "__main__":
    sys.exit(main())
