"""Libri2Mix (Cosentino et al., arXiv 2005.11262) for diarization (SD) and separation (SS).

    python -m preprocess.superb SD --root KALDI --out DIR
    python -m preprocess.superb SS --root Libri2Mix --out DIR

SD reads the Kaldi files that s3prl's LibriMix writes: ``{train,dev,test}/`` with ``wav.scp`` and ``rttm``, or, where there is no rttm,
``segments`` and ``utt2spk`` (in which segments of both speakers with the same times bear the same name). SS reads
``wav16k/min/{train-100,dev,test}/{mix_clean,s1,s2}/*.wav``.
"""

from pathlib import Path

from avtlm.data.manifest import Utterance
from preprocess.corpora.reading import find_root
from preprocess.corpora.sound_corpus import Listing, SoundCorpus, lines
from preprocess.superb.folder import divided

KALDI = {"train": "train", "dev": "valid", "test": "test"}
MIXED = {"train-100": "train", "dev": "valid", "test": "test"}
SIZES = {"train": 13_900, "dev": 3_000, "test": 3_000}

Segment = tuple[str, float, float]


def _kaldi(root: Path) -> Listing:
    root = find_root(root, tuple(KALDI))
    listing = Listing(root, published=SIZES)
    for part, split in KALDI.items():
        if not (root / part).is_dir():
            continue
        segments = _spoken(root / part)
        for name, path in (line.split(maxsplit=1) for line in lines(root / part / "wav.scp") if line.strip()):
            if name in segments:
                extra = {"part": part, "segments": [list(segment) for segment in segments[name]]}
                listing.rows.append(Utterance(name, audio=path.strip(), split=split, extra=extra))
            else:
                listing.left_out[path] = f"{part} lists no segment of it"
    return listing


def _spoken(folder: Path) -> dict[str, list[Segment]]:
    """Who speaks when, by mixture."""
    found: dict[str, list[Segment]] = {}
    if (folder / "rttm").is_file():
        for number, line in enumerate(lines(folder / "rttm"), 1):
            fields = line.split()
            if fields and fields[0] == "SPEAKER":
                start, length = _seconds(folder / "rttm", number, fields, 3)
                found.setdefault(fields[1], []).append((fields[7], start, start + length))
        return found
    speakers = dict(line.split(maxsplit=1) for line in lines(folder / "utt2spk") if line.strip())
    for number, line in enumerate(lines(folder / "segments"), 1):
        fields = line.split()
        if fields:
            start, end = _seconds(folder / "segments", number, fields, 2)
            found.setdefault(fields[1], []).append((speakers.get(fields[0], "").strip(), start, end))
    return found


def _seconds(path: Path, number: int, fields: list[str], first: int) -> tuple[float, float]:
    try:
        return float(fields[first]), float(fields[first + 1])
    except (ValueError, IndexError):
        raise ValueError(f"{path}, line {number}: {' '.join(fields)!r:.60} has no times where they belong.") from None


def _mixtures(root: Path) -> Listing:
    for place in (root, root / "Libri2Mix"):
        if (place / "wav16k" / "min").is_dir():
            root = place / "wav16k" / "min"
    root = find_root(root, tuple(MIXED))
    listing = Listing(root, published=SIZES)
    for part, split in MIXED.items():
        for mixture in sorted((root / part / "mix_clean").glob("*.wav")):
            sources = [root / part / name / mixture.name for name in ("s1", "s2")]
            lacking = next((source for source in sources if not source.is_file()), None)
            if lacking is not None:
                listing.left_out[str(lacking)] = "is not there, and its mixture is"
                continue
            extra = {"part": "train" if split == "train" else part, "sources": [str(source.resolve()) for source in sources]}
            listing.rows.append(Utterance(mixture.stem, audio=mixture.relative_to(root).as_posix(), split=split, extra=extra))
    return listing


SEGMENTED = SoundCorpus("libri2mix", "Libri2Mix", _kaldi)
MIXTURES = SoundCorpus("libri2mix", "Libri2Mix", _mixtures)


DIARIZATION = divided("SD", SEGMENTED, "segments")
SEPARATION = divided("SS", MIXTURES, "sources")
