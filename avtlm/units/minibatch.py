"""k-means of more frames than memory holds: mini-batches stream past, and a stopped fit goes on where its last state was saved.

The settings are those of HuBERT and AV-HuBERT (fairseq, examples/hubert/simple_kmeans; AV-HuBERT, clustering): k-means++, the best of 20
starts, at most 100 passes, an end after 100 mini-batches without improvement, and no reassignment of small clusters (ratio 0). The update
and the rule for the end are those of scikit-learn's MiniBatchKMeans (Sculley 2010), whose estimator cannot be saved in the middle without
a pickle; only its k-means++ is called. Where scikit-learn draws frames of one array, here a pass takes the utterances in a new random order
and shuffles the frames of several mini-batches at a time.
"""

import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from avtlm.data.seeds import seed_for
from avtlm.errors import needs
from avtlm.files import atomic_path
from avtlm.training.progress import bar
from avtlm.units.kmeans import KMeans, KMeansConfig

SHUFFLED_BATCHES = 5  # mini-batches whose frames are shuffled together; all that is in memory
SAVE_SECONDS = 60.0

# Features of a group of utterances by its number: (frames, dim) each.
Read = Callable[[int], Sequence[np.ndarray]]


@dataclass
class Progress:
    """Where a fit is.

    Attributes:
        centres, counts: float64 (clusters, dim), and the frames (clusters,) that each has seen.
        starts: finished ones; the best of them, whose mean squared distance is ``start``, gave the centres.
        passes: finished ones; ``position`` groups of the next are done.
        steps: mini-batches so far.
        average: moving average of the mean squared distance to the centres; ``best`` was its lowest, ``idle`` mini-batches ago.
    """

    centres: np.ndarray
    counts: np.ndarray
    starts: int = 0
    start: float | None = None
    passes: int = 0
    position: int = 0
    steps: int = 0
    average: float | None = None
    best: float | None = None
    idle: int = 0

    def save(self, path: Path, identity: str) -> None:
        """Atomically; ``identity`` says what is fitted on what."""
        numbers = {name: value for name, value in vars(self).items() if name not in ("centres", "counts")}
        with atomic_path(path) as temporary:
            tensors = {"centres": self.centres, "counts": self.counts}
            save_file(tensors, temporary, metadata={"identity": identity, "progress": json.dumps(numbers)})

    @staticmethod
    def load(path: Path, identity: str) -> "Progress | None":
        """None if there is no file, or one of another fit.

        Raises:
            ValueError: the file is damaged.
        """
        if not path.exists():
            return None
        try:
            with safe_open(path, framework="np") as file:
                metadata = file.metadata() or {}
                if metadata.get("identity") != identity:
                    return None
                return Progress(file.get_tensor("centres"), file.get_tensor("counts"), **json.loads(metadata["progress"]))
        except SafetensorError as error:
            raise ValueError(f"{path}: the state of a stopped fit cannot be read ({error}); delete it to begin again.") from error


def fit_stream(
    read: Read,
    groups: Sequence[int],
    frames: float,
    config: KMeansConfig,
    state: str | Path | None = None,
    identity: str = "",
    save_seconds: float = SAVE_SECONDS,
) -> tuple[KMeans, Progress]:
    """Cluster the frames of ``groups``; the clusters, and how far the fit went.

    Args:
        read: features of a group.
        groups: numbers of the groups to fit on.
        frames: how many frames they have together, about.
        config: of the clustering.
        state: file to save the progress in, and to go on from; None saves nothing.
        identity: of what is fitted; a state of another identity is not used.
        save_seconds: at least this long between two saves.

    Raises:
        ValueError: fewer frames than clusters, or frames that are not finite.
    """
    path = None if state is None else Path(state)
    save = _Saver(path, identity, save_seconds)
    progress = Progress.load(path, identity) if path is not None else None
    if progress is None or progress.starts < config.restarts:
        progress = _start(read, groups, config, progress, save)
    total = config.max_iterations * len(groups)
    done = progress.passes * len(groups) + progress.position
    with bar(f"k-means, at most {config.max_iterations} passes", total, done) as shown:
        while progress.passes < config.max_iterations and progress.idle < config.max_no_improvement:
            order = _order(groups, config.seed, "pass", progress.passes)
            before = progress.position
            block, progress.position = _block(read, order, before, SHUFFLED_BATCHES * config.batch_frames)
            rng = np.random.default_rng(seed_for(config.seed, "block", progress.passes, before))
            for batch in _batches(block, config.batch_frames, rng):
                _observe(progress, update(progress.centres, progress.counts, batch), len(batch), frames)
                if progress.idle >= config.max_no_improvement:
                    break
            advanced = progress.position - before
            if progress.position == len(order):
                progress.passes, progress.position = progress.passes + 1, 0
            save(progress)
            distance = "" if progress.average is None else f"mean squared distance {progress.average:.5g}, "
            shown.advance(advanced, f"{distance}{progress.idle} of {config.max_no_improvement} without improvement")
    return KMeans(progress.centres.astype(np.float32)), progress


