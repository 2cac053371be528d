import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from avtlm.evaluation.speech_quality import cepstral_distances, mel_cepstral_distortion, pesq, separation_gain, si_sdr, stoi, warp


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape)


def test_si_sdr_does_not_ask_for_the_scale_and_falls_by_the_noise() -> None:
    target = noise(8000)
    orthogonal = noise(8000, seed=1)
    orthogonal -= orthogonal.mean()
    centred = target - target.mean()
    orthogonal -= (orthogonal @ centred) / (centred @ centred) * centred
    orthogonal *= 0.1 * np.linalg.norm(centred) / np.linalg.norm(orthogonal)
    assert si_sdr(3 * (target + orthogonal), target) == pytest.approx(20.0, abs=1e-3)
    assert si_sdr(target + 5.0, target) > 60  # a constant is no distortion once means are removed
    assert si_sdr(target + 5.0, target, zero_mean=False) < 0


def test_the_gain_is_that_of_the_best_permutation() -> None:
    targets = noise(2, 4000)
    mixture = targets.sum(axis=0)
    gain = separation_gain(targets[::-1] + 0.1 * noise(2, 4000, seed=3), targets, mixture)
    assert gain == pytest.approx(20.0, abs=0.7)
    assert separation_gain(np.stack([mixture, mixture]), targets, mixture) == pytest.approx(0.0, abs=1e-9)


@settings(deadline=None)
@given(st.integers(1, 5), st.integers(1, 5), st.integers(0, 1000))
def test_warping_finds_the_cheapest_of_all_paths(rows: int, columns: int, seed: int) -> None:
    distance = np.random.default_rng(seed).uniform(size=(rows, columns))

    def cheapest(i: int, j: int) -> float:
        before = [(i - 1, j - 1), (i - 1, j), (i, j - 1)]
        costs = [cheapest(*cell) for cell in before if min(cell) >= 0]
        return float(distance[i, j]) + (min(costs) if costs else 0.0)

    found = warp(distance)
    assert found.total == pytest.approx(cheapest(rows - 1, columns - 1))
    assert found.total == pytest.approx(distance[tuple(found.path.T)].sum())
    assert found.path[0].tolist() == [0, 0]
    assert found.path[-1].tolist() == [rows - 1, columns - 1]
    assert {tuple(step) for step in np.diff(found.path, axis=0).tolist()} <= {(1, 0), (0, 1), (1, 1)}


def test_the_distortion_leaves_out_the_energy_and_forgives_time() -> None:
    cepstra = noise(12, 25)
    slower = np.repeat(cepstra, 2, axis=0)
    slower[:, 0] += 7.0
    assert mel_cepstral_distortion(cepstra, slower) == pytest.approx(0.0)
    assert mel_cepstral_distortion(cepstra, slower, align=False) > 1
    shifted = cepstra.copy()
    shifted[:, 3] += 1.0
    assert mel_cepstral_distortion(cepstra, shifted, align=False) == pytest.approx(10 / math.log(10) * math.sqrt(2))


def test_intelligibility_falls_with_noise() -> None:
    speech = noise(16000) * np.repeat(np.abs(noise(100, seed=4)), 160)
    clean, noisy = stoi(speech, speech), stoi(speech + 2 * noise(16000, seed=5), speech)
    assert clean == pytest.approx(1.0)
    assert noisy < 0.9


def test_perceptual_quality_falls_with_noise_and_silence_has_none() -> None:
    pytest.importorskip("pesq", reason="pesq, which is compiled on installation, is not installed")
    time = np.arange(16000) / 16000
    speech = 0.3 * np.sin(2 * np.pi * 200 * time) * (np.sin(2 * np.pi * 3 * time) > 0)
    assert pesq(speech, speech) > pesq(speech + 0.1 * noise(16000), speech)
    with pytest.raises(ValueError, match="PESQ cannot be computed"):
        pesq(np.zeros(1000), np.zeros(1000))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: si_sdr(np.zeros(3), np.zeros(4)), "equal and not empty"),
        (lambda: warp(np.zeros((0, 4))), "0 x 4"),
        (lambda: cepstral_distances(np.zeros((3, 25)), np.zeros((3, 13))), "of the same order"),
        (lambda: mel_cepstral_distortion(np.zeros((0, 25)), np.zeros((3, 25)), align=False), "without a frame"),
        (lambda: stoi(np.zeros(3), np.zeros(4)), "3 samples for a target of 4"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_sentence(call: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        call()  # type: ignore[operator]
