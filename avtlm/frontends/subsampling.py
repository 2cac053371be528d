"""Waveform to frames of 40 ms: Kaldi's log mel filter bank, and two convolutions that make it four times shorter (MMSpeech's front-end).

What is unusual here:
- Models take waveforms; the filter bank is computed here, clip by clip, so that noise and crops of the data pipeline are those of sound.
- Clips are scaled to full scale before, and every band has mean 0 and variance 1 over the clip behind.
- The official code counts one or two frames too many for clips that are shorter than the longest one of their batch, so that frames made of
  padding are heard. ``official_lengths`` brings that back for comparisons.

Source: OFA-Sys/OFA, models/ofa/ofa_speech.py (Conv2dSubsampling4) and data/s2t_data/unify_dataset.py; fairseq's audio_utils.py and
utterance_cmvn.py. The filter bank is Kaldi's: a Povey window of 25 ms every 10 ms, pre-emphasis 0.97, 80 bands from 20 Hz, no dither.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from avtlm.frontends.filterbank import SAMPLE_RATE, STEP, WINDOW

SCALE = 32768.0  # of int16, on which Kaldi's features are computed
CONVOLUTIONS, KERNEL, STRIDE = 2, 3, 2
LEAST_VARIANCE = 1e-10


@dataclass(frozen=True)
class SubsamplingConfig:
    """Sizes of the front-end.

    Attributes:
        bands: of the filter bank.
        full_scale: scale clips to their largest sample first.
        normalise: mean 0 and variance 1 of each band over the clip.
        official_lengths: see the module's docstring.
    """

    bands: int = 80
    full_scale: bool = True
    normalise: bool = True
    official_lengths: bool = False

    def __post_init__(self) -> None:
        if shortened(self.bands) < 1:
            raise ValueError(f"bands: {self.bands} are too few for two convolutions; give at least 7.")

    def valid_frames(self, lengths: Tensor, frames: int) -> Tensor:
        """Valid frames of rows of so many frames of the filter bank, int (batch,), of ``frames`` behind the convolutions."""
        if not self.official_lengths:
            return torch.div(torch.div(lengths - 1, 2, rounding_mode="floor") - 1, 2, rounding_mode="floor").clamp(min=0, max=frames)
        for _ in range(CONVOLUTIONS):
            lengths = torch.div(lengths + 1, 2, rounding_mode="floor")
        return lengths.clamp(max=frames)


def shortened(length: int) -> int:
    """What two convolutions make of so many frames, or bands."""
    return max(((length - 1) // 2 - 1) // 2, 0)


def fbank_frames(samples: int) -> int:
    """Frames of the filter bank whose window lies within so many samples."""
    return max(1 + (samples - WINDOW) // STEP, 0)


LEAST_SAMPLES = WINDOW + 6 * STEP  # of one frame behind the convolutions


def kaldi_filterbank(wave: Tensor, bands: int = 80) -> Tensor:
    """Log mel energies as Kaldi computes them.

    Args:
        wave: (samples,) at 16 kHz on the scale of int16.

    Returns:
        (frames, bands) float32 at 100 Hz; no frame for less than one window.

    Raises:
        ValueError: several channels.
    """
    if wave.dim() != 1:
        raise ValueError(f"kaldi_filterbank: a waveform of shape {tuple(wave.shape)}; give one channel, (samples,).")
    if len(wave) < WINDOW:
        return wave.new_zeros(0, bands, dtype=torch.float32)
    from torchaudio.compliance import kaldi

    features: Tensor = kaldi.fbank(wave[None].float(), num_mel_bins=bands, sample_frequency=SAMPLE_RATE)
    return features


def normalise_bands(features: Tensor) -> Tensor:
    """Mean 0 and variance 1 of each band over the frames (frames, bands), as fairseq's UtteranceCMVN.

    It is computed by NumPy in float32, as there: in bands that hardly change the variance is a small difference of large sums, and what
    rounding makes of it is what released models were trained on.
    """
    if not len(features):
        return features
    x = features.cpu().numpy()
    mean = x.mean(axis=0)
    variance = (x**2).sum(axis=0) / len(x) - mean**2
    return torch.from_numpy((x - mean) / np.sqrt(np.maximum(variance, LEAST_VARIANCE))).to(features.device)


def clip_features(wave: Tensor, config: SubsamplingConfig) -> Tensor:
    """Waveform (samples,) of -1 to 1 to the filter bank (frames, bands) that the model was trained on."""
    peak = wave.abs().max() if config.full_scale and len(wave) else wave.new_ones(())
    features = kaldi_filterbank(wave / peak.clamp(min=torch.finfo(wave.dtype).tiny) * SCALE, config.bands)
    return normalise_bands(features) if config.normalise else features


class SubsamplingFrontEnd(nn.Module):
    """Two convolutions without padding over time and bands, and two linear layers.

    Initialisation: PyTorch's.

    Args:
        dim: width of frames, and channels of the convolutions.
    """

    def __init__(self, config: SubsamplingConfig, dim: int) -> None:
        super().__init__()
        self.config = config
        self.convs = nn.ModuleList(nn.Conv2d(channels, dim, KERNEL, STRIDE) for channels in (1, dim))
        self.flat = nn.Linear(dim * shortened(config.bands), dim)
        self.project = nn.Linear(dim, dim)

    def features(self, waves: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Waveforms (batch, samples) of the given lengths to filter banks (batch, frames, bands), zero behind their ends, and frames
        (batch,)."""
        rows = [clip_features(wave[:length], self.config) for wave, length in zip(waves, lengths.tolist(), strict=True)]
        return self.pad(rows), torch.tensor([len(row) for row in rows], device=lengths.device)

    def pad(self, rows: Sequence[Tensor]) -> Tensor:
        """Filter banks of clips (frames, bands) in one tensor, with at least as many frames as the convolutions take."""
        padded = torch.nn.utils.rnn.pad_sequence(list(rows), batch_first=True)
        return nn.functional.pad(padded, (0, 0, 0, max(0, 7 - padded.shape[1])))

    def convolve(self, features: Tensor) -> Tensor:
        """Filter banks (batch, frames, bands) -> (batch, shortened frames, dim), behind the first linear layer."""
        x = features.to(next(self.convs.parameters()).dtype)[:, None]
        for conv in self.convs:
            x = conv(x).relu()
        out: Tensor = self.flat(x.transpose(1, 2).flatten(2))  # (batch, frames, channels x bands)
        return out

    def forward(self, features: Tensor, lengths: Tensor) -> tuple[Tensor, Tensor]:
        """Filter banks (batch, frames, bands) with so many valid frames (batch,) -> (batch, shortened frames, dim) and its valid frames."""
        x = self.project(self.convolve(features))
        return x, self.config.valid_frames(lengths, x.shape[1])
