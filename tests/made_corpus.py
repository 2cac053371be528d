"""A corpus that can be learned in seconds: every letter is a tone in the sound and a bar in the picture.

A letter lasts five frames (0.2 s). Its unit is its number in the alphabet, its phone is the letter itself.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from avtlm.data.manifest import Manifest, Utterance, write_manifest
from avtlm.data.media import write_wav
from avtlm.units.labels import write_labels

LETTERS = "abcdef"
FRAMES = 5


@dataclass(frozen=True)
class MadeCorpus:
    """Manifests of clips with picture and sound, of sound alone and of text alone; unit labels for all of them in one file."""

    clips: Path
    sound: Path
    text: Path
    units: Path


def make_corpus(folder: Path, count: int = 12, seed: int = 0) -> MadeCorpus:
    """``count`` rows of each kind; a sixth of the clips are of split ``valid``."""
    rng = np.random.default_rng(seed)
    parts: dict[str, list[Utterance]] = {"clips": [], "sound": [], "text": []}
    labels = {}
    for kind, rows in parts.items():
        (folder / kind).mkdir(parents=True)
        for index in range(count):
            letters = "".join(rng.choice(list(LETTERS), size=int(rng.integers(3, 7))))
            name, frames = f"{kind}{index:02d}", FRAMES * len(letters)
            labels[name] = np.repeat([LETTERS.index(letter) for letter in letters], FRAMES).astype(np.int32)
            phones = " ".join(f"{letter}:{0.2 * i:.2f}:{0.2 * (i + 1):.2f}" for i, letter in enumerate(letters))
            row = {"transcript": letters, "phones": phones, "speaker": f"s{index % 4}", "split": "valid" if index % 6 == 5 else "train"}
            if kind != "text":
                write_wav(folder / kind / f"{name}.wav", _tones(letters, rng))
                row |= {"audio": f"{name}.wav", "audio_samples": 640 * frames}
            if kind == "clips":
                np.save(folder / kind / f"{name}.npy", _bars(letters, rng))
                row |= {"video": f"{name}.npy", "video_frames": frames}
            rows.append(Utterance(name, **row))
        write_manifest(folder / kind / "manifest.jsonl", Manifest(folder / kind, tuple(rows)))
    write_labels(folder / "all.units", labels)
    return MadeCorpus(*(folder / kind / "manifest.jsonl" for kind in parts), folder / "all.units")


def _tones(letters: str, rng: np.random.Generator) -> np.ndarray:
    time = np.arange(640 * FRAMES) / 16000
    tones = [np.sin(2 * np.pi * (300 + 500 * LETTERS.index(letter)) * time) for letter in letters]
    wave = 0.3 * np.concatenate(tones)
    return (wave + rng.normal(0, 0.01, len(wave))).astype(np.float32)


def _bars(letters: str, rng: np.random.Generator) -> np.ndarray:
    crops = rng.integers(90, 120, (FRAMES * len(letters), 96, 96), dtype=np.uint8)
    for index, letter in enumerate(letters):
        top = 12 + 12 * LETTERS.index(letter)
        crops[FRAMES * index : FRAMES * (index + 1), top : top + 10] = 230
    return crops
