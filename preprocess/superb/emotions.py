"""IEMOCAP (Busso et al. 2008) for emotion recognition (ER): neutral, happy, angry and sad, five folds.

    python -m preprocess.superb ER --root IEMOCAP_full_release --out DIR

Read are ``Session<n>/dialog/EmoEvaluation/*.txt`` and ``Session<n>/sentences/wav/*/*.wav``. Excited counts as happy, as in s3prl; other
emotions, and clips without agreement, are not used. The fold of a clip is its session, which is the test of that fold.
"""

import re
from pathlib import Path

from avtlm.data.manifest import Utterance
from preprocess.corpora.reading import find_root
from preprocess.corpora.sound_corpus import Listing, SoundCorpus
from preprocess.superb.folder import Preparation, Prepared, row

SESSIONS = range(1, 6)
LABELS = {"neu": "neu", "hap": "hap", "exc": "hap", "ang": "ang", "sad": "sad"}
PUBLISHED = 5_531
LINE = re.compile(r"\[[^\]]*\]\t(\S+)\t(\S+)")  # times, name of the clip, emotion


def _lists(root: Path) -> Listing:
    root = find_root(root, [f"Session{session}" for session in SESSIONS])
    listing = Listing(root, published={"four emotions": PUBLISHED})
    for session in SESSIONS:
        folder = root / f"Session{session}"
        files = {path.stem: path for path in sorted((folder / "sentences" / "wav").glob("*/Ses*.wav"))}
        for path in sorted((folder / "dialog" / "EmoEvaluation").glob("Ses*.txt")):
            for name, emotion in LINE.findall(path.read_text(encoding="utf-8", errors="replace")):
                if emotion not in LABELS:
                    continue
                if name not in files:
                    listing.left_out[str(folder / "sentences" / "wav" / f"{name}.wav")] = f"is in {path.name}, and not there"
                    continue
                speaker = f"Ses{session:02d}{name.rpartition('_')[2][:1]}"
                extra = {"part": "four emotions", "label": LABELS[emotion], "fold": session}
                listing.rows.append(Utterance(name, audio=files[name].relative_to(root).as_posix(), speaker=speaker, extra=extra))
    return listing


CORPUS = SoundCorpus("iemocap", "IEMOCAP", _lists)


def _prepare(root: Path, out: Path, workers: int | None) -> Prepared:
    reading = CORPUS.read(root, workers=workers)
    clips = [row(utterance, reading, out, label=utterance.extra["label"], fold=utterance.extra["fold"]) for utterance in reading.rows]
    return Prepared({"train": clips}, (), {}, reading.left_out, reading.remarks)


EMOTIONS = Preparation("ER", "IEMOCAP", ("train",), _prepare)
