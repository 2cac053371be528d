"""Mel-cepstra of a waveform, for the distance between two recordings (speech_quality.mel_cepstral_distortion).

The cepstrum of each frame's power spectrum, brought to the mel scale by an all-pass filter (SPTK's freqt; Tokuda et al. 1994). Truncated to
25 coefficients it holds the envelope and no harmonics. Published figures take the envelope of WORLD in place of the spectrum of a window:
they are on the same scale, but not equal.
"""

import functools

import numpy as np

from avtlm.frontends.filterbank import SAMPLE_RATE

ORDER, ALPHA = 24, 0.41  # of voice conversion at 16 kHz
WINDOW, HOP, BINS = 400, 80, 1024  # samples: 25 ms every 5 ms; the Fourier transform has more, so that the cepstrum does not fold
FLOOR = 1e-8  # power of what 16 bits round away


def mel_cepstra(wave: np.ndarray, order: int = ORDER, alpha: float = ALPHA) -> np.ndarray:
    """Mel-cepstra every 5 ms.

    Args:
        wave: float (samples,) at 16 kHz, of -1 to 1.

    Returns:
        (frames, 1 + order) float64, natural logarithms; the first column is the loudness.

    Raises:
        ValueError: the clip is shorter than a window.
    """
    if wave.ndim != 1 or len(wave) < WINDOW:
        raise ValueError(f"mel-cepstra of {wave.shape} samples; give one channel of at least {WINDOW} ({1000 * WINDOW // SAMPLE_RATE} ms).")
    frames = np.lib.stride_tricks.sliding_window_view(wave.astype(np.float64), WINDOW)[::HOP] * np.hanning(WINDOW)
    power = np.abs(np.fft.rfft(frames, BINS)) ** 2
    cepstra = np.fft.irfft(np.log(power + FLOOR))[:, : BINS // 2 + 1]
    cepstra[:, 0] /= 2.0  # of the minimum-phase filter with this spectrum
    warped: np.ndarray = cepstra @ warping(cepstra.shape[1], order, alpha)
    return warped


@functools.lru_cache(maxsize=4)
def warping(size: int, order: int, alpha: float) -> np.ndarray:
    """What the change of the frequency scale makes of cepstra of this size: (size, 1 + order)."""
    warped = np.zeros((size, order + 1))
    for index in range(size - 1, -1, -1):
        before = warped.copy()
        warped[:, 0] = alpha * before[:, 0]
        warped[index, 0] += 1.0
        if order:
            warped[:, 1] = (1.0 - alpha**2) * before[:, 0] + alpha * before[:, 1]
        for place in range(2, order + 1):
            warped[:, place] = before[:, place - 1] + alpha * (before[:, place] - warped[:, place - 1])
    return warped
