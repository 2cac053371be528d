"""Units of a corpus: features of every utterance -> clusters -> one unit per frame, written with the utterance's id.

One call is one iteration of AV-HuBERT's procedure (section 3.1, appendix B): MFCC first, then a layer of the model trained before.
Audio-only corpora are labelled by the same features and clusters with the video missing, so that all corpora share one inventory (VATLM
section III-C); text is labelled by text_to_units.py.

Small corpora are clustered in memory; large ones stream (streaming.py). The clusters lie beside the labels as ``kmeans.safetensors`` with
``kmeans.json``, which says how they were made, and ``<manifest name>.report.json``, which says how good they are.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from avtlm.data.manifest import Manifest, read_manifest
from avtlm.files import write_text
from avtlm.training.progress import track
from avtlm.units.dump import Shard
from avtlm.units.fairseq_labels import write_km
from avtlm.units.features import FeatureConfig, Features, in_batches
from avtlm.units.kmeans import KMeans, KMeansConfig, describe, fit
from avtlm.units.labels import write_labels
from avtlm.units.quality import PhoneQuality, phone_quality, usage
from avtlm.units.streaming import Stream


@dataclass(frozen=True)
class LabelReport:
    """What one round of labelling did: files written, utterances, how even the use of the units is, and what they know about phones.

    Attributes:
        rate: labels per second.
        quality: None where no utterance has timed phones.
    """

    labels: Path
    clusters: Path
    utterances: int
    frames: int
    rate: float
    units: int
    units_used: int
    perplexity: float
    quality: PhoneQuality | None

    def to_json(self) -> dict[str, object]:
        """The report as JSON values; files by their names."""
        return asdict(self) | {"labels": self.labels.name, "clusters": self.clusters.name}


def units(
    manifest: str | Path,
    out: str | Path,
    model: str | Path | None = None,
    layer: int | None = None,
    config: KMeansConfig | None = None,
    clusters_from: str | Path | None = None,
    splits: Sequence[str] | None = None,
    fit_split: str = "train",
    fraction: float = 1.0,
    modality: str = "av",
    mfcc_rate: float = 25.0,
    mfcc_normalise: bool = True,
    stream: bool = False,
    dump: str | Path | None = None,
    km: bool = False,
) -> LabelReport:
    """Label a manifest with units.

    Args:
        manifest: path of the manifest.
        out: folder for ``<manifest name>.units``, ``<manifest name>.report.json``, ``kmeans.safetensors`` and ``kmeans.json``.
        model: folder of a trained encoder whose ``layer`` gives the features; None takes MFCC of the audio.
        config: of the clustering.
        clusters_from: use these centres and do not fit (a second corpus, the same inventory).
        splits: label only these; None labels everything.
        fit_split: fit on utterances of this split only (everything, where none has a split).
        fraction: share of the fitting utterances whose frames are used; of groups of utterances where they stream.
        modality: ``av``, ``a`` or ``v``: what the model sees.
        mfcc_rate, mfcc_normalise: of MFCC; see avtlm.units.features.FeatureConfig.
        stream: never hold all features in memory; fit by mini-batches, and go on where a stopped call was.
        dump: folder to keep the features in, for more than one clustering; it streams. None computes them anew for every pass of a stream.
        km: also write fairseq's layout, in ``<out>/km``.

    Raises:
        ValueError: nothing to label, a missing layer, a clustering that cannot be fitted, or a dump of something else.
    """
    source = FeatureConfig(None if model is None else str(model), layer, modality, mfcc_rate, mfcc_normalise)
    config, folder = config or KMeansConfig(), Path(out)
    rows = _rows(manifest, splits)
    features = Features(rows, source)
    about = {"features": "mfcc" if model is None else str(model), "layer": layer, "modality": modality, "fitted_on": fit_split}
    if stream or dump is not None:
        streamed = Stream(features, folder, dump)
        if clusters_from is not None:
            clusters = KMeans.load(clusters_from)
            _save(folder, clusters, config, about | {"rate": streamed.rate})
        else:
            clusters = streamed.fit(config, fit_split, fraction, about)
        labels = streamed.label(clusters)
        report = _write(folder, Path(manifest).stem, rows, labels, clusters, streamed.rate, km)
        streamed.clean(clusters)
        return report
    held = {name: value.astype(np.float16) for name, value in track(in_batches(features), "features for units", total=len(rows))}
    if clusters_from is not None:
        clusters = KMeans.load(clusters_from)
    else:
        fitting = [row.id for row in rows if row.split in (None, fit_split)]
        if not fitting:
            raise ValueError(f"{manifest}: no utterance of split {fit_split} to fit the clusters on.")
        rng = np.random.default_rng(config.seed)
        count = max(1, round(fraction * len(fitting)))
        chosen = [fitting[i] for i in sorted(rng.choice(len(fitting), count, replace=False))]
        clusters = fit(np.concatenate([held[name] for name in chosen]).astype(np.float32), config)
    labels = {row.id: clusters.assign(held[row.id]) for row in rows}
    _save(folder, clusters, config, about | {"rate": features.rate})
    return _write(folder, Path(manifest).stem, rows, labels, clusters, features.rate, km)


@dataclass(frozen=True)
class ShardReport:
    """What one shard did, and how many pieces of the whole work are still missing. The call without a shard puts all together."""

    shard: Shard
    pieces: int
    missing: int
    folder: Path


def units_shard(
    manifest: str | Path,
    out: str | Path,
    shard: Shard,
    model: str | Path | None = None,
    layer: int | None = None,
    clusters_from: str | Path | None = None,
    splits: Sequence[str] | None = None,
    modality: str = "av",
    mfcc_rate: float = 25.0,
    mfcc_normalise: bool = True,
    dump: str | Path | None = None,
) -> ShardReport:
    """Do one shard of the work of `units` that can be divided, its other arguments the same: fill its part of the dump and, where the
    clusters are given, label its part of the utterances.

    Raises:
        ValueError: neither a dump nor clusters are given, so that there is nothing to divide; and as `units`.
    """
    if dump is None and clusters_from is None:
        raise ValueError("shard: only a dump of features or labelling by given clusters can be divided; add --dump or --clusters-from.")
    source = FeatureConfig(None if model is None else str(model), layer, modality, mfcc_rate, mfcc_normalise)
    streamed = Stream(Features(_rows(manifest, splits), source), Path(out), dump)
    streamed.fill(shard)
    if clusters_from is not None:
        done = streamed.label_pieces(KMeans.load(clusters_from), shard)
        missing = streamed.unlabelled(KMeans.load(clusters_from))
    else:
        done, missing = streamed.folder if dump is None else Path(dump), streamed.missing()
    return ShardReport(shard, len(shard.of(len(streamed.plan.pieces))), len(missing), done)


def _rows(manifest: str | Path, splits: Sequence[str] | None) -> Manifest:
    rows = read_manifest(manifest).filter(lambda u: splits is None or u.split in splits)
    if len(rows) == 0:
        raise ValueError(f"{manifest}: no utterance of split {', '.join(splits or ['any'])} to label.")
    return rows


def _save(folder: Path, clusters: KMeans, config: KMeansConfig, about: Mapping[str, object]) -> None:
    clusters.save(folder / "kmeans.safetensors")
    write_text(folder / "kmeans.json", describe(config, **about))


def _write(
    folder: Path, name: str, rows: Manifest, labels: Mapping[str, np.ndarray], clusters: KMeans, rate: float, km: bool
) -> LabelReport:
    """Labels in the order of the manifest, and the report."""
    write_labels(folder / f"{name}.units", labels)
    units = len(clusters.centres)
    if km:
        write_km(folder / "km", rows, labels, units, name)
    counts = sum((np.bincount(found, minlength=units) for found in labels.values()), start=np.zeros(units, int))
    used, perplexity = usage(counts)
    quality = phone_quality(rows, labels, units, rate)
    files = folder / f"{name}.units", folder / "kmeans.safetensors"
    report = LabelReport(*files, len(rows), int(counts.sum()), rate, units, used, perplexity, quality)
    write_text(folder / f"{name}.report.json", json.dumps(report.to_json(), indent=1) + "\n")
    return report
