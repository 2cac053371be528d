"""What is clustered: MFCC of the sound, or what a layer of a trained encoder says about an utterance.

AV-HuBERT (section 3.1, appendix B) and HuBERT (section II-B) cluster MFCC first, then a layer of the model trained on those clusters.
"""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from avtlm.data.manifest import Manifest
from avtlm.frontends.filterbank import FRAME_RATE, SAMPLE_RATE, WINDOW, match_length, stack_frames

if TYPE_CHECKING:
    from torch import nn

    from avtlm.data.dataset import ClipDataset
    from avtlm.data.inputs import InputFormat

MFCC_RATE = 100.0


def mfcc(wave: np.ndarray) -> torch.Tensor:
    """13 MFCC with deltas and double deltas, as AV-HuBERT clusters them in iteration 1 (Kaldi's, without energy): (frames, 39) at 100 Hz.

    Args:
        wave: int16 (samples,) at 16 kHz; without a whole window of 400 samples there are no frames.
    """
    import torchaudio

    signal = torch.from_numpy(wave.astype(np.float32) / 32768.0)[None]
    if signal.shape[1] < WINDOW:
        return torch.zeros(0, 39)
    cepstra = torchaudio.compliance.kaldi.mfcc(signal, sample_frequency=SAMPLE_RATE, use_energy=False).t()[None]
    delta = torchaudio.functional.compute_deltas(cepstra)
    return torch.cat([cepstra, delta, torchaudio.functional.compute_deltas(delta)], 1)[0].t().contiguous()


def mfcc_features(wave: np.ndarray, frames: int | None = None, rate: float = FRAME_RATE, normalise: bool = True) -> np.ndarray:
    """`mfcc` at a label rate: (frames, 39) at 100 Hz, (frames, 78) at 50 Hz, (frames, 156) at 25 Hz, successive frames stacked.

    HuBERT and AV-HuBERT cluster them at 100 Hz, not normalised, and their models take every second or fourth label; stacked, a label speaks
    for all of its 20 or 40 ms.

    Args:
        frames: cut or append zeros to this length; None leaves what there is.
        normalise: zero mean and unit variance of each value over the utterance.
    """
    features = mfcc(np.pad(wave, (0, max(0, WINDOW - len(wave)))))
    if normalise:
        features = (features - features.mean(0)) / (features.std(0, unbiased=False) + 1e-5)
    stacked = stack_frames(features, round(MFCC_RATE / rate))
    return (stacked if frames is None else match_length(stacked, frames)).numpy()


@dataclass(frozen=True)
class FeatureConfig:
    """Which features.

    Attributes:
        model: folder of a trained encoder; None takes MFCC of the sound.
        layer: of the model, counted from 1.
        modality: ``av``, ``a`` or ``v``: what the model is given.
        mfcc_rate: features per second of MFCC: 25, 50 or 100. A model has a rate of its own.
        mfcc_normalise: see `mfcc_features`.
    """

    model: str | None = None
    layer: int | None = None
    modality: str = "av"
    mfcc_rate: float = FRAME_RATE
    mfcc_normalise: bool = True

    def __post_init__(self) -> None:
        if (self.model is None) != (self.layer is None):
            raise ValueError("units: a model and a layer belong together; give both, or neither for MFCC.")
        if self.mfcc_rate not in (25, 50, 100):
            raise ValueError(f"rate: MFCC at {self.mfcc_rate:g} Hz; choose 25, 50 or 100.")
        if self.model is not None and (self.mfcc_rate != FRAME_RATE or not self.mfcc_normalise):
            raise ValueError("units: a model gives its own rate and features; the rate and the normalisation are for MFCC, leave them out.")

    def describe(self) -> dict[str, object]:
        """Everything that the features depend on beside the clips, for JSON; the weights of a model by their hash."""
        if self.model is None:
            return {"features": "mfcc", "mfcc_rate": float(self.mfcc_rate), "mfcc_normalise": self.mfcc_normalise}
        digest = hashlib.blake2b()
        with open(Path(self.model) / "weights.safetensors", "rb") as handle:
            while block := handle.read(2**20):
                digest.update(block)
        return {"features": "model", "weights": digest.hexdigest()[:32], "layer": self.layer, "modality": self.modality}


