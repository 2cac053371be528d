"""What the page offers before anybody brings a clip: talking heads to choose from, and the voices that babble behind them.

They come from a corpus: the one that is named, the quickstart's, or a small one that is drawn and voiced when there is none.
"""

import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from avtlm.data.manifest import Manifest, Utterance, read_manifest
from avtlm.data.media import SAMPLE_RATE, read_audio, read_clip
from avtlm.data.noise import BabblePool

log = logging.getLogger(__name__)

CORPUS = Path("runs/quickstart/corpus")
SPARE_CORPUS = Path("runs/demo/corpus")  # made when there is no other
VIDEOS = {".mp4", ".m4v", ".mov", ".webm", ".mkv", ".avi", ".mpg"}
FEW_SPEAKERS = 4  # fewer in the test split, and all splits lend their voices to the babble


@dataclass(frozen=True)
class Example:
    """A clip to choose, with what is said in it."""

    path: Path
    id: str
    speaker: str
    transcript: str
    picture: np.ndarray  # uint8 (height, width, 3)


def example_corpus(given: Path | None) -> Path:
    """The manifest of the clips to choose from: the one asked for, the quickstart's, or a small one that is made now.

    Raises:
        FileNotFoundError: there is no such manifest.
        MissingExtra: a corpus has to be made and the extra is not installed.
    """
    if given is not None:
        manifest = given / "manifest.jsonl" if given.is_dir() else given
        if not manifest.exists():
            raise FileNotFoundError(f"{given}: there is no manifest.jsonl; name the folder of a corpus of videos with --corpus.")
        return manifest
    if (CORPUS / "manifest.jsonl").exists():
        return CORPUS / "manifest.jsonl"
    if not (SPARE_CORPUS / "manifest.jsonl").exists():
        from preprocess.corpora.talking_heads import generate

        log.info("drawing a few talking heads for the examples, once")
        generate(SPARE_CORPUS, size="smoke")
    return SPARE_CORPUS / "manifest.jsonl"


def pick_examples(manifest: str | Path, count: int = 8) -> list[Example]:
    """Clips of unseen speakers to choose from: the first of every speaker of the test split, then their second ones, and so on.

    Raises:
        ValueError: the corpus has no videos with transcripts in its test split.
    """
    corpus = read_manifest(manifest)
    ranks: dict[str, int] = {}
    rows: list[tuple[int, Utterance]] = []
    for row in corpus.split("test"):
        if row.video is not None and Path(row.video).suffix.lower() in VIDEOS and row.transcript:
            speaker = row.speaker or row.id
            ranks[speaker] = ranks.get(speaker, -1) + 1
            rows.append((ranks[speaker], row))
    if not rows:
        raise ValueError(f"{manifest}: the test split has no videos with transcripts to choose from; name another corpus with --corpus.")
    chosen = [row for _, row in sorted(rows, key=lambda pair: pair[0])[:count]]
    return [_example(corpus, row) for row in chosen]


def _example(corpus: Manifest, row: Utterance) -> Example:
    path = corpus.path(row.video)
    assert path is not None
    frames = read_clip(path, audio=False, colour=True).frames
    assert frames is not None
    return Example(path.resolve(), row.id, row.speaker or row.id, row.transcript or "", frames[len(frames) // 2])


def gather_voices(manifest: str | Path, each: int = 2, most: int = 40) -> BabblePool:
    """Background voices: some clips of every speaker of the test split, or of all splits if that has few speakers.

    Raises:
        ValueError: the corpus has no clips with sound.
    """
    corpus = read_manifest(manifest)
    test = corpus.split("test")
    rows = test if len({row.speaker for row in test}) >= FEW_SPEAKERS else corpus
    taken: dict[str, int] = {}
    waves: list[np.ndarray] = []
    speakers: list[str] = []
    for row in rows:
        path, speaker = corpus.path(row.audio or row.video), row.speaker or row.id
        if path is None or taken.get(speaker, 0) >= each or len(waves) >= most:
            continue
        taken[speaker] = taken.get(speaker, 0) + 1
        waves.append(read_audio(path, SAMPLE_RATE))
        speakers.append(speaker)
    if len(taken) < 2:
        raise ValueError(f"{manifest}: babble needs clips of at least two speakers; name another corpus with --corpus.")
    return BabblePool(waves, speakers)
