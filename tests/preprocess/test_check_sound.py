"""The same recording is found in other codings, louder, and cut; others of the same voice are not."""

import numpy as np
import pytest
import soundfile
import soxr

from preprocess.check_sound import Print, make_print, near_equal

RATE = 16000


def speech(seed: int, seconds: float = 4.0) -> np.ndarray:
    """Noise whose bands rise and fall on their own every tenth of a second, about as syllables do."""
    rng = np.random.default_rng(seed)
    count = round(seconds * RATE)
    spectrum = np.fft.rfft(rng.standard_normal(count))
    frequencies = np.fft.rfftfreq(count, 1 / RATE)
    wave = np.zeros(count)
    for low, high in zip(np.geomspace(150, 4000, 12)[:-1], np.geomspace(150, 4000, 12)[1:], strict=True):
        level = np.interp(np.arange(count), np.arange(0, count + 1600, 1600), rng.uniform(0, 1, count // 1600 + 1) ** 3)
        wave += level * np.fft.irfft(np.where((frequencies >= low) & (frequencies < high), spectrum, 0), count)
    return (0.3 * wave / np.abs(wave).max()).astype(np.float32)


def coded(wave: np.ndarray, tmp: str, suffix: str, rate: int = RATE) -> np.ndarray:
    path = f"{tmp}/a{suffix}"
    soundfile.write(path, wave if rate == RATE else soxr.resample(wave, RATE, rate), rate)
    found, _ = soundfile.read(path, dtype="float32")
    return found if rate == RATE else soxr.resample(found, rate, RATE)


@pytest.mark.parametrize("change", ["mp3", "ogg", "8 kHz", "louder", "cut", "noisy"])
def test_a_changed_copy_is_found_among_others(change: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    folder, wave = str(tmp_path_factory.mktemp("sound")), speech(1)
    noise = np.random.default_rng(9).standard_normal(len(wave)).astype(np.float32)
    copy = {
        "mp3": lambda: coded(wave, folder, ".mp3"),
        "ogg": lambda: coded(wave, folder, ".ogg"),
        "8 kHz": lambda: coded(wave, folder, ".wav", 8000),
        "louder": lambda: np.clip(2 * wave, -1, 1),
        "cut": lambda: wave[12_900:-6_000],
        "noisy": lambda: wave + 0.003 * noise,
    }[change]()
    waves = [speech(seed) for seed in range(2, 10)]
    (pair,) = near_equal([make_print(each) for each in (wave, *waves, copy)])
    assert (pair.first, pair.second) == (0, 9)
    assert pair.differing < 0.2
    assert pair.lag == pytest.approx(-0.806 if change == "cut" else 0.0, abs=0.021)
    assert pair.seconds > 2


def test_a_recording_within_a_longer_one_is_found_with_its_place() -> None:
    long = np.concatenate([speech(20), speech(21), speech(22)])
    (pair,) = near_equal([make_print(long), make_print(speech(21))])
    assert pair.lag == pytest.approx(-4.0, abs=0.05)
    assert pair.seconds == pytest.approx(4.0, abs=0.4)


def test_silence_and_short_clips_equal_nothing() -> None:
    quiet = [make_print(np.zeros(4 * RATE, np.float32)), make_print(np.zeros(4 * RATE, np.float32)), make_print(speech(1)[:3000])]
    assert len(quiet[2].bits) == 0
    assert near_equal(quiet) == []
    assert near_equal([]) == []
    assert near_equal([Print(np.zeros(0, np.uint16), np.zeros(0, bool))] * 2) == []