class Features:
    """Features of the utterances of a manifest, computed when they are asked for; a model is loaded when it is first needed.

    Raises:
        ValueError: MFCC of an utterance without sound.
    """

    def __init__(self, rows: Manifest, config: FeatureConfig) -> None:
        self.rows, self.config = rows, config
        silent = next((row.id for row in rows if row.audio is None), None) if config.model is None else None
        if silent is not None:
            raise ValueError(f"{rows.source or rows.root}: utterance {silent!r} has no audio to take MFCC of; label it by a model.")

    @property
    def rate(self) -> float:
        """Features per second: of MFCC as configured, of a model as it says (``frame_rate``; 25 Hz if it does not)."""
        if self.config.model is None:
            return float(self.config.mfcc_rate)
        model, dataset = self._loaded
        return float(getattr(model, "frame_rate", getattr(dataset.inputs, "frame_rate", FRAME_RATE)))

    def length(self, index: int) -> int:
        """Length of an utterance in frames of 40 ms, whatever the rate: what orders and sizes batches. It needs no model."""
        from avtlm.data.dataset import seconds

        row = self.rows[index]
        seen = self.config.model is not None and "v" in self.config.modality and row.video_frames > 0
        return row.video_frames if seen else max(1, round(seconds(row) * FRAME_RATE))

    def compute(self, indices: Sequence[int]) -> list[tuple[str, np.ndarray]]:
        """Id and float32 (frames, dim) of some utterances; a model sees them as one batch, unmasked."""
        return self._mfcc(indices) if self.config.model is None else self._encoded(indices)

    def _mfcc(self, indices: Sequence[int]) -> list[tuple[str, np.ndarray]]:
        found = []
        for index in indices:
            row, rate = self.rows[index], self.config.mfcc_rate
            frames = round(row.video_frames * rate / FRAME_RATE) or None
            wave = self._dataset.wave(self._place[index])
            found.append((row.id, mfcc_features(wave, frames, rate, self.config.mfcc_normalise)))
        return found

    def _encoded(self, indices: Sequence[int]) -> list[tuple[str, np.ndarray]]:
        from avtlm.data.dataset import collate

        model, modality = self._model, self.config.modality
        items = [self._dataset.item(self._place[index]) for index in indices]
        batch = collate(items, self._dataset.source.task).to(next(model.parameters()).device)
        batch = batch.only(modality) if modality != "av" else batch
        with torch.inference_mode():
            features, lengths = model.encode(batch, output_layer=self.config.layer)  # type: ignore[operator]
        cut = zip(batch.ids, features.float().cpu(), lengths.tolist(), strict=True)
        return [(name, feature[:length].numpy()) for name, feature, length in cut]

    @cached_property
    def _loaded(self) -> "tuple[nn.Module, ClipDataset]":
        from avtlm.systems import for_use, load_encoder

        assert self.config.model is not None
        model, inputs = load_encoder(self.config.model)
        sees = "v" in self.config.modality and inputs.video_size is not None
        return for_use(model), _dataset(self.rows, sees, inputs)

    @property
    def _model(self) -> "nn.Module":
        return self._loaded[0]

    @cached_property
    def _dataset(self) -> "ClipDataset":
        return self._loaded[1] if self.config.model is not None else _dataset(self.rows, False, None)

    @cached_property
    def _place(self) -> list[int]:
        """Where the rows are in the data set, which reads the whole manifest."""
        places = {row.id: index for index, row in enumerate(self._dataset.manifest)}
        return [places[row.id] for row in self.rows]


def _dataset(rows: Manifest, video: bool, inputs: "InputFormat | None") -> "ClipDataset":
    from avtlm.data.dataset import ClipDataset, Source

    source = Source(
        manifest=rows.place,
        task="audio_video" if video else "audio",
        split=None,
        cache=False,
        max_seconds=1e9,
        min_seconds=0.0,
    )
    return ClipDataset(source, inputs=inputs, training=False)


def batches(lengths: Sequence[int], order: Sequence[int], max_frames: int = 2000) -> list[list[int]]:
    """Cut an order of utterances into batches of at most ``max_frames`` frames with their padding; a longer utterance is alone."""
    found: list[list[int]] = []
    longest = 0
    for index in order:
        longest = max(longest, lengths[index])
        if not found or longest * (len(found[-1]) + 1) > max_frames:
            found.append([])
            longest = lengths[index]
        found[-1].append(index)
    return found


def model_features(
    model_folder: str | Path, manifest: Manifest, layer: int, modality: str = "av", max_frames: int = 2000
) -> Iterator[tuple[str, np.ndarray]]:
    """What a layer of a trained encoder says about every utterance, shortest first: pairs of id and (frames, dim)."""
    yield from in_batches(Features(manifest, FeatureConfig(str(model_folder), layer, modality)), max_frames)


def in_batches(features: Features, max_frames: int = 2000) -> Iterator[tuple[str, np.ndarray]]:
    """Every utterance's features: MFCC one by one, a model's in batches of similar length, shortest first."""
    count = range(len(features.rows))
    if features.config.model is None:
        groups = [[index] for index in count]
    else:
        lengths = [features.length(index) for index in count]
        groups = batches(lengths, sorted(count, key=lengths.__getitem__), max_frames)
    for group in groups:
        yield from features.compute(group)
