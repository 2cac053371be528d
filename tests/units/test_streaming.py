"""Units of a corpus that streams: the labels of memory, from a dump or not, stopped or not, divided or not."""

import contextlib
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from avtlm.data.manifest import read_manifest
from avtlm.units import dump, minibatch
from avtlm.units.discovery import units, units_shard
from avtlm.units.dump import Shard
from avtlm.units.fairseq_labels import read_km
from avtlm.units.features import Features
from avtlm.units.kmeans import KMeans, KMeansConfig
from avtlm.units.labels import read_labels
from tests.made_corpus import MadeCorpus
from tests.units.made_encoder import random_features

SMALL = KMeansConfig(clusters=8, batch_frames=90, restarts=2, max_iterations=3)


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dump, "PIECE_FRAMES", 60)
    monkeypatch.setattr(dump, "GROUP_FRAMES", 50)


class StoppedError(Exception):
    """Stands for a kill."""


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.is_file()}


def test_streamed_labels_are_those_that_memory_assigns(made: MadeCorpus, tmp_path: Path) -> None:
    streamed = units(made.clips, tmp_path / "stream", config=SMALL, stream=True)
    held = units(made.clips, tmp_path / "memory", clusters_from=streamed.clusters)
    assert streamed.labels.read_bytes() == held.labels.read_bytes()
    assert (streamed.perplexity, streamed.quality) == (held.perplexity, held.quality)
    assert sorted(contents(tmp_path / "stream")) == ["kmeans.json", "kmeans.safetensors", "manifest.report.json", "manifest.units"]
    assert len(list((tmp_path / "stream").iterdir())) == 4


@pytest.mark.parametrize("kind", ["mfcc", "model"])
def test_a_dump_changes_nothing_but_where_features_come_from(kind: str, made: MadeCorpus, encoder: Path, tmp_path: Path) -> None:
    model, layer = (None, None) if kind == "mfcc" else (encoder, 2)
    units(made.clips, tmp_path / "computed", model, layer, SMALL, stream=True)
    units(made.clips, tmp_path / "dumped", model, layer, SMALL, dump=tmp_path / "dump")
    assert contents(tmp_path / "computed") == contents(tmp_path / "dumped")


