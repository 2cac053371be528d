"""Enhancement (SE) and separation (SS): a recurrent network draws masks over the spectrogram that is heard (SUPERB-SG, arXiv 2203.06849).

What is unusual here:
- One window of the spectrogram belongs to one frame of the encoder: its hop is the encoder's, as in s3prl's ``enhancement_stft`` and
  ``separation_stft``. Of encoders with fewer frames a second than there have to be windows (which overlap, to be inverted) every frame is
  split by a linear layer of the head into as many as are needed: merely repeated, they would draw one mask for all their windows.
- Masks are not bound by 1 (ReLU). What is learned is the magnitude that a mask leaves, against the phase-sensitive target: the part of the
  source that is in phase with the mixture, cut off at 0 (Erdogan et al. 2015; Kolbaek et al. 2017), under the best order of the sources.
- PESQ chooses, as there, so its package has to be installed. It needs speech: an estimate in which there is none, as a
  head at its beginning may give, gets 1.0, the bottom of its scale.
"""

import abc
import importlib.util
import logging
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import permutations
from typing import ClassVar, Literal, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence, pad_sequence

from avtlm.data.container import SAMPLE_RATE
from avtlm.evaluation.speech_quality import pesq, separation_gain, stoi
from avtlm.evaluation.superb.data import Clip, Corpus, CorpusError
from avtlm.evaluation.superb.task import Heard, Metric, Task, TaskConfig
from avtlm.objectives.loss import Loss

WORST_PESQ = 1.0
TOLERANCE = 5  # frames that features and spectrogram may differ in, for each frame of the encoder

LOG = logging.getLogger(__name__)

PESQ = Metric("PESQ", "")
STOI = Metric("STOI")
GAIN = Metric("SI-SDRi", "")  # dB


@dataclass(frozen=True)
class MaskConfig(TaskConfig):
    """The network and what it learns.

    Attributes:
        hidden: units of each direction.
        layers: bidirectional LSTMs.
        dropout: between the layers and behind the last.
        fft: samples of a window (Hann).
        windows: of the spectrogram in a second, at least; encoders of as many frames a second or more have one for each frame.
        target: what the masked magnitude is to be: the source's ``amplitude``, the part of it in phase with the mixture
            (``phase_sensitive``), or that part where it is positive (``truncated_phase_sensitive``).
    """

    steps: int = 150_000
    batch: int = 8
    optimizer: Literal["adam", "adamw"] = "adamw"
    hidden: int = 896
    layers: int = 3
    dropout: float = 0.5
    fft: int = 512
    windows: int = 50
    target: Literal["amplitude", "phase_sensitive", "truncated_phase_sensitive"] = "truncated_phase_sensitive"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.hidden < 1 or self.layers < 1 or not 0 <= self.dropout < 1:
            raise ValueError(f"hidden {self.hidden}, layers {self.layers}, dropout {self.dropout}; give at least 1, 1, and 0 to below 1.")
        if self.windows < 1:
            raise ValueError(f"windows: {self.windows}; give at least 1 a second.")
        hop = SAMPLE_RATE // self.windows  # the longest
        if self.fft <= hop or self.fft % 2:
            raise ValueError(f"fft: {self.fft}; give an even number above {hop} samples, from one of {self.windows} windows to the next.")


@dataclass(frozen=True)
class EnhancementConfig(MaskConfig):
    """As published."""

    evaluate_every: int | None = 1250


@dataclass(frozen=True)
class SeparationConfig(MaskConfig):
    """As published."""

    evaluate_every: int | None = 2000


