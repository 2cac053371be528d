"""Claims about mixing speech with noise."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file

from avtlm.data.noise import BabblePool, babble, fit, mean_babble, mean_noise, measured_snr, mix_at_snr

GOLDEN = Path(__file__).parents[1] / "golden" / "evaluation" / "snr_mixing"


def test_int16_mixtures_equal_those_of_av_hubert_within_one_unit():
    given_, wanted = load_file(GOLDEN / "inputs.safetensors"), load_file(GOLDEN / "outputs.safetensors")
    checked = 0
    for name, mixture in wanted.items():
        if name.startswith(("clean.", "loud.")):
            speech, noise, snr = name.split(".", 2)
            ours = mix_at_snr(given_[speech], given_[f"noise_{noise}"], float(snr[3:]))
            assert ours.dtype == np.int16
            assert np.abs(ours.astype(int) - mixture.astype(int)).max() <= 1, name
            checked += 1
    assert checked == 20


def test_float_mixtures_equal_those_of_auto_avsr():
    given_, wanted = load_file(GOLDEN / "inputs.safetensors"), load_file(GOLDEN / "outputs.safetensors")
    for name in [name for name in wanted if name.startswith("float.")]:
        ours = mix_at_snr(given_["speech_float"][0], given_["noise_float"][0], float(name.removeprefix("float.snr")))
        np.testing.assert_allclose(ours, wanted[name][0], rtol=0, atol=json.loads((GOLDEN / "case.json").read_text())["tolerance"]["float"])


def test_mean_babble_equals_that_of_av_hubert():
    given_ = load_file(GOLDEN / "inputs.safetensors")
    ours = mean_babble([given_[f"babble_src{index:02d}"] for index in range(30)])
    np.testing.assert_array_equal(ours, load_file(GOLDEN / "outputs.safetensors")["babble"])


def test_several_noises_are_one_of_the_length_of_the_shortest_and_one_stays_as_it_is() -> None:
    noises = [np.array([1, -2, 3, 9], np.int16), np.array([2, -3, 5], np.int16)]
    np.testing.assert_array_equal(mean_noise(noises), [1, -3, 4])
    np.testing.assert_array_equal(mean_noise(noises[:1]), noises[0])
    with pytest.raises(ValueError, match="at least one noise"):
        mean_noise([])


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(-20, 30), st.integers(1, 900), st.integers(1, 900))
def test_a_mixture_has_the_snr_that_was_asked_for(seed, snr, samples, noise_samples):
    rng = np.random.default_rng(seed)
    speech, noise = rng.normal(size=samples), rng.normal(size=noise_samples) * 100
    assert measured_snr(speech, mix_at_snr(speech, noise, snr)) == pytest.approx(snr, abs=1e-6)


def test_a_loud_mixture_is_scaled_as_a_whole_and_never_wraps():
    speech = (30000 * np.sin(np.arange(4000) / 7)).astype(np.int16)
    noise = np.random.default_rng(0).normal(size=4000)
    mixture = mix_at_snr(speech, noise, -10.0).astype(float)
    exact = mix_at_snr(speech.astype(float), noise, -10.0)
    assert max(mixture.max(), -mixture.min()) >= 32766
    assert np.corrcoef(mixture, exact)[0, 1] > 0.999999


def test_silence_is_not_mixed():
    speech = np.arange(-5, 5, dtype=np.int16)
    for clean, noise in [(speech, np.zeros(3)), (np.zeros(10, np.int16), speech), (np.zeros(0, np.int16), speech)]:
        mixed = mix_at_snr(clean, noise, 0.0)
        np.testing.assert_array_equal(mixed, clean)
        assert mixed is not clean


@pytest.mark.parametrize(
    ("clean", "noise", "snr", "message"),
    [
        (np.zeros((2, 5)), np.ones(5), 0, "one channel"),
        (np.ones(5, np.int32), np.ones(5), 0, "int16 or floating point"),
        (np.ones(5), np.ones(0), 0, "no samples"),
        (np.array([1.0, np.nan]), np.ones(2), 0, "not finite"),
        (np.ones(5), np.ones(2), float("nan"), "not finite"),
    ],
)
def test_signals_that_cannot_be_mixed_are_refused_in_one_sentence(clean, noise, snr, message):
    with pytest.raises(ValueError, match=message):
        mix_at_snr(clean, noise, snr)


def test_noise_is_repeated_or_cut_from_its_start():
    assert fit(np.array([1, 2, 3]), 7).tolist() == [1, 2, 3, 1, 2, 3, 1]
    assert fit(np.array([1, 2, 3]), 2).tolist() == [1, 2]
    assert fit(np.array([1, 2, 3]), 0).tolist() == []


def test_babble_gives_every_voice_the_same_energy_and_depends_on_the_seed_alone():
    rng = np.random.default_rng(3)
    voices = [rng.normal(size=16000) * level + 5 for level in (1, 10, 1000, 3, 7, 0.1)]
    mixed = babble(voices, np.random.default_rng(1), 16000)
    assert mixed.std() == pytest.approx(np.sqrt(6), rel=0.05)
    np.testing.assert_array_equal(mixed, babble(voices, np.random.default_rng(1), 16000))
    assert not np.array_equal(mixed, babble(voices, np.random.default_rng(2), 16000))
    assert len(babble(voices, rng)) == 16000
    assert np.abs(babble([np.zeros(10), np.full(7, 0.1)], rng)).max() == 0


def test_the_babble_behind_a_clip_never_holds_its_own_speaker_and_does_not_depend_on_order():
    rng = np.random.default_rng(0)
    speakers = [f"s{index % 5}" for index in range(20)]
    pool = BabblePool([rng.normal(size=400) for _ in speakers], speakers, voices=6, seed=1)
    chosen = pool.choose("clip", "s2")
    names = [speakers[index] for index in chosen]
    assert len(set(chosen)) == 6
    assert "s2" not in names
    assert set(names) == {"s0", "s1", "s3", "s4"}
    first = pool.noise("clip", "s2", 1000)
    pool.noise("another", "s1", 1000)
    np.testing.assert_array_equal(first, pool.noise("clip", "s2", 1000))
    assert not np.array_equal(first, pool.noise("other", "s2", 1000))
    with pytest.raises(ValueError, match="speakers other than 's2'"):
        BabblePool([np.ones(3)], ["s2"]).choose("clip", "s2")
    with pytest.raises(ValueError, match="one speaker for every clip"):
        BabblePool([np.ones(3)], [])
