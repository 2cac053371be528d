"""Speech is divided at pauses, at quiet places, and into overlapping windows where it never rests; nothing is lost, memory stays flat."""

import itertools
from collections.abc import Sequence

import numpy as np
import pytest

from avtlm.decoding.segments import Segment, Segmenter, SegmentOptions, windows
from avtlm.decoding.voice_activity import FRAME, EnergyDetector

RATE = 16000


class _Marks:
    """A detector to whom speech is what is louder than 0.05, at once."""

    def __init__(self) -> None:
        self._rest = np.zeros(0, np.float32)

    def feed(self, block: np.ndarray) -> np.ndarray:
        self._rest = np.concatenate([self._rest, block])
        count = len(self._rest) // FRAME
        frames, self._rest = self._rest[: count * FRAME].reshape(count, FRAME), self._rest[count * FRAME :]
        return np.abs(frames).max(axis=1) > 0.05 if count else np.zeros(0, bool)

    def finish(self) -> np.ndarray:
        return np.zeros(0, bool)


def sound(seconds: float, spoken: Sequence[tuple[float, float]], level: float = 0.3) -> np.ndarray:
    wave = 0.001 * np.random.default_rng(0).standard_normal(round(seconds * RATE)).astype(np.float32)
    for start, end in spoken:
        part = slice(round(start * RATE), round(end * RATE))
        wave[part] += level * np.sin(2 * np.pi * 500 * np.arange(part.stop - part.start) / RATE).astype(np.float32)
    return wave


def divide(wave: np.ndarray, options: SegmentOptions, block: int = 8000) -> list[Segment]:
    segmenter = Segmenter(_Marks(), options)
    found = [segment for at in range(0, len(wave), block) for segment in segmenter.feed(wave[at : at + block])]
    return found + segmenter.finish()


def spans(segments: Sequence[Segment]) -> list[tuple[float, float]]:
    return [(round(segment.start, 2), round(segment.end, 2)) for segment in segments]


def test_pauses_divide_and_speech_is_padded() -> None:
    wave = sound(10.0, [(1.0, 2.0), (2.3, 3.0), (5.0, 5.04), (7.0, 9.9)])
    found = divide(wave, SegmentOptions())
    assert spans(found) == [(0.8, 3.2), (6.8, 10.0)]  # 40 ms are no speech, and 0.3 s no pause
    for segment in found:
        assert segment.wave is not None
        begin = round(segment.start * RATE)
        assert np.array_equal(segment.wave, wave[begin : begin + len(segment.wave)])
        assert not segment.overlaps


@pytest.mark.parametrize("block", [100, 5000, 10**6])
def test_the_size_of_the_blocks_changes_nothing(block: int) -> None:
    wave = sound(30.0, [(1.0, 2.0), (2.8, 14.0), (20.0, 29.0)])
    options = SegmentOptions(window=5.0)
    assert spans(divide(wave, options, block)) == spans(divide(wave, options))


def test_padding_never_takes_in_the_neighbour() -> None:
    found = divide(sound(6.0, [(1.0, 2.0), (2.5, 3.5)]), SegmentOptions(min_silence=0.3, padding=0.3))
    assert spans(found) == [(0.7, 2.3), (2.3, 3.8)]


def test_a_short_pause_in_the_second_half_is_where_long_speech_is_cut() -> None:
    found = divide(sound(9.0, [(0.5, 2.6), (2.9, 4.2), (4.5, 8.0)]), SegmentOptions(window=5.0, min_silence=0.5))
    assert len(found) == 2
    assert 4.2 < found[0].end < 4.5
    assert found[1].start == pytest.approx(found[0].end)
    assert not found[1].overlaps


def test_speech_without_a_pause_gives_windows_that_overlap_at_the_quietest_place() -> None:
    wave = sound(12.0, [(0.5, 11.0)])
    wave[round(4.4 * RATE) : round(4.6 * RATE)] *= 0.3  # quieter, but no pause
    found = divide(wave, SegmentOptions(window=5.0, overlap=1.0))
    assert [segment.overlaps for segment in found] == [False, *[True] * (len(found) - 1)]
    assert (found[0].end + found[1].start) / 2 == pytest.approx(4.5, abs=0.06)
    assert found[0].end - found[1].start == pytest.approx(1.0, abs=0.05)
    assert max(segment.end - segment.start for segment in found) <= 5.0
    assert found[-1].end == pytest.approx(11.2, abs=0.03)
    assert all(later.start < earlier.end for earlier, later in itertools.pairwise(found))


def test_the_overlap_is_a_quarter_of_the_window_at_most() -> None:
    assert SegmentOptions(window=4.0, overlap=2.0).shared == 1.0


def test_what_is_open_is_told_and_ends_with_the_stream() -> None:
    wave = sound(3.0, [(1.0, 3.0)])
    segmenter = Segmenter(_Marks())
    assert segmenter.feed(wave[: RATE // 2]) == []
    assert segmenter.open() is None
    segmenter.feed(wave[RATE // 2 :])
    going_on = segmenter.open()
    assert going_on is not None
    assert (round(going_on.start, 2), round(going_on.end, 2)) == (0.8, 3.0)
    assert spans(segmenter.finish()) == [(0.8, 3.0)]
    assert segmenter.open() is None


def test_memory_is_that_of_the_open_segment() -> None:
    segmenter = Segmenter(EnergyDetector(), SegmentOptions(window=10.0))
    wave = sound(10.0, [(1.0, 8.0)])
    most = 0
    for _ in range(30):
        segmenter.feed(wave)
        most = max(most, len(segmenter._sound), FRAME * len(segmenter._levels))
    assert most <= 22 * RATE
    assert segmenter.seconds == pytest.approx(300)


def test_all_speech_is_in_some_segment() -> None:
    rng = np.random.default_rng(3)
    for window in (3.0, 7.0):
        edges = np.cumsum(rng.uniform(0.15, 3.0, 40))
        spoken = [(float(a), float(b)) for a, b in zip(edges[::2], edges[1::2], strict=True)]
        found = divide(sound(edges[-1] + 1, spoken), SegmentOptions(window=window))
        for start, end in spoken:
            covered = sum(max(0.0, min(end, s.end) - max(start, s.start)) for s in found)
            assert covered >= end - start - 0.05


@pytest.mark.parametrize(("seconds", "expected"), [(4.0, [(0.0, 4.0)]), (10.0, [(0.0, 5.0), (4.0, 9.0), (8.0, 10.0)]), (5.5, [(0.0, 5.5)])])
def test_windows_cover_what_has_no_sound(seconds: float, expected: list[tuple[float, float]]) -> None:
    found = list(windows(seconds, SegmentOptions(window=5.0, overlap=1.0)))
    assert spans(found) == expected
    assert [segment.overlaps for segment in found] == [False, *[True] * (len(found) - 1)]


@pytest.mark.parametrize(
    ("options", "reason"), [({"window": 0.5}, "at least 1 second"), ({"padding": -1}, "padding: -1"), ({"min_silence": 0}, "min_silence")]
)
def test_impossible_lengths_are_refused(options: dict[str, float], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        SegmentOptions(**options)
