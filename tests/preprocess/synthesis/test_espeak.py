"""Synthetic speech depends on nothing but its arguments, and its phones are where they are said to be."""

import sys

import numpy as np
import pytest

from avtlm.errors import MissingExtra
from preprocess.synthesis.espeak import SAMPLE_RATE, Voice, speak
from preprocess.synthesis.voices import ACCENTS, VARIANTS

pytest.importorskip("espeakng_loader", reason="synthetic speech needs the extra 'synthetic'")
TEXT = "place blue at F two now"


@pytest.mark.parametrize("variant", ["f2", "klatt", "m3", "linda"])
def test_what_was_said_before_changes_nothing(variant: str) -> None:
    voice = Voice(f"en-us+{variant}", 150, 50, 50)
    first = speak(TEXT, voice)
    speak("set white in E nine again", Voice("en+klatt3", 170, 30, 70))
    again = speak(TEXT, voice)
    np.testing.assert_array_equal(first.wave, again.wave)
    assert first.phones == again.phones


def test_every_voice_of_the_list_exists_and_speaks_at_a_common_rate() -> None:
    seconds = {}
    for variant in VARIANTS:
        for accent in ACCENTS:
            speech = speak(TEXT, Voice(f"{accent}+{variant}", 150, 50, 50))
            seconds[accent, variant] = speech.phones[-1].start - speech.phones[0].end
    median = float(np.median(list(seconds.values())))
    assert all(0.8 < value / median < 1.2 for value in seconds.values()), seconds


@pytest.mark.parametrize("name", ["en-gb+f2", "en-us+nobody", "xx+f2"])
def test_a_voice_that_does_not_exist_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="has no voice"):
        speak(TEXT, Voice(name, 150, 50, 50))


def test_nothing_to_say_is_refused() -> None:
    with pytest.raises(ValueError, match="says nothing"):
        speak("", Voice("en-us+f2", 150, 50, 50))


def test_phones_cover_the_waveform_without_gaps_and_its_level_is_the_same_for_all() -> None:
    for variant in ("f4", "m1"):
        speech = speak(TEXT, Voice(f"en-us+{variant}", 150, 50, 50), lead=0.13, tail=0.1)
        assert speech.phones[0].start == 0
        assert speech.phones[0].symbol == speech.phones[-1].symbol == "sil"
        assert all(a.end == pytest.approx(b.start) for a, b in zip(speech.phones[:-1], speech.phones[1:], strict=True))
        assert speech.phones[-1].end == pytest.approx(len(speech.wave) / SAMPLE_RATE, abs=1e-3)
        spoken = speech.wave[round(0.13 * SAMPLE_RATE) : -round(0.1 * SAMPLE_RATE)]
        assert float(np.sqrt(np.mean(spoken**2))) == pytest.approx(0.08, rel=1e-3)
        assert np.abs(speech.wave).max() < 1


def test_fricatives_begin_where_their_phones_begin() -> None:
    """The energy above 4 kHz rises within 10 ms of the start of every s that follows a vowel (median)."""
    errors = []
    for variant in ("m1", "m2", "f5", "max", "paul"):
        speech = speak("place white in C seven please", Voice(f"en-us+{variant}", 140, 50, 50))
        power = np.abs(np.fft.rfft(np.lib.stride_tricks.sliding_window_view(speech.wave, 160)[::40] * np.hanning(160), 256)) ** 2
        high = power[:, 64:].sum(1)
        times = (np.arange(len(high)) * 40 + 80) / SAMPLE_RATE
        for before, phone in zip(speech.phones[:-1], speech.phones[1:], strict=True):
            if phone.symbol == "s" and before.symbol[-1:] in "iɪ":
                near = np.abs(times - phone.start) < 0.06
                inside = (times >= phone.start + 0.02) & (times < phone.end - 0.02)
                errors.append(times[near][np.argmax(high[near] > 0.25 * np.median(high[inside]))] - phone.start)
    assert len(errors) >= 5
    assert abs(float(np.median(errors))) < 0.010, errors


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "espeakng_loader", None)
    with pytest.raises(MissingExtra, match="espeakng-loader"):
        speak(TEXT, Voice("en-us+f2", 150, 50, 50))
