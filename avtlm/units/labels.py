"""Unit labels: features of every utterance -> clusters -> one unit per frame at 25 Hz, written with the utterance's id.

One call is one iteration of AV-HuBERT's procedure (section 3.1, appendix B): MFCC first, then a layer of the model trained before.
Audio-only corpora are labelled by the same features and clusters with the video missing, so that all corpora share one inventory (VATLM
section III-C); text is labelled by text_to_units.py.

The file has a line ``id <tab> units separated by blanks`` for every utterance. The clusters lie beside it as ``kmeans.safetensors`` with
``kmeans.json``, which says how they were made.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torchaudio

from avtlm.data.manifest import Manifest, read_manifest
from avtlm.files import atomic_path, write_text
from avtlm.frontends.filterbank import SAMPLE_RATE, WINDOW, match_length, stack_frames
from avtlm.training.progress import track
from avtlm.units.kmeans import KMeans, KMeansConfig, describe, fit

RATE = 25
# Labels of an utterance may end this many seconds before or after its media: 0.1 s as in AV-HuBERT's data code, and a started frame.
TOLERANCE = 0.12


@dataclass(frozen=True)
class UnitLabels(Mapping[str, np.ndarray]):
    """Units of every utterance by id, int32 (frames,)."""

    path: Path
    rows: Mapping[str, np.ndarray]

    def __getitem__(self, key: str) -> np.ndarray:
        return self.rows[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    def check(self, manifest: Manifest, rate: float = RATE) -> None:
        """Every utterance has labels of its own length, ``rate`` of them per second.

        Raises:
            ValueError: names the file, the first utterance at fault, and both lengths.
        """
        for row in manifest:
            if row.id not in self.rows:
                raise ValueError(f"{self.path}: no labels for utterance {row.id!r}; run avtlm units over the manifest again.")
            frames, labels = row.duration * rate, len(self.rows[row.id])
            if row.duration and abs(frames - labels) > TOLERANCE * rate:
                raise ValueError(
                    f"{self.path}: {labels} labels for utterance {row.id!r} of {frames:.0f} frames at {rate:g} Hz; "
                    "the labels belong to other media, or have another rate than the model's label_rate."
                )


def read_labels(path: str | Path) -> UnitLabels:
    """Read a label file.

    Raises:
        FileNotFoundError: no such file.
        ValueError: a line that is not ``id <tab> numbers``, by its number.
    """
    rows = {}
    for number, line in enumerate(Path(path).read_text(encoding="utf-8").splitlines(), 1):
        name, tab, units = line.partition("\t")
        try:
            rows[name] = np.array(units.split(), dtype=np.int32)
        except ValueError:
            tab = ""
        if not tab:
            raise ValueError(f"{path}, line {number}: expected an id, a tab, and unit numbers; found {line[:60]!r}.")
    return UnitLabels(Path(path), rows)


def write_labels(path: str | Path, rows: Mapping[str, np.ndarray]) -> None:
    """Write a label file atomically."""
    with atomic_path(path) as temporary, open(temporary, "w", encoding="utf-8") as handle:
        for name, units in rows.items():
            handle.write(f"{name}\t{' '.join(map(str, units.tolist()))}\n")


def mfcc(wave: np.ndarray) -> torch.Tensor:
    """13 MFCC with deltas and double deltas, as AV-HuBERT clusters them in iteration 1 (Kaldi's, without energy): (frames, 39) at 100 Hz.

    Args:
        wave: int16 (samples,) at 16 kHz; without a whole window of 400 samples there are no frames.
    """
    signal = torch.from_numpy(wave.astype(np.float32) / 32768.0)[None]
    if signal.shape[1] < WINDOW:
        return torch.zeros(0, 39)
    cepstra = torchaudio.compliance.kaldi.mfcc(signal, sample_frequency=SAMPLE_RATE, use_energy=False).t()[None]
    delta = torchaudio.functional.compute_deltas(cepstra)
    return torch.cat([cepstra, delta, torchaudio.functional.compute_deltas(delta)], 1)[0].t().contiguous()


def mfcc_features(wave: np.ndarray, frames: int | None = None) -> np.ndarray:
    """`mfcc`, normalised over the utterance, four stacked: (frames, 156) at 25 Hz.

    AV-HuBERT clusters them at 100 Hz and its model takes every fourth label; stacked, a label speaks for all 40 ms.
    """
    features = mfcc(np.pad(wave, (0, max(0, WINDOW - len(wave)))))
    features = (features - features.mean(0)) / (features.std(0, unbiased=False) + 1e-5)
    stacked = stack_frames(features)
    return (stacked if frames is None else match_length(stacked, frames)).numpy()


def model_features(
    model_folder: str | Path, manifest: Manifest, layer: int, modality: str = "av", max_frames: int = 2000
) -> Iterator[tuple[str, np.ndarray]]:
    """What a layer of a trained encoder says about every utterance, unmasked, at 25 Hz: pairs of id and (frames, dim)."""
    from avtlm.data.dataset import ClipDataset, Source, collate
    from avtlm.systems import load_encoder

    model, inputs = load_encoder(model_folder)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model.to(device).eval()
    task = "audio_video" if "v" in modality else "audio"
    source = Source(manifest=str(manifest.source or manifest.root), task=task, split=None, cache=False, max_seconds=1e9, min_seconds=0.0)  # type: ignore[arg-type]
    dataset = ClipDataset(source, inputs=inputs, training=False)
    wanted = {row.id for row in manifest}
    order = sorted((i for i, row in enumerate(dataset.manifest) if row.id in wanted), key=dataset.frames)
    batches: list[list[int]] = [[]]
    for index in order:
        if batches[-1] and dataset.frames(index) * (len(batches[-1]) + 1) > max_frames:
            batches.append([])
        batches[-1].append(index)
    for rows in batches:
        if not rows:
            continue
        batch = collate([dataset.item(i) for i in rows], task).to(device)
        batch = batch.only(modality) if modality != "av" else batch
        with torch.inference_mode():
            features, lengths = model.encode(batch, output_layer=layer)  # type: ignore[operator]
        for name, feature, length in zip(batch.ids, features.float().cpu(), lengths.tolist(), strict=True):
            yield name, feature[:length].numpy()


def _mfcc_of(manifest: Manifest) -> Iterator[tuple[str, np.ndarray]]:
    from avtlm.data.dataset import ClipDataset, Source

    source = Source(manifest=str(manifest.source or manifest.root), task="audio", split=None, cache=False, max_seconds=1e9, min_seconds=0.0)
    dataset = ClipDataset(source, training=False)
    wanted = {row.id for row in manifest}
    for index, row in enumerate(dataset.manifest):
        if row.id in wanted:
            yield row.id, mfcc_features(dataset.wave(index), row.video_frames or None)


@dataclass(frozen=True)
class LabelReport:
    """What one round of labelling did: files written, utterances, and how even the use of the units is."""

    labels: Path
    clusters: Path
    utterances: int
    frames: int
    units_used: int
    perplexity: float


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
) -> LabelReport:
    """Label a manifest with units.

    Args:
        manifest: path of the manifest.
        out: folder for ``<manifest name>.units``, ``kmeans.safetensors`` and ``kmeans.json``.
        model: folder of a trained encoder whose ``layer`` gives the features; None takes MFCC of the audio.
        config: of the clustering.
        clusters_from: use these centres and do not fit (a second corpus, the same inventory).
        splits: label only these; None labels everything.
        fit_split: fit on utterances of this split only (everything, where none has a split).
        fraction: share of the fitting utterances whose frames are used.
        modality: ``av``, ``a`` or ``v``: what the model sees.

    Raises:
        ValueError: nothing to label, a missing layer, or a clustering that cannot be fitted.
    """
    if (model is None) != (layer is None):
        raise ValueError("units: a model and a layer belong together; give both, or neither for MFCC.")
    config = config or KMeansConfig()
    everything = read_manifest(manifest)
    rows = everything.filter(lambda u: splits is None or u.split in splits)
    if len(rows) == 0:
        raise ValueError(f"{manifest}: no utterance of split {', '.join(splits or ['any'])} to label.")
    stream = _mfcc_of(rows) if model is None or layer is None else model_features(model, rows, layer, modality)
    features = {name: value.astype(np.float16) for name, value in track(stream, "features for units", total=len(rows))}
    folder = Path(out)
    if clusters_from is not None:
        clusters = KMeans.load(clusters_from)
    else:
        fitting = [row.id for row in rows if row.split in (None, fit_split)]
        if not fitting:
            raise ValueError(f"{manifest}: no utterance of split {fit_split} to fit the clusters on.")
        rng = np.random.default_rng(config.seed)
        count = max(1, round(fraction * len(fitting)))
        chosen = [fitting[i] for i in sorted(rng.choice(len(fitting), count, replace=False))]
        clusters = fit(np.concatenate([features[name] for name in chosen]).astype(np.float32), config)
    labels = {row.id: clusters.assign(features[row.id]) for row in rows}
    target = folder / f"{Path(manifest).stem}.units"
    clusters.save(folder / "kmeans.safetensors")
    origin = "mfcc" if model is None else str(model)
    write_text(folder / "kmeans.json", describe(config, features=origin, layer=layer, modality=modality, fitted_on=fit_split))
    write_labels(target, labels)
    counts = np.bincount(np.concatenate(list(labels.values())), minlength=len(clusters.centres)).astype(float)
    share = counts[counts > 0] / counts.sum()
    return LabelReport(
        target,
        folder / "kmeans.safetensors",
        len(rows),
        int(counts.sum()),
        int((counts > 0).sum()),
        float(np.exp(-(share * np.log(share)).sum())),
    )
