"""Log mel filter bank as AV-HuBERT computes it (python_speech_features' ``logfbank``), stacked to the rate of the video.

Source: AV-HuBERT section 4 and its data code; the parameters are those of the released models: pre-emphasis 0.97, rectangular window of 25
ms every 10 ms, FFT of 512 points, 26 mel bands up to 8 kHz with edges floored to FFT bins, natural logarithm. Four frames of 10 ms make one
of 40 ms.
"""

import functools

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

SAMPLE_RATE = 16000
WINDOW, STEP, FFT = 400, 160, 512
BANDS = 26
STACK = 4
FRAME_RATE = 25.0
# Exact zeros have no logarithm; python_speech_features puts float64's epsilon in their place.
FLOOR = float(np.finfo(np.float64).eps)


@functools.cache
def mel_filters(warp: float = 1.0) -> Tensor:
    """Triangular filters (bins, bands), 257 x 26. ``warp`` stretches their frequencies (vocal tract length perturbation; 1 = none)."""
    top = 2595.0 * np.log10(1.0 + SAMPLE_RATE / 2 / 700.0)
    hertz = 700.0 * (10.0 ** (np.linspace(0.0, top, BANDS + 2) / 2595.0) - 1.0)
    edges = np.floor((FFT + 1) * np.minimum(hertz * warp, SAMPLE_RATE / 2) / SAMPLE_RATE)
    filters = np.zeros((FFT // 2 + 1, BANDS))
    for band in range(BANDS):
        low, centre, high = (int(edge) for edge in edges[band : band + 3])
        filters[low:centre, band] = (np.arange(low, centre) - low) / max(centre - low, 1)
        filters[centre:high, band] = (high - np.arange(centre, high)) / max(high - centre, 1)
    return torch.from_numpy(filters)


def frame_count(samples: int) -> int:
    """Frames of 10 ms in a waveform: 1 up to one window, then one more per started step."""
    return 1 if samples <= WINDOW else 1 + -(-(samples - WINDOW) // STEP)


def log_filterbank(waveform: Tensor, warp: float = 1.0) -> Tensor:
    """Log mel energies of one waveform.

    Args:
        waveform: (samples,) at 16 kHz on the int16 scale (-32768..32767), of any numeric type. The scale matters only for the last,
            zero-padded frame, but released models were trained with it.
        warp: see :func:`mel_filters`.

    Returns:
        (frames, 26) float32 at 100 Hz.

    Raises:
        ValueError: the waveform is empty or not one-dimensional.
    """
    if waveform.dim() != 1 or len(waveform) == 0:
        raise ValueError(f"log_filterbank: a waveform of shape {tuple(waveform.shape)}; give one non-empty channel, (samples,).")
    signal = waveform.double()
    signal = torch.cat([signal[:1], torch.add(signal[1:], signal[:-1], alpha=-0.97)])
    frames = frame_count(len(signal))
    signal = F.pad(signal, (0, (frames - 1) * STEP + WINDOW - len(signal)))
    spectrum = torch.fft.rfft(signal.unfold(0, WINDOW, STEP), FFT)
    power = (spectrum.real.square() + spectrum.imag.square()) / FFT
    energies = power @ mel_filters(warp)
    return torch.where(energies == 0, FLOOR, energies).log().float()


def stack_frames(features: Tensor, count: int = STACK) -> Tensor:
    """Put ``count`` successive frames into one, oldest first: (frames, bands) -> (ceil(frames / count), bands * count), zero rows
    appended."""
    missing = -len(features) % count
    return F.pad(features, (0, 0, 0, missing)).reshape(-1, count * features.shape[1])


def match_length(features: Tensor, frames: int) -> Tensor:
    """Cut at the end, or append zero vectors, to exactly ``frames`` rows (the video's)."""
    return features[:frames] if len(features) >= frames else F.pad(features, (0, 0, 0, frames - len(features)))


def normalise_frames(features: Tensor) -> Tensor:
    """Zero mean and unit variance over the values of each frame, as the released AV-HuBERT and VATLM models expect; zero vectors stay
    zero."""
    return F.layer_norm(features, features.shape[1:])


def normalise_utterance(features: Tensor) -> Tensor:
    """Zero mean and unit variance of each value over the utterance: keeps the loudness contour, which per-frame normalisation removes.

    Energies below one quantisation step of int16 are raised to it first: digital silence, at -36, would otherwise be most of the variance.
    """
    features = features.clamp(min=0.0)
    return (features - features.mean(0)) / (features.std(0, unbiased=False) + 1e-3)


def audio_features(waveform: Tensor, frames: int | None = None, normalise: str = "frame", warp: float = 1.0) -> Tensor:
    """Waveform to the model's audio input at 25 Hz.

    Args:
        waveform: (samples,), int16 scale, 16 kHz.
        frames: length to match, the video's; None keeps the audio's own.
        normalise: ``frame`` (official), ``utterance`` or ``none``.

    Returns:
        (frames, 104) float32.

    Raises:
        ValueError: unknown normalisation, or an empty waveform.
    """
    features = stack_frames(log_filterbank(waveform, warp))
    if frames is not None:
        features = match_length(features, frames)
    if normalise == "frame":
        return normalise_frames(features)
    if normalise == "utterance":
        return normalise_utterance(features)
    if normalise == "none":
        return features
    raise ValueError(f"audio_normalise: {normalise!r} is unknown; choose frame, utterance or none.")
