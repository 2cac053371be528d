"""Features on disk: the same bytes from one process or many, stopped or not; read back as they were computed."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from avtlm.data.manifest import read_manifest
from avtlm.units import dump
from avtlm.units.dump import Computed, FeatureDump, Shard, half, make_plan
from avtlm.units.features import FeatureConfig, Features, in_batches
from tests.made_corpus import MadeCorpus
from tests.units.made_encoder import random_features


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dump, "PIECE_FRAMES", 60)
    monkeypatch.setattr(dump, "GROUP_FRAMES", 50)


class StoppedError(Exception):
    """Stands for a kill."""


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def test_a_plan_holds_every_utterance_once_in_groups_of_one_split(made: MadeCorpus) -> None:
    features = Features(read_manifest(made.clips), FeatureConfig())
    plan = make_plan(features)
    assert sorted(index for group in plan.groups for index in group) == list(range(len(features.rows)))
    assert all(len({features.rows[index].split for index in group}) == 1 for group in plan.groups)
    assert [group for piece in plan.pieces for group in piece] == list(range(len(plan.groups)))
    assert len(plan.pieces) > 3
    for piece in plan.pieces[:-1]:
        assert 60 <= sum(plan.frames[group] for group in piece) < 110


@pytest.mark.parametrize("kind", ["mfcc", "model"])
def test_what_is_read_is_what_was_computed(kind: str, made: MadeCorpus, encoder: Path, tmp_path: Path) -> None:
    config = FeatureConfig() if kind == "mfcc" else FeatureConfig(str(encoder), 2)
    features = Features(read_manifest(made.clips), config)
    plan = make_plan(features)
    kept, computed, expected = FeatureDump(tmp_path, features, plan), Computed(features, plan), dict(in_batches(features))
    kept.fill()
    assert kept.rate == computed.rate == 25
    for group in reversed(range(len(plan.groups))):
        for (name, value), (other, same) in zip(kept.read(group), computed.read(group), strict=True):
            assert name == other
            assert value.dtype == np.float16
            assert np.array_equal(value, same)
            np.testing.assert_allclose(value, expected[name], rtol=2e-3, atol=1e-3)


@pytest.mark.parametrize("kind", ["mfcc", "model"])
def test_shards_in_any_order_make_the_whole(kind: str, made: MadeCorpus, encoder: Path, tmp_path: Path) -> None:
    config = FeatureConfig() if kind == "mfcc" else FeatureConfig(str(encoder), 1, "a")
    rows = read_manifest(made.clips)
    for folder, shards in (("whole", ["1/1"]), ("parts", ["3/3", "1/3", "2/3"])):
        for text in shards:
            features = Features(rows, config)  # a process of its own: nothing is shared
            FeatureDump(tmp_path / folder, features, make_plan(features)).fill(Shard.parse(text))
    assert contents(tmp_path / "whole") == contents(tmp_path / "parts")


@given(st.lists(st.integers(0, 8), max_size=4))
@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_dump_that_was_stopped_is_the_one_that_was_not(
    made: MadeCorpus, tmp_path_factory: pytest.TempPathFactory, stops: list[int]
) -> None:
    rows = read_manifest(made.sound)
    whole, stopped = (tmp_path_factory.mktemp(name) for name in ("whole", "stopped"))
    for folder, stop in [(whole, 10**6), *((stopped, stop) for stop in [*stops, 10**6])]:
        again = Features(rows, FeatureConfig())
        kept = FeatureDump(folder, again, make_plan(again))
        before = len(kept.missing())
        with pytest.MonkeyPatch.context() as patch:
            _stop_after(patch, again, stop)
            try:
                kept.fill()
            except StoppedError:
                assert 0 < len(kept.missing()) <= before
    assert contents(stopped) == contents(whole)


def _stop_after(patch: pytest.MonkeyPatch, features: Features, groups: int) -> None:
    done = 0

    def stopping(indices: list[int]) -> list[tuple[str, np.ndarray]]:
        nonlocal done
        done += 1
        if done > groups:
            raise StoppedError
        return random_features(features, indices)

    patch.setattr(features, "compute", stopping)


def test_a_full_dump_is_not_computed_again_and_needs_no_model(made: MadeCorpus, encoder: Path, tmp_path: Path) -> None:
    rows, config = read_manifest(made.clips), FeatureConfig(str(encoder), 1)
    first = Features(rows, config)
    FeatureDump(tmp_path, first, make_plan(first)).fill()
    second = Features(rows, config)
    kept = FeatureDump(tmp_path, second, make_plan(second))
    kept.fill()
    assert kept.rate == 25
    assert len(kept.read(0)) == len(make_plan(second).groups[0])
    assert "_loaded" not in vars(second)


def test_a_dump_of_something_else_is_refused(made: MadeCorpus, encoder: Path, tmp_path: Path) -> None:
    rows = read_manifest(made.clips)
    first = Features(rows, FeatureConfig())
    FeatureDump(tmp_path, first, make_plan(first)).fill(Shard(1, 2))
    others = [(rows, FeatureConfig(mfcc_rate=50)), (rows, FeatureConfig(str(encoder), 1)), (rows.split("train"), FeatureConfig())]
    for other, config in others:
        features = Features(other, config)
        with pytest.raises(ValueError, match="holds features of other clips, of another model or layer; name another folder"):
            FeatureDump(tmp_path, features, make_plan(features))


def test_a_damaged_piece_is_named(made: MadeCorpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Features, "compute", random_features)
    features = Features(read_manifest(made.sound), FeatureConfig())
    kept = FeatureDump(tmp_path, features, make_plan(features))
    kept.fill()
    kept.path(0).write_bytes(kept.path(0).read_bytes()[:-100])
    with pytest.raises(ValueError, match=r"features-00000\.safetensors: damaged .*; delete it and run again"):
        kept.read(0)


@given(st.integers(1, 9), st.integers(0, 40))
@settings(max_examples=40, deadline=None)
def test_shards_divide_the_pieces(count: int, pieces: int) -> None:
    parts = [set(Shard(index, count).of(pieces)) for index in range(1, count + 1)]
    assert set().union(*parts) == set(range(pieces))
    assert sum(map(len, parts)) == pieces


@pytest.mark.parametrize("text", ["0/2", "3/2", "2", "a/b", "1/", "-1/2"])
def test_a_shard_that_cannot_be_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="shard: "):
        Shard.parse(text)


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e6])
def test_numbers_that_cannot_be_kept_are_refused_by_utterance(value: float) -> None:
    with pytest.raises(ValueError, match="utterance 'u': features with NaN, infinity or numbers above 65504"):
        half("u", np.array([[0.0, value]], np.float32))