class MaskHead(nn.Module):
    """Features to a mask for every source.

    Args:
        split: windows of the spectrogram for each frame of features.

    Initialisation: PyTorch's.
    """

    def __init__(self, width: int, sources: int, config: MaskConfig, split: int = 1) -> None:
        super().__init__()
        self.split = nn.Linear(width, split * width) if split > 1 else None
        between = config.dropout if config.layers > 1 else 0.0
        self.recurrent = nn.LSTM(width, config.hidden, config.layers, batch_first=True, dropout=between, bidirectional=True)
        self.dropout = nn.Dropout(config.dropout)
        self.masks = nn.ModuleList(nn.Linear(2 * config.hidden, config.fft // 2 + 1) for _ in range(sources))

    def forward(self, features: Tensor, lengths: Tensor) -> Tensor:
        """(batch, frames, width) -> (batch, sources, windows, bins), not negative, zero behind the lengths (batch,), in windows.

        There are ``split`` windows for each frame, or less of the last one: as many as the longest has.
        """
        if self.split is not None:
            parts = self.split(features)
            features = parts.reshape(len(parts), -1, features.shape[2])[:, : int(lengths.max())]
        packed = pack_padded_sequence(features, lengths.cpu(), batch_first=True, enforce_sorted=False)
        x, _ = pad_packed_sequence(self.recurrent(packed)[0], batch_first=True, total_length=features.shape[1])
        x = self.dropout(x)
        masks = torch.stack([layer(x).relu() for layer in self.masks], 1)
        valid = torch.arange(features.shape[1], device=masks.device) < lengths.to(masks.device)[:, None]
        return masks * valid[:, None, :, None]


def mask_errors(masks: Tensor, mixture: Tensor, sources: Tensor, target: str) -> Tensor:
    """Squared error of the masked magnitude of every clip, in the order of sources that is best for it.

    Args:
        masks: (batch, sources, frames, bins).
        mixture: complex (batch, frames, bins), zero behind the ends.
        sources: complex (batch, sources, frames, bins).
        target: see MaskConfig.

    Returns:
        (batch,): sums over sources, frames and bins.
    """
    magnitude = mixture.abs()
    if target == "amplitude":
        wanted = sources.abs()
    else:
        wanted = (sources * mixture.conj()[:, None]).real / magnitude.clamp(min=torch.finfo(magnitude.dtype).tiny)[:, None]
        wanted = wanted.relu() if target == "truncated_phase_sensitive" else wanted
    given = masks * magnitude[:, None]
    # Error of every estimate as every source, (batch, estimates, sources).
    errors = torch.stack([(given - wanted[:, [place]]).square().sum((2, 3)) for place in range(wanted.shape[1])], 2)
    places = range(wanted.shape[1])
    orders = [sum(errors[:, estimate, source] for estimate, source in zip(places, order, strict=True)) for order in permutations(places)]
    return torch.stack([torch.as_tensor(order) for order in orders], 1).amin(1)


@dataclass(frozen=True)
class Spectra:
    """A batch whose features and spectrograms begin and end together.

    Attributes:
        features: (batch, frames, width); every frame has one window of the spectrogram, or several.
        lengths: valid windows (batch,).
        mixture: complex (batch, windows, bins), zero behind the lengths.
        sources: complex (batch, sources, windows, bins).
    """

    features: Tensor
    lengths: Tensor
    mixture: Tensor
    sources: Tensor


C = TypeVar("C", bound=MaskConfig)


class MaskTask(Task[C]):
    """What enhancement and separation have in common.

    Attributes:
        sources: in a mixture.
    """

    sources: ClassVar[int]

    @abc.abstractmethod
    def source_files(self, clip: Clip) -> list[str]:
        """The sound files of the sources of a clip. Raises CorpusError: it names none, or another number of them."""

    @abc.abstractmethod
    def measure(self, estimates: np.ndarray, targets: np.ndarray, mixture: np.ndarray) -> dict[str, float]:
        """Metrics of a clip: estimates and targets (sources, samples), mixture (samples,)."""

    def head(self, width: int, frame_rate: float) -> nn.Module:
        return MaskHead(width, self.sources, self.config, self._spacing(frame_rate)[1])

    def loss(self, head: nn.Module, heard: Heard, generator: torch.Generator) -> Loss:
        """Mean over clips of the error per frame and source."""
        del generator  # nothing is drawn but dropout
        spectra = self.spectra(heard, whole=self.config.crop_seconds is None)
        masks = head(spectra.features, spectra.lengths)
        errors = mask_errors(masks, spectra.mixture, spectra.sources, self.config.target)
        each = errors / (spectra.lengths.to(errors.device) * self.sources)
        return Loss(each.sum(), torch.tensor(len(each), device=errors.device))

    def evaluate(self, head: nn.Module, batches: Iterable[Heard], split: str) -> dict[str, float]:
        """Means over clips."""
        found: list[dict[str, float]] = []
        for heard in batches:
            spectra = self.spectra(heard, whole=True)
            masks = head(spectra.features, spectra.lengths)
            hop, _ = self._spacing(heard.frame_rate)
            for row, (mixture, targets) in enumerate(self._sounds(heard.clips)):
                masked = (masks[row] * spectra.mixture[row])[:, : int(spectra.lengths[row])]
                found.append(self.measure(self._invert(masked, hop, len(mixture)), targets, mixture))
        if not found:
            raise CorpusError(f"{self.corpus.folder}: there is no clip in {split} to measure.")
        return {name: float(np.mean([one[name] for one in found])) for name in found[0]}

    def spectra(self, heard: Heard, whole: bool) -> Spectra:
        """Spectrograms of a batch beside its features.

        Args:
            whole: clips are not cropped, so that features that end before the spectrogram are filled up with zeros; of crops the
                spectrogram is cut.

        Raises:
            CorpusError: a clip and its sources have other lengths, or features another length than their sound.
        """
        hop, split = self._spacing(heard.frame_rate)
        device = heard.features.device
        features, mixtures, sources = [], [], []
        for row, (mixture, targets) in enumerate(self._sounds(heard.clips)):
            own = heard.features[row, : int(heard.lengths[row])]
            spectrogram = self._transform(np.concatenate([mixture[None], targets]), hop).to(device)  # (1 + sources, frames, bins)
            spectrogram = spectrogram[:, heard.first[row] * split :]
            windows = len(own) * split
            count = spectrogram.shape[1] if whole else min(spectrogram.shape[1], windows)
            if whole and abs(count - windows) > TOLERANCE * split:
                raise CorpusError(
                    f"{heard.clips[row].place}: {heard.clips[row].id} has {windows} windows by its features and {count} by its sound; "
                    "the encoder's frame rate is not what its configuration says."
                )
            frames = math.ceil(count / split)
            features.append(nn.functional.pad(own[:frames], (0, 0, 0, max(0, frames - len(own)))))
            mixtures.append(spectrogram[0, :count])
            sources.append(spectrogram[1:, :count].transpose(0, 1))
        lengths = torch.tensor([len(one) for one in mixtures])
        padded = [pad_sequence(rows, batch_first=True) for rows in (features, mixtures, sources)]
        return Spectra(padded[0], lengths, padded[1], padded[2].transpose(1, 2))

    def _spacing(self, frame_rate: float) -> tuple[int, int]:
        """Samples from window to window, and windows for each frame of the encoder."""
        split = math.ceil(self.config.windows / frame_rate)
        hop = SAMPLE_RATE / (frame_rate * split)
        if hop != round(hop):
            raise ValueError(f"{self.corpus.task} needs a whole number of samples for each frame, and {frame_rate:g} a second give none.")
        return round(hop), split

    def _sounds(self, clips: Sequence[Clip]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Mixture (samples,) and sources (sources, samples) of every clip."""
        for clip in clips:
            mixture = clip.wave()
            targets = [clip.wave(name) for name in self.source_files(clip)]
            for name, target in zip(self.source_files(clip), targets, strict=True):
                if len(target) != len(mixture):
                    raise CorpusError(
                        f"{clip.place}: {name} has {len(target)} samples and {clip.audio} {len(mixture)}; a source is as long as both."
                    )
            yield mixture, np.stack(targets)

    def _transform(self, waves: np.ndarray, hop: int) -> Tensor:
        """(rows, samples) -> complex (rows, frames, bins); a window is centred at every multiple of the hop."""
        size = self.config.fft
        spectrogram = torch.stft(
            torch.from_numpy(waves), size, hop, window=torch.hann_window(size), center=True, pad_mode="constant", return_complex=True
        )
        return spectrogram.transpose(1, 2)

    def _invert(self, masked: Tensor, hop: int, samples: int) -> np.ndarray:
        """(rows, frames, bins) -> (rows, samples)."""
        size = self.config.fft
        # The last window may end some samples before the clip does.
        reached = min(samples, size // 2 + hop * (masked.shape[1] - 1))
        waves = torch.istft(masked.cpu().transpose(1, 2), size, hop, window=torch.hann_window(size), center=True, length=reached)
        return nn.functional.pad(waves, (0, samples - reached)).numpy()


class Enhancement(MaskTask[EnhancementConfig]):
    """SE: one voice out of noise.

    Raises:
        ImportError: the package pesq is not installed.
    """

    metrics: ClassVar[tuple[Metric, ...]] = (PESQ, STOI, GAIN)
    sources = 1

    def __init__(self, corpus: Corpus, config: EnhancementConfig) -> None:
        super().__init__(corpus, config)
        if importlib.util.find_spec("pesq") is None:
            raise ImportError("SE measures PESQ, whose package is not installed: pip install pesq (a C compiler has to be there).")

    def source_files(self, clip: Clip) -> list[str]:
        return [clip.text("clean")]

    def measure(self, estimates: np.ndarray, targets: np.ndarray, mixture: np.ndarray) -> dict[str, float]:
        gain = separation_gain(estimates, targets, mixture)
        return {PESQ.name: _pesq(estimates[0], targets[0]), STOI.name: 100 * stoi(estimates[0], targets[0]), GAIN.name: gain}


class Separation(MaskTask[SeparationConfig]):
    """SS: two voices out of their sum."""

    metrics: ClassVar[tuple[Metric, ...]] = (GAIN,)
    sources = 2

    def source_files(self, clip: Clip) -> list[str]:
        names = clip.names("sources")
        if len(names) != self.sources:
            raise clip.wrong("sources", f"{self.sources} sound files")
        return names

    def measure(self, estimates: np.ndarray, targets: np.ndarray, mixture: np.ndarray) -> dict[str, float]:
        return {GAIN.name: separation_gain(estimates, targets, mixture)}


def _pesq(estimate: np.ndarray, target: np.ndarray) -> float:
    if not np.any(estimate):
        return WORST_PESQ
    try:
        return pesq(estimate, target)
    except ValueError as error:
        LOG.warning("%s It counts as %.1f.", error, WORST_PESQ)
        return WORST_PESQ
