"""Log mel spectrogram that speech is synthesised through: SpeechT5's, the same as that of the HiFi-GAN vocoders for it.

Source: SpeechT5 (arXiv 2110.07205, section 3.1) and its data code: a Hann window of 64 ms every 16 ms, centred with reflected ends,
magnitudes (not powers), 80 Slaney bands with Slaney's norm from 80 to 7600 Hz, logarithm to base 10 of at least 1e-10. Nothing is
normalised.
"""

import functools

import numpy as np
import torch
from torch import Tensor

from avtlm.frontends.filterbank import SAMPLE_RATE

WINDOW, HOP, BANDS = 1024, 256, 80
LOWEST, HIGHEST = 80.0, 7600.0  # Hz
FLOOR, SILENCE = 1e-10, -10.0  # magnitude of a band, and its logarithm
# Slaney's scale is linear up to 1 kHz, and logarithmic from there on.
_LINEAR, _BREAK, _STEP = 200.0 / 3, 1000.0, np.log(6.4) / 27


def mel_of_hertz(hertz: np.ndarray) -> np.ndarray:
    """Slaney's mel scale (that of his Auditory Toolbox)."""
    above = np.log(np.maximum(hertz, _BREAK) / _BREAK) / _STEP
    return np.where(hertz < _BREAK, hertz / _LINEAR, _BREAK / _LINEAR + above)


def hertz_of_mel(mel: np.ndarray) -> np.ndarray:
    """The way back."""
    least = _BREAK / _LINEAR
    return np.where(mel < least, mel * _LINEAR, _BREAK * np.exp(_STEP * (mel - least)))


@functools.cache
def mel_bands() -> Tensor:
    """Triangles over the bins of the spectrum, each of the same area: (80, 513) float32."""
    edges = hertz_of_mel(np.linspace(float(mel_of_hertz(np.array(LOWEST))), float(mel_of_hertz(np.array(HIGHEST))), BANDS + 2))
    bins = np.fft.rfftfreq(WINDOW, 1.0 / SAMPLE_RATE)
    rising = (bins - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    falling = (edges[2:, None] - bins) / (edges[2:] - edges[1:-1])[:, None]
    triangles = np.maximum(0.0, np.minimum(rising, falling))
    return torch.from_numpy((triangles * (2.0 / (edges[2:] - edges[:-2]))[:, None]).astype(np.float32))


def mel_frames(samples: int) -> int:
    """Frames that a waveform has."""
    return 1 + samples // HOP


def log_mel(wave: Tensor) -> Tensor:
    """Log mel spectrogram of one clip.

    Args:
        wave: float (samples,) at 16 kHz, of -1 to 1.

    Returns:
        (frames, 80) float32 at 62.5 Hz, frames = 1 + samples // 256; -10 is silence.

    Raises:
        ValueError: the clip has several channels, or is shorter than half a window, so that nothing can be reflected.
    """
    if wave.dim() != 1 or len(wave) <= WINDOW // 2:
        raise ValueError(
            f"log_mel: a waveform of shape {tuple(wave.shape)}; give one channel of more than {WINDOW // 2} samples "
            f"({1000 * WINDOW // 2 // SAMPLE_RATE} ms)."
        )
    window = torch.hann_window(WINDOW, dtype=torch.float64, device=wave.device)
    spectrum = torch.stft(wave.double(), WINDOW, HOP, window=window, center=True, pad_mode="reflect", return_complex=True)
    energies = mel_bands().to(wave.device).double() @ spectrum.abs()
    return energies.clamp(min=FLOOR).log10().t().float()
