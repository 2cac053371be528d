"""Mel-cepstra tell voices apart by their envelopes, not by their loudness or pitch."""

import math

import numpy as np
import pytest

from avtlm.evaluation.cepstra import ALPHA, BINS, HOP, ORDER, WINDOW, mel_cepstra, warping
from avtlm.evaluation.speech_quality import mel_cepstral_distortion


def buzz(pitch: float, resonances: tuple[float, ...], seconds: float = 0.5) -> np.ndarray:
    """A pulse train through resonances of 80 Hz width."""
    samples = int(seconds * 16000)
    phase = np.cumsum(np.full(samples, pitch / 16000))
    wave = np.diff(np.floor(phase), prepend=0.0)
    for frequency in resonances:
        radius, angle = math.exp(-math.pi * 80 / 16000), 2 * math.pi * frequency / 16000
        out = np.zeros(samples)
        for index in range(samples):
            before = out[index - 1] if index else 0.0
            earlier = out[index - 2] if index > 1 else 0.0
            out[index] = wave[index] + 2 * radius * math.cos(angle) * before - radius**2 * earlier
        wave = out
    return np.asarray(0.3 * wave / np.abs(wave).max())


def test_there_is_a_frame_every_five_milliseconds() -> None:
    assert mel_cepstra(np.random.default_rng(0).normal(0, 0.1, 16000)).shape == ((16000 - WINDOW) // HOP + 1, 1 + ORDER)


def test_without_warping_it_is_the_cepstrum_of_the_spectrum() -> None:
    wave = np.random.default_rng(0).normal(0, 0.1, WINDOW)
    [found] = mel_cepstra(wave, 20, 0.0)
    power = np.abs(np.fft.rfft(wave * np.hanning(WINDOW), BINS)) ** 2
    angles = 2 * math.pi * np.arange(BINS) / BINS
    logarithms = 0.5 * np.log(np.concatenate([power, power[-2:0:-1]]) + 1e-8)  # of the amplitudes, all around the circle
    assert found[0] == pytest.approx(logarithms.mean())
    assert found[1:] == pytest.approx([2 * (logarithms * np.cos(n * angles)).mean() for n in range(1, 21)])


def test_warping_is_the_all_pass_change_of_frequency() -> None:
    """A cepstrum means the same spectrum at warped frequencies (sum of c_n z^-n at the point that the all-pass moves there)."""
    rng = np.random.default_rng(0)
    cepstrum = rng.normal(0, 1, 12) * 0.7 ** np.arange(12)
    warped = cepstrum @ warping(12, 200, ALPHA)
    omega = np.linspace(0.1, 3.0, 20)
    point = np.exp(-1j * omega)
    moved = (point - ALPHA) / (1 - ALPHA * point)  # z^-1 on the mel scale
    plain = sum(cepstrum[n] * point**n for n in range(12))
    again = sum(warped[n] * moved**n for n in range(201))
    assert np.abs(plain - again).max() < 1e-6


def test_loudness_does_not_count_and_an_envelope_counts_more_than_pitch() -> None:
    vowel = buzz(120, (700, 1200))
    assert mel_cepstral_distortion(mel_cepstra(vowel), mel_cepstra(0.5 * vowel)) < 0.2
    pitch = mel_cepstral_distortion(mel_cepstra(vowel), mel_cepstra(buzz(135, (700, 1200))))
    envelope = mel_cepstral_distortion(mel_cepstra(vowel), mel_cepstra(buzz(120, (300, 2300))))
    assert envelope > 2 * pitch


@pytest.mark.parametrize("wave", [np.zeros(WINDOW - 1), np.zeros((2, 16000))])
def test_a_clip_without_a_frame_is_refused(wave: np.ndarray) -> None:
    with pytest.raises(ValueError, match=r"give one channel of at least 400 \(25 ms\)"):
        mel_cepstra(wave)
