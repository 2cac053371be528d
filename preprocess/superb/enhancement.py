"""VoiceBank-DEMAND (Valentini-Botinhao et al. 2016) for enhancement (SE).

    python -m preprocess.superb SE --root noisy-vctk-16k --out DIR

Read are ``{noisy,clean}_{trainset_28spk,testset}_wav_16k/*.wav`` (or the folders of the 48 kHz release, without ``_16k``; everything is
resampled when it is read). Dev is two of the 28 speakers of training, p226 and p287.
"""

from pathlib import Path

from avtlm.data.manifest import Utterance
from preprocess.corpora.reading import find_root
from preprocess.corpora.sound_corpus import Listing, SoundCorpus
from preprocess.superb.folder import divided

FOLDERS = {"trainset_28spk_wav": "train", "testset_wav": "test"}
DEV = ("p226", "p287")
PUBLISHED = {"train": 10_802, "valid": 770, "test": 824}


def _lists(root: Path) -> Listing:
    endings = ("_16k", "")
    root = find_root(root, [f"noisy_{name}{ending}" for name in FOLDERS for ending in endings])
    listing = Listing(root, published=PUBLISHED)
    for name, split in FOLDERS.items():
        ending = next((ending for ending in endings if (root / f"noisy_{name}{ending}").is_dir()), "")
        for noisy in sorted((root / f"noisy_{name}{ending}").glob("*.wav")):
            clean = root / f"clean_{name}{ending}" / noisy.name
            if not clean.is_file():
                listing.left_out[str(clean)] = "is not there, and its noisy one is"
                continue
            speaker = noisy.stem.partition("_")[0]
            own = "valid" if split == "train" and speaker in DEV else split
            extra = {"part": own, "clean": str(clean.resolve())}
            listing.rows.append(Utterance(noisy.stem, audio=noisy.relative_to(root).as_posix(), speaker=speaker, split=own, extra=extra))
    return listing


CORPUS = SoundCorpus("voicebank", "VoiceBank-DEMAND", _lists)


ENHANCEMENT = divided("SE", CORPUS, "clean")
