"""Recorded noise by kind and split, in AV-HuBERT's layout: ``<folder>/<kind>/<split>.tsv`` with the path of one sound file a line.

The kinds of the published experiments (arXiv 2201.01763) are babble, music, noise and speech; ``all`` is their union. A list may also be
a manifest, ``<folder>/<kind>/manifest.jsonl`` with splits in its rows. `preprocess.noise` makes the lists from MUSAN and LRS3.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import soundfile

from avtlm.data.manifest import SPLITS, read_manifest
from avtlm.data.media import SAMPLE_RATE, MediaError, read_audio
from avtlm.data.noise import mean_noise
from avtlm.data.seeds import seed_for

KINDS = ("babble", "music", "noise", "speech")
STEPS = 32768.0  # of int16 in 1.0


@dataclass(frozen=True)
class NoiseFiles:
    """Sound files by kind of noise. Every kind is as likely as any other, whatever the number of its files."""

    files: Mapping[str, tuple[Path, ...]]

    def draw(self, rng: np.random.Generator, samples: int, count: int = 1) -> np.ndarray:
        """A random file of a random kind, or the mean of ``count`` such files: float32 of at most ``samples``, in steps of int16.

        Raises:
            MediaError: a file cannot be read.
        """
        kinds = sorted(self.files)
        chosen = []
        for _ in range(count):
            paths = self.files[kinds[int(rng.integers(len(kinds)))]]
            chosen.append(read_noise(paths[int(rng.integers(len(paths)))], samples))
        return mean_noise(chosen)

    def behind(self, kind: str, clip_id: str, samples: int, seed: int) -> np.ndarray:
        """The noise of an evaluation: the file depends on the seed, the kind and the clip alone; float32 of at most ``samples``.

        Raises:
            MediaError: the file cannot be read.
        """
        paths = self.files[kind]
        return read_noise(paths[seed_for(seed, "noise file", kind, clip_id) % len(paths)], samples)


def read_noise(path: Path, samples: int) -> np.ndarray:
    """The start of a sound file at 16 kHz: float32 (at most ``samples``,) in steps of int16. Only what is needed is read.

    Raises:
        MediaError: the file cannot be read or is empty.
    """
    try:
        with soundfile.SoundFile(str(path)) as file:
            plain = file.samplerate == SAMPLE_RATE and file.channels == 1
            sound = file.read(samples, dtype="float32") if plain else None
    except (soundfile.SoundFileError, RuntimeError):  # not for libsndfile; FFmpeg may know it, or says what is wrong
        sound = None
    if sound is None:
        sound = read_audio(path)[:samples]
    if len(sound) == 0:
        raise MediaError(path, "is an empty sound file; take it out of the list of noises.")
    return sound * np.float32(STEPS)


def read_noise_files(folder: str | Path, kinds: Sequence[str] = KINDS, split: str = "train") -> NoiseFiles:
    """The lists of some kinds of noise for one split.

    Args:
        folder: holds ``<kind>/<split>.tsv`` (one path a line, without header; relative paths start at the folder of the list) or
            ``<kind>/manifest.jsonl``.
        kinds: names of folders.
        split: ``train``, ``valid`` or ``test``.

    Raises:
        ValueError: a list is missing, empty, or names a file that does not exist.
        ManifestError: a manifest cannot be read.
    """
    return NoiseFiles({kind: _read_list(Path(folder), kind, split) for kind in kinds})


def _read_list(folder: Path, kind: str, split: str) -> tuple[Path, ...]:
    listed, manifest = folder / kind / f"{split}.tsv", folder / kind / "manifest.jsonl"
    if listed.is_file():
        source = listed
        names = [line.split("\t")[0].strip() for line in listed.read_text(encoding="utf-8").splitlines()]
        paths = [listed.parent / name for name in names if name]
    elif manifest.is_file():
        source = manifest
        rows = read_manifest(manifest)
        paths = [rows.path(row.audio) for row in rows.split(split) if row.audio is not None]
    else:
        there = sorted({path.parent.name for kind_split in SPLITS for path in folder.glob(f"*/{kind_split}.tsv")})
        found = f"it has lists of {', '.join(there)}" if there else "it has no lists of noise"
        raise ValueError(f"{listed} does not exist ({found}); name another kind or make it with: python -m preprocess.noise.")
    if not paths:
        raise ValueError(f"{source} lists no sound files for the split {split}; list some, or take {kind} out of the kinds of noise.")
    missing = next((path for path in dict.fromkeys(paths) if not path.is_file()), None)  # a combined list names files many times
    if missing is not None:
        raise ValueError(f"{source} lists {missing}, which does not exist; make the list again where the files are now.")
    return tuple(paths)
