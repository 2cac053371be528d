"""Speech in noise: mixing at a signal-to-noise ratio, and babble.

Sources: AV-HuBERT's noisy-speech experiments (arXiv 2201.01763, section 3) mix int16 waveforms and bring a mixture that leaves the int16 range
back into it as a whole; auto_avsr mixes float waveforms by the same energy ratio without touching the peaks. Where speech or noise has no energy
the ratio has no meaning and the speech is returned as it was.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from avtlm.data.seeds import seed_for

SNRS = (10, 5, 0, -5, -10)  # dB, the conditions of the published tables; "clean" stands beside them
INT16 = np.iinfo(np.int16)


def mix_at_snr(clean: np.ndarray, noise: np.ndarray, snr_db: float) -> np.ndarray:
    """Speech with noise, ``snr_db`` decibels apart in energy over the whole signal, silence included.

    Noise shorter than the speech is repeated; longer noise is cut from its start.

    Args:
        clean: (samples,) int16 or floating point.
        noise: (samples,), any type and any level.
        snr_db: speech energy over noise energy in dB.

    Returns:
        (samples,) in the type of ``clean``. int16: AV-HuBERT's formula, scaled as a whole if it would clip, truncated toward zero.
        Floating point: plain sum, which may leave [-1, 1].

    Raises:
        ValueError: the signals are not one-dimensional, speech is of another type, or the noise is empty.
    """
    if clean.ndim != 1 or noise.ndim != 1:
        raise ValueError(f"Mixing needs signals of shape (samples,), not {clean.shape} and {noise.shape}; take one channel.")
    if clean.dtype != np.int16 and not np.issubdtype(clean.dtype, np.floating):
        raise ValueError(f"Speech to be mixed is int16 or floating point, not {clean.dtype}; convert it first.")
    if len(noise) == 0:
        raise ValueError("The noise to be mixed in has no samples; give at least one.")
    if len(clean) == 0:
        return clean.copy()
    whole = clean.dtype == np.int16
    kind = np.float32 if whole else clean.dtype
    speech = clean.astype(kind)
    noise = fit(noise, len(speech)).astype(kind)
    speech_rms, noise_rms = _rms(speech), _rms(noise)
    if speech_rms == 0 or noise_rms == 0:
        return clean.copy()
    mixture = speech + noise * kind.type(speech_rms / 10 ** (snr_db / 20) / noise_rms) if isinstance(kind, np.dtype) else None
    return mixture if mixture is not None else clean
