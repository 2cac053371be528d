"""Log mel filter bank of icefall's models, as lhotse's Fbank computes it (MT2KD, Zipformer).

What is unusual here:
- Samples stay between -1 and 1: energies are those of the signal, not of int16, and digital silence is -15.94 (float32's epsilon).
- Windows are centred on every 10 ms and reflect the ends of a clip (``snip_edges`` false), so that a clip has one frame for every 10 ms
  that it lasts, rounded. Nothing is normed.
- Where clips are batched, shorter ones are filled up with ``PADDING``, the logarithm of 1e-10, which is quieter than silence.

A Povey window of 25 ms, pre-emphasis 0.97, no offset, FFT of 512, 80 bands from 20 to 7600 Hz, no dither.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from avtlm.frontends.filterbank import SAMPLE_RATE, STEP, WINDOW

BANDS, LOWEST, HIGHEST = 80, 20.0, -400.0  # Hz, the last one counted from half the sample rate
PADDING = math.log(1e-10)
LEAST_SAMPLES = WINDOW  # of one window, which reflection cannot fill by itself


def fbank_frames(samples: int) -> int:
    """Frames of a waveform: one for every 10 ms, rounded."""
    return (samples + STEP // 2) // STEP


def fbank(wave: Tensor, bands: int = BANDS) -> Tensor:
    """Log mel energies of one clip.

    Args:
        wave: float (samples,) at 16 kHz, of -1 to 1.

    Returns:
        (frames, bands) float32 at 100 Hz, see fbank_frames.

    Raises:
        ValueError: several channels, or less than one window.
    """
    if wave.dim() != 1 or len(wave) < LEAST_SAMPLES:
        raise ValueError(
            f"fbank: a waveform of shape {tuple(wave.shape)}; give one channel of at least {LEAST_SAMPLES} samples "
            f"({1000 * LEAST_SAMPLES // SAMPLE_RATE} ms)."
        )
    from torchaudio.compliance import kaldi

    features: Tensor = kaldi.fbank(
        wave[None].float(),
        num_mel_bins=bands,
        sample_frequency=SAMPLE_RATE,
        snip_edges=False,
        low_freq=LOWEST,
        high_freq=HIGHEST,
        dither=0.0,
    )
    return features


def pad_features(rows: Sequence[Tensor], least: int = 1) -> Tensor:
    """Features of clips (frames, bands) in one tensor (batch, frames, bands) of at least so many frames, filled up with PADDING."""
    padded = torch.nn.utils.rnn.pad_sequence(list(rows), batch_first=True, padding_value=PADDING)
    return torch.nn.functional.pad(padded, (0, 0, 0, max(0, least - padded.shape[1])), value=PADDING)


def batch_fbank(waves: Tensor, lengths: Tensor, bands: int = BANDS, least: int = 1) -> tuple[Tensor, Tensor]:
    """Waveforms (batch, samples) of the given lengths to features (batch, frames, bands) and their frames (batch,), clip by clip."""
    with torch.autocast(waves.device.type, enabled=False):  # products of energies need more digits than bfloat16 has
        rows = [fbank(wave[:length], bands) for wave, length in zip(waves, lengths.tolist(), strict=True)]
    return pad_features(rows, least), torch.tensor([len(row) for row in rows], device=lengths.device)
