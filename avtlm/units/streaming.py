"""Fitting and labelling a corpus that does not fit into memory, piece by piece, so that a stopped or a divided run loses nothing.

Two passes of their own over the same plan (dump.py): mini-batch k-means over the groups of the fitting split, whose state is saved beside
the labels, and labels piece by piece, each in a file until all are there. Both read features from a dump, or compute them again.
"""

import hashlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict
from functools import cached_property
from pathlib import Path

import numpy as np

from avtlm.data.seeds import seed_for
from avtlm.files import write_text
from avtlm.training.progress import bar
from avtlm.units.dump import Computed, FeatureDump, Plan, Shard, make_plan
from avtlm.units.features import Features
from avtlm.units.kmeans import KMeans, KMeansConfig, describe
from avtlm.units.labels import read_labels, write_labels
from avtlm.units.minibatch import fit_stream


class Stream:
    """Features of a corpus in pieces, and what is made of them in the folder ``out``.

    Args:
        features: of the rows to label.
        out: folder of the labels.
        dump: folder of the features; None computes them whenever they are needed.

    Raises:
        ValueError: the dump holds features of something else.
    """

    def __init__(self, features: Features, out: Path, dump: str | Path | None = None) -> None:
        self.features, self.folder = features, out
        self.plan: Plan = make_plan(features)
        self._dump = None if dump is None else FeatureDump(dump, features, self.plan)
        self._reader: Computed | FeatureDump = self._dump or Computed(features, self.plan)

    @cached_property
    def rate(self) -> float:
        """Features per second."""
        self.fill()
        return self._reader.rate

    def fill(self, shard: Shard | None = None) -> None:
        """Compute what the dump has not got, of all pieces or of a shard's; without a dump there is nothing to do."""
        if self._dump is not None:
            self._dump.fill(shard)

    def missing(self) -> list[int]:
        """Pieces that the dump has not got."""
        return [] if self._dump is None else self._dump.missing()

    def fit(self, config: KMeansConfig, split: str, fraction: float, about: Mapping[str, object]) -> KMeans:
        """Cluster the utterances of a split (and those without any), or go on where a stopped fit was, or take what it has left.

        Args:
            fraction: share of the groups that are used, drawn by the seed.
            about: for ``kmeans.json``.

        Raises:
            ValueError: no utterance of that split, or data that cannot be clustered.
        """
        rows = self.features.rows
        groups = [number for number, group in enumerate(self.plan.groups) if rows[group[0]].split in (None, split)]
        if not groups:
            raise ValueError(f"{rows.source or rows.root}: no utterance of split {split} to fit the clusters on.")
        rng = np.random.default_rng(seed_for(config.seed, "fraction"))
        groups = [groups[place] for place in sorted(rng.permutation(len(groups))[: max(1, round(fraction * len(groups)))].tolist())]
        identity = _hash(json.dumps([self.plan.identity, asdict(config), groups]).encode())
        file, told, state = (self.folder / name for name in ("kmeans.safetensors", "kmeans.json", "kmeans.state.safetensors"))
        if file.exists() and told.exists() and json.loads(told.read_text(encoding="utf-8")).get("identity") == identity:
            return KMeans.load(file)
        frames = sum(self.plan.frames[group] for group in groups) * self.rate / 25.0
        clusters, end = fit_stream(lambda group: [value for _, value in self._reader.read(group)], groups, frames, config, state, identity)
        told.unlink(missing_ok=True)  # first, so that it never stands beside other clusters than its own
        clusters.save(file)
        ended = {"passes": end.passes, "mini_batches": end.steps, "mean_squared_distance": end.average}
        write_text(told, describe(config, **about, rate=self.rate, fraction=fraction, **ended, identity=identity))
        state.unlink(missing_ok=True)
        return clusters

    def label(self, clusters: KMeans) -> dict[str, np.ndarray]:
        """Units of every utterance, in the order of the manifest; pieces that are labelled already are read."""
        self.label_pieces(clusters)
        found: dict[str, np.ndarray] = {}
        for piece in range(len(self.plan.pieces)):
            found |= read_labels(self._labels(clusters) / f"labels-{piece:05d}.units").rows
        return {row.id: found[row.id] for row in self.features.rows}

    def label_pieces(self, clusters: KMeans, shard: Shard | None = None) -> Path:
        """Label the pieces of a shard that are not labelled yet; returns their folder."""
        missing = self.unlabelled(clusters, shard)
        self.fill(shard)
        with bar("units", sum(len(self.plan.groups[group]) for piece in missing for group in self.plan.pieces[piece])) as shown:
            for piece in missing:
                rows: dict[str, np.ndarray] = {}
                for group in self.plan.pieces[piece]:
                    rows |= {name: clusters.assign(value) for name, value in self._reader.read(group)}
                    shown.advance(len(self.plan.groups[group]))
                write_labels(self._labels(clusters) / f"labels-{piece:05d}.units", rows)
        return self._labels(clusters)

    def unlabelled(self, clusters: KMeans, shard: Shard | None = None) -> list[int]:
        """Pieces without labels, of all or of a shard's."""
        folder = self._labels(clusters)
        return [piece for piece in (shard or Shard()).of(len(self.plan.pieces)) if not (folder / f"labels-{piece:05d}.units").exists()]

    def clean(self, clusters: KMeans) -> None:
        """Remove the labels in pieces, when they are written as a whole."""
        shutil.rmtree(self._labels(clusters))

    def _labels(self, clusters: KMeans) -> Path:
        return self.folder / f"labels-{_hash(self.plan.identity.encode(), clusters.centres.tobytes())}"


def _hash(*parts: bytes) -> str:
    return hashlib.blake2b(b"\0".join(parts), digest_size=8).hexdigest()