def update(centres: np.ndarray, counts: np.ndarray, batch: np.ndarray) -> float:
    """Move centres to the mean of all frames they have seen, those of a mini-batch included, in place; its mean squared distance before.

    Args:
        centres, counts: float64 (clusters, dim) and (clusters,).
        batch: float32 (frames, dim).
    """
    clusters = KMeans(centres.astype(np.float32))
    labels = clusters.assign(batch)
    distance = float(((batch - clusters.centres[labels]) ** 2).sum(1, dtype=np.float64).mean())
    order = np.argsort(labels, kind="stable")
    found, first, number = np.unique(labels[order], return_index=True, return_counts=True)
    sums = np.add.reduceat(batch[order], first, axis=0, dtype=np.float64)
    counts[found] += number
    centres[found] += (sums - number[:, None] * centres[found]) / counts[found, None]
    return distance


def _observe(progress: Progress, distance: float, size: int, frames: float) -> None:
    """scikit-learn's rule: a moving average over about one pass; the first mini-batch is that of the start and does not count."""
    progress.steps += 1
    if progress.steps == 1:
        return
    weight = min(1.0, 2.0 * size / (frames + 1))
    progress.average = distance if progress.average is None else (1 - weight) * progress.average + weight * distance
    if progress.best is None or progress.average < progress.best:
        progress.best, progress.idle = progress.average, 0
    else:
        progress.idle += 1


class _Saver:
    """Saves a state, not too often; without a path it does nothing."""

    def __init__(self, path: Path | None, identity: str, seconds: float) -> None:
        self.path, self.identity, self.seconds, self.last = path, identity, seconds, time.monotonic()

    def __call__(self, progress: Progress) -> None:
        if self.path is not None and time.monotonic() - self.last >= self.seconds:
            progress.save(self.path, self.identity)
            self.last = time.monotonic()


def _start(read: Read, groups: Sequence[int], config: KMeansConfig, begun: Progress | None, save: _Saver) -> Progress:
    """The best of several k-means++ starts, on three mini-batches of frames (at least three frames a cluster), judged on as many others;
    ``begun`` has done some of them."""
    with needs("train", "scikit-learn", "k-means"):
        from sklearn.cluster import kmeans_plusplus

    size = 3 * max(config.batch_frames, config.clusters)
    pool, _ = _block(read, _order(groups, config.seed, "start", 0), 0, 2 * size)
    if len(pool) < config.clusters:
        raise ValueError(f"k-means: {len(pool)} frames for {config.clusters} clusters; give more data or ask for fewer clusters.")
    pool = pool[np.random.default_rng(seed_for(config.seed, "pool")).permutation(len(pool))].astype(np.float32)
    # A pool that is smaller than asked for is all there is; the starts are then judged on the frames they were drawn from.
    drawn, judged = (pool[:size], pool[size : 2 * size]) if len(pool) >= 2 * size else (pool, pool)
    progress = begun or Progress(np.zeros((config.clusters, pool.shape[1])), np.zeros(config.clusters))
    with bar("k-means++ starts", config.restarts, progress.starts) as shown:
        for restart in range(progress.starts, config.restarts):
            centres, _ = kmeans_plusplus(drawn, config.clusters, random_state=seed_for(config.seed, "restart", restart) % 2**32)
            distance = KMeans(centres).inertia(judged)
            if progress.start is None or distance < progress.start:
                progress.centres, progress.start = centres.astype(np.float64), distance
            progress.starts += 1
            save(progress)
            shown.advance()
    return progress


def _order(groups: Sequence[int], seed: int, *what: object) -> list[int]:
    rng = np.random.default_rng(seed_for(seed, *what))
    return [groups[place] for place in rng.permutation(len(groups)).tolist()]


def _block(read: Read, order: Sequence[int], position: int, frames: int) -> tuple[np.ndarray, int]:
    """Frames of the groups from ``position`` on, until there are enough or no groups are left; and the position behind them.

    Raises:
        ValueError: frames that are not finite.
    """
    parts: list[np.ndarray] = []
    while position < len(order) and sum(map(len, parts)) < frames:
        parts += read(order[position])
        position += 1
    block = np.concatenate(parts)
    if not np.isfinite(block).all():
        raise ValueError("k-means: features with NaN or infinity; check the model or the audio that they come from.")
    return block, position


def _batches(block: np.ndarray, size: int, rng: np.random.Generator) -> Iterator[np.ndarray]:
    """The frames of a block, shuffled, in mini-batches of nearly equal size near to ``size``."""
    for places in np.array_split(rng.permutation(len(block)), max(1, round(len(block) / size))):
        if len(places):
            yield block[places].astype(np.float32)
