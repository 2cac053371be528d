"""The noise of an evaluation, by the name a user gives it: a function of the clip and the seed alone, at every ratio and modality."""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from avtlm.data.dataset import ClipDataset
from avtlm.data.media import read_audio
from avtlm.data.noise import BabblePool
from avtlm.data.noise_files import read_noise_files
from avtlm.data.seeds import seed_for

VOICES = {"babble": 6, "speech": 1}  # clips of other speakers where there are no lists

Noise = Callable[[int, int], np.ndarray]  # number of the utterance, samples -> (samples,)


def make_noise(kind: str, dataset: ClipDataset, rows: Sequence[int], seed: int, folder: str | Path | None = None) -> Noise:
    """The noise of one kind.

    Args:
        kind: with ``folder``, one of its lists, such as ``music``; without, ``babble`` of six clips of other speakers of the rows (of the
            whole manifest if they are of one speaker), ``speech`` of one such clip; in any case ``white``, or a sound file, of which every
            clip has a part that begins at a random place.
        dataset: the clips that are evaluated.
        rows: their numbers.
        folder: holds ``<kind>/<split>.tsv``; the file behind a clip is drawn once, and cut from its start or repeated.

    Raises:
        ValueError: a kind that cannot be made, or no other speakers.
        MediaError: a sound file cannot be read.
    """
    ids = [row.id for row in dataset.manifest]
    if kind == "white":
        return lambda index, samples: np.random.default_rng(seed_for(seed, "white", ids[index])).standard_normal(samples)
    if Path(kind).is_file():
        return _part_of(read_audio(kind), ids, seed)
    if folder is not None:
        files = read_noise_files(folder, [kind], dataset.source.split or "test")
        return lambda index, samples: files.behind(kind, ids[index], samples, seed)
    if kind in VOICES:
        return _voices(kind, dataset, rows, seed)
    raise ValueError(
        f"noise: {kind!r} is neither {', '.join(VOICES)}, white nor a sound file that exists; "
        f"for recordings give the folder that has {kind}/test.tsv (--noise-dir; python -m preprocess.noise makes it)."
    )


def _part_of(sound: np.ndarray, ids: Sequence[str], seed: int) -> Noise:
    def part(index: int, samples: int) -> np.ndarray:
        start = int(np.random.default_rng(seed_for(seed, "part", ids[index])).integers(len(sound)))
        return np.roll(sound, -start)

    return part


def _voices(kind: str, dataset: ClipDataset, rows: Sequence[int], seed: int) -> Noise:
    manifest = dataset.manifest
    speakers = [row.speaker or row.id for row in manifest]
    lenders = dataset
    if len({speakers[i] for i in rows}) < 2:
        whole = dataclasses.replace(dataset.source, split=None)
        lenders, rows = (everybody := ClipDataset(whole, inputs=dataset.inputs, training=False)), range(len(everybody))
    heard = [i for i in rows if lenders.manifest[i].audio is not None]
    names = [lenders.manifest[i].speaker or lenders.manifest[i].id for i in heard]
    if len(set(names)) < 2:
        raise ValueError(
            f"{dataset.source.manifest}: {kind} is made of other speakers, and there is one only; give lists of noise (--noise-dir)."
        )
    pool = BabblePool([lenders.wave(i) for i in heard], names, VOICES[kind], seed)
    return lambda index, samples: pool.noise(manifest[index].id, speakers[index], samples)
