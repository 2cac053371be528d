"""What MT2KD's teachers hear: the log mel spectrogram of Whisper, the filter bank of BEATs and that of SpeechBrain's ECAPA-TDNN.

Sources: Whisper (arXiv 2212.04356) and its audio.py; BEATs (arXiv 2212.09058) and its BEATs.py; SpeechBrain's processing/features.py with
the settings of spkrec-ecapa-voxceleb. All take 16 kHz, samples of -1 to 1.
"""

import functools
import math

import numpy as np
import torch
from torch import Tensor

from avtlm.frontends.filterbank import SAMPLE_RATE, STEP, WINDOW
from avtlm.frontends.mel import hertz_of_mel, mel_of_hertz
from avtlm.frontends.subsampling import kaldi_filterbank

WHISPER_RANGE = 8.0  # decades below the loudest value that are kept
SCALE = 2.0**15
BEATS_BANDS, BEATS_MEAN, BEATS_DEVIATION = 128, 15.41663, 6.55582
SPEAKER_BANDS, DECIBELS = 80, 80.0
LEAST_ENERGY = 1e-10


@functools.cache
def whisper_filters(bands: int) -> Tensor:
    """Slaney's triangles of equal area up to 8 kHz, (bands, 201) float32."""
    edges = hertz_of_mel(np.linspace(0.0, float(mel_of_hertz(np.array(SAMPLE_RATE / 2))), bands + 2))
    bins = np.fft.rfftfreq(WINDOW, 1.0 / SAMPLE_RATE)
    rising = (bins - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    falling = (edges[2:, None] - bins) / (edges[2:] - edges[1:-1])[:, None]
    triangles = np.maximum(0.0, np.minimum(rising, falling))
    return torch.from_numpy((triangles * (2.0 / (edges[2:] - edges[:-2]))[:, None]).astype(np.float32))


def whisper_log_mel(waves: Tensor, bands: int = 80) -> Tensor:
    """Whisper's spectrogram of waveforms (..., samples) -> (..., bands, samples // 160) at 100 Hz.

    Values below the loudest one of the whole tensor by more than eight decades are raised to that, so that what a clip gives depends on its
    batch; a teacher is asked clip by clip.
    """
    window = torch.hann_window(WINDOW, device=waves.device)
    spectrum = torch.stft(waves.float(), WINDOW, STEP, window=window, return_complex=True)[..., :-1]
    energies = whisper_filters(bands).to(waves.device) @ spectrum.abs().square()
    logarithm = energies.clamp(min=LEAST_ENERGY).log10()
    return (torch.maximum(logarithm, logarithm.max() - WHISPER_RANGE) + 4.0) / 4.0


def beats_filterbank(wave: Tensor) -> Tensor:
    """BEATs' features of one clip (samples,) -> (frames, 128) at 100 Hz: Kaldi's on the scale of int16, normed by AudioSet's statistics."""
    return (kaldi_filterbank(wave * SCALE, BEATS_BANDS) - BEATS_MEAN) / (2.0 * BEATS_DEVIATION)


@functools.cache
def speaker_filters() -> Tensor:
    """SpeechBrain's triangles, as high as wide ones and as wide to the right as to the left, (201, 80) float32."""
    top = 2595.0 * math.log10(1.0 + SAMPLE_RATE / 2 / 700.0)
    hertz = 700.0 * (10.0 ** (torch.linspace(0.0, top, SPEAKER_BANDS + 2) / 2595.0) - 1.0)
    width, centre = (hertz[1:] - hertz[:-1])[:-1], hertz[1:-1]
    bins = torch.linspace(0.0, SAMPLE_RATE / 2, WINDOW // 2 + 1)
    slope = (bins[:, None] - centre) / width
    return torch.minimum(slope + 1.0, 1.0 - slope).clamp(min=0.0)


def speaker_filterbank(wave: Tensor) -> Tensor:
    """ECAPA-TDNN's features of one clip (samples,) -> (frames, 80) at 100 Hz: decibels, at most 80 below the loudest, each band with mean 0
    over the clip."""
    window = torch.hamming_window(WINDOW, device=wave.device)
    spectrum = torch.stft(wave.float(), WINDOW, STEP, window=window, center=True, pad_mode="constant", return_complex=True)
    energies = spectrum.abs().square().t() @ speaker_filters().to(wave.device)
    decibels = 10.0 * energies.clamp(min=LEAST_ENERGY).log10()
    decibels = torch.maximum(decibels, decibels.max() - DECIBELS)
    return decibels - decibels.mean(0)
