"""Speech is found over quiet and loud noise, at any gain, from blocks of any length."""

import sys

import numpy as np
import pytest
import torch

from avtlm.decoding.voice_activity import FRAME, EnergyDetector, FrameLevels, SileroDetector, VoiceDetector, find_detector
from avtlm.errors import MissingExtra

RATE = 16000
SPOKEN = ((1.0, 3.0), (4.0, 4.6), (6.0, 9.0))


def voice(seconds: float, generator: np.random.Generator) -> np.ndarray:
    """Something voiced: harmonics of 120 Hz whose strength moves at the rate of syllables."""
    time = np.arange(round(seconds * RATE)) / RATE
    tone = sum(np.sin(2 * np.pi * 120 * k * time + generator.uniform(0, 6)) / k for k in range(1, 30))
    return (0.1 * tone * (0.6 + 0.4 * np.sin(2 * np.pi * 4 * time))).astype(np.float32)


def recording(seconds: float = 12.0, noise_db: float = -60.0, gain: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Sound, and for every frame whether somebody speaks."""
    generator = np.random.default_rng(0)
    sound = 10 ** (noise_db / 20) * generator.standard_normal(round(seconds * RATE)).astype(np.float32)
    truth = np.zeros(len(sound) // FRAME, bool)
    for start, end in SPOKEN:
        part = voice(end - start, generator)
        sound[round(start * RATE) : round(start * RATE) + len(part)] += part
        truth[round(start * RATE / FRAME) : round(end * RATE / FRAME)] = True
    return gain * sound, truth


def decisions(detector: VoiceDetector, sound: np.ndarray, block: int = 1600) -> np.ndarray:
    parts = [detector.feed(sound[at : at + block]) for at in range(0, len(sound), block)]
    return np.concatenate([*parts, detector.finish()])


@pytest.mark.parametrize("noise_db", [-90.0, -60.0, -35.0])
@pytest.mark.parametrize("gain", [1.0, 0.1])
def test_speech_is_told_from_noise(noise_db: float, gain: float) -> None:
    sound, truth = recording(noise_db=noise_db, gain=gain)
    found = decisions(EnergyDetector(), sound)
    assert len(found) == len(truth)
    assert found[truth].mean() > 0.7
    assert found[~truth].mean() < 0.03


def test_noise_that_grows_is_noise_again_after_the_memory() -> None:
    generator = np.random.default_rng(1)
    sound = np.concatenate([10 ** (level / 20) * generator.standard_normal(15 * RATE) for level in (-70, -35)]).astype(np.float32)
    found = decisions(EnergyDetector(), sound)
    assert found[: 15 * 50].mean() < 0.02
    assert found[-4 * 50 :].mean() < 0.02


def test_silence_has_no_speech() -> None:
    assert not decisions(EnergyDetector(), np.zeros(3 * RATE, np.float32)).any()


@pytest.mark.parametrize("block", [1, 319, 16000, 10**6])
def test_the_size_of_the_blocks_changes_nothing(block: int) -> None:
    sound = recording()[0][: 2 * RATE if block == 1 else None]
    assert np.array_equal(decisions(EnergyDetector(), sound, block), decisions(EnergyDetector(), sound))


def test_less_than_a_second_is_decided_at_the_end() -> None:
    sound = recording()[0][: RATE // 2]
    detector = EnergyDetector()
    assert len(detector.feed(sound)) == 0
    assert len(detector.finish()) == 25


def test_hum_and_offset_do_not_count() -> None:
    time = np.arange(RATE) / RATE
    quiet = FrameLevels().feed((0.3 * np.sin(2 * np.pi * 50 * time) + 0.2).astype(np.float32))
    assert quiet.max() < FrameLevels().feed((0.3 * np.sin(2 * np.pi * 500 * time)).astype(np.float32)).min() - 35


def test_an_unknown_detector_is_refused() -> None:
    with pytest.raises(ValueError, match="vad: 'ear' is unknown; choose one of energy, silero"):
        find_detector("ear")


def test_a_missing_network_names_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "silero_vad", None)
    with pytest.raises(MissingExtra, match=r"silero-vad is needed for finding speech .* pip install 'avtlm\[vad\]'"):
        find_detector("silero")


class _Loud:
    """In the place of the network: a window is speech if it is loud."""

    def reset_states(self) -> None:
        pass

    def __call__(self, window: torch.Tensor, rate: int) -> torch.Tensor:
        assert (len(window), rate) == (512, RATE)
        return torch.tensor(float(window.abs().mean() > 0.01))


@pytest.mark.parametrize("block", [700, 16000])
def test_windows_of_the_network_become_frames(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("avtlm.decoding.voice_activity._silero", _Loud)
    threads = torch.get_num_threads()
    sound, truth = recording()
    found = decisions(SileroDetector(), sound, block)
    assert len(found) == len(truth)
    assert (found == truth).mean() > 0.97
    assert torch.get_num_threads() == threads


def test_the_network_itself_finds_no_speech_in_silence() -> None:
    pytest.importorskip("silero_vad")
    assert not decisions(find_detector("silero"), np.zeros(RATE, np.float32)).any()


def test_state_does_not_grow_with_the_recording() -> None:
    detector = EnergyDetector()
    for _ in range(120):
        detector.feed(np.random.default_rng(0).standard_normal(RATE).astype(np.float32))
    assert len(detector._history) == 500
    assert len(detector._levels._rest) < FRAME
