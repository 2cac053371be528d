"""Waveforms from log mel spectrograms without a vocoder."""

import numpy as np
import pytest
import torch
from torch import Tensor

from avtlm.frontends.griffin_lim import griffin_lim, magnitudes
from avtlm.frontends.mel import BANDS, SILENCE, log_mel, mel_bands


def tones(seconds: float = 1.0) -> Tensor:
    """Three tones that swell, one of them gliding."""
    time = torch.arange(round(16000 * seconds)) / 16000
    glide = torch.sin(2 * torch.pi * (200 * time + 150 * time**2))
    steady = 0.5 * torch.sin(2 * torch.pi * 700 * time) + 0.2 * torch.sin(2 * torch.pi * 2500 * time)
    return 0.2 * (0.3 + 0.7 * time / seconds) * (glide + steady)


def vowels(seconds: float = 1.0) -> Tensor:
    """A pulse train of 120 Hz through two resonances that move, with hiss in every other fifth of a second: much like a voice."""
    rng = np.random.default_rng(0)
    count = round(16000 * seconds)
    source = np.zeros(count)
    source[:: 16000 // 120] = 1.0
    hiss = 0.05 * rng.normal(size=count) * (np.arange(count) // 3200 % 2)
    out = np.zeros(count + 2)
    for resonance in (500.0, 1500.0):
        for n in range(count):
            centre = resonance * (1.0 + 0.2 * np.sin(2 * np.pi * n / count))
            radius = np.exp(-np.pi * 80 / 16000)
            out[n + 2] += source[n] + 2 * radius * np.cos(2 * np.pi * centre / 16000) * out[n + 1] - radius**2 * out[n]
    wave = out[2:] / np.abs(out).max() * 0.5 + hiss
    return torch.from_numpy(wave.astype(np.float32))


def distance(wave: Tensor, mel: Tensor) -> float:
    """Between the spectrogram of a waveform and the one that was asked for: root mean square in dB, of what is not silent."""
    found = log_mel(wave)[: len(mel)]
    heard = mel > mel.max() - 4.0
    return float(20 * (found - mel)[heard].square().mean().sqrt())


def test_magnitudes_add_up_to_the_bands_they_were_made_of() -> None:
    mel = log_mel(vowels(0.4))
    found = magnitudes(mel)
    assert bool((found >= 0).all())
    back = (found @ mel_bands().t()).log10()
    heard = mel > mel.max() - 4.0
    assert float(20 * (back - mel)[heard].abs().max()) < 1.0  # dB


@pytest.mark.parametrize(("sound", "bound"), [(tones(), 6.0), (vowels(), 3.0)], ids=["tones", "vowels"])
def test_the_spectrogram_comes_back_within_a_few_decibels(sound: Tensor, bound: float) -> None:
    """Nothing but tones is the worst case: what lies between them is 60 dB softer, and phases that are guessed fill it."""
    mel = log_mel(sound)
    wave = griffin_lim(mel, seed=0)
    assert wave.shape == (256 * len(mel),)
    assert distance(wave, mel) < bound


def test_a_tone_keeps_its_pitch_and_its_loudness() -> None:
    time = torch.arange(16000) / 16000
    wave = griffin_lim(log_mel(0.3 * torch.sin(2 * torch.pi * 1000 * time)))[2000:14000]
    loudest = int(torch.fft.rfft(wave * torch.hann_window(len(wave))).abs().argmax()) * 16000 / len(wave)
    assert loudest == pytest.approx(1000, abs=20)
    assert float(wave.square().mean().sqrt()) == pytest.approx(0.3 / 2**0.5, rel=0.15)


def test_a_seed_repeats_the_waveform_and_leaves_global_numbers_alone() -> None:
    mel = log_mel(tones(0.3))
    torch.manual_seed(7)
    first = griffin_lim(mel, seed=1)
    drawn = torch.rand(())
    torch.manual_seed(8)
    assert torch.equal(first, griffin_lim(mel, seed=1))
    assert not torch.equal(first, griffin_lim(mel, seed=2))
    torch.manual_seed(7)
    assert torch.equal(drawn, torch.rand(()))


@pytest.mark.parametrize("frames", [1, 2, 5])
def test_few_frames_make_a_waveform_too(frames: int) -> None:
    wave = griffin_lim(torch.full((frames, BANDS), -2.0))
    assert wave.shape == (256 * frames,)
    assert bool(wave.isfinite().all())
    assert float(wave.abs().max()) > 0


def test_silence_stays_silent() -> None:
    assert float(griffin_lim(torch.full((20, BANDS), SILENCE)).abs().max()) < 1e-6


@pytest.mark.parametrize("shape", [(10, 6), (0, BANDS), (2, 10, BANDS)])
def test_other_spectrograms_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="Griffin-Lim takes"):
        griffin_lim(torch.zeros(shape))


def test_values_of_a_model_that_has_learned_nothing_stay_finite() -> None:
    wave = griffin_lim(100.0 * torch.randn(20, BANDS, generator=torch.Generator().manual_seed(0)))
    assert bool(wave.isfinite().all())
