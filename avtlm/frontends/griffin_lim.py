"""Log mel spectrograms back to waveforms where no trained vocoder is at hand (Griffin and Lim 1984; momentum: Perraudin et al. 2013).

What is unusual here:
- Bands are taken apart into the bins of the spectrum by multiplicative steps (Richardson and Lucy's, which are expectation maximisation for
  non-negative parts): magnitudes stay above zero and add up to the bands again, soft ones as well as loud ones, where least squares make
  negative ones.
- Phases are drawn from a seed, and nothing else is random.

What comes out has the loudness of what the spectrogram was made of, but sounds rougher: phases are guessed, and what lies below 80 Hz or
above 7600 Hz is lost.
"""

import torch
from torch import Tensor

from avtlm.frontends.mel import BANDS, FLOOR, HOP, SILENCE, WINDOW, mel_bands

STEPS = 60  # that phases take
SPLITS = 40  # steps that magnitudes take
MOMENTUM = 0.99
LOUDEST = 4.0  # a logarithm far above that of any band of sound; what is beyond it comes from a model that has learned nothing
FEWEST = 4  # frames that are needed to reflect the ends of a waveform


def magnitudes(mel: Tensor, steps: int = SPLITS) -> Tensor:
    """Magnitudes whose bands are those of a log mel spectrogram: (frames, 80) -> (frames, 513)."""
    bands = mel_bands().to(mel.device)
    wanted = 10.0 ** mel.float().clamp(SILENCE, LOUDEST)
    covered = bands.sum(0)  # no band covers the lowest and the highest bins
    shares = bands / covered.clamp(min=torch.finfo(torch.float32).tiny)
    found = (wanted / bands.sum(1)) @ shares
    for _ in range(steps):
        found = found * ((wanted / (found @ bands.t()).clamp(min=FLOOR)) @ shares)
    return found


def griffin_lim(mel: Tensor, seed: int = 0, steps: int = STEPS) -> Tensor:
    """The waveform of one log mel spectrogram.

    Args:
        mel: (frames, 80), see avtlm.frontends.mel.
        seed: of the phases that it starts from.
        steps: more of them sound less rough, up to a point.

    Returns:
        float32 (frames x 256,) at 16 kHz; as loud as what the spectrogram was made of, which may be beyond -1 to 1.

    Raises:
        ValueError: other spectrograms than those that avtlm.frontends.mel makes, or none.
    """
    if mel.dim() != 2 or mel.shape[1] != BANDS or not len(mel):
        raise ValueError(
            f"griffin_lim: a spectrogram of shape {tuple(mel.shape)}; Griffin-Lim takes (frames, {BANDS}) of avtlm.frontends.mel; "
            "others need their own vocoder."
        )
    frames = len(mel)
    # One frame of silence behind, so that the last one has its 256 samples.
    mel = torch.nn.functional.pad(mel.float(), (0, 0, 0, max(1, FEWEST - frames)), value=SILENCE)
    size = magnitudes(mel).t()
    window = torch.hann_window(WINDOW, device=mel.device)
    turns = torch.rand(size.shape, generator=torch.Generator().manual_seed(seed)).to(mel.device)
    angles = torch.polar(torch.ones_like(turns), 2 * torch.pi * turns)
    before = torch.zeros_like(angles)
    weight = MOMENTUM / (1 + MOMENTUM)
    for _ in range(steps):
        wave = torch.istft(size * angles, WINDOW, HOP, window=window)
        rebuilt = torch.stft(wave, WINDOW, HOP, window=window, pad_mode="reflect", return_complex=True)
        angles = rebuilt - weight * before
        angles = angles / (angles.abs() + 1e-16)
        before = rebuilt
    return torch.istft(size * angles, WINDOW, HOP, window=window)[: frames * HOP]
