"""k-means by mini-batches that stream: scikit-learn's update, the same after a stop, as good as with all frames in memory."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.cluster import MiniBatchKMeans

from avtlm.units import minibatch
from avtlm.units.kmeans import KMeans, KMeansConfig, fit
from avtlm.units.minibatch import Progress, fit_stream, update

SMALL = KMeansConfig(clusters=6, batch_frames=40, restarts=4, max_iterations=6)


def corpus(seed: int = 0, groups: int = 24, clusters: int = 6, spread: float = 0.1) -> list[list[np.ndarray]]:
    """Groups of utterances around shared centres."""
    rng = np.random.default_rng(seed)
    centres = 10 * rng.normal(size=(clusters, 4))

    def utterance() -> np.ndarray:
        which = rng.integers(0, clusters, int(rng.integers(5, 30)))
        return (centres[which] + rng.normal(0, spread, (len(which), 4))).astype(np.float16)

    return [[utterance() for _ in range(int(rng.integers(1, 4)))] for _ in range(groups)]


def together(groups: Sequence[Sequence[np.ndarray]]) -> np.ndarray:
    return np.concatenate([frames for group in groups for frames in group]).astype(np.float32)


class KilledError(Exception):
    """Stands for a kill: nothing is saved when it comes."""


def test_updates_are_those_of_scikit_learn() -> None:
    rng = np.random.default_rng(0)
    start = rng.normal(size=(5, 3)).astype(np.float32)
    theirs = MiniBatchKMeans(5, init=start.astype(np.float64), n_init=1, reassignment_ratio=0.0, batch_size=64, compute_labels=False)
    centres, counts = start.astype(np.float64), np.zeros(5)
    for _ in range(12):
        batch = rng.normal(size=(64, 3)).astype(np.float32)
        theirs.partial_fit(batch.astype(np.float64))
        update(centres, counts, batch)
    np.testing.assert_allclose(centres, theirs.cluster_centers_, rtol=1e-6, atol=1e-7)
    assert counts.sum() == 12 * 64


def test_a_centre_is_the_mean_of_all_frames_it_has_seen_and_an_unseen_one_stays() -> None:
    centres, counts = np.array([[0.0], [10.0], [99.0]]), np.zeros(3)
    distance = update(centres, counts, np.array([[1.0], [2.0], [9.0]], np.float32))
    assert distance == pytest.approx((1 + 4 + 1) / 3)
    assert centres.ravel().tolist() == [1.5, 9.0, 99.0]
    update(centres, counts, np.array([[4.5]], np.float32))
    assert centres.ravel().tolist() == [2.5, 9.0, 99.0]
    assert counts.tolist() == [3, 1, 0]


def test_a_stream_finds_the_clusters_that_memory_finds() -> None:
    groups = corpus()
    everything = together(groups)
    streamed, progress = fit_stream(groups.__getitem__, range(len(groups)), len(everything), SMALL)
    whole = fit(everything, SMALL)
    assert streamed.inertia(everything) < 1.02 * whole.inertia(everything)
    pairs = {(int(a), int(b)) for a, b in zip(streamed.assign(everything), whole.assign(everything), strict=True)}
    assert len(pairs) == 6
    assert progress.passes == SMALL.max_iterations


def test_clusters_depend_on_the_seed_alone() -> None:
    groups = corpus(spread=3.0)
    first, again = (fit_stream(groups.__getitem__, range(24), 1000, SMALL)[0].centres for _ in range(2))
    other = fit_stream(groups.__getitem__, range(24), 1000, KMeansConfig(clusters=6, batch_frames=40, restarts=4, max_iterations=6, seed=1))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other[0].centres)


@given(st.lists(st.integers(1, 60), min_size=1, max_size=4), st.integers(0, 3))
@settings(max_examples=12, deadline=None)
def test_a_fit_that_was_killed_any_number_of_times_ends_as_if_never(
    tmp_path_factory: pytest.TempPathFactory, kills: list[int], seed: int
) -> None:
    groups, state = corpus(seed, spread=3.0), tmp_path_factory.mktemp("fit") / "state.safetensors"
    expected, end = fit_stream(groups.__getitem__, range(24), 1000, SMALL)
    reads = 0

    def read(index: int) -> list[np.ndarray]:
        nonlocal reads
        reads += 1
        if kills and reads > kills[0]:
            kills.pop(0)
            reads = 0
            raise KilledError
        return groups[index]

    while True:
        try:
            found, progress = fit_stream(read, range(24), 1000, SMALL, state, "same", save_seconds=0)
            break
        except KilledError:
            continue
    assert np.array_equal(found.centres, expected.centres)
    assert (progress.passes, progress.steps, progress.average, progress.idle) == (end.passes, end.steps, end.average, end.idle)


def test_a_state_goes_on_where_it_was_and_not_in_another_fit(tmp_path: Path) -> None:
    groups, state = corpus(), tmp_path / "state.safetensors"
    reads: list[int] = []

    def read(index: int) -> list[np.ndarray]:
        reads.append(index)
        return groups[index]

    fit_stream(read, range(24), 1000, SMALL, state, "one", save_seconds=0)
    whole = len(reads)
    reads.clear()
    fit_stream(read, range(24), 1000, SMALL, state, "one", save_seconds=0)
    assert reads == []
    fit_stream(read, range(24), 1000, SMALL, state, "two", save_seconds=0)
    assert len(reads) == whole


def test_a_damaged_state_is_named(tmp_path: Path) -> None:
    path = tmp_path / "state.safetensors"
    Progress(np.zeros((2, 2)), np.zeros(2)).save(path, "x")
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(ValueError, match=r"state\.safetensors: the state of a stopped fit cannot be read .* delete it to begin again"):
        Progress.load(path, "x")


def test_a_fit_ends_when_nothing_improves() -> None:
    groups = corpus()
    patient = KMeansConfig(clusters=6, batch_frames=40, restarts=4, max_iterations=100, max_no_improvement=5)
    _, progress = fit_stream(groups.__getitem__, range(24), 1000, patient)
    assert progress.idle == 5
    assert progress.passes < 100


def test_only_some_mini_batches_are_in_memory() -> None:
    groups = corpus(groups=200)
    held: list[int] = []

    def read(index: int) -> list[np.ndarray]:
        held.append(sum(map(len, groups[index])))
        return groups[index]

    config = KMeansConfig(clusters=6, batch_frames=20, restarts=1, max_iterations=1)
    largest = 0
    original = minibatch._block

    def block(*arguments: object) -> tuple[np.ndarray, int]:
        nonlocal largest
        found = original(*arguments)  # type: ignore[arg-type]
        largest = max(largest, len(found[0]))
        return found

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(minibatch, "_block", block)
        _, progress = fit_stream(read, range(200), 5000, config)
    assert progress.passes == 1
    assert largest <= 6 * 20 + max(held) < sum(held) / 10


def test_too_little_or_broken_data_is_refused() -> None:
    few = [[np.zeros((3, 2), np.float16)]]
    with pytest.raises(ValueError, match="3 frames for 6 clusters"):
        fit_stream(few.__getitem__, [0], 3, SMALL)
    broken = [[np.full((20, 2), np.nan, np.float16)]]
    with pytest.raises(ValueError, match="NaN or infinity"):
        fit_stream(broken.__getitem__, [0], 20, SMALL)


def test_assignment_of_one_utterance_is_that_of_all() -> None:
    groups = corpus(3, spread=4.0)
    clusters, _ = fit_stream(groups.__getitem__, range(24), 1000, SMALL)
    assert isinstance(clusters, KMeans)
    one_by_one = np.concatenate([clusters.assign(frames) for group in groups for frames in group])
    assert np.array_equal(one_by_one, clusters.assign(together(groups)))


def test_a_kill_between_starts_loses_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sklearn.cluster

    groups, state, done = corpus(spread=3.0), tmp_path / "state.safetensors", 0
    expected = fit_stream(groups.__getitem__, range(24), 1000, SMALL)[0].centres
    original = sklearn.cluster.kmeans_plusplus

    def counted(*arguments: object, **more: object) -> object:
        nonlocal done
        if done == 3 and not state.with_name("killed").exists():
            state.with_name("killed").touch()
            raise KilledError
        done += 1
        return original(*arguments, **more)

    monkeypatch.setattr(sklearn.cluster, "kmeans_plusplus", counted)
    with pytest.raises(KilledError):
        fit_stream(groups.__getitem__, range(24), 1000, SMALL, state, "same", save_seconds=0)
    found = fit_stream(groups.__getitem__, range(24), 1000, SMALL, state, "same", save_seconds=0)[0].centres
    assert np.array_equal(found, expected)
    assert done == SMALL.restarts