def test_several_cluster_counts_are_fitted_from_one_dump(made: MadeCorpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = units(made.clips, tmp_path / "8", config=SMALL, dump=tmp_path / "dump")
    monkeypatch.setattr(Features, "compute", None)
    second = units(made.clips, tmp_path / "12", config=KMeansConfig(12, 90, restarts=2), dump=tmp_path / "dump", fraction=0.5)
    assert (first.units, second.units) == (8, 12)
    assert second.frames == first.frames
    assert json.loads((tmp_path / "12" / "kmeans.json").read_text())["fraction"] == 0.5


@given(st.lists(st.integers(0, 40), min_size=1, max_size=3))
@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_run_that_was_stopped_anywhere_ends_as_if_never(
    made: MadeCorpus, tmp_path_factory: pytest.TempPathFactory, stops: list[int]
) -> None:
    whole, stopped = (tmp_path_factory.mktemp(name) for name in ("whole", "stopped"))
    for folder, stop in [(whole, 10**6), *((stopped, stop) for stop in [*stops, 10**6])]:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(minibatch.fit_stream, "__defaults__", (None, "", 0.0))  # save after every block
            _stop_after(patch, stop)
            with contextlib.suppress(StoppedError):
                units(made.sound, folder, config=SMALL, stream=True)
    assert contents(stopped) == contents(whole)
    assert not [path for path in stopped.iterdir() if path.is_dir()]


def _stop_after(patch: pytest.MonkeyPatch, groups: int) -> None:
    done = 0

    def stopping(self: Features, indices: list[int]) -> list[tuple[str, np.ndarray]]:
        nonlocal done
        done += 1
        if done > groups:
            raise StoppedError
        return random_features(self, indices)

    patch.setattr(Features, "compute", stopping)


def test_labelling_goes_on_without_fitting_again(made: MadeCorpus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = units(made.clips, tmp_path, config=SMALL, dump=tmp_path / "dump")
    before, labels = first.clusters.stat().st_mtime_ns, first.labels.read_bytes()
    first.labels.unlink()
    monkeypatch.setattr("avtlm.units.streaming.fit_stream", None)
    again = units(made.clips, tmp_path, config=SMALL, dump=tmp_path / "dump")
    assert again.clusters.stat().st_mtime_ns == before
    assert again.labels.read_bytes() == labels


def test_other_settings_are_fitted_anew(made: MadeCorpus, tmp_path: Path) -> None:
    first = KMeans.load(units(made.clips, tmp_path, config=SMALL, dump=tmp_path / "dump").clusters)
    other = KMeansConfig(clusters=8, batch_frames=90, restarts=2, max_iterations=3, seed=1)
    assert not np.array_equal(
        KMeans.load(units(made.clips, tmp_path, config=other, dump=tmp_path / "dump").clusters).centres, first.centres
    )
    again = KMeans.load(units(made.clips, tmp_path, config=SMALL, dump=tmp_path / "dump").clusters)
    assert np.array_equal(again.centres, first.centres)


def test_labels_made_in_shards_are_those_made_at_once(made: MadeCorpus, encoder: Path, tmp_path: Path) -> None:
    config = KMeansConfig(clusters=8, batch_frames=90, restarts=2, max_iterations=1)
    whole = units(made.sound, tmp_path / "whole", encoder, 2, config, modality="a", stream=True)
    for index in (3, 2, 1):
        report = units_shard(made.sound, tmp_path / "parts", Shard(index, 3), encoder, 2, whole.clusters, modality="a")
        assert (report.shard, report.missing == 0) == (Shard(index, 3), index == 1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Features, "compute", None)
        parts = units(made.sound, tmp_path / "parts", encoder, 2, config, whole.clusters, modality="a", stream=True)
    assert parts.labels.read_bytes() == whole.labels.read_bytes()


def test_a_dump_made_in_shards_is_fitted_and_labelled_as_one_made_at_once(made: MadeCorpus, tmp_path: Path) -> None:
    whole = units(made.clips, tmp_path / "whole", config=SMALL, dump=tmp_path / "dump")
    for index in (2, 1):
        report = units_shard(made.clips, tmp_path / "parts", Shard(index, 2), dump=tmp_path / "other")
    assert (report.missing, report.folder) == (0, tmp_path / "other")
    parts = units(made.clips, tmp_path / "parts", config=SMALL, dump=tmp_path / "other")
    assert contents(tmp_path / "parts") == contents(tmp_path / "whole")
    assert parts.quality == whole.quality


def test_labels_are_also_written_for_fairseq(made: MadeCorpus, tmp_path: Path) -> None:
    report = units(made.clips, tmp_path, config=SMALL, mfcc_rate=100, mfcc_normalise=False, km=True)
    assert report.rate == 100
    assert sorted(contents(tmp_path / "km")) == ["dict.km.txt", "train.km", "train.tsv", "train.wrd", "valid.km", "valid.tsv", "valid.wrd"]
    labels = read_labels(report.labels)
    labels.check(read_manifest(made.clips), rate=100)
    for split in ("train", "valid"):
        for name, found in read_km(tmp_path / "km" / f"{split}.km").items():
            assert np.array_equal(found, labels[name])


def test_what_cannot_be_is_refused_in_a_sentence(made: MadeCorpus, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="only a dump of features or labelling by given clusters can be divided"):
        units_shard(made.clips, tmp_path, Shard(1, 2))
    with pytest.raises(ValueError, match="no utterance of split test to fit the clusters on"):
        units(made.clips, tmp_path, stream=True, fit_split="test")
    with pytest.raises(ValueError, match="no utterance of split dev"):
        units(made.clips, tmp_path, stream=True, splits=["dev"])
    clusters = units(made.clips, tmp_path / "25", config=SMALL).clusters
    with pytest.raises(ValueError, match="frames of 39 values for centres of 156; these clusters were fitted on other features"):
        units(made.clips, tmp_path / "100", mfcc_rate=100, clusters_from=clusters, stream=True)
